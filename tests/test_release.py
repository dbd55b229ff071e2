"""What a release consists of, and the script that prepares and checks it."""

import configparser
import re
import runpy
import shutil
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
release = runpy.run_path(str(ROOT / "tools" / "release.py"))
CONDA = {"lazy_loader": "lazy-loader", "safetensors": "python-safetensors", "torch": "pytorch"}


@pytest.fixture
def prepared(tmp_path):
    """A copy of the files that repeat the version, prepared for 1.2.3, and a folder with such a wheel and sdist."""
    for name in ("CITATION.cff", "packaging/conda-forge/recipe.yaml", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    release["prepare"]("1.2.3", "2031-02-03", tmp_path)
    dist = tmp_path / "dist"
    write_wheel(dist)
    with tarfile.open(dist / "napari_vdsr-1.2.3.tar.gz", "w:gz") as archive:
        for name in ("PKG-INFO", "LICENSE", "src/vdsr_core/__init__.py", "tests/conftest.py"):
            archive.addfile(tarfile.TarInfo(f"napari_vdsr-1.2.3/{name}"))
    return tmp_path


def write_wheel(dist, *more, metadata="# Licence of the networks"):
    dist.mkdir(exist_ok=True)
    with ZipFile(dist / "napari_vdsr-1.2.3-py3-none-any.whl", "w") as archive:
        archive.writestr("napari_vdsr-1.2.3.dist-info/METADATA", metadata)
        for name in (*release["NEEDED"], *more):
            archive.writestr(name, "")


def find_faults(folder, tag="v1.2.3"):
    return list(release["find_faults"](tag, folder / "dist", folder))


def test_prepared_release_has_no_faults(prepared):
    assert find_faults(prepared) == []
    assert "date-released: 2031-02-03" in (prepared / "CITATION.cff").read_text()
    assert "## [Unreleased]\n\n## [1.2.3] - 2031-02-03\n" in (prepared / "CHANGELOG.md").read_text()


def test_another_tag_is_a_fault_everywhere(prepared):
    faults = "\n".join(find_faults(prepared, "v1.2.4"))
    for name in ("CITATION.cff", "recipe.yaml", "CHANGELOG.md", "py3-none-any.whl", ".tar.gz"):
        assert name in faults
    assert "the tag must be v and a version" in "\n".join(find_faults(prepared, "release-2"))


@pytest.mark.parametrize(
    ("more", "metadata", "message"),
    [
        (("tests/conftest.py",), "# Licence of the networks", "must hold the two packages alone, got tests"),
        (("vdsr_core/__pycache__/a.pyc",), "# Licence of the networks", "must hold no temporary files"),
        ((), "", "must tell the licence of the networks"),
    ],
)
def test_wrong_wheel_is_a_fault(prepared, more, metadata, message):
    write_wheel(prepared / "dist", *more, metadata=metadata)
    (fault,) = find_faults(prepared)
    assert message in fault


def test_licence_of_the_networks_is_that_of_their_cards():
    models = runpy.run_path(str(ROOT / "docs" / "models.py"))
    assert models["LICENCE"].read_text(encoding="utf-8") == models["make_licence"]()


def test_conda_recipe_has_the_requirements_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for line in setup["options"]["install_requires"].split("\n") if line and not line.startswith("#")]
    wanted = {re.split(r"[><=;]", line)[0].strip(): line.split(";")[0] for line in lines}
    wanted.pop("ncnn")
    expected = {CONDA.get(name, name) + line.removeprefix(name).replace(">=", " >=") for name, line in wanted.items()}
    recipe = (ROOT / "packaging" / "conda-forge" / "recipe.yaml").read_text()
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    assert set(run.replace("    - ", "").split("\n")) - {"python >=3.11"} == expected


@pytest.mark.parametrize("name", ["workflows/ci", "workflows/release", "ISSUE_TEMPLATE/bug", "ISSUE_TEMPLATE/idea"])
def test_files_of_the_forge_are_yaml(name):
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load((ROOT / ".github" / f"{name}.yml").read_text(encoding="utf-8")), dict)
