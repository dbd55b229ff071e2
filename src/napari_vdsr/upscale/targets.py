"""Where results on disk go, and folders of files."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, Container, FileEdit, LineEdit
from napari.layers import Image
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QVBoxLayout, QWidget

from napari_vdsr.background.job import Job
from napari_vdsr.background.pytorch import computing
from napari_vdsr.forms import choice, make_text
from napari_vdsr.upscale.runs import Single

if TYPE_CHECKING:
    from vdsr_core import FileProgress

FORMATS = [("As each source", None), ("TIFF", "tif"), ("OME-TIFF", "ome.tif"), ("PNG", "png"), ("OME-Zarr", "ome.zarr")]
FAILURES = 3  # that are named; of more, the count


def file_names(layers: Sequence[Image], scale: float) -> list[str]:
    """Names for results on disk."""
    return [re.sub(r"[^\w .+-]", "_", f"{layer.name} x{scale:g}") + ".ome.zarr" for layer in layers]


def ask_for_targets(parent: QWidget, layers: Sequence[Image], scale: float) -> list[str]:
    """Let the user say where results go; empty if not. Of several layers the folder is asked for."""
    names = file_names(layers, scale)
    folder = Path(layers[0].source.path).parent if layers[0].source.path else Path.home()
    if len(layers) > 1:
        path = QFileDialog.getExistingDirectory(parent, "A folder for the results", str(folder))
        return [str(Path(path, name)) for name in names] if path else []
    path, _ = QFileDialog.getSaveFileName(parent, "Save the result as", str(folder / names[0]), "OME-Zarr (*.ome.zarr)")
    return [path if path.endswith(".zarr") else f"{path}.ome.zarr"] if path else []


class Files(Single):
    """Image files at work, one after the other."""

    def __init__(self, sources: str, target: str, model: str | None, device: str | None, **options: Any) -> None:
        self.job = Job(partial(upscale_folder, sources, target, model, device, options), f"upscaling {sources}")
        self.layer: Any = None
        self.total = self.number = 0
        self.target, self.outcomes = target, {"done": 0, "kept": 0, "failed": 0}
        self.failures: list[str] = []
        self._fraction = 0.0

    def step(self, step: FileProgress) -> None:
        """Note how far it is, and what went wrong."""
        self._fraction = (step.number - 1 + (1 if step.outcome else step.fraction)) / step.count
        if step.outcome:
            self.outcomes[step.outcome] += 1
        if step.outcome == "failed":
            self.failures.append(f"{step.source.name}: {step.message}")

    def fraction(self) -> float:
        """How much of the work is done."""
        return self._fraction

    def tell(self) -> str:
        """How many went well, and what went wrong with the others."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)
        more = f" and {len(self.failures) - FAILURES} more" if len(self.failures) > FAILURES else ""
        return f"Files in {self.target}: {counts}. {'; '.join(self.failures[:FAILURES])}{more}".strip()


def upscale_folder(
    sources: str,
    target: str,
    model: str | None,
    device: str | None,
    options: dict[str, Any],
    cancelled: threading.Event,
) -> Iterator[FileProgress]:
    """Upscale the images of a folder; one that fails does not stop the others."""
    from vdsr_core import upscale_files

    with computing(cancelled):
        yield from upscale_files(sources, f"{target}/", model=model, device=device, stop=cancelled, **options)


class FolderDialog(QDialog):
    """Which files to upscale, and what becomes of them; model, scale and device are those of the widget."""

    def __init__(self, parent: QWidget, words: str) -> None:
        super().__init__(parent)
        self.setWindowTitle("A folder of files")
        self.sources = FileEdit(name="sources", label="Images in", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.target = FileEdit(name="target", label="Results in", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.pattern = LineEdit(name="pattern", label="Names", value="{name}_{scale}")
        self.pattern.tooltip = "{name} is replaced by the name of the source, {scale} by the scale, such as x2."
        self.format = choice("Format", "The format of the results.", FORMATS)
        self.recursive = CheckBox(name="recursive", label="", text="With subfolders")
        self.form = Container(widgets=[self.sources, self.target, self.pattern, self.format, self.recursive])
        for edit in (self.sources, self.target):
            edit.line_edit.value = ""
            edit.changed.connect(self._check)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        for part in (make_text(words), self.form.native, self.buttons):
            column.addWidget(part)
        self._check()

    def _check(self, *_: Any) -> None:
        """Let it begin when both folders are known."""
        begin = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        if begin is not None:
            begin.setEnabled(Path(self.sources.line_edit.value).is_dir() and bool(self.target.line_edit.value))

    def chosen(self) -> dict[str, Any]:
        """What `Files` is to be told, model and device aside."""
        names = ("pattern", "format", "recursive")
        found: dict[str, Any] = {name: getattr(self, name).value for name in names}
        return found | {"sources": self.sources.line_edit.value, "target": self.target.line_edit.value}
