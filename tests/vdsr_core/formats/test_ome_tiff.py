from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from vdsr_core import (
    VDSR,
    ImageFile,
    VDSRConfig,
    plan,
    read_image,
    stream,
    super_resolve,
    verify,
    write_image,
)
from vdsr_core.formats import ome_tiff as module
from vdsr_core.formats.ome_zarr import halve

TILE = {"tile": 16, "shard": 32}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VDSR(VDSRConfig(4, 8))


def validate(path):
    """Raise unless the OME-XML follows its schema."""
    ome_types = pytest.importorskip("ome_types")
    pytest.importorskip("lxml")
    schema = Path(ome_types.__file__).with_name("ome-2016-06.xsd").read_bytes()
    with tifffile.TiffFile(path) as tiff:
        assert tifffile.OmeXml.validate(tiff.ome_metadata, schema)


def levels(path):
    with tifffile.TiffFile(path) as tiff:
        return [level.asarray() for level in tiff.series[0].levels]


# The law: streamed == whole


@pytest.mark.parametrize(
    ("axes", "shape", "dtype", "scale"),
    [
        ("YX", (45, 70), "uint16", 2.37),
        ("YXS", (30, 41, 3), "uint8", 2),
        ("TSYX", (2, 4, 20, 33), "uint16", 2.37),
        ("YXC", (30, 41, 2), "int16", 2),
        ("TCZYX", (2, 2, 3, 20, 33), "uint8", 2),
        ("ZTYX", (2, 3, 20, 33), "float32", 2),
    ],
)
def test_streamed_equals_whole_bit_for_bit(tmp_path, rng, model, axes, shape, dtype, scale):
    image = ImageFile(rng.integers(0, 120, shape).astype(dtype), axes, (0.5, 0.25), "µm")
    if "C" in axes:
        image = replace(image, channel_names=("a", "<b>"), extra={"channel_colors": ((255, 0, 0), (0, 255, 1))})
    target = tmp_path / "out.ome.tif"
    job = plan(image, scale, target, model=model, **TILE)
    shards = list(stream(job, image=image, model=model))
    assert len(shards) == job.total
    validate(target)
    options = {"channel_axis": image.channel_axis, "rgb": image.rgb}
    whole = super_resolve(image.data, scale, model=model, tile=16, **options)
    order = "".join(letter for letter in "TCZYXS" if letter in axes)
    finest, *coarser = levels(target)
    np.testing.assert_array_equal(finest, np.transpose(whole, [axes.index(letter) for letter in order]))
    for level in coarser:
        finest = np.moveaxis(halve(np.moveaxis(finest, -1, 0)), 0, -1) if image.rgb else halve(finest)
        np.testing.assert_array_equal(level, finest)
    result = read_image(target)
    assert (result.axes, result.unit, result.channel_names) == (order, "µm", image.channel_names)
    assert result.pixel_size == (0.5 / scale, 0.25 / scale)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ome.tif"]
    checks = list(verify(target, source=image, model=model, samples=2))
    assert all(check.ok for check in checks)
    assert {check.level for check in checks} == set(range(job.levels))


@pytest.mark.parametrize(
    ("name", "options"), [("plain.tif", {}), ("big.tif", {"bigtiff": True}), ("pyramid.ome.tif", {})]
)
def test_tiff_to_tiff(tmp_path, rng, model, name, options):
    """Striped, tiled and mapped sources, and what an earlier run has made."""
    pixels = rng.integers(0, 4096, (60, 50), np.uint16)
    if name == "pyramid.ome.tif":
        image = ImageFile(pixels[:30, :25], "YX")
        job = plan(image, 2, tmp_path / name, model=model, **TILE)
        list(stream(job, image=image, model=model))
        pixels = read_image(tmp_path / name).data
    else:
        tifffile.imwrite(tmp_path / name, pixels, **options)
    list(stream(plan(tmp_path / name, 2, tmp_path / "out.tif", model=model, **TILE), model=model))
    np.testing.assert_array_equal(levels(tmp_path / "out.tif")[0], super_resolve(pixels, 2, model=model, tile=16))
    assert all(check.ok for check in verify(tmp_path / "out.tif", model=model, samples=2))


