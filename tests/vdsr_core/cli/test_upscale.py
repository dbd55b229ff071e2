import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from vdsr_core import (
    ImageFile,
    VDSRConfig,
    image_names,
    load_checkpoint,
    make_model,
    plan,
    read_image,
    save_checkpoint,
    stream,
    super_resolve,
    write_image,
)
from vdsr_core.cli.main import app


@pytest.mark.parametrize(
    ("scale", "shape"), [("2", (40, 50)), ("2.5", (50, 62)), ("2:1.5", (40, 38)), ("1:3", (20, 75))]
)
def test_upscale_writes_what_super_resolve_gives(folder, vdsr, network, scale, shape, draw):
    image = draw(folder / "a.tif", (20, 25), np.uint16, pixel_size=(0.5, 0.5), unit="µm")
    result = vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", scale, "--tile", 16)
    assert result.exit_code == 0, result.stderr
    assert re.fullmatch(rf"a\.tif -> b\.tif  \({shape[0]}, {shape[1]}\) uint16  \d+\.\d s\n", result.stdout)
    assert result.stderr == ""
    out = read_image("b.tif")
    pair = tuple(float(s) for s in scale.split(":")) * (2 if ":" not in scale else 1)
    np.testing.assert_array_equal(out.data, super_resolve(image.data, pair, model=network, tile=16))
    assert out.pixel_size == pytest.approx((0.5 / pair[0], 0.5 / pair[1]))
    assert out.data.shape == shape


def test_upscale_reads_colour_and_channels_from_the_file(folder, vdsr, network, draw):
    rgb = draw(folder / "rgb.png", (12, 14, 3), axes="YXS")
    cells = draw(folder / "cells.ome.tif", (2, 12, 14), np.uint16, axes="CYX", channel_names=("DNA", "actin"))
    result = vdsr("upscale", ".", "-o", "out", "--scale", 2)
    assert result.exit_code == 0, result.stderr
    out = read_image("out/rgb_x2.png").data
    np.testing.assert_array_equal(out, super_resolve(rgb.data, 2, model=network, rgb=True))
    out = read_image("out/cells_x2.ome.tif")
    np.testing.assert_array_equal(out.data, super_resolve(cells.data, 2, model=network, channel_axis=0))
    assert out.channel_names == ("DNA", "actin")


def test_upscale_axes_says_what_the_file_does_not(folder, vdsr, network, draw):
    image = draw(folder / "a.tif", (2, 12, 14), axes="QYX")
    assert vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 2, "--axes", "CYX").exit_code == 0
    expected = super_resolve(image.data, 2, model=network, channel_axis=0)
    np.testing.assert_array_equal(read_image("b.tif").data, expected)
    draw(folder / "plane.tif", (12, 14), axes="YX")
    result = vdsr("upscale", "plane.tif", "-o", "d.tif", "--scale", 2, "--axes", "CYX")
    assert "--axes must name every axis of shape (12, 14)" in result.stderr
    result = vdsr("upscale", "a.tif", "-o", "c.tif", "--scale", 2, "--axes", "YXZ")
    assert result.exit_code == 1
    assert "a.tif: the last axes must be rows and columns (YX), got YXZ" in result.stderr


def test_upscale_in_range_is_used(folder, vdsr, network, draw):
    image = draw(folder / "a.tif", (12, 14), np.float32)
    assert vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 2, "--in-range", "-1", "4.5").exit_code == 0
    expected = super_resolve(image.data, 2, model=network, in_range=(-1, 4.5))
    np.testing.assert_array_equal(read_image("b.tif").data, expected)


@pytest.mark.parametrize("target", ["b.tif", "b.ome.zarr"])
def test_upscale_keeps_pixels_without_a_value(folder, vdsr, network, draw, target):
    pixels = draw(folder / "whole.tif", (12, 14), np.float32).data.copy()
    pixels[3:6, 4:9] = np.nan
    write_image("a.tif", ImageFile(pixels, "YX"))
    assert "must be finite, got 15 NaN" in vdsr("upscale", "a.tif", "-o", target, "--scale", 2).stderr
    assert vdsr("upscale", "a.tif", "-o", target, "--scale", 2, "--nan", "keep").exit_code == 0
    expected = super_resolve(pixels, 2, model=network, nan="keep")
    np.testing.assert_array_equal(read_image(target).data[...], expected)
    assert np.isnan(expected).sum() == 60


