"""Work on one layer that a widget has started: its layer, and what is said of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.experimental import link_layers
from napari.layers import Image
from napari.viewer import Viewer

from napari_vdsr.background.job import Job, Work
from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.layers import image_layers, writer
from napari_vdsr.layers.arrays import Around
from napari_vdsr.upscale import differences, disk, generators
from napari_vdsr.upscale.layer import layer_data
from napari_vdsr.upscale.task import Task
from napari_vdsr.words import duration, sentence

if TYPE_CHECKING:
    from vdsr_core import ErrorReport, Score

NAMES = {
    differences.ADDED: "invented",
    differences.CONSISTENCY: "disagrees",
    differences.EXPECTED: "expected error, intensity",
}
MEANING = (
    "That is against a sharp image that was reduced in the way the network was trained for, not against the specimen. "
    "It was measured on other images: “Try on this image” tells whether it holds here."
)
HOLDS = 0.25  # by how much expected errors may differ from those that were made, as a fraction
HELPS, HARMS = 0.1, -0.05  # dB more than bicubic interpolation from which a network helps, or harms


class Single:
    """Work with one result at its end, of whose progress nothing is known."""

    in_memory = False  # whether the result can be looked at as a whole
    result: Image | None = None

    def __init__(self, layer: Image, task: Task, work: Work, words: str) -> None:
        self.layer, self.source, self.task = layer, task.source, task
        self.job = Job(work, words)
        self.total = self.done = 0
        self.began = time.perf_counter()

    def step(self, step: Any) -> None:
        """Take a step of the job."""

    def look(self) -> None:
        """Show what is new."""

    def fraction(self) -> float:
        """How much of the work is done."""
        return self.done / self.total if self.total else 0

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Say how it went."""
        if isinstance(error, Cancelled):
            return "Cancelled."
        return sentence(error) if error is not None else self.tell()

    def tell(self) -> str:
        """Say how it went when it went well."""
        return f"Done in {duration(time.perf_counter() - self.began)}."


