"""Files as they are upscaled: from any kind of file to any other, the same pixels."""

import json

import numpy as np
import pytest
import tifffile
import torch
import zarr

from vdsr_core import VDSR, VDSRConfig, plan, read_image, stream, super_resolve, upscale_files
from vdsr_core.streaming.source import open_source


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VDSR(VDSRConfig(depth=3, width=4))


def results(sources, output, model, **options):
    """The last record of each image."""
    return [step for step in upscale_files(sources, output, 2, model=model, **options) if step.outcome]


@pytest.mark.parametrize("name", ["b.tif", "b.ome.zarr"])
def test_big_endian_stack_of_imagej_is_upscaled_as_its_pixels(tmp_path, rng, model, name):
    data = rng.integers(0, 4000, (2, 20, 24), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, byteorder=">", metadata={"axes": "ZYX"})
    assert [step.outcome for step in results(tmp_path / "a.tif", tmp_path / name, model)] == ["done"]
    np.testing.assert_array_equal(read_image(tmp_path / name).data[...], super_resolve(data, 2, model=model))


@pytest.mark.parametrize("name", ["b.tif", "b.ome.zarr"])
@pytest.mark.parametrize("columns", [2, 3, 4])
def test_narrow_stack_is_a_stack(tmp_path, rng, model, name, columns):
    data = rng.integers(0, 4000, (5, 20, columns), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "ZYX"})
    image = open_source(tmp_path / "a.tif")
    assert open_source(tmp_path / "a.tif", image.axes).axes == image.axes  # as a plan opens it again
    (step,) = results(tmp_path / "a.tif", tmp_path / name, model)
    assert step.outcome == "done", step.message
    wanted = super_resolve(data[None], 2, model=model, channel_axis=0)[0]
    np.testing.assert_array_equal(np.squeeze(read_image(tmp_path / name).data[...]), wanted)


def test_image_in_several_files_is_upscaled_once(tmp_path, rng, model):
    (tmp_path / "in").mkdir()
    known = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    blocks = "".join(
        f'<TiffData FirstC="{i}" PlaneCount="1"><UUID FileName="{i}.ome.tif">{i}</UUID></TiffData>' for i in (0, 1)
    )
    for i in (0, 1):
        xml = f'<OME {known} UUID="{i}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
        xml += f'SizeX="16" SizeY="9" SizeC="2" SizeZ="1" SizeT="1">{blocks}</Pixels></Image></OME>'
        data = rng.integers(0, 255, (9, 16), np.uint8)
        tifffile.imwrite(tmp_path / "in" / f"{i}.ome.tif", data, description=xml, metadata=None, ome=False)
    steps = results(tmp_path / "in", tmp_path / "out", model)
    assert [(step.outcome, step.target.name) for step in steps] == [("done", "0_x2.ome.tif")]
    assert read_image(steps[0].target).data.shape == (2, 18, 32)


def test_image_inside_a_group_is_upscaled(tmp_path, rng, model):
    for path in ("plate.ome.zarr/A/1/0", "folder"):
        zarr.open_group(tmp_path / path, mode="w").create_array("raw", data=rng.integers(0, 99, (9, 16), np.uint8))
        (step,) = results(tmp_path / path / "raw", tmp_path / f"{len(path)}.tif", model)
        assert step.outcome == "done", step.message


@pytest.mark.parametrize("bad", [0, 3])
def test_damaged_tile_is_named_in_one_line(tmp_path, rng, model, bad):
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 255, (64, 64), np.uint8), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        place = tiff.pages.first.dataoffsets[bad]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 40] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(content)
    (step,) = results(tmp_path / "a.tif", tmp_path / "b.ome.zarr", model)
    assert (step.outcome, "\n" in step.message) == ("failed", False)
    assert f"chunk ({bad // 2}, {bad % 2}) of the source cannot be read" in step.message
    assert ".." not in step.message
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_shape_that_no_disk_holds_is_refused_at_once(tmp_path, model):
    says = {"zarr_format": 2, "shape": [10**9, 10**9], "chunks": [1000, 1000], "dtype": "|u1", "compressor": None}
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(says | {"fill_value": 0, "order": "C", "filters": None}))
    with pytest.raises(ValueError, match=r"`target` needs room for 4e\+09 GB before compression, got"):
        plan(tmp_path / "a.zarr", 2, tmp_path / "b.ome.zarr", model=model)


def test_what_is_not_kept_is_said_when_the_work_begins(tmp_path, rng, model):
    tags = [(315, 2, 3, "Me", True)]
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 255, (9, 16), np.uint8), extratags=tags, metadata=None)
    work = plan(tmp_path / "a.tif", 2, tmp_path / "b.ome.zarr", model=model)
    with pytest.warns(UserWarning, match="^not kept: the text Author$"):
        list(stream(work, model=model))
