"""What TIFFs of other writers mean, and what is carried over or named."""

import re
import struct
import uuid
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from vdsr_core import ImageFile, image_names, read_image, write_image, write_pyramid
from vdsr_core.formats.io import image_parts


def pixels(shape, dtype=np.uint8, top=None, seed=0):
    top = np.iinfo(dtype).max if top is None else top
    return np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)


def upscaled(image):
    """An image of twice the size, without effect on its pixels."""
    y, x = image.axes.index("Y"), image.axes.index("X")
    return image.with_data(np.asarray(image.data[...]).repeat(2, y).repeat(2, x), (2, 2))


def rewrite(path, target):
    """Read, upscale and write; the result, read, and what was said of losses."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_image(target, upscaled(read_image(path)))
    return read_image(target), [str(warning.message) for warning in caught]


# ------------------------------------------------------------------------------------- what samples mean


@pytest.mark.parametrize(
    ("bits", "byteorder"),  # tifffile swaps bytes when it packs more than 8 bits
    [
        (bits, order)
        for bits in (1, 2, 4, 6, 8, 10, 12, 16)
        for order in "<>"
        if bits in (1, 2, 4, 6, 8, 16) or order == "<"
    ],
)
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite", "rgb", "planar", "alpha"])
def test_white_stays_white_whatever_the_bits(tmp_path, kind, bits, byteorder):
    shape = {"rgb": (9, 16, 3), "planar": (3, 9, 16), "alpha": (9, 16, 2)}.get(kind, (9, 16))
    data = pixels(shape, np.uint8 if bits <= 8 else np.uint16, 2**bits - 1)
    options = {"planar": {"planarconfig": "separate"}, "rgb": {"planarconfig": "contig"}}.get(kind, {})
    options |= {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if kind == "alpha" else {}
    options |= {"photometric": {"planar": "rgb", "alpha": "miniswhite"}.get(kind, kind), "bitspersample": bits}
    tifffile.imwrite(tmp_path / "a.tif", data, metadata=None, byteorder=byteorder, **options)
    image = read_image(tmp_path / "a.tif")
    white = 2 ** image.extra["bits"] - 1 if "bits" in image.extra else np.iinfo(image.data.dtype).max
    share = (np.moveaxis(data, 0, -1) if image.axes == "YXS" and kind == "planar" else data) / (2**bits - 1)
    if kind == "miniswhite":
        share = 1 - share
    elif kind == "alpha":
        share = np.stack([1 - share[..., 0]] * 3 + [share[..., 1]], -1)  # alpha is not inverted
    np.testing.assert_allclose(image.data / white, share, atol=0.6 / white)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_gray_of_a_camera_keeps_its_intensities_and_its_bits(tmp_path, bits):
    data = pixels((9, 16), np.uint16, 2**bits - 1)
    tifffile.imwrite(tmp_path / "a.tif", data, bitspersample=bits, metadata=None)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, data)
    write_image(tmp_path / "b.tif", image.with_data(np.maximum(data, 2**bits)))  # beyond, as bicubic may
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert tiff.pages.first.bitspersample == bits
        np.testing.assert_array_equal(tiff.asarray(), 2**bits - 1)
    with pytest.warns(UserWarning, match="^not kept: the number of bits$"):
        write_image(tmp_path / "b.png", image)


def with_palette(path, indices, bits, table, pages=1):
    """A TIFF of indices into a table (3, 2**bits) of 16 bits."""
    tags = [(320, 3, table.size, np.asarray(table).ravel().tolist(), True)]
    tifffile.imwrite(path, indices, photometric="minisblack", bitspersample=bits, metadata=None, extratags=tags)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            page.aspage().tags[262].overwrite(3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits_are_colours(tmp_path, bits):
    indices, table = (
        pixels((9, 16), np.uint8, 2**bits - 1),
        pixels((3, 2**bits), np.uint8, seed=1).astype(np.uint16) * 257,
    )
    table[:, 0] = 65535, 257, 0  # no ramp from black
    with_palette(tmp_path / "a.tif", indices, bits, table)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, (table.T // 257)[indices])


def test_ramp_of_16_grays_is_seen_as_before(tmp_path):
    indices = pixels((9, 16), np.uint8, 15)
    with_palette(tmp_path / "a.tif", indices, 4, np.tile(np.arange(16, dtype=np.uint16) * 4369, (3, 1)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, indices * 17)


def test_each_page_has_its_own_palette(tmp_path):
    tables = [pixels((3, 256), np.uint16, seed=seed) for seed in (1, 2)]
    data = pixels((2, 9, 16))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane, table in zip(data, tables, strict=True):
            tiff.write(plane, photometric="palette", colormap=table, metadata=None, contiguous=False)
    expected = [table.T[plane] for plane, table in zip(data, tables, strict=True)]
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, expected)


def test_pages_of_channels_keep_intensities_and_the_colours_of_their_luts(tmp_path):
    data, ramp = pixels((2, 3, 9, 16)), np.arange(256, dtype=np.uint16) * 257
    xml = tifffile.OmeXml()
    xml.addimage(np.uint8, data.shape, (6, 1, 1, 9, 16, 1), axes="ZCYX")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=False) as tiff:
        for number, plane in enumerate(data.reshape(6, 9, 16)):
            lut = np.zeros((3, 256), np.uint16)
            lut[number % 3] = ramp
            text = xml.tostring() if number == 0 else None
            tiff.write(plane, photometric="palette", colormap=lut, description=text, metadata=None)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.axes == "ZCYX"
    np.testing.assert_array_equal(image.data, data)
    assert image.extra["channel_colors"] == ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("gray", [False, True])
def test_premultiplied_alpha_becomes_straight(tmp_path, dtype, gray):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    straight = np.random.default_rng(0).random((9, 16, 2 if gray else 4))
    straight[0, 0, -1] = 0
    data = straight.copy()
    data[..., :-1] *= straight[..., -1:]
    data = (np.rint(data * top) if top > 1 else data).astype(dtype)
    options = {"photometric": "minisblack" if gray else "rgb", "extrasamples": ["assocalpha"], "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", data, metadata=None, **options)
    image = read_image(tmp_path / "a.tif")
    seen = image.data[..., :3].astype(float) / top * image.data[..., 3:] / top
    np.testing.assert_allclose(seen, (data[..., [0] * 3] if gray else data[..., :3]) / top, atol=0.6 / 255)
    assert not image.data[0, 0, :3].any()
    write_image(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert [int(kind) for kind in tiff.pages.first.extrasamples] == [2]


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_fourth_sample_of_which_nothing_is_said_is_no_alpha(tmp_path, planar):
    data = pixels((9, 16, 4))
    data[..., 3] = 0  # an alpha would hide all
    stored = data if planar == "contig" else np.moveaxis(data, -1, 0)
    options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": ["unspecified"]}
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, **options)
    image = read_image(tmp_path / "a.tif")
    assert (image.rgb, image.data.shape[image.channel_axis]) == (False, 4)
    _, said = rewrite(tmp_path / "a.tif", tmp_path / "b.tif")
    assert said == []
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        page = tiff.pages.first
        assert (page.photometric, [int(kind) for kind in page.extrasamples]) == (2, [0])
        np.testing.assert_array_equal(page.asarray()[::2, ::2], data)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.tif").convert("RGB"))[::2, ::2], data[..., :3])


def test_palette_with_alpha_becomes_rgba(tmp_path):
    indices, alpha = pixels((9, 16)), pixels((9, 16), seed=2)
    table = pixels((3, 256), np.uint8, seed=1).astype(np.uint16) * 257
    tags = [(320, 3, table.size, table.ravel().tolist(), True)]
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([indices, alpha]), metadata=None, extratags=tags, **options)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[262].overwrite(3)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, np.concatenate([(table.T // 257)[indices], alpha[..., None]], -1))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_faxes_are_what_libtiff_reads(tmp_path, compression, photometric):
    frames = [Image.fromarray(pixels((40, 33), top=1, seed=seed) > 0) for seed in (0, 1)]
    tags = {262: photometric}
    frames[0].save(tmp_path / "a.tif", compression=compression, tiffinfo=tags, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.tif") as picture:
        expected = []
        for number in range(2):
            picture.seek(number)
            expected.append(np.asarray(picture) * np.uint8(255))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, expected)


@pytest.mark.parametrize(("tag", "value", "name"), [(262, 32803, "CFA"), (262, 32844, "LOGL"), (259, 34676, "SGILOG")])
def test_kind_that_is_not_read_is_named(tmp_path, tag, value, name):
    tifffile.imwrite(tmp_path / "a.tif", pixels((9, 16)), compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(value)
    with pytest.raises(ValueError, match=rf"its (colours are|compression is) {name}.* first\.$"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "jpeg"])
@pytest.mark.parametrize("lazy", [False, True])
def test_false_planar_configuration_is_named(tmp_path, compression, lazy):
    tifffile.imwrite(tmp_path / "a.tif", pixels((9, 16, 3)), photometric="rgb", compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[284].overwrite(129)
    with pytest.raises(ValueError, match="its planar configuration is 129, neither 1 nor 2"):
        read_image(tmp_path / "a.tif", lazy=lazy)


def test_sparse_tiles_are_background(tmp_path):
    data = pixels((64, 64), top=254) + np.uint8(1)
    tifffile.imwrite(tmp_path / "a.tif", data, tile=(32, 32), metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        for code in (324, 325):
            values = list(tiff.pages.first.tags[code].value)
            values[1] = 0
            tiff.pages.first.tags[code].overwrite(values)
    data[:32, 32:] = 0
    for lazy in (False, True):
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tif", lazy=lazy).data[...]), data)


# ---------------------------------------------------------------------------------- pages, files, promises


@pytest.mark.parametrize(("count", "to"), [(1, 0), (2, 1), (2, 0), (5, 2), (120, 119)])
def test_ring_of_pages_is_refused(tmp_path, count, to):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for _ in range(count):
            tiff.write(np.zeros((4, 4), np.uint8), contiguous=False, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offsets = [page.offset for page in tiff.pages]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (tags,) = struct.unpack_from("<H", content, offsets[-1])
    struct.pack_into("<I", content, offsets[-1] + 2 + 12 * tags, offsets[to])
    (tmp_path / "a.tif").write_bytes(content)
    for read in (image_names, read_image):
        with pytest.raises(ValueError, match=rf"leads back to an earlier one after {count}"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("promise", ['SizeZ="1000000000"', 'PlaneCount="1000000000"'])
def test_planes_that_only_the_text_has_are_refused(tmp_path, promise):
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels((2, 9, 16)), metadata={"axes": "ZYX"}, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.ome.tif", mode="r+") as tiff:
        name = promise.split("=")[0]
        tiff.pages.first.tags[270].overwrite(re.sub(rf'{name}="\d+"', promise, tiff.ome_metadata))
    with pytest.raises(ValueError, match="its pages are not those that its description promises"):
        read_image(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_strips_that_cannot_hold_the_pixels_are_refused(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", pixels((16, 16)), compression=compression, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[tag].overwrite(30000)
    with pytest.raises(ValueError, match="page 0 of 1 is missing or incomplete"):
        read_image(tmp_path / "a.tif")


def ome_set(folder, count=3, names=None):
    """An image of so many channels in as many files."""
    data = pixels((count, 9, 16))
    names = names or [f"c{number}.ome.tif" for number in range(count)]
    marks = [f"urn:uuid:{uuid.UUID(int=number + 1)}" for number in range(count)]
    blocks = [
        f'<TiffData IFD="0" FirstC="{i}" PlaneCount="1"><UUID FileName="{name}">{mark}</UUID></TiffData>'
        for i, (name, mark) in enumerate(zip(names, marks, strict=True))
    ]
    channels = "".join(f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1"/>' for i in range(count))
    for number, mark in enumerate(marks):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{mark}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="16" SizeY="9" SizeC="{count}" SizeZ="1" '
            f'SizeT="1">{channels}{"".join(blocks)}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"c{number}.ome.tif", data[number], description=xml, metadata=None, ome=False)
    return data


def test_image_in_several_files_is_read_from_each_of_them(tmp_path):
    data = ome_set(tmp_path)
    files = sorted(tmp_path.iterdir())
    for path in files:
        for lazy in (False, True):
            np.testing.assert_array_equal(np.asarray(read_image(path, lazy=lazy).data[...]), data)
        assert sorted(image_parts(path)) == files
    files[1].unlink()
    with pytest.raises(ValueError, match=r"c1\.ome\.tif is missing"):
        read_image(files[0])


def test_image_in_files_elsewhere_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    ome_set(tmp_path / "in", 2, ["c0.ome.tif", "../c1.ome.tif"])
    (tmp_path / "in" / "c1.ome.tif").rename(tmp_path / "c1.ome.tif")
    with pytest.raises(ValueError, match=r"\.\./c1\.ome\.tif is missing"):
        read_image(tmp_path / "in" / "c0.ome.tif")


def test_nothing_is_logged_of_a_damaged_file(tmp_path, capfd):
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0\x02\0" + b"\xff" * 24 + b"\xff\xff\xff\x7f")
    with pytest.raises(ValueError, match="not a readable TIFF"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_of_a_damaged_fax(tmp_path, capfd):
    """Neither by us nor by libtiff, which some programs let print a line for each fault."""
    Image.fromarray(pixels((40, 33), top=1) > 0).save(tmp_path / "a.tif", compression="group4")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        content[tiff.pages.first.dataoffsets[0] + 20] ^= 255
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.warns(UserWarning, match="Decoders of faxes differ"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------- metadata


def test_imagej_composite_keeps_colours_ranges_origin_and_info(tmp_path):
    ramp = np.arange(256)
    luts = [np.stack([ramp * c // 255 for c in color]).astype(np.uint8) for color in ((255, 0, 255), (0, 255, 0))]
    known = {"axes": "CYX", "mode": "composite", "LUTs": luts, "Ranges": (100.0, 2000.0, 50.0, 3000.0), "unit": "um"}
    known |= {"Info": "the microscope", "xorigin": 4.0, "yorigin": 2.0, "Overlays": b"Iout"}
    tifffile.imwrite(tmp_path / "a.tif", pixels((2, 9, 16), np.uint16), imagej=True, metadata=known, resolution=(2, 4))
    image = read_image(tmp_path / "a.tif")
    assert image.extra["channel_colors"] == ((255, 0, 255), (0, 255, 0))
    assert [(window["start"], window["end"]) for window in image.extra["channel_windows"]] == [(100, 2000), (50, 3000)]
    assert image.extra["origin"] == (-1.5 * 0.25, -3.5 * 0.5)
    result, said = rewrite(tmp_path / "a.tif", tmp_path / "b.tif")
    assert said == ["not kept: Overlays of ImageJ"]
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        again = tiff.imagej_metadata
    assert (again["Info"], again["xorigin"], again["yorigin"]) == ("the microscope", 8.0, 4.0)
    result, said = rewrite(tmp_path / "a.tif", tmp_path / "b.ome.tif")
    assert said == ["not kept: display ranges, Info of ImageJ, Overlays of ImageJ"]
    assert result.extra["channel_colors"] == image.extra["channel_colors"]
    assert result.extra["origin"] == pytest.approx((-1.5 * 0.25 - 0.0625, -3.5 * 0.5 - 0.125))


def test_ome_keeps_positions_times_and_wavelengths(tmp_path):
    planes = [{"PositionX": 1.2, "PositionXUnit": "mm", "PositionY": -300.0, "PositionYUnit": "µm"} for _ in range(6)]
    planes = [plane | {"DeltaT": float(i), "ExposureTime": 0.5} for i, plane in enumerate(planes)]
    channels = [{"Name": "a", "EmissionWavelength": 520}, {"Name": "b", "Fluor": "mCherry"}]
    known = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Plane": planes, "Channel": channels}
    known |= {"Name": "A1", "Description": "cells", "AcquisitionDate": "2020-01-02T03:04:05"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels((3, 2, 9, 16)), metadata=known, photometric="minisblack")
    image = read_image(tmp_path / "a.ome.tif")
    assert image.extra["origin"] == (-300, 1200)
    assert image.extra["text"] == {"Title": "A1", "Description": "cells", "AcquisitionDate": "2020-01-02T03:04:05"}
    result, said = rewrite(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    assert said == []
    assert result.extra == image.extra | {"origin": (-300.125, 1199.875)}
    write_pyramid(tmp_path / "c.ome.tif", ImageFile(image.data, "ZCYX", extra={"planes": image.extra["planes"]}))
    turned = read_image(tmp_path / "c.ome.tif")  # the order of a pyramid is its own
    assert turned.axes == "CZYX"
    assert [float(plane["DeltaT"]) for plane in turned.extra["planes"]] == [0, 2, 4, 1, 3, 5]
    _, said = rewrite(tmp_path / "a.ome.tif", tmp_path / "b.zarr")
    assert said[0].startswith("not kept: ")
    for name in ("EmissionWavelength", "Fluor", "DeltaT", "ExposureTime"):
        assert name in said[0]


def test_positions_that_are_none_of_length_are_named(tmp_path):
    plane = {"PositionX": [1.0], "PositionY": [2.0]}  # of the reference frame
    known = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Plane": plane}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels((9, 16)), metadata=known)
    _, said = rewrite(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    assert said == ["not kept: the stage position, whose unit is not one of length"]


GEO = {
    33550: (12, 3, (10.0, 20.0, 0.0)),
    33922: (12, 6, (0.0, 0.0, 0.0, 500000.0, 4000000.0, 0.0)),
    34735: (3, 8, (1, 1, 0, 1, 1025, 0, 1, 1)),
}


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("matrix", [False, True])
def test_geotiff_pixels_stay_where_they_are(tmp_path, point, matrix):
    tags = {code: GEO[code] for code in ((34735,) if matrix else GEO)}
    tags[34735] = (3, 8, (1, 1, 0, 1, 1025, 0, 1, 1 + point))
    if matrix:
        tags[34264] = (12, 16, (10.0, 1.0, 0, 500000.0, 2.0, -20.0, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1.0))
    extratags = [(code, *said, True) for code, said in tags.items()]
    tifffile.imwrite(tmp_path / "a.tif", pixels((9, 16)), metadata=None, extratags=extratags)
    _, said = rewrite(tmp_path / "a.tif", tmp_path / "b.tif")
    assert said == []

    def place(path, row, column):
        """The world's coordinates of a corner, in pixels from that of the first one."""
        with tifffile.TiffFile(path) as tiff:
            found = tiff.pages.first.tags
            column, row = (column - 0.5, row - 0.5) if point else (column, row)
            if matrix:
                return (np.reshape(found[34264].value, (4, 4)) @ [column, row, 0, 1])[:2]
            sizes, ties = found[33550].value, found[33922].value
            return ties[3] + (column - ties[0]) * sizes[0], ties[4] - (row - ties[1]) * sizes[1]

    for row, column in ((0, 0), (9, 0), (3, 16)):
        before, after = place(tmp_path / "a.tif", row, column), place(tmp_path / "b.tif", 2 * row, 2 * column)
        np.testing.assert_allclose(before, after, rtol=0, atol=1e-6)


