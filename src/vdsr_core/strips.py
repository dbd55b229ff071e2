"""Run a network down an image strip by strip: each layer keeps the two rows that its next strip needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from vdsr_core.model import VDSR

# Least rows of a strip, and pixels that narrow strips may have, by measurement; multiples of 4 rows, the block of
# Winograd's F(4 x 4, 3 x 3). In PyTorch the buffers of a layer stay below 32 MB for tiles of 1024, from where on Linux
# takes memory away and gives it anew at each layer. ncnn, which waits for memory more than for arithmetic, has them
# in the cache.
ROWS = 16
SIZES = {"torch": (ROWS, 2**14), "ncnn": (8, 2**12)}
BAND = 384  # columns that ncnn computes at once, without the halo


class Stopped(Exception):
    """Nobody waits for the result any more."""


def stop_if(stop: threading.Event | None) -> None:
    """Raise `Stopped` if the event is set."""
    if stop is not None and stop.is_set():
        raise Stopped


def choose_rows(columns: int, library: str = "torch") -> int:
    """The rows of a strip of an image this wide, for a library that computes it."""
    rows, pixels = SIZES[library]
    return max(rows, pixels // columns // 4 * 4)


def bands(columns: int, halo: int, band: int = BAND) -> list[tuple[slice, slice]]:
    """Cut an image into bands of about equal width.

    Parameters
    ----------
    columns : int
        Of the image.
    halo : int
        How far the network sees.
    band : int, optional
        The most columns of a band, without its halo.

    Returns
    -------
    list of (slice, slice)
        For each band its columns, and with the halo those that the network must see.

    Examples
    --------
    >>> bands(100, 20, 50)
    [(slice(0, 50, None), slice(0, 70, None)), (slice(50, 100, None), slice(30, 100, None))]
    """
    count = -(-columns // band) if columns > band + 2 * halo else 1
    edges = pairwise(columns * i // count for i in range(count + 1))
    return [(slice(a, b), slice(max(0, a - halo), min(columns, b + halo))) for a, b in edges]


def cut(rows: int, depth: int, strip: int = ROWS) -> list[slice]:
    """The rows of an image that each strip brings to the first layer.

    Every layer lags one row behind the one before. So the first strip has `depth` rows more, which gives `strip` at the
    last layer, and the last strip's result `depth` more than the strip.

    Parameters
    ----------
    rows : int
        Of the image.
    depth : int
        Number of 3 x 3 layers.
    strip : int, optional
        Rows of a strip.

    Returns
    -------
    list of slice
        One after the other; a single one if the image is small.

    Examples
    --------
    >>> cut(60, 20)
    [slice(0, 36, None), slice(36, 60, None)]
    """
    starts = [0, *range(strip + depth, rows - strip // 2, strip)]
    return [slice(start, stop) for start, stop in pairwise([*starts, rows])]


def tallest(rows: int, depth: int, strip: int = ROWS) -> int:
    """The most rows that a layer has to hold at once."""
    return min(rows, strip + strip // 2 + depth)


def residual_strips(
    model: VDSR, ilr: Tensor, rows: int | None = None, stop: threading.Event | None = None
) -> Iterator[Tensor]:
    """What `VDSR.residual` gives, strip by strip; memory does not grow with the rows, and nothing is computed twice.

    Parameters
    ----------
    model : VDSR
        The network.
    ilr : (B, 1, H, W) Tensor
        Interpolated images.
    rows : int, optional
        Of a strip; by default chosen for the width.
    stop : Event, optional
        Looked at before each layer of each strip.

    Yields
    ------
    (B, 1, h, W) Tensor
        From top to bottom; together H rows.

    Raises
    ------
    Stopped
        If `stop` is set.
    """
    layers = model.convolutions
    # Zeros above and below the image, and later the last two rows above a strip.
    edges = [_zeros(ilr, layer.in_channels) for layer in layers]
    above = list(edges)
    done = 0
    for part in cut(ilr.shape[2], len(layers), rows or choose_rows(ilr.shape[3])):
        x = ilr[:, :, part]
        for number, layer in enumerate(layers):
            stop_if(stop)
            pieces = [above[number], x] + [edges[number]] * (part.stop == ilr.shape[2])
            x = torch.cat(pieces, 2)  # (B, width, h + 2 or 1, W)
            above[number] = x[:, :, -2:].clone()
            x = conv2d(x, layer.weight, layer.bias, padding=(0, 1))
            if number < len(layers) - 1:
                x.relu_()
        if not model.config.residual:
            x = x - ilr[:, :, done : done + x.shape[2]]
        done += x.shape[2]
        yield x


def _zeros(ilr: Tensor, width: int) -> Tensor:
    """A row of zeros for a layer's input, in the memory format that convolutions like best."""
    zeros = ilr.new_zeros(len(ilr), width, 1, ilr.shape[3])
    return zeros.contiguous(memory_format=torch.channels_last)
