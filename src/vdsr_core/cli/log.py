"""A training's log beside its checkpoint: rows of a CSV file, and their curves."""

from __future__ import annotations

import csv
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_core.files import replacing

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.training.session import FineTuneProgress


NAMES = ("step", "share", "learning_rate", "loss", "clipped", "patches_per_second", "psnr", "gain")


class TrainingLog:
    """The rows of a CSV file beside the checkpoint `output`, one for every 100 steps and every validation.

    Rows of an earlier run beyond `step` are dropped, because these steps are repeated.
    """

    def __init__(self, output: Path, step: int) -> None:
        self.path = output.with_suffix(".train.csv")
        self._curves: Any = None  # for TensorBoard, if that is installed
        if find_spec("tensorboard"):
            folder = output.with_suffix(".tensorboard")
            self._curves = import_module("torch.utils.tensorboard").SummaryWriter(folder)
        self.rows: list[dict[str, Any]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]

    def __enter__(self) -> TrainingLog:
        """Write what is kept."""
        self.write()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the curves."""
        if self._curves:
            self._curves.close()

    def write(self) -> None:
        """Put all rows in the file; a full disk leaves the old one."""
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, NAMES, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def add(self, progress: FineTuneProgress) -> None:
        """Write a row, if the step ends one. If the disk is full, the row is kept and written with the next one."""
        if not progress.ends_row:
            return
        row = {name: getattr(progress, name) for name in NAMES} | {"loss": progress.mean_loss}
        self.rows.append(row)
        self.write()
        for name in ("loss", "psnr", "gain", "learning_rate", "clipped") if self._curves else ():
            if row[name] is not None:
                self._curves.add_scalar(name, row[name], progress.step)

    def draw(self) -> None:
        """A PNG of the curves, if matplotlib is installed."""
        if not find_spec("matplotlib"):
            return
        figure = import_module("matplotlib.figure").Figure(figsize=(7, 7), layout="constrained")
        for axes, name in zip(figure.subplots(3, sharex=True), ("loss", "gain", "learning_rate"), strict=True):
            points = [(int(row["step"]), float(row[name])) for row in self.rows if row[name] not in ("", None)]
            axes.plot(*zip(*points, strict=True))
            axes.set(ylabel="dB over bicubic" if name == "gain" else name.replace("_", " "))
            if name != "gain":
                axes.set_yscale("log")
        axes.set(xlabel="step")
        figure.savefig(self.path.with_suffix(".png"))  # OUT's name with .train.png
