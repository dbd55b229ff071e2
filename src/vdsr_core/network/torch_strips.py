"""The network in PyTorch, strip by strip: each layer keeps the two rows that its next strip needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from vdsr_core.network.model import VDSR
from vdsr_core.network.strips import LARGE, Block, blocks, choose_count, choose_rows, cut, within
from vdsr_core.network.threads import divided_work
from vdsr_core.stopping import Stopped, stop_if


def residual(model: VDSR, ilr: Tensor, stop: threading.Event | None = None) -> Tensor:
    """What `VDSR.residual` gives, with little memory; the blocks of large images on the cores of the CPU.

    Cores that share a layer wait for each other at its end, and for whatever else they have to do.

    Parameters
    ----------
    model : VDSR
        The network.
    ilr : (B, 1, H, W) Tensor
        Interpolated images.
    stop : Event, optional
        Looked at before each layer of each strip.

    Returns
    -------
    (B, 1, H, W) Tensor

    Raises
    ------
    Stopped
        If `stop` is set.
    """
    rows, columns = ilr.shape[2:]
    cores = torch.get_num_threads()
    if cores == 1 or rows * columns < LARGE:
        return torch.cat(list(residual_strips(model, ilr, stop=stop)), 2)
    result = torch.empty_like(ilr)
    left = threading.Event()

    @torch.inference_mode()  # of each thread
    def compute(block: Block) -> None:
        inner, seen = block
        strips = []
        for strip in residual_strips(model, ilr[:, :, *seen], stop=stop):
            if left.is_set():
                raise Stopped
            strips.append(strip)
        result[:, :, *inner] = torch.cat(strips, 2)[:, :, *within(inner, seen)]

    with divided_work(ilr.device) as work:
        try:
            for _ in work(compute, blocks(rows, columns, len(model.convolutions), choose_count(rows * columns, cores))):
                pass
        except BaseException:
            left.set()
            raise
    return result


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
