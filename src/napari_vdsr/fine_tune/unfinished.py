"""Fine-tunings that can be resumed, on disk. No Qt, no napari."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from napari_vdsr.fine_tune.data import Material
from napari_vdsr.fine_tune.recipe import Recipe
from napari_vdsr.models import library

LOG = logging.getLogger("napari_vdsr")


def run_folder(name: str) -> Path:
    """Where an unfinished training is kept."""
    return library.data_folder() / "unfinished" / name


@contextmanager
def at_work(name: str) -> Iterator[None]:
    """Keep others from training under this name until the process ends; a BlockingIOError if another one does."""
    folder = library.data_folder() / "unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0.2)  # somebody may be just looking
    except Timeout:
        msg = f"Another napari is training “{name}”: wait for it, or choose another name."
        raise BlockingIOError(msg) from None
    try:
        yield
    finally:
        lock.release()


def is_at_work(name: str) -> bool:
    """Whether somebody trains under this name."""
    path = library.data_folder() / "unfinished" / f".{name}.lock"
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def list_unfinished() -> dict[str, Recipe]:
    """The trainings that can be resumed, by name; damaged ones are logged, what killed processes left is removed."""
    folder = library.data_folder() / "unfinished"
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "network.safetensors").is_file() and (path / "recipe.json").is_file():
            try:
                record = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
                found[path.name] = Recipe.from_json(record["recipe"])
            except (ValueError, KeyError, TypeError, OSError):
                LOG.warning("%s is damaged: this training cannot be resumed", path, exc_info=True)
        elif path.is_dir() and not is_at_work(path.name):
            discard(path.name)
    return found


def discard(name: str) -> None:
    """Remove what is kept of a training, unless somebody is at work on it."""
    if name:
        with suppress(BlockingIOError), at_work(name):
            remove(name)


def remove(name: str) -> None:
    """Remove what is kept of a training; to be called by whoever is at work on it."""
    shutil.rmtree(run_folder(name), ignore_errors=True)


def keep(recipe: Recipe, material: Material) -> None:
    """Write recipe and images of a training that begins, so that it can be resumed without the layers."""
    folder = run_folder(recipe.name)
    remove(recipe.name)
    folder.mkdir(parents=True)
    parts = [*material.images.values(), *(image for pair in material.pairs.values() for image in pair)]
    np.savez(folder / "images.npz", *(np.asarray(image.data) for image in parts))
    record = {
        "recipe": recipe.to_json(),
        "names": list(material.images),
        "pairs": list(material.pairs),
        "axes": [image.axes for image in parts],
        "left_out": material.left_out,
    }
    partial = folder / "recipe.json.partial"
    partial.write_text(json.dumps(record), encoding="utf-8")
    os.replace(partial, folder / "recipe.json")


def bring_back(name: str) -> Material:
    """The images of an unfinished training."""
    from vdsr_core import ImageFile

    folder = run_folder(name)
    record = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    with np.load(folder / "images.npz", allow_pickle=False) as stream:
        parts = [ImageFile(stream[f"arr_{number}"], axes) for number, axes in enumerate(record["axes"])]
    count = len(record["names"])
    pairs = zip(record["pairs"], zip(parts[count::2], parts[count + 1 :: 2], strict=True), strict=True)
    return Material(dict(zip(record["names"], parts, strict=False)), dict(pairs), record["left_out"])
