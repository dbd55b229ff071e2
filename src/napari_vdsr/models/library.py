"""The networks of the package and the user's own: list, import, rename, export, delete. No Qt, no napari."""

from __future__ import annotations

import filecmp
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

if TYPE_CHECKING:
    from vdsr_core import VDSR

SUFFIX = ".safetensors"
PACKAGE = ".bioimageio.zip"
FORBIDDEN = '/\\:*?"<>|'
LONGEST = 80  # characters of a name
WORDS = ("data", "recipe", "terms")  # of a card, that are shown as details
USES = {
    "photo": "photographs, and to begin with",
    "microscopy": "fluorescence and other microscopy",
    "fast": "quickest, less sharp",
    "restore": "noisy and compressed images",
}


@dataclass(frozen=True)
class Network:
    """One entry of the list of networks."""

    name: str
    model: str | None  # what `load_model` takes; None for the default network
    card: dict[str, Any]  # what the network says of itself
    own: bool  # whether it is a file of the user's

    @property
    def title(self) -> str:
        """Its name, and what it is for: as its card says, or by how much it is better than the network before."""
        use = self.card.get("use") or ("" if self.own else USES.get(self.name, ""))
        scores = [found for found in self.card.get("hold_out", {}).values() if {"before", "after"} <= found.keys()]
        if scores and not use:
            gain = sum(found["after"] - found["before"] for found in scores) / len(scores)
            use = f"yours, {gain:+.2f} dB"
        return f"{self.name}: {use}" if use else self.name

    @property
    def sentence(self) -> str:
        """What its card says, in a sentence or two."""
        words = str(self.card.get("summary") or self.card.get("error") or "It has no description.")
        return words.replace("held-out part", "part kept for testing")

    @property
    def details(self) -> str:
        """What else the card says, in lines."""
        scales = ", ".join(f"{scale:g}" for scale in self.card.get("scales", ()))
        lines = [f"Scales: {scales}."] if scales else []
        lines += [f"{word.capitalize()}: {str(self.card[word]).rstrip('.')}." for word in WORDS if self.card.get(word)]
        return "\n".join(lines)


def list_networks() -> list[Network]:
    """All networks: those of the package, the default first, then the user's own in alphabetical order."""
    from vdsr_core import model_names

    first, *others = model_names()
    found = [Network(name, None if name == first else name, card_of(name), own=False) for name in (first, *others)]
    return found + [Network(name, str(path), card_of(path), own=True) for name, path in list_models().items()]


def card_of(model: str | Path) -> dict[str, Any]:
    """The card of a network; a file that cannot be read says so in it."""
    try:
        return _read_card(model, os.stat(model).st_mtime_ns if isinstance(model, Path) else 0)
    except (OSError, ValueError):
        return {"error": "This file is damaged, or was not saved by this plugin."}


@lru_cache(maxsize=256)
def _read_card(model: str | Path, modified: int) -> dict[str, Any]:
    from vdsr_core import read_card

    return read_card(model)


def data_folder() -> Path:
    """Where this user's networks and unfinished trainings are."""
    return platformdirs.user_data_path("napari-vdsr", appauthor=False)


def models_folder() -> Path:
    """Where this user's networks are; it is made if it is missing."""
    folder = data_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_models() -> dict[str, Path]:
    """The files of the user's networks by name, in alphabetical order."""
    folder = data_folder() / "models"
    paths = folder.glob(f"*{SUFFIX}") if folder.is_dir() else ()
    named = {path.stem: path for path in paths if not path.name.startswith(".")}
    return dict(sorted(named.items(), key=lambda item: item[0].casefold()))


def check_name(name: str) -> None:
    """Raise ValueError if this cannot be the name of a new network, FileExistsError if there is one of this name."""
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


def clean_name(name: str) -> str:
    """`name` without what the name of a network must not have."""
    kept = "".join("-" if letter in FORBIDDEN or not letter.isprintable() else letter for letter in name)
    return kept.strip(" .")[: LONGEST - 8].strip(" .") or "network"


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


def import_model(source: str | os.PathLike[str]) -> Path:
    """Add the network of a file, also of another program, to the user's own; returns the file, also of a known one.

    Raises ValueError or OSError if the file holds no network, or cannot be copied.
    """
    from vdsr_core import load_model, read_card

    source = Path(source)
    try:
        read_card(source)
    except ValueError:
        try:
            model = load_model(source)
        except ValueError as error:
            msg = f"“{source.name}” is not a network that Upscale can use. {error}"
            raise ValueError(msg) from error
        return save_model(model, free_name(clean_name(source.name.removesuffix(PACKAGE).removesuffix(source.suffix))))
    for path in list_models().values():
        if filecmp.cmp(path, source, shallow=False):
            return path
    return _copy(source, models_folder() / f"{free_name(clean_name(source.stem))}{SUFFIX}")


def rename_model(name: str, new: str) -> Path:
    """Give a network another name; returns its file."""
    from vdsr_core import load_checkpoint, save_checkpoint

    if new.casefold() != name.casefold():
        check_name(new)
    old = find_model(name)
    model = load_checkpoint(old)
    path = old.with_name(f"{new}{SUFFIX}")
    model.card = model.card | {"name": new}
    save_checkpoint(old, model)  # first: where a process is killed here, the network can be renamed again
    os.replace(old, path)
    return path


def export_model(name: str, target: str | os.PathLike[str]) -> Path:
    """Copy the file of a network; what was at `target` is replaced when the copy is whole."""
    return _copy(find_model(name), Path(target))


def _copy(source: Path, target: Path) -> Path:
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def delete_model(name: str) -> None:
    """Remove the file of a network."""
    find_model(name).unlink()


def find_model(name: str) -> Path:
    """The file of a network; a FileNotFoundError if there is none of this name."""
    path = data_folder() / "models" / f"{name}{SUFFIX}"
    if not path.is_file():
        msg = f"The model “{name}” is not there any more: it may have been renamed or deleted outside napari."
        raise FileNotFoundError(msg)
    return path
