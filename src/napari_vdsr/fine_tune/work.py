"""Fine-tuning behind the widget. No Qt, no napari."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.background.pytorch import computing, load_network, load_torch, stop_if
from napari_vdsr.fine_tune.data import Data, Material, gather
from napari_vdsr.fine_tune.recipe import NETWORK, NEW, Recipe
from napari_vdsr.fine_tune.unfinished import at_work, bring_back, keep, remove, run_folder
from napari_vdsr.models.library import free_name, list_models, save_model

if TYPE_CHECKING:
    from vdsr_core import VDSR, FineTuneProgress

REPORTS = 0.2  # seconds between two reports of steps, at least


@dataclass
class Control:
    """What the user asks of a training at work; set in the viewer's thread."""

    paused: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Finished:
    """The last step of a training."""

    network: VDSR  # the best one, with its card
    path: Path | None = None  # where it was saved, if it helped
    trouble: str = ""  # why it could not be saved


def train(
    recipe: Recipe, data: Data | None, control: Control, cancelled: threading.Event
) -> Iterator[Material | list[FineTuneProgress] | Finished]:
    """Fine-tune; without `data`, resume the unfinished training of that name. Raises as `at_work`.

    The first step is what is trained with.
    """
    from vdsr_core import fine_tune_steps

    with at_work(recipe.name):
        with computing(cancelled):
            load_torch()
            network = start_network(recipe)
            if data is None:
                material = bring_back(recipe.name)
            else:
                material = gather(data, cancelled)
                keep(recipe, material)
            yield material
            steps: Any = fine_tune_steps(
                network,
                material.images,
                recipe.config,
                pairs=material.pairs,
                checkpoint=run_folder(recipe.name) / "network.safetensors",
                resume=data is None,
                stop=control.stopped,
                device=recipe.device,
            )
        with closing(steps):
            yield from in_reports(take_turns(steps, control, cancelled))
        stop_if(cancelled)
        yield finish(network, recipe.name)


def start_network(recipe: Recipe) -> VDSR:
    """A network of one's own to begin with."""
    if recipe.model != NEW:
        return copy.deepcopy(load_network(recipe.model))
    from vdsr_core import VDSRConfig, make_model

    network = make_model(recipe.config.seed, VDSRConfig(**NETWORK), start="identity")
    network.card = {"name": NEW}
    return network


def take_turns(
    steps: Iterator[FineTuneProgress], control: Control, cancelled: threading.Event
) -> Iterator[FineTuneProgress]:
    """The steps of a training; between them other work, such as an upscaling, may take its turn."""
    while True:
        with computing(cancelled):
            progress = next(steps, None)
        stop_if(cancelled)
        if progress is None:
            return
        yield progress
        while control.paused.is_set() and not control.stopped.is_set():
            stop_if(cancelled)
            time.sleep(0.05)


def in_reports(steps: Iterator[FineTuneProgress]) -> Iterator[list[FineTuneProgress]]:
    """Steps in groups, not more often than the viewer can show them."""
    group: list[FineTuneProgress] = []
    last = -REPORTS
    for progress in steps:
        group.append(progress)
        if progress.gain is not None or time.monotonic() - last >= REPORTS:
            yield group
            group, last = [], time.monotonic()
    if group:
        yield group


def finish(network: VDSR, name: str) -> Finished:
    """Save a network that helped, and forget the training."""
    if not network.card.get("helped"):
        remove(name)
        return Finished(network)
    try:
        path = save(network, name)
    except (OSError, ValueError) as error:
        return Finished(network, trouble=str(error))
    remove(name)
    return Finished(network, path)


def save(network: VDSR, name: str) -> Path:
    """Save under this name or the next free one; over itself, if a process that was killed then had saved it before."""
    from vdsr_core import load_checkpoint, save_checkpoint

    path = list_models().get(name)
    if path is None or load_checkpoint(path).card != network.card | {"name": name}:
        return save_model(network, free_name(name))
    network.card = network.card | {"name": name}
    save_checkpoint(path, network)
    return path


def examine(
    model: str | None, device: str | None, cancelled: threading.Event
) -> Iterator[tuple[float, dict[str, str]]]:
    """Give the seconds that training takes for each pixel of a patch, from a timed step, and the devices here."""
    from vdsr_core import fine_tune_steps, list_devices

    with computing(cancelled):
        network = start_network(Recipe("", model=model))
        image = np.random.default_rng(0).random((128, 64), dtype=np.float32)
        options: dict[str, Any] = {"scales": [2.0], "steps": 3, "batch_size": 4, "patch": 48, "device": device}
        steps = fine_tune_steps(network, image, validate_every=1000, stop=cancelled, **options)
        times = [time.perf_counter() for progress in steps if progress.step in (1, 2)]
        stop_if(cancelled)
        yield (times[1] - times[0]) / (4 * 48**2), list_devices()
