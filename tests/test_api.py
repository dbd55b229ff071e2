import ast
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


def test_stub_imports_what_it_lists():
    tree = ast.parse(Path(vdsr_core.__file__).with_suffix(".pyi").read_text())
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    (listed,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert sorted(listed) == vdsr_core.__all__ == sorted(imported)


@pytest.mark.parametrize("name", vdsr_core.__all__)
def test_all_names_are_documented(name):
    assert name in dir(vdsr_core)
    public = getattr(vdsr_core, name)
    assert public.__module__.startswith("vdsr_core.")
    assert re.search(r"^(Parameters|Attributes|Returns)\n---", inspect.getdoc(public), re.MULTILINE)


def test_api_page_lists_all_names():
    page = Path(__file__).parents[1] / "docs" / "api.rst"
    assert set(vdsr_core.__all__) <= set(page.read_text().split())


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No vdsr_core attribute nothing"):
        _ = vdsr_core.nothing


def test_version_is_that_of_the_distribution():
    assert vdsr_core.__version__[0].isdigit()


def test_import_is_light():
    heavy = ["numpy", "torch", "dask", "napari", "qtpy", "skimage", "rich", "typer"]
    assert loaded_by("import vdsr_core", heavy) == []


def test_super_resolve_loads_nothing_slow_but_torch():
    assert loaded_by("from vdsr_core import super_resolve", ["scipy.stats", "dask", "skimage", "rich"]) == []


@pytest.mark.parametrize(
    "module", ["formats.io", "images.color", "images.degradation", "images.ranges", "images.resampling"]
)
def test_numpy_modules_load_no_torch(module):
    assert loaded_by(f"import vdsr_core.{module}", ["torch"]) == []


def test_networks_are_listed_without_torch():
    assert loaded_by("import vdsr_core; vdsr_core.read_card(vdsr_core.model_names()[0])", ["torch"]) == []
