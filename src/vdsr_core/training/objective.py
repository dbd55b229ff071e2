"""What training reduces, and how far a gradient may go: losses and adjustable gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

ROUNDING = 1 / (12 * 255**2)  # the mean squared error of rounding to 8 bits: 59 dB


def compute_loss(sr: Tensor, hr: Tensor, kind: str) -> Tensor:
    """The loss of a batch, (B, 1, P, P) each; equal to that of the residuals, since both contain the ILR.

    The kinds are those of `TrainConfig`.

    References
    ----------
    .. [1] L. Chen, X. Lu, J. Zhang, X. Chu, C. Chen, "HINet: Half Instance Normalization Network for Image
           Restoration", CVPR Workshops 2021. https://arxiv.org/abs/2105.06086
    """
    error = hr - sr
    if kind == "psnr":  # the loss of [1]_ in each patch; rounding keeps it finite where there is no error
        return 10 * (1 + error.square().mean((1, 2, 3)) / ROUNDING).log10().mean()
    if kind == "l2":
        return error.square().sum() / (2 * len(error))  # 1/2 ||r - f(x)||^2, Section 3.2 of the paper
    return error.abs().mean()


def clip_gradients(parameters: Iterable[Tensor], theta: float, learning_rate: float) -> float:
    """Adjustable gradient clipping (Section 3.2 of [1]_): each element is clipped to ± theta / learning_rate.

    The lower the learning rate, the wider the bounds. So a step changes a parameter by at most theta (with momentum m,
    by up to theta / (1 - m)), and training at high learning rates does not diverge.

    Parameters
    ----------
    parameters : iterable of Tensor
        The parameters whose gradients are clipped, in place.
    theta : float
        Greater than 0.
    learning_rate : float
        The current learning rate, gamma in the paper; greater than 0.

    Returns
    -------
    float
        The fraction of elements that were clipped.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> import torch
    >>> weight = torch.zeros(4)
    >>> weight.grad = torch.tensor([-3.0, -0.1, 0.1, 3.0])
    >>> clip_gradients([weight], theta=0.01, learning_rate=0.1), weight.grad
    (0.5, tensor([-0.1000, -0.1000,  0.1000,  0.1000]))
    """
    bound = theta / learning_rate
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    beyond = (torch.cat([gradient.ravel() for gradient in gradients]).abs() > bound).float().mean()
    torch._foreach_clamp_min_(gradients, -bound)
    torch._foreach_clamp_max_(gradients, bound)
    return float(beyond)
