"""Damaged image files of each format, read in every way: bits flipped, ends cut, numbers of the headers replaced.

A damaged file is refused by one line, or read. Wrong are: another error than a ValueError or an OSError, a line break
in its text, output on the terminal, more than 20 s of the processor, more than 1 GB of memory beyond the start, the end
of the process, and pixels that differ with the way they are read. A process reads; another one watches it and starts it
anew. The formats take turns.

    python benchmarks/fuzz_files.py --minutes 5 --seed 0
    python benchmarks/fuzz_files.py --each 5000 --minutes 60
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from PIL import Image

from vdsr_core import ImageFile, image_names, read_image, write_image, write_pyramid

SECONDS, BYTES = 20, 10**9
NUMBERS = (0, 1, 2, 3, 7, 255, 256, 4096, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def make_files(folder: Path) -> None:
    """A small whole file of each kind."""
    rng = np.random.default_rng(0)
    gray, rgb = rng.integers(0, 255, (40, 50), np.uint8), rng.integers(0, 255, (40, 50, 3), np.uint8)
    deep = rng.integers(0, 65535, (3, 40, 50), np.uint16)
    known = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", "xmp": b"<x/>", "text": {"Comment": "a", "Author": "b"}}
    for name, data, axes in (
        ("gray.png", gray, "YX"), ("rgb16.png", rng.integers(0, 65535, (40, 50, 3), np.uint16), "YXS"),
        ("rgb.png", rgb, "YXS"), ("gray.jpg", gray, "YX"), ("rgb.jpg", rgb, "YXS"), ("stack.tif", deep, "ZYX"),
        ("stack.ome.tif", deep, "CYX"), ("array.zarr", deep, "ZYX"), ("rgb.webp", rgb, "YXS"),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_image(folder / name, ImageFile(data, axes, (0.5, 0.5), "µm", extra=known))
    write_pyramid(folder / "pyramid.ome.tif", ImageFile(np.tile(gray, (14, 12)), "YX"))
    write_pyramid(folder / "pyramid.ome.zarr", ImageFile(np.stack([gray, gray]), "CYX", channel_names=("a", "b")))
    Image.fromarray(gray).quantize(16).save(folder / "palette.png", transparency=3)
    Image.fromarray(rgb).save(folder / "progressive.jpg", progressive=True, comment="c", xmp=b"<x/>")
    Image.fromarray(gray > 99).save(folder / "fax.tif", compression="group4")
    luts = [np.tile(np.arange(256, dtype=np.uint8), (3, 1))] * 3
    tifffile.imwrite(folder / "imagej.tif", deep, imagej=True, metadata={"axes": "CYX", "LUTs": luts, "Info": "i"})
    tifffile.imwrite(folder / "big.tif", deep, bigtiff=True, byteorder=">", compression="zstd", tile=(16, 16))
    for number, how in enumerate(
        (
            {"compression": "jpeg"}, {"compression": "lzw", "predictor": True}, {"compression": "webp"},
            {"compression": "jpeg2000"}, {"compression": "jpegxl"}, {"compression": "lzma"},
            {"compression": "packbits"},
            {"photometric": "palette", "colormap": rng.integers(0, 65535, (3, 256), np.uint16)},
            {"bitspersample": 4}, {"compression": "lerc"}, {"tile": (16, 16), "compression": "zlib", "predictor": True},
        )
    ):  # fmt: skip
        data = gray // 16 if "bitspersample" in how else rgb if how.get("compression") in ("jpeg", "webp") else gray
        with contextlib.suppress(Exception):  # a codec that is missing here
            tifffile.imwrite(folder / f"kind{number}.tif", data, **how)


def damage(content: bytes, rng: random.Random) -> bytes:
    """The same file with one to four faults."""
    new = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not new:
            break
        place = rng.randrange(min(len(new), rng.choice((64, 400, len(new)))))  # headers more often than pixels
        match rng.randrange(6):
            case 0:
                new[place] ^= 1 << rng.randrange(8)
            case 1:
                new[place] = rng.randrange(256)
            case 2:
                del new[rng.randrange(len(new)) :]
            case 3:
                order, kind = rng.choice("<>"), rng.choice("HIQ")
                number = struct.pack(order + kind, rng.choice(NUMBERS) & (256 ** struct.calcsize(kind) - 1))
                new[place : place + len(number)] = number
            case 4:
                start = rng.randrange(len(new))
                new[place : place + 8] = new[start : start + 8]
            case 5:
                digits = [i for i, byte in enumerate(new) if 48 <= byte < 58]
                if digits:
                    new[rng.choice(digits)] = rng.choice(b"0123456789-.e,")
    return bytes(new)


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """A text of JSON with one value replaced, or damaged as other files are."""
    if rng.random() < 0.3:
        return damage(content, rng)
    says = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key))
            walk(part[key])

    walk(says)
    part, key = rng.choice(places)
    part[key] = rng.choice((None, -1, 0, 10**18, 1.5, "", "..", [], {}, [1] * 9, "é\0", True, {"a": [{}]}))
    return json.dumps(says).encode()


def make_damaged(source: Path, target: Path, rng: random.Random) -> None:
    """Write a damaged copy."""
    if source.is_file():
        target.write_bytes(damage(source.read_bytes(), rng))
        return
    shutil.copytree(source, target)
    part = rng.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    if rng.random() < 0.05:
        part.unlink()
    else:
        is_text = part.suffix == ".json" or part.name.startswith(".z")
        part.write_bytes((damage_json if is_text else damage)(part.read_bytes(), rng))


def read_all_ways(path: Path) -> str:
    """Read a file whole and lazily; returns what is wrong, or "" ."""
    found = []
    for lazy in (False, True):
        try:
            name = image_names(path)[0] or None
            if path.is_dir() and name:
                path, name = path / name, None
            image = read_image(path, lazy=lazy, name=name)
            if image.data.size * image.data.dtype.itemsize > 2**26:
                return ""  # a false shape, read by windows
            found.append(np.asarray(image.data[...]))
        except (ValueError, OSError, MemoryError) as error:
            if "\n" in str(error):
                return f"{type(error).__name__} of several lines: {error}"
            found.append(None)
        except Exception as error:
            return f"{type(error).__name__}: {''.join(traceback.format_exception(error))}"
    first, second = found
    if (
        first is not None
        and second is not None
        and not np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    ):
        return "whole and lazily it is read differently"
    return ""


def serve(pipe: Any) -> None:
    """Read the files whose names come through the pipe."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryFile() as out:
        for number in (1, 2):  # libraries in C print there, too
            os.dup2(out.fileno(), number)
        for path in iter(pipe.recv, None):
            fault = read_all_ways(Path(path))
            sys.stdout.flush()
            sys.stderr.flush()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if printed := os.pread(out.fileno(), 200, 0):
                os.ftruncate(out.fileno(), 0)
                os.lseek(out.fileno(), 0, os.SEEK_SET)
            pipe.send((fault or (f"prints {printed!r}" if printed else ""), peak))


