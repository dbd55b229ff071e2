import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import ImageFile, read_image, super_resolve, upscale_files, write_image
from vdsr_core.streaming.goal import Goal
from vdsr_core.streaming.outputs import list_jobs

OPTIONS = {"tile": 16}


def tree(folder):
    """The paths of all files below a folder, and of all zarr folders."""
    found = Path(folder).rglob("*")
    return sorted(p.relative_to(folder).as_posix() for p in found if p.is_file() and ".zarr" not in str(p.parent))


def test_upscale_files_gives_what_super_resolve_gives(folder, network, draw):
    images = {name: draw(folder / name, (20, 25), dtype) for name, dtype in (("a.png", np.uint8), ("b.tif", np.uint16))}
    steps = list(upscale_files(["a.png", "b.tif"], "out", 2, model=network, **OPTIONS))
    assert [(step.number, step.count, step.outcome) for step in steps if step.outcome] == [
        (1, 2, "done"),
        (2, 2, "done"),
    ]
    for source, target in (("a.png", "out/a_x2.png"), ("b.tif", "out/b_x2.tif")):
        fractions = [step.fraction for step in steps if step.source == Path(source)]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1], len(fractions)) == (0, 1, 2 + 3 * 4)  # tiles of 16 x 16
        whole = super_resolve(images[source].data, 2, model=network, **OPTIONS)
        np.testing.assert_array_equal(read_image(target).data, whole)


def test_upscale_files_names_the_results_by_a_pattern(folder, network, draw):
    draw(folder / "a.v2.png", (6, 8), np.uint8)
    for goal in ({"scale": 2}, {"scale": (2, 1.5)}, {"size": (None, 16)}, {"size": (18, 24)}):
        list(upscale_files(".", "out/", model=network, pattern="{scale}-{name}", format="tif", **goal))
    assert tree("out") == ["16x-a.v2.tif", "24x18-a.v2.tif", "x2-a.v2.tif", "x2x1.5-a.v2.tif"]
    assert read_image("out/16x-a.v2.tif").data.shape == (12, 16)
    assert read_image("out/24x18-a.v2.tif").data.shape == (18, 24)


@pytest.mark.parametrize("pattern", ["x", "{name}/{scale}", "{name}{model}", "{name!r}", "../{name}"])
def test_upscale_files_refuses_patterns_that_name_no_file(folder, pattern):
    with pytest.raises(ValueError, match="`pattern` must be a file name"):
        upscale_files(".", "out/", 2, pattern=pattern)


def test_upscale_files_keeps_subfolders(folder, network, draw):
    for name in ("a.png", "one/a.png", "one/two/b.tif", "one/.hidden/c.png"):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        draw(folder / "in" / name, (6, 7))
    write_image(folder / "in" / "one" / "c.zarr", ImageFile(np.eye(6, dtype=np.uint8), "YX"))
    (folder / "in" / "loop").symlink_to(folder / "in", target_is_directory=True)
    for _ in range(2):
        outcomes = [step.outcome for step in upscale_files("in", "in/out", 2, model=network, recursive=True)]
        assert tree("in/out") == ["a_x2.png", "one/a_x2.png", "one/two/b_x2.tif"]
        assert (folder / "in" / "out" / "one" / "c_x2.zarr").is_dir()
    assert outcomes == ["kept"] * 4
    assert [step.target.name for step in upscale_files("in", "flat", 2, model=network) if step.outcome] == ["a_x2.png"]


def test_upscale_files_continues_after_a_bad_file(folder, network, draw):
    (folder / "a.tif").write_text("text")
    draw(folder / "b.png", (6, 7))
    steps = [step for step in upscale_files(["a.tif", "b.png"], "out", 2, model=network) if step.outcome]
    assert [step.outcome for step in steps] == ["failed", "done"]
    assert isinstance(steps[0].error, ValueError)
    assert steps[0].message == str(steps[0].error)
    assert tree("out") == ["b_x2.png"]


@pytest.mark.parametrize("target", ["b.png", "b.ome.zarr"])
@pytest.mark.parametrize("how", ["close", "stop"])
def test_upscale_files_cancelled_leaves_no_half_written_file(folder, network, draw, target, how):
    draw(folder / "a.png", (40, 40))
    stop = threading.Event()
    run = upscale_files("a.png", target, 2, model=network, tile=16, shard=16, stop=stop)
    assert next(run).fraction == 0
    assert 0 < next(run).fraction < 1
    if how == "close":
        run.close()
    else:
        stop.set()
        assert all(step.outcome is None for step in run)
    assert set(os.listdir()) - {".b.ome.zarr.partial"} == {"a.png"}
    (last,) = (step for step in upscale_files("a.png", target, 2, model=network, tile=16, shard=16) if step.outcome)
    assert last.outcome == "done"
    whole = super_resolve(read_image("a.png").data, 2, model=network, tile=16)
    np.testing.assert_array_equal(read_image(target).data[:], whole)