# Files


@pytest.mark.parametrize("classic", [True, False])
def test_a_large_file_is_bigtiff(tmp_path, rng, model, classic, monkeypatch):
    if not classic:
        monkeypatch.setattr(module, "CLASSIC_BYTES", 1000)
    image = ImageFile(rng.integers(0, 120, (20, 33), np.uint8), "YX")
    list(stream(plan(image, 2, tmp_path / "out.ome.tif", model=model, **TILE), image=image, model=model))
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tiff:
        assert tiff.is_bigtiff is not classic
        assert (tiff.pages[0].tilewidth, tiff.pages[0].tilelength) == (16, 16)


@pytest.mark.parametrize("streamed", [True, False])
def test_place_in_the_world_is_in_the_metadata(tmp_path, rng, model, streamed):
    """The corner of the first pixel stays where it is; OME gives the place of its centre."""
    image = ImageFile(rng.integers(0, 120, (2, 20, 33), np.uint8), "ZYX", (0.5, 0.25), "µm", extra={"origin": (10, 20)})
    target = tmp_path / "out.ome.tif"
    if streamed:
        list(stream(plan(image, 2, target, model=model, **TILE), image=image, model=model))
    else:
        write_image(target, image.with_data(np.zeros((2, 40, 66), np.uint8), (2, 2)))
    validate(target)
    with tifffile.TiffFile(target) as tiff:
        planes = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
    assert [(plane["PositionY"], plane["PositionX"]) for plane in planes] == [(9.875, 19.9375)] * 2
    assert {plane["PositionXUnit"] for plane in planes} == {"µm"}


# Resuming


def test_packing_begins_anew_and_shards_are_kept(tmp_path, rng, model):
    image = ImageFile(rng.integers(0, 4096, (45, 70), np.uint16), "YX")
    job = plan(image, 2, tmp_path / "out.ome.tif", model=model, **TILE)
    computed = job.total // 2
    shards = stream(job, image=image, model=model)
    for _ in range(computed + 3):  # three are packed
        next(shards)
    shards.close()
    assert not (tmp_path / "out.ome.tif").exists()
    rest = list(stream(job, image=image, model=model))
    assert len(rest) == computed
    assert len({(shard.level, shard.index) for shard in rest}) == computed
    np.testing.assert_array_equal(
        levels(tmp_path / "out.ome.tif")[0], super_resolve(image.data, 2, model=model, tile=16)
    )
    assert list(stream(job, image=image, model=model)) == []


# Bad input


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("out.ome.tif", {"format": "0.4"}, ValueError, r"`target` must end in .ome.zarr for 0.4"),
        ("out.ome.zarr", {"format": "OME-TIFF"}, ValueError, r"`target` must end in .ome.tif for OME-TIFF"),
        ("folder.tif", {"overwrite": True}, FileExistsError, "is a folder"),
        ("file.ome.zarr", {"overwrite": True}, FileExistsError, "is a file"),
        ("folder.ome.zarr", {"overwrite": True}, FileExistsError, "is not a zarr"),
    ],
)
def test_wrong_target_is_named(tmp_path, name, options, error, message):
    for folder in ("folder.tif", "folder.ome.zarr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "thesis.txt").touch()
    (tmp_path / "file.ome.zarr").touch()
    with pytest.raises(error, match=message):
        plan(ImageFile(np.zeros((8, 8), np.uint8), "YX"), 2, tmp_path / name, **options)


def test_dtype_must_be_one_of_ome(tmp_path):
    with pytest.raises(ValueError, match=r"must be an .ome.zarr for pixels of float16"):
        plan(ImageFile(np.zeros((8, 8), np.float16), "YX"), 2, tmp_path / "out.tif")
