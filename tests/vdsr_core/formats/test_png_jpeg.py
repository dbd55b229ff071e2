import struct
import warnings
import zlib
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from vdsr_core import ImageFile, read_image, write_image

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:rights="me"/></x:xmpmeta>'
SEEN = {
    "gAMA": struct.pack(">I", 100000),
    "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
    "cICP": bytes([9, 16, 0, 1]),
}


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(pixels, *chunks, behind=()):
    """A PNG with more chunks, before and behind its pixels."""
    content = imagecodecs.png_encode(pixels)
    before, after = (b"".join(chunk(name, text) for name, text in some) for some in (chunks, behind))
    return content[:33] + before + content[33:-12] + after + content[-12:]


def upscaled(image):
    return image.with_data(image.data.repeat(2, 0).repeat(2, 1), (2, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_how_it_is_seen_and_what_it_says(tmp_path, dtype):
    text = [(b"tEXt", b"Description\0sample 7"), (b"iTXt", "Author\0\0\0\0\0Ω".encode())]
    text += [(b"zTXt", b"Comment\0\0" + zlib.compress(b"long")), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)]
    seen = [(name.encode(), content) for name, content in SEEN.items()]
    (tmp_path / "a.png").write_bytes(with_chunks(np.ones((5, 4, 3), dtype), *seen, *text))
    image = read_image(tmp_path / "a.png")
    assert image.extra["text"] == {"Description": "sample 7", "Author": "Ω", "Comment": "long"}
    assert (image.extra["xmp"], image.extra["png"]) == (XMP, SEEN)
    write_image(tmp_path / "b.png", upscaled(image))
    assert read_image(tmp_path / "b.png").extra == image.extra
    with Image.open(tmp_path / "b.png") as again:  # another reader
        again.load()
        assert (again.info["gamma"], again.text["Author"], again.info["xmp"]) == (1.0, "Ω", XMP)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_metadata_behind_the_pixels_are_read(tmp_path, dtype):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    behind = [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), (b"tEXt", b"Comment\0late")]
    data = np.arange(12, dtype=dtype).reshape(3, 4)
    (tmp_path / "a.png").write_bytes(with_chunks(data, behind=behind))
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.data, np.rot90(data, -1))
    assert image.extra["text"] == {"Comment": "late"}
    assert Image.Exif.get(_exif(image.extra["exif"]), 0x010F) == "a camera"


