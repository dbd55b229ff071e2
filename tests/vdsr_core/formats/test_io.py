import errno
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vdsr_core.formats import io as vdsr_io
from vdsr_core.formats import tiff_write as tiff
from vdsr_core.formats.image_file import unify_unit
from vdsr_core.formats.io import ImageFile, check_writable, image_names, read_image, write_image

FEW = settings(max_examples=25, deadline=None, derandomize=True)
ICC = b"\0\0\1\0test" + b"\0" * 8 + b"RGB XYZ " + b"\0" * 104  # a header is all that is looked at


def pixels(shape, dtype, seed=0):
    """Random pixels over the range of the dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return np.random.default_rng(seed).normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def squeezed(data, axes):
    """Drop axes of length 1 other than Y and X: OME and ImageJ cannot tell them from none."""
    kept = [i for i, letter in enumerate(axes) if letter in "YX" or data.shape[i] > 1]
    return np.asarray(data).reshape([data.shape[i] for i in kept]), "".join(axes[i] for i in kept)


def assert_same_pixels(read, data, axes):
    read_data, read_axes = squeezed(np.asarray(read.data[...]), read.axes)
    data, axes = squeezed(data, axes)
    assert read_axes == axes
    assert read_data.dtype == data.dtype
    np.testing.assert_array_equal(read_data, data)


# ------------------------------------------------------------------------------------------- round trips

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]
HOLDS = {
    ".png": (["uint8", "uint16"], ["YX", "YXS", "SYX"]),
    ".ome.tif": (
        [*INTEGERS, "float32", "float64"],
        ["YX", "YXS", "SYX", "CYX", "TZCYX", "ZTCYX", "TCZYXS", "YXC"],
    ),
    ".tif": (
        [*INTEGERS, "uint64", "int64", "float16", "float32", "float64"],
        ["YX", "YXS", "SYX", "ZYX", "CYX", "CZYX", "TZCYX", "TZCYXS", "IYX", "QQYX", "YXC"],
    ),
    ".zarr": (
        [*INTEGERS, "uint64", "int64", "float16", "float32", "float64"],
        ["YX", "YXS", "SYX", "CZYX", "TZCYX", "QYX", "YXC"],
    ),
}


@st.composite
def written_images(draw):
    suffix = draw(st.sampled_from(sorted(HOLDS)))
    dtypes, every_axes = HOLDS[suffix]
    axes = draw(st.sampled_from(every_axes))
    lengths = {"Y": st.integers(1, 40), "X": st.integers(1, 40), "S": st.sampled_from([3, 4])}
    shape = tuple(draw(lengths.get(letter, st.integers(1, 3))) for letter in axes)
    return suffix, axes, pixels(shape, draw(st.sampled_from(dtypes)), draw(st.integers(0, 9)))


@settings(FEW, max_examples=80)
@given(written_images(), st.sampled_from([None, "µm", "inch", "parsec"]))
def test_what_is_read_is_what_was_written(written, unit):
    suffix, axes, data = written
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image" + suffix)
        write_image(path, ImageFile(data, axes, unit and (0.25, 0.5), unit))
        if axes == "SYX" and suffix == ".png":
            data, axes = np.moveaxis(data, 0, -1), "YXS"
        elif "tif" in suffix and axes == "YXC":
            data, axes = np.moveaxis(data, -1, 0), "CYX"  # pages end with rows and columns
        assert_same_pixels(read_image(path), data, axes)


@FEW
@given(
    st.sampled_from([".ome.tif", ".tif", ".zarr"]),
    st.sampled_from(["uint8", "uint16", "float32", "int16"]),
    st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)),
    st.sampled_from(["µm", "nm", "mm", "inch", "Å"]),
    st.lists(st.text("aZ09 -_µ<&>\"'é漢", min_size=1).map(lambda s: s + "."), min_size=2, max_size=2),
    st.floats(1e-3, 1e3),
)
def test_metadata_survive_a_round_trip(suffix, dtype, size, unit, names, step):
    extra = {"z_step": step, "time_step": 2 * step}
    data = pixels((2, 3, 2, 5, 4), dtype)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image" + suffix)
        write_image(path, ImageFile(data, "TZCYX", size, unit, tuple(names), extra=extra))
        image = read_image(path)
        assert_same_pixels(image, data, "TZCYX")
    assert image.pixel_size == pytest.approx(size, rel=1e-6)
    assert image.unit == unit
    assert image.channel_names == tuple(names)
    assert image.extra["z_step"] == pytest.approx(step)
    assert image.extra["time_step"] == pytest.approx(2 * step)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(suffix, dtype) for suffix in (".png", ".tif", ".ome.tif") for dtype in ("uint8", "uint16")] + [(".jpg", "uint8")],
)
def test_color_profile_resolution_and_exif_survive(tmp_path, suffix, dtype):
    exif = Image.Exif()
    exif[0x010E] = "cells"
    image = ImageFile(
        np.full((16, 16, 3), 7, dtype), "YXS", (1 / 300, 1 / 150), "inch", None, ICC, {"exif": exif.tobytes()}
    )
    lost = pytest.warns(UserWarning, match="^not kept: EXIF$") if "tif" in suffix else nullcontext()
    with lost:
        write_image(tmp_path / ("image" + suffix), image)
    again = read_image(tmp_path / ("image" + suffix))
    assert_same_pixels(again, image.data, "YXS")
    assert again.icc_profile == ICC
    assert again.pixel_size == pytest.approx((1 / 300, 1 / 150), rel=1e-3)
    assert again.unit == "inch"
    if "tif" not in suffix:
        assert again.extra["exif"] == exif.tobytes()


def test_jpeg_is_close_and_not_subsampled(tmp_path):
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    data = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1, None]), -1)
    write_image(tmp_path / "image.jpg", ImageFile(data, "YXS"))
    assert np.abs(read_image(tmp_path / "image.jpg").data.astype(int) - data).max() <= 6
    with Image.open(tmp_path / "image.jpg") as picture:
        assert {layer[1:3] for layer in picture.layer} == {(1, 1)}


def test_upscaled_image_keeps_its_metadata_but_the_pixel_size(tmp_path):
    source = ImageFile(pixels((2, 8, 9), "uint16"), "CYX", (0.2, 0.3), "µm", ("DAPI", "GFP"), extra={"z_step": 2.0})
    data = source.data.repeat(2, 1).repeat(3, 2)
    write_image(tmp_path / "image.ome.tif", source.with_data(data, (2, 3)))
    image = read_image(tmp_path / "image.ome.tif")
    assert_same_pixels(image, data, "CYX")
    assert image.pixel_size == pytest.approx((0.1, 0.1))
    assert (image.unit, image.channel_names, image.extra) == ("µm", ("DAPI", "GFP"), {"z_step": 2.0})


# ------------------------------------------------------------------------------------- what others write


def test_pictures_equal_what_pillow_reads(tmp_path):
    gray = pixels((7, 9), "uint8")
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        picture = Image.fromarray(pixels((7, 9, 4), "uint8")).convert("RGB" if mode in "1P" else "RGBA").convert(mode)
        picture.save(tmp_path / "image.png")
        image = read_image(tmp_path / "image.png")
        expected = np.asarray(picture.convert({"1": "L", "P": "RGB", "LA": "RGBA"}.get(mode, mode)))
        assert_same_pixels(image, expected, "YX" if expected.ndim == 2 else "YXS")
        assert image.rgb == (expected.ndim == 3)
    Image.fromarray(gray).save(tmp_path / "image.jpg")
    assert_same_pixels(read_image(tmp_path / "image.jpg"), np.asarray(Image.open(tmp_path / "image.jpg")), "YX")


def test_palette_with_a_transparent_colour_becomes_rgba(tmp_path):
    picture = Image.fromarray(pixels((7, 9, 3), "uint8")).quantize(8)
    picture.save(tmp_path / "image.png", transparency=3)
    image = read_image(tmp_path / "image.png")
    assert image.axes == "YXS"
    np.testing.assert_array_equal(image.data[..., 3] == 0, np.asarray(picture) == 3)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_16_bit_png_is_read_in_16_bits(tmp_path, samples):
    data = pixels((7, 9, samples), "uint16").squeeze()
    (tmp_path / "image.png").write_bytes(imagecodecs.png_encode(data))
    if samples == 2:
        data = data[..., [0, 0, 0, 1]]
    assert_same_pixels(read_image(tmp_path / "image.png"), data, "YX" if samples == 1 else "YXS")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_16_bit_png_is_what_other_decoders_read(tmp_path, shape):
    data = pixels(shape, "uint16")
    write_image(tmp_path / "image.png", ImageFile(data, "YXS"[: len(shape)], icc_profile=ICC))
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "image.png").read_bytes()), data)
    with Image.open(tmp_path / "image.png") as picture:
        assert picture.info["icc_profile"] == ICC
        if len(shape) == 2:
            np.testing.assert_array_equal(np.asarray(picture), data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_orientation_is_applied_and_reset(tmp_path, suffix, orientation):
    path = tmp_path / ("image" + suffix)
    data = np.kron(pixels((2, 3), "uint8"), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    if suffix == ".tif":
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, data, metadata=None, extratags=tags, resolution=(100, 200))
    else:
        Image.fromarray(data).save(path, exif=exif, dpi=(100, 200))
    image = read_image(path)
    with Image.open(path) if suffix != ".tif" else Image.fromarray(data) as picture:
        picture.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(image.data, np.asarray(ImageOps.exif_transpose(picture)))
    per_inch = (100, 200) if orientation > 4 else (200, 100)
    assert image.pixel_size == pytest.approx(tuple(1 / n for n in per_inch), rel=1e-3)
    if suffix != ".tif":
        carried = Image.Exif()
        carried.load(image.extra["exif"])
        assert dict(carried) == {0x010F: "a camera"}


def test_exif_loses_the_old_size_and_thumbnail(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x011A] = 72.0
    exif.get_ifd(0x8769).update({0xA002: 16, 0xA003: 16, 0x829A: 0.5})
    Image.fromarray(pixels((16, 16), "uint8")).save(tmp_path / "image.jpg", exif=exif)
    carried = Image.Exif()
    carried.load(read_image(tmp_path / "image.jpg").extra["exif"])
    assert carried[0x010F] == "a camera"
    assert 0x011A not in carried
    assert dict(carried.get_ifd(0x8769)) == {0x829A: 0.5}


def test_damaged_exif_is_left_out_with_a_warning(tmp_path):
    Image.fromarray(pixels((8, 8), "uint8")).save(tmp_path / "image.jpg", exif=b"Exif\0\0II*\0")
    with pytest.warns(UserWarning, match="The EXIF is damaged and left out"):
        image = read_image(tmp_path / "image.jpg")
    assert image.extra == {}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"compression": "lzw", "predictor": True}, {"tile": (16, 16)}]
)
def test_tiff_of_other_writers(tmp_path, byteorder, options):
    data = pixels((3, 33, 20), "uint16")
    tifffile.imwrite(
        tmp_path / "image.tif", data, byteorder=byteorder, metadata=None, photometric="minisblack", **options
    )
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "IYX")  # three gray pages are three pages, not RGB
    assert image.data.dtype.isnative
    assert (image.rgb, image.channel_axis, image.pixel_size) == (False, None, None)


def test_tiff_of_pillow(tmp_path):
    data = pixels((12, 9, 3), "uint8")
    Image.fromarray(data).save(tmp_path / "image.tif", compression="tiff_lzw", dpi=(300, 300))
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "YXS")
    assert (image.pixel_size, image.unit) == (pytest.approx((1 / 300, 1 / 300)), "inch")


def test_planar_rgb_keeps_its_order(tmp_path):
    data = pixels((3, 8, 9), "uint8")
    tifffile.imwrite(tmp_path / "image.tif", data, photometric="rgb", planarconfig="separate", metadata=None)
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "SYX")
    assert (image.rgb, image.channel_axis) == (True, 0)


def test_gray_samples_are_channels_and_not_colours(tmp_path):
    data = pixels((8, 9, 3), "uint8")
    tifffile.imwrite(tmp_path / "image.tif", data, photometric="minisblack", planarconfig="contig", metadata=None)
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "YXC")
    assert (image.rgb, image.channel_axis) == (False, 2)


def test_gray_with_alpha_becomes_rgba(tmp_path):
    data = pixels((8, 9, 2), "uint16")
    tifffile.imwrite(
        tmp_path / "image.tif",
        data,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    assert_same_pixels(read_image(tmp_path / "image.tif"), data[..., [0, 0, 0, 1]], "YXS")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "bool"])
def test_white_is_zero_is_inverted(tmp_path, dtype):
    data = pixels((8, 9), "uint8") > 99 if dtype == "bool" else pixels((8, 9), dtype)
    tifffile.imwrite(tmp_path / "image.tif", data, photometric="miniswhite")
    expected = np.where(data, 0, 255).astype(np.uint8) if dtype == "bool" else np.iinfo(dtype).max - data
    assert_same_pixels(read_image(tmp_path / "image.tif"), expected, "YX")


def test_one_bit_becomes_gray(tmp_path):
    data = pixels((8, 9), "uint8") > 99
    tifffile.imwrite(tmp_path / "image.tif", data, photometric="minisblack")
    assert_same_pixels(read_image(tmp_path / "image.tif"), np.where(data, 255, 0).astype(np.uint8), "YX")


def test_12_bit_intensities_stay(tmp_path):
    data = pixels((8, 16), "uint16") >> 4
    tifffile.imwrite(tmp_path / "image.tif", data, bitspersample=12)
    assert_same_pixels(read_image(tmp_path / "image.tif"), data, "YX")


@pytest.mark.parametrize("factor", [256, 257])
def test_palette_tiff_becomes_rgb(tmp_path, factor):
    indices, colors = pixels((8, 9), "uint8"), pixels((3, 256), "uint8", seed=1)
    tifffile.imwrite(tmp_path / "image.tif", indices, photometric="palette", colormap=colors.astype(np.uint16) * factor)
    assert_same_pixels(read_image(tmp_path / "image.tif"), colors.T[indices], "YXS")


def test_palette_of_16_bits_stays_16_bits(tmp_path):
    indices, colors = pixels((8, 9), "uint8"), pixels((3, 256), "uint16", seed=1)
    tifffile.imwrite(tmp_path / "image.tif", indices, photometric="palette", colormap=colors)
    assert_same_pixels(read_image(tmp_path / "image.tif"), colors.T[indices], "YXS")


def test_green_lut_leaves_the_intensities(tmp_path):
    """ImageJ saves an 8-bit image under a green LUT as a palette image; its values are intensities."""
    data = pixels((4, 8, 9), "uint8")
    green = np.arange(256, dtype=np.uint16) * np.array([[0], [257], [0]], np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", data, imagej=True, colormap=green, metadata={"axes": "ZYX"})
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "ZYX")
    assert image.extra["channel_colors"] == ((0, 255, 0),)


def test_imagej_metadata_are_read(tmp_path):
    data = pixels((3, 2, 8, 9), "uint16")
    luts = [np.zeros((3, 256), np.uint8), np.ones((3, 256), np.uint8)]
    tifffile.imwrite(
        tmp_path / "image.tif",
        data,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZCYX", "unit": "\\u00B5m", "spacing": 1.5, "finterval": 0.1, "mode": "composite"}
        | {"LUTs": luts, "Ranges": (1.0, 9.0, 2.0, 8.0), "Labels": ["a", "b"] * 3},
    )
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, "ZCYX")
    assert (image.pixel_size, image.unit, image.channel_names) == ((0.5, 0.25), "µm", ("a", "b"))
    assert (image.extra["z_step"], image.extra["time_step"]) == (1.5, 0.1)
    write_image(tmp_path / "again.tif", image)
    with tifffile.TiffFile(tmp_path / "again.tif") as tif:
        again = tif.imagej_metadata
    assert (again["unit"], again["spacing"], again["mode"]) == ("\\u00B5m", 1.5, "composite")
    assert again["Ranges"] == (1.0, 9.0, 2.0, 8.0)
    assert again["Labels"] == ["a", "b"] * 3
    np.testing.assert_array_equal(again["LUTs"], luts)


@pytest.mark.parametrize("unit", ["um", "micron", "µm", "\u03bcm", "\\u00B5m"])
def test_spellings_of_the_micrometre_are_one(unit):
    assert unify_unit(unit) == "µm"


def test_thumbnail_page_is_ignored(tmp_path):
    data = pixels((32, 40), "uint8")
    with tifffile.TiffWriter(tmp_path / "image.tif") as tif:
        tif.write(data, metadata=None)
        tif.write(data[::4, ::4].copy(), subfiletype=1, metadata=None)
    assert_same_pixels(read_image(tmp_path / "image.tif"), data, "YX")


def test_ome_xml_says_what_the_image_says(tmp_path):
    image = ImageFile(
        pixels((2, 3, 2, 5, 4), "uint16"),
        "TZCYX",
        (0.25, 0.5),
        "nm",
        ("DAPI", "<GFP>"),
        extra={"z_step": 3.0, "time_step": 60.0, "channel_colors": ((0, 0, 255), (255, 128, 0))},
    )
    write_image(tmp_path / "image.ome.tif", image)
    with tifffile.TiffFile(tmp_path / "image.ome.tif") as tif:
        assert tif.is_ome
        root = ElementTree.fromstring(tif.ome_metadata)
    says = root.find("{*}Image/{*}Pixels")
    expected = {
        "PhysicalSizeY": "0.25",
        "PhysicalSizeX": "0.5",
        "PhysicalSizeZ": "3.0",
        "TimeIncrement": "60.0",
    }
    expected |= {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "nm"}
    expected |= {"SizeT": "2", "SizeZ": "3", "SizeC": "2", "SizeY": "5", "SizeX": "4", "Type": "uint16"}
    assert expected.items() <= says.attrib.items()
    assert [channel.get("Name") for channel in says.findall("{*}Channel")] == ["DAPI", "<GFP>"]
    assert read_image(tmp_path / "image.ome.tif").extra == image.extra


def test_ome_sizes_in_different_units_become_one(tmp_path):
    tifffile.imwrite(
        tmp_path / "image.ome.tif",
        pixels((2, 5, 4), "uint16"),
        photometric="minisblack",
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}
        | {"PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm", "TimeIncrement": 2, "TimeIncrementUnit": "min"},
    )
    image = read_image(tmp_path / "image.ome.tif")
    assert (image.pixel_size, image.unit) == (pytest.approx((0.25, 0.5)), "µm")
    assert image.extra == {"z_step": pytest.approx(2), "time_step": 120}


# --------------------------------------------------------------------------------------- how TIFF is written


def test_imagej_stack_is_one_piece(tmp_path):
    """ImageJ's own reader wants the planes of a stack uncompressed and one after the other."""
    data = pixels((2, 3, 70, 80), "uint16")
    write_image(tmp_path / "image.tif", ImageFile(data, "ZCYX", (0.1, 0.1), "µm"))
    with tifffile.TiffFile(tmp_path / "image.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].dataoffset is not None
    np.testing.assert_array_equal(tifffile.memmap(tmp_path / "image.tif", mode="r"), data)


@pytest.mark.parametrize(
    ("axes", "dtype", "unit", "kind"),
    [
        ("YX", "uint16", None, "shaped"),
        ("YXS", "uint8", "inch", "shaped"),
        ("YX", "uint16", "µm", "imagej"),
        ("YXS", "uint8", "µm", "imagej"),
        ("ZYX", "float32", None, "imagej"),
        ("YXS", "uint16", "µm", "ome"),
        ("ZYX", "int16", None, "ome"),
        ("CZYX", "uint8", None, "ome"),
        ("IYX", "uint8", None, "shaped"),
        ("ZYX", "float16", "µm", "shaped"),
    ],
)
def test_flavour_of_tiff_is_the_first_that_fits(tmp_path, axes, dtype, unit, kind):
    data = pixels(tuple({"S": 3}.get(letter, 5) for letter in axes), dtype)
    write_image(tmp_path / "image.tif", ImageFile(data, axes, (2.0, 2.0), unit))
    with tifffile.TiffFile(tmp_path / "image.tif") as tif:
        assert tif.series[0].kind == kind
        assert tif.pages[0].predictor in (1, 2)
    image = read_image(tmp_path / "image.tif")
    assert_same_pixels(image, data, axes)
    cm = {"µm": 1e-4}.get(unit) if kind == "shaped" else None
    assert image.pixel_size == (pytest.approx((2.0 * (cm or 1), 2.0 * (cm or 1))))
    assert image.unit == ("cm" if cm else unit)


def test_large_planes_are_tiled_and_deflated(tmp_path):
    data = np.zeros((2100, 2048), np.uint16)
    data[100:900, 200:1700] = 7
    write_image(tmp_path / "image.ome.tif", ImageFile(data, "YX"))
    with tifffile.TiffFile(tmp_path / "image.ome.tif") as tif:
        page = tif.pages[0]
        assert (page.tile, page.compression, page.predictor) == ((256, 256), 8, 2)
    assert os.path.getsize(tmp_path / "image.ome.tif") < data.nbytes / 50
    with Image.open(tmp_path / "image.ome.tif") as picture:  # libtiff
        np.testing.assert_array_equal(np.asarray(picture), data)
    assert_same_pixels(read_image(tmp_path / "image.ome.tif"), data, "YX")


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_bigtiff_beyond_32_bit_offsets(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", 1000)
    data = pixels((2, 30, 40), "uint16")
    write_image(tmp_path / ("image" + suffix), ImageFile(data, "ZYX", (1, 1), "µm"))
    with tifffile.TiffFile(tmp_path / ("image" + suffix)) as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
    assert_same_pixels(read_image(tmp_path / ("image" + suffix)), data, "ZYX")


# --------------------------------------------------------------------------------------------- bad input


def written_bytes(suffix):
    """A small file of each flavour, as bytes, and its pixels."""
    options = {
        ".png": ("uint8", "YX", None),
        ".16.png": ("uint16", "YXS", None),
        ".jpg": ("uint8", "YX", None),
        ".tif": ("uint16", "YX", None),
        ".imagej.tif": ("uint16", "ZYX", "µm"),
        ".ome.tif": ("uint16", "CZYX", "µm"),
    }
    dtype, axes, unit = options[suffix]
    data = pixels(tuple({"S": 3, "Y": 20, "X": 20}.get(letter, 2) for letter in axes), dtype)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image" + suffix)
        write_image(path, ImageFile(data, axes, unit and (1.0, 1.0), unit))
        return path.read_bytes(), read_image(path).data


def plain_stack():
    """A multi-page TIFF without any description, whose list of pages simply ends when it is cut."""
    data, stream = pixels((3, 20, 20), "uint8"), io.BytesIO()
    with tifffile.TiffWriter(stream) as tif:
        for plane in data:
            tif.write(plane, metadata=None, contiguous=False)
    return stream.getvalue(), data


def result_or_error(function, *args):
    try:
        return function(*args)
    except ValueError as error:
        return error


CUT = {suffix: written_bytes(suffix) for suffix in [".png", ".16.png", ".jpg", ".tif", ".imagej.tif", ".ome.tif"]}
CUT[".plain.tif"] = plain_stack()


@pytest.mark.parametrize("suffix", sorted(CUT))
@settings(FEW, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_file_is_refused_or_whole(suffix, share):
    content, data = CUT[suffix]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image" + suffix)
        path.write_bytes(content[: int(share * len(content))])
        image = result_or_error(read_image, path)
        if isinstance(image, ValueError):
            assert str(image).startswith(f"{path} is not a readable ")
            assert "\n" not in str(image)
        else:  # nothing but what follows the pixels was cut
            np.testing.assert_array_equal(image.data, data)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".png", ".jpg"])
@pytest.mark.parametrize(
    "content", [b"", b"index,area\n1,20\n", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_refused(tmp_path, suffix, content):
    (tmp_path / f"image{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=r"image.* is not a readable (TIFF|PNG|JPEG): .*\. .*[.?]$"):
        read_image(tmp_path / f"image{suffix}")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.tif does not exist"):
        read_image(tmp_path / "none.tif")


@pytest.mark.parametrize("name", ["image.gif", "image.nd2", "image"])
def test_unknown_suffix_is_named_with_the_known(tmp_path, name):
    (tmp_path / name).write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"must end in one of \.tif, .*\.webp, \.zarr, got"):
        read_image(tmp_path / name)
    with pytest.raises(ValueError, match="must end in one of"):
        check_writable(tmp_path / name, (4, 4), "uint8", "YX")


def test_unreadable_file_keeps_its_error(tmp_path, monkeypatch):
    write_image(tmp_path / "image.tif", ImageFile(pixels((4, 4), "uint8"), "YX"))

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(PermissionError):
        read_image(tmp_path / "image.tif")


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_png_that_claims_more_than_it_can_hold_is_refused_at_once(tmp_path, depth):
    header = struct.pack(">IIBBBBB", 60000, 60000, depth, 0, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 99999)) + png_chunk(b"IEND", b"")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body)
    with pytest.raises(ValueError, match="60000 x 60000 pixels, more than it can hold"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize("compression", [None, "adobe_deflate"])
def test_tiff_that_claims_more_than_it_can_hold_is_refused_at_once(tmp_path, compression):
    tifffile.imwrite(tmp_path / "image.tif", pixels((16, 16), "uint8"), compression=compression, metadata=None)
    with tifffile.TiffFile(tmp_path / "image.tif", mode="r+b") as tif:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages[0].tags[tag].overwrite(2**31 if tag == "ImageWidth" else 2**30)
    with pytest.raises(ValueError, match=r"page 0 of 1 is missing or incomplete|GB free|it ends before"):
        read_image(tmp_path / "image.tif")


@pytest.mark.parametrize("suffix", [".png", ".16.png", ".jpg", ".tif", ".ome.tif"])
def test_image_larger_than_the_memory_is_refused(tmp_path, suffix, monkeypatch):
    (tmp_path / ("image" + suffix)).write_bytes(CUT[suffix][0])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100}))
    with pytest.raises(ValueError, match=r"must fit in memory, got .* with 1e-07 GB free"):
        read_image(tmp_path / ("image" + suffix))


