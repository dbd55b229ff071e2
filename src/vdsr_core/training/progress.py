"""What a step of training did, and why a network is stuck at the bicubic score."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vdsr_core.training.recipe import TrainConfig

# A gain below STUCK_GAIN dB over bicubic is unusual after this fraction of the training and this many steps.
STUCK_SHARE, STUCK_STEPS, STUCK_GAIN = 0.1, 100, 0.05
TIGHT = 0.5  # clipped fraction that is unusual so late; the filters of dead layers have no gradient: it is never all


@dataclass(frozen=True)
class Progress:
    """What a step of training did.

    Attributes
    ----------
    step : int
        Steps done.
    share : float
        Fraction of the training that is done, from 0 to 1.
    learning_rate, loss : float
        Learning rate and loss of this step.
    clipped : float
        Fraction of gradient elements beyond the bound.
    patches_per_second : float
        Mean speed so far.
    seconds_left : float
        Time left at that speed, without validations.
    psnr, gain : float or None
        What `validate` returned after this step, in dB: the PSNR of the network, and its gain over bicubic; None if it
        was not called.
    warning : str
        A problem that was found in this step; else empty.
    """

    step: int
    share: float
    learning_rate: float
    loss: float
    clipped: float
    patches_per_second: float
    seconds_left: float
    psnr: float | None
    gain: float | None
    warning: str = ""


def is_stuck(progress: Progress, config: TrainConfig) -> bool:
    """Whether a network is no better than bicubic interpolation although it should be by now."""
    warmup = config.warmup if config.seconds is None else 0  # it is over by that fraction
    late = progress.share >= STUCK_SHARE and progress.step >= max(STUCK_STEPS, warmup)
    return late and progress.gain is not None and progress.gain < STUCK_GAIN


def explain_stuck(progress: Progress, last_gain: float, config: TrainConfig, predicted: Tensor, missing: Tensor) -> str:
    """Why a network is stuck at the bicubic score, in words.

    `progress` is that of the last step, with its gain; `last_gain` that of the validation before. `predicted`
    and `missing` are the residuals of patches that the network could learn from, (B, 1, P, P) each.
    """
    rate = progress.learning_rate
    size, right = (float(residual.square().mean().sqrt()) for residual in (predicted, missing))
    ratio = size / max(right, 1e-12)
    if right < 1e-4:
        cause = "The images are almost flat: bicubic leaves nothing to learn. Use sharper images or larger scales."
    elif progress.clipped > TIGHT:
        cause = f"{progress.clipped:.0%} of the gradient is clipped: `theta` is too small for this loss. Raise `theta`."
    elif progress.gain is not None and progress.gain > last_gain + STUCK_GAIN:
        cause = f"It still gains: train longer, or with a higher `learning_rate` than {rate:g}."
    elif ratio > 1.5:
        cause = f"The residual is {ratio:.1f} times as large as what is missing: the learning rate, {rate:g}, is too "
        cause += "high. Lower `learning_rate`."
    elif ratio < 0.1:
        theta = ", a lower `theta`" if config.clip == "value" else ""
        cause = f"The residual has collapsed to {ratio:.1%} of what is missing. Start again with a lower "
        cause += f"`learning_rate`{theta} or a lower `weight_decay`: layers that became zero do not recover."
    else:
        cause = f"The learning rate, {rate:g}, may be too low, or there are too few images. Raise `learning_rate`."
    return f"stuck at or below bicubic: {progress.gain:+.2f} dB after step {progress.step}. {cause}"