@pytest.mark.parametrize("target", ["b.tif", "b.ome.zarr"])
def test_upscale_takes_the_mean_over_turned_images(folder, vdsr, network, draw, target):
    image = draw(folder / "a.tif", (20, 31), np.uint16)
    assert vdsr("upscale", "a.tif", "-o", target, "--scale", 2, "--self-ensemble").exit_code == 0
    best, plain = (super_resolve(image.data, 2, model=network, self_ensemble=switch) for switch in (True, False))
    np.testing.assert_array_equal(read_image(target).data[...], best)
    assert np.any(best != plain)


@pytest.mark.parametrize("source", [("in",), ("in/*.png",), ("in/**",), ("in/a.png", "in/b.png"), ("in", "in/a.*")])
def test_upscale_takes_folders_and_patterns(folder, vdsr, source, draw):
    (folder / "in").mkdir()
    for name in ("a.png", "b.png"):
        draw(folder / "in" / name, (6, 7))
    (folder / "in" / "notes.txt").write_text("no image")
    result = vdsr("upscale", *source, "-o", "new/out", "--scale", 3, "--format", "tif")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir("new/out")) == ["a_x3.tif", "b_x3.tif"]


def test_upscale_takes_subfolders_and_sizes(folder, vdsr, draw):
    (folder / "in" / "day 1").mkdir(parents=True)
    draw(folder / "in" / "a.tif", (10, 12), pixel_size=(0.5, 0.5), unit="µm")
    draw(folder / "in" / "day 1" / "b.ome.tif", (8, 12), pixel_size=(500, 500), unit="nm")
    for number, (words, factor) in enumerate(((["--pixel-size", "0.2um"], 2.5), (["--size", "36x"], 3))):
        result = vdsr("upscale", "in", "-o", f"out{number}/", "--recursive", "--pattern", "{name}", *words)
        assert (result.exit_code, result.stderr) == (0, "")
        a, b = (read_image(folder / f"out{number}" / name) for name in ("a.tif", "day 1/b.ome.tif"))
        assert (a.data.shape, b.data.shape) == tuple((n * factor, 12 * factor) for n in (10, 8))
        assert a.pixel_size == pytest.approx((0.5 / factor,) * 2)
        assert b.pixel_size == pytest.approx((500 / factor,) * 2)


def test_upscale_takes_names_with_brackets_and_dots(folder, vdsr, draw):
    draw(folder / "a[1].v2.png", (6, 7))
    assert vdsr("upscale", "a[1].v2.png", "-o", "out.v2/", "--scale", "2:1.5").exit_code == 0
    assert os.listdir("out.v2") == ["a[1].v2_x2x1.5.png"]


def test_upscale_reads_and_writes_zarr(folder, vdsr, network, draw):
    image = draw(folder / "a.zarr", (2, 20, 25), np.uint16, axes="CYX")
    assert vdsr("upscale", ".", "-o", "out", "--scale", 2).exit_code == 0
    out = read_image("out/a_x2.zarr")
    assert (out.axes, out.data.dtype) == ("CYX", np.uint16)
    np.testing.assert_array_equal(out.data[...], super_resolve(image.data, 2, model=network, channel_axis=0))
    assert vdsr("upscale", "a.zarr", "-o", "b.zarr", "--scale", 2).exit_code == 0
    assert vdsr("upscale", "a.zarr", "-o", "b.zarr", "--scale", 2).stdout.endswith("(--overwrite replaces it)\n")


def test_upscale_keeps_outputs_unless_told(folder, vdsr, draw):
    draw(folder / "a.png", (6, 7))
    (folder / "b.png").write_text("mine")
    result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2)
    assert (result.exit_code, result.stdout) == (
        0,
        "a.png -> b.png  kept: it exists (--overwrite replaces it)\n",
    )
    assert (folder / "b.png").read_text() == "mine"
    assert vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2, "--overwrite").exit_code == 0
    assert read_image("b.png").data.shape == (12, 14)


def test_upscale_into_its_own_folder_does_not_upscale_outputs_again(folder, vdsr, draw):
    draw(folder / "a.png", (6, 7))
    for _ in range(2):
        assert vdsr("upscale", ".", "-o", ".", "--scale", 2).exit_code == 0
    assert sorted(os.listdir()) == ["a.png", "a_x2.png"]


