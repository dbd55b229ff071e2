"""Fine-tuning behind the widget: what to train with, the training itself, and what is kept of it. No Qt, no napari."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr._layers import Source
from napari_vdsr._models import data_folder, free_name, save_model
from napari_vdsr._work import computing, find_devices, load_network, load_torch, stop_if

if TYPE_CHECKING:
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray

    from vdsr_core import VDSR, FineTuneProgress, ImageFile

NEW = "A new network"
LENGTHS: dict[str, dict[str, Any]] = {  # what the choices of a length mean
    "Quick look": {"steps": 100, "batch_size": 8, "validate_every": 25, "patience": 4},
    "Good": {"steps": 1000, "batch_size": 16, "validate_every": 50, "patience": 6},
    "Long": {"steps": 10_000, "batch_size": 16, "validate_every": 200, "patience": 10},
}
OTHER_AXES = "TZQVWUABDEFGHIJKLMNOPR"  # letters for axes that are neither planes nor channels
REPORTS = 0.2  # seconds between two reports of steps, at least
TURN = 0.002  # seconds in which another piece of work can take its turn between two steps
MEASURED = 512  # pixels of the sides of what blur and noise are measured in
PIECES, PIECE = 8, 192  # what is measured of the held-out part, at most
KINDS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr")


class Stopped(Exception):
    """The user is content with what has been found."""


@dataclass(frozen=True)
class Recipe:
    """How to train: plain values, kept beside an unfinished training. Those that `fine_tune` has are as there.

    Attributes
    ----------
    name : str
        Of the network that comes out.
    model : str or None
        Where to start: name or file of a network, None for the default, or `NEW`.
    threads : int
        Processor cores that compute; another number rounds differently.
    """

    name: str
    model: str | None = None
    threads: int = 1
    scales: tuple[float, ...] = (2.0, 3.0, 4.0)
    blur: float = 0.0
    noise: float = 0.0
    steps: int = 1000
    learning_rate: float = 1e-4
    theta: float | None = None
    batch_size: int = 16
    patch: int = 48
    hold_out: float = 0.2
    strips: bool = True
    validate_every: int = 50
    patience: int = 5
    seed: int = 0
    device: str | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of `fine_tune`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "model", "threads")}


@dataclass(frozen=True)
class Data:
    """What is chosen to train with.

    Attributes
    ----------
    sources : dict
        Parts of layers, by name.
    pairs : tuple of (Source, Source)
        Low and sharp layers.
    folder : str or None
        Of image files.
    """

    sources: dict[str, Source] = field(default_factory=dict)
    pairs: tuple[tuple[Source, Source], ...] = ()
    folder: str | None = None


@dataclass(frozen=True)
class Material:
    """What is trained with, in memory.

    Attributes
    ----------
    images : dict
        By name.
    pairs : list of (ImageFile, ImageFile)
        Low and sharp.
    left_out : dict
        Why files were left out.
    """

    images: dict[str, ImageFile]
    pairs: list[tuple[ImageFile, ImageFile]]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass
class Control:
    """What the user asks of a training at work; set in the viewer's thread."""

    paused: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Begun:
    """The first step of a training: how many images there are, and which files were left out."""

    count: int
    left_out: dict[str, str]


@dataclass(frozen=True)
class Finished:
    """The last step of a training.

    Attributes
    ----------
    network : VDSR
        The best one, with its card.
    path : Path or None
        Where it was saved, as it is if it helped.
    trouble : str
        Why it could not be saved.
    """

    network: VDSR
    path: Path | None = None
    trouble: str = ""


# ------------------------------------------------------------------------------------------------- data


def shape_of(source: Source) -> tuple[int, ...]:
    """How many pixels a source has along each axis of its layer."""
    return tuple(part.stop - part.start for part in source.part)


def axes_of(source: Source) -> str:
    """A letter for each axis of a source, as `ImageFile` has them."""
    row, column = source.plane_axes
    known = {row: "Y", column: "X"} | ({} if source.channel_axis is None else {source.channel_axis: "C"})
    others = iter(OTHER_AXES)
    return "".join(known.get(axis) or next(others) for axis in range(len(source.part))) + "S" * source.rgb


def gather(data: Data, cancelled: threading.Event) -> Material:
    """Read what is chosen into memory.

    Raises
    ------
    ValueError
        If a folder holds no image that can be read.
    """
    from vdsr_core import ImageFile

    def read(source: Source) -> ImageFile:
        stop_if(cancelled)
        return ImageFile(np.array(source.data[source.part]), axes_of(source))  # a copy: the layer may change meanwhile

    if data.folder is not None:
        return read_folder(Path(data.folder), cancelled)
    images = {name: read(source) for name, source in data.sources.items()}
    return Material(images, [(read(low), read(high)) for low, high in data.pairs])


