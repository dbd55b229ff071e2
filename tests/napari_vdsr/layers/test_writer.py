import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr.layers import image_layers
from napari_vdsr.layers.writer import describe_source, name_axes
from vdsr_core import read_image


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("multiscale", [True, False])
def test_result_is_saved_with_its_size_and_read_again(make_napari_viewer_proxy, tmp_path, suffix, multiscale):
    stack = np.random.default_rng(0).integers(0, 4000, (2, 3, 30, 40)).astype(np.uint16)
    layer = Image(
        stack,
        scale=(1, 2, 0.5, 0.25),
        units=("s", "um", "um", "um"),
        axis_labels=("c", "z", "y", "x"),
        translate=(0, 0, 3, 4),
    )
    source = image_layers.whole(layer, 0)
    out = np.kron(stack, np.ones((1, 1, 2, 2), np.uint16))
    keywords = image_layers.layer_keywords(layer, source, 2, "tiny x2")
    viewer = make_napari_viewer_proxy()
    data = [out, out[..., ::2, ::2]] if multiscale else out
    viewer.add_image(data, metadata={"vdsr": {"channel_axis": 0}}, **(keywords | {"multiscale": multiscale}))
    path = tmp_path / f"result{suffix}"
    assert viewer.layers.save(str(path)) == [str(path)]
    image = read_image(path)
    assert (image.axes.replace("T", ""), image.unit, image.pixel_size) == ("CZYX", "µm", (0.25, 0.125))
    assert image.extra["z_step"] == 2
    np.testing.assert_array_equal(np.asarray(image.data[...]).reshape(out.shape), out)


def test_a_mirrored_layer_has_the_pixel_size_of_a_plain_one():
    layer = Image(np.zeros((3, 30, 40)), scale=(-2, -0.5, 0.25), units="um", axis_labels=("z", "y", "x"))
    image = describe_source(layer, image_layers.whole(layer))
    assert (image.pixel_size, image.unit, image.extra["z_step"]) == ((0.5, 0.25), "µm", 2)


@pytest.mark.parametrize(
    ("ndim", "meta", "axes"),
    [
        (2, {}, "YX"),
        (3, {"rgb": True}, "YXS"),
        (4, {"axis_labels": ("-4", "-3", "-2", "-1")}, "TZYX"),
        (3, {"axis_labels": ("y", "x", "channel")}, "YXC"),
        (3, {"metadata": {"vdsr": {"channel_axis": 0}}}, "CYX"),
        (4, {"axis_labels": ("time", "-3", "-2", "-1"), "metadata": {"vdsr": {"channel_axis": None}}}, "TZYX"),
    ],
)
def test_axes_are_named(ndim, meta, axes):
    assert name_axes(ndim, meta) == axes