def test_animated_png_is_refused(tmp_path):
    frames = [Image.fromarray(pixels((8, 8), "uint8", seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "image.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="animation of 2 frames"):
        read_image(tmp_path / "image.png")


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "image.jpg")
    with pytest.raises(ValueError, match=r"its colours are CMYK. Convert it to RGB"):
        read_image(tmp_path / "image.jpg")
    tifffile.imwrite(tmp_path / "image.tif", pixels((8, 8, 4), "uint8"), photometric="separated")
    with pytest.raises(ValueError, match=r"its colours are SEPARATED. Convert it to gray or RGB"):
        read_image(tmp_path / "image.tif")


def test_complex_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", np.ones((4, 4), np.complex64))
    with pytest.raises(ValueError, match="its pixels are complex64"):
        read_image(tmp_path / "image.tif")


def test_several_images_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "image.tif") as tif:
        tif.write(pixels((8, 8), "uint8"), metadata=None)
        tif.write(pixels((9, 8), "uint8"), metadata=None)
    with pytest.raises(ValueError, match=r"it holds 2 images: .*\. Give the `name` of one"):
        read_image(tmp_path / "image.tif")


def test_list_of_pages_that_leads_beyond_the_file_is_refused(tmp_path):
    """The pages before are whole; tifffile would read these and no more."""
    content, _ = plain_stack()
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        end = tif.pages[2].offset
    (tmp_path / "image.tif").write_bytes(content[:end])
    with pytest.raises(ValueError, match="its list of pages breaks off after 2"):
        read_image(tmp_path / "image.tif")


def test_cut_stack_with_one_page_of_tags_is_refused(tmp_path):
    """ImageJ writes the tags of the first plane only; tifffile would read that plane and no more."""
    path, data = tmp_path / "image.tif", pixels((3, 20, 20), "uint16")
    tifffile.imwrite(path, data, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    assert_same_pixels(read_image(path), data, "ZYX")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="its pages are not those that its description promises"):
        read_image(path)


def test_strip_that_was_never_written_is_refused(tmp_path):
    """A writer that is interrupted leaves byte counts of zero; tifffile would fill such strips with zeros."""
    tifffile.imwrite(tmp_path / "image.tif", pixels((32, 16), "uint8"), rowsperstrip=16, compression="zlib")
    with tifffile.TiffFile(tmp_path / "image.tif", mode="r+b") as tif:
        tif.pages[0].tags["StripByteCounts"].overwrite((tif.pages[0].databytecounts[0], 0))
    with pytest.raises(ValueError, match="page 0 of 1 is missing or incomplete"):
        read_image(tmp_path / "image.tif")


def test_part_of_a_multi_file_ome_tiff_is_refused(tmp_path):
    """tifffile would read the planes of the files that are missing as zeros."""
    tifffile.imwrite(tmp_path / "image.ome.tif", pixels((2, 8, 8), "uint8"), metadata={"axes": "ZYX"}, photometric=1)
    with tifffile.TiffFile(tmp_path / "image.ome.tif", mode="r+b") as tif:
        there = '<TiffData IFD="0" FirstZ="0" PlaneCount="1"/>'
        missing = '<TiffData FirstZ="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData>'
        xml = tif.ome_metadata.replace('<TiffData IFD="0" PlaneCount="2"/>', there + missing)
        tif.pages[0].tags["ImageDescription"].overwrite(xml)
    with pytest.raises(ValueError, match=r"an image in several files, and b\.ome\.tif is missing"):
        read_image(tmp_path / "image.ome.tif")


# -------------------------------------------------------------------------------------------------- zarr


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_is_read_lazily(tmp_path, version):
    data = pixels((3, 20, 30), "uint16")
    array = zarr.create_array(
        tmp_path / "image.zarr", shape=data.shape, dtype=data.dtype, chunks=(1, 8, 8), zarr_format=version
    )
    array[...] = data
    image = read_image(tmp_path / "image.zarr")
    assert isinstance(image.data, zarr.Array)
    assert image.axes == "QYX"
    np.testing.assert_array_equal(image.data[1, 4:9], data[1, 4:9])
    assert not image.rgb


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["t", "c", "y", "x"], "TCYX"),
        (["time", "plane", "row", "column"], "TZYX"),
        (["y", "x", "c", None], None),
        (["angle", None, "y", "x"], "QQYX"),
        (["z", "y", "x", "s"], "ZYXS"),
        (["run", "beam", "latitude", "longitude"], "QQYX"),
        ([None, None, None, None], "QQYX"),
    ],
)
def test_zarr_dimension_names_are_the_axes(tmp_path, names, axes):
    zarr.create_array(tmp_path / "image.zarr", shape=(2, 4, 5, 3), dtype="uint8", dimension_names=names)
    assert read_image(tmp_path / "image.zarr").axes == (axes or "YXCQ")


