"""The user's own networks on disk: list, save, rename, export, delete. No Qt, no napari."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from vdsr_core import VDSR

SUFFIX = ".safetensors"
FORBIDDEN = '/\\:*?"<>|'
LONGEST = 80  # characters of a name


def data_folder() -> Path:
    """Where this user's networks and unfinished trainings are."""
    return platformdirs.user_data_path("napari-vdsr", appauthor=False)


def models_folder() -> Path:
    """Where this user's networks are; it is made if it is missing."""
    folder = data_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_models() -> dict[str, Path]:
    """The files of the networks by their names, in the order of the alphabet."""
    folder = data_folder() / "models"
    paths = folder.glob(f"*{SUFFIX}") if folder.is_dir() else ()
    named = {path.stem: path for path in paths if not path.name.startswith(".")}
    return dict(sorted(named.items(), key=lambda item: item[0].casefold()))


def check_name(name: str) -> None:
    """Raise unless a new network may have this name.

    Raises
    ------
    ValueError
        If it cannot be the name of a file.
    FileExistsError
        If there is one of this name.
    """
    bad = sorted({character for character in name if character in FORBIDDEN or not character.isprintable()})
    if not name.strip() or name != name.strip() or name.startswith(".") or name.endswith("."):
        msg = f"“{name}” cannot be the name of a model: it must begin and end with a letter or digit."
        raise ValueError(msg)
    if bad:
        msg = f"“{name}” cannot be the name of a model: leave out {' '.join(bad)}."
        raise ValueError(msg)
    if len(name) > LONGEST:
        msg = f"The name has {len(name)} characters: use {LONGEST} at most."
        raise ValueError(msg)
    taken = {other.casefold() for other in list_models()}
    if name.casefold() in taken:
        msg = f"There is a model “{name}” already: choose another name, such as “{free_name(name)}”."
        raise FileExistsError(msg)


def free_name(name: str) -> str:
    """`name`, with a number if it is taken."""
    taken = {other.casefold() for other in list_models()}
    found, number = name, 1
    while found.casefold() in taken:
        number += 1
        found = f"{name} {number}"
    return found


def save_model(model: VDSR, name: str) -> Path:
    """Write a network under a new name, which its card gets too; returns the file."""
    from vdsr_core import save_checkpoint

    check_name(name)
    path = models_folder() / f"{name}{SUFFIX}"
    model.card = model.card | {"name": name}
    save_checkpoint(path, model)
    return path


def rename_model(name: str, new: str) -> Path:
    """Give a network another name; returns its file."""
    from vdsr_core import load_checkpoint, save_checkpoint

    if new.casefold() != name.casefold():
        check_name(new)
    old = find_model(name)
    model = load_checkpoint(old)
    path = old.with_name(f"{new}{SUFFIX}")
    os.replace(old, path)
    model.card = model.card | {"name": new}
    save_checkpoint(path, model)
    return path


def describe_model(name: str) -> str:
    """What the card of a network says, in a few lines."""
    from vdsr_core import load_checkpoint

    model = load_checkpoint(find_model(name))
    scales = ", ".join(f"{scale:g}" for scale in model.scales)
    lines = [model.card.get("summary", ""), f"Scales: {scales}."]
    for word in ("data", "recipe", "terms"):
        if model.card.get(word):
            lines.append(f"{word.capitalize()}: {str(model.card[word]).rstrip('.')}.")
    return "\n".join(line for line in lines if line)


def export_model(name: str, target: str | os.PathLike[str]) -> None:
    """Copy the file of a network; what was at `target` is replaced when the copy is whole."""
    target = Path(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.copyfile(find_model(name), partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def delete_model(name: str) -> None:
    """Remove the file of a network."""
    find_model(name).unlink()


def find_model(name: str) -> Path:
    """The file of a network.

    Raises
    ------
    FileNotFoundError
        If there is none of this name.
    """
    path = data_folder() / "models" / f"{name}{SUFFIX}"
    if not path.is_file():
        msg = f"The model “{name}” is not there any more: it may have been renamed or deleted outside napari."
        raise FileNotFoundError(msg)
    return path