def test_upscale_never_replaces_an_input(folder, vdsr, draw):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "a.png", "--scale", 2, "--overwrite")
    assert result.exit_code == 2
    assert "must be the output of one image and hold no input" in result.stderr
    assert read_image("a.png").data.shape == (6, 7)


def test_upscale_never_replaces_a_folder_that_holds_an_input(folder, vdsr, rng):
    write_image("raw.zarr", ImageFile(rng.random((40, 50), np.float32), "YX"))
    os.mkdir("all.zarr")
    os.rename("raw.zarr", "all.zarr/raw.zarr")
    result = vdsr("upscale", "all.zarr/raw.zarr", "-o", "all.zarr", "--scale", 2, "--overwrite")
    assert result.exit_code == 2
    assert "hold no input" in result.stderr
    assert read_image("all.zarr/raw.zarr").data.shape == (40, 50)


def test_upscale_refuses_two_images_with_one_output(folder, vdsr, draw):
    for name in ("x", "y"):
        (folder / name).mkdir()
        draw(folder / name / "a.png", (6, 7))
    result = vdsr("upscale", "x", "y", "-o", "out", "--scale", 2)
    assert result.exit_code == 2
    assert re.search(
        r"out.a_x2\.png must be the output of one image and hold no input, got x.a\.png and y", result.stderr
    )
    assert not (folder / "out").exists()


def test_upscale_goes_on_after_a_bad_file(folder, vdsr, draw):
    for name in ("a.png", "d.png"):
        draw(folder / name, (6, 7))
    (folder / "b.tif").write_text("text")
    nan = ImageFile(np.full((4, 4), np.nan, np.float32), "YX")
    write_image("c.tif", nan)
    result = vdsr("upscale", "a.png", "b.tif", "c.tif", "gone.png", "d.png", "-o", "out", "--scale", 2)
    assert result.exit_code == 1
    assert [line.split(" -> ")[0] for line in result.stdout.splitlines()] == ["a.png", "d.png"]
    lines = result.stderr.splitlines()
    assert [re.match(r"vdsr: (\S+?\.\w+)", line)[1] for line in lines] == ["b.tif", "c.tif", "gone.png"]
    assert "must be finite, got 16 NaN" in lines[1]
    assert sorted(os.listdir("out")) == ["a_x2.png", "d_x2.png"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("b.gif", "b.gif"),
        ("b.jpg", "must hold uint8, got uint16"),
        ("gone/b.tif", "folder gone does not exist"),
        ("a.png/b.tif", "a.png"),
    ],
)
def test_upscale_checks_the_target_before_computing(folder, vdsr, monkeypatch, target, message, draw):
    draw(folder / "a.png", (6, 7), np.uint16)
    monkeypatch.setattr("vdsr_core.streaming.files.super_resolve_tiles", lambda *_, **__: pytest.fail("computed"))
    result = vdsr("upscale", "a.png", "-o", target, "--scale", 2)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir() == ["a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "-o", "b.png"], "one of --scale, --size and --pixel-size must be given"),
        (["a.png", "-o", "b.png", "--scale", "two"], "must be a number"),
        (["a.png", "-o", "b.png", "--scale", "1:2:3"], "must be one or two numbers"),
        (["a.png", "-o", "b.png", "--scale", "2,5"], "must have a decimal point, not a comma, got '2,5'"),
        (["a.png", "-o", "b.png", "--scale", "2", "--size", "99x"], "exactly one"),
        (["a.png", "-o", "b.png", "--size", "4,096x"], "must be COLUMNSxROWS"),
        (["a.png", "-o", "b.png", "--size", "x"], "must be COLUMNSxROWS"),
        (["a.png", "-o", "b.png", "--pixel-size", "0,1um"], "must have a decimal point, not a comma, got '0,1'"),
        (["a.png", "-o", "b.png", "--pixel-size", "0.1"], "must be a positive number and a unit"),
        (["a.png", "-o", "b.png", "--scale", "2", "--in-range", "0,5", "1"], "Numbers have a decimal point"),
        (["a.png", "-o", "out", "--scale", "2", "--pattern", "x"], "--pattern must be a file name that holds {name}"),
        (["a.png", "-o", "b.png", "--scale", "0.5"], "must be greater than 1"),
        (["a.png", "-o", "b.png", "--scale", "nan"], "finite"),
        (["a.png", "-o", "b.png", "--scale", "1e9"], "at most 1000"),
        (["a.png", "-o", "b.png", "--scale", "2", "--tile", "0"], "--tile"),
        (["a.png", "-o", "b.png", "--scale", "2", "--device", "abacus"], "--device must be one of cpu"),
        (["a.png", "-o", "b.png", "--scale", "2", "--in-range", "5", "5"], "low < high"),
        (["a.png", "a.png", ".", "-o", "b.png", "--scale", "2", "--format", "png"], "a folder to go with --format"),
        (["*.png", "-o", "b.png", "--scale", "2"], "must be a folder for 2 images"),
        (["a.png", "-o", "a.png/", "--scale", "2"], "must be a folder, or a file whose suffix names the format"),
    ],
)
def test_upscale_names_wrong_options(folder, vdsr, words, message, draw):
    draw(folder / "a.png", (6, 7))
    draw(folder / "c.png", (6, 7))
    result = vdsr("upscale", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert sorted(os.listdir()) == ["a.png", "c.png"]


def test_upscale_names_what_holds_no_image(folder, vdsr):
    for source in ("*.png", "."):
        result = vdsr("upscale", source, "-o", "out", "--scale", 2)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"vdsr: {source} holds no image (.tif, ")
    assert os.listdir() == []


