import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image
from napari.utils import Colormap

from napari_vdsr.layers.reader import get_reader, open_ome_zarr, prefer_own_reader, read_layers
from napari_vdsr.layers.writer import write_ome_tiff, write_ome_zarr
from vdsr_core import ImageFile, plan, read_image, stream, write_image

WRITERS = {".ome.tif": write_ome_tiff, ".ome.zarr": write_ome_zarr}


def as_layers(path):
    assert get_reader(str(path)) is read_layers
    return [(data, keywords) for data, keywords, _ in read_layers(str(path))]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("rgb", [False, True])
def test_a_saved_layer_opens_as_it_was(tmp_path, suffix, rgb):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 40, 3)).astype(np.uint8) if rgb else rng.integers(0, 9, (2, 600, 40), np.uint16)
    units = ("um",) * (pixels.ndim - rgb)
    looks = {"blending": "additive", "opacity": 0.7}
    if not rgb:
        color = Colormap([[0, 0, 0, 1], [0.2, 0.4, 0.6, 1]], name="stain")
        looks |= {"contrast_limits": (1, 7), "gamma": 0.5, "axis_labels": ("z", "y", "x"), "colormap": color}
    layer = Image(
        pixels,
        name="cells [VDSR x2]",
        rgb=rgb,
        rotate=30,
        scale=(0.5,) * len(units),
        translate=range(len(units)),
        units=units,
        metadata={"vdsr": {"scale": 2.0, "part": ((0, 3), (1, 2))}},
        **looks,
    )
    data, meta, _ = layer.as_layer_data_tuple()
    WRITERS[suffix](str(tmp_path / f"a{suffix}"), data, meta)
    ((levels, keywords),) = as_layers(tmp_path / f"a{suffix}")
    assert [level.shape[-2 - rgb] for level in levels] == [600, 300]
    np.testing.assert_array_equal(np.asarray(levels[0]), pixels)
    again = Image(levels, **keywords)
    corners = np.stack([np.zeros(layer.ndim), np.arange(1, layer.ndim + 1)])
    for corner in corners:
        np.testing.assert_allclose(again.data_to_world(corner), layer.data_to_world(corner))
    for name in () if rgb else ("contrast_limits", "gamma"):
        assert getattr(again, name) == getattr(layer, name)
    np.testing.assert_allclose(again.colormap.colors, layer.colormap.colors)
    for name in ("name", "units", "axis_labels", "rgb", "blending", "opacity"):
        assert getattr(again, name) == getattr(layer, name)
    assert again.metadata["vdsr"] == {"scale": 2.0, "part": [[0, 3], [1, 2]]}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("axes", ["CYX", "YXS"])
def test_what_the_command_wrote_opens_in_place_and_colour(tmp_path, tiny_model, suffix, axes):
    shape = (2, 30, 40) if axes == "CYX" else (30, 40, 3)
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    extra = {"channel_colors": ((255, 0, 0), (0, 255, 0))} if axes == "CYX" else {}
    names = ("nuclei", "actin") if axes == "CYX" else None
    image = ImageFile(pixels, axes, (0.5, 0.25), "µm", names, extra=extra)
    target = tmp_path / f"b{suffix}"
    for _ in stream(plan(image, 2, target, model=tiny_model, in_range=(0, 255)), image=image, model=tiny_model):
        pass
    ((levels, keywords),) = as_layers(target)
    np.testing.assert_allclose(keywords["scale"][-2:], (0.25, 0.125))
    np.testing.assert_allclose(keywords["translate"][-2:], (-0.125, -0.0625))
    assert keywords["units"][-2:] == ["µm", "µm"]
    assert keywords["metadata"]["vdsr"]["scale"] == [2, 2]
    data = levels[0] if keywords["multiscale"] else levels
    if axes == "YXS":
        assert keywords["rgb"]
        assert data.shape == (60, 80, 3)
    else:
        assert keywords["name"] == ["b nuclei", "b actin"]
        assert data.shape[keywords["channel_axis"]] == 2
        assert [color.colors[1][:3].tolist() for color in keywords["colormap"]] == [[1, 0, 0], [0, 1, 0]]


def test_other_files_are_left_to_other_readers(tmp_path):
    write_image(tmp_path / "plain.ome.tif", ImageFile(np.zeros((30, 40), np.uint8), "YX", (0.5, 0.5), "µm"))
    (tmp_path / "broken.ome.tif").write_bytes(b"II*")
    for name in ("plain.ome.tif", "broken.ome.tif", "missing.ome.zarr"):
        assert get_reader(str(tmp_path / name)) is None
    assert get_reader([str(tmp_path / "plain.ome.tif")]) is None


def test_a_better_reader_comes_first(tmp_path):
    from npe2 import DynamicPlugin

    path = str(tmp_path / "a [VDSR photo x2].ome.tif")
    data, meta, _ = Image(np.zeros((30, 40), np.uint8)).as_layer_data_tuple()
    write_ome_tiff(path, data, meta)
    assert read_image(path).extra["provenance"]
    assert get_reader(path) is read_layers
    with DynamicPlugin("better") as plugin:

        @plugin.contribute.reader(filename_patterns=["*.tif"])
        def better(path):
            """Of another plugin."""

        assert get_reader(path) is None


def test_napari_opens_a_result_without_asking_and_a_zarr_from_the_menu(
    make_napari_viewer_proxy, tmp_path, monkeypatch, tiny_model
):
    from qtpy.QtWidgets import QFileDialog

    pixels = np.random.default_rng(0).integers(0, 9, (30, 40), np.uint16)
    layer = Image(pixels, name="cells [VDSR photo x1.5]", scale=(0.5, 0.25), metadata={"vdsr": {"scale": 1.5}})
    data, meta, _ = layer.as_layer_data_tuple()
    for suffix, write in WRITERS.items():
        write(str(tmp_path / f"{layer.name}{suffix}"), data, meta)
    write_image(tmp_path / "plain.ome.tif", ImageFile(pixels, "YX"))
    viewer = make_napari_viewer_proxy()
    prefer_own_reader()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / f"{layer.name}.ome.zarr"))
    open_ome_zarr(viewer)
    viewer.open(str(tmp_path / f"{layer.name}.ome.tif"), plugin=None)
    for opened in viewer.layers:
        np.testing.assert_array_equal(np.asarray(opened.data), pixels)
        np.testing.assert_array_equal(opened.scale, layer.scale)
        assert opened.metadata == layer.metadata
    viewer.open(str(tmp_path / "plain.ome.tif"), plugin=None)  # napari's own reader is the only one for other names
    assert len(viewer.layers) == 3
