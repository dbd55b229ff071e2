"""Which images are upscaled, and the file that each becomes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from vdsr_core.formats.folder import find_images, is_image_folder, without_parts
from vdsr_core.formats.io import image_names
from vdsr_core.formats.ome_zarr import bind
from vdsr_core.formats.urls import is_url, resolve

FORMATS = ("tif", "ome.tif", "png", "jpg", "webp", "zarr", "ome.zarr")  # suffixes of the files in a folder of results
PATTERN = "{name}_{scale}"


@dataclass(frozen=True)
class FileJob:
    """One image to upscale."""

    source: Path  # the file or folder that holds the image
    target: Path  # the one that is written
    name: str | None = None  # name of the image in a source that holds several
    whole: Path | None = None  # the OME-Zarr that `target` is a part of


def list_jobs(
    sources: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    label: str,
    *,
    pattern: str = PATTERN,
    format: str | None = None,
    recursive: bool = False,
) -> list[FileJob]:
    """The images that `sources` name, and where each of them goes; nothing is written.

    Results of an earlier run that are found among the sources are left out.
    """
    check_pattern(pattern)
    if format is not None and format not in FORMATS:
        msg = f"`format` must be one of {', '.join(FORMATS)}, got {format!r}. Leave it out to keep that of each image."
        raise ValueError(msg)
    folder = is_folder(output)
    results = Path(output).resolve() if folder and recursive else None
    found = dict(place for text in sources for place in find_images(os.fspath(text), recursive, results))
    found = {path: found[path] for path in without_parts(found)}
    if folder:
        targets = [
            Path(output, inside, f"{pattern.replace('{name}', stem).replace('{scale}', label)}.{format or kind}")
            for inside, (stem, kind) in zip(found.values(), map(split_name, found), strict=True)
        ]
        made = {target.resolve() for target in targets}
        pairs = [pair for pair in zip(found, targets, strict=True) if resolve(pair[0]) not in made]
    elif len(found) == 1 and format is None:
        pairs = [(path, Path(output)) for path in found]
    else:
        rule = "a folder to go with `format`" if format else f"a folder for {len(found)} images"
        msg = f"`output` must be {rule}, got the file {output}. End the name of a folder with a slash."
        raise ValueError(msg)
    jobs = [job for source, target in pairs for job in split_job(source, target, folder)]
    check_targets(jobs)
    return jobs


def check_pattern(pattern: str) -> None:
    """Raise unless a pattern makes a file name for each image."""
    rest = pattern.replace("{name}", "").replace("{scale}", "")
    if "{name}" not in pattern or re.search(r"[{}/\\\0]", rest):
        msg = "`pattern` must be a file name that holds {name}, and {scale} if wanted, without a suffix, got "
        msg += f"{pattern!r}. Try {PATTERN!r}."
        raise ValueError(msg)


def is_folder(output: str | os.PathLike[str]) -> bool:
    """Whether `output` is a folder of images: it exists as one, has no suffix, or ends with a slash."""
    path, text = Path(output), os.fspath(output)
    if not (is_image_folder(path) or not path.suffix or text.endswith(("/", os.sep))):
        return False
    if path.exists() and not path.is_dir():
        msg = f"`output` must be a folder, or a file whose suffix names the format, got {output}, which is another "
        msg += "file. Choose another name."
        raise ValueError(msg)
    return True


def split_name(path: Path) -> tuple[str, str]:
    """The name without its suffix, and the suffix without its first dot: ``ome.tif`` is one suffix."""
    match = re.fullmatch(r"(.+?)\.((?:ome\.)?[^.]+)", path.name, re.DOTALL | re.IGNORECASE)
    return (match[1], match[2]) if match else (path.name, "tif")


def split_job(source: Path, target: Path, folder: bool) -> list[FileJob]:
    """A job for each image that a source holds: parts of one OME-Zarr, or files of their own in a folder."""
    try:
        names = image_names(source)
    except Exception:  # reading the image will say why
        names = [""]
    if names == [""]:
        return [FileJob(source, target)]
    inside = is_url(source) or source.is_dir()  # in zarr the names are paths
    stem, kind = split_name(target)
    if kind.lower() == "ome.zarr" or (inside and folder and kind.lower() == "zarr"):
        whole = target.with_name(f"{stem}.ome.zarr")
        if inside:
            return [FileJob(source / name, whole / name, None, whole) for name in names]
        return [FileJob(source, whole / str(number), name, whole) for number, name in enumerate(names)]
    if not folder:
        msg = f"`output` must be a folder or end in .ome.zarr for the {len(names)} images of {source}, got {target}. "
        msg += "End the name of a folder with a slash."
        raise ValueError(msg)
    targets = [target.with_name(f"{stem}_{part}.{kind}") for part in unlike(names)]
    sources = [(source / name, None) if inside else (source, name) for name in names]
    return [FileJob(path, target, name) for (path, name), target in zip(sources, targets, strict=True)]


def unlike(names: Iterable[str]) -> Iterator[str]:
    """Parts of file names for the names of images, no two of them alike, even where case does not count."""
    taken: set[str] = set()
    for name in names:
        part = re.sub(r"[^\w.-]+", "-", name)
        tries = chain([part], (f"{part}-{number}" for number in count(2)))
        part = next(word for word in tries if word.lower() not in taken)
        taken.add(part.lower())
        yield part


def check_targets(jobs: Iterable[FileJob]) -> None:
    """Raise if an image would take the place of another one, of its own source, or of a folder that holds it."""
    sources: dict[Path, FileJob] = {}
    for job in jobs:
        source, target = job.source, job.target
        other = sources.setdefault(target.resolve(), job)
        if other != job or resolve(source).is_relative_to(target.resolve()):
            msg = f"{target} must be the output of one image and hold no input, got {other.source} and {source}. "
            msg += "Choose another output, or upscale them one by one."
            raise ValueError(msg)


def bind_images(jobs: Iterable[FileJob]) -> None:
    """Make one plate or collection of the images of each OME-Zarr, where all of them are there."""
    for whole in {job.whole for job in jobs if job.whole is not None}:
        parts = [job for job in jobs if job.whole == whole]
        names = [job.target.relative_to(whole).as_posix() for job in parts]
        source = parts[0].source
        if all(job.target.exists() for job in parts):
            bind(whole, names, source if parts[0].name else source.parents[names[0].count("/")])