def rectangles(layer: Image, source: Source, shapes: Shapes) -> list[Source]:
    """The parts of a source around each shape of a layer.

    Raises
    ------
    ValueError
        If there is no shape, one lies beside the source, or two overlap.
    """
    parts = [part for corners in shapes.data if (part := _around(layer, source, shapes, corners)) is not None]
    if not parts:
        msg = f"“{shapes.name}” has no shape on “{source.name}”: draw rectangles on the image."
        raise ValueError(msg)
    for number, part in enumerate(parts):
        for other, earlier in enumerate(parts[:number]):
            if all(a.start < b.stop and b.start < a.stop for a, b in zip(part.part, earlier.part, strict=True)):
                msg = f"Shapes {other + 1} and {number + 1} overlap: what is held out of one would be trained with in "
                msg += "the other. Move them apart."
                raise ValueError(msg)
    return parts


def _around(layer: Image, source: Source, shapes: Shapes, corners: NDArray[Any]) -> Source | None:
    """The rows and columns of a source that a shape covers; None if it lies beside."""
    world = np.asarray([shapes.data_to_world(corner) for corner in corners])[:, -2:]
    lead = np.zeros((len(world), layer.ndim - 2))
    lead[:] = np.asarray(layer.data_to_world((0,) * layer.ndim))[: layer.ndim - 2]
    points = np.asarray([layer.world_to_data(point) for point in np.hstack([lead, world])])
    part = list(source.part)
    for axis in source.plane_axes:
        start, stop = math.floor(points[:, axis].min() + 0.5), math.ceil(points[:, axis].max() + 0.5)
        part[axis] = slice(max(start, 0), min(stop, source.data.shape[axis]))
        if part[axis].start >= part[axis].stop:
            return None
    return replace(source, part=tuple(part))


def read_folder(folder: Path, cancelled: threading.Event) -> Material:
    """All images of a folder; those that cannot be read are left out."""
    from vdsr_core import read_image

    paths = image_files(folder)
    images: dict[str, ImageFile] = {}
    left_out = {}
    for path in paths:
        stop_if(cancelled)
        try:
            image = read_image(path)
            images[path.name] = replace(image, data=np.asarray(image.data))
        except (ValueError, OSError) as error:
            left_out[path.name] = str(error)
    if not images:
        first = next(iter(left_out.values()), "")
        msg = f"“{folder.name}” holds no image that can be read: {len(paths)} files were tried. {first}"
        raise ValueError(msg.strip())
    return Material(images, [], left_out)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, not of those inside it."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS and not path.name.startswith("."))


# ------------------------------------------------------------------------------------------ unfinished


def run_folder(name: str) -> Path:
    """Where an unfinished training is kept."""
    return data_folder() / "unfinished" / name


def list_unfinished() -> dict[str, Recipe]:
    """The trainings that can be gone on with, by name."""
    folder = data_folder() / "unfinished"
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "network.safetensors").is_file() and (path / "recipe.json").is_file():
            values = json.loads((path / "recipe.json").read_text(encoding="utf-8"))["recipe"]
            known = {f.name: values[f.name] for f in fields(Recipe) if f.name in values}
            found[path.name] = Recipe(**known | {"scales": tuple(values["scales"])})
    return found


def discard(name: str) -> None:
    """Remove what is kept of a training."""
    if not name:
        return
    shutil.rmtree(run_folder(name), ignore_errors=True)


def keep(recipe: Recipe, material: Material) -> None:
    """Write recipe and images of a training that begins, so that it can be gone on with without the layers."""
    folder = run_folder(recipe.name)
    discard(recipe.name)
    folder.mkdir(parents=True)
    parts = [*material.images.values(), *(image for pair in material.pairs for image in pair)]
    np.savez(folder / "images.npz", *(np.asarray(image.data) for image in parts))
    record = {
        "recipe": asdict(recipe),
        "names": list(material.images),
        "axes": [image.axes for image in parts],
        "left_out": material.left_out,
    }
    partial = folder / "recipe.json.partial"
    partial.write_text(json.dumps(record), encoding="utf-8")
    os.replace(partial, folder / "recipe.json")


