"""What the scripts of this folder share: a run of the paper's training with one setting changed, and its scores.

A script trains a few networks, the one of the paper among them, and writes a table and curves. Runs are kept in
``OUTPUT/runs_SIZE``, each one file, and taken from there the next time: scripts share what they have in common, and one
that was stopped, by its budget or by force, is resumed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.reproduction.drcn import DRCN, RecursiveTrainer
from benchmarks.reproduction.srcnn import SRCNN
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vdsr_core import VDSRConfig, degrade, psnr, read_image, resize
from vdsr_core.cli.train import parse_time
from vdsr_core.dataset.patches import Patches
from vdsr_core.evaluation import Score, check_bicubic, luma, mean_scores
from vdsr_core.files import replacing
from vdsr_core.images.degradation import crop_to_scale
from vdsr_core.network.model import make_model
from vdsr_core.training.recipe import PRESETS, TrainConfig, shorten_warmup
from vdsr_core.training.trainer import Network, Trainer

EPOCHS = (10, 20, 40, 80)  # at which the paper looks
SEEDS = (0, 1)  # of weights and patches; every claim is of two runs
SAVE_SECONDS = 60  # between checkpoints
DEPTH, WIDTH, STEPS, BATCH = 20, 64, 9960, 64  # the paper's

# The presets of `vdsr train`; the paper's without its clip; and that of SRCNN, whose rate stays as it is.
RECIPES = {
    "kim2016": PRESETS["kim2016"],
    "default": PRESETS["default"],
    "unclipped": replace(PRESETS["kim2016"], clip="none"),
    "srcnn": TrainConfig(learning_rate=1e-5, schedule="cosine", decay=0.0, weight_decay=0.0, clip="none"),
}


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
    "brief": Size(10, 16, 400, 4, 6),
    "small": Size(10, 16, 400, 8, 6),
    "full": Size(DEPTH, WIDTH, STEPS, BATCH, 1),
}


@dataclass(frozen=True)
class Setting:
    """What a run changes of the paper's recipe; the defaults are the paper's."""

    network: str = "vdsr"
    recipe: str = "kim2016"
    scales: tuple[float, ...] = (2.0, 3.0, 4.0)
    residual: bool = True
    depth: int | None = None  # that of the size; of SRCNN, 3 and what is added
    learning_rate: float | None = None  # that of the recipe
    weight_decay: float | None = None
    augment: str = "dihedral"
    grid: bool = True
    epochs: int = 80  # to train for, of the paper's 80; the schedule ends with them
    seed: int = 0

    @property
    def name(self) -> str:
        """What differs from the paper, as the name of a file."""
        changed = {k: v for k, v in asdict(self).items() if v != getattr(Setting(), k)}
        words = ("".join(f"{s:g}" for s in v) if k == "scales" else str(v) for k, v in changed.items())
        return ",".join(f"{k}={word}" for k, word in zip(changed, words, strict=True)) or "paper"


@dataclass(frozen=True)
class Point:
    """The mean PSNR (dB) on Set5 by scale, when `epoch` of the paper's 80 are done, after so many seconds of steps.

    A training whose loss is no longer finite ends with a PSNR of NaN.
    """

    epoch: float
    psnr: Mapping[str, float]
    seconds: float


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with T91, BSDS200 and Set5")
    parser.add_argument("--size", choices=SIZES, default="small", help="of networks and training (default: small)")
    parser.add_argument("--budget", metavar="TIME", help="stop after so long, such as 9m; the next command resumes")
    parser.add_argument("--output", type=Path, help="folder of the results (default: reproduction_SIZE)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def complete(options: argparse.Namespace) -> argparse.Namespace:
    """The options with what follows from them."""
    options.deadline = time.monotonic() + (parse_time(options.budget, "--budget") if options.budget else 1e9)
    options.output = options.output or Path(f"reproduction_{options.size}")
    options.output.mkdir(parents=True, exist_ok=True)
    options.left = []  # what there was no time for
    return options


def start(description: str | None, main: Callable[[argparse.Namespace], None]) -> None:
    """Run a script; the exit code is 75, "try again", if its budget did not suffice."""
    try:
        main(complete(make_parser(description).parse_args()))
    except OutOfTimeError as error:
        print(f"out of time: {error}; the same command resumes", file=sys.stderr)
        sys.exit(75)


def read_lumas(folder: Path) -> list[NDArray[np.float32]]:
    """The luma of all images of a folder, in [0, 1]."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".bmp"))
    return [(luma(np.asarray(read_image(path).data), path.name) / 255).astype(np.float32) for path in paths]


