import re

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Image

from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import script as _script
from napari_vdsr.upscale.task import Task
from napari_vdsr.words import duration, size
from vdsr_core import super_resolve

# napari says so of any rotated volume that it shows in 2D.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

AFFINE = np.array([[1.1, 0.3, 5], [-0.2, 0.9, 7], [0, 0, 1]])
CASES = {
    "plain": ((12, 16), {}),
    "scale and translate": ((12, 16), {"scale": (0.5, 0.25), "translate": (10, -20)}),
    "rotate": ((12, 16), {"scale": (0.5, 0.25), "translate": (1, 2), "rotate": 30}),
    "shear": ((12, 16), {"scale": (0.5, 0.25), "shear": [0.4]}),
    "affine": ((12, 16), {"scale": (0.5, 0.25), "rotate": 15, "shear": [0.2], "affine": AFFINE}),
    "units": ((12, 16), {"scale": (0.1, 0.1), "units": ("um", "um"), "axis_labels": ("y", "x")}),
    "rgb": ((12, 16, 3), {"rgb": True, "scale": (3, 2)}),
    "stack": ((6, 12, 16), {"scale": (2, 0.5, 0.5), "translate": (1, 2, 3)}),
    "volume, rotated": ((6, 12, 16), {"scale": (2, 0.5, 0.5), "rotate": (10, 20, 30), "shear": (0.1, 0.2, 0.3)}),
    "time series": ((2, 3, 12, 16), {"scale": (9, 2, 0.5, 0.5), "units": ("s", "um", "um", "um")}),
    "multiscale": ((12, 16), {"multiscale": True, "scale": (0.5, 0.5), "translate": (4, 5)}),
    "channels last": ((12, 16, 5), {"scale": (0.5, 0.5, 1), "translate": (1, 2, 3)}),
}


def make_layer(shape, keywords):
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    return Image([data, data[::2, ::2]] if keywords.get("multiscale") else data, name="source", **keywords)


def make_result(layer, source, scale, pixels=None):
    pixels = np.zeros(source.result_shape(scale), np.float32) if pixels is None else pixels
    return Image(pixels, **image_layers.layer_keywords(layer, source, scale, "tiny x2"))


def corner(layer, source=None, *, far=False):
    """The near or far corner of the pixel areas of a layer, or of a part of it, in the world."""
    part = image_layers.whole(layer).part if source is None else source.part
    return np.array(layer.data_to_world([(p.stop if far else p.start) - 0.5 for p in part]))


@pytest.mark.parametrize("scale", [2, 2.5, 3.37])
@pytest.mark.parametrize("case", CASES)
def test_result_overlays_its_source(case, scale):
    layer = make_layer(*CASES[case])
    source = image_layers.whole(layer, 2 if case == "channels last" else None)
    result = make_result(layer, source, scale)
    np.testing.assert_allclose(corner(result), corner(layer), atol=1e-9)
    # Where scale * n is no integer, the far edge is off by less than half an output pixel along each axis.
    exact = [f * n for f, n in zip(source.factors(scale), source.data.shape, strict=False)]
    off = np.array(exact) - np.rint(exact)
    assert np.abs(off).max() <= 0.5
    expected = result.data_to_world([n - 0.5 for n in exact])
    np.testing.assert_allclose(expected, corner(layer, far=True), atol=1e-9)
    assert result.units == layer.units
    assert result.axis_labels == layer.axis_labels
    assert result.rgb == layer.rgb


@pytest.mark.parametrize("case", ["stack", "volume, rotated", "time series"])
def test_plane_overlays_its_source(case):
    layer = make_layer(*CASES[case])
    point = layer.data_to_world([n - 1 for n in layer.data.shape])
    source = image_layers.current_plane(layer, point)
    assert source.start(2) == (*(n - 1 for n in layer.data.shape[:-2]), 0, 0)
    result = make_result(layer, source, 2)
    np.testing.assert_allclose(corner(result), corner(layer, source), atol=1e-9)
    np.testing.assert_allclose(corner(result, far=True), corner(layer, source, far=True), atol=1e-9)


def test_current_plane_keeps_channels_and_stays_inside():
    layer = Image(np.zeros((2, 5, 12, 16)))
    source = image_layers.current_plane(layer, (0, 99, 0, 0), channel_axis=0)
    assert source.part == (slice(0, 2), slice(4, 5), slice(0, 12), slice(0, 16))


def test_plane_of_a_layer_with_fewer_axes_than_the_viewer():
    layer = Image(np.zeros((5, 12, 16)))
    assert image_layers.current_plane(layer, (7, 3, 0, 0)).start(2) == (3, 0, 0)


def test_result_looks_like_its_source():
    looks = {"colormap": "magma", "gamma": 0.7, "opacity": 0.5, "blending": "additive", "interpolation2d": "linear"}
    layer = Image(np.arange(192, dtype=np.uint16).reshape(12, 16), contrast_limits=(20, 90), **looks)
    layer.contrast_limits_range = (0, 4095)
    result = make_result(layer, image_layers.whole(layer), 2)
    image_layers.widen_range(result, layer)
    assert result.colormap.name == "magma"
    assert [getattr(result, name) for name in looks if name != "colormap"] == [0.7, 0.5, "additive", "linear"]
    assert result.contrast_limits == [20, 90]
    assert result.contrast_limits_range == [0, 4095]


