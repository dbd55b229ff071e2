"""How noisy and compressed the ticked layers are, found beside the viewer, and whether the network fits that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from psygnal import Signal

from napari_vdsr.background.job import Latest
from napari_vdsr.background.pytorch import computing, load_network
from napari_vdsr.layers import image_layers
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.task import (
    AUTO,
    LayerCondition,
    Noise,
    Range,
    Task,
    find_compression,
    find_noise,
    find_ranges,
    share,
)

LOG = logging.getLogger("napari_vdsr")


class ConditionFinder:
    """Looks at what is ticked whenever that, or the network, is another one."""

    changed = Signal()  # there is more known

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.condition = LayerCondition()  # of the ticked layers; an empty one until it is known
        self._asked: Any = None
        self._work = Latest(self._stepped, self._ended)

    def look(self) -> None:
        """Look at what is ticked, if that is not what was looked at last."""
        choices, model = self._choices, self._choices.form.model.currentData()
        layers = [layer for layer in choices.layers if not image_layers.why_not(layer, choices.axis(layer))]
        asked = [(layer, id(layer.data), choices.axis(layer)) for layer in layers], model
        if asked == self._asked:
            return
        self._work.stop()
        self._asked, self.condition = asked, LayerCondition()
        whole = [(layer, image_layers.whole(layer, choices.axis(layer))) for layer in layers]
        tasks = [replace(choices.task(layer, source), noise=AUTO, compression=AUTO) for layer, source in whole]
        windows = [None if layer.rgb else tuple(layer.contrast_limits_range) for layer in layers]
        if tasks:
            self._work.start(partial(find_condition, tasks, windows))

    def stop(self) -> None:
        """Wait for nothing more."""
        self._work.stop()

    def _stepped(self, found: LayerCondition) -> None:
        self.condition = found
        self.changed.emit()

    def _ended(self, error: Exception | None) -> None:
        if error is not None:
            LOG.info("noise could not be found", exc_info=error)  # a run says why


def find_condition(
    tasks: Sequence[Task], windows: Sequence[Range | None], cancelled: threading.Event
) -> Iterator[LayerCondition]:
    """Give what is found of layers; of those that are not in memory, as a fraction of the contrast that is offered."""
    from vdsr_core import find_misfit

    with computing(cancelled):
        network = load_network(tasks[0].model)
        noises, ranges, compression = list[Noise](), list[Range](), 0.0
        for task, window in zip(tasks, windows, strict=True):
            in_memory = window is None or isinstance(task.source.data, np.ndarray)
            in_range = find_ranges(task, cancelled) if in_memory else window
            assert in_range is not None
            noise = find_noise(task, in_range, cancelled, quickly=True)
            noises += noise
            ranges += in_range if isinstance(in_range, list) else [in_range] * len(noise)
            compression = max(compression, find_compression(task))
        misfit = find_misfit(network.maps, noises, ranges, compression).replace("`", "")
        misfit = misfit[:1].upper() + misfit[1:]
        deep = all(not task.source.rgb and np.dtype(task.source.data.dtype).itemsize > 1 for task in tasks)
        fitting = find_fitting(deep) if misfit else ""
        if fitting:
            misfit = misfit.partition(". ")[0] + "."  # the button says which network to use
        whole = all(isinstance(task.source.data, np.ndarray) for task in tasks)
        yield LayerCondition(share(noises, ranges), compression, misfit, fitting, "" if whole else "about ")


def find_fitting(deep: bool) -> str:
    """A network of the package that removes noise, for gray images of 16 bits or more, or for others."""
    from vdsr_core import model_names, read_card

    fitting = [name for name in model_names() if "noise" in read_card(name)["maps"]]
    fitting.sort(key=lambda name: (name == "microscopy") != deep)
    return next(iter(fitting), "")