def test_upscale_refuses_what_memory_cannot_hold(folder, vdsr, monkeypatch, draw):
    draw(folder / "a.tif", (300, 300), np.float64)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10**8}))
    result = vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 20)
    assert result.exit_code == 1
    assert (
        "a.tif: the result, of shape (6000, 6000), must fit in memory, got 0.288 GB with 0.1 GB free" in result.stderr
    )


def test_errors_name_options_and_what_to_type(folder, vdsr, network, draw):
    hole = np.ones((12, 14), np.float32)
    hole[3, 4] = np.nan
    tifffile.imwrite(folder / "hole.tif", hole)
    assert "or keep NaN by --nan keep." in vdsr("upscale", "hole.tif", "-o", "b.tif", "--scale", 2).stderr
    assert "got one without. Use --scale." in vdsr("upscale", "hole.tif", "-o", "b.tif", "--pixel-size", "1um").stderr
    reduced = " ".join(vdsr("upscale", "hole.tif", "-o", "b.tif", "--scale", 0.5).stderr.replace("│", "").split())
    assert "--scale must be greater than 1, got 0.5. The function `degrade` reduces images." in reduced


def test_unknown_network_lists_the_known_ones(folder, vdsr, draw):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2, model="nope")
    assert result.exit_code == 1
    assert result.stderr.startswith("vdsr: --model must be one of ")
    assert len(result.stderr.splitlines()) == 1


def test_interruption_leaves_no_file(folder, vdsr, monkeypatch, draw):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    draw(folder / "a.png", (6, 7))
    for where in ("vdsr_core.streaming.files.super_resolve_tiles", "vdsr_core.formats.io.write_png"):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupted)
            result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2)
        assert (result.exit_code, result.stderr) == (130, "vdsr: interrupted\n")
        assert os.listdir() == ["a.png"]


