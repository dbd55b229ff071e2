"""One image from standard input, or to standard output: the file name ``-``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vdsr_core.cli.terminal import refuse

PIPE = "-"
BEGINNINGS = {
    b"II*\0": "tif", b"MM\0*": "tif", b"II+\0": "tif", b"MM\0+": "tif", b"\x89PNG": "png", b"\xff\xd8\xff": "jpg",
    b"RIFF": "webp",
}  # fmt: skip


@contextmanager
def piped(images: list[str], output: str, format: str | None) -> Iterator[tuple[list[str], str, str | None]]:
    """Inputs, output and format with names of temporary files instead of ``-``.

    Standard input is saved at the start, and what was written goes to standard output when the block ends well.
    """
    if PIPE not in (*images, output):
        yield images, output, format
        return
    with TemporaryDirectory(prefix="standard-input-or-output-") as folder:
        if PIPE in images:
            images = [save_input(images, Path(folder))]
        if output != PIPE:
            yield images, output, format
            return
        kind = format or Path(images[0]).suffix[1:].lower() or "tif"
        if kind.endswith("zarr"):
            refuse(f"must be tif, ome.tif, png, jpg or webp for standard output, got {kind}.", "--format")
        result = Path(folder, f"output.{kind}")
        yield images, str(result), None
        if result.exists():
            sys.stdout.buffer.write(result.read_bytes())
            sys.stdout.buffer.flush()


def save_input(images: list[str], folder: Path) -> str:
    """Save standard input under a name that says what it is; returns its path."""
    if len(images) > 1:
        msg = f"- stands for one image from standard input, got {len(images)} inputs. Upscale the others by themselves."
        refuse(msg, "IN")
    content = sys.stdin.buffer.read()
    kinds = [kind for beginning, kind in BEGINNINGS.items() if content.startswith(beginning)]
    if not kinds:
        got = f"bytes that begin with {content[:4]!r}" if content else "nothing"
        msg = f"standard input must be a TIFF, PNG, JPEG or WebP, got {got}. Give the name of a file instead."
        raise ValueError(msg)
    path = folder / f"input.{kinds[0]}"
    path.write_bytes(content)
    return str(path)
