"""Divide images into those to train with and those to hold out."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def split(
    sources: Mapping[str, list[Any]],
    hold_out: float,
    gap: int,
    seed: int = 0,
    *,
    strips: bool = False,
    groups: Mapping[str, str] | None = None,
) -> tuple[list[Any], list[Any]]:
    """What to train with and what to hold out: whole images, or the far end of the longer axis of a single one.

    Images of one group, and images that share a plane, perhaps through other images, are held out together, even if
    their ranges differ. If all belong together, or if `strips`, each image gives its far end; `gap` pixels at the cut,
    at most an eighth, are used for neither. An image that is given twice counts once, and is measured once. The order
    of the images does not matter, and few change sides when others are added or removed. `sources` are the planes of
    each image, (low or None, high) on one grid; `hold_out` is the fraction that is held out.
    """
    marks = [{groups[name].encode()} if groups and name in groups else set() for name in sources]
    contents = [find_content(source) | mark for source, mark in zip(sources.values(), marks, strict=True)]
    ranks: dict[frozenset[bytes], bytes] = {}  # all that images which belong together share: their lowest rank
    for content, source, mark in zip(contents, sources.values(), marks, strict=True):
        rank = draw_rank(mark or [hash_pixels(hr) for _, hr, *_ in source], seed)
        sharing = [group for group in ranks if group & content]
        rank = min([rank, *(ranks.pop(group) for group in sharing)])
        ranks[content.union(*sharing)] = rank
    if len(ranks) > 1 and not strips:
        count = min(max(1, round(hold_out * len(ranks))), len(ranks) - 1)
        seen: frozenset[bytes] = frozenset().union(*sorted(ranks, key=lambda group: ranks[group])[:count])
        parts: tuple[list[Any], list[Any]] = ([], [])
        measured: set[tuple[frozenset[bytes], bool]] = set()
        for source, content in zip(sources.values(), contents, strict=True):
            key = content, source[0][0] is None  # a pair is another thing to measure
            if key not in measured:
                parts[bool(content & seen)].extend(source)
            measured |= {key} if content & seen else set()
        if parts[0]:
            return parts
    pieces = [cut_plane(both, hold_out, gap) for source in sources.values() for both in source]
    return [train for train, _ in pieces], [held for _, held in pieces]


def split_with_pairs(
    images: Mapping[str, list[Any]], pairs: Mapping[str, list[Any]], *options: Any, **named: Any
) -> tuple[list[Any], list[Any]]:
    """What `split` gives of images and of pairs together: each by itself, unless they share a plane."""
    found: list[frozenset[bytes]] = [
        frozenset().union(*(find_content(source) for source in sources.values())) for sources in (images, pairs)
    ]
    kinds: list[Mapping[str, list[Any]]] = [images, pairs]
    if found[0] & found[1]:
        kinds = [{f"{number} {name}": source for number, kind in enumerate(kinds) for name, source in kind.items()}]
    parts = [split(kind, *options, **named) for kind in kinds if kind]
    return [both for train, _ in parts for both in train], [both for _, held in parts for both in held]


def find_content(source: Sequence[Any]) -> frozenset[bytes]:
    """Digests of the planes of an image: which of two neighbours is the larger, which does not depend on the range."""
    content = set()
    for _, hr, *_ in source:
        found = hashlib.sha256(repr(hr.shape).encode())
        for first, second in ((hr[:-1], hr[1:]), (hr[:, :-1], hr[:, 1:])):
            for larger in (first < second, first > second):
                found.update(np.packbits(larger).tobytes())
        content.add(found.digest())
    return frozenset(content)


def hash_pixels(plane: NDArray[Any]) -> bytes:
    """A digest of a plane."""
    return hashlib.sha256(repr(plane.shape).encode() + plane.tobytes()).digest()


def draw_rank(content: Iterable[bytes], seed: int) -> bytes:
    """A number that decides whether an image is held out: it does not depend on the other images."""
    return hashlib.sha256(repr(seed).encode() + b"".join(sorted(content))).digest()


def cut_plane(both: Any, hold_out: float, gap: int) -> tuple[Any, Any]:
    """One plane, or the two of a pair, in a part to train with and one to hold out, at most a half."""
    shape = both[1].shape
    axis, length = int(np.argmax(shape)), max(shape)
    held = min(max(round(hold_out * length), min(16, length // 3)), length // 2)
    stop = length - held - min(gap, length // 8)
    parts = []
    for span in (slice(0, stop), slice(length - held, length)):
        window = (span, slice(None)) if axis == 0 else (slice(None), span)
        parts.append(tuple(part[window] if isinstance(part, np.ndarray) else part for part in both))
    return parts[0], parts[1]


def read_groups(table: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """The group of each image, from a CSV file with the columns ``file`` and ``source``.

    Files are relative to the folder of the table; those of one source, such as parts of one picture, are a group.
    """
    with table.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        if not {"file", "source"} <= set(rows.fieldnames or ()):
            msg = f"{table} must have the columns file and source, got {', '.join(rows.fieldnames or ()) or 'none'}."
            raise ValueError(msg)
        sources = {(table.parent / row["file"]).resolve(): row["source"] for row in rows}
    groups = {name: sources[path.resolve()] for name, path in files.items() if path.resolve() in sources}
    if absent := [str(path) for name, path in files.items() if name not in groups]:
        msg = f"{table} must name all images, got none of {', '.join(absent[:3])}. Add rows, or remove these images."
        raise ValueError(msg)
    return groups
