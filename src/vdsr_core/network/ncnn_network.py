"""The network in ncnn, whose Winograd convolutions are the fastest on a CPU; made from the weights at hand."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import product
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray

from vdsr_core.network.strips import bands, choose_rows, cut_strips
from vdsr_core.stopping import stop_if

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
Floats = NDArray[np.float32]

MAGIC = 7767517  # the first line of ncnn's text format
RAW = bytes(4)  # before a layer's weights: they follow as float32


class NcnnNetwork:
    """A stack of 3 x 3 convolutions with ReLU between them, in float32; `blocks` is as in `VDSRConfig`.

    The layers are (weight, bias) of shapes (out, in, 3, 3) and (out,). It computes what `VDSR.residual` does between
    `prepare` and `unfold`. Any number of threads may run it at once. ncnn holds Python's lock while it computes, so it
    is called for one layer of one strip after the other: other threads, such as a window's, run in between.
    """

    def __init__(self, layers: Sequence[Layer], threads: int, blocks: bool = False) -> None:
        self._widths = [weight.shape[1] for weight, _ in layers]
        self._blocks, self._owner = blocks, os.getpid()
        self._kind = "ncnn, blocks" if blocks else "ncnn"  # of strips
        self._outputs = len(layers[-1][1])
        self._inner, self._final = (_build(layers, threads, final, blocks) for final in (False, True))

    def residual(self, squares: Floats, stop: threading.Event | None = None) -> Floats:
        """The output of the last layer, (B, C', H, W), band by band and strip by strip, so that buffers stay in cache.

        `squares` are images (B, C, H, W) from `VDSR.prepare`. `stop` is looked at before each layer of each strip.
        Raises MemoryError if memory runs out, Stopped if `stop` is set.
        """
        result = np.empty_like(squares[:, : self._outputs])
        for number, (columns, seen) in product(range(len(squares)), bands(squares.shape[3], len(self._widths))):
            inner = slice(columns.start - seen.start, columns.stop - seen.start)
            row = 0
            for strip in self.residual_strips(squares[number, :, :, seen], stop=stop):
                result[number, :, row : row + strip.shape[1], columns] = strip[:, :, inner]
                row += strip.shape[1]
        return result

    def residual_strips(
        self, squares: Floats, rows: int | None = None, stop: threading.Event | None = None
    ) -> Iterator[Floats]:
        """The output of the last layer for one image (C, H, W), strip by strip from top to bottom: (C', h, W) each.

        The rows of a strip are chosen for the width by default. Raises as `residual`.
        """
        # What lies above a strip: first a row of zeros, then the last two rows that each layer has seen.
        edges = [np.zeros((width, 1, squares.shape[2]), np.float32) for width in self._widths]
        above = [ncnn.Mat(edge) for edge in edges]
        pools = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        try:
            height = squares.shape[1]
            for part in cut_strips(height, len(self._widths), rows or choose_rows(squares.shape[2], self._kind)):
                above, strip = self._run(squares[:, part], above, part.stop == height, pools, stop)
                yield strip
        finally:
            above.clear()  # what came from the pools goes before them

    def _run(
        self, rows: Floats, above: list[Any], final: bool, pools: tuple[Any, Any], stop: threading.Event | None
    ) -> tuple[list[Any], Floats]:
        """One strip: what lies above the next one, and the result."""
        depth = len(self._widths)
        # A Mat of an array does not keep it: names do.
        rows = np.ascontiguousarray(rows)
        places = list(self._find_given(rows.shape, above[0].h, final))
        net = self._final if final else self._inner
        if os.getpid() != self._owner:  # OpenMP would wait forever for threads that only the parent of a fork has
            net.opt.num_threads = 1
        run = net.create_extractor()
        try:
            run.set_blob_allocator(pools[0])
            run.set_workspace_allocator(pools[1])
            run.input("x0", ncnn.Mat(rows))
            for number, mat in enumerate(above):
                run.input(f"above{number}", mat)
            for number, place in enumerate(places):
                run.input(f"place{2 * number + 1}", ncnn.Mat(place))
            below = []
            for number in range(depth):  # each call computes one more layer
                stop_if(stop)
                mat = _extract(run, f"x{number + 1}" if final else f"last{number}")
                if not final:
                    below.append(mat)
                for pool in pools:  # they would keep a block for each height that the layers of a strip have
                    pool.clear()
            return below, np.array(_extract(run, f"x{depth}", unpack=True))
        finally:
            run.clear()

    def _find_given(self, shape: tuple[int, ...], lead: int, final: bool) -> Iterator[Floats]:
        """For each block, which rows of its input its output is added to, as ncnn's Crop reads them.

        They begin with the first that its two layers give: behind a row of zeros at the top of the image, else with the
        first of the two rows from before. Each layer but in the last strip gives two rows less than it has.
        """
        rows = shape[1]
        for number in range(1, len(self._widths) - 1, 2) if self._blocks else ():
            lag = (1 if final else 0) - (1 if lead == 1 else 0)  # rows that a layer has more, or less, than before it
            height = rows + (number + 2) * lag
            box = np.array([0, 2 - lead, 0, shape[2], height, self._widths[number]], np.int32)  # x, y, z, then sizes
            yield box.view(np.float32)


class _Weights(ncnn.DataReader):  # type: ignore[misc]
    """Weights for ncnn to copy from memory: no file, whose name Windows could take for another, is needed."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self._stream = BytesIO(b"".join(RAW + weight.tobytes() + bias.tobytes() for weight, bias in layers))

    def read(self, buffer: Any, size: int) -> int:
        """Copy the next bytes to where a capsule points to; how many they are."""
        part = self._stream.read(size)
        ctypes.memmove(_POINTER(buffer, None), part, len(part))
        return len(part)


_POINTER = ctypes.pythonapi.PyCapsule_GetPointer
_POINTER.restype, _POINTER.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _build(layers: Sequence[Layer], threads: int, final: bool, blocks: bool) -> Any:
    """The network for strips with rows below them, or for the last strip of an image."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_winograd63_convolution = False  # rounds seven times as much as F(4 x 4, 3 x 3)
    for name in dir(net.opt):  # all arithmetic in float32
        if name.startswith(("use_fp16", "use_bf16", "use_int8")):
            setattr(net.opt, name, False)
    if net.load_param_mem(_describe(layers, final, blocks)) != 0:
        msg = "ncnn does not read the network's description"
        raise RuntimeError(msg)
    if net.load_model(_Weights(layers)) != 0:
        msg = "ncnn does not read the network's weights"
        raise RuntimeError(msg)
    return net


def _describe(layers: Sequence[Layer], final: bool, blocks: bool) -> str:
    """The network in ncnn's text format: one line for each layer, "type name inputs outputs blobs... key=value...".

    Each convolution sees ``above{i}`` (its last rows of the strip before, or a row of zeros) on top of ``x{i}``. The
    rows below it are missing, unless the image ends there; ``last{i}`` are the two rows that the next strip needs. To
    the output of a block ``given{i}`` is added, the rows of the input of its first layer that ``place{i}`` says.
    """
    final_layer = len(layers) - 1
    lines = ["Input x0 0 1 x0"] + [f"Input above{i} 0 1 above{i}" for i in range(len(layers))]
    for i, (weight, _) in enumerate(layers):
        begins, ends = (blocks and 0 < i < final_layer and i % 2 == odd for odd in (1, 0))
        lines.append(f"Concat join{i} 2 1 above{i} x{i} join{i} 0=1")
        copies = [f"whole{i}"] + [f"copy{i}"] * (not final) + [f"begin{i}"] * begins
        lines.append(f"Split split{i} 1 {len(copies)} join{i} {' '.join(copies)}")
        if not final:
            lines.append(f"Crop last{i} 1 1 copy{i} last{i} -23309=1,-2 -23310=1,-233 -23311=1,1")  # rows -2 to the end
        if begins:
            lines.append(f"Input place{i} 0 1 place{i}")
            lines.append(f"Crop given{i} 2 1 begin{i} place{i} given{i} 0=-233")
        pads = f"4=1 15=1 14=0 16={int(final)}"  # left, right, top, bottom
        relu = "" if i == final_layer or ends else " 9=1"
        target = f"more{i}" if ends else f"x{i + 1}"
        lines.append(f"Convolution conv{i} 1 1 whole{i} {target} 0={len(weight)} 1=3 {pads} 5=1 6={weight.size}{relu}")
        if ends:
            lines.append(f"BinaryOp sum{i} 2 1 more{i} given{i - 1} x{i + 1} 0=0")
    blobs = sum(int(line.split()[3]) for line in lines)
    return "\n".join([str(MAGIC), f"{len(lines)} {blobs}", *lines, ""])


def _extract(run: Any, name: str, *, unpack: bool = False) -> Any:
    """A blob of a run, in ncnn's own layout unless `unpack`."""
    mat = ncnn.Mat()
    code = run.extract(name, mat, 0 if unpack else 1)
    if code == -100:
        msg = "ncnn could not allocate memory"
        raise MemoryError(msg)
    if code != 0:
        msg = f"ncnn failed with code {code} at {name}"
        raise RuntimeError(msg)
    return mat
