"""The network: VDSR, which predicts what is missing from an interpolated image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from vdsr_core.network.error_table import ErrorTable
from vdsr_core.network.tolerance import HANDED_OVER, Tolerance

MAPS = ("scale", "noise", "compression")
QUALITY = ("noise", "compression")  # those that say what is wrong with an image
LARGEST = 4.0  # a larger scale is told as this one: networks have seen no larger ones


class Condition(NamedTuple):
    """What a network with maps is told of an interpolated image: how noisy, compressed and enlarged it is.

    By default it is clean, and enlarged twice.

    Attributes
    ----------
    gain, offset : float
        The variance of its noise is ``gain * value + offset``, in pixels of the low-resolution image and in the
        intensities of the network.
    compression : float
        The mean quantisation step of JPEG, as a fraction of the range.
    scale : float
        The upscaling factor; the geometric mean where rows and columns have different ones.
    """

    gain: float = 0.0
    offset: float = 0.0
    compression: float = 0.0
    scale: float = 2.0

    @property
    def noise(self) -> float:
        """The standard deviation of the noise at the intensity 1 / 2."""
        return math.sqrt(max(0.0, self.gain / 2 + self.offset))

    @property
    def is_degraded(self) -> bool:
        """Whether a `VDSR.restorer` takes over: the image is noisy, compressed, or only to be cleaned."""
        return any((self.gain, self.offset, self.compression)) or self.scale <= 1


@dataclass(frozen=True)
class VDSRConfig:
    """The shape of a VDSR network; the paper's by default.

    Attributes
    ----------
    depth : int
        Number of 3 x 3 convolutions, at least 2.
    width : int
        Number of filters of each layer but the last, at least 1.
    residual : bool
        Whether the layers predict what is missing from the interpolated image, as in VDSR, or, for comparison, the
        image itself.
    fold : int
        Side of the square of pixels that the layers treat as one position, at least 1. The pixels of a square
        become channels [1]_: with 2 each layer has a quarter of the positions, and sees twice as far.
    blocks : bool
        Whether the hidden layers form pairs (convolution, ReLU, convolution) whose input is added to their output,
        without a ReLU after the sum [2]_. Needs an even depth.
    maps : tuple of str
        Which maps, images of constant or varying numbers, the first layer gets in addition to the image [1]_:
        ``"scale"``, how many times it was enlarged, without which a smooth image enlarged twice looks like a sharp one
        enlarged four times; ``"noise"``, the standard deviation of the noise at each position; ``"compression"``, the
        strength of JPEG. So one network serves all scales, or images of any quality.

    Raises
    ------
    ValueError
        If a value is not allowed.

    References
    ----------
    .. [1] K. Zhang, W. Zuo, L. Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN based Image Denoising",
           IEEE Transactions on Image Processing 27(9), 2018. https://arxiv.org/abs/1710.04026
    .. [2] B. Lim, S. Son, H. Kim, S. Nah, K. M. Lee, "Enhanced Deep Residual Networks for Single Image
           Super-Resolution", CVPR Workshops 2017. https://arxiv.org/abs/1707.02921
    """

    depth: int = 20
    width: int = 64
    residual: bool = field(default=True, repr=False)
    fold: int = 1
    blocks: bool = False
    maps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise unless the fields describe a network."""
        for name, least, usual in (("depth", 2, 20), ("width", 1, 64), ("fold", 1, 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                msg = f"`{name}` must be an integer of at least {least}, got {value!r}. "
                raise ValueError(msg + f"The paper's network has {usual}.")
        for name in ("residual", "blocks"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                msg = f"`{name}` must be True or False, got {value!r}. "
                raise ValueError(msg + f"The paper's network has {name == 'residual'}.")
        maps: Any = self.maps
        if not isinstance(maps, tuple | list) or list(maps) != [name for name in MAPS if name in maps]:
            msg = f"`maps` must be some of {MAPS} in this order, got {maps!r}. Leave it out for none."
            raise ValueError(msg)
        object.__setattr__(self, "maps", tuple(maps))
        if self.blocks and self.depth % 2:
            msg = f"`depth` must be even with `blocks`, which pair the hidden layers, got {self.depth}. "
            raise ValueError(msg + f"Use {self.depth + 1}.")

    def ends_block(self, number: int) -> bool:
        """Whether the output of a layer is added to what its block is given, in the place of a ReLU."""
        return self.blocks and number % 2 == 0 and 0 < number < self.depth - 1


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
        The shape of the network; the paper's by default.
    scales : sequence of float, optional
        The scales that the network is made for.
    card : dict, optional
        Facts about the network, such as data, recipe and scores; only types that JSON can hold.

    Attributes
    ----------
    errors : ErrorTable or None
        How large its errors are, from `calibrate`, for `predict_error`; None until they are measured.
    restorer : str or None
        The network of the package, such as ``"restore"``, to which `super_resolve` gives noisy and compressed channels
        instead of this one; or None. It must have all maps, and the same halo and fold. A network that is trained
        further loses it.

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
        self.errors: ErrorTable | None = None
        self.restorer: str | None = None
        widths = [config.fold**2 + len(config.maps)] + [config.width] * (config.depth - 1) + [config.fold**2]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for layer in self.convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The layers, from input to output."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def maps(self) -> tuple[str, ...]:
        """What `super_resolve` tells the network of an image: the maps of the network, or all if it has a restorer."""
        return MAPS if self.restorer else self.config.maps

    @property
    def tolerance(self) -> Tolerance:
        """How weak noise and compression must be to be left in an image."""
        return HANDED_OVER if self.restorer else Tolerance()

    @property
    def halo(self) -> int:
        """Pixels on each side that an output pixel depends on: `VDSRConfig.fold` for each 3 x 3 layer.

        They are counted from the edge of the square of `fold` x `fold` pixels that holds the output pixel.
        """
        return self.config.depth * self.config.fold

    def prepare(self, ilr: Tensor, conditions: Tensor | None = None) -> Tensor:
        """The input of the first layer: the folded images, and the maps of `VDSRConfig.maps`.

        Parameters
        ----------
        ilr : (B, 1, H, W) Tensor
            Interpolated images.
        conditions : (B, 4) Tensor, optional
            A `Condition` for each image; clean and enlarged twice by default.

        Returns
        -------
        (B, fold ** 2 + maps, H / fold, W / fold) Tensor
        """
        squares = fold(ilr, self.config.fold)
        if not self.config.maps:
            return squares
        table = ilr.new_tensor([Condition()]).expand(len(ilr), -1) if conditions is None else conditions.to(ilr)
        gain, offset, compression, scale = table.T[:, :, None, None]  # (B, 1, 1)
        total = squares[:, 0].clone()
        for channel in squares.unbind(1)[1:]:  # in a fixed order: the same bits for any window
            total += channel
        noise = (gain * (total / self.config.fold**2) + offset).clamp_(min=0).sqrt_()  # (B, H / fold, W / fold)
        octaves = scale.clamp(1, LARGEST).log2() / math.log2(LARGEST)  # from 0 to 1
        maps = {"scale": octaves, "noise": noise, "compression": compression}
        return torch.cat([squares, *(maps[name].expand_as(noise)[:, None] for name in self.config.maps)], 1)

    def residual(self, ilr: Tensor, conditions: Tensor | None = None, *, half: torch.dtype | None = None) -> Tensor:
        """What is missing from the interpolated image: f(x) in Section 3.1 of the paper.

        Where `VDSRConfig.fold` does not divide a side, the last row or column is repeated up to a multiple of it.

        Parameters
        ----------
        ilr : (B, 1, H, W) Tensor
            Interpolated images, in [0, 1] for the full range.
        conditions : (B, 4) Tensor, optional
            A `Condition` for each image, which a network without maps ignores; clean and enlarged twice by default.
        half : torch.dtype, optional
            Compute all layers but the first and the last in this dtype: bfloat16 or float16. These two layers are a
            small part of the work, and would round the image itself and its residual. The sums of blocks stay in the
            dtype of `ilr`.

        Returns
        -------
        (B, 1, H, W) Tensor
        """
        first, *hidden, last = self.convolutions
        x = torch.relu_(first(self.prepare(ilr, conditions)))  # (B, width, H / fold, W / fold)
        with torch.autocast(ilr.device.type, half) if half else nullcontext():
            if self.config.blocks:
                for one, two in zip(hidden[::2], hidden[1::2], strict=True):
                    x = x + two(torch.relu_(one(x)))
            else:
                for layer in hidden:
                    x = torch.relu_(layer(x))
        out = unfold(last(x.to(ilr.dtype)), self.config.fold, ilr.shape)
        return out if self.config.residual else out - ilr

    def forward(self, ilr: Tensor) -> Tensor:
        """The super-resolved images: ILR plus residual, (B, 1, H, W) each."""
        return ilr + self.residual(ilr)


def add_maps(model: VDSR, maps: Sequence[str] = MAPS) -> VDSR:
    """The same network with more maps, to which it does not respond yet: their weights are zero.

    The network that is given stays as it is. Until the new one is trained, it gives the same results for any values of
    them. The maps that it had must come first in the order of `MAPS`.
    """
    config = replace(model.config, maps=tuple(name for name in MAPS if name in {*maps, *model.config.maps}))
    if config.maps[: len(model.config.maps)] != model.config.maps:
        msg = f"`maps` must follow those of the network, {model.config.maps}, got {config.maps}. Train a new one."
        raise ValueError(msg)
    told = VDSR(config, scales=model.scales, card=model.card)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = state["layers.0.weight"]  # (width, fold ** 2, 3, 3)
    more = config.fold**2 + len(config.maps) - first.shape[1]
    state["layers.0.weight"] = torch.cat([first, first.new_zeros(len(first), more, 3, 3)], 1)
    told.load_state_dict(state)
    return told


def fold(image: Tensor, side: int) -> Tensor:
    """The squares of `side` x `side` pixels as channels: (B, 1, H, W) to (B, side ** 2, H / side, W / side).

    H and W are rounded up to multiples of `side` by repeating the last row and column.
    """
    if side == 1:
        return image
    rows, columns = image.shape[-2:]
    return pixel_unshuffle(pad(image, (0, -columns % side, 0, -rows % side), mode="replicate"), side)


def unfold(squares: Tensor, side: int, shape: Sequence[int]) -> Tensor:
    """The inverse of `fold`, cropped to the rows and columns of `shape`, (..., H, W)."""
    return squares if side == 1 else pixel_shuffle(squares, side)[..., : shape[-2], : shape[-1]]


def make_model(seed: int = 0, config: VDSRConfig | None = None, *, start: str = "he") -> VDSR:
    """A new network whose initial weights follow from the seed; the global random state does not change.

    Parameters
    ----------
    seed : int, optional
        Seed of the random weights.
    config : VDSRConfig, optional
        The shape of the network; the paper's by default.
    start : {"he", "identity"}, optional
        Random weights as in the paper [1]_; or a quarter of them, added to weights by which hidden layers pass on their
        input (blocks do so by themselves), and a last layer that adds almost nothing. Such a network begins as bicubic
        interpolation for any depth, and its gradients neither vanish nor explode.

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
                if not model.config.blocks:
                    layer.weight[:, :, 1, 1] += torch.eye(model.config.width)
            model.convolutions[-1].weight *= 0.02
    return model
