"""The choice of registered pairs of layers: any number of them, each of a blurred and a sharp layer."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import Container
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QToolButton, QWidget

from napari_vdsr.forms import choice, make_column, make_row, refill


class PairRow(QWidget):
    """One pair; `offer` gives the layers that there are now, as magicgui asks for them."""

    def __init__(self, offer: Any) -> None:
        super().__init__()
        self.low = choice("Blurred", "What the microscope gives: fewer pixels, or as many but less sharp.", offer)
        sharp = "The same field of view, sharp, registered to the other to less than a pixel."
        self.sharp = choice("Sharp", sharp, offer)
        self.boxes = self.low, self.sharp
        self.remove_button = QToolButton()
        self.remove_button.setText("\N{MULTIPLICATION SIGN}")
        self.remove_button.setToolTip("Leaves this pair out.")
        both: Container[Any] = Container(widgets=self.boxes)
        both.margins = (0, 0, 0, 0)
        self.setLayout(make_row(both.native, self.remove_button))


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
        self._column = make_column(self, self.add_button)
        self.add()

    def add(self) -> None:
        """Add a pair, of the first layers that are in none."""
        row = PairRow(lambda box: self._entries)
        self._choose_free(row)
        for box in row.boxes:
            box.changed.connect(lambda *_: self.changed.emit())
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
            empty = not row.low.choices
            for box in row.boxes:
                with box.changed.blocked():
                    refill(box)
            if empty:
                self._choose_free(row)

    def _choose_free(self, row: PairRow) -> None:
        """Choose the first layers that are in no other pair."""
        taken = [box.value for other in self.rows if other is not row for box in other.boxes]
        free = [layer for _, layer in self._entries if layer not in taken]
        for box, layer in zip(row.boxes, free, strict=False):
            box.value = layer

    def chosen(self) -> list[tuple[Any, Any]]:
        """The blurred and the sharp layer of each pair; None where there are no layers."""
        return [(row.low.value, row.sharp.value) for row in self.rows]
