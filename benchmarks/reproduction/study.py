"""What the scripts of this folder share: a run of the paper's training with one setting changed, and its scores.

A script trains a few networks, the one of the paper among them, and writes a table and curves. Runs are kept in
``OUTPUT/runs_SIZE``, each one file, and taken from there the next time: scripts share what they have in common, and one
that was stopped, by its budget or by force, goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_core import VDSR, VDSRConfig, evaluate, load_checkpoint, read_image, save_checkpoint
from vdsr_core.cli.train import parse_time
from vdsr_core.dataset.patches import Patches
from vdsr_core.evaluation import check_bicubic, luma, mean_scores
from vdsr_core.files import replacing
from vdsr_core.network.checkpoint import load_trainer
from vdsr_core.network.model import make_model
from vdsr_core.training.recipe import PRESETS
from vdsr_core.training.trainer import Trainer

SETS = ("Set5", "Set14", "B100")  # to report on; of size "tiny", the first
EPOCHS = (10, 20, 40, 80)  # at which the paper looks


SAVE_SECONDS = 60  # between checkpoints
DEPTH, WIDTH, STEPS, BATCH = 20, 64, 9960, 64  # the paper's


class OutOfTimeError(Exception):
    """The budget is spent; the state is kept."""


@dataclass(frozen=True)
class Size:
    """What a run costs: the network, the steps that are the paper's 80 epochs, the batch, and every n-th image."""

    depth: int
    width: int
    steps: int
    batch_size: int
    every: int


SIZES = {
    "tiny": Size(4, 8, 16, 4, 30),  # to see that all runs
    "small": Size(10, 16, 400, 8, 6),
    "full": Size(DEPTH, WIDTH, STEPS, BATCH, 1),
}


@dataclass(frozen=True)
class Setting:
    """What a run changes of the paper's recipe; the defaults are the paper's."""

    scales: tuple[float, ...] = (2.0, 3.0, 4.0)
    residual: bool = True
    depth: int | None = None  # that of the size
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    augment: str = "dihedral"
    grid: bool = True

    @property
    def name(self) -> str:
        """What differs from the paper, as the name of a file."""
        changed = {k: v for k, v in asdict(self).items() if v != getattr(Setting(), k)}
        words = ("".join(f"{s:g}" for s in v) if k == "scales" else str(v) for k, v in changed.items())
        return ",".join(f"{k}={word}" for k, word in zip(changed, words, strict=True)) or "paper"