def test_upscale_files_never_overwrites_unasked(folder, network, draw):
    draw(folder / "a.png", (6, 7))
    (folder / "b.png").write_text("mine")
    (step,) = upscale_files("a.png", "b.png", 2, model=network)
    assert (step.outcome, (folder / "b.png").read_text()) == ("kept", "mine")
    assert list(upscale_files("a.png", "b.png", 2, model=network, overwrite=True))[-1].outcome == "done"


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.integers(0, 5000), st.integers(0, 5000))
def test_size_is_what_the_result_has(shape, rows, columns):
    from vdsr_core.images.resampling import scaled_shape

    image = ImageFile(np.zeros(shape, np.uint8), "YX")
    both = (shape[0] + rows, shape[1] + columns)
    assert scaled_shape(shape, Goal.of(size=both).scale(image)) == both
    scale = Goal.of(size=(None, both[1])).scale(image)
    assert scale[0] == scale[1]
    assert scaled_shape(shape, scale)[1] == both[1]


def test_pixel_size_is_what_the_result_has(folder, network, draw):
    draw(folder / "a.tif", (6, 7), np.uint16, pixel_size=(0.65, 0.325), unit="µm")
    list(upscale_files("a.tif", "b.ome.tif", pixel_size=(100, "nm"), model=network))
    result = read_image("b.ome.tif")
    assert (result.data.shape, result.pixel_size) == ((39, 23), pytest.approx((0.1, 0.1), rel=1e-12))
    assert list_jobs(["a.tif"], "out/", Goal.of(pixel_size=(0.1, "µm")).label)[0].target.name == "a_0.1um.tif"


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"size": (None, 5)}, "`size` must not be smaller than the image, 6 rows and 7 columns, got 5 columns. The"),
        ({"pixel_size": (1, "µm")}, "`pixel_size` must not be larger than that of the image, 0.5 x 0.5 µm, got 1.0 µm"),
        ({"pixel_size": (1, "µm"), "axes": "QYX"}, "`pixel_size` needs an image with a known pixel size"),
    ],
)
def test_goals_that_an_image_cannot_reach_are_named(folder, network, draw, goal, message):
    known = {"axes": goal.pop("axes"), "pixel_size": None} if "axes" in goal else {"pixel_size": (0.5, 0.5)}
    shape = (1, 6, 7) if known.get("axes") else (6, 7)
    draw(folder / "a.tif", shape, np.uint16, unit="µm", **known)
    step = list(upscale_files("a.tif", "b.tif", model=network, **goal))[-1]
    assert step.outcome == "failed"
    assert step.message.startswith(message)


@pytest.mark.parametrize(
    ("goal", "error", "message"),
    [
        ({}, TypeError, "one of `scale`, `size` and `pixel_size` must be given, got none of them. Give"),
        ({"scale": 2, "size": (None, 5)}, TypeError, "exactly one"),
        ({"scale": "2"}, TypeError, "`scale` must be a number or a pair"),
        ({"size": 4096}, TypeError, "`size` must be \\(rows, columns\\)"),
        ({"size": (None, None)}, TypeError, "`size` must be"),
        ({"size": (None, 1.5)}, TypeError, "`size` must be an integer"),
        ({"pixel_size": 0.1}, TypeError, "`pixel_size` must be a positive number and a unit"),
        ({"pixel_size": (0, "µm")}, ValueError, "`pixel_size` must be a positive number and a unit"),
        ({"pixel_size": (1, "parsec")}, ValueError, "the units are m, cm"),
    ],
)
def test_wrong_goals_are_named_at_the_call(folder, draw, goal, error, message):
    draw(folder / "a.png", (6, 7))
    with pytest.raises(error, match=message):
        upscale_files("a.png", "b.png", **goal)
    assert os.listdir() == ["a.png"]


def test_names_of_results_keep_kinds_and_differ(folder, draw):
    import tifffile

    pixels = np.full((8, 8), 5, np.uint8)
    tifffile.imwrite("cells.OME.TIF", pixels, ome=True)
    draw(folder / "two\nlines.png", (8, 8))
    with tifffile.TiffWriter("pair.ome.tif", ome=True) as tiff:
        for name in ("a/b", "a b", "A-b"):
            tiff.write(pixels, metadata={"axes": "YX", "Name": name})
    names = [job.target.name for job in list_jobs(["."], "out/", "x2")]
    assert sorted(names) == [
        "cells_x2.OME.TIF",
        "pair_x2_A-b-3.ome.tif",
        "pair_x2_a-b-2.ome.tif",
        "pair_x2_a-b.ome.tif",
        "two\nlines_x2.png",
    ]
