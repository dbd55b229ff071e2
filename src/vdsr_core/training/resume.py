"""The file of a training run: written while it runs, so that it can be resumed."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Never

import numpy as np

from vdsr_core.dataset.hold_out import HoldOut
from vdsr_core.dataset.patches import Patches
from vdsr_core.files import locked, tidy
from vdsr_core.network.checkpoint import load_checkpoint, load_run, load_trainer, save_checkpoint
from vdsr_core.network.model import VDSR
from vdsr_core.training.trainer import Trainer

SAVE_SECONDS = 30.0  # between checkpoints, at least


class RunFile:
    """The checkpoint of a run: its network and, until it is finished, all that is needed to resume it.

    `settings`, of types that JSON can hold, say how the run was begun; a resumed run must agree with them. Checkpoints
    are at least `pause` seconds apart. With `tells_run`, the finished file keeps the settings, so that the run can be
    resumed even then: settings that name files of this computer do not belong there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        *,
        pause: float = SAVE_SECONDS,
        tells_run: bool = False,
    ) -> None:
        self.path, self.settings, self.pause, self.tells_run = Path(path), settings, pause, tells_run
        self._saved = -math.inf

    def is_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self._saved >= self.pause

    def held(self) -> AbstractContextManager[None]:
        """A lock: two runs must not write one file."""
        msg = f"`checkpoint` must be written by one run, got {self.path}, which another one is writing. "
        msg += "Wait for that one, or choose another name."
        return locked(self.path.with_name(f".{self.path.name}.lock"), msg)

    def save(self, model: VDSR, trainer: Trainer[VDSR], images: str, found: dict[str, Any]) -> None:
        """Write a network and what is needed to resume the run; `images` is from `digest_images`."""
        self._saved = time.monotonic()  # also where the disk is full: it is tried again after a pause
        tensors, record = trainer.state()
        record |= {"images": images, "settings": self.settings, "found": found}
        save_checkpoint(self.path, model, trainer=(tensors, record))

    def finish(self, model: VDSR, images: str) -> None:
        """Write the network, without what is needed to train it further."""
        run = {"settings": self.settings, "images": images}
        save_checkpoint(self.path, model, run=run if self.tells_run else None)

    def is_finished(self, images: str) -> bool:
        """Whether the file holds the network of a finished run, which must be with the same images."""
        run = load_run(self.path)
        if run is not None:
            self._check_images(run.get("images"), images)
        return run is not None

    def _check_images(self, begun: object, images: str) -> None:
        """Raise if a run was begun with other images."""
        if begun != images:
            msg = f"`images` must be those that the run in {self.path} was begun with, got others. Start again."
            raise ValueError(msg)

    def finished(self, model: VDSR) -> Iterator[Never]:
        """What is left of a run that is finished, no step: its network is brought to `model`."""
        with self.held():
            tidy(self.path.parent)  # of what a killed process may have left there
            self.give_network(model)
        yield from ()

    def give_network(self, model: VDSR) -> None:
        """Bring `model` to the network in the file."""
        kept = load_checkpoint(self.path)
        model.load_state_dict(kept.state_dict())
        model.scales, model.card, model.errors = kept.scales, kept.card, kept.errors

    def load(self, trainer: Trainer[VDSR], images: str) -> dict[str, Any]:
        """Bring a trainer to where the run was left; what it had found."""
        state = load_trainer(self.path)
        assert state is not None  # `read_settings` came first
        self._check_images(state[1]["images"], images)
        trainer.restore(state)
        found: dict[str, Any] = state[1]["found"]
        return found


def read_settings(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of an unfinished run, and the `TrainConfig` of its trainer, as JSON has them.

    A file that holds a finished network, or a run of an earlier version, is a ValueError.
    """
    state = load_trainer(path)
    if state is None:
        msg = f"`checkpoint` must hold an unfinished run, got {path}, which holds a finished network. "
        raise ValueError(msg + "Train further from it.")
    if not {"settings", "images", "found", "config"} <= set(state[1]):
        msg = f"`checkpoint` must hold an unfinished run of this version, got {path}, begun by another one. "
        raise ValueError(msg + "Train further from the network that it holds.")
    return state[1]["settings"], state[1]["config"]


def read_begun(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a run, also of a finished one whose file keeps them. Raises as `read_settings`."""
    run = load_run(path) or {}
    settings = run.get("settings")
    return settings if isinstance(settings, dict) else read_settings(path)[0]


def check_settings(begun: dict[str, Any], given: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Raise if a run is to be resumed with other settings than it was begun with."""
    for name, value in given.items():
        if begun.get(name) != value:
            msg = f"`{name}` must be that of the run in {path}, {begun.get(name)}, got {value}. "
            raise ValueError(msg + "Start again to change it.")


def digest_images(data: Patches, hold_out: HoldOut) -> str:
    """A number that tells the images of a run from others."""
    found = hashlib.blake2b(digest_size=16)
    for array in (data.hr.cpu().numpy(), data.ilr.cpu().numpy(), *(p.hr for p in hold_out.pieces)):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
