"""How to train: the paper's recipe, a modern one, and one for a network that is trained already."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from vdsr_core.arguments import check_integer, check_number, check_scales

Loss = Literal["l2", "l1", "psnr"]
Optimizer = Literal["sgd", "adamw", "muon"]
Schedule = Literal["step", "cosine"]
Clip = Literal["value", "none"]

CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "clip": get_args(Clip),
}
POSITIVE = "a finite number greater than 0", lambda n: 0 < n < math.inf
BELOW_ONE = "a number from 0 to below 1", lambda n: 0 <= n < 1
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": POSITIVE, "theta": POSITIVE, "seconds": POSITIVE, "momentum": BELOW_ONE, "average": BELOW_ONE,
    "weight_decay": ("a number from 0 to below inf", lambda n: 0 <= n < math.inf),
    "decay": ("a number from 0 to 1", lambda n: 0 <= n <= 1),
}  # fmt: skip
# Of a `VDSRConfig`: what is trained unless said otherwise.
NETWORK: dict[str, Any] = {"fold": 2, "blocks": True, "maps": ("scale",)}
LEAST_SCALE = 1.1  # of fine-tuning; below, the interpolated image is almost the sharp one
WARMUP_FRACTION = 0.05  # of the steps or the time budget, after which the learning rate has risen


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    steps : int
        Number of batches.
    seconds : float or None
        Train for this time instead of a number of steps; the schedule follows the time spent.
    batch_size : int
        Patches in a batch.
    loss : {"l2", "l1", "psnr"}
        ``l2`` is the paper's: half the squared error summed over a patch, mean over the batch. ``l1`` is the mean
        absolute error over pixels. ``psnr`` is the mean over the patches of how many dB the squared error of each is
        above that of rounding to 8 bits: smooth patches, whose errors are small, count as much as others.
    optimizer : {"sgd", "adamw", "muon"}
        Stochastic gradient descent with `momentum`; AdamW; or `Muon`, whose steps have a fixed size.
    learning_rate : float
        The learning rate after `warmup` steps, where it is highest.
    schedule : {"step", "cosine"}
        Divide the learning rate by 10 after each quarter of the steps, as the paper does; or keep it constant first,
        then let it fall as a cosine to a thousandth.
    decay : float
        Fraction of the training, at its end, in which the learning rate falls as a cosine: 1 for all of it, 0 for a
        constant learning rate. With a constant learning rate, a training needs no end; whenever you want a network,
        start another training from its checkpoint with a `decay` of 1.
    warmup : int
        Number of steps in which the learning rate rises from zero; at most a twentieth of a time budget.
    momentum, weight_decay : float
        For SGD, and for AdamW, whose first beta is the momentum. Muon has a momentum of 0.95 and no weight decay.
    clip : {"value", "none"}
        Whether each element of the gradient is clipped to [-theta / learning_rate, theta / learning_rate]. Not for
        Muon, whose steps do not depend on the size of the gradient.
    theta : float
        A step of SGD without momentum changes a weight by at most theta. The paper gives no value: with 1e-3 and more,
        networks of 10 and 20 layers fell to the bicubic score within 200 steps of its recipe; with 1e-4 they learnt.
    average : float
        Decay of the running mean of the weights that is kept as the result; 0 keeps the last weights. The mean covers
        at most about the last ninth of the steps, so 0.9999 suits any long training.
    seed : int
        Seed of the random patches.

    Raises
    ------
    TypeError, ValueError
        If a field has an invalid value.

    Examples
    --------
    >>> TrainConfig(loss="l3")
    Traceback (most recent call last):
    ValueError: `loss` must be one of l2, l1, psnr, got 'l3'. Leave it out for the default.
    """

    steps: int = 9960
    seconds: float | None = None
    batch_size: int = 64
    loss: Loss = "l2"
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    schedule: Schedule = "step"
    decay: float = 1.0
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: Clip = "value"
    theta: float = 1e-4
    average: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid values; NumPy's numbers become Python's, as JSON holds them."""
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                msg = f"`{name}` must be one of {', '.join(choices)}, got {value!r}. Leave it out for the default."
                raise ValueError(msg)
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), least))
        for name, (rule, holds) in NUMBERS.items():
            if name != "seconds" or self.seconds is not None:
                object.__setattr__(self, name, check_number(name, getattr(self, name), rule, holds=holds))
        if self.optimizer == "muon" and self.clip != "none":
            msg = f"`clip` must be 'none' with the optimizer muon, got {self.clip!r}: its steps do not depend on the "
            raise ValueError(msg + "size of the gradient. Leave out `theta`, or use the optimizer adamw.")


# For `kim2016`, what the paper calls 80 epochs: those of the grid of 41 x 41 patches of T91 at three scales.
PRESETS = {
    "kim2016": TrainConfig(),
    "default": TrainConfig(
        steps=50_000,
        batch_size=16,
        loss="l1",
        optimizer="muon",
        learning_rate=1e-3,
        schedule="cosine",
        decay=0.6,
        warmup=60,
        clip="none",
        average=0.999,
    ),
    "finetune": TrainConfig(
        steps=1000,
        batch_size=16,
        loss="l1",
        optimizer="muon",
        learning_rate=3e-4,
        schedule="cosine",
        warmup=20,
        clip="none",
        average=0.99,
    ),
}


def rate_at(step: int, share: float, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0, when the fraction `share` of the training is done."""
    warm = (step + 1) / max(1, config.warmup)
    if config.seconds is not None:  # there may be few steps in them
        warm = max(warm, share / WARMUP_FRACTION)
    rate = config.learning_rate * min(1, warm)
    if config.schedule == "step":
        return rate * 0.1 ** int(4 * share)
    fallen = max(0.0, 1 - (1 - share) / config.decay) if config.decay else 0.0  # 0 to 1 during the decay
    return rate * (0.001 + 0.999 * (1 + math.cos(math.pi * fallen)) / 2)


