"""Run the network on patches with fewer multiplications, forwards and backwards, on one core of a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vdsr_core.network.model import VDSR

# The matrices of F(4, 3): a row of 6 pixels times a row of 3 weights gives one of 4 pixels, by 6 products and not 12.
PIXELS = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
          (0, 4, 0, -5, 0, 1))  # fmt: skip
WEIGHTS = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
           (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
RESULTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
ALL_ONES = 7  # the product that each pixel of a result contains once


class Workspace:
    """Winograd's convolutions [1]_ of a network and their gradients, for batches of one shape.

    Each tile of 4 x 4 pixels of a layer takes 36 products for each pair of filters instead of 144. What they take
    beside, mapping tiles of 6 x 6 to 36 numbers and back, are matrix products, too. All arrays are made once: in a
    step, nothing of size is allocated; for two patches of 48 x 48 they take 90 MB. Sums differ from those of direct
    convolution by rounding, about 1e-5 of the largest in single precision.

    Parameters
    ----------
    model : VDSR
        Of at least three layers; its weights may change between calls.
    shape : (int, int, int)
        Patches in a batch, rows, columns.
    dtype : torch.dtype, optional
        Of weights and patches.

    References
    ----------
    .. [1] A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
           https://arxiv.org/abs/1509.09308

    Examples
    --------
    >>> from vdsr_core import VDSRConfig
    >>> model, ilr = VDSR(VDSRConfig(depth=4, width=8)), torch.rand(2, 1, 9, 10)
    >>> torch.allclose(Workspace(model, (2, 9, 10)).residual(ilr), model.residual(ilr), atol=1e-4)
    True
    """

    def __init__(self, model: VDSR, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> None:
        self.model, width, layers = model, model.config.width, model.config.depth - 2
        self.count, self.rows, self.columns = count, rows, columns = shape
        self.down, self.across = down, across = -(-rows // 4), -(-columns // 4)  # tiles
        size = down * across * count

        # Transforms along rows and columns at once; the first, the largest, goes faster one after the other.
        one, *both = (torch.tensor(matrix, dtype=torch.float64) for matrix in (PIXELS, WEIGHTS, RESULTS))
        self.to_products = one.to(dtype)
        self.to_weights, self.to_pixels = (torch.kron(matrix, matrix).to(dtype) for matrix in both)
        # Pixels of a layer lie as (row, column, patch, filter), with a border of zeros and room for whole tiles.
        self.features = [torch.zeros(4 * down + 2, 4 * across + 2, count, width, dtype=dtype) for _ in range(layers)]
        self.gradient = torch.zeros(4 * down + 4, 4 * across + 4, count, width, dtype=dtype)
        self.inputs = [torch.empty(36, size, width, dtype=dtype) for _ in range(layers)]
        self.kernels = [torch.empty(36, width, width, dtype=dtype) for _ in range(layers)]
        self.tiles, self.products = (torch.empty(36, size, width, dtype=dtype) for _ in range(2))
        self.pixels = torch.empty(16, size, width, dtype=dtype)

    def residual(self, ilr: Tensor) -> Tensor:
        """`model.residual` of a batch, (B, 1, P, P), to be differentiated before the next call."""
        first, *hidden, last = self.model.convolutions
        width, rows, columns = self.model.config.width, self.rows, self.columns
        framed = torch.nn.functional.pad(ilr[:, 0].permute(1, 2, 0), (0, 0, 1, 1, 1, 1))  # (P + 2, P + 2, B)
        windows = framed.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9)
        x = torch.relu_(torch.addmm(first.bias, windows, first.weight.view(width, 9).T))  # type: ignore[arg-type]
        border = (0, 0, 0, 0, 1, 4 * self.across - columns + 1, 1, 4 * self.down - rows + 1)
        x = torch.nn.functional.pad(x.view(rows, columns, self.count, width), border)
        parameters = [parameter for layer in hidden for parameter in (layer.weight, layer.bias)]
        x = _Hidden.apply(self, x, *parameters)  # type: ignore[no-untyped-call]
        x = x[: rows + 2, : columns + 2].reshape(-1, width) @ last.weight.view(width, 9)
        parts = x.view(rows + 2, columns + 2, self.count, 9)
        out: Tensor = last.bias + sum(
            parts[i : i + rows, j : j + columns, :, 3 * i + j] for i in range(3) for j in range(3)
        )
        out = out.permute(2, 0, 1)[:, None]
        return out if self.model.config.residual else out - ilr

    def cells(self, pixels: Tensor) -> Tensor:
        """Pixels inside a border as tiles, (4, 4, rows of tiles, columns of tiles, B, width)."""
        inside = pixels[1 : 4 * self.down + 1, 1 : 4 * self.across + 1]
        return inside.view(self.down, 4, self.across, 4, *pixels.shape[2:]).permute(1, 3, 0, 2, 4, 5)

    @staticmethod
    def transform(matrix: Tensor, values: Tensor, between: Tensor, out: Tensor) -> None:
        """Multiply (6, 6, ...) values by a matrix along both axes; `between` holds what comes after one."""
        torch.mm(matrix, values.view(6, -1), out=between.view(6, -1))
        torch.bmm(matrix.expand(6, 6, 6), between.view(6, 6, -1), out=out.view(6, 6, -1))

    def convolve(self, layer: int, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """One layer with its ReLU."""
        inputs, kernels, out = self.inputs[layer], self.kernels[layer], self.features[layer]
        torch.mm(self.to_weights, weight.reshape(-1, 9).T, out=kernels.view(36, -1))  # (36, out, in)
        shape = (self.down, self.across, self.count, self.model.config.width)
        self.tiles.view(6, 6, *shape).copy_(x.unfold(0, 6, 4).unfold(1, 6, 4).permute(4, 5, 0, 1, 2, 3))
        self.transform(self.to_products, self.tiles, self.products, inputs)
        torch.bmm(inputs, kernels.transpose(1, 2), out=self.products)
        self.products[ALL_ONES] += bias
        torch.mm(self.to_pixels, self.products.view(36, -1), out=self.pixels.view(16, -1))
        torch.clamp_min(self.pixels.view(4, 4, *shape), 0, out=self.cells(out))
        out[self.rows + 1 :] = 0
        out[:, self.columns + 1 :] = 0
        return out

    def differentiate(self, layer: int, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of a layer's input, weight and bias, from that of its output."""
        width, inputs, kernels = self.model.config.width, self.inputs[layer], self.kernels[layer]
        shape = (self.down, self.across, self.count, width)
        torch.ops.aten.threshold_backward.grad_input(  # ReLU's
            self.cells(slope), self.cells(self.features[layer]), 0, grad_input=self.pixels.view(4, 4, *shape)
        )
        torch.mm(self.to_pixels.T, self.pixels.view(16, -1), out=self.products.view(36, -1))
        kernel = torch.bmm(self.products.transpose(1, 2), inputs)  # (36, out, in)
        weight = torch.mm(kernel.view(36, -1).T, self.to_weights).view(width, width, 3, 3)
        bias = self.products[ALL_ONES].sum(0)
        torch.bmm(self.products, kernels, out=self.tiles)
        self.transform(self.to_products.T, self.tiles, self.products, self.tiles)
        # Tiles of 6 x 6 overlap by two pixels: the last two of each are added to the first two of the next.
        parts = self.tiles.view(6, 6, *shape)
        self.gradient[4 * self.down :] = 0
        self.gradient[:, 4 * self.across :] = 0
        whole = self.gradient.view(self.down + 1, 4, self.across + 1, 4, *shape[2:]).permute(1, 3, 0, 2, 4, 5)
        whole[:, :, :-1, :-1] = parts[:4, :4]
        whole[:2, :, 1:, :-1] += parts[4:, :4]
        whole[:, :2, :-1, 1:] += parts[:4, 4:]
        whole[:2, :2, 1:, 1:] += parts[4:, 4:]
        return self.gradient[:-2, :-2], weight, bias


class _Hidden(torch.autograd.Function):
    """The layers between the first and the last."""

    @staticmethod
    def forward(ctx: Any, space: Workspace, x: Tensor, *parameters: Tensor) -> Tensor:
        """Weight and bias of each layer in turn."""
        ctx.space = space
        for layer, pair in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
            x = space.convolve(layer, x, *pair)
        return x.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        """From the last layer to the first."""
        space: Workspace = ctx.space
        gradients: list[Tensor] = []
        for layer in reversed(range(len(space.features))):
            slope, weight, bias = space.differentiate(layer, slope)
            gradients += [bias, weight]
        return None, slope, *reversed(gradients)
