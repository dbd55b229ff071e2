"""Run a network down an image strip by strip: each layer keeps the two rows that its next strip needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from vdsr_core.model import VDSR

# Least rows of a strip, by measurement: the buffers of a layer stay below 32 MB for tiles of 1024, from where on Linux
# takes memory away and gives it anew at each layer. Narrow strips have more, for threads wait for each other at each
# layer of each strip. Multiples of 4, the block of Winograd's F(4 x 4, 3 x 3).
ROWS = 16
PIXELS = 2**14


class Stopped(Exception):
    """Nobody waits for the result any more."""


def stop_if(stop: threading.Event | None) -> None:
    """Raise `Stopped` if the event is set."""
    if stop is not None and stop.is_set():
        raise Stopped


def choose_rows(columns: int) -> int:
    """The rows of a strip of an image this wide."""
    return max(ROWS, PIXELS // columns // 4 * 4)


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