@dataclass(frozen=True)
class Point:
    """The mean PSNR (dB) and SSIM on Set5 by scale, when `epoch` of the paper's 80 are done."""

    epoch: float
    psnr: Mapping[str, float]
    ssim: Mapping[str, float]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with T91, BSDS200 and Set5")
    parser.add_argument("--size", choices=SIZES, default="small", help="of networks and training (default: small)")
    parser.add_argument("--budget", metavar="TIME", help="stop after so long, such as 9m; the next command goes on")
    parser.add_argument("--output", type=Path, help="folder of the results (default: reproduction_SIZE)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def complete(options: argparse.Namespace) -> argparse.Namespace:
    """The options with what follows from them."""
    options.deadline = time.monotonic() + (parse_time(options.budget, "--budget") if options.budget else 1e9)
    options.output = options.output or Path(f"reproduction_{options.size}")
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def start(description: str | None, main: Callable[[argparse.Namespace], None]) -> None:
    """Run a script; the exit code is 75, "try again", if its budget did not suffice."""
    try:
        main(complete(make_parser(description).parse_args()))
    except OutOfTimeError as error:
        print(f"out of time: {error}; the same command goes on", file=sys.stderr)
        sys.exit(75)


def read_lumas(folder: Path) -> list[NDArray[np.float32]]:
    """The luma of all images of a folder, in [0, 1]."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".bmp"))
    return [(luma(np.asarray(read_image(path).data), path.name) / 255).astype(np.float32) for path in paths]


def score(model: VDSR, folder: Path, scales: Sequence[float], device: str) -> tuple[dict[str, float], dict[str, float]]:
    """The mean PSNR and SSIM of a network on a folder of images, by scale."""
    images = ((path.stem, read_image(path).data) for path in sorted(folder.glob("*.png")))
    means = mean_scores(evaluate(model, images, scales, device=device))
    check_bicubic(folder.name, means)
    ours = [mean for mean in means if mean.method == "vdsr"]
    return {f"{m.scale:g}": m.psnr for m in ours}, {f"{m.scale:g}": m.ssim for m in ours}


def run(
    setting: Setting, options: argparse.Namespace, *, test: Sequence[float] = (2, 3, 4), epochs: Sequence[int] = EPOCHS
) -> list[Point]:
    """Train by a setting, unless that is done already, and return the scores at some of the 80 epochs.

    A run is one file, written every minute: the network, its card with the scores so far, and, while it is unfinished,
    the trainer. Raises `OutOfTimeError` when the deadline of the options has come.
    """
    path = run_path(setting, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = load_trainer(path) if path.exists() else None
    if path.exists() and state is None:
        return [Point(**point) for point in load_checkpoint(path).card["points"]]
    if time.monotonic() > options.deadline:
        raise OutOfTimeError(setting.name)
    trainer = prepare(setting, options)
    curve: list[dict[str, Any]] = []
    if state:
        trainer.restore(state)
        curve = state[1]["points"]

    def save() -> None:
        card = {"setting": asdict(setting), "size": asdict(SIZES[options.size]), "points": curve}
        trainer.result.card = card | {"seconds": round(trainer.spent), "device": options.device}
        tensors, record = trainer.state()
        unfinished = (tensors, record | {"points": curve}) if trainer.share < 1 else None
        save_checkpoint(path, trainer.result, trainer=unfinished)

    marks = {round(trainer.config.steps * epoch / 80): epoch for epoch in EPOCHS}
    saved = time.monotonic()
    for progress in trainer.run():
        epoch = marks.get(progress.step)
        if epoch in epochs:
            psnr, ssim = score(trainer.result, options.data / "Set5", test, options.device)
            curve.append(asdict(Point(epoch, psnr, ssim)))
            words = "  ".join(f"x{scale} {value:.2f}" for scale, value in psnr.items())
            print(f"{setting.name}: epoch {epoch}, loss {progress.loss:.3g}, {words} dB", flush=True)
        late = time.monotonic() > options.deadline and progress.share < 1
        if late or epoch is not None or time.monotonic() - saved > SAVE_SECONDS:
            save()
            saved = time.monotonic()
        if late:
            raise OutOfTimeError(setting.name)
    return [Point(**point) for point in curve]


def run_rows(
    options: argparse.Namespace, name: str, cases: Sequence[Any], make: Callable[[Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each case, kept in a file as soon as it is made; the deadline is looked at between two."""
    path: Path = options.output / f"runs_{options.size}" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for case in cases[len(rows) :]:
        if time.monotonic() > options.deadline:
            msg = f"{name}, {case}"
            raise OutOfTimeError(msg)
        rows.append(make(case))
        print(rows[-1], flush=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def run_path(setting: Setting, options: argparse.Namespace) -> Path:
    """The file of a run."""
    path: Path = options.output / f"runs_{options.size}" / f"{setting.name}.safetensors"
    return path


def load_run(setting: Setting, options: argparse.Namespace) -> VDSR:
    """The network of a finished run."""
    return load_checkpoint(run_path(setting, options))


def prepare(setting: Setting, options: argparse.Namespace) -> Trainer:
    """The trainer of a run, at its start."""
    size = SIZES[options.size]
    data = load_patches(options.data, size.every, setting.scales, setting.grid, setting.augment, options.device)
    config = replace(
        PRESETS["kim2016"],
        steps=size.steps,
        batch_size=size.batch_size,
        learning_rate=setting.learning_rate,
        weight_decay=setting.weight_decay,
    )
    model = make_model(0, VDSRConfig(setting.depth or size.depth, size.width, setting.residual))
    model.scales = setting.scales
    return Trainer(model, data, config)


@lru_cache(1)  # runs that follow each other often share their patches
def load_patches(folder: Path, every: int, scales: tuple[float, ...], grid: bool, augment: Any, device: str) -> Patches:
    """Patches of every n-th image of T91 and BSDS200."""
    images = [*read_lumas(folder / "T91"), *read_lumas(folder / "BSDS200")][::every]
    return Patches(images, scales, grid=grid, augment=augment, device=device)


def report(options: argparse.Namespace, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a Markdown table, and write them as JSON and CSV."""
    (options.output / f"{name}.json").write_text(json.dumps(list(rows), indent=1) + "\n")
    with (options.output / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print("| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")


def draw(options: argparse.Namespace, name: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """A PNG of curves, each (x, y) by its name: PSNR over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, (x, y) in curves.items():
        axes.plot(x, y, ".-", label=label)
    axes.set(xlabel="epoch (of 80)", ylabel="PSNR on Set5, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(options.output / f"{name}.png", dpi=100)
