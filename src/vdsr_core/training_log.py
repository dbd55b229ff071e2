"""A training's log beside its checkpoint: rows of a CSV file, and their curves."""

from __future__ import annotations

import csv
import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.training import Progress


LOG_STEPS = 100  # steps between rows of the log


class TrainingLog:
    """The rows of a CSV file beside a checkpoint, one for every 100 steps and every measurement.

    Parameters
    ----------
    output : Path
        The checkpoint.
    step : int
        Rows of an earlier run beyond this step are dropped: these steps come again.
    """

    def __init__(self, output: Path, step: int) -> None:
        self.path = output.with_suffix(".train.csv")
        self.loss, self._since, self._curves = math.nan, [0.0, 0], optional_curves(output)
        self.rows: list[dict[str, Any]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]

    def __enter__(self) -> TrainingLog:
        """Write what is kept."""
        names = ("step", "share", "learning_rate", "loss", "clipped", "patches_per_second", "psnr", "gain")
        self._stream = self.path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._stream, names, lineterminator="\n")
        self._writer.writeheader()
        self._writer.writerows(self.rows)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stream.close()
        if self._curves:
            self._curves.close()

    def add(self, progress: Progress) -> None:
        """Note a step; `loss` is the mean since the last row."""
        self._since = [self._since[0] + progress.loss, self._since[1] + 1]
        self.loss = self._since[0] / self._since[1]
        if progress.step % LOG_STEPS and progress.gain is None:
            return
        row = {name: getattr(progress, name) for name in self._writer.fieldnames} | {"loss": self.loss}
        self.rows.append(row)
        self._writer.writerow(row)
        self._stream.flush()
        self._since = [0.0, 0]
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


def optional_curves(output: Path) -> Any:
    """A writer for TensorBoard, if that is installed."""
    if not find_spec("tensorboard"):
        return None
    return import_module("torch.utils.tensorboard").SummaryWriter(output.with_suffix(".tensorboard"))
