"""Settings of Sphinx."""

import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

project = "napari-vdsr"
author = "napari-vdsr developers"
copyright = "2026, napari-vdsr developers"
release = installed_version("napari-vdsr")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
# The page of the command is made from its own help.
page = Path(__file__).with_name("command.md")
words = ["vdsr_core.cli.main", "utils", "docs", "--name", "vdsr", "--title", "Command", "--output", str(page)]
subprocess.run([sys.executable, "-m", "typer", *words], check=True, stdout=subprocess.DEVNULL)

exclude_patterns = ["_build", "models_table.md", "gallery"]
myst_heading_anchors = 3
extlinks = {"doi": ("https://doi.org/%s", "doi:%s"), "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}

autodoc_typehints = "none"  # numpydoc's "Parameters" say it in words
autosummary_generate = True
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "napari-vdsr"

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "within_subsection_order": "FileNameSortKey",
    "show_memory": False,
    "abort_on_example_error": True,
    "min_reported_time": 1e9,
    "download_all_examples": False,
}
