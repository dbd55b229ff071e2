"""All networks in a list: to use, import, rename, export and delete them."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt, QUrl, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QFileDialog,
    QInputDialog,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QWidget,
)

from napari_vdsr.forms import make_collapsible, make_column, make_row, make_text
from napari_vdsr.models import library
from napari_vdsr.models.box import KINDS, NEWS
from napari_vdsr.words import sentence

ROLE = Qt.ItemDataRole.UserRole
BUILT_IN = "This network comes with the plugin: it can be neither renamed nor deleted."


class ModelsPage(QWidget):
    """The networks of the package and the user's own, and what the chosen one says of itself."""

    wanted = Signal(object)  # what `load_model` takes for a network that Upscale is to use

    def __init__(self) -> None:
        super().__init__()
        self.models = QListWidget()
        self.models.setFixedHeight(160)
        self.card, self.details = make_text(), make_text()
        self.folded = make_collapsible("Details", self.details, open_=False)
        self.use_button = QPushButton("Use in Upscale")
        self.import_button = QPushButton("Import…")
        self.import_button.setToolTip("Adds the network of a file. A file can also be dropped onto napari's window.")
        self.rename_button = QPushButton("Rename…")
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("Copies the file, for another computer or for the command vdsr.")
        self.delete_button = QPushButton("Delete…")
        self.folder_button = QPushButton("Open folder")
        self.folder_button.setToolTip("Shows where the files of your own networks are.")
        rows = [
            make_row(self.use_button, self.import_button),
            make_row(self.rename_button, self.export_button),
            make_row(self.delete_button, self.folder_button),
        ]
        make_column(self, self.models, *rows, self.card, self.folded, margin=6).addStretch()
        self.models.currentItemChanged.connect(self._show_card)
        self.use_button.clicked.connect(self.use)
        self.import_button.clicked.connect(self._ask_to_import)
        self.rename_button.clicked.connect(self._ask_to_rename)
        self.export_button.clicked.connect(self._ask_to_export)
        self.delete_button.clicked.connect(self._ask_to_delete)
        self.folder_button.clicked.connect(self._open_folder)
        NEWS.changed.connect(self.list_again)
        self.list_again()

    def list_again(self, old: str = "", new: str = "") -> None:
        """Show the networks there are, keeping the choice."""
        network = self.chosen()
        self.models.blockSignals(True)
        self.models.clear()
        for other in library.list_networks():
            item = QListWidgetItem(other.title, self.models)
            item.setData(ROLE, other)
            item.setToolTip(other.sentence)
        self.models.blockSignals(False)
        model = network.model if network is not None else None
        self._choose(new if old and model == old else model)

    def chosen(self) -> library.Network | None:
        """The network that is chosen in the list."""
        item = self.models.currentItem()
        return item.data(ROLE) if item else None

    def choose(self, name: str) -> None:
        """Choose one of the user's own networks by its name."""
        self._choose(str(library.find_model(name)))

    def _choose(self, model: str | None) -> None:
        items = [self.models.item(row) for row in range(self.models.count())]
        found = [item for item in items if item is not None and item.data(ROLE).model == model]
        self.models.setCurrentItem(found[0] if found else items[0])
        self._show_card()

    def _show_card(self) -> None:
        """What is known of the chosen network."""
        network = self.chosen()
        own = network is not None and network.own
        for button in (self.rename_button, self.delete_button):
            button.setEnabled(own)
            button.setToolTip("" if own else BUILT_IN)
        self.export_button.setEnabled(own)
        self.card.setText(network.sentence if network is not None else "")
        self.details.setText(network.details if network is not None else "")

    def use(self) -> None:
        """Open the chosen network in Upscale."""
        network = self.chosen()
        if network is not None:
            self.wanted.emit(network.model)

    def import_file(self, path: str) -> None:
        """Add the network of a file to the user's own."""
        if (target := self._managed(partial(library.import_model, path))) is not None:
            self.choose(target.stem)

    def rename(self, new: str) -> None:
        """Give the chosen network another name."""
        network = self.chosen()
        if network is not None and network.own:
            self._managed(partial(library.rename_model, network.name, new), old=str(network.model))

    def export(self, target: str) -> None:
        """Copy the file of the chosen network."""
        if self._managed(partial(library.export_model, self._own_name(), target)):
            show_info(f"“{self._own_name()}” is now also in {target}.")

    def delete(self) -> None:
        """Delete the chosen network."""
        self._managed(partial(library.delete_model, self._own_name()))

    def _own_name(self) -> str:
        network = self.chosen()
        return network.name if network is not None and network.own else ""

    def _managed(self, action: Any, *, old: str = "") -> Any:
        """Do something with a file and tell all lists; its result, or None after an error that was shown."""
        try:
            result = action()
        except (OSError, ValueError) as error:
            show_error(sentence(error))
            result, old = None, ""
        NEWS.changed.emit(old, str(result) if old else "")
        return result

    def _open_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(library.models_folder())))

    def _ask_to_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import a network", "", KINDS)
        if path:
            self.import_file(path)

    def _ask_to_rename(self) -> None:
        new, agreed = QInputDialog.getText(self, "Rename", "New name", text=self._own_name())
        if agreed:
            self.rename(new)

    def _ask_to_export(self) -> None:
        suffix = library.SUFFIX
        target, _ = QFileDialog.getSaveFileName(self, "Export", self._own_name() + suffix, f"Networks (*{suffix})")
        if target:
            self.export(target)

    def _ask_to_delete(self) -> None:
        buttons = QMessageBox.StandardButton
        words = f"Delete the model “{self._own_name()}”? This cannot be undone."
        if QMessageBox.question(self, "Delete", words, buttons.Yes | buttons.No) == buttons.Yes:
            self.delete()