class Run(Single):
    """An upscaling at work, and its layer, which shows the interpolated source where it is not finished."""

    in_memory = True
    record: Mapping[str, Any] = {}  # what the result says of itself besides
    before = 0  # pieces from an earlier run

    def __init__(self, viewer: Viewer, layer: Image, task: Task, work: Work | None = None) -> None:
        super().__init__(layer, task, work or partial(generators.upscale, task), f"upscaling {layer.name}")
        self.layers = viewer.layers  # not the viewer: the queue outlives no window
        self._data = layer.data
        self._hidden: list[Image] = []  # the source and earlier results, in whose place the result stands
        self._around: Image | None = None  # shows the source where the result of a region does not cover it
        self._shown = 0
        self._removed = ""  # noise and compression, in words
        self._refreshed = self._pause = 0.0  # large layers take long to draw

    def step(self, step: Any) -> None:
        """Take a step of the job: the first one adds the layer, the others are the numbers of tiles done."""
        if isinstance(step, generators.Started):
            self.total, self.done, self.before = step.count, step.done, step.done
            self.add(step)
        else:
            self.done = step

    def add(self, step: generators.Started) -> None:
        """Add the layer in the place of its source, which is hidden, unless the result is a part that covers it."""
        tiles = {"tiles": step.count, "tiles_done": step.done} if step.count else {}
        pixels, keywords, _ = layer_data(self.layer, self.task, step.data, step, **self.record, **tiles)
        keywords["name"] = image_layers.free_name(keywords["name"], [other.name for other in self.layers])
        self._removed = step.found.words()
        result = Image(pixels, **keywords)
        image_layers.widen_range(result, self.layer)
        image_layers.hide_checks(self.layers)  # of an earlier result
        under = image_layers.put_above(self.layers, self.layer, result)
        self.result = result
        whole = tuple(slice(0, n) for n in self.source.data.shape[: len(self.source.part)])
        if self.source.part == whole or not image_layers.covers(self.layer):
            self._hidden = under
            for layer in under:
                layer.visible = False
            if self.source.part != whole:
                self._show_around(result)

    def _show_around(self, result: Image) -> None:
        """Show the hidden source around the result of a region."""
        layer, shape = self.layer, self.source.data.shape
        levels = list(layer.data) if layer.multiscale else [layer.data]
        holes = []
        for level in levels:
            factors = [n / whole for n, whole in zip(level.shape, shape, strict=True)]
            spans = [(p.start * f, p.stop * f) for p, f in zip(self.source.part, factors, strict=False)]
            holes.append(Around(level, tuple(slice(math.floor(start), math.ceil(stop)) for start, stop in spans)))
        ones, zeros = [1.0] * layer.ndim, [0.0] * layer.ndim
        self._around = around = Image(
            holes if layer.multiscale else holes[0],
            name=image_layers.free_name(f"[around] {layer.name}", [other.name for other in self.layers]),
            multiscale=layer.multiscale,
            metadata={"vdsr": {"shown": "around", "source": {"layer": layer.name}}},
            **image_layers.placement(layer, ones, zeros),
            **image_layers.looks(layer),
        )
        image_layers.widen_range(around, layer)
        active = self.layers.selection.active
        self.layers.insert(self.layers.index(result), around)
        self.layers.selection.active = active
        if not layer.rgb:
            link_layers([around, result], image_layers.GRAY_LOOKS)

    def removed(self) -> None:
        """The result is gone: show what it hid, and nothing more of what was found of it."""
        image_layers.hide_checks(self.layers)
        around, self._around = self._around, None
        if around is not None and around in self.layers:
            self.layers.remove(around)
        if self.result is not None and self.result.visible:
            for layer in [other for other in self._hidden if other in self.layers] or [self.layer]:
                layer.visible = True

    def look(self) -> None:
        """Show the tiles that are new."""
        now = time.perf_counter()
        if self.done > self._shown and now > self._refreshed + self._pause:
            self._shown = self.done
            if self.result is not None and self.result.visible:
                self.result.refresh(extent=False, thumbnail=False, highlight=False)
                self._refreshed = time.perf_counter()
                self._pause = 5 * (self._refreshed - now)

    def drop(self) -> None:
        """Take the layer away, and show its source again."""
        if self.result is not None and self.result in self.layers:
            self.layers.remove(self.result)
        self.removed()
        self.result = None
        for layer in self._hidden:
            layer.visible = True

    def show_source(self, on: bool) -> None:
        """Show the source in place of the result, or the other way round."""
        if self.result is not None:
            image_layers.hide_checks(self.layers)
            for layer, shown in ((self.layer, on), (self.result, not on), (self._around, not on)):
                if layer is not None:
                    layer.visible = shown

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Finish or drop the layer, and say how it went."""
        kept = keep and self.done > 0 and self.result is not None
        if self.result is not None:
            self.result.metadata["vdsr"]["tiles_done"] = self.done
            if error is not None and not kept:
                self.drop()
            else:
                self.result.refresh()
        if isinstance(error, Cancelled):
            return "Cancelled. " + (f"{self.done} of {self.total} tiles are kept." if kept else "Nothing is kept.")
        return super().end(error, keep=keep)

    def tell(self) -> str:
        """The time, what was removed, and whether the source is another one now."""
        changed = " The source was changed meanwhile." if self.layer.data is not self._data else ""
        return super().tell() + self._removed + changed


class Save(Run):
    """An upscaling whose result is written to disk."""

    in_memory = False

    def __init__(self, viewer: Viewer, layer: Image, task: Task, target: str) -> None:
        image = writer.describe_source(layer, task.source)
        levels = list(layer.data) if layer.multiscale else [layer.data]
        super().__init__(viewer, layer, task, partial(disk.save, task, image, levels, target))
        self.target, self.record = target, {"target": target}

    def step(self, step: Any) -> None:
        """Take a step of the job: the last one gives the layer the finished file."""
        if not isinstance(step, disk.Whole):
            super().step(step)
        elif self.result is not None:
            self.result.data = step.levels

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Take away the layer of what is not finished, and say how it went."""
        words = super().end(error, keep=False)
        if error is None:
            disk.note_unfinished(self.target, None)
            return f"{words} The result is in {self.target}."
        if isinstance(error, Cancelled):
            if not self.done:
                return "Cancelled. Nothing was finished yet."
            return f"Cancelled. {self.done} of {self.total} pieces are kept: resume it below, or run it again."
        return words


class Lazy(Run):
    """A layer in the making whose finest level is computed where one looks."""

    in_memory = False
    record: Mapping[str, Any] = {"lazy": True}

    def __init__(self, viewer: Viewer, layer: Image, task: Task) -> None:
        levels = list(layer.data) if layer.multiscale else [layer.data]
        super().__init__(viewer, layer, task, partial(generators.build_pyramid, task, levels))

    def tell(self) -> str:
        """Say what happens from now on."""
        return f"Zoom in: only what you look at is computed, all tiles of a view at once.{self._removed}"


