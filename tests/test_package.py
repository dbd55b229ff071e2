"""What users get: the wheel with its real dependencies, in an environment of its own."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("build")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPT = """
import numpy as np
from vdsr_core import super_resolve
image = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
print(super_resolve(image, 2).shape)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT])
    (path,) = folder.glob("*.whl")
    return path


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_is_complete(wheel):
    names = ZipFile(wheel).namelist()
    source = [path.relative_to(ROOT / "src") for path in (ROOT / "src").glob("*/**/*") if path.is_file()]
    built = re.compile(r"(^|/)\.|__pycache__|\.egg-info/")
    expected = {path.as_posix() for path in source if not built.search(path.as_posix())}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {"vdsr_core/py.typed", "vdsr_core/sample/u2os.tif", "napari_vdsr/napari.yaml"} <= expected
    assert any(name.startswith("vdsr_core/pretrained/") for name in expected)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_works_on_its_own(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, vdsr = programs / "python", programs / "vdsr"
    run([python, "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel], cwd=tmp_path)
    assert run([python, "-c", SCRIPT], cwd=tmp_path) == "(60, 80)\n"
    assert "embedded" in run([vdsr, "info"], cwd=tmp_path)
    assert "upscale" in run([python, "-m", "vdsr_core", "--help"], cwd=tmp_path)