def test_tags_are_carried_or_named(tmp_path):
    tags = [(315, 2, 3, "Me", True), (700, 1, 4, b"<x/>", True), (33723, 7, 6, b"\x1c\x02\x78\0\1a", True)]
    tags += [(65000, 3, 1, 7, True), (33432, 2, 4, "(c)", True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels((9, 16)), metadata=None, description="a café".encode(), extratags=tags)
    image = read_image(tmp_path / "a.tif")
    assert image.extra["text"] == {"Description": "a café", "Author": "Me", "Copyright": "(c)"}
    assert (image.extra["xmp"], image.extra["iptc"]) == (b"<x/>", b"\x1c\x02\x78\0\1a")
    result, said = rewrite(tmp_path / "a.tif", tmp_path / "b.tif")
    assert said == ["not kept: tag 65000"]
    assert result.extra == {key: value for key, value in image.extra.items() if key != "not_kept"}
    result, said = rewrite(tmp_path / "a.tif", tmp_path / "b.png")
    assert said == ["not kept: IPTC, tag 65000"]
    assert result.extra["text"] == image.extra["text"]


def test_what_ome_says_beside_the_image_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels((9, 16)), metadata={"axes": "YX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif", mode="r+") as tiff:
        xml = tiff.ome_metadata.replace("<Image ", '<Instrument ID="Instrument:0"/><Image ', 1)
        tiff.pages.first.tags[270].overwrite(xml)
    _, said = rewrite(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    assert said == ["not kept: Instrument of OME"]


def test_fax_that_decoders_read_differently_is_told(tmp_path, monkeypatch):
    """Instead of a file that they truly read differently: another second decoder."""
    Image.fromarray(pixels((40, 33), top=1) > 0).save(tmp_path / "a.tif", compression="group4")
    expected = read_image(tmp_path / "a.tif").data
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda self: np.arange(1320).reshape(40, 33) < 132)
    with pytest.warns(UserWarning, match=r"^Decoders of faxes differ in \d+\.\d% of the pixels; those of libtiff are"):
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, expected)


