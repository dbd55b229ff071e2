"""Put what is chosen in the widget into the queue."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from psygnal import Signal
from qtpy.QtWidgets import QInputDialog, QWidget

from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import disk
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.form import DISK, LAZY
from napari_vdsr.upscale.queue import Batch, Queue
from napari_vdsr.upscale.runs import Lazy, Run, Save
from napari_vdsr.upscale.script import python_script
from napari_vdsr.upscale.targets import Files, FolderDialog, ask_for_targets, file_names
from napari_vdsr.words import TIMES


class Starter:
    """Begins runs on layers and on files, and resumes those on disk."""

    wanted = Signal(object)  # a batch of work to be done

    def __init__(self, parent: QWidget, choices: Choices, queue: Queue) -> None:
        self._parent, self._choices, self._queue = parent, choices, queue

    def start(self) -> None:
        """Upscale what is ticked; results on disk are asked for."""
        layers = [layer for layer, _ in self._choices.sources()]
        if self._choices.form.result.value != DISK:
            self._start([])
        elif targets := ask_for_targets(self._parent, layers, self._choices.form.scale.value):
            self._start(targets)

    def _start(self, targets: list[str]) -> None:
        """Upscale what is ticked, on disk if there are targets."""
        choices, runs = self._choices, list[Run]()
        settings = choices.settings()
        for number, (layer, source) in enumerate(choices.sources()):
            work = choices.viewer, layer, choices.task(layer, source)
            if targets:
                disk.note_unfinished(targets[number], {"layer": layer.name, "settings": settings})
                runs.append(Save(*work, targets[number]))
            else:
                runs.append((Lazy if choices.form.result.value == LAZY else Run)(*work))
        names = f"{len(runs)} layers" if len(runs) > 1 else runs[0].layer.name
        self.wanted.emit(Batch(f"{self.words()}, {names}", runs, settings, keep=choices.form.keep.value))

    def words(self) -> str:
        """Network and scale."""
        form = self._choices.form
        best = ", best" if form.quality.value else ""
        return f"{image_layers.model_name(form.model.currentData())} {TIMES}{form.scale.value:g}{best}"

    def list_unfinished(self) -> list[tuple[str, str]]:
        """The results on disk that can be resumed, (words, target)."""
        at_work = [getattr(run, "target", None) for one in self._queue.batches if not one.over for run in one.runs]
        targets = [target for target in disk.list_unfinished() if target not in at_work]
        return [(f"{Path(target).name} in {Path(target).parent.name}", target) for target in targets]

    def resume(self, target: str) -> str:
        """Finish a result on disk, with the layer and the settings that it was begun with; why not, if it cannot be."""
        record = disk.list_unfinished()[target]
        layers = [one for one in self._choices.layer_list.layers() if one.name == record["layer"]]
        if not layers:
            return f"Open the layer “{record['layer']}” first, under this name."
        self._choices.layer_list.tick(layers)
        self._choices.choose(record["settings"])
        self._start([target])
        return ""

    def ask_for_folder(self) -> None:
        """Upscale the images of a folder."""
        dialog = FolderDialog(self._parent, f"All images: {self.words()}. To change that, cancel first.")
        dialog.accepted.connect(partial(self._folder_chosen, dialog))
        dialog.open()

    def _folder_chosen(self, dialog: FolderDialog) -> None:
        form, chosen = self._choices.form, dialog.chosen()
        options: dict[str, Any] = {"scale": form.scale.value, "in_range": self._choices.given_range()}
        options |= {"self_ensemble": form.quality.value, **form.removal.asked}
        if form.tile.value:
            options["tile"] = int(form.tile.value)
        files = Files(model=form.model.currentData(), device=form.device.value, **chosen | options)
        title = f"{self.words()}, {Path(chosen['sources']).name}"
        self.wanted.emit(Batch(title, [files], self._choices.settings()))

    def script(self) -> str:
        """The script that gives the same results."""
        choices, form = self._choices, self._choices.form
        chosen = [(layer, choices.task(layer, source)) for layer, source in choices.sources()]
        layers = [layer for layer, _ in chosen]
        targets = file_names(layers, form.scale.value) if form.result.value == DISK else []
        return python_script(chosen, lazy=form.result.value == LAZY, targets=targets)

    def replace_nan(self, layer: Image) -> None:
        """Add a copy of a layer in which a number stands for NaN and infinity, and tick it."""
        data = np.asarray(image_layers.finest(layer))
        finite = data[np.isfinite(data)]
        lowest = float(finite.min()) if finite.size else 0.0
        words = "The number that stands for NaN and infinity, by default the lowest pixel:"
        value, agreed = QInputDialog.getDouble(self._parent, "Replace NaN", words, lowest, -1e30, 1e30, 6)
        if not agreed:
            return
        viewer = self._choices.viewer
        name = image_layers.free_name(f"{layer.name} without NaN", [other.name for other in viewer.layers])
        place = image_layers.placement(layer, [1.0] * layer.ndim, [0.0] * layer.ndim) | image_layers.looks(layer)
        copy = viewer.add_image(np.where(np.isfinite(data), data, np.asarray(value, data.dtype)), name=name, **place)
        layer.visible = False
        self._choices.choose_layer(copy)
