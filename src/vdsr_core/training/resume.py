"""The checkpoint of a fine-tuning that can be gone on with."""

from __future__ import annotations

import hashlib
import math
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vdsr_core.dataset.hold_out import HoldOut
from vdsr_core.dataset.patches import Patches
from vdsr_core.files import locked
from vdsr_core.network.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from vdsr_core.network.model import VDSR
from vdsr_core.training.trainer import Trainer

SAVE_SECONDS = 30.0  # between checkpoints, at least
KEPT = ("before", "after", "waited", "warned")


@dataclass
class Found:
    """What a run has found so far, beside the state of its trainer.

    Attributes
    ----------
    before, after : dict
        PSNR of the start and of the best network, for each scale.
    waited : int
        Validations since the best one.
    best : VDSR or None
        The best network, from a checkpoint.
    warned : list of str
        What has been warned of.
    """

    before: dict[str, float]
    after: dict[str, float]
    waited: int = 0
    best: VDSR | None = None
    warned: list[str] = field(default_factory=list)


class Unfinished:
    """The file of a run that can be gone on with.

    Parameters
    ----------
    path : path
        The file.
    trainer : Trainer
        Whose state it holds.
    mark : str
        From `fingerprint`.
    begun : dict
        What else must be the same for it to go on: argument to value, JSON types only.
    """

    def __init__(self, path: str | os.PathLike[str], trainer: Trainer, mark: str, begun: dict[str, Any]) -> None:
        self.path, self.trainer, self.mark, self.begun = path, trainer, mark, begun
        self.saved = -math.inf

    def is_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self.saved >= SAVE_SECONDS

    def save(self, model: VDSR, found: Found, *, finished: bool = False) -> None:
        """Write the best network and, unless finished, what is needed to go on."""
        tensors, record = self.trainer.state()
        record |= {"images": self.mark, "begun": self.begun} | {name: getattr(found, name) for name in KEPT}
        save_checkpoint(self.path, model, trainer=None if finished else (tensors, record))
        self.saved = time.monotonic()

    def held(self) -> AbstractContextManager[None]:
        """A lock: two runs must not write one file."""
        path = Path(self.path)
        msg = f"`checkpoint` must be written by one run, got {path}, which another one is writing. "
        return locked(path.with_name(f".{path.name}.lock"), msg + "Wait for that one, or choose another name.")

    def load(self) -> Found:
        """Bring the trainer to where the run was left."""
        state = load_trainer(self.path)
        if state is None or "waited" not in state[1]:
            msg = f"`checkpoint` must hold an unfinished run, got {self.path}, which holds none. Begin anew."
            raise ValueError(msg)
        record = state[1]
        if record["images"] != self.mark:
            msg = f"`images` must be those that the run in {self.path} was begun with, got others. Begin anew."
            raise ValueError(msg)
        for name, value in self.begun.items():
            if (known := record.get("begun", self.begun).get(name)) != value:
                msg = f"`{name}` must be that of the run in {self.path}, {known}, got {value}. Begin anew to change it."
                raise ValueError(msg)
        self.trainer.restore(state)
        return Found(best=load_checkpoint(self.path), **{name: record[name] for name in KEPT})


def fingerprint(data: Patches, hold_out: HoldOut) -> str:
    """A number that tells the images of a run from others."""
    found = hashlib.blake2b(digest_size=16)
    for array in (data.hr.cpu().numpy(), data.ilr.cpu().numpy(), *(p.hr for p in hold_out.pieces)):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