def test_geotiff_that_is_turned_is_named(tmp_path):
    tags = [(code, *said, True) for code, said in GEO.items()] + [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels((9, 16)), metadata=None, extratags=tags)
    image = read_image(tmp_path / "a.tif")
    assert image.data.shape == (16, 9)
    assert image.extra == {"not_kept": ("GeoTIFF tags",)}


# ------------------------------------------------------------------------------------- JPEG in TIFF


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("writer", ["tifffile", "pillow"])
def test_compression_of_a_tiff_is_that_of_its_jpeg_tables(tmp_path, writer, tile, lazy):
    image, found = pixels((40, 48)), {}
    for quality in (40, 90):
        path = tmp_path / f"{quality}.tif"
        if writer == "tifffile":
            tifffile.imwrite(path, image, compression="jpeg", compressionargs={"level": quality}, tile=tile)
        else:  # libtiff keeps the tables in a tag of their own
            Image.fromarray(image).save(path, compression="jpeg", quality=quality)
        Image.fromarray(image).save(tmp_path / f"{quality}.jpg", quality=quality)
        found[quality] = read_image(path, lazy=lazy).compression
        assert found[quality] == pytest.approx(read_image(tmp_path / f"{quality}.jpg").compression)
    assert found[40] > 3 * found[90] > 0


def test_sparse_and_lossless_jpeg_tiffs_have_some_compression(tmp_path):
    image = pixels((32, 32), np.uint16)
    tifffile.imwrite(tmp_path / "lossless.tif", image, compression="jpeg", compressionargs={"lossless": True})
    assert read_image(tmp_path / "lossless.tif").compression == 0


@pytest.mark.parametrize("lazy", [False, True])
def test_false_length_or_place_of_a_page(tmp_path, rng, lazy):
    """libtiff computes a length that cannot be right anew; a page that begins in the header is damaged."""
    planes = rng.integers(0, 60000, (2, 20, 24)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane in planes:
            tiff.write(plane, metadata=None, contiguous=False, rowsperstrip=20)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages[0].tags["StripByteCounts"].overwrite(900)  # of 960
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", lazy=lazy).data[...], planes)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages[0].tags["StripOffsets"].overwrite(0)
    with pytest.raises(ValueError, match="page 0 of 2 is missing or incomplete"):
        read_image(tmp_path / "a.tif", lazy=lazy)
