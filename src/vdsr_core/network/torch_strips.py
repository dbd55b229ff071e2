"""The network in PyTorch, strip by strip: each layer keeps the two rows that its next strip needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from vdsr_core.network.model import VDSR
from vdsr_core.network.strips import LARGE, Block, blocks, choose_count, choose_rows, cut_strips, within
from vdsr_core.network.threads import divided_work
from vdsr_core.stopping import Stopped, stop_if


def residual(model: VDSR, squares: Tensor, stop: threading.Event | None = None) -> Tensor:
    """The output of the last layer, (B, C', H, W), in little memory; the CPU's cores share the blocks of large images.

    It is what `VDSR.residual` computes between `prepare`, which gives `squares` (B, C, H, W), and `unfold`. Cores that
    share a layer would wait for each other at its end. `stop` is looked at before each layer of each strip; if it is
    set, Stopped is raised.
    """
    rows, columns = squares.shape[2:]
    cores = torch.get_num_threads()
    result = torch.empty_like(squares[:, : model.config.fold**2])
    if cores == 1 or rows * columns < LARGE:
        row = 0
        for strip in residual_strips(model, squares, stop=stop):
            result[:, :, row : row + strip.shape[2]] = strip
            row += strip.shape[2]
        return result
    left = threading.Event()

    @torch.inference_mode()  # of each thread
    def compute(block: Block) -> None:
        inner, seen = block
        strips = []
        for strip in residual_strips(model, squares[:, :, *seen], stop=stop):
            if left.is_set():
                raise Stopped
            strips.append(strip)
        result[:, :, *inner] = torch.cat(strips, 2)[:, :, *within(inner, seen)]

    with divided_work(squares.device) as work:
        try:
            for _ in work(compute, blocks(rows, columns, len(model.convolutions), choose_count(rows * columns, cores))):
                pass
        except BaseException:
            left.set()
            raise
    return result


def residual_strips(
    model: VDSR, squares: Tensor, rows: int | None = None, stop: threading.Event | None = None
) -> Iterator[Tensor]:
    """The output of the last layer, strip by strip from top to bottom: (B, C', h, W) each.

    Memory does not grow with the rows, and nothing is computed twice. The rows of a strip are chosen for the width by
    default. Raises as `residual`.
    """
    layers = model.convolutions
    # Zeros above and below the image, and later the last two rows above a strip.
    rows_of_zeros = (squares.new_zeros(len(squares), layer.in_channels, 1, squares.shape[3]) for layer in layers)
    edges = [zeros.contiguous(memory_format=torch.channels_last) for zeros in rows_of_zeros]
    above = list(edges)
    for part in cut_strips(squares.shape[2], len(layers), rows or choose_rows(squares.shape[3])):
        x = given = squares[:, :, part]
        for number, layer in enumerate(layers):
            stop_if(stop)
            lead = above[number].shape[2]  # 1 at the top of the image, else 2
            pieces = [above[number], x] + [edges[number]] * (part.stop == squares.shape[2])
            joined = torch.cat(pieces, 2)  # (B, width, lead + h, W)
            above[number] = joined[:, :, -2:].clone()
            x = conv2d(joined, layer.weight, layer.bias, padding=(0, 1))
            if model.config.ends_block(number):  # which is given one row more above this one, or two
                x += given[:, :, 2 - lead : 2 - lead + x.shape[2]]
            elif number < len(layers) - 1:
                x.relu_()
            if model.config.ends_block(number + 1):
                given = joined
        yield x