def test_large_result_is_shown_by_views_of_itself(monkeypatch):
    monkeypatch.setattr(image_layers, "LARGE", 64)
    out = np.zeros((3, 100, 40))
    assert len(image_layers.views(out[:, :64], (1, 2))) == 1
    levels = image_layers.views(out, (1, 2))
    assert [level.shape for level in levels] == [(3, 100, 40), (3, 50, 20), (3, 25, 10), (3, 13, 5), (3, 7, 3)]
    out[:, 32:48] = 1  # a tile that is written later
    assert all(level[:, level.shape[1] * 2 // 5].all() for level in levels[:3])


def test_free_name_replaces_no_layer():
    assert image_layers.free_name("a", ["b"]) == "a"
    assert image_layers.free_name("a", ["a", "a [1]"]) == "a [2]"


def test_channels_come_from_rgb_then_labels_then_the_user():
    gray, colour = Image(np.zeros((12, 16))), Image(np.zeros((12, 16, 3)), rgb=True)
    labelled = Image(np.zeros((3, 12, 16)), axis_labels=("c", "y", "x"))
    assert [axis for _, axis in image_layers.choices_of_channels(gray)] == [None]
    assert [axis for _, axis in image_layers.choices_of_channels(colour)] == [None]
    assert [axis for _, axis in image_layers.choices_of_channels(labelled)] == [0, None]
    unlabelled, last = Image(np.zeros((3, 12, 16))), Image(np.zeros((12, 16, 4)), axis_labels=("y", "x", "dye"))
    assert [axis for _, axis in image_layers.choices_of_channels(unlabelled)] == [None, 0, 1, 2]
    assert [image_layers.likely_channels(one) for one in (unlabelled, last)] == [0, 2]  # which is asked, not taken
    many = Image(np.zeros((5, 12, 16)))
    planes = Image(np.zeros((3, 12, 16)), axis_labels=("z", "y", "x"))
    assert [image_layers.likely_channels(one) for one in (gray, colour, labelled, many, planes)] == [None] * 5


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Image(np.zeros((12, 16), bool)), "holds bool values"),
        (Image(np.zeros((12, 3))), "at least 4 rows"),
        (Image(np.zeros((12, 16, 3)), rgb=False), "choose it under Channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_not(layer, words):
    assert words in image_layers.why_not(layer)
    assert image_layers.why_not(Image(np.zeros((12, 16)))) == ""


def test_short_last_axis_is_declared_to_the_core():
    source = image_layers.whole(Image(np.zeros((5, 12, 4), np.float32)))
    assert super_resolve(source.data, 2, channel_axis=image_layers.core_channels(source)).shape == (5, 24, 8)


@pytest.mark.parametrize("case", ["affine", "rgb", "time series", "multiscale"])
def test_python_line_gives_the_same_layer(case, tmp_path, tiny_model):
    from vdsr_core import save_checkpoint

    save_checkpoint(tmp_path / "tiny.safetensors", tiny_model)
    options = {"model": str(tmp_path / "tiny.safetensors"), "in_range": (0.1, 0.8), "tile": 8, "device": None}
    viewer = ViewerModel()
    layer = viewer.add_layer(make_layer(*CASES[case]))
    source = image_layers.whole(layer)
    exec(_script.python_script([(layer, Task(source, 2.5, **options))]), {"viewer": viewer})
    pixels = super_resolve(source.data, 2.5, rgb=layer.rgb, **options)
    expected, result = make_result(layer, source, 2.5, pixels), viewer.layers[-1]
    assert result.name == "source [VDSR tiny x2.5]"
    assert result.metadata["vdsr"]["in_range"] == (0.1, 0.8)
    np.testing.assert_array_equal(result.data, expected.data)
    np.testing.assert_allclose(corner(result), corner(expected), atol=1e-9)
    np.testing.assert_allclose(corner(result, far=True), corner(expected, far=True), atol=1e-9)


def test_python_script_has_all_digits_of_the_scale():
    scale = 2.309468822  # with six digits there would be a row more
    layer = Image(np.zeros((1320, 4), np.float32))
    source = image_layers.whole(layer)
    script = _script.python_script([(layer, Task(source, scale))])
    given = float(re.search(r"viewer.layers\[name\], ([0-9.]+)", script).group(1))
    assert source.result_shape(given) == source.result_shape(scale) == (3048, 9)


@pytest.mark.parametrize("blending", ["additive", "opaque"])
def test_a_result_is_put_right_above_its_source(blending):
    viewer = ViewerModel()
    cells, over = (viewer.add_image(np.zeros((8, 8)), name=name, blending=blending) for name in ("cells", "over"))
    made = [Image(np.zeros((8, 8)), metadata={"vdsr": {"source": {"layer": "cells"}}}) for _ in range(2)]
    assert image_layers.put_above(viewer.layers, cells, made[0]) == [cells]
    cells.visible = False
    assert image_layers.put_above(viewer.layers, cells, made[1]) == [made[0]]
    assert list(viewer.layers) == [cells, *made, over]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.2, "less than a second"), (12.1, "13 s"), (600, "10 min"), (7200, "2.0 h"), (1e6, "12 days")],
)
def test_duration(value, words):
    assert duration(value) == words


@pytest.mark.parametrize(("value", "words"), [(1e5, "100 kB"), (2.5e9, "2.5 GB"), (12e9, "12.0 GB")])
def test_size(value, words):
    assert size(value) == words


def test_pixels_on_the_canvas_are_the_same(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    nearest = {"interpolation2d": "nearest", "contrast_limits": (0, 1)}
    layer = viewer.add_image(np.random.default_rng(0).random((12, 16)), **CASES["affine"][1], **nearest)
    pictures = [viewer.screenshot(flash=False).astype(int)]
    layer.visible = False
    viewer.add_layer(make_result(layer, image_layers.whole(layer), 4, np.kron(layer.data, np.ones((4, 4)))))
    viewer.layers[-1].visible = True
    pictures.append(viewer.screenshot(flash=False).astype(int))
    assert pictures[0][..., :3].std() > 10
    different = np.abs(pictures[0] - pictures[1]).max(-1) > 8
    assert different.mean() < 1e-3
