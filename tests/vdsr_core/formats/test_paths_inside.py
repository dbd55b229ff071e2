"""A file may name its parts: none of these names leads out of it."""

import numpy as np
import pytest
import zarr

from vdsr_core import image_names, read_image, upscale_files

OUTSIDE = ["../secret", "A/../../secret", "..", "{absolute}", "link"]


@pytest.fixture
def secret(tmp_path):
    """A folder of images; an image that lies beside it; and a link to that in it."""
    place = tmp_path / "download" / "all.ome.zarr"
    place.mkdir(parents=True)
    hidden = place.parent / "secret"
    zarr.create_group(hidden).create_array("0", shape=(6, 7), dtype="u1")[:] = 7
    (place / "link").symlink_to(hidden, target_is_directory=True)
    return place


def say(place, ome):
    zarr.open_group(place, mode="a", zarr_format=3).attrs["ome"] = {"version": "0.5", **ome}


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["well", "image", "series", "dataset"])
def test_part_outside_is_refused_and_nothing_is_written(tmp_path, secret, network, kind, name):
    name = name.format(absolute=secret.parent / "secret")
    if kind == "dataset":
        say(secret, {"multiscales": [{"datasets": [{"path": f"{name}/0"}]}]})
    elif kind == "series":
        say(secret, {"bioformats2raw.layout": 3})
        say(secret / "OME", {"series": [name]})
    else:
        say(secret, {"plate": {"wells": [{"path": name if kind == "well" else "A/1"}]}})
        say(secret / name if kind == "well" else secret / "A" / "1", {"well": {"images": [{"path": name}]}})
        if kind == "image":
            (secret / "A" / "1" / "link").symlink_to(secret.parent / "secret", target_is_directory=True)
    (tmp_path / "results" / "deep").mkdir(parents=True)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="lies outside of it"):
        read_image(secret) if kind == "dataset" else image_names(secret)
    (last,) = [
        step
        for step in upscale_files(secret, tmp_path / "results" / "deep" / "out.ome.zarr", 2, model=network)
        if step.outcome
    ]
    assert last.outcome == "failed"
    assert tree(tmp_path) == before


def test_parts_inside_are_read(secret):
    zarr.create_array(secret / "A" / "1" / "..0", shape=(6, 7), dtype="u1")[:] = 3
    say(secret / "A" / "1", {"well": {"images": [{"path": "..0"}]}})
    say(secret, {"plate": {"wells": [{"path": "A/1"}]}})
    assert image_names(secret) == ["A/1/..0"]
    np.testing.assert_array_equal(read_image(secret / "A" / "1" / "..0").data[:], np.full((6, 7), 3))
