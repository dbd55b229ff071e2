"""Notes of the shards that are done: which files hold a shard, and what it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

IMAGE, NOTES = "image", "done"  # in the folder of a plan


@dataclass(frozen=True)
class Note:
    """What is noted of a finished shard."""

    source: str  # checksum of the pixels of the source that it was made from; empty for a coarser level
    files: dict[str, int]  # its files in the image and their sizes in bytes; none if all its pixels are 0


def shard_name(level: int, index: tuple[int, ...]) -> str:
    """The name of a shard, such as ``0.3.1`` for level 0, row 3 and column 1."""
    return ".".join(map(str, (level, *index)))


def read_note(folder: Path, level: int, index: tuple[int, ...]) -> Note | None:
    """The note of a shard, if there is one and the shard's files are there."""
    try:
        note = Note(**json.loads((folder / NOTES / shard_name(level, index)).read_text(encoding="utf-8")))
        whole = all((folder / IMAGE / name).stat().st_size == size for name, size in note.files.items())
    except (OSError, ValueError, TypeError, AttributeError):  # there is none, or it is not ours
        return None
    return note if whole else None
