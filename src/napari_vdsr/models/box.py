"""The choice of a network: the default, embedded ones, the user's own, and files."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QComboBox, QFileDialog, QWidget

from napari_vdsr.background.pytorch import embedded_models
from napari_vdsr.models.library import list_models

FROM_FILE = "From a file…"


class ModelBox(QComboBox):
    """A list of networks that is made anew whenever it is opened; the data of an entry is what `load_model` takes.

    Parameters
    ----------
    *others : str
        Further entries before the last one, which are their own data.
    """

    def __init__(self, *others: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self._others = others
        self._files: list[str] = []
        self.list_again()

    def showPopup(self) -> None:
        """Open the list, as it is now."""
        before = self.currentData()
        self.list_again()
        if self.currentData() != before:  # it is gone
            self.activated.emit(self.currentIndex())
        super().showPopup()

    def list_again(self) -> None:
        """Offer the networks there are, keeping the choice."""
        chosen = self.currentData()
        entries: list[tuple[str, str | None]] = [("Default", None)]
        names = embedded_models()
        entries += [(name, name) for name in names] if len(names) > 1 else []
        entries += [(name, str(path)) for name, path in list_models().items()]
        own = {data for _, data in entries}
        entries += [(Path(path).name, path) for path in self._files if path not in own]
        entries += [(other, other) for other in (*self._others, FROM_FILE)]
        self.blockSignals(True)
        self.clear()
        for words, data in entries:
            self.addItem(words, data)
        self.setCurrentIndex(max(0, self.findData(chosen)))
        self.blockSignals(False)

    def choose(self, path: str) -> None:
        """Choose the network of a file, also one that is not listed yet; an empty path goes back to the default."""
        if path and path not in self._files:
            self._files.append(path)
        self.list_again()
        self.setCurrentIndex(max(0, self.findData(path)) if path else 0)

    def ask_for_file(self) -> None:
        """Let the user choose a file."""
        path, _ = QFileDialog.getOpenFileName(self, "A network", "", "Networks (*.safetensors *.npz)")
        self.choose(path)
