"""DRCN: one convolution, applied sixteen times, whose results are all turned into images.

J. Kim, J. K. Lee, K. M. Lee, "Deeply-Recursive Convolutional Network for Image Super-Resolution", CVPR 2016.
https://arxiv.org/abs/1511.04491
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdsr_core.training.objective import compute_loss
from vdsr_core.training.trainer import Trainer

RECURSIONS = 16
SHARE = 0.5  # of the loss that is of the single images; the paper lets its share fall during training


class DRCN(nn.Module):
    """Embedding, recursion and reconstruction, two, one and two 3 x 3 convolutions, and a weight for each image.

    The embedding makes features of the interpolated image; the recursion changes them with the same weights each time;
    the reconstruction makes an image of each, which the interpolated one is added to. The result is their weighted sum.
    The weights are kept as they are, and divided by their sum where they are used.
    """

    def __init__(self, width: int = 64, recursions: int = RECURSIONS) -> None:
        super().__init__()
        self.embedding = nn.ModuleList([nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)])
        self.recursion = nn.Conv2d(width, width, 3, padding=1)
        self.reconstruction = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)])
        self.weights = nn.Parameter(torch.full((recursions,), 1 / recursions))
        for layer in (*self.embedding, *self.reconstruction):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        # The recursion begins as the identity: it neither fades nor grows what it is given, however often.
        nn.init.dirac_(self.recursion.weight)
        nn.init.zeros_(self.recursion.bias)

    @property
    def halo(self) -> int:
        """Pixels of context per side that an output pixel depends on: one for each 3 x 3 layer that is passed."""
        return len(self.embedding) + len(self.weights) + len(self.reconstruction)

    def residuals(self, ilr: Tensor) -> Tensor:
        """What each recursion finds missing, (B, recursions, H, W)."""
        x = ilr
        for layer in self.embedding:
            x = torch.relu(layer(x))
        one, two = self.reconstruction
        found = []
        for _ in range(len(self.weights)):
            x = torch.relu(self.recursion(x))
            found.append(two(torch.relu(one(x))))
        return torch.cat(found, 1)

    def combine(self, residuals: Tensor) -> Tensor:
        """Their weighted sum, (B, 1, H, W)."""
        weights = self.weights / self.weights.sum()
        return (residuals * weights[:, None, None]).sum(1, keepdim=True)

    def residual(self, ilr: Tensor) -> Tensor:
        """What is missing from the interpolated images, (B, 1, H, W) both."""
        return self.combine(self.residuals(ilr))


class RecursiveTrainer(Trainer[DRCN]):
    """Train also each recursion for itself, "recursive supervision": gradients reach the first ones by short ways."""

    def loss(self, ilr: Tensor, hr: Tensor, conditions: Tensor | None = None) -> Tensor:
        """The loss of the result, and the mean loss of all recursions."""
        residuals = self.model.residuals(ilr)
        result = compute_loss(ilr + self.model.combine(residuals), hr, self.config.loss)
        count = residuals.shape[1]
        # (B, recursions, P, P): each recursion as an image of a batch that is so much larger.
        each = compute_loss(
            (ilr + residuals).flatten(0, 1), hr.expand(-1, count, -1, -1).flatten(0, 1), self.config.loss
        )
        return (1 - SHARE) * result + SHARE * each
