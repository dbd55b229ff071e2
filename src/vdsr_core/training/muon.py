"""Muon: gradient descent whose steps change every direction of a layer's input by the same amount."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

MOMENTUM = 0.95
BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam
FACTORS = 3.4445, -4.7750, 2.0315  # of a polynomial that brings singular values near 1, see `orthogonalize`
ITERATIONS = 5
ROOT_MEAN_SQUARE = 0.2  # of the elements of a step, divided by the learning rate; as large as Adam's
PART = 3  # matrices that one core of a CPU orthogonalizes at a time


class Muon(torch.optim.Optimizer):
    """Muon [1]_ for convolutions, and Adam for the rest: biases and layers of one input or output channel.

    The Nesterov momentum of a layer's weights, as a matrix of a row for each output channel, is replaced by the nearest
    matrix whose singular values are all about 1. So the size of a step does not depend on that of the gradient. It is
    scaled as in [2]_, which lets both parts share one learning rate, `lr`. There is no weight decay. With `half`,
    matrix products are computed in bfloat16, which is precise enough for them.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
           https://kellerjordan.github.io/posts/muon
    .. [2] J. Liu et al., "Muon is Scalable for LLM Training", 2025. https://arxiv.org/abs/2502.16982

    Examples
    --------
    >>> weight = torch.zeros(4, 2, 3, 3, requires_grad=True)
    >>> weight.grad = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    >>> Muon([weight], lr=1).step()
    >>> 0.15 < float(weight.detach().square().mean().sqrt()) < 0.25
    True
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, *, half: bool = False) -> None:
        super().__init__(list(parameters), {"lr": lr})
        self.dtype = torch.bfloat16 if half else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None, *, work: Callable[..., Iterable[Any]] = map) -> None:  # type: ignore[override]
        """Change the parameters by their gradients; `work` maps a function to parts of the layers, such as on threads.

        The result has the same bits for any `work`.
        """
        for group in self.param_groups:
            rate: float = group["lr"]
            layers: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.ndim == 4 and min(parameter.shape[:2]) > 1:
                    layers.setdefault(parameter.shape, []).append(parameter)
                else:
                    self._step_of_adam(parameter, rate)
            for (rows, columns, *sides), weights in layers.items():
                matrices = torch.stack([as_matrix(self._nesterov(weight)) for weight in weights])  # (L, out, 9 in)
                parts = work(partial(orthogonalize, dtype=self.dtype), torch.split(matrices, PART))
                factor = rate * ROOT_MEAN_SQUARE * math.sqrt(max(matrices.shape[1:]))
                for weight, update in zip(weights, torch.cat(list(parts)), strict=True):
                    weight.add_(update.view(rows, *sides, columns).permute(0, 3, 1, 2), alpha=-factor)

    def _nesterov(self, weight: Tensor) -> Tensor:
        """The gradient, moved towards its running mean, which is where the next step would see it."""
        mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
        gradient = torch.as_tensor(weight.grad)
        mean.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(mean, MOMENTUM)

    def _step_of_adam(self, parameter: Tensor, rate: float) -> None:
        """Divide the running mean of the gradient by its running root mean square."""
        state, gradient = self.state[parameter], torch.as_tensor(parameter.grad)
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].lerp_(gradient.square(), 1 - BETAS[1])
        # Both means begin at zero: their weights add up to this much.
        mean, square = (1 - beta ** int(state["step"]) for beta in BETAS)
        scale = (state["square"] / square).sqrt_().add_(EPSILON)
        parameter.addcdiv_(state["mean"], scale, value=-rate / mean)


def as_matrix(weight: Tensor) -> Tensor:
    """Weights (out, in, 3, 3) as (out, 9 in)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


@torch.no_grad()  # which a thread does not inherit
def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring the singular values of matrices, (L, M, N), near 1 by Newton-Schulz iterations, singular vectors kept.

    Each iteration is an odd polynomial of the singular values, a s + b s^3 + c s^5. Its slope of 3.4 at zero is worth
    more than an exact limit: five iterations bring values from 0.01 to 1 of the norm to between 0.6 and 1.3.
    """
    a, b, c = FACTORS
    x = normalize(matrices, dim=(1, 2)).to(dtype)  # type: ignore[arg-type]
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)