class Try(Single):
    """Networks that are compared on the plane and channel that is shown."""

    def __init__(
        self, layer: Image, task: Task, models: Mapping[str, str | None], where: str, *, noisy: bool = False
    ) -> None:
        super().__init__(layer, task, partial(generators.try_out, task, models), "trying networks")
        self._noisy = noisy
        self.scores: list[Score] = []
        self.errors: ErrorReport | None = None
        self.total, self._where = len(models) + 1, where

    def step(self, step: Score | ErrorReport) -> None:
        """Take the score of one method, or how well errors are predicted."""
        from vdsr_core import ErrorReport

        if isinstance(step, ErrorReport):
            self.errors = step
        else:
            self.scores.append(step)
            self.done += 1

    def tell(self) -> str:
        """A verdict, then the figures of each method with the best marked."""
        bicubic, *networks = self.scores
        best = max(networks, key=lambda score: score.psnr)
        gain = best.psnr - bicubic.psnr
        verdict = f"“{best.method}” is closest to the original here."
        if gain < HARMS:
            verdict = "Every network is worse than bicubic interpolation here: they have not learnt images like this."
        elif gain < HELPS:
            verdict = "No network is better than bicubic interpolation here."
        rows = ""
        for score in self.scores:
            name = f"<b>{score.method}</b>" if score is best else score.method
            figures = f"{score.psnr:.2f}&nbsp;dB", f"{score.psnr - bicubic.psnr:+.2f}", f"{score.ssim:.4f}"
            rows += f"<tr><td>{name}</td>{''.join(f'<td align=right>{figure}</td>' for figure in figures)}</tr>"
        noise = "No noise is removed here: the original has it, too.<br>" if self._noisy else ""
        quality = " in the best quality" if self.task.self_ensemble else ""
        return (
            f"{verdict}<br>{noise}Parts of {self._where}, made {self.task.scale:g} times smaller and upscaled "
            f"back{quality}, against the original (PSNR, gain over bicubic, SSIM):<table cellpadding=2>{rows}</table>"
            f"{self._tell_errors()}"
        )

    def _tell_errors(self) -> str:
        """How well the expected error holds here, by tenths of the pixels; nothing if it was not measured."""
        if self.errors is None:
            return ""
        pairs = list(zip(self.errors.predicted, self.errors.measured, strict=True))
        ratios = [predicted / measured for predicted, measured in pairs if measured]
        verdict = "holds here"
        if not all(1 - HOLDS <= ratio <= 1 + HOLDS for ratio in ratios):
            larger = sum(self.errors.predicted) > sum(self.errors.measured)
            verdict = f"does not hold well here: errors are {'smaller' if larger else 'larger'} than expected"
        return (
            f"<b>Expected error</b> of “{image_layers.model_name(self.task.model)}” {verdict}. "
            f"{self.errors.coverage:.0%} of the errors are below their 90 % bound. Each point is a tenth of the "
            f"pixels, from smooth to detailed; on the dashed line, errors are as expected."
        )


class Check(Single):
    """A difference between a result and its source in the making, for a layer of its own."""

    def __init__(self, run: Run, kind: str, source: image_layers.Source) -> None:
        assert run.result is not None
        compared = source, run.source, run.task.scale, image_layers.finest(run.result)
        work = partial(differences.compare, kind, *compared)
        if kind == differences.EXPECTED:
            work = partial(differences.expect, *compared, run.task.model, run.result.metadata["vdsr"])
        super().__init__(run.layer, run.task, work, "comparing a result with its source")
        self.run, self.kind = run, kind
        self.difference: differences.Difference | None = None

    def step(self, step: differences.Difference) -> None:
        """Show the difference, in the place of the one that was shown before."""
        self.difference = step
        layers = self.run.layers
        name = f"[{NAMES[self.kind]}] {self.layer.name}"
        scale = 1 if self.kind == differences.CONSISTENCY else self.task.scale
        factors, start = step.source.factors(scale), step.source.start(scale)
        for before in [layer for layer in layers if layer.metadata.get("vdsr", {}).get("check") == name]:
            layers.remove(before)
        layers.append(
            Image(
                step.pixels,
                name=image_layers.free_name(name, [other.name for other in layers]),
                colormap="magma" if self.kind == differences.EXPECTED else "PiYG",
                contrast_limits=self._limits(step.pixels),
                blending="translucent_no_depth",
                metadata={"vdsr": {"check": name}},
                **image_layers.placement(self.layer, factors, start),
            )
        )

    def _limits(self, pixels: Any) -> tuple[float, float]:
        """What to show; an expected error from 0 up to the limit of what was invented, if that is shown."""
        if self.kind != differences.EXPECTED:
            return differences.limits(pixels)
        name = f"[{NAMES[differences.ADDED]}] {self.layer.name}"
        shown = [layer for layer in self.run.layers if layer.metadata.get("vdsr", {}).get("check") == name]
        return 0.0, shown[-1].contrast_limits[1] if shown else differences.limits(pixels)[1]

    def tell(self) -> str:
        """A verdict, then how large the difference is, and what its colours mean."""
        assert self.difference is not None
        if self.kind == differences.EXPECTED:
            mean = float(np.nanmean(self.difference.pixels))
            return f"The expected error is {mean:.3g} on average, in the units of the image. {MEANING}"
        rms, spread = self.difference.rms, self.difference.spread
        share = 100 * rms / spread if spread else 0.0
        percent = f"{share:.2g}" if share < 10 else f"{share:.0f}"
        _, high = differences.limits(self.difference.pixels)
        legend = f"In green places the result is brighter, in pink ones darker, by up to {high:.3g}; white is equal."
        if self.kind == differences.ADDED:
            verdict = f"The network changed the interpolated image by {percent} % of its contrast (RMS {rms:.3g})."
            return f"{verdict} This is predicted, not measured. {legend}"
        verdict = "The result agrees with the original" if share < 2 else "The result departs from the original"
        return f"{verdict}: reduced again, it differs by {percent} % of its contrast (RMS {rms:.3g}). {legend}"