def bring_back(name: str) -> Material:
    """The images of an unfinished training."""
    from vdsr_core import ImageFile

    folder = run_folder(name)
    record = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    with np.load(folder / "images.npz", allow_pickle=False) as stream:
        parts = [ImageFile(stream[f"arr_{number}"], axes) for number, axes in enumerate(record["axes"])]
    count = len(record["names"])
    pairs = list(zip(parts[count::2], parts[count + 1 :: 2], strict=True))
    return Material(dict(zip(record["names"], parts, strict=False)), pairs, record["left_out"])


# --------------------------------------------------------------------------------------------- training


def train(
    recipe: Recipe, data: Data | None, control: Control, cancelled: threading.Event
) -> Iterator[Begun | list[FineTuneProgress] | Finished]:
    """Fine-tune; without `data`, go on with the unfinished training of that name."""
    from vdsr_core import fine_tune_steps

    with computing(cancelled):
        load_torch()
        network = start_network(recipe)
        if data is None:
            material = bring_back(recipe.name)
        else:
            material = gather(data, cancelled)
            keep(recipe, material)
        yield Begun(len(material.images) + len(material.pairs), material.left_out)

        def look() -> None:
            stop_if(cancelled)
            if control.stopped.is_set():
                raise Stopped

        watch(network, look)
        steps = fine_tune_steps(
            network,
            material.images,
            pairs=material.pairs,
            checkpoint=run_folder(recipe.name) / "network.safetensors",
            resume=data is None,
            **recipe.options(),
        )
    with suppress(Stopped):
        yield from in_reports(take_turns(steps, control, cancelled))
    yield finish(network, recipe.name)


def start_network(recipe: Recipe) -> VDSR:
    """A network of one's own to begin with."""
    if recipe.model != NEW:
        return copy.deepcopy(load_network(recipe.model))
    from vdsr_core import VDSR

    torch = load_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return VDSR(scales=recipe.scales, card={"name": NEW})


def watch(network: VDSR, look: Callable[[], None]) -> None:
    """Have a network and its copies look, before each layer forwards and backwards, whether to go on."""

    def forwards(_: object, inputs: tuple[Any, ...]) -> None:
        look()
        if inputs[0].requires_grad:
            inputs[0].register_hook(backwards)

    def backwards(_: object) -> None:
        look()

    for layer in network.convolutions:
        layer.register_forward_pre_hook(forwards)


def take_turns(
    steps: Iterator[FineTuneProgress], control: Control, cancelled: threading.Event
) -> Iterator[FineTuneProgress]:
    """The steps of a training; between them other work, such as an upscaling, may take its turn."""
    while True:
        with computing(cancelled):
            progress = next(steps, None)
        if progress is None:
            return
        yield progress
        time.sleep(TURN)
        while control.paused.is_set() and not control.stopped.is_set():
            stop_if(cancelled)
            time.sleep(0.05)


def in_reports(steps: Iterator[FineTuneProgress]) -> Iterator[list[FineTuneProgress]]:
    """Steps in groups, not more often than the viewer can show them."""
    group: list[FineTuneProgress] = []
    last = -REPORTS
    for progress in steps:
        group.append(progress)
        if progress.gain is not None or time.monotonic() - last >= REPORTS:
            yield group
            group, last = [], time.monotonic()
    if group:
        yield group


def finish(network: VDSR, name: str) -> Finished:
    """Save a network that helped, and forget the training."""
    if not network.card.get("helped"):
        discard(name)
        return Finished(network)
    try:
        path = save_model(network, free_name(name))
    except (OSError, ValueError) as error:
        return Finished(network, trouble=str(error))
    discard(name)
    return Finished(network, path)


# --------------------------------------------------------------------------------------------- estimate


def examine(
    model: str | None, device: str | None, cancelled: threading.Event
) -> Iterator[tuple[float, dict[str, str]]]:
    """Give the seconds that training takes for each pixel of a patch, from a timed step, and the devices here."""
    from vdsr_core import fine_tune_steps

    with computing(cancelled):
        network = start_network(Recipe("", model))
        image = np.random.default_rng(0).random((128, 64), dtype=np.float32)
        watch(network, lambda: stop_if(cancelled))
        options: dict[str, Any] = {"scales": [2.0], "steps": 3, "batch_size": 4, "patch": 48, "device": device}
        steps = fine_tune_steps(network, image, validate_every=1000, **options)
        times = []
        for progress in steps:
            if progress.step in (1, 2):
                times.append(time.perf_counter())
        yield (times[1] - times[0]) / (4 * 48**2), find_devices()


def count_threads() -> int:
    """How many processor cores a training gets."""
    if "torch" not in sys.modules:  # not loaded for this
        return max(1, (os.cpu_count() or 1) - 1)
    return max(1, int(load_torch().get_num_threads()) - 1)


