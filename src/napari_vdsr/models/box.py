"""The choice of a network: those of the package, the user's own, and files."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QFileDialog

from napari_vdsr.forms import narrow
from napari_vdsr.models import library

FROM_FILE = "From a file…"
KINDS = "Networks (*.safetensors *.pth *.pt *.ckpt *.npz *.mat *.bioimageio.zip)"


class News(QObject):
    """Tells the lists of networks in all widgets to look again."""

    changed = Signal(str, str)  # the user's own networks; with the old and the new path of one that was renamed


NEWS = News()


class ModelBox(QComboBox):
    """A list of networks that follows the user's library; the data of an entry is what `load_model` takes.

    `others` are further entries before the last one, which are their own data.
    """

    def __init__(self, *others: str) -> None:
        super().__init__()
        narrow(self)
        self._others = others
        self._files: list[str] = []
        self._before: str | None = None  # what was chosen before "From a file…"
        self.list_again()
        NEWS.changed.connect(self.list_again)
        self.activated.connect(self._remember)

    def showPopup(self) -> None:
        """Open the list, as it is now."""
        self.list_again()
        view = self.view()
        if view is not None:
            view.setMinimumWidth(view.sizeHintForColumn(0) + 24)
        super().showPopup()

    def list_again(self, old: str = "", new: str = "") -> None:
        """Offer the networks there are, keeping the choice, also of one whose file was renamed from `old` to `new`."""
        chosen = self.currentData()
        wanted = new if old and chosen == old else chosen
        networks = library.list_networks()
        entries = [(network.title, network.model, f"<qt>{network.sentence}</qt>") for network in networks]
        listed = {network.model for network in networks}
        self._files = [path for path in self._files if path not in listed and Path(path).is_file()]
        entries += [(Path(path).name, path, path) for path in self._files]
        entries += [(other, other, "") for other in (*self._others, FROM_FILE)]
        self.blockSignals(True)
        self.clear()
        for number, (words, data, tip) in enumerate(entries):
            self.addItem(words, data)
            self.setItemData(number, tip, Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(max(0, self.findData(wanted) if wanted is not None else 0))
        self._before = self.currentData()
        self.blockSignals(False)
        if self.currentData() != wanted:  # it is gone
            self.activated.emit(self.currentIndex())

    def choose(self, path: str | None) -> None:
        """Choose the network of a file, also one that is not listed yet; an empty path goes back to the default."""
        if path and self.findData(path) < 0:
            self._files.append(path)
        self.list_again()
        self.setCurrentIndex(max(0, self.findData(path)) if path else 0)
        self._before = self.currentData()

    def ask_for_file(self) -> None:
        """Let the user choose a file; the choice stays as it was if the dialog is cancelled."""
        path, _ = QFileDialog.getOpenFileName(self, "A network", "", KINDS)
        self.choose(path or self._before)

    def _remember(self) -> None:
        if self.currentData() != FROM_FILE:
            self._before = self.currentData()
