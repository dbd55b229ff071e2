"""Prepare a release, and check what it consists of. Needs Python alone.

python tools/release.py prepare 0.2.0      write version and date where they are repeated
python tools/release.py check v0.2.0 dist  compare them with the tag; look into the wheel and the sdist of a folder
python tools/release.py try dist           install the wheel in a new environment and upscale an image there
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
LARGEST = 40e6  # bytes of a file on PyPI; all networks and the sample are 6 MB
NEEDED = (
    "vdsr_core/py.typed",
    "vdsr_core/__init__.pyi",
    "vdsr_core/pretrained/photo.safetensors",
    "vdsr_core/sample/u2os.tif",
    "napari_vdsr/napari.yaml",
)
# Where the version is repeated: file, pattern, and what is written for a version and a date.
REPEATED = (
    ("CITATION.cff", r"^version: .*$", "version: {version}"),
    ("CITATION.cff", r"^date-released: .*$", "date-released: {date}"),
    ("packaging/conda-forge/recipe.yaml", r'^  version: ".*"$', '  version: "{version}"'),
)
SCRIPT = """
import numpy as np
from vdsr_core import super_resolve
image = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
assert super_resolve(image, 2).shape == (60, 80)
"""


def prepare(version: str, date: str, root: Path = ROOT) -> None:
    """Write version and date where they are repeated, and end the changelog's section of what is not released."""
    for name, pattern, text in REPEATED:
        path = root / name
        old = path.read_text(encoding="utf-8")
        new, count = re.subn(pattern, text.format(version=version, date=date), old, flags=re.MULTILINE)
        if count != 1:
            msg = f"{name} must have one line {pattern}, got {count}."
            raise ValueError(msg)
        path.write_text(new, encoding="utf-8")
    path = root / "CHANGELOG.md"
    old = path.read_text(encoding="utf-8")
    if f"## [{version}]" not in old:
        new = old.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {date}\n", 1)
        path.write_text(new, encoding="utf-8")


def find_faults(tag: str, dist: Path, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a release, a sentence each."""
    version = tag.removeprefix("v")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        yield f"the tag must be v and a version such as v0.2.0, got {tag}"
    for name, pattern, text in REPEATED:
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if "{version}" in text and (found is None or found[0] != text.format(version=version)):
            yield f"{name} must say {text.format(version=version)!r}: run `python tools/release.py prepare {version}`"
    if f"## [{version}]" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        yield f"CHANGELOG.md must have a section [{version}]"
    wheels, sdists = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        yield f"{dist} must hold one wheel and one sdist, got {len(wheels)} and {len(sdists)}"
    for path in wheels:
        yield from find_wheel_faults(path, version)
    for path in sdists:
        with tarfile.open(path) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        if absent := {"PKG-INFO", "LICENSE", "src/vdsr_core/__init__.py", "tests/conftest.py"} - names:
            yield f"{path.name} must hold {', '.join(sorted(absent))}"
        if path.name != f"napari_vdsr-{version}.tar.gz":
            yield f"{path.name} must be of version {version}"
    for path in (*wheels, *sdists):
        if path.stat().st_size > LARGEST:
            yield f"{path.name} must have at most {LARGEST / 1e6:g} MB, got {path.stat().st_size / 1e6:.0f}"


def find_wheel_faults(path: Path, version: str) -> Iterator[str]:
    """What is wrong with a wheel, a sentence each."""
    if not path.name.startswith(f"napari_vdsr-{version}-"):
        yield f"{path.name} must be of version {version}"
    with ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    if absent := set(NEEDED) - set(names):
        yield f"{path.name} must hold {', '.join(sorted(absent))}"
    tops = {name.split("/")[0] for name in names}
    if odd := {top for top in tops if top not in ("vdsr_core", "napari_vdsr") and not top.endswith(".dist-info")}:
        yield f"{path.name} must hold the two packages alone, got {', '.join(sorted(odd))}"
    if odd := {name for name in names if "__pycache__" in name or "/." in name}:
        yield f"{path.name} must hold no temporary files, got {', '.join(sorted(odd))}"
    if "# Licence of the networks" not in metadata:
        yield f"{path.name} must tell the licence of the networks in its metadata"


def try_wheel(dist: Path) -> None:
    """Install a wheel with its dependencies in a new environment, and upscale an image in Python and by the command."""
    (wheel,) = dist.resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        sample = "import importlib.resources as r; print(r.files('vdsr_core') / 'sample' / 'u2os.tif')"
        for command in (
            [programs / "python", "-m", "pip", "install", "--quiet", wheel],
            [programs / "python", "-c", SCRIPT],
            [programs / "vdsr", "info"],
        ):
            subprocess.run(command, check=True, cwd=folder)
        where = subprocess.run([programs / "python", "-c", sample], check=True, cwd=folder, stdout=subprocess.PIPE)
        image = where.stdout.decode().strip()
        subprocess.run([programs / "vdsr", "upscale", image, "-o", "out.tif", "--scale", "2"], check=True, cwd=folder)
        if not (folder / "out.tif").is_file():
            msg = "`vdsr upscale` has written nothing."
            raise FileNotFoundError(msg)


def main(words: list[str]) -> int:
    """Run the command; 1 if something is wrong."""
    match words:
        case ["prepare", version]:
            prepare(version, datetime.datetime.now(datetime.UTC).date().isoformat())
        case ["check", tag, dist]:
            faults = list(find_faults(tag, Path(dist)))
            print("\n".join(faults) or "All is well.")
            return int(bool(faults))
        case ["try", dist]:
            try_wheel(Path(dist))
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