def with_length(recipe: Recipe, length: str) -> Recipe:
    """A recipe with the steps of one of `LENGTHS`."""
    return replace(recipe, **LENGTHS[length])


def estimate_seconds(recipe: Recipe, speed: float, held_out: int) -> float:
    """How long a training takes at most.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    speed : float
        Seconds for each pixel of a patch.
    held_out : int
        Pixels that are measured at each validation and scale; a look forwards takes a third of a step.
    """
    training = recipe.steps * recipe.batch_size * recipe.patch**2
    validations = 2 + recipe.steps // recipe.validate_every
    return speed * (training + validations * len(recipe.scales) * held_out / 3)


def held_out_pixels(data: Data, hold_out: float) -> int:
    """About how many pixels of each scale are measured."""
    if data.folder is not None:
        return PIECES * PIECE**2
    sharp = [*data.sources.values(), *(high for _, high in data.pairs)]
    pixels = []
    for source in sharp:
        sides = sorted(shape_of(source)[axis] for axis in source.plane_axes)
        planes = math.prod(shape_of(source)) // (sides[0] * sides[1])
        pixels += [min(sides[0], PIECE) * min(round(hold_out * sides[1]), PIECE)] * min(planes, PIECES)
    return sum(sorted(pixels)[-PIECES:])


def measure_low_side(source: Source, scale: float, cancelled: threading.Event) -> Iterator[tuple[float, float]]:
    """Give the blur in pixels, and the noise as a share of the range, of the middle of a source's middle plane."""
    from vdsr_core import estimate_degradation, find_range

    stop_if(cancelled)
    part = [slice((p.start + p.stop) // 2, (p.start + p.stop) // 2 + 1) for p in source.part]
    for axis in source.plane_axes:
        whole = source.part[axis]
        start = max(whole.start, (whole.start + whole.stop - MEASURED) // 2)
        part[axis] = slice(start, min(whole.stop, start + MEASURED))
    plane = np.asarray(source.data[tuple(part)], dtype=np.float64)
    plane = plane[..., :3].mean(-1) if source.rgb else plane
    plane = plane.reshape([n for n in plane.shape if n > 1])
    found: Any = find_range(plane)
    if not np.isfinite(plane).all() or found[0] >= found[1]:
        msg = f"“{source.name}” holds NaN, infinity or one value only: nothing can be measured."
        raise ValueError(msg)
    blur, noise = estimate_degradation(plane, scale)
    yield blur, noise / (found[1] - found[0])


# ----------------------------------------------------------------------------------------------- script


def python_script(recipe: Recipe, data: Data, left_out: Container[str] = ()) -> str:
    """A script for napari's console that gives the same weights; `left_out` names files that cannot be read."""
    names = ["ImageFile", "fine_tune", "load_model", "save_checkpoint"]
    start = f"load_model({recipe.model!r})" if recipe.model else "load_model()"
    lines = []
    if recipe.model == NEW:
        names = ["VDSR", "ImageFile", "fine_tune", "save_checkpoint"]
        start = f"VDSR(scales={list(recipe.scales)}, card={{'name': {NEW!r}}})"
        lines.append(f"torch.manual_seed({recipe.seed})")
    if data.folder is not None:
        names = ["read_image", *(name for name in names if name != "ImageFile")]
    options = recipe.options()
    plain = {f.name: f.default for f in fields(Recipe)} | {"strips": False}
    given = {name: value for name, value in options.items() if name == "scales" or value != plain[name]}
    given["scales"] = list(recipe.scales)
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "import numpy as np",
            "import torch",
            f"from vdsr_core import {', '.join(sorted(names, key=str.casefold))}",
            "",
            f"torch.set_num_threads({recipe.threads})  # as in the widget: another number rounds differently",
            *lines,
            f"start = {start}",
            *_data_lines(data, left_out),
            "network = fine_tune(",
            "    images,",
            "    pairs=pairs," if data.pairs else "",
            "    model=start,",
            *(f"    {name}={value!r}," for name, value in given.items()),
            ")",
            "print(network.card['summary'])",
            f"save_checkpoint({recipe.name + '.safetensors'!r}, network)",
            "",
        ]
    ).replace("\n\n    model", "\n    model")


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
        yield "pairs = ["
        for low, high in data.pairs:
            yield f"    ({_source_text(low)}, {_source_text(high)}),"
        yield "]"


def _source_text(source: Source) -> str:
    part = ", ".join(f"{p.start}:{p.stop}" for p in source.part)
    return f"ImageFile(np.array(pixels({source.name!r})[{part}]), {axes_of(source)!r})"
