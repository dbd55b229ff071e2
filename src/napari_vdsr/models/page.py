"""The user's own networks: a list to use, rename, export and delete them."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFileDialog,
    QInputDialog,
    QListWidget,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_vdsr.forms import make_row, make_text, sentence
from napari_vdsr.models import library as _models


class ModelsPage(QWidget):
    """The networks that were fine-tuned, and the card of one.

    Attributes
    ----------
    changed : Signal()
        There are others now, or they have other names.
    wanted : Signal(object)
        The path of a network that Upscale is to use.
    """

    changed = Signal()
    wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.models = QListWidget()
        self.models.setFixedHeight(160)
        self.card = make_text()
        self.use_button = QPushButton("Use in Upscale")
        self.rename_button = QPushButton("Rename…")
        self.export_button = QPushButton("Export…")
        self.delete_button = QPushButton("Delete…")
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(self.models)
        column.addLayout(make_row(self.use_button, self.rename_button))
        column.addLayout(make_row(self.export_button, self.delete_button))
        column.addWidget(self.card)
        column.addStretch()
        self.models.currentItemChanged.connect(self._show_card)
        self.use_button.clicked.connect(self.use)
        self.rename_button.clicked.connect(self._ask_to_rename)
        self.export_button.clicked.connect(self._ask_to_export)
        self.delete_button.clicked.connect(self._ask_to_delete)

    def list_again(self) -> None:
        """Show the user's networks."""
        before = self.chosen()
        self.models.clear()
        self.models.addItems(list(_models.list_models()))
        if before is not None:
            self.choose(before)
        self._show_card()

    def chosen(self) -> str | None:
        """The name of the network that is chosen in the list."""
        item = self.models.currentItem()
        return item.text() if item else None

    def choose(self, name: str) -> None:
        """Choose one of the user's networks."""
        for item in self.models.findItems(name, Qt.MatchFlag.MatchExactly):
            self.models.setCurrentItem(item)

    def _show_card(self) -> None:
        """What is known of the chosen network."""
        name = self.chosen()
        for button in (self.use_button, self.rename_button, self.export_button, self.delete_button):
            button.setEnabled(name is not None)
        if name is None:
            self.card.setText("" if self.models.count() else "Networks that you fine-tune are listed here.")
            return
        try:
            self.card.setText(_models.describe_model(name))
        except (OSError, ValueError) as error:
            self.card.setText(sentence(error))

    def use(self) -> None:
        """Open the chosen network in Upscale."""
        name = self.chosen()
        if name is not None:
            self._managed(lambda: self.wanted.emit(_models.find_model(name)))

    def rename(self, new: str) -> None:
        """Give the chosen network another name."""
        name = self.chosen()
        if name is not None and self._managed(partial(_models.rename_model, name, new)):
            self.choose(new)

    def export(self, target: str) -> None:
        """Copy the file of the chosen network."""
        name = self.chosen()
        if name is not None and self._managed(partial(_models.export_model, name, target)):
            show_info(f"“{name}” is now also in {target}.")

    def delete(self) -> None:
        """Delete the chosen network."""
        name = self.chosen()
        if name is not None:
            self._managed(partial(_models.delete_model, name))

    def _managed(self, action: Any) -> bool:
        """Do something with a file; whether it went well."""
        try:
            action()
        except (OSError, ValueError) as error:
            show_error(sentence(error))
            return False
        finally:
            self.list_again()
            self.changed.emit()
        return True

    def _ask_to_rename(self) -> None:
        new, agreed = QInputDialog.getText(self, "Rename", "New name", text=self.chosen() or "")
        if agreed:
            self.rename(new)

    def _ask_to_export(self) -> None:
        target, _ = QFileDialog.getSaveFileName(
            self, "Export", f"{self.chosen()}{_models.SUFFIX}", f"Networks (*{_models.SUFFIX})"
        )
        if target:
            self.export(target)

    def _ask_to_delete(self) -> None:
        buttons = QMessageBox.StandardButton
        words = f"Delete the model “{self.chosen()}”? It cannot be brought back."
        if QMessageBox.question(self, "Delete", words, buttons.Yes | buttons.No) == buttons.Yes:
            self.delete()