@dataclass(frozen=True)
class FineTuneConfig:
    """How to fine-tune.

    Attributes
    ----------
    scales : sequence of float or None
        Scales to train for with images, at least 1.1 each; None for those of the network.
    blur : float
        Standard deviation, in pixels of the images, of a Gaussian blur before the reduction.
    added_noise : float
        Standard deviation of the noise that low-resolution images get, as a fraction of the range of intensities.
    steps : int
        Maximum number of training steps.
    seconds : float or None
        Train for this time instead of a number of steps.
    optimizer : {"muon", "adamw"}
        As in `TrainConfig`.
    learning_rate : float
        The learning rate after the warm-up; from there it falls as a cosine. For AdamW, use a third of the default.
    theta : float or None
        Clip each element of the gradient to [-theta / learning_rate, theta / learning_rate]; for AdamW only.
    batch_size, patch : int
        Patches in a batch, and the side of a patch in pixels, which is less if the smallest image is smaller.
    hold_out : float
        The fraction of the images that is held out: at least one image, or some rows or columns of a single image.
    strips : bool
        Hold out a strip of each image, even if there are several images: for images of one field of view, such
        as channels.
    validate_every, patience : int
        Steps between validations, and number of validations without a better result after which to stop.
    seed : int
        Seed of the choice of held-out images and of patches.

    Raises
    ------
    TypeError, ValueError
        If a field has an invalid value.

    Examples
    --------
    >>> FineTuneConfig(scales=2).scales
    (2.0,)
    """

    scales: float | Sequence[float] | None = None
    blur: float = 0.0
    added_noise: float = 0.0
    steps: int = PRESETS["finetune"].steps
    seconds: float | None = None
    optimizer: Optimizer = PRESETS["finetune"].optimizer
    learning_rate: float = PRESETS["finetune"].learning_rate
    theta: float | None = None
    batch_size: int = PRESETS["finetune"].batch_size
    patch: int = 48
    hold_out: float = 0.2
    strips: bool = False
    validate_every: int = 50
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields; scales become a tuple."""
        for name in ("validate_every", "patience", "patch"):
            check_integer(name, getattr(self, name), 1)
        check_number("hold_out", self.hold_out, "a number between 0 and 1", "Try 0.2.", lambda part: 0 < part < 1)
        if self.scales is not None:
            scales = check_scales(self.scales, least=LEAST_SCALE)
            object.__setattr__(self, "scales", scales)
            if not scales:
                msg = "`scales` must hold at least one scale, got none. Leave it out for those of the network."
                raise ValueError(msg)
        self.to_train_config()

    def to_train_config(self) -> TrainConfig:
        """The same as a `TrainConfig`."""
        preset = PRESETS["finetune"]
        names = "steps", "seconds", "optimizer", "learning_rate", "batch_size", "seed"
        config = shorten_warmup(replace(preset, **{name: getattr(self, name) for name in names}))
        return config if self.theta is None else replace(config, clip="value", theta=self.theta)

    def to_json(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return asdict(self) | {"scales": None if self.scales is None else list(self.scales)}  # type: ignore[arg-type]


def shorten_warmup(config: TrainConfig) -> TrainConfig:
    """The recipe with a warm-up of at most a twentieth of its steps."""
    return replace(config, warmup=min(config.warmup, int(WARMUP_FRACTION * config.steps)))


def describe_recipe(config: TrainConfig, patch: int, scales: Sequence[float]) -> str:
    """The settings of a training in words."""
    length = f"{config.steps} steps" if config.seconds is None else f"{config.seconds:g} s"
    clip = "" if config.clip == "none" else f"; gradients clipped by {config.clip}, theta {config.theta:g}"
    learnt = ", ".join(f"{scale:.3g}" for scale in scales) or "as before"
    decay = f" over the last {config.decay:.0%}" if config.schedule == "cosine" and config.decay < 1 else ""
    schedule = f"{config.schedule} schedule{decay}" if config.decay else "constant"
    return (
        f"at most {length} of {config.batch_size} patches of {patch} x {patch}, scales {learnt}; "
        f"{config.loss}; {config.optimizer}, learning rate {config.learning_rate:g}, {schedule}{clip}; "
        f"weight average {config.average:g}; seed {config.seed}"
    )
