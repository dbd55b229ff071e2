"""Limits that keep the code easy to find and to read."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))


def body_lines(function):
    """Lines of a function without signature and docstring."""
    start = function.body[1 if ast.get_docstring(function) else 0 :] or function.body
    return start[-1].end_lineno - start[0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_modules_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert len(text.splitlines()) <= 420
    assert {function.name: n for function in functions if (n := body_lines(function)) > 60} == {}


def test_few_entries_at_the_top():
    """Modules and folders to choose from: not what every package has."""
    own = [path.name for path in (SOURCE / "vdsr_core").iterdir() if not path.name.startswith("__")]
    assert len(set(own) - {"py.typed"}) <= 16


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_words_are_those_of_the_field(path):
    """An integer, to resume or continue, again, before, any."""
    odd = r"\b(whole numbers?|go(?:ne|ing|es)? on|anew|beforehand|whatever)\b"
    assert re.findall(odd, path.read_text(encoding="utf-8"), re.IGNORECASE) == []