def test_zarr_keeps_channel_names_and_sizes_for_others(tmp_path):
    data = pixels((2, 600, 700), "uint16")
    image = ImageFile(data, "CYX", (0.1, 0.2), "µm", ("a", "b"), extra={"channel_colors": ((0, 0, 9), (8, 0, 0))})
    write_image(tmp_path / "image.zarr", image)
    array = zarr.open_array(tmp_path / "image.zarr", mode="r")
    np.testing.assert_array_equal(array[...], data)
    assert (array.metadata.zarr_format, array.chunks) == (3, (1, 512, 512))
    assert array.metadata.dimension_names == ("c", "y", "x")
    assert array.attrs["vdsr_core"]["pixel_size"] == [0.1, 0.2]
    again = read_image(tmp_path / "image.zarr")
    assert (again.pixel_size, again.unit, again.channel_names) == ((0.1, 0.2), "µm", ("a", "b"))
    assert again.extra == image.extra
    write_image(tmp_path / "image.tif", again)  # from zarr to another format
    assert_same_pixels(read_image(tmp_path / "image.tif"), data, "CYX")


def test_lazy_image_larger_than_memory_goes_to_zarr_only(tmp_path, monkeypatch):
    write_image(tmp_path / "image.zarr", ImageFile(pixels((20, 30), "uint16"), "YX"))
    image = read_image(tmp_path / "image.zarr")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100}))
    with pytest.raises(MemoryError, match=r"GB free\. If that size is right, use zarr"):
        write_image(tmp_path / "image.tif", image)
    write_image(tmp_path / "again.zarr", image)
    assert_same_pixels(read_image(tmp_path / "again.zarr"), image.data[...], "YX")
    assert sorted(os.listdir(tmp_path)) == ["again.zarr", "image.zarr"]


