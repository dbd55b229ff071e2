"""The network: VDSR, which predicts what is missing from an interpolated image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class VDSRConfig:
    """The shape of a VDSR network.

    Attributes
    ----------
    depth : int
        Number of 3 x 3 convolutions, at least 2.
    width : int
        Number of filters of each layer but the last, at least 1.
    residual : bool
        Whether the layers predict what is missing from the interpolated image, as in VDSR. False is for comparison:
        they predict the image itself.
    """

    depth: int = 20
    width: int = 64
    residual: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        for name, least in (("depth", 2), ("width", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                msg = f"`{name}` must be a whole number of at least {least}, got {value!r}. VDSR has 20 and 64."
                raise ValueError(msg)
        residual: Any = self.residual
        if not isinstance(residual, bool):
            msg = f"`residual` must be True or False, got {residual!r}. VDSR has True."
            raise ValueError(msg)


def check_network(model: Any) -> None:
    """Raise unless `model` is a network."""
    if not isinstance(model, VDSR):
        msg = f"`model` must be a VDSR, got {type(model).__name__}. Use `load_model` to get one."
        raise TypeError(msg)


class VDSR(nn.Module):
    """A very deep residual network for super-resolution [1]_.

    Parameters
    ----------
    config : VDSRConfig, optional
        Depth and width; the paper's 20 and 64 by default.
    scales : sequence of float, optional
        The scales that the network is made for.
    card : dict, optional
        What is known of the network: data, recipe, scores; JSON types only.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> import torch
    >>> model = VDSR(VDSRConfig(depth=4, width=8))
    >>> model.halo, model(torch.rand(1, 1, 9, 9)).shape
    (4, torch.Size([1, 1, 9, 9]))
    """

    def __init__(
        self,
        config: VDSRConfig = VDSRConfig(),
        *,
        scales: Sequence[float] = (2.0, 3.0, 4.0),
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.scales = tuple(float(scale) for scale in scales)
        self.card = dict(card or {})
        widths = [1] + [config.width] * (config.depth - 1) + [1]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for layer in self.convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The layers, from input to output."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def halo(self) -> int:
        """Pixels of context per side that an output pixel depends on: one for each 3 x 3 layer."""
        return self.config.depth

    def residual(self, ilr: Tensor, *, half: torch.dtype | None = None) -> Tensor:
        """What is missing from the interpolated image: f(x) in Section 3.1 of the paper.

        Parameters
        ----------
        ilr : (B, 1, H, W) Tensor
            Interpolated images, in [0, 1] for the full range.
        half : torch.dtype, optional
            Compute all layers but the first and the last in it: bfloat16 or float16. These two are a five-hundredth of
            the work, and would round the image itself and the sum that is its residual.

        Returns
        -------
        (B, 1, H, W) Tensor
        """
        first, *hidden, last = self.convolutions
        x = torch.relu_(first(ilr))  # (B, width, H, W)
        with torch.autocast(ilr.device.type, half) if half else nullcontext():
            for layer in hidden:
                x = torch.relu_(layer(x))
        out: Tensor = last(x.to(ilr.dtype))
        return out if self.config.residual else out - ilr

    def forward(self, ilr: Tensor) -> Tensor:
        """The super-resolved images: ILR plus residual, (B, 1, H, W) each."""
        return ilr + self.residual(ilr)


def make_model(seed: int = 0, config: VDSRConfig | None = None, *, start: str = "he") -> VDSR:
    """A new network whose first weights follow from the seed; the global random state stays as it is.

    Parameters
    ----------
    seed : int, optional
        Of the weights.
    config : VDSRConfig, optional
        Depth and width.
    start : {"he", "identity"}, optional
        Random weights as in the paper [1]_; or layers that pass on what they are given, plus a quarter of these, and a
        last one that adds next to nothing: the network begins as bicubic interpolation, whatever its depth, and its
        gradients neither fade nor grow.

    Returns
    -------
    VDSR

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015. https://arxiv.org/abs/1502.01852

    Examples
    --------
    >>> model = make_model(0, VDSRConfig(depth=4, width=8), start="identity")
    >>> model.convolutions[1].weight[:2, :2, 1, 1].detach()
    tensor([[ 1.0765,  0.0956],
            [-0.0188,  0.9861]])
    """
    if start not in ("he", "identity"):
        msg = f"`start` must be one of he, identity, got {start!r}. Leave it out for the paper's."
        raise ValueError(msg)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = VDSR(config or VDSRConfig())
        if start == "identity":
            for layer in model.convolutions[1:-1]:
                layer.weight *= 0.25
                layer.weight[:, :, 1, 1] += torch.eye(model.config.width)
            model.convolutions[-1].weight *= 0.02
    return model
