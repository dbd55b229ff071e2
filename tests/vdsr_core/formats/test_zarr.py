"""OME-Zarr as others write it, and damaged chunks."""

import numpy as np
import pytest
import zarr

from vdsr_core import ImageFile, read_image, write_image


def ome_zarr(path, omero, shape=(2, 9, 16), names="cyx", transform=None):
    """An OME-Zarr 0.4 with such settings of channels."""
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in names]
    transforms = [transform or {"type": "scale", "scale": [1.0] * (len(names) - 2) + [0.5, 0.25]}]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=np.random.default_rng(0).integers(0, 999, shape, np.uint16))
    says = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}], "version": "0.4"}
    group.attrs.update({"multiscales": [says], "omero": omero})


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        ([{"label": 1}, {"label": 2}], ("1", "2")),
        ([{"label": "a", "color": None}, {"label": "b", "color": 7}], ("a", "b")),
        ([{"label": "a", "window": None}, {"label": "b", "window": {"start": 1}}], ("a", "b")),
        ([{"label": None}, {}], None),
    ],
)
def test_odd_display_settings_are_no_obstacle(tmp_path, channels, names):
    ome_zarr(tmp_path / "a.zarr", {"channels": channels})
    image = read_image(tmp_path / "a.zarr")
    assert (image.channel_names, image.pixel_size) == (names, (0.5, 0.25))
    assert not image.extra.keys() & {"channel_colors", "channel_windows"}


@pytest.mark.parametrize(
    "omero", [{"channels": [{"label": name} for name in "abc"]}, {"channels": 5}, {"channels": [1, 2]}]
)
def test_display_settings_of_other_channels_are_named(tmp_path, omero):
    ome_zarr(tmp_path / "a.zarr", omero)
    image = read_image(tmp_path / "a.zarr")
    assert image.channel_names is None
    with pytest.warns(UserWarning, match="^not kept: display settings that are not for 2 channels$"):
        write_image(tmp_path / "b.tif", image)


@pytest.mark.parametrize(
    "transform", [{"type": "identity"}, {"type": "scale", "path": "scales"}, {"type": "scale", "scale": [2.0]}, {}]
)
def test_transformation_that_gives_no_sizes_is_left_out(tmp_path, transform):
    ome_zarr(tmp_path / "a.zarr", {}, transform=transform or {"type": "scale", "scale": [1, -1, 0]})
    assert read_image(tmp_path / "a.zarr").pixel_size is None


@pytest.mark.parametrize("place", ["", "scale0/image"])
def test_array_whose_path_has_several_parts_is_known_by_its_group(tmp_path, place):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("scale0/image", data=np.zeros((2, 9, 16), np.uint8))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    sizes = [{"type": "scale", "scale": [2.0, 0.5, 0.25]}]
    datasets = [{"path": "scale0/image", "coordinateTransformations": sizes}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    image = read_image(tmp_path / "a.zarr" / place)
    assert (image.axes, image.pixel_size, image.unit) == ("ZYX", (0.5, 0.25), "µm")
    assert image.extra["z_step"] == 2


def test_first_versions_of_ome_zarr_have_five_axes_without_names(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("s0", data=np.zeros((2, 3, 1, 9, 16), np.uint8))
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "s0"}]}]
    assert read_image(tmp_path / "a.zarr").axes == "TCZYX"


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_deep_metadata_are_refused(tmp_path, text, lazy):
    write_image(tmp_path / "a.zarr", ImageFile(np.zeros((8, 9), np.uint8), "YX"))
    path = tmp_path / "a.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"attributes": {', f'"attributes": {{"deep": {text},', 1))
    with pytest.raises(ValueError, match=r"a\.zarr is not a readable zarr: maximum recursion depth"):
        read_image(tmp_path / "a.zarr", lazy=lazy)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_whatever_a_decoder_raises_is_a_value_error(tmp_path, zarr_format):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="u2", zarr_format=zarr_format)
    array[:] = np.arange(64).reshape(8, 8)
    chunks = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file() and "z" not in path.name]
    max(chunks).write_bytes(b"\1" * 40)
    pixels = read_image(tmp_path / "a.zarr").data
    assert isinstance(pixels, zarr.Array)
    np.testing.assert_array_equal(pixels[:4, :4], array[:4, :4])
    with pytest.raises(ValueError, match=r"^a part of the image cannot be read: .*\. Copy or export it again\.$"):
        pixels[...]
    with pytest.raises(IndexError):
        pixels[1, 2, 3]