def wait(process: Any, pipe: Any) -> bool:
    """Whether an answer comes before the process has computed, or slept, for too long."""
    watched, begun = psutil.Process(process.pid), time.monotonic()
    before = sum(watched.cpu_times()[:2])
    while not pipe.poll(1):
        with contextlib.suppress(psutil.Error):
            if sum(watched.cpu_times()[:2]) - before > SECONDS or time.monotonic() - begun > 30 * SECONDS:
                return False
    return True


def start() -> tuple[Any, Any]:
    """A process that reads, and the pipe to it."""
    context = mp.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=serve, args=(other,), daemon=True)
    process.start()
    return process, mine


def main() -> int:
    """Damage and read files until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--each", type=int, default=10**9, help="end after so many files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that were not read as they should be")
    given = parser.parse_args()
    rng, faults, counts = random.Random(given.seed), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        make_files(folder / "whole")
        sources = sorted((folder / "whole").iterdir())
        process, pipe = start()
        pipe.send(str(sources[0]))
        floor = peak = pipe.recv()[1]
        end = time.monotonic() + 60 * given.minutes
        formats = Counter({"".join(source.suffixes[-2:]): 0 for source in sources})
        while time.monotonic() < end and min(formats.values()) < given.each:
            suffix = min(formats, key=formats.__getitem__)
            source = rng.choice([source for source in sources if "".join(source.suffixes[-2:]) == suffix])
            formats[suffix] += 1
            path = folder / f"damaged{suffix}"
            make_damaged(source, path, rng)
            pipe.send(str(path))
            fault, after = "", peak
            try:
                fault, after = pipe.recv() if wait(process, pipe) else (f"it takes more than {SECONDS} s", peak)
            except EOFError:
                fault = "the process ended"
            if after > max(peak, floor + BYTES):
                fault = fault or f"it takes {(after - floor) / 1e9:.2f} GB"
            peak = max(peak, after)
            counts[source.name] += 1
            if fault:
                key = fault.strip().splitlines()[-1][:150]
                if not faults[f"{source.name}: {key}"] and given.keep is not None:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    kept = given.keep / f"{len(faults)}_{source.name}"
                    shutil.move(path, kept)
                    kept.with_name(f"{kept.name}.txt").write_text(fault)
                faults[f"{source.name}: {key}"] += 1
                if "process ended" in fault or "more than" in fault or "GB" in fault:
                    process.kill()
                    process, pipe = start()
                    pipe.send(str(sources[0]))
                    peak = pipe.recv()[1]
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        process.kill()
    for fault, times in faults.most_common():
        print(f"{times:5}  {fault}")
    print(", ".join(f"{count} {suffix}" for suffix, count in sorted(formats.items())))
    print(f"{sum(faults.values())} faults in {sum(counts.values())} files of {len(counts)} kinds; ", end="")
    print(f"at most {(peak - floor) / 1e6:.0f} MB more than at the start, {peak / 1e6:.0f} MB in all")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
