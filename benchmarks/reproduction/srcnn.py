"""SRCNN, the network before VDSR: three convolutions on the interpolated image, and the same with more layers.

C. Dong, C. C. Loy, K. He, X. Tang, "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 38(2), 2016.
https://arxiv.org/abs/1501.00092
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FILTERS = (64, 32)


class SRCNN(nn.Module):
    """Three convolutions with sides `kernels`, such as 9-1-5; `more` 3 x 3 layers of 32 filters before the last one.

    The original predicts the image itself; with `residual`, the layers predict what is missing, as those of VDSR do.
    It has no padding, and loses the edges of the image; here zeros are padded, so that all networks see the same.
    """

    def __init__(self, kernels: Sequence[int] = (9, 1, 5), *, more: int = 0, residual: bool = False) -> None:
        super().__init__()
        first, second, last = kernels
        sides = [first, second, *[3] * more, last]
        widths = [1, *FILTERS, *[FILTERS[1]] * more, 1]
        self.layers = nn.Sequential(
            *(nn.Conv2d(a, b, side, padding=side // 2) for a, b, side in zip(widths, widths[1:], sides, strict=False))
        )
        self.adds = residual
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def halo(self) -> int:
        """Pixels of context per side that an output pixel depends on."""
        return sum(layer.kernel_size[0] // 2 for layer in self.layers)

    def residual(self, ilr: Tensor) -> Tensor:
        """What is missing from the interpolated images, (B, 1, H, W) both."""
        *hidden, last = self.layers
        x = ilr
        for layer in hidden:
            x = torch.relu_(layer(x))
        out: Tensor = last(x)
        return out if self.adds else out - ilr
