"""All that a GPU is wanted for, in the order of its worth: networks of our own, then the tables of the paper.

    python -m benchmarks.reproduction --data FOLDER --size full --budget 25m [--limit 9m] [--output STATE]

FOLDER holds T91, BSDS200, BSDS500_new, Set5, Set14, B100, microscopy and open. Everything is kept in STATE. The same
command resumes where the last one was stopped, by --limit (the time of one command), by Ctrl-C or by force, until all
is done or the commands together have taken --budget. The exit code is 75, "try again", while something is left.

1. ``ours.safetensors``: the embedded default network, trained on with scales 1.5 to 4 for half of the budget
   (``--train TIME``), and its scores.
2. ``microscopy.safetensors``: fine-tuned from that.
3. The tables: the paper's recipe, residual learning, scales, depth, choices, theta, first weights; the networks that
   VDSR is compared with; small images; a generator with an opponent.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.reproduction import (
    adversarial,
    choices,
    depth,
    initial,
    networks,
    recipe,
    residual,
    scales,
    small_images,
    theta,
)
from benchmarks.reproduction.recipe import SETS
from benchmarks.reproduction.study import OutOfTimeError, complete, make_parser

from vdsr_core.cli.train import parse_time
from vdsr_core.files import replacing
from vdsr_core.network.checkpoint import DEFAULT, load_trainer

TABLES = (recipe, residual, scales, depth, choices, theta, initial, networks, small_images, adversarial)
SCALES = ("2", "2", "3", "3", "4", "4", "1.25", "1.5", "2.5")  # to train for, each as often as it is named
TESTED = ("1.25", "1.5", "2", "2.5", "3", "3.5", "4")
RESERVE = 20  # seconds in which a command that is stopped writes its state
# Options of `vdsr train`, and steps of fine-tuning, by size. A core of a CPU takes a tenth of a second for a patch.
RECIPES = {
    "tiny": ("--batch-size", "2", "--patch", "24"),
    "brief": ("--batch-size", "8", "--learning-rate", "3e-4"),
    "small": ("--batch-size", "12", "--learning-rate", "3e-4"),
    "full": ("--batch-size", "64", "--patch", "64", "--average", "0.9999"),
}
MICROSCOPY = {
    "tiny": ("--steps", "2", "--batch", "2"),
    "brief": ("--steps", "30", "--batch", "8"),
    "small": ("--steps", "60", "--batch", "8"),
    "full": ("--steps", "4000", "--batch", "64"),
}


def main() -> None:
    """Do what is left, as far as the time goes."""
    parser = make_parser(__doc__)
    parser.add_argument("--limit", metavar="TIME", default="9m", help="time of this command (default: 9m)")
    parser.add_argument("--train", metavar="TIME", help="time for our own network (default: half of the budget)")
    options = complete(parser.parse_args())
    clock = options.output / "spent.json"
    spent = json.loads(clock.read_text()) if clock.exists() else 0.0
    budget = parse_time(options.budget or "25m", "--budget")
    options.train = parse_time(options.train, "--train") if options.train else budget / 2
    began = time.monotonic()
    options.deadline = began + min(parse_time(options.limit, "--limit"), budget - spent) - RESERVE
    for job in (train_ours, tune_to_microscopy, *(table.main for table in TABLES)):
        try:
            job(options)
        except OutOfTimeError as error:
            print(f"out of time: {error}; the same command resumes", flush=True)
            sys.exit(75)
        finally:
            with replacing(clock) as temporary:
                temporary.write_text(json.dumps(spent + time.monotonic() - began))


def train_ours(options: argparse.Namespace) -> None:
    """Train the default network on, and score it."""
    network, scores = options.output / "ours.safetensors", options.output / "ours_scores.json"
    if scores.exists():
        return
    folders = [str(options.data / name) for name in ("BSDS200", "BSDS500_new", "T91", "T91", "T91", "T91")]
    how = ["--from", DEFAULT, "--preset", "default", "--scales", *SCALES, "--time-budget", f"{options.train:g}"]
    how += ["--clip-luma"]
    how = ["--resume"] if network.exists() else [*how, *RECIPES[options.size]]
    how += ["--save-every", "1m", "--device", options.device]
    if not network.exists() or load_trainer(network):  # a finished one holds no trainer
        call(options, "our network", "vdsr_core", "train", *folders, "-o", str(network), *how)
    found = {}
    for name in SETS[:1] if options.size == "tiny" else SETS:
        file = options.output / f"ours_{name}.json"
        words = ["--scales", *TESTED, "--model", str(network), "--mean-only", "-o", str(file)]
        call(options, name, "vdsr_core", "evaluate", str(options.data / name), *words, "--device", options.device)
        found[name] = {f"{row['scale']:g}": (row["psnr"], row["ssim"]) for row in json.loads(file.read_text())}
    scores.write_text(json.dumps(found, indent=1))


def tune_to_microscopy(options: argparse.Namespace) -> None:
    """Fine-tune our network to microscopy images."""
    network = options.output / "microscopy.safetensors"
    if not network.exists():
        words = [str(options.data / "microscopy"), "-o", str(network), *MICROSCOPY[options.size]]
        words += ["--from", str(options.output / "ours.safetensors"), "--device", options.device]
        call(options, "microscopy", "benchmarks.microscopy", *words)


def call(options: argparse.Namespace, what: str, module: str, *words: str) -> None:
    """Run a command of Python; interrupt it, as Ctrl-C does, when the time is over."""
    left = options.deadline - time.monotonic()
    if left <= 0:
        raise OutOfTimeError(what)
    log: Path = options.output / "log.txt"
    with log.open("a") as stream:
        process = subprocess.Popen([sys.executable, "-m", module, *words], stdout=stream, stderr=subprocess.STDOUT)
        try:
            status = process.wait(left)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise OutOfTimeError(what) from None
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if status:
        msg = f"{what} failed with exit code {status}; the last lines of {log}:\n"
        raise RuntimeError(msg + "\n".join(log.read_text().splitlines()[-15:]))
    print(f"{what}: done", flush=True)


if __name__ == "__main__":
    main()
