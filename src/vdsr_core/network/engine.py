"""Run a batch of tiles through taps and network on a device."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from vdsr_core.images.resampling import Taps
from vdsr_core.network import torch_strips
from vdsr_core.network.checkpoint import load_model
from vdsr_core.network.model import MAPS, VDSR, Condition, unfold
from vdsr_core.network.ncnn_engine import find_ncnn, has_ncnn, warn_of_ncnn
from vdsr_core.network.strips import BAND, LARGE, choose_rows, tallest
from vdsr_core.network.threads import mind_forks
from vdsr_core.stopping import Stopped

# Strips of layers live at once, by measurement: with what the memory allocator cannot use again, as heights differ.
LIVE_STRIPS = {"torch": 12, "ncnn": 22, "ncnn, blocks": 22}
# The interpolated image and the sum, and what `inference` makes of them, bytes per pixel.
PLANE_BYTES = 32
# Pixels in a batch: it keeps a GPU busy for some milliseconds, Apple's for about half a second.
BATCH_PIXELS = {"cuda": 2**22, "mps": 2**20}
# Elements of a layer that the libraries of a device can address.
LAYER_ELEMENTS = {"cuda": 2**31, "mps": 2**29}
# Rows that are interpolated at a time on a CPU, so that what lies between two sums stays in the cache.
ROWS_IN_CACHE = 64
# What the network is shown of the interpolated image: it knows nothing of what lies far outside [0, 1], such as a
# hot pixel, and would answer with large residuals all over its receptive field.
INPUT_RANGE = (-0.25, 1.25)


class Engine:
    """A network made ready on a device, from `devices.choose_device`; the caller's own copy stays as it is.

    It computes in float64 if the parameters of the network are, else in float32. With `half`, by default on CUDA, the
    residual is computed in float16, but for the first and the last layer; tiles whose residual is not finite are run
    again in float32. With `fast`, it is computed by ncnn, on the CPU in float32 where ncnn is installed and agrees with
    PyTorch on a small image. Noisy and compressed windows go through the restorer of the network, if it has one.

    Attributes
    ----------
    halo, align : int
        What tiles for `run` need, as in `cover`.
    maps : tuple of str
        What `run` is to be told of windows: `VDSR.maps`.
    tolerance : Tolerance
        `VDSR.tolerance`.
    pixels : int
        How many pixels of equal tiles to give to `run` at once. On a CPU, what shares a batch does not change a bit:
        there is one tile at a time, or there are small ones for processes to share.
    most : float
        The most pixels that `run` can compute at once, even with unlimited memory.
    dtype : numpy dtype
        Dtype of windows and results.
    """

    def __init__(self, model: VDSR, device: torch.device, *, half: bool | None = None, fast: bool = True) -> None:
        double = next(model.parameters()).dtype == torch.float64
        half = device.type == "cuda" and not double if half is None else half
        mind_forks()
        self.device = device
        self.dtype = np.dtype(np.float64 if double else np.float32)
        self.halo, self.align, self.maps = model.halo, model.config.fold, model.maps
        self.tolerance = model.tolerance
        self._restorer, self._options = model.restorer, {"half": half, "fast": fast}
        found: tuple[Any, VDSR] | None = None
        if device.type == "cpu" and not double and not half and fast and has_ncnn():
            found = find_ncnn(model, torch.get_num_threads())
        self._network: Any
        self._network, self._exact = found or (None, self._ready(model, torch.float64 if double else torch.float32))
        self._half = torch.float16 if half else None
        cores = torch.get_num_threads() if found else 1  # whose processes share small tiles
        area = model.config.fold**2  # pixels of a position
        self.pixels = BATCH_PIXELS.get(device.type, 2 * LARGE * area * cores if cores > 1 else 0)
        self.most = LAYER_ELEMENTS.get(device.type, math.inf) * area / model.config.width

    def _ready(self, model: VDSR, dtype: torch.dtype) -> VDSR:
        """A copy of the network on the device, in the memory format that convolutions like best."""
        model = copy.deepcopy(model).eval().requires_grad_(False)
        try:
            model = model.to(self.device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise_if_out_of_memory(error)
            raise
        return model

    @cached_property
    def restorer(self) -> Engine:
        """The network for noisy and compressed windows, made ready when the first one comes."""
        model = load_model(self._restorer)
        if (model.config.maps, model.halo, model.config.fold) != (MAPS, self.halo, self.align):
            msg = f"`restorer` must have all maps, and the halo and fold of its network, {self.halo} and {self.align}, "
            raise ValueError(msg + f"got {model.config.maps}, {model.halo} and {model.config.fold}. Set it to None.")
        return Engine(model.to(torch.float64) if self.dtype == np.float64 else model, self.device, **self._options)

    @property
    def name(self) -> str:
        """The library that computes the residual."""
        return "torch" if self._network is None else "ncnn"

    def memory(self, rows: int, columns: int) -> int:
        """An estimate of the memory that `run` needs for a tile on a CPU, bytes."""
        config = self._exact.config
        planes = rows * columns * PLANE_BYTES
        rows, columns = -(-rows // config.fold), -(-columns // config.fold)  # positions of the layers
        cores = torch.get_num_threads() if rows * columns >= LARGE else 1  # each has strips of its own
        wide = min(columns, BAND + 2 * config.depth) if self._network or cores > 1 else columns
        kind = f"{self.name}, blocks" if self._network and config.blocks else self.name
        strip = tallest(rows, config.depth, choose_rows(wide, kind))
        # Each layer also keeps two rows, twice while the next two are made.
        live = cores * (LIVE_STRIPS[kind] * strip + 4 * config.depth)
        return live * wide * config.width * self.dtype.itemsize + planes

    @torch.inference_mode()
    def run(
        self,
        windows: Sequence[NDArray[Any]],
        taps: Sequence[tuple[Taps, Taps]],
        stop: threading.Event | None = None,
        conditions: Sequence[Condition] | None = None,
        *,
        self_ensemble: bool = False,
    ) -> NDArray[Any]:
        """Interpolate windows, and add the predicted residual to the first channel of each; returns (B, C, H, W).

        Channel 0 of each window, (C, h, w), goes through the network; the others are only interpolated. `taps` are
        those of rows and columns for each window; all windows have the same number of output pixels. On a CPU, `stop`
        ends the work between two layers of a strip by `Stopped`. `conditions` say how noisy, compressed and enlarged
        each window is, for a network that has maps; clean and enlarged twice by default. With `self_ensemble`, the
        residual is the mean over the eight flips and rotations of the interpolated windows.

        Raises MemoryError if the device's memory does not suffice, and FloatingPointError if the result is not finite
        in full precision either.
        """
        try:
            with torch.autocast(self.device.type, enabled=False):  # the caller's is for what the caller computes
                return self._compute(windows, taps, stop, conditions, self_ensemble)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            cause = str(error).splitlines()[0]
        # Raised outside the handler: the first error's frames would keep the device's memory.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(cause)

    def _compute(
        self,
        windows: Sequence[NDArray[Any]],
        taps: Sequence[tuple[Taps, Taps]],
        stop: threading.Event | None,
        conditions: Sequence[Condition] | None,
        self_ensemble: bool,
    ) -> NDArray[Any]:
        """What `run` returns."""
        pixels = (torch.from_numpy(np.ascontiguousarray(w, self.dtype)).to(self.device) for w in windows)
        sr = torch.stack([interpolate(p, *t) for p, t in zip(pixels, taps, strict=True)])  # (B, C, H, W)
        told = None if conditions is None else torch.tensor(conditions, dtype=sr.dtype, device=self.device)
        for engine, part in self._assign(conditions):
            find = engine._mean_residual if self_ensemble else engine._residual
            sr[part, :1] += find(sr[part, :1], stop, None if told is None else told[part])
        return sr.cpu().numpy()

    def _assign(self, conditions: Sequence[Condition] | None) -> Iterator[tuple[Engine, Any]]:
        """Which windows go through this network, and which through its restorer."""
        degraded = [self._restorer is not None and condition.is_degraded for condition in conditions or ()]
        if not any(degraded):
            yield self, slice(None)
        elif all(degraded):
            yield self.restorer, slice(None)
        else:
            yield self, [number for number, other in enumerate(degraded) if not other]
            yield self.restorer, [number for number, other in enumerate(degraded) if other]

    def _mean_residual(self, ilr: Tensor, stop: threading.Event | None, conditions: Tensor | None) -> Tensor:
        """The mean residual over the flips and rotations of interpolated images [1]_, (B, 1, H, W).

        Images are extended to whole squares first, so that a square is one however the image is turned.

        References
        ----------
        .. [1] R. Timofte, R. Rothe, L. Van Gool, "Seven Ways to Improve Example-Based Single Image Super Resolution",
               CVPR 2016. https://arxiv.org/abs/1511.02228
        """
        rows, columns = ilr.shape[2:]
        whole = pad(ilr, (0, -columns % self.align, 0, -rows % self.align), mode="replicate")
        total = torch.zeros_like(whole)
        for transposed, flipped in product((False, True), ((), (2,), (3,), (2, 3))):
            turned = (whole.mT if transposed else whole).flip(flipped)
            residual = self._residual(turned, stop, conditions).flip(flipped)
            total += residual.mT if transposed else residual
        return total[..., :rows, :columns] / 8

    def _residual(self, ilr: Tensor, stop: threading.Event | None, conditions: Tensor | None) -> Tensor:
        """The residual of interpolated images in their dtype, (B, 1, H, W)."""
        residual = self._run(ilr, stop, conditions)
        finite = torch.isfinite(residual).flatten(1).all(1)  # (B,)
        if not bool(finite.all()):
            again = None if conditions is None else conditions[~finite]
            residual[~finite] = self._run(ilr[~finite], stop, again, exact=True)
            if not bool(torch.isfinite(residual).all()):
                msg = "the network gave NaN or infinity. Its weights are damaged, or `in_range` is far too narrow."
                raise FloatingPointError(msg)
        return residual

    def _run(
        self, ilr: Tensor, stop: threading.Event | None, conditions: Tensor | None, *, exact: bool = False
    ) -> Tensor:
        """The residual as fast as it goes here, or by PyTorch in the dtype of `ilr`."""
        half, config = None if exact else self._half, self._exact.config
        if half or self.device.type != "cpu":
            with full_float32(self.device):
                return self._exact.residual(_clip(ilr), conditions, half=half)
        squares = self._exact.prepare(_clip(ilr), conditions)  # (B, C, H / fold, W / fold)
        out = None if exact else self._run_ncnn(squares, stop)
        if out is None:  # strip by strip, which costs no more on a CPU and takes little memory
            out = torch_strips.residual(self._exact, squares, stop)
        del squares
        out = unfold(out, config.fold, ilr.shape)
        return out if config.residual else out - _clip(ilr)

    def _run_ncnn(self, squares: Tensor, stop: threading.Event | None) -> Tensor | None:
        """The output of the last layer by ncnn; None from then on if it fails."""
        if self._network is None:
            return None
        try:
            return torch.from_numpy(self._network.residual(squares.numpy(), stop))
        except (MemoryError, Stopped):
            raise
        except Exception as error:
            warn_of_ncnn(error)
            self._network = None
            return None


def _clip(ilr: Tensor) -> Tensor:
    """What the network is shown of interpolated images, in the memory format that convolutions like best."""
    return ilr.clamp(*INPUT_RANGE).contiguous(memory_format=torch.channels_last)


_PRECISION = threading.Lock()  # PyTorch has one setting for all threads


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 convolutions in float32.

    By default PyTorch lets NVIDIA's GPUs round their factors to TensorFloat-32, as coarse as half precision [1]_.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    if device.type != "cuda":
        yield
        return
    # Since PyTorch 2.9 each operation has its own setting; where a script has set one, the older, common one must not
    # be read, nor here by another thread: so all are set.
    cudnn = torch.backends.cudnn
    new: list[tuple[Any, str, Any]] = [
        (getattr(cudnn, kind), "fp32_precision", "ieee") for kind in ("conv", "rnn") if getattr(cudnn, kind, None)
    ]
    settings = new or [(cudnn, "allow_tf32", False)]
    with _PRECISION:
        before = [getattr(place, name) for place, name, _ in settings]
        try:
            for place, name, full in settings:
                setattr(place, name, full)
            yield
        finally:
            for (place, name, _), value in zip(settings, before, strict=True):
                setattr(place, name, value)


def interpolate(window: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Bicubic interpolation of a (C, h, w) window: the sums of `resampling.apply_taps` in their order."""
    count = rows.index.shape[1]
    step = ROWS_IN_CACHE if window.device.type == "cpu" else count
    out = window.new_empty(len(window), count, columns.index.shape[1])
    for top in range(0, count, step):
        part = replace(rows, index=rows.index[:, top : top + step], weight=rows.weight[:, top : top + step])
        # Columns as rows: those are picked whole, not pixel by pixel.
        turned = _apply_taps(window, part).transpose(1, 2).contiguous()
        out[:, top : top + step] = _apply_taps(turned, columns).transpose(1, 2)
    return out


def _apply_taps(values: Tensor, taps: Taps) -> Tensor:
    """Weighted sums of the rows of (C, h, w) values; products are rounded before they are added, as NumPy does."""
    index = torch.from_numpy(taps.index).to(values.device)
    weight = torch.from_numpy(taps.weight).to(values.dtype).to(values.device)[:, :, None]
    total = values.index_select(1, index[0]).mul_(weight[0])
    for i, w in zip(index[1:], weight[1:], strict=True):
        total += values.index_select(1, i).mul_(w)
    return total


def raise_if_out_of_memory(error: Exception) -> None:
    """Raise a MemoryError in the place of a library's own."""
    if isinstance(error, RuntimeError) and _out_of_memory(error):
        raise MemoryError(str(error).splitlines()[0]) from error


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says that memory has run out, on any device."""
    text = str(error).lower()
    words = "out of memory", "can't allocate memory", "alloc_failed", "failed to allocate", "unable to find an engine"
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in text for word in words)