def test_zarr_group_names_an_array_inside(tmp_path):
    zarr.create_group(tmp_path / "image.zarr").create_array("0", shape=(4, 5), dtype="uint8")
    with pytest.raises(
        ValueError,
        match=r"it is a group without multiscales. Give the path of an array in it, such as .*image.zarr.0\.$",
    ):
        read_image(tmp_path / "image.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_array_of_an_ome_zarr_has_the_metadata_of_its_group(tmp_path, version):
    axes = [{"name": "t", "type": "time", "unit": "minute"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    levels = [
        {
            "path": str(i),
            "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 0.5 * 2**i, 0.25 * 2**i]}],
        }
        for i in range(2)
    ]
    overall = [{"type": "scale", "scale": [3, 1, 1, 1, 1]}]
    says = {"multiscales": [{"axes": axes, "datasets": levels, "coordinateTransformations": overall}]}
    says["omero"] = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    group = zarr.create_group(
        tmp_path / "image.zarr",
        zarr_format=version,
        attributes=says if version == 2 else {"ome": {"version": "0.5", **says}},
    )
    group.create_array("1", shape=(2, 2, 3, 4, 5), dtype="uint16")
    image = read_image(tmp_path / "image.zarr" / "1")
    assert (image.axes, image.pixel_size, image.unit) == ("TCZYX", (1.0, 0.5), "µm")
    assert image.channel_names == ("DAPI", "GFP")
    assert image.extra == {"z_step": 2, "time_step": 180}


def test_folder_that_is_no_zarr_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a readable zarr"):
        read_image(tmp_path)


# ------------------------------------------------------------------------------------- files of several images


def test_images_of_an_ome_tiff_have_names_and_metadata(tmp_path):
    path = tmp_path / "image.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for number, name in enumerate(("left", "right")):
            says = {"axes": "YX", "Name": name, "PhysicalSizeX": number + 1.0, "PhysicalSizeY": 0.5}
            tiff.write(np.full((8 + number, 8), number, np.uint8), metadata=says)
    assert image_names(path) == ["left", "right"]
    for number, name in enumerate(("left", "right")):
        image = read_image(path, name=name, lazy=bool(number))
        np.testing.assert_array_equal(image.data, np.full((8 + number, 8), number))
        assert image.pixel_size == (0.5, number + 1.0)
    with pytest.raises(ValueError, match="it holds no image middle, but left, right"):
        read_image(path, name="middle")


def test_images_without_names_of_their_own_are_numbered(tmp_path):
    with tifffile.TiffWriter(tmp_path / "image.tif") as tiff:
        for rows in (8, 9):
            tiff.write(np.zeros((rows, 8), np.uint8), metadata=None)
    names = image_names(tmp_path / "image.tif")
    assert len(set(names)) == 2
    assert [read_image(tmp_path / "image.tif", name=name).data.shape for name in names] == [(8, 8), (9, 8)]


def test_one_image_has_no_name(tmp_path):
    for name in ("image.tif", "image.png", "image.zarr"):
        write_image(tmp_path / name, ImageFile(np.zeros((4, 4), np.uint8), "YX"))
        assert image_names(tmp_path / name) == [""]
    with pytest.raises(ValueError, match="Only a TIFF has names"):
        read_image(tmp_path / "image.png", name="left")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "a group without multiscales and without arrays. Give the path of an image"),
        ({"multiscales": []}, "a group without multiscales"),
        ({"bioformats2raw.layout": 3}, r"it holds 1 images. Give the path of one, such as .*0\."),
    ],
)
def test_group_that_is_no_image_is_explained(tmp_path, attributes, message):
    zarr.create_group(tmp_path / "group.zarr", attributes=attributes)
    if attributes.get("bioformats2raw.layout"):
        zarr.create_group(tmp_path / "group.zarr" / "0")
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / "group.zarr")


