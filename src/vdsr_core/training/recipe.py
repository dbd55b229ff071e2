"""How to train: the paper's recipe, a modern one, and one for a network that is trained already."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

Loss = Literal["l2", "l2_mean", "l1", "charbonnier"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["step", "cosine", "one_cycle"]
Clip = Literal["value", "norm", "none"]

CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "clip": get_args(Clip),
}
WARM_SHARE = 0.05  # of a time budget, by which the rate has risen
ONE_CYCLE_RISE = 0.3  # the share of the training in which the rate rises


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    steps : int
        Number of batches.
    seconds : float or None
        Train for so long instead, whatever the number of steps; the schedule follows the time spent.
    batch_size : int
        Patches in a batch.
    loss : {"l2", "l2_mean", "l1", "charbonnier"}
        ``l2`` is the paper's: half the squared error summed over a patch, mean over the batch. The others are means
        over pixels.
    optimizer : {"sgd", "adamw"}
        Stochastic gradient descent with `momentum`, or AdamW.
    learning_rate : float
        At the start, after `warmup` steps.
    schedule : {"step", "cosine", "one_cycle"}
        Divide the rate by 10 after each quarter of the steps, as the paper does; let it fall as a cosine to 1/1000; or
        let it rise from 1/25 over three tenths of the steps first [1]_.
    warmup : int
        Steps over which the rate rises from zero; of a time budget, a twentieth at most.
    momentum, weight_decay : float
        Of the optimiser; the first beta of AdamW.
    clip : {"value", "norm", "none"}
        What `theta` bounds: each element of the gradient, or its norm.
    theta : float
        The bound is ``theta / learning_rate``: a step of SGD without momentum is then at most theta. The paper gives
        none: with 1e-3 and more, networks of 10 and 20 layers fell to the bicubic score within 200 steps of its recipe,
        with 1e-4 they learnt.
    average : float
        Decay of the running mean of the weights that is kept as the result; 0 keeps the last weights. The mean never
        looks back over more than a ninth of the steps done: 0.9999 is right for any long training.
    seed : int
        Of the patches.

    Raises
    ------
    ValueError
        If a field has no such value.

    References
    ----------
    .. [1] L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
           Rates", 2018. https://arxiv.org/abs/1708.07120

    Examples
    --------
    >>> TrainConfig(loss="l3")
    Traceback (most recent call last):
    ValueError: `loss` must be one of l2, l2_mean, l1, charbonnier, got 'l3'. Leave it out for the default.
    """

    steps: int = 9960
    seconds: float | None = None
    batch_size: int = 64
    loss: Loss = "l2"
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    schedule: Schedule = "step"
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: Clip = "value"
    theta: float = 1e-4
    average: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can be done with; NumPy's numbers become Python's, as JSON holds them."""
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):
                object.__setattr__(self, field.name, value.item())
        for name, choices in CHOICES.items():
            self._check(name, getattr(self, name) in choices, f"be one of {', '.join(choices)}")
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            self._check(name, whole and value >= least, f"be a whole number of at least {least}")
        for name in ("learning_rate", "theta", "seconds"):
            value = getattr(self, name)
            given = value is not None or name != "seconds"
            self._check(name, not given or (is_number(value) and value > 0), "be a finite number greater than 0")
        for name, stop in (("weight_decay", math.inf), ("momentum", 1), ("average", 1)):
            value = getattr(self, name)
            self._check(name, is_number(value) and 0 <= value < stop, f"be a number from 0 to below {stop}")

    def _check(self, name: str, good: bool, rule: str) -> None:
        """Raise an error that names a field unless it is good."""
        if not good:
            msg = f"`{name}` must {rule}, got {getattr(self, name)!r}. Leave it out for the default."
            raise ValueError(msg)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# For `kim2016`, what the paper calls 80 epochs: those of the grid of 41 x 41 patches of T91 at three scales.
PRESETS = {
    "kim2016": TrainConfig(),
    "default": TrainConfig(
        steps=100_000,
        loss="l1",
        optimizer="adamw",
        learning_rate=5e-4,
        schedule="cosine",
        warmup=500,
        clip="none",
        average=0.999,
    ),
    "finetune": TrainConfig(
        steps=1000,
        batch_size=16,
        loss="l1",
        optimizer="adamw",
        learning_rate=1e-4,
        schedule="cosine",
        warmup=20,
        clip="none",
        average=0.99,
    ),
}


def rate_at(step: int, share: float, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0, when `share` of the training is done."""
    warm = (step + 1) / max(1, config.warmup)
    if config.seconds is not None:  # there may be few steps in them
        warm = max(warm, share / WARM_SHARE)
    rate = config.learning_rate * min(1, warm)
    if config.schedule == "step":
        return rate * 0.1 ** int(4 * share)
    if config.schedule == "one_cycle":
        if share < ONE_CYCLE_RISE:
            return rate * (0.04 + 0.96 * (1 - math.cos(math.pi * share / ONE_CYCLE_RISE)) / 2)
        share = (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return rate * (0.001 + 0.999 * (1 + math.cos(math.pi * share)) / 2)
