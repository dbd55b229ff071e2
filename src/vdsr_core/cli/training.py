"""What `vdsr train` and `vdsr fine-tune` share: options, images, and a run that is shown, logged and interrupted."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vdsr_core.cli.log import TrainingLog
from vdsr_core.cli.terminal import end_at_next, plain, print_error, progress_bar, refuse, say, training_table

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    import torch

    from vdsr_core.training.session import FineTuneProgress

STOPPING = b"vdsr: stopping after this step and its validation; press Ctrl-C again to stop at once\n"


def typed_options(context: typer.Context) -> dict[str, Any]:
    """The options that were typed, by the names of their parameters."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def check_output(output: Path, resume: bool) -> None:
    """Raise unless a network can be saved, and is there to be resumed."""
    if output.suffix != ".safetensors":
        refuse(f"--output must end with .safetensors, got {output}.")
    if resume and not output.exists():
        msg = f"{output} does not exist. Leave out --resume to begin."
        raise FileNotFoundError(msg)


@dataclass
class Images:
    """The images of a command: their planes and their files by name, and why others were left out."""

    planes: dict[str, list[Any]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def read_planes(inputs: Iterable[str], scales: Sequence[float]) -> Images:
    """The planes of all images, as the network sees them; those that cannot be used are named and counted."""
    from vdsr_core.dataset.planes import find_planes
    from vdsr_core.formats.folder import list_folder, read_folder

    found, count, bad = Images(), 0, 0
    with progress_bar("{task.completed:.0f} of {task.total:.0f} images") as progress:
        for text in inputs:
            total = len(list_folder(text))
            count += total
            for path, image in progress.track(read_folder(text), total, description=plain(Path(text).name)):
                names = itertools.chain([path.name, str(path)], (f"{path} ({n})" for n in itertools.count(3)))
                name = next(name for name in names if name not in found.planes)
                try:
                    if isinstance(image, Exception):
                        raise image
                    planes, skipped = find_planes({name: image}, scales)  # finds NaN and damaged chunks, too
                except (ValueError, TypeError, OSError, RuntimeError) as error:
                    print_error(error, path)
                    bad += 1
                    continue
                found.planes |= planes
                found.files |= dict.fromkeys(planes, path)
                for why in skipped.values():
                    say(f"vdsr: {path}: left out, {why}", err=True)
                found.skipped |= skipped
    if bad := bad + len(found.skipped):
        say(f"vdsr: {bad} of {count} images left out", err=True)
    return found


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of stopping at once; a second one ends the process at once."""
    noted: list[int] = []

    def note(number: int, _: Any) -> None:
        noted.append(number)
        end_at_next(number)  # before it is said
        os.write(2, STOPPING)  # a handler may interrupt another write to stderr, which Python's file would refuse

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if noted else handler)


def follow(run: Iterator[FineTuneProgress], output: Path, step: int, device: torch.device) -> bool:
    """Show and log a run to its end or the first signal; whether it came to its end.

    If several processes train together, the first one logs.
    """
    from vdsr_core.training.processes import anyone, find_rank

    told: set[str] = set()

    def warn(text: str) -> None:
        """Say it, once."""
        if text and text not in told:
            say(f"vdsr: warning: {text}", err=True)
        told.add(text)

    def attempt(work: Callable[..., None], *arguments: Any) -> None:
        """Do what a full disk refuses, if it does: the log is written again with its next row."""
        try:
            work(*arguments)
        except OSError as error:
            warn(str(error))

    with noted_signals() as signals, training_table() as show, closing(run):  # type: ignore[type-var]
        first = list(itertools.islice(run, 1))  # locks the file, or raises: only then its log may be touched
        if not first:  # it was finished before
            return True
        with nullcontext() if find_rank()[0] else TrainingLog(output, step) as log:
            for progress in itertools.chain(first, run):
                if log and progress.step:
                    attempt(log.add, progress)
                if log:
                    show(progress, progress.mean_loss)
                warn(progress.warning)
                if anyone(bool(signals), device) and progress.share < 1:
                    say(f"vdsr: interrupted after step {progress.step}; --resume continues {output}", err=True)
                    return False
            if log:
                attempt(log.draw)
    return True