# --------------------------------------------------------------------------------------- what is not written


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "axes", "message"),
    [
        ("a.png", "float32", (4, 4), "YX", "must hold uint8 or uint16, got float32. Use .tif or .zarr"),
        ("a.png", "int16", (4, 4), "YX", "must hold uint8 or uint16, got int16. Use .tif or .zarr"),
        ("a.png", "uint8", (2, 3, 2, 4, 4), "TZCYX", "got TZCYX. Use .tif or .zarr"),
        ("a.jpg", "uint16", (4, 4), "YX", "must hold uint8, got uint16. Use .png or .tif"),
        ("a.jpeg", "float32", (4, 4), "YX", "must hold uint8, got float32. Use .zarr or .tif"),
        ("a.jpg", "uint8", (4, 4, 4), "YXS", "got RGBA. Use .png or .tif, or drop the alpha channel"),
        ("a.jpg", "uint8", (4, 65501), "YX", "sides up to 65500 pixels"),
        ("a.ome.tif", "float16", (4, 4), "YX", "got YX float16. Use .tif or .zarr"),
        ("a.ome.tif", "uint8", (2, 4, 4), "IYX", "got IYX uint8. Use .tif or .zarr"),
        ("a.ome.zarr", "uint8", (4, 4), "YX", "Use .zarr"),
        ("a.tif", "complex64", (4, 4), "YX", "must hold integers or floats, got complex64"),
        ("a.tif", "bool", (4, 4), "YX", "must hold integers or floats, got bool"),
        ("a.tif", "uint8", (0, 4), "YX", "at least one pixel"),
        ("a.tif", "uint8", (4, 4), "YXS", "`axes` must name every axis"),
        ("a.tif", "uint8", (4, 4), "CY", "`axes` must name every axis"),
        ("a.tif", "uint8", (4, 4, 4, 4), "CCYX", "at most once"),
        ("a.tif", "uint8", (4, 4, 2), "YXS", "`axes` must use S for 3 or 4"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_one_that_can(tmp_path, name, dtype, shape, axes, message):
    with pytest.raises(ValueError, match=message):
        check_writable(tmp_path / name, shape, dtype, axes)


@FEW
@given(written_images(), st.sampled_from([".png", ".jpg", ".tif", ".ome.tif"]))
def test_check_writable_foresees_what_write_image_does(written, suffix):
    _, axes, data = written
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image" + suffix)
        error = result_or_error(check_writable, path, data.shape, data.dtype, axes)
        assert str(result_or_error(write_image, path, ImageFile(data, axes))) == str(error)
        assert path.exists() == (error is None)


def test_existing_file_is_kept_unless_asked(tmp_path):
    image = ImageFile(pixels((4, 4), "uint8"), "YX")
    (tmp_path / "image.tif").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"image.tif exists. Choose another name, or ask to overwrite"):
        write_image(tmp_path / "image.tif", image)
    assert (tmp_path / "image.tif").read_bytes() == b"old"
    write_image(tmp_path / "image.tif", image, overwrite=True)
    assert_same_pixels(read_image(tmp_path / "image.tif"), image.data, "YX")


def test_zarr_replaces_a_zarr_but_no_other_folder(tmp_path):
    for seed in (0, 1):
        image = ImageFile(pixels((4, 4), "uint8", seed), "YX")
        write_image(tmp_path / "image.zarr", image, overwrite=True)
    assert_same_pixels(read_image(tmp_path / "image.zarr"), image.data, "YX")
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis.zarr exists and is not a zarr"):
        write_image(tmp_path / "thesis.zarr", image, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["image.zarr", "thesis.zarr"]
    assert os.listdir(tmp_path / "thesis.zarr") == ["chapter.txt"]


def test_missing_or_read_only_folder_is_named(tmp_path, monkeypatch):
    image = ImageFile(pixels((4, 4), "uint8"), "YX")
    with pytest.raises(FileNotFoundError, match=r"the folder .*none does not exist"):
        write_image(tmp_path / "none" / "image.tif", image)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match=r"cannot be written to. Choose another place"):
        write_image(tmp_path / "image.tif", image)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("suffix", [".png", ".16.png", ".jpg", ".tif", ".zarr"])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, suffix, error, monkeypatch):
    path, image = tmp_path / ("image" + suffix), ImageFile(pixels((9, 9), "uint8"), "YX")
    if suffix == ".16.png":
        image = ImageFile(pixels((9, 9), "uint16"), "YX")
    write_image(path, image)
    real = {".zarr": vdsr_io.write_zarr, ".tif": vdsr_io.write_tiff, ".jpg": vdsr_io.write_jpeg}
    writer = real.get(suffix, vdsr_io.write_png)

    def fail(partial, *args, **kwargs):
        writer(partial, *args, **kwargs)
        raise error

    monkeypatch.setattr(vdsr_io, writer.__name__, fail)
    with pytest.raises(type(error)):
        write_image(path, ImageFile(255 - image.data, "YX"), overwrite=True)
    assert os.listdir(tmp_path) == [path.name]
    assert_same_pixels(read_image(path), image.data, "YX") if suffix != ".jpg" else read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".16.png", ".jpg", ".tif", ".ome.tif"])
