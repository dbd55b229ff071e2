"""Work that a widget has started: its layer, its bars, and what is said of it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from napari.layers import Image
from napari.utils import cancelable_progress
from napari.viewer import Viewer

from napari_vdsr.background import pytorch as _work
from napari_vdsr.background.job import Job, Work
from napari_vdsr.forms import sentence
from napari_vdsr.layers import source as _layers
from napari_vdsr.layers import writer as _writer
from napari_vdsr.upscale import checks as _checks
from napari_vdsr.upscale import disk as _saving
from napari_vdsr.upscale import work as _upscaling


class Run:
    """An upscaling at work: its layer and its bar in the Activity dock."""

    in_memory = True  # the result can be looked at as a whole

    def __init__(
        self, viewer: Viewer, layer: Image, source: _layers.Source, task: _upscaling.Task, work: Work | None = None
    ) -> None:
        self.viewer, self.layer, self.source, self.task = viewer, layer, source, task
        self.job = Job(work or partial(_upscaling.upscale, task))
        self.result: Image | None = None
        self.found: _upscaling.Found | None = None
        self.total = self.done = self._before = 0
        self._data = layer.data
        self._metadata: dict[str, Any] = {}
        self._shown = 0
        self._began = 0.0
        self._pause = 0.0  # before the next refresh: large layers take long to draw
        self._refreshed = 0.0
        self._activity = cancelable_progress(total=0, desc=f"VDSR: {layer.name}")

    def step(self, step: Any) -> None:
        """Take a step of the job: the first one adds the layer, each other one is a tile."""
        if isinstance(step, _upscaling.Written):
            self.done = step.done
            return
        self._start(step, step.count)
        levels = _layers.views(step.out, self.source.plane_axes)
        self._add(levels if len(levels) > 1 else step.out, multiscale=len(levels) > 1)

    def _start(self, step: Any, total: int) -> None:
        """Note what is known now: the range, the tile, how much there is to do."""
        self.total, self._began = total, time.perf_counter()
        if self.task.in_range is None:
            self.found = _upscaling.Found(self.source, step.in_range)
        self._metadata = describe(self.layer, self.task, step.in_range, step.tile) | {
            "tiles": total,
            "tiles_done": 0,
        }

    def _add(self, data: Any, *, multiscale: bool) -> None:
        """Add the layer."""
        names = [other.name for other in self.viewer.layers]
        keywords = _layers.layer_keywords(self.layer, self.source, self.task.scale, names)
        keywords["multiscale"] = multiscale
        result = Image(data, metadata={"vdsr": self._metadata}, **keywords)
        _layers.widen_range(result, self.layer)
        self.viewer.add_layer(result)
        self.result = result

    def look(self) -> bool:
        """Show the tiles that are new; whether there is progress to show."""
        if self._activity.is_canceled:
            self.job.cancel()
        now = time.perf_counter()
        if self._activity.total != self.total:
            self._activity.reset(total=self.total)
        elif self.done > self._shown and now > self._refreshed + self._pause:
            self._activity.update(self.done - self._shown)
            self._shown = self.done
            if self.result is not None and self.result.visible:
                self.result.refresh(extent=False, thumbnail=False, highlight=False)
                self._pause = 5 * (time.perf_counter() - now)
                self._refreshed = now
        return self.total > 0

    def fraction(self) -> float:
        """How much of the work is done."""
        return self.done / self.total if self.total else 0

    def left(self) -> str:
        """The time that is left, in words."""
        here = self.done - self._before
        if not here:
            return ""
        return f"{_layers.duration((time.perf_counter() - self._began) * (self.total - self.done) / here)} left"

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Close the bar, finish or drop the layer, and say how it went."""
        self._activity.close()
        seconds = time.perf_counter() - self._began
        if self.result is not None:
            self._metadata["tiles_done"] = self.done
            if error is not None and not (keep and self.done):
                self.viewer.layers.remove(self.result)
            else:
                self.result.refresh()
        if error is None:
            changed = " The source was changed meanwhile." if self.layer.data is not self._data else ""
            return f"Done in {_layers.duration(seconds)}.{changed}"
        here = keep and self.done and self.result is not None
        kept = f"{self.done} of {self.total} tiles are kept." if here else "Nothing is kept."
        if isinstance(error, _work.Cancelled):
            return f"Cancelled. {kept}"
        return sentence(error)


