"""Record the work of a function on a GPU once, and launch it as a whole from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

REHEARSALS = 3  # calls before the recording, in which cuDNN chooses its algorithms


class Recording:
    """A function of tensors, recorded as a CUDA graph [1]_: one launch in the place of several hundred small ones.

    A training step of VDSR takes a GPU about as long as the CPU takes to launch it. The function must do the same work
    on the GPU each time, for inputs of the same shapes, and wait for nothing. Tensors that it refers to by itself, such
    as weights, may be changed in place, but not replaced. If it cannot be recorded, this is a RuntimeError.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # one shape: the fastest algorithm for it is worth a search
        try:
            with torch.cuda.device(inputs[0].device):
                aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                aside.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(aside):
                    for _ in range(REHEARSALS):
                        function(*self.inputs)
                torch.cuda.current_stream().wait_stream(aside)
                # Other threads, such as NCCL's watch, may still use the device.
                with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                    self.outputs = function(*self.inputs)
        finally:
            torch.backends.cudnn.benchmark = benchmark

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's outputs: the same tensors each time, overwritten by the next call."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.outputs