def test_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path, dtype = tmp_path / ("image" + suffix), "uint8" if suffix in (".png", ".jpg") else "uint16"
    write_image(path, ImageFile(np.zeros((9, 9), dtype), "YX"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large|requested"):
            write_image(path, ImageFile(pixels((99, 99), dtype), "YX"), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [path.name]
    np.testing.assert_array_equal(read_image(path).data, 0)


# ------------------------------------------------------------------------------------------------ ImageFile


@pytest.mark.parametrize(("axes", "rgb", "channel_axis"), [("YX", False, None), ("CYX", False, 0), ("SYX", True, 0)])
def test_channel_axis_is_that_of_samples_or_channels(axes, rgb, channel_axis):
    image = ImageFile(np.zeros((3, 4, 5)[-len(axes) :], np.uint8), axes)
    assert (image.rgb, image.channel_axis) == (rgb, channel_axis)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixel_size": (0, 1)}, "`pixel_size` must be positive"),
        ({"pixel_size": (1, np.inf)}, "`pixel_size` must be positive"),
        ({"channel_names": ("a",)}, "`channel_names` must hold 3 names"),
    ],
)
def test_image_file_refuses_impossible_metadata(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageFile(np.zeros((3, 4, 5)), "CYX", **fields)


@pytest.mark.parametrize("shape", [(2, 8, 10), (8, 10)])
def test_with_data_refuses_other_channels(shape):
    with pytest.raises(ValueError, match=r"`data` must have length 3 along C, got 2|`axes` must name"):
        ImageFile(np.zeros((3, 4, 5)), "CYX").with_data(np.zeros(shape), (2, 2))


def test_import_is_light():
    """Readers are imported when they are needed."""
    code = "import json, sys, vdsr_core.formats.io; print(json.dumps(list(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(vdsr_io.__file__).parents[2])}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert not {"torch", "dask", "zarr", "tifffile", "imagecodecs", "PIL"} & set(json.loads(found.stdout))


@pytest.mark.parametrize("path", [None, 5, b"a.png", []])
def test_a_path_that_is_none_is_named(path):
    image = ImageFile(np.zeros((4, 4), np.uint8), "YX")
    with pytest.raises(TypeError, match="`path` must be a str or a path, got"):
        read_image(path)
    with pytest.raises(TypeError, match="`path` must be a str or a path, got"):
        write_image(path, image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    writer = os.open(tmp_path / "a.tif", os.O_RDWR | os.O_NONBLOCK)  # without one, a reader waits for ever
    os.write(writer, b"II*")
    with pytest.raises(ValueError, match="it is a pipe or a device, not a file"):
        read_image(tmp_path / "a.tif")
    os.close(writer)
