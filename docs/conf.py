"""Settings of Sphinx."""

from importlib.metadata import version as installed_version

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
]
exclude_patterns = ["_build", "models_table.md"]
myst_heading_anchors = 3
extlinks = {"doi": ("https://doi.org/%s", "doi:%s"), "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}

autodoc_typehints = "none"  # numpydoc's "Parameters" say it in words
autosummary_generate = False  # all entries are on one page
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "napari-vdsr"
