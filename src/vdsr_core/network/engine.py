"""Run a batch of tiles through taps and network on a device."""

from __future__ import annotations

import copy
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from vdsr_core.images.resampling import Taps, make_taps
from vdsr_core.network import torch_strips as torch_network
from vdsr_core.network.model import VDSR, Strength, VDSRConfig, fold, make_model, unfold
from vdsr_core.network.strips import BAND, LARGE, ROWS, choose_rows, tallest
from vdsr_core.network.threads import mind_forks
from vdsr_core.stopping import Stopped

if TYPE_CHECKING:
    from vdsr_core.network.ncnn_network import NcnnNetwork
    from vdsr_core.network.ncnn_workers import NcnnWorkers

# Strips of layers live at once, by measurement: with what the memory allocator cannot use again, as heights differ.
LIVE_STRIPS = {"torch": 12, "ncnn": 22}
# The interpolated image and the sum, and what `inference` makes of them, bytes per pixel.
PLANE_BYTES = 32
# How far from PyTorch's result ncnn's may be, as a share of the range or of the largest residual.
AGREEMENT = 1e-4
# The same of devices that compute in half precision.
AGREEMENTS = {"cuda": 2e-2}
# Pixels in a batch: the GPU is busy for some milliseconds, or Apple's for a good half of a second.
BATCHES = {"cuda": 2**22, "mps": 2**20}
# Elements of a layer that the libraries of a device can address.
MOST = {"cuda": 2**31, "mps": 2**29}
# Rows that are interpolated at a time on a CPU, so that what lies between two sums stays in the cache.
IN_CACHE = 64
# What the network is shown of the interpolated image: it knows nothing of what lies far outside [0, 1], such as a
# hot pixel, and would answer with large residuals all over its receptive field.
KNOWN = (-0.25, 1.25)


def choose_device(device: str | torch.device | None = None, *, double: bool = False) -> torch.device:
    """The device to compute on.

    Parameters
    ----------
    device : str or torch.device, optional
        As PyTorch names it. None takes CUDA, else Apple's MPS, if a tile agrees there with the CPU, else the CPU.
    double : bool, optional
        Whether it must compute in float64, as MPS does not.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If there is no such device here.
    MemoryError
        If other programs have all of its memory.
    """
    if device is None:
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not double}
        good = (name for name, there in here.items() if there and agrees_with_cpu(name))
        return torch.device(next(good, "cpu"))
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()  # "meta" holds no values
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        _raise_if_out_of_memory(error)
        names = ", ".join(list_devices())
        msg = f"`device` must be one of {names} here, got {str(device)!r}. Leave it out to let it be chosen."
        raise ValueError(msg) from error
    return found


