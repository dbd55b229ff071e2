"""The choice of registered pairs of layers: any number of them, each of a blurred and a sharp layer."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_vdsr.forms import fill, make_combo, make_form, make_row


class PairRow(QWidget):
    """One pair."""

    def __init__(self) -> None:
        super().__init__()
        self.low = make_combo("What the microscope gives: fewer pixels, or as many but less sharp.")
        self.sharp = make_combo("The same field of view, sharp, registered to the other to less than a pixel.")
        self.remove_button = QToolButton()
        self.remove_button.setText("\N{MULTIPLICATION SIGN}")
        self.remove_button.setToolTip("Leaves this pair out.")
        form = make_form()
        form.addRow("Blurred", self.low)
        form.addRow("Sharp", make_row(self.sharp, self.remove_button))
        self.setLayout(form)


class PairRows(QWidget):
    """All pairs."""

    changed = Signal()  # another choice was made

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[PairRow] = []
        self._entries: list[tuple[str, Any]] = []
        self.add_button = QPushButton("Another pair")
        self.add_button.setToolTip("More fields of view teach more; a strip of each is held out.")
        self.add_button.clicked.connect(self.add)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.add_button)
        self.add()

    def add(self) -> None:
        """Add a pair, of the first layers that are in none."""
        row = PairRow()
        self._fill(row)
        for combo in (row.low, row.sharp):
            combo.currentIndexChanged.connect(self.changed)
        row.remove_button.clicked.connect(lambda: self.remove(row))
        self.rows.append(row)
        self._column.insertWidget(len(self.rows) - 1, row)
        self._show_buttons()

    def remove(self, row: PairRow) -> None:
        """Remove a pair."""
        self.rows.remove(row)
        self._column.removeWidget(row)
        row.deleteLater()
        self._show_buttons()

    def _show_buttons(self) -> None:
        for row in self.rows:
            row.remove_button.setVisible(len(self.rows) > 1)
        self.changed.emit()

    def offer(self, layers: list[Any]) -> None:
        """Offer these layers, keeping what is chosen."""
        self._entries = [(layer.name, layer) for layer in layers]
        for row in self.rows:
            self._fill(row)

    def _fill(self, row: PairRow) -> None:
        """Offer all layers in a row; a new one has the first that are in no pair."""
        new = row.low.count() == 0
        fill(row.low, self._entries)
        fill(row.sharp, self._entries)
        others = [other for other in self.rows if other is not row]
        taken = [combo.currentData() for other in others for combo in (other.low, other.sharp)]
        free = [number for number, (_, layer) in enumerate(self._entries) if layer not in taken]
        for combo, number in zip((row.low, row.sharp), free, strict=False):
            if new:
                combo.setCurrentIndex(number)

    def chosen(self) -> list[tuple[Any, Any]]:
        """The blurred and the sharp layer of each pair; None where there are no layers."""
        return [(row.low.currentData(), row.sharp.currentData()) for row in self.rows]