def test_a_forged_tiff_is_one_line(folder, network):
    (folder / "a.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")  # the first page is said to lie beyond the file
    words = ["upscale", "a.tif", "-o", "b.tif", "--scale", "2", "--model", str(network)]
    done = subprocess.run([sys.executable, "-m", "vdsr_core", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vdsr: a.tif is not a readable TIFF: it holds no image. Copy or export it again.\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_leaves_no_file(folder, network, draw):
    """The first image is done when its line appears; the second would take a minute."""
    draw(folder / "a.png", (6, 7))
    draw(folder / "b.png", (1000, 1000))
    command = [sys.executable, "-m", "vdsr_core", "upscale", "a.png", "b.png", "-o", "out", "--scale", "2"]
    command += ["--tile", "8", "--model", str(network)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert line.startswith("a.png -> ")
    assert (rest, errors, process.returncode) == ("", "vdsr: interrupted\n", 130)
    assert os.listdir("out") == ["a_x2.png"]


STUCK = """
import sys, time
from vdsr_core.cli.main import app
from vdsr_core.streaming.shards import ShardMaker

def make(self, *args, ordinary=ShardMaker.make):
    if args[1] != (0, 0):
        print("now", flush=True)
        time.sleep(100)
    return ordinary(self, *args)

ShardMaker.make = make
app(sys.argv[1:])
"""


def has_handler(pid, number):
    """Whether a process has not left a signal to the system."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("SigCgt:") + 1], 16) >> (number - 1) & 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_second_ctrl_c_ends_at_once(folder, network, draw):
    """The first one waits for a thread that does not end, as of a network drive; the same command goes on."""
    draw(folder / "a.tif", (40, 60))
    words = ["upscale", "a.tif", "-o", "a.ome.zarr", "--scale", "2", "--shard", "64", "--tile", "32"]
    words += ["--model", str(network)]
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 60
        while has_handler(process.pid, signal.SIGINT):  # two that come within an instant count as one
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # which a shell shows as 130
    assert errors in ("", "vdsr: interrupted\n")
    assert set(rest.splitlines()) <= {"now"}
    assert not Path("a.ome.zarr").exists()
    done = subprocess.run([sys.executable, "-m", "vdsr_core", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    expected = super_resolve(read_image("a.tif").data, 2, model=load_checkpoint(network), tile=32)
    np.testing.assert_array_equal(read_image("a.ome.zarr").data, expected)
    assert sorted(os.listdir()) == ["a.ome.zarr", "a.tif"]


@pytest.fixture
def mapped(tmp_path):
    """The path of a small network that has maps."""
    path = tmp_path / "mapped.safetensors"
    save_checkpoint(path, make_model(0, VDSRConfig(4, 8, fold=2, maps=("noise", "compression"))))
    return path


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["--noise", "none", "--compression", 0], {"noise": 0, "compression": 0}),
        (["--noise", "auto", "--compression", 0.3], {"compression": 0.3}),
        (["--noise", 5], {"noise": 5}),
        (["--noise", "2:30"], {"noise": (2, 30)}),
        (["--noise", "3%", "--in-range", 0, 200], {"noise": 6, "in_range": (0, 200)}),
        (["--noise", 5, "--scale", 1], {"noise": 5, "scale": 1}),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "b.tif"])
def test_upscale_removes_noise_and_compression(folder, vdsr, mapped, draw, name, words, options):
    draw(folder / name, (40, 50))
    result = vdsr(
        "upscale", name, "-o", "out.tif", *([] if "--scale" in words else ["--scale", 2]), *words, model=mapped
    )
    assert result.exit_code == 0, result.stderr
    expected = super_resolve(read_image(name), **{"scale": 2, "model": mapped, **options})
    np.testing.assert_array_equal(read_image("out.tif").data, expected)
    clean = options.get("noise") == 0
    assert ("without noise" in result.stdout) != clean
    if not options:
        assert ("compression 0.02" in result.stdout) == (name == "a.jpg")


def test_plan_says_what_would_be_removed(vdsr, big, mapped):
    result = vdsr(*big, "x.ome.zarr", "--dry-run", "--noise", "3%", "--compression", 0.1, model=mapped)
    assert "removed  noise of 3 % of the range, compression 0.10" in result.stdout
    assert "removed" not in vdsr(*big, "x.ome.zarr", "--dry-run").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "much"], "must be a number, got 'much'. Try auto, none, 5, 3%"),
        (["--noise", "2,5"], "must have a decimal point, not a comma"),
        (["--noise", "-5%"], "must be from 0% to 100% of the range, got '-5%'"),
        (["--noise", "1:2:3"], "must be one or two numbers"),
        (["--noise", "-1"], "--noise must be 'auto', a standard deviation of at least 0"),
        (["--compression", "1.5"], "--compression must be 'auto' or a number from 0 to 1"),
        (["--compression", "strong"], "must be a number"),
    ],
)
def test_upscale_names_wrong_noise_and_compression(folder, vdsr, mapped, draw, words, message):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2, *words, model=mapped)
    assert (result.exit_code, os.listdir()) == (2, ["a.png"])
    assert message in result.stderr


@pytest.mark.parametrize("words", [["--noise", 5], ["--noise", "3%"], ["--compression", 0.1]])
def test_networks_without_maps_refuse_at_once(folder, vdsr, draw, words):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2, *words)
    assert (result.exit_code, os.listdir()) == (2, ["a.png"])
    assert f"{words[0]} must be 'auto' or 0 for a network that cannot remove it" in result.stderr


@pytest.mark.filterwarnings("always")
def test_an_image_that_does_not_fit_is_one_line(folder, vdsr, rng, mapped):
    noisy = rng.normal(100, 9, (60, 60)).clip(0, 255).astype(np.uint8)
    for name in ("a.png", "b.jpg"):
        write_image(name, ImageFile(noisy, "YX"))
    result = vdsr("upscale", "a.png", "b.jpg", "-o", "out", "--scale", 2)
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert "warning: the image is too noisy for this network" in lines[0]
    assert vdsr("upscale", "a.png", "-o", "out", "--scale", 3, model=mapped).stderr == ""


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line_however_many_images(folder, vdsr, network, draw):
    for name in ("a.png", "b.png"):
        draw(folder / name, (6, 7))
    result = vdsr("upscale", "a.png", "b.png", "-o", "out", "--scale", 1.5, "--model", network)
    assert (result.exit_code, sorted(os.listdir("out"))) == (0, ["a_x1.5.png", "b_x1.5.png"])
    assert [line[:35] for line in result.stderr.splitlines()] == ["vdsr: warning: the network was trai"]


def test_debug_shows_the_traceback(folder, vdsr, monkeypatch):
    monkeypatch.setenv("VDSR_DEBUG", "1")
    result = vdsr("upscale", "gone.png", "-o", "b.png", "--scale", 2)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("vdsr: gone.png does not exist")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_file_names_may_be_any_bytes(folder, vdsr, draw):
    draw(folder / "a.png", (6, 7))
    os.rename(b"a.png", b"\xe9.png")
    result = vdsr("upscale", ".", "-o", "out", "--scale", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert os.listdir(b"out") == [b"\xe9_x2.png"]


# Standard input and output


@pytest.mark.parametrize("kind", ["tif", "png", "jpg", "webp"])
def test_upscale_in_a_pipe_gives_the_file_that_it_gives_by_name(folder, network, draw, kind):
    draw(folder / f"a.{kind}", (12, 14, 3), axes="YXS")
    words = ["--scale", "2", "--model", str(network), "--jpeg-quality", "70"]
    for named in (f"a.{kind}", "-"):
        content = (folder / f"a.{kind}").read_bytes()
        result = CliRunner().invoke(app, ["upscale", named, "-o", "-", *words], input=content)
        assert result.exit_code == 0, result.stderr
        assert re.fullmatch(rf"{re.escape(named)} -> -  \(24, 28, 3\) uint8 .* s\n", result.stderr)
        assert CliRunner().invoke(app, ["upscale", named, "-o", f"b.{kind}", *words], input=content).exit_code == 0
        assert result.stdout_bytes == (folder / f"b.{kind}").read_bytes()
        os.remove(f"b.{kind}")
    result = CliRunner().invoke(app, ["upscale", "-", "-o", "-", "--format", "png", *words], input=content)
    assert result.stdout_bytes.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "content", "code", "message"),
    [
        (["-", "-o", "-"], b"", 1, "standard input must be a TIFF, PNG, JPEG or WebP, got nothing"),
        (["-", "-o", "-"], b"GIF89a", 1, "got bytes that begin with b'GIF8'"),
        (["-", "-o", "-"], b"\x89PNGdamaged", 1, "is not a readable PNG"),
        (["-", "a.png", "-o", "out/"], b"", 2, "- stands for one image"),
        (["a.png", "-o", "-", "--format", "zarr"], b"", 2, "--format: must be tif, ome.tif, png, jpg or webp"),
        (["a.png", "a.png", ".", "-o", "-"], b"", 0, ""),
        ([".", "-o", "-"], b"", 2, "must be a folder for 2 images"),
    ],
)
def test_what_cannot_go_through_a_pipe_is_named(folder, network, draw, words, content, code, message):
    for name in ("a.png", "b.png")[: 1 if code == 0 else 2]:
        draw(folder / name, (6, 7))
    words = ["upscale", *words, "--scale", "2", "--model", str(network)]
    result = CliRunner().invoke(app, words, input=content, env={"COLUMNS": "400"})
    assert (result.exit_code, bool(result.stdout_bytes)) == (code, code == 0)
    assert message in result.stderr
    assert set(os.listdir()) <= {"a.png", "b.png"}


@pytest.fixture
def big(folder):
    """A zarr array of 45 x 70 pixels; at x2 3 x 5 shards of 32 x 32."""
    write_image("big.zarr", ImageFile(np.arange(45 * 70, dtype=np.uint16).reshape(45, 70), "YX", (0.5, 0.5), "µm"))
    return ["upscale", "big.zarr", "--scale", 2, "--tile", 16, "--shard", 32, "-o"]


def test_upscale_streams_to_ome_zarr(vdsr, big, network):
    result = vdsr(*big, "big_x2.ome.zarr")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"big\.zarr -> big_x2\.ome\.zarr  \(90, 140\) uint16  \d+ shards", result.stdout)
    image = read_image("big_x2.ome.zarr")
    whole = super_resolve(read_image("big.zarr").data[:], 2, model=network, tile=16)
    np.testing.assert_array_equal(image.data[:], whole)
    assert (image.pixel_size, image.unit) == ((0.25, 0.25), "µm")
    assert "kept: it exists" in vdsr(*big, "big_x2.ome.zarr").stdout


@pytest.mark.parametrize("words", [[], ["--part", "1/1"]])
def test_upscale_streams_large_tiff(vdsr, big, folder, network, words, monkeypatch):
    if not words:
        monkeypatch.setattr("vdsr_core.streaming.files.STREAMED_BYTES", 1000)
    (folder / "big_x2.ome.tif").write_text("of old")
    assert "kept: it exists" in vdsr(*big, "big_x2.ome.tif", *words).stdout
    result = vdsr(*big, "big_x2.ome.tif", *words, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"big\.zarr -> big_x2\.ome\.tif  \(90, 140\) uint16  50 shards", result.stdout)
    image = read_image("big_x2.ome.tif")
    np.testing.assert_array_equal(image.data, super_resolve(read_image("big.zarr").data[:], 2, model=network, tile=16))
    assert (image.pixel_size, image.unit) == ((0.25, 0.25), "µm")
    assert vdsr("verify", "big_x2.ome.tif").exit_code == 0


def test_upscale_says_what_it_would_do(vdsr, big, folder):
    result = vdsr(*big, "big_x2.ome.zarr", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "(90, 140) uint16" in result.stdout
    assert re.search(r"shards   15, 6, 2, 1, 1 in 5 levels, 32 x 32 each", result.stdout)
    assert sorted(path.name for path in folder.iterdir()) == ["big.zarr"]
    result = vdsr(*big, "new/out/", "--format", "ome.tif", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "big.zarr -> new/out/big_x2.ome.tif  planned" in result.stdout
    assert "gone does not exist" in vdsr(*big, "gone/a.ome.zarr", "--dry-run").stderr
    assert sorted(path.name for path in folder.iterdir()) == ["big.zarr"]


def test_upscale_makes_parts(vdsr, big, folder):
    for number in (1, 2):
        result = vdsr(*big, "big_x2.ome.zarr", "--part", f"{number}/2")
        assert result.exit_code == 0, result.stderr
    assert "7 from before" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["big.zarr", "big_x2.ome.zarr"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["out.png", "--part", "1/2"],
            "--part needs results that are written piece by piece",
        ),
        (["out.zarr", "--dry-run"], "--dry-run: needs an OUT that ends in .ome.zarr or .tif, got out.zarr"),
        (["out.ome.zarr", "--part", "3/2"], "--part: must be a number from 1 to N"),
        (["out.ome.zarr", "--part", "x"], "--part: must be a number from 1 to N"),
    ],
)
def test_wrong_streaming_options_are_usage_errors(vdsr, big, words, message):
    result = vdsr(*big, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_wrong_cluster_is_named(vdsr, big):
    pytest.importorskip("distributed")
    result = vdsr(*big, "out.ome.zarr", "--cluster", "local:none")
    assert result.exit_code == 1
    assert "--cluster must be the address of a scheduler" in result.stderr


def test_verify_tells_what_differs(vdsr, big):
    import zarr

    vdsr(*big, "big_x2.ome.zarr")
    assert vdsr("verify", "big_x2.ome.zarr").exit_code == 0
    zarr.open_array("big_x2.ome.zarr/0")[:] = 0
    result = vdsr("verify", "big_x2.ome.zarr")
    assert result.exit_code == 1
    assert "DIFFERS by" in result.stdout
    assert "places differ by more than rounding" in result.stderr


def test_verify_of_a_damaged_result_is_one_line(vdsr, folder, draw):
    import zarr

    draw(folder / "a.tif", (9, 12))
    vdsr("upscale", "a.tif", "-o", "a.ome.zarr", "--scale", 2)
    group = zarr.open_group("a.ome.zarr", mode="r+")
    says = group.attrs["vdsr_core"]
    wrong = [{"tile": 0}, {"shape": None}, {"in_range": 5}, {"axes": "QQ"}, {"axes": None}, {"name": "x"}, {"gone": 1}]
    wrong += [{"source": "gone.tif"}, {"scale": [0, 0]}, {"dtype": "none"}, {"noise": [[]]}, {"shape": [1]}]
    for change in wrong:
        group.attrs["vdsr_core"] = says | change
        result = vdsr("verify", "a.ome.zarr", "--samples", 1)
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), change
        assert re.fullmatch("vdsr: .+\n", result.stderr), change


# Files of several images


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plate_becomes_a_plate(vdsr, network, folder, version):
    models = pytest.importorskip("ome_zarr_models")
    wells = [("A/1", 0, 0), ("B/2", 1, 1)]
    plate = {
        "version": version, "name": "cells", "rows": [{"name": "A"}, {"name": "B"}],
        "columns": [{"name": "1"}, {"name": "2"}],
        "wells": [{"path": path, "rowIndex": row, "columnIndex": column} for path, row, column in wells],
    }  # fmt: skip

    def write(path, says):
        attributes = says if version == "0.4" else {"ome": {"version": "0.5", **says}}
        zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes=attributes)

    write("plate.zarr", {"plate": plate})
    images = {}
    for well, row, column in wells:
        write(f"plate.zarr/{well}", {"well": {"version": version, "images": [{"path": "0"}, {"path": "1"}]}})
        for field in "01":
            name = f"{well}/{field}"
            images[name] = np.random.default_rng(row + int(field)).integers(0, 99, (20, 24 + column), np.uint16)
            job = plan(ImageFile(images[name], "YX"), 2, f"plate.zarr/{name}", model=network, format=version)
            list(stream(job, image=ImageFile(images[name], "YX"), model=network))
    options = ["--scale", 2, "--tile", 16, "--shard", 32]
    assert vdsr("upscale", "plate.zarr", "-o", "out.ome.zarr", *options, "--dry-run").exit_code == 0
    assert not (folder / "out.ome.zarr").exists()
    result = vdsr("upscale", "plate.zarr", "-o", "out.ome.zarr", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("->") == 4
    group = models.open_ome_zarr(zarr.open_group("out.ome.zarr", mode="r"))
    assert type(group).__name__ == "HCS"
    assert image_names("out.ome.zarr") == list(images)
    for name in images:
        whole = super_resolve(read_image(f"plate.zarr/{name}").data[:], 2, model=network, tile=16)
        np.testing.assert_array_equal(read_image(f"out.ome.zarr/{name}").data[:], whole)
    assert vdsr("upscale", "plate.zarr", "-o", "out.ome.zarr", *options).stdout.count("kept: it exists") == 4
    assert vdsr("verify", "out.ome.zarr", "--samples", 1).exit_code == 0


@pytest.mark.filterwarnings("ignore:not kept")
def test_images_of_a_tiff_become_files_or_a_collection(vdsr, network, folder):
    images = {"left eye": np.arange(30 * 20, dtype=np.uint16).reshape(30, 20), "right": np.eye(25, dtype=np.uint16)}
    with tifffile.TiffWriter("two.ome.tif", ome=True) as tiff:
        for name, pixels in images.items():
            tiff.write(pixels, metadata={"axes": "YX", "Name": name})
    options = ["--scale", 2, "--tile", 16]
    result = vdsr("upscale", "two.ome.tif", "-o", "out/", *options)
    assert result.exit_code == 0, result.stderr
    whole = {name: super_resolve(pixels, 2, model=network, tile=16) for name, pixels in images.items()}
    for name, path in zip(images, ("two_x2_left-eye.ome.tif", "two_x2_right.ome.tif"), strict=True):
        np.testing.assert_array_equal(read_image(folder / "out" / path).data, whole[name])
    result = vdsr("upscale", "two.ome.tif", "-o", "two_x2.ome.zarr", *options, "--shard", 32)
    assert result.exit_code == 0, result.stderr
    assert image_names("two_x2.ome.zarr") == ["0", "1"]
    for number, name in enumerate(images):
        np.testing.assert_array_equal(read_image(f"two_x2.ome.zarr/{number}").data[:], whole[name])
        says = zarr.open_group(f"two_x2.ome.zarr/{number}").attrs["ome"]
        assert says["multiscales"][0]["name"] == name
    result = vdsr("upscale", "two.ome.tif", "-o", "one.tif", *options)
    assert result.exit_code == 2
    assert "--output must be a folder or end in .ome.zarr for the 2 images" in " ".join(result.stderr.split())