@lru_cache
def read_pairs(folder: Path, scale: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The sharp and the interpolated luma of the images of a test set, in 0..255, by the protocol of the field.

    Raises `ValueError` if bicubic interpolation does not score what is published.
    """
    pairs, scores = [], []
    for path in sorted(folder.glob("*.png")):
        hr, _ = crop_to_scale(luma(np.asarray(read_image(path).data), path.name), (scale, scale))
        ilr = np.clip(resize(degrade(hr, scale), scale, output_shape=hr.shape), 16, 235)
        pairs.append((hr, ilr))
        scores.append(Score(path.stem, scale, "bicubic", measure(hr, ilr, scale), math.nan, math.nan))
    check_bicubic(folder.name, mean_scores(scores))
    return pairs


def measure(hr: NDArray[np.float64], sr: NDArray[np.float64], scale: float) -> float:
    """The PSNR of the protocol: clipped and rounded to 8 bits, without the edges."""
    return psnr(hr, np.clip(np.rint(sr), 16, 235), data_range=255, crop_border=math.ceil(scale))


@torch.no_grad()
def restore(network: Network, ilr: NDArray[np.float64], device: str) -> NDArray[np.float64]:
    """An interpolated luma image in 0..255 through any network, whole."""
    x = torch.tensor(ilr / 255, dtype=torch.float32, device=device)[None, None]
    x = x.contiguous(memory_format=torch.channels_last)
    return np.asarray((x + network.residual(x))[0, 0].cpu(), np.float64) * 255


def score(network: Network, folder: Path, scales: Sequence[float], device: str) -> dict[str, float]:
    """The mean PSNR of any network on a folder of images, by scale."""
    return {
        f"{scale:g}": float(
            np.mean([measure(hr, restore(network, ilr, device), scale) for hr, ilr in read_pairs(folder, scale)])
        )
        for scale in scales
    }


def run(
    setting: Setting,
    options: argparse.Namespace,
    *,
    test: Sequence[float] = (2, 3, 4),
    epochs: Sequence[int] | None = None,
) -> list[Point]:
    """Train by a setting, unless that is done already, and return the scores at some of the 80 epochs.

    These are all of `EPOCHS` for networks of the usual depth, which several tables share, and the last for others. A
    run is one file, written every minute: the trainer's state, and the scores so far. Raises `OutOfTimeError` when the
    deadline of the options has come.
    """
    path = run_path(setting, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, record = load_state(path) if path.exists() else ({}, {})
    curve: list[dict[str, Any]] = record.get("points", [])
    if record.get("done"):
        return [Point(**point) for point in curve]
    if time.monotonic() > options.deadline:
        raise OutOfTimeError(setting.name)
    trainer = prepare(setting, options)
    if record:
        trainer.restore((tensors, record))
    epochs = epochs or (EPOCHS if setting.depth is None else ())
    wanted = {epoch for epoch in epochs if epoch < setting.epochs} | {setting.epochs}  # the end is always scored
    marks = {round(trainer.config.steps * epoch / setting.epochs): epoch for epoch in sorted(wanted)}

    def save_state(done: bool) -> None:
        tensors, record = trainer.state()
        facts = record | {"points": curve, "done": done, "setting": asdict(setting), "device": options.device}
        with replacing(path) as temporary:
            data = save(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"run": json.dumps(facts)}
            )
            temporary.write_bytes(data)

    def note(epoch: int, values: dict[str, float]) -> None:
        curve.append(asdict(Point(epoch, values, trainer.spent)))
        words = "  ".join(f"x{scale} {value:.2f}" for scale, value in values.items())
        print(f"{setting.name}: epoch {epoch}, {trainer.spent:.0f} s, {words} dB", flush=True)

    saved = time.monotonic()
    try:
        for progress in trainer.run():
            epoch = marks.get(progress.step)
            if epoch is not None:
                note(epoch, score(trainer.result, options.data / "Set5", test, options.device))
            late = time.monotonic() > options.deadline and progress.share < 1
            if late or progress.share == 1 or epoch is not None or time.monotonic() - saved > SAVE_SECONDS:
                save_state(progress.share == 1)
                saved = time.monotonic()
            if late:
                raise OutOfTimeError(setting.name)
    except FloatingPointError:
        for epoch in [e for step, e in marks.items() if step > trainer.step]:
            note(epoch, {f"{scale:g}": math.nan for scale in test})
        save_state(True)
    return [Point(**point) for point in curve]


def run_seeds(setting: Setting, options: argparse.Namespace, **how: Any) -> list[list[Point]]:
    """The points of a setting by each seed; none if the time does not suffice, which `check_left` says in the end."""
    try:
        return [run(replace(setting, seed=seed), options, **how) for seed in SEEDS]
    except OutOfTimeError as error:
        options.left.append(str(error))
        return []


def check_left(options: argparse.Namespace) -> None:
    """Raise `OutOfTimeError` if there was no time for some runs; tables of the others are written by then."""
    if left := options.left:
        options.left = []
        raise OutOfTimeError("; ".join(left))


def spread(values: Sequence[float]) -> str:
    """The mean of two figures, and how far they are from it; one that is NaN is of a training that diverged."""
    if any(map(math.isnan, values)):
        return "diverged"
    mean = sum(values) / len(values)
    return f"{mean:.2f} ± {max(abs(value - mean) for value in values):.2f}"


def summarize(seeds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The cells of a row: the `spread` over seeds at each scale."""
    return {f"x{scale}": spread([psnr[scale] for psnr in seeds]) for scale in seeds[0]}


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


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a run has written: the tensors of its trainer, and the rest."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["run"])  # noqa: SIM118


def load_run(setting: Setting, options: argparse.Namespace) -> nn.Module:
    """The network of a finished run."""
    network = make_network(setting, SIZES[options.size])
    tensors, _ = load_state(run_path(setting, options))
    network.load_state_dict({n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")})
    return network.to(options.device, memory_format=torch.channels_last)


def make_network(setting: Setting, size: Size) -> nn.Module:
    """The network of a run, with its first weights: of VDSR, those that `vdsr train` takes for the recipe."""
    if setting.network == "vdsr":
        config = VDSRConfig(setting.depth or size.depth, size.width, setting.residual)
        model = make_model(setting.seed, config, start="identity" if setting.recipe == "default" else "he")
        model.scales = setting.scales
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        if setting.network == "drcn":
            return DRCN(size.width)
        kernels = tuple(int(side) for side in setting.network.removeprefix("srcnn").split("-"))
        return SRCNN(kernels, more=(setting.depth or 3) - 3, residual=setting.residual)


def prepare(setting: Setting, options: argparse.Namespace) -> Trainer[Any]:
    """The trainer of a run, at its start."""
    size = SIZES[options.size]
    data = load_patches(options.data, size.every, setting.scales, setting.grid, setting.augment, options.device)
    steps = max(1, size.steps * setting.epochs // 80)
    config = replace(RECIPES[setting.recipe], steps=steps, batch_size=size.batch_size, seed=setting.seed)
    changed = {"learning_rate": setting.learning_rate, "weight_decay": setting.weight_decay}
    config = shorten_warmup(replace(config, **{name: v for name, v in changed.items() if v is not None}))
    network = make_network(setting, size)
    return RecursiveTrainer(network, data, config) if setting.network == "drcn" else Trainer(network, data, config)


@lru_cache(1)  # runs that follow each other often share their patches
def load_patches(folder: Path, every: int, scales: tuple[float, ...], grid: bool, augment: Any, device: str) -> Patches:
    """Patches of every n-th image of T91 and BSDS200."""
    images = [*read_lumas(folder / "T91"), *read_lumas(folder / "BSDS200")][::every]
    return Patches(images, scales, grid=grid, augment=augment, device=device)


def report(options: argparse.Namespace, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a Markdown table, and write them as JSON and CSV."""
    if not rows:
        return
    (options.output / f"{name}.json").write_text(json.dumps(list(rows), indent=1) + "\n")
    with (options.output / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print("| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")


def draw(
    options: argparse.Namespace,
    name: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
) -> None:
    """A PNG of curves, each (x, y) by its name; of one seed or of the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, (across, up) in curves.items():
        axes.plot(across, up, ".-", label=label)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(options.output / f"{name}.png", dpi=90)
