"""One training run, of `vdsr train` or of `fine_tune`: divide images, train, validate, keep a network, save it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.dataset.calibration import measure_errors
from vdsr_core.dataset.hold_out import HoldOut, Preview
from vdsr_core.dataset.patches import Patches
from vdsr_core.dataset.planes import make_degrade
from vdsr_core.dataset.split import split_with_pairs
from vdsr_core.network.devices import choose_device
from vdsr_core.network.model import QUALITY, VDSR
from vdsr_core.stopping import Stopped
from vdsr_core.training.progress import STUCK_GAIN, Progress
from vdsr_core.training.recipe import LEAST_SCALE, TrainConfig
from vdsr_core.training.resume import RunFile, digest_images
from vdsr_core.training.trainer import Trainer

FEW_PATCHES = 50  # that do not overlap; fewer are too little to rely on
LOG_STEPS = 100  # steps between rows of a log


@dataclass(frozen=True)
class FineTuneProgress(Progress):
    """What a step of fine-tuning did.

    Attributes
    ----------
    scores : dict or None
        For each scale, the PSNR in dB on the held-out part: ``"bicubic"``, ``"before"`` the training, and ``"after"``
        this step; None if it was not measured.
    preview : Preview or None
        A held-out part, if it was measured.
    warning : str
        A new problem, or empty: too little data, no gain over bicubic, worse and worse on the held-out part, or a full
        disk.
    mean_loss : float
        The mean of `loss` since the last row of a log.
    """

    scores: dict[str, dict[str, float]] | None = None
    preview: Preview | None = None
    mean_loss: float = math.nan

    @property
    def ends_row(self) -> bool:
        """Whether a log has a row for this step: it has one for every 100 steps and every validation."""
        return self.step % LOG_STEPS == 0 or self.gain is not None


@dataclass
class Found:
    """What a run has found so far, beside the state of its trainer."""

    before: dict[str, float]  # PSNR of the start, for each scale
    after: dict[str, float]  # the same of the network that is kept
    waited: int = 0  # validations since the best one
    warned: list[str] = field(default_factory=list)  # what has been warned of
    losses: float = 0.0  # their sum since the last row of a log
    steps: int = 0  # their number

    def add_loss(self, progress: Progress) -> FineTuneProgress:
        """The record of a step, with the mean loss since the last row of a log."""
        self.losses, self.steps = self.losses + progress.loss, self.steps + 1
        record = FineTuneProgress(**vars(progress), mean_loss=self.losses / self.steps)
        if record.ends_row:
            self.losses, self.steps = 0.0, 0
        return record


class Session:
    """A training run on images of which a part is held out.

    `model` is trained in place. `sources` and `couples` are images and pairs, from `find_planes` and `find_pairs`. The
    held-out part, of at most `pieces` pieces, is measured at all scales, and at both ends of `scale_range`.
    `validate_every` is None for 20 validations, or more in a long training. With `epochs`, the run takes so many passes
    over the patches. The other options are those of `FineTuneConfig`, `split`, `Patches` and `Trainer`.
    """

    def __init__(
        self,
        model: VDSR,
        sources: Mapping[str, list[Any]],
        couples: Mapping[str, list[Any]],
        scales: Sequence[float],
        config: TrainConfig,
        *,
        hold_out: float,
        pieces: int,
        validate_every: int | None = None,
        epochs: int | None = None,
        strips: bool = False,
        groups: Mapping[str, str] | None = None,
        blur: float = 0.0,
        added_noise: float = 0.0,
        scale_range: tuple[float, float] | None = None,
        device: str | None = None,
        stop: threading.Event | None = None,
        **patches: Any,
    ) -> None:
        parts = split_with_pairs(sources, couples, hold_out, model.halo, config.seed, strips=strips, groups=groups)
        (train, train_pairs), (held, held_pairs) = (
            ([one[1] for one in part if one[0] is None], [one for one in part if one[0] is not None]) for part in parts
        )
        usual = model.scales[0] if model.scales else 2.0  # of pairs of one size, which were enlarged before
        train_pairs, held_pairs = (
            [(ilr, hr, ratio if ratio >= LEAST_SCALE else usual) for ilr, hr, ratio in found]
            for found in (train_pairs, held_pairs)
        )
        where = choose_device(device)
        degrade_held, degrade = (make_degrade(blur, added_noise, (config.seed, number)) for number in (3, 4))
        self.scales = tuple(sorted({*scales, *(scale_range or ())}))
        told = not set(QUALITY).isdisjoint(model.config.maps)
        options: dict[str, Any] = {"degrade": degrade_held, "pieces": pieces, "device": str(where)}
        self.hold_out = HoldOut(held, self.scales, held_pairs, degraded=told, **options)
        data = Patches(
            train,
            scales,
            pairs=[pair[:2] for pair in train_pairs],
            ratios=[pair[2] for pair in train_pairs],
            scale_range=scale_range,
            degrade=degrade,
            degraded=int(told),
            device=where,
            **patches,
        )
        self.images = digest_images(data, self.hold_out)
        if epochs is not None:
            config = replace(config, steps=math.ceil(epochs * len(data) / config.batch_size))
        if validate_every is None and config.seconds is None:
            validate_every = min(1000, max(1, config.steps // 20))
        self.trainer = Trainer(
            model, data, config, validate=self.hold_out.validate, validate_every=validate_every, stop=stop
        )

    def resume(self, file: RunFile) -> Found:
        """Bring the trainer to where the run in a file was left; what that had found."""
        return Found(**file.load(self.trainer, self.images))

    def run(
        self,
        model: VDSR,
        describe: Callable[[Found], dict[str, Any]],
        *,
        scales: tuple[float, ...],
        patience: int | None = None,
        file: RunFile | None = None,
        found: Found | None = None,
    ) -> Iterator[FineTuneProgress]:
        """Train, and keep a network in `model`: the best one on the held-out part, or the last one.

        `model` gets weights, `scales`, the card that `describe` makes, and the errors that are measured on the held-out
        part. After `patience` validations without a better one the run ends; None keeps the last network, and `model`
        is `trainer.result` itself. Network and state are saved in `file` at the start, when it is due, if `patience` is
        given at each validation, and at the end. `found` is from `resume`, if the run in `file` is resumed.
        """
        trainer, hold_out = self.trainer, self.hold_out
        model.restorer = None  # which knows nothing of these images

        def is_over(found: Found) -> bool:
            return patience is not None and found.waited >= patience

        with nullcontext() if file is None else file.held():
            before = hold_out.restore(model)
            if found is None:
                scores = hold_out.means(before)
                found = Found(before=scores, after=scores)
                model.card = describe(found)
                model.errors = measure_errors(hold_out.pieces, before)
                self._save(model, found, file)
                yield self._describe_start(before)
            elif file is not None:
                file.give_network(model)
            try:
                for progress in () if is_over(found) else trainer.run():
                    due = file is not None and file.is_due()
                    record = found.add_loss(progress)
                    if progress.gain is not None:
                        found.waited += 1
                        if patience is None or progress.gain > hold_out.gain(found.after):
                            found.after, found.waited = hold_out.means(hold_out.last), 0
                            model.load_state_dict(trainer.result.state_dict())
                            model.scales, model.errors = scales, measure_errors(hold_out.pieces, hold_out.last)
                        model.card = describe(found)
                        record = self._describe_validation(record, before, found)
                        due = due or patience is not None
                    if due and progress.share < 1 and (trouble := self._try_to_save(model, found, file)):
                        record = replace(record, warning=trouble)
                    yield record
                    if is_over(found):
                        break
            except (GeneratorExit, Stopped) as reason:
                self._save(model, found, file)
                if isinstance(reason, GeneratorExit):
                    raise
                return
            if file is not None:
                file.finish(model, self.images)

    def _save(self, model: VDSR, found: Found, file: RunFile | None) -> None:
        """Save the network that is kept, and what is needed to resume."""
        if file is not None:
            file.save(model, self.trainer, self.images, asdict(found))

    def _try_to_save(self, model: VDSR, found: Found, file: RunFile | None) -> str:
        """Save; what a full disk says, once: it is tried again later."""
        try:
            self._save(model, found, file)
        except OSError as error:
            if str(error) not in found.warned:
                found.warned.append(str(error))
                return str(error)
        return ""

    def _describe_start(self, before: list[NDArray[np.float64]]) -> FineTuneProgress:
        """The record of step 0."""
        scores = self.hold_out.means(before)
        data = self.trainer.data
        patches = data.hr.numel() / data.patch**2
        few = f"There are only {patches:.0f} patches to train with: what the held-out part says about other images "
        return FineTuneProgress(
            step=0,
            share=0.0,
            learning_rate=self.trainer.config.learning_rate,
            loss=math.nan,
            clipped=0.0,
            patches_per_second=math.nan,
            seconds_left=math.nan,
            psnr=float(np.mean(list(scores.values()))),
            gain=self.hold_out.gain(scores),
            scores=compare(self.hold_out.bicubic, scores, scores),
            preview=self.hold_out.preview(before, before),
            warning=few + "is uncertain. Add images." if patches < FEW_PATCHES else "",
        )

    def _describe_validation(
        self, progress: FineTuneProgress, before: list[NDArray[np.float64]], found: Found
    ) -> FineTuneProgress:
        """The record of a step after which the network was validated; overfitting is named once."""
        hold_out, warning = self.hold_out, progress.warning
        gain, best = progress.gain or 0, hold_out.gain(found.after)
        if not warning and "worse" not in found.warned and found.waited >= 3 and gain < best - STUCK_GAIN:
            found.warned.append("worse")
            warning = f"overfitting: {gain:+.2f} dB over bicubic on the held-out part, {best:+.2f} dB earlier. The "
            warning += "best network is kept. Add images, or lower `learning_rate`."
        return replace(
            progress,
            scores=compare(hold_out.bicubic, found.before, hold_out.means(hold_out.last)),
            preview=hold_out.preview(before, hold_out.last),
            warning=warning,
        )


def compare(
    bicubic: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The three figures of each scale, as a card has them."""
    return {
        scale: {"bicubic": round(bicubic[scale], 3), "before": round(before[scale], 3), "after": round(after[scale], 3)}
        for scale in bicubic
    }


def count_images(sources: Mapping[str, Sequence[Any]], what: str) -> list[str]:
    """How many images or pairs there are, in words; nothing if there are none."""
    planes = sum(len(source) for source in sources.values())
    plural = "s" if len(sources) > 1 else ""
    return [f"{len(sources)} {what}{plural} ({planes} plane{'s' if planes > 1 else ''})"] if sources else []