def _exif(content):
    exif = Image.Exif()
    exif.load(content)
    return exif


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 3])
def test_transparent_colour_of_a_png_becomes_alpha(tmp_path, dtype, samples):
    data = np.arange(4 * 5 * samples, dtype=dtype).reshape(4, 5, samples)
    color = data[2, 1]
    content = with_chunks(data.squeeze(), (b"tRNS", b"".join(struct.pack(">H", v) for v in color)))
    (tmp_path / "a.png").write_bytes(content)
    image = read_image(tmp_path / "a.png")
    assert (image.axes, image.data.dtype) == ("YXS", dtype)
    np.testing.assert_array_equal(image.data[..., :3], np.broadcast_to(data, (4, 5, 3)))
    np.testing.assert_array_equal(image.data[..., 3] == 0, (data == color).all(-1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pixels_of_a_png_of_few_bits_are_those_of_pillow(tmp_path, bits):
    indices = np.random.default_rng(0).integers(0, 2**bits, (6, 9), np.uint8)
    colors = np.random.default_rng(1).integers(0, 256, (2**bits, 3), np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(colors.tobytes())
    picture.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, colors[indices])


def test_jpeg_keeps_comment_xmp_and_iptc(tmp_path):
    image = ImageFile(np.full((16, 16, 3), 99, np.uint8), "YXS")
    extra = {"xmp": XMP, "iptc": b"\x1c\x02\x78\0\x05a cat", "text": {"Comment": "sample µ"}}
    write_image(tmp_path / "a.jpg", ImageFile(image.data, "YXS", extra=extra))
    write_image(tmp_path / "b.jpg", upscaled(read_image(tmp_path / "a.jpg")))
    assert read_image(tmp_path / "b.jpg").extra == extra
    with Image.open(tmp_path / "b.jpg") as picture:
        assert picture.info["comment"].decode() == "sample µ"
        assert picture.info["photoshop"][0x0404] == extra["iptc"]


@pytest.mark.parametrize(
    "xmp",
    [
        b'<a tiff:Orientation="6" dc:rights="me" exif:PixelXDimension = \'40\'/>',
        b'<a dc:rights="me"><tiff:Orientation>6</tiff:Orientation><exif:PixelXDimension>40</exif:PixelXDimension></a>',
    ],
)
def test_xmp_loses_the_old_orientation_and_size(tmp_path, xmp):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg", xmp=xmp)
    kept = read_image(tmp_path / "a.jpg").extra["xmp"]
    assert b"me" in kept
    assert b"Orientation" not in kept
    assert b"40" not in kept


@pytest.mark.parametrize(
    ("name", "extra", "lost"),
    [
        ("a.jpg", {"png": SEEN, "text": {"Author": "A", "Comment": "B"}}, "the text Author, gAMA, cHRM, cICP"),
        ("a.jpg", {"xmp": b"x" * 70000, "origin": (1.0, 2.0)}, "XMP, the position"),
        ("a.png", {"iptc": b"x", "not_kept": ("tag 65000",)}, "IPTC, tag 65000"),
        ("a.zarr", {"exif": b"Exif\0\0", "channel_windows": ({},), "xmp": b"x"}, "EXIF, display ranges, XMP"),
    ],
)
def test_what_is_not_kept_is_named_in_one_warning(tmp_path, name, extra, lost):
    with pytest.warns(UserWarning, match="not kept") as caught:
        write_image(tmp_path / name, ImageFile(np.zeros((8, 8), np.uint8), "YX", extra=extra))
    assert [str(warning.message) for warning in caught] == [f"not kept: {lost}"]


def test_nothing_is_said_where_all_is_kept(tmp_path):
    extra = {"png": SEEN | {"sRGB": b"\0"}, "text": {"any word": "B"}, "xmp": XMP}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_image(
            tmp_path / "a.png", ImageFile(np.zeros((8, 8), np.uint8), "YX", (1 / 300, 1 / 300), "inch", extra=extra)
        )


def test_12_bit_jpeg_is_refused_as_such(tmp_path):
    data = np.full((16, 16), 4095, np.uint16)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(data, bitspersample=12))
    with pytest.raises(ValueError, match=r"it has 12-bit samples\. Convert it to a PNG or TIFF of 16 bits first"):
        read_image(tmp_path / "a.jpg")


def test_jpeg_that_claims_more_than_it_can_hold_is_refused_at_once(tmp_path):
    stream = BytesIO()
    Image.new("L", (16, 16)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match="60000 x 60000 pixels, more than it can hold"):
        read_image(tmp_path / "a.jpg")


def test_long_texts_of_a_png_do_not_fill_the_memory(tmp_path):
    bomb = b"Comment\0\0" + zlib.compress(bytes(10**8))
    (tmp_path / "a.png").write_bytes(with_chunks(np.zeros((4, 4), np.uint8), (b"zTXt", bomb)))
    with pytest.raises(ValueError, match=r"a.png is not a readable PNG: .*"):
        read_image(tmp_path / "a.png")


def test_damaged_chunk_is_left_out_or_refused(tmp_path):
    content = bytearray(with_chunks(np.zeros((4, 4), np.uint8), (b"tEXt", b"Author\0me"), (b"tEXt", b"Comment\0a")))
    content[content.index(b"me")] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.warns(UserWarning, match="^The chunk 'tEXt' of a PNG is damaged and left out"):
        assert read_image(tmp_path / "a.png").extra == {"text": {"Comment": "a"}}
    content[content.index(b"IDAT") + 6] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="its chunk 'IDAT' is damaged"):
            read_image(tmp_path / "a.png")


# ------------------------------------------------------------------------------------- how JPEGs are compressed


def standard_table(quality):
    """The luma table of the JPEG standard (Annex K), scaled as the Independent JPEG Group does."""
    table = np.array([
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ])  # fmt: skip
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * factor + 50) // 100, 1, 255)


@pytest.mark.parametrize("quality", [1, 40, 75, 95, 100])
@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 3)])
def test_compression_is_the_mean_step_of_luma(tmp_path, rng, quality, shape):
    path = tmp_path / "photo.jpg"
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path, quality=quality)
    assert read_image(path).compression == pytest.approx(standard_table(quality).mean() / 255)


def test_compression_is_read_from_tables_of_any_program(tmp_path, rng):
    pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
    tables = [list(range(1, 65)), [200] * 64]
    for progressive in (False, True):
        Image.fromarray(pixels).save(tmp_path / "own.jpg", qtables=tables, progressive=progressive)
        assert read_image(tmp_path / "own.jpg").compression == pytest.approx(32.5 / 255)
    exif = Image.Exif()
    exif[274] = 6  # turned
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", qtables=tables, exif=exif)
    turned = read_image(tmp_path / "turned.jpg")
    assert (turned.data.shape, turned.compression) == ((24, 20, 3), pytest.approx(32.5 / 255))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_what_is_not_compressed_with_loss_has_no_compression(tmp_path, rng, name):
    write_image(tmp_path / name, ImageFile(rng.integers(0, 256, (20, 24, 3), np.uint8), "YXS"))
    assert read_image(tmp_path / name).compression == 0


@pytest.mark.parametrize(("kind", "named"), [(0x000000, True), (0x010001, False)])  # nothing said of it, a preview
def test_other_pictures_of_a_jpeg_are_named_but_previews(tmp_path, kind, named):
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[picture])
    content = (tmp_path / "a.jpg").read_bytes()
    start = content.index(b"MPF\0")
    first = content.rindex(struct.pack("<L", 0x030000), start, start + 80)  # 16 bytes for each picture
    content = content[: first + 16] + struct.pack("<L", kind) + content[first + 20 :]
    (tmp_path / "a.jpg").write_bytes(content)
    image = read_image(tmp_path / "a.jpg")
    assert image.data.shape == (6, 8)
    assert image.extra.get("not_kept", ()) == (("other pictures of the file",) if named else ())
