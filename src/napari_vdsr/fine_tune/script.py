"""A fine-tuning as a Python script, and as a command."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_vdsr.fine_tune.data import Data, axes_of, image_files
from napari_vdsr.fine_tune.recipe import NETWORK, NEW, Recipe
from napari_vdsr.layers.image_layers import Source
from vdsr_core import FineTuneConfig


def python_script(recipe: Recipe, data: Data, left_out: Container[str] = ()) -> str:
    """A script for napari's console that gives the same weights; `left_out` names files that cannot be read."""
    names = {"fine_tune", "save_checkpoint", "ImageFile" if data.folder is None else "read_image"}
    start = f"load_model({recipe.model!r})" if recipe.model else "load_model()"
    if recipe.model == NEW:
        names |= {"VDSRConfig", "make_model"}
        shape = ", ".join(f"{name}={value!r}" for name, value in NETWORK.items())
        start = f"make_model({recipe.config.seed}, VDSRConfig({shape}), start='identity')"
        start += f"\nstart.card = {{'name': {NEW!r}}}"
    else:
        names.add("load_model")
    lines = [
        "from pathlib import Path",
        "",
        "import numpy as np",
        "import torch",
        f"from vdsr_core import {', '.join(sorted(names, key=str.casefold))}",
        "",
        f"torch.set_num_threads({recipe.threads})  # as in the widget: another number rounds differently",
        f"start = {start}",
        *_data_lines(data, left_out),
        "network = fine_tune(",
        "    images,",
        *(["    pairs=pairs,"] if data.pairs else []),
        "    model=start,",
        *(f"    {name}={value!r}," for name, value in given_options(recipe).items()),
        ")",
        "print(network.card['summary'])",
        f"save_checkpoint({recipe.name + '.safetensors'!r}, network)",
    ]
    return "\n".join([*lines, ""])


def given_options(recipe: Recipe) -> dict[str, Any]:
    """The keywords of `fine_tune` that are not as they would be without."""
    plain = {f.name: f.default for f in fields(FineTuneConfig)}
    given = {name: value for name, value in recipe.config.to_json().items() if value != plain[name]}
    return given | ({"device": recipe.device} if recipe.device else {})


def command_line(recipe: Recipe, data: Data) -> str:
    """A command for a shell that gives the same weights from a folder."""
    words = ["vdsr", "fine-tune", str(data.folder), "-o", f"{recipe.name}.safetensors"]
    if recipe.model is not None:
        words += ["--new"] if recipe.model == NEW else ["--from", recipe.model]
    for name, value in given_options(recipe).items():
        words.append(f"--{name.replace('_', '-')}")
        if name == "scales":
            words.append(" ".join(f"{scale:.12g}" for scale in value))
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def _data_lines(data: Data, left_out: Container[str]) -> Iterator[str]:
    """The images in Python."""
    if data.folder is not None:
        yield f"folder = Path({data.folder!r})"
        names = [path.name for path in image_files(Path(data.folder)) if path.name not in left_out]
        yield f"images = {{name: read_image(folder / name) for name in {names}}}"
        return
    yield "def pixels(name):"
    yield "    layer = viewer.layers[name]"
    yield "    return layer.data[0] if layer.multiscale else layer.data"
    yield ""
    yield ""
    yield "images = {"
    for name, source in data.sources.items():
        yield f"    {name!r}: {_source_text(source)},"
    yield "}"
    if data.pairs:
        yield "pairs = {"
        for name, (low, high) in data.pairs.items():
            yield f"    {name!r}: ({_source_text(low)}, {_source_text(high)}),"
        yield "}"


def _source_text(source: Source) -> str:
    part = ", ".join(f"{p.start}:{p.stop}" for p in source.part)
    return f"ImageFile(np.array(pixels({source.name!r})[{part}]), {axes_of(source)!r})"
