"""Whether ncnn computes a network here, and as PyTorch does."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from vdsr_core.network.model import VDSR, VDSRConfig, fold
from vdsr_core.network.strips import ROWS

if TYPE_CHECKING:
    from vdsr_core.network.ncnn_network import NcnnNetwork
    from vdsr_core.network.ncnn_workers import NcnnWorkers

# How far from PyTorch's result ncnn's may be, as a fraction of the range or of the largest residual.
AGREEMENT = 1e-4


def has_ncnn() -> bool:
    """Whether ncnn is here and can be loaded beside PyTorch.

    On macOS each brings LLVM's OpenMP, of which a second one ends the process ("OMP: Error #15").
    """
    return sys.platform != "darwin" and find_spec("ncnn") is not None


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
    msg = f"ncnn is installed but does not work here ({error}); continuing with PyTorch, which is slower. "
    warnings.warn(msg + "`pip install --upgrade ncnn` may help, `pip uninstall ncnn` ends this.", stacklevel=5)


@lru_cache(maxsize=4)  # converting takes as long as a small image; a network may have a restorer
def _make_ncnn(weights: bytes, config: VDSRConfig, threads: int) -> tuple[NcnnNetwork | NcnnWorkers, VDSR]:
    """The network of these weights in both libraries, tried on two strips; a function of its arguments alone."""
    from vdsr_core.network.ncnn_network import NcnnNetwork

    with torch.random.fork_rng(devices=[]):  # a new network draws random weights
        model = VDSR(config).eval().requires_grad_(False)
    vector_to_parameters(torch.frombuffer(bytearray(weights), dtype=torch.float32), model.parameters())
    layers = [(layer.weight.numpy(), layer.bias.numpy()) for layer in model.convolutions]  # type: ignore[union-attr]
    network = NcnnNetwork(layers, threads, config.blocks)
    shape = ((2 * ROWS + config.depth) * config.fold, 24 * config.fold)
    ilr = torch.from_numpy(np.random.default_rng(0).random((1, 1, *shape), dtype=np.float32))
    with torch.autocast("cpu", enabled=False):
        expected = fold(model.residual(ilr) + (0 if config.residual else ilr), config.fold)[0].numpy()
    found = np.concatenate(list(network.residual_strips(model.prepare(ilr)[0].numpy(), ROWS)), 1)
    error = np.abs(found - expected).max() / max(1, np.abs(expected).max())
    if np.isfinite(expected).all() and not error < AGREEMENT:
        msg = f"its result differs by {error:.1g}"
        raise ArithmeticError(msg)
    from vdsr_core.network.ncnn_workers import NcnnWorkers

    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network if threads == 1 else NcnnWorkers(layers, network, threads, config.blocks), model
