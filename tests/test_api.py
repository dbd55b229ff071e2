import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vdsr_core


def loaded_by(statement, modules):
    """Names of those modules that a statement loads in a new interpreter."""
    code = f"import sys; {statement}; print(*({set(modules)!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_all_names_are_sorted():
    assert vdsr_core.__all__ == sorted(vdsr_core._MODULES)


@pytest.mark.parametrize("name", vdsr_core.__all__)
def test_all_names_are_documented(name):
    assert name in dir(vdsr_core)
    public = getattr(vdsr_core, name)
    assert public.__module__.startswith("vdsr_core.")
    assert re.search(r"^(Parameters|Attributes)\n---", inspect.getdoc(public), re.MULTILINE)


def test_api_page_lists_all_names():
    page = Path(__file__).parents[1] / "docs" / "api.rst"
    assert set(vdsr_core.__all__) <= set(page.read_text().split())


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'vdsr_core' has no attribute 'nothing'"):
        _ = vdsr_core.nothing


def test_version_is_that_of_the_distribution():
    assert vdsr_core.__version__[0].isdigit()


def test_import_is_light():
    heavy = ["numpy", "torch", "dask", "napari", "qtpy", "skimage", "rich", "typer"]
    assert loaded_by("import vdsr_core", heavy) == []


@pytest.mark.parametrize("module", ["color", "degradation", "intensity", "io", "resampling", "tiling"])
def test_numpy_modules_load_no_torch(module):
    assert loaded_by(f"import vdsr_core.{module}", ["torch"]) == []
