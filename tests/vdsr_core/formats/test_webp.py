import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from vdsr_core import ImageFile, read_image, write_image


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3), (9, 12, 4), (3, 9, 12)])
def test_webp_is_read_as_it_was_written_and_by_pillow(tmp_path, rng, shape):
    axes = {(9, 12): "YX", (3, 9, 12): "SYX"}.get(shape, "YXS")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "cells"
    extra = {"exif": exif.tobytes(), "xmp": b"<x/>"}
    pixels = rng.integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.webp", ImageFile(pixels, axes, icc_profile=profile, extra=extra))
    expected = np.stack([pixels] * 3, -1) if axes == "YX" else np.moveaxis(pixels, axes.index("S"), -1)
    image = read_image(tmp_path / "a.webp")
    assert image.axes == "YXS"
    np.testing.assert_array_equal(image.data, expected)
    assert (image.icc_profile, image.extra) == (profile, extra)
    with Image.open(tmp_path / "a.webp") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_webp_is_read_upright(tmp_path, rng):
    pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp").data, np.rot90(pixels, -1))


def test_webp_that_cannot_be_read_is_named(tmp_path, rng):
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it is an animation of 3 frames"):
        read_image(tmp_path / "a.webp")
    content = io.BytesIO()
    frames[0].save(content, "WebP", lossless=True)
    for cut in range(0, len(content.getvalue()), 7):
        (tmp_path / "b.webp").write_bytes(content.getvalue()[:cut])
        with pytest.raises(ValueError, match=r"b\.webp is not a readable WebP"):
            read_image(tmp_path / "b.webp")


@pytest.mark.parametrize(
    ("pixels", "axes", "message"),
    [
        (np.zeros((4, 4), np.uint16), "YX", "must hold uint8, got uint16. Use .png or .tif"),
        (np.zeros((2, 4, 4), np.uint8), "CYX", "must hold axes YX"),
        (np.zeros((1, 16384), np.uint8), "YX", "must have sides up to 16383 pixels"),
    ],
)
def test_what_webp_cannot_hold_is_named(tmp_path, pixels, axes, message):
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "a.webp", ImageFile(pixels, axes))


def test_quality_of_a_jpeg_is_that_of_pillow(tmp_path, rng):
    pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
    for quality in (1, 40, 95, 100):
        write_image(tmp_path / f"{quality}.jpg", ImageFile(pixels, "YXS"), jpeg_quality=quality)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=quality, subsampling=0)
        np.testing.assert_array_equal(read_image(tmp_path / f"{quality}.jpg").data, np.asarray(Image.open(content)))
    with pytest.raises(ValueError, match="`jpeg_quality` must be at most 100, got 101"):
        write_image(tmp_path / "a.jpg", ImageFile(pixels, "YXS"), jpeg_quality=101)
