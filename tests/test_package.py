"""What users get: the wheel that the tests run on."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("build")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


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
    release = runpy.run_path(str(ROOT / "tools" / "release.py"))
    assert list(release["find_wheel_faults"](wheel, wheel.name.split("-")[1])) == []


def test_version_is_that_of_the_tag_with_and_without_git(wheel):
    """The wheel is built from the sdist, which has no git; and the sdist in the repository, if there is one."""
    (sdist,) = wheel.parent.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    assert sdist.name == f"napari_vdsr-{version}.tar.gz"
    command = ["git", "describe", "--tags", "--exact-match", "--match", "v*"]
    described = shutil.which("git") and subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if described and described.returncode == 0:
        assert version.startswith(described.stdout.strip().removeprefix("v"))