class Save(Run):
    """An upscaling whose result is written to disk."""

    in_memory = False

    def __init__(
        self, viewer: Viewer, layer: Image, source: _layers.Source, task: _upscaling.Task, target: str
    ) -> None:
        image = _writer.describe_source(layer, source)
        levels = list(layer.data) if layer.multiscale else [layer.data]
        super().__init__(viewer, layer, source, task, partial(_saving.save, task, image, levels, target))
        self.target = target

    def step(self, step: Any) -> None:
        """Take a step of the job: the first one adds the layer, the last one gives it the finished file."""
        if isinstance(step, _saving.Saved):
            self.done = step.done
        elif isinstance(step, _saving.Whole):
            if self.result is not None:
                self.result.data = step.levels
        else:
            self._start(step, step.total)
            self._metadata["target"] = self.target
            self.done = self._before = self._shown = step.done
            self._add(step.levels, multiscale=True)

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Close the bar, take away the layer of what is not finished, and say how it went."""
        words = super().end(error, keep=False)
        if error is None:
            return f"{words} The result is in {self.target}."
        if isinstance(error, _work.Cancelled):
            return "Cancelled. What is finished is kept: run again with the same name to go on."
        return words


class Single:
    """Work with one result at its end, of whose progress nothing is known."""

    def __init__(self, layer: Image, source: _layers.Source, task: _upscaling.Task, work: Work) -> None:
        self.layer, self.source, self.task = layer, source, task
        self.job = Job(work)
        self.found: _upscaling.Found | None = None
        self.total = self.done = 0

    def look(self) -> bool:
        """How far it is cannot be said."""
        return False

    def fraction(self) -> float:
        """Nothing is done until all is."""
        return 0

    def left(self) -> str:
        """The time that is left cannot be said either."""
        return ""


class Lazy(Single):
    """A layer in the making whose finest level is computed where one looks."""

    in_memory = False

    def __init__(self, viewer: Viewer, layer: Image, source: _layers.Source, task: _upscaling.Task) -> None:
        levels = list(layer.data) if layer.multiscale else [layer.data]
        super().__init__(layer, source, task, partial(_upscaling.build_pyramid, task, levels))
        self.viewer = viewer
        self.result: Image | None = None

    def step(self, pyramid: _upscaling.Pyramid) -> None:
        """Add the layer; nothing of its finest level is computed."""
        if self.task.in_range is None:
            self.found = _upscaling.Found(self.source, pyramid.in_range)
        names = [other.name for other in self.viewer.layers]
        keywords = _layers.layer_keywords(self.layer, self.source, self.task.scale, names) | {"multiscale": True}
        metadata = describe(self.layer, self.task, pyramid.in_range, pyramid.tile) | {"lazy": True}
        result = Image(pyramid.levels, metadata={"vdsr": metadata}, **keywords)
        _layers.widen_range(result, self.layer)
        self.viewer.add_layer(result)
        self.result = result

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Say how it went."""
        if isinstance(error, _work.Cancelled):
            return "Cancelled."
        return sentence(error) if error else "Zoom in: what you look at is computed, the rest is not."


class Try(Single):
    """A comparison at work."""

    def __init__(self, layer: Image, source: _layers.Source, task: _upscaling.Task) -> None:
        super().__init__(layer, source, task, partial(_upscaling.try_out, task))
        self.trial: _upscaling.Trial | None = None

    def step(self, trial: _upscaling.Trial) -> None:
        """Take the result."""
        self.trial = trial

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Say how it went."""
        if isinstance(error, _work.Cancelled):
            return "Cancelled."
        if error is not None or self.trial is None:
            return sentence(error)
        psnr, ssim = self.trial.psnr, self.trial.ssim
        rows, columns = self.trial.shape
        return (
            f"{rows} {_layers.TIMES} {columns} pixels, made {self.task.scale:g} times smaller and upscaled back:\n"
            f"Bicubic {psnr['bicubic']:.2f} dB, SSIM {ssim['bicubic']:.4f}\n"
            f"Network {psnr['vdsr']:.2f} dB, SSIM {ssim['vdsr']:.4f} ({psnr['vdsr'] - psnr['bicubic']:+.2f} dB)"
        )


class Check(Single):
    """A difference between a result and its source in the making, for a layer of its own."""

    def __init__(self, run: Run | Lazy, kind: str, source: _layers.Source) -> None:
        assert run.result is not None
        work = partial(_checks.compare, kind, source, run.source, run.task.scale, _layers.finest(run.result))
        super().__init__(run.layer, source, run.task, work)
        self.run = run
        self.difference: _checks.Difference | None = None

    def step(self, difference: _checks.Difference) -> None:
        """Add the layer."""
        self.difference = difference
        viewer, added = self.run.viewer, difference.kind == _checks.ADDED
        name = f"{self.layer.name} [{'added by VDSR' if added else 'VDSR made small again - source'}]"
        scale = self.task.scale if added else 1
        factors, start = difference.source.factors(scale), difference.source.start(scale)
        viewer.add_layer(
            Image(
                difference.pixels,
                name=_layers.free_name(name, [other.name for other in viewer.layers]),
                colormap="PiYG",
                contrast_limits=_checks.limits(difference.pixels),
                blending="translucent_no_depth",
                **_layers.placement(self.layer, factors, start),
            )
        )

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Say how large the difference is."""
        if isinstance(error, _work.Cancelled):
            return "Cancelled."
        if error is not None or self.difference is None:
            return sentence(error)
        rms, spread = self.difference.rms, self.difference.spread
        share = f"{rms:.3g} (RMS), {100 * rms / spread:.2g} % of the source's own contrast" if spread else f"{rms:.3g}"
        if self.difference.kind == _checks.ADDED:
            return f"The network changed the interpolated image by {share}. This is predicted, not measured."
        return f"Made small again, the result differs from the source by {share}."


def describe(layer: Image, task: _upscaling.Task, in_range: _upscaling.Ranges, tile: int) -> dict[str, Any]:
    """What ``metadata["vdsr"]`` says of a result."""
    return _layers.describe(
        layer, task.source, model=task.model, scale=task.scale, in_range=in_range, tile=tile, device=task.device
    )