def list_devices() -> dict[str, str]:
    """The devices that PyTorch finds here.

    Returns
    -------
    dict of str to str
        By PyTorch's names, which `device` takes, each with a few words; the CPU first.
    """
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.cuda.is_available():  # devices are counted even where the driver is too old for them
        devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return devices | ({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {})


def agrees_with_cpu(name: str) -> bool:
    """Whether a tile of a random network comes out on a device as on the CPU; a warning if not, once."""
    try:
        return _compare_with_cpu(name)
    except MemoryError:  # of what another program leaves: the next call may find more
        warnings.warn(f"{name} has no memory left now; going on with the CPU.", stacklevel=3)
        return False


@lru_cache
def _compare_with_cpu(name: str) -> bool:
    model = make_model(0)
    window = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    taps = (make_taps(32, 2, 0, 64), make_taps(32, 2, 0, 64))
    expected = Engine(model, torch.device("cpu"), fast=False).run([window], [taps])
    try:
        error = float(np.abs(Engine(model, torch.device(name)).run([window], [taps]) - expected).max())
    except MemoryError:
        raise
    except Exception as cause:  # a device that is too old or has a wrong driver fails in ways of its own
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    else:
        if error < AGREEMENTS.get(name, AGREEMENT) * float(np.abs(expected).max()):
            return True
        reason = f"its result differs by {error:.1g}"
    warnings.warn(f"{name} is here but does not work ({reason}); going on with the CPU.", stacklevel=4)
    return False


class Engine:
    """A network made ready on a device; the caller's own copy stays as it is.

    Parameters
    ----------
    model : VDSR
        The network; it is computed in float64 if its parameters are, else in float32.
    device : torch.device
        From `choose_device`.
    half : bool, optional
        Compute the residual in float16 (the interpolated image, the first and the last layer and the sum stay in
        float32). By default on CUDA. Tiles whose residual is not finite are run again in float32.
    fast : bool, optional
        Compute the residual with ncnn. By default on the CPU in float32 where ncnn is installed and agrees with
        PyTorch on a small image.

    Attributes
    ----------
    halo, align : int
        What tiles for `run` need, as in `cover`.
    pixels : int
        How many pixels of equal tiles to give to `run` at once. On a CPU, what shares a batch does not change a bit:
        there is one tile at a time, or there are small ones for processes to share.
    most : float
        How many pixels `run` can compute at once at most, whatever memory there is.
    dtype : numpy dtype
        Of windows and results.
    """

    def __init__(
        self, model: VDSR, device: torch.device, *, half: bool | None = None, fast: bool | None = None
    ) -> None:
        double = next(model.parameters()).dtype == torch.float64
        half = device.type == "cuda" and not double if half is None else half
        mind_forks()
        self.device = device
        self.dtype = np.dtype(np.float64 if double else np.float32)
        self.halo, self.align = model.halo, model.config.fold
        found = None
        if device.type == "cpu" and not double and not half and fast is not False and has_ncnn():
            found = find_ncnn(model, torch.get_num_threads())
        self._network: NcnnNetwork | NcnnWorkers | None = None
        if found:
            self._network, self._exact = found
        else:
            self._exact = self._ready(model, torch.float64 if double else torch.float32)
        self._half = torch.float16 if half else None
        cores = torch.get_num_threads() if found else 1  # whose processes share small tiles
        area = model.config.fold**2  # pixels of a position
        self.pixels = BATCHES.get(device.type, 2 * LARGE * area * cores if cores > 1 else 0)
        self.most = MOST.get(device.type, math.inf) * area / model.config.width

    def _ready(self, model: VDSR, dtype: torch.dtype) -> VDSR:
        """A copy of the network on the device, in the memory format that convolutions like best."""
        model = copy.deepcopy(model).eval().requires_grad_(False)
        try:
            model = model.to(self.device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            _raise_if_out_of_memory(error)
            raise
        return model

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
        strip = tallest(rows, config.depth, choose_rows(wide, self.name))
        # Each layer also keeps two rows, twice while the next two are made.
        live = cores * (LIVE_STRIPS[self.name] * strip + 4 * config.depth)
        return live * wide * config.width * self.dtype.itemsize + planes

    @torch.inference_mode()
    def run(
        self,
        windows: Sequence[NDArray[Any]],
        taps: Sequence[tuple[Taps, Taps]],
        stop: threading.Event | None = None,
        strengths: Sequence[Strength] | None = None,
    ) -> NDArray[Any]:
        """Interpolate windows and add the predicted residual to the first channel of each.

        Parameters
        ----------
        windows : sequence of (C, h, w) ndarray
            Input pixels; channel 0 goes through the network, the others are interpolated only.
        taps : sequence of (Taps, Taps)
            Rows and columns, for each window; as many output pixels for one as for another.
        stop : Event, optional
            Ends the work between two layers of a strip, on a CPU.
        strengths : sequence of Strength, optional
            How noisy and compressed each window is, for a network that has maps; clean by default.

        Returns
        -------
        (B, C, H, W) ndarray

        Raises
        ------
        MemoryError
            If the device's memory does not suffice.
        FloatingPointError
            If the result is not finite in full precision either.
        Stopped
            If `stop` is set.
        """
        try:
            with _without_autocast(self.device.type):  # the caller's is for what the caller computes
                return self._compute(windows, taps, stop, strengths)
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
        strengths: Sequence[Strength] | None,
    ) -> NDArray[Any]:
        """What `run` returns."""
        pixels = (torch.from_numpy(np.ascontiguousarray(w, self.dtype)).to(self.device) for w in windows)
        sr = torch.stack([interpolate(p, *t) for p, t in zip(pixels, taps, strict=True)])  # (B, C, H, W)
        told = None if strengths is None else torch.tensor(strengths, dtype=sr.dtype, device=self.device)
        sr[:, :1] += self._residual(sr[:, :1], stop, told)
        return sr.cpu().numpy()

    def _residual(self, ilr: Tensor, stop: threading.Event | None, strengths: Tensor | None) -> Tensor:
        """The residual in the dtype of `ilr`, (B, 1, H, W)."""
        ilr = ilr.clamp(*KNOWN).contiguous(memory_format=torch.channels_last)
        if self._network:
            residual = self._run_ncnn(self._network, ilr, stop, strengths)
        else:
            residual = self._run(ilr, stop, strengths, self._half)
        finite = torch.isfinite(residual).flatten(1).all(1)  # (B,)
        if not bool(finite.all()):
            again = None if strengths is None else strengths[~finite]
            residual[~finite] = self._run(ilr[~finite], stop, again)
            if not bool(torch.isfinite(residual).all()):
                msg = "the network gave NaN or infinity. Its weights are damaged, or `in_range` is far too narrow."
                raise FloatingPointError(msg)
        return residual

    def _run(
        self,
        ilr: Tensor,
        stop: threading.Event | None,
        strengths: Tensor | None,
        half: torch.dtype | None = None,
    ) -> Tensor:
        """The residual by PyTorch."""
        if self.device.type == "cpu" and not half:  # strip by strip, which costs no more there and takes little memory
            return torch_network.residual(self._exact, ilr, stop, strengths)
        with full_float32(self.device):
            return self._exact.residual(ilr, strengths, half=half)

    def _run_ncnn(
        self,
        network: NcnnNetwork | NcnnWorkers,
        ilr: Tensor,
        stop: threading.Event | None,
        strengths: Tensor | None,
    ) -> Tensor:
        """The residual by ncnn, or by PyTorch from then on if it fails."""
        config = self._exact.config
        squares = self._exact.prepare(ilr, strengths).numpy()  # (B, C, H, W)
        try:
            out = torch.from_numpy(np.stack(network.residuals(list(squares), stop)))
        except (MemoryError, Stopped):
            raise
        except Exception as error:
            warn_of_ncnn(error)
            self._network = None
            return self._run(ilr, stop, strengths)
        out = unfold(out, config.fold, ilr.shape)
        return out if config.residual else out - ilr


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


def has_ncnn() -> bool:
    """Whether ncnn is here and can be loaded beside PyTorch.

    On macOS each brings LLVM's OpenMP, of which a second one ends the process ("OMP: Error #15").
    """
    return sys.platform != "darwin" and find_spec("ncnn") is not None


def make_engine(model: VDSR, device: str | torch.device | None, *, half: bool | None = None) -> Engine:
    """An engine of a network on a device, or on the best one for it."""
    return Engine(model, choose_device(device, double=next(model.parameters()).dtype == torch.float64), half=half)


def find_ncnn(model: VDSR, threads: int) -> tuple[NcnnNetwork | NcnnWorkers, VDSR] | None:
    """A copy of the network in ncnn and one in PyTorch; nothing, with a warning, if ncnn is broken or disagrees."""
    weights = b"".join(p.detach().cpu().float().contiguous().numpy().tobytes() for p in model.parameters())
    try:
        return _make_ncnn(weights, model.config, threads)
    except Exception as error:
        warn_of_ncnn(error)
        return None


def warn_of_ncnn(error: Exception) -> None:
    """Say that ncnn does not work: a broken library fails in ways of its own."""
    msg = f"ncnn is installed but does not work here ({error}); going on with PyTorch, which is slower. "
    warnings.warn(msg + "`pip install --upgrade ncnn` may help, `pip uninstall ncnn` ends this.", stacklevel=5)


@lru_cache(maxsize=2)  # converting takes as long as a small image
def _make_ncnn(weights: bytes, config: VDSRConfig, threads: int) -> tuple[NcnnNetwork | NcnnWorkers, VDSR]:
    """The network of these weights in both libraries, tried on two strips; a function of its arguments alone."""
    from vdsr_core.network.ncnn_network import NcnnNetwork

    with torch.random.fork_rng(devices=[]):  # a new network draws random weights
        model = VDSR(config).eval().requires_grad_(False)
    vector_to_parameters(torch.frombuffer(bytearray(weights), dtype=torch.float32), model.parameters())
    layers = [(layer.weight.numpy(), layer.bias.numpy()) for layer in model.convolutions]  # type: ignore[union-attr]
    network = NcnnNetwork(layers, threads, config.blocks)
    channels, rows = config.fold**2, 2 * ROWS + config.depth
    squares = np.random.default_rng(0).random((channels, rows, 24), dtype=np.float32)
    ilr = unfold(torch.from_numpy(squares)[None], config.fold, (rows * config.fold, 24 * config.fold))
    squares = model.prepare(ilr)[0].numpy()
    with torch.autocast("cpu", enabled=False):
        out = model.residual(ilr) + (0 if config.residual else ilr)
    expected = fold(out, config.fold)[0].numpy()
    found = np.concatenate(list(network.residual_strips(squares, ROWS)), 1)
    error = np.abs(found - expected).max() / max(1, np.abs(expected).max())
    if np.isfinite(expected).all() and not error < AGREEMENT:
        msg = f"its result differs by {error:.1g}"
        raise ArithmeticError(msg)
    from vdsr_core.network.ncnn_workers import NcnnWorkers

    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network if threads == 1 else NcnnWorkers(layers, network, threads, config.blocks), model


class SharedEngine:
    """A network that is made ready in each process that uses it, once; threads take turns on it.

    One thread at a time on a GPU; on a CPU as many as there are cores for: PyTorch itself uses several for one tile.

    Parameters
    ----------
    model : VDSR
        The network. It alone goes to other processes.
    device : str, torch.device or None
        As in `choose_device`, which is asked in the process that computes.
    """

    def __init__(self, model: VDSR, device: str | torch.device | None) -> None:
        self.model, self.device = model, device
        self._engine: Engine | None = None
        self._first = threading.Lock()
        self._turns = threading.Semaphore()

    def __reduce__(self) -> tuple[Any, ...]:
        """What goes to another process."""
        return SharedEngine, (self.model, self.device)

    def __enter__(self) -> Engine:
        """Wait for a turn."""
        with self._first:
            if self._engine is None:
                self._engine = make_engine(self.model, self.device)
                if self._engine.device.type == "cpu":
                    self._turns = threading.Semaphore(max(1, (os.cpu_count() or 1) // torch.get_num_threads()))
        self._turns.acquire()
        return self._engine

    def __exit__(self, *_: object) -> None:
        """Let the next thread have its turn."""
        self._turns.release()


def interpolate(window: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Bicubic interpolation of a (C, h, w) window: the sums of `resampling.apply_taps` in their order."""
    count = rows.index.shape[1]
    step = IN_CACHE if window.device.type == "cpu" else count
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


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Computing in the dtypes of the tensors, on a kind of device."""
    known = torch.amp.is_autocast_available(kind)  # not for MPS in PyTorch 2.4
    return torch.autocast(kind, enabled=False) if known else nullcontext()


def _raise_if_out_of_memory(error: Exception) -> None:
    """Raise a MemoryError in the place of a library's own."""
    if isinstance(error, RuntimeError) and _out_of_memory(error):
        raise MemoryError(str(error).splitlines()[0]) from error


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says that memory has run out, on any device."""
    text = str(error).lower()
    words = "out of memory", "can't allocate memory", "alloc_failed", "failed to allocate", "unable to find an engine"
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in text for word in words)
