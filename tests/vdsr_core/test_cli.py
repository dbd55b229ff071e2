import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from typer.main import get_command
from typer.testing import CliRunner

from vdsr_core import (
    ImageFile,
    __version__,
    evaluate,
    image_names,
    load_checkpoint,
    plan,
    read_image,
    save_checkpoint,
    stream,
    super_resolve,
    write_image,
)
from vdsr_core import io as vdsr_io
from vdsr_core.checkpoint import load_trainer
from vdsr_core.cli import app
from vdsr_core.cli_train import parse_time
from vdsr_core.evaluation import mean_scores
from vdsr_core.terminal import SUFFIXES
from vdsr_core.training import Trainer
from vdsr_core.training_log import TrainingLog


@pytest.fixture
def network(tmp_path, tiny_model):
    """The path of a small network; the tests' own folder is beside it."""
    (tmp_path / "network").mkdir()
    path = tmp_path / "network" / "tiny.safetensors"
    save_checkpoint(path, tiny_model)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    path = tmp_path / "images"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def vdsr(network):
    """Runs the command in this process, with the small network where a network is wanted."""

    def run(*words, model=network):
        words = [str(word) for word in words]
        return CliRunner().invoke(app, words if model is None else [*words, "--model", str(model)])

    return run


def draw(path, shape, dtype=np.uint8, axes="YX", **known):
    """Write an image of random blobs and return it."""
    rng = np.random.default_rng(sum(path.name.encode()))
    coarse = rng.random([-(-n // 3) if letter in "YX" else n for n, letter in zip(shape, axes, strict=True)])
    for axis, letter in enumerate(axes):
        coarse = np.repeat(coarse, 3, axis) if letter in "YX" else coarse
    limit = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    image = ImageFile((coarse[tuple(slice(n) for n in shape)] * limit).astype(dtype), axes, **known)
    write_image(path, image)
    return image


# ---------------------------------------------------------------------------------------------- upscale


@pytest.mark.parametrize(
    ("scale", "shape"), [("2", (40, 50)), ("2.5", (50, 62)), ("2,1.5", (40, 38)), ("1,3", (20, 75))]
)
def test_upscale_writes_what_super_resolve_gives(folder, vdsr, network, scale, shape):
    image = draw(folder / "a.tif", (20, 25), np.uint16, pixel_size=(0.5, 0.5), unit="µm")
    result = vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", scale, "--tile", 16)
    assert result.exit_code == 0, result.stderr
    assert re.fullmatch(rf"a\.tif -> b\.tif  \({shape[0]}, {shape[1]}\) uint16  \d+\.\d s\n", result.stdout)
    assert result.stderr == ""
    out = read_image("b.tif")
    pair = tuple(float(s) for s in scale.split(",")) * (2 if "," not in scale else 1)
    np.testing.assert_array_equal(out.data, super_resolve(image.data, pair, model=network, tile=16))
    assert out.pixel_size == pytest.approx((0.5 / pair[0], 0.5 / pair[1]))
    assert out.data.shape == shape


def test_upscale_reads_colour_and_channels_from_the_file(folder, vdsr, network):
    rgb = draw(folder / "rgb.png", (12, 14, 3), axes="YXS")
    cells = draw(folder / "cells.ome.tif", (2, 12, 14), np.uint16, axes="CYX", channel_names=("DNA", "actin"))
    result = vdsr("upscale", ".", "-o", "out", "--scale", 2)
    assert result.exit_code == 0, result.stderr
    out = read_image("out/rgb_x2.png").data
    np.testing.assert_array_equal(out, super_resolve(rgb.data, 2, model=network, rgb=True))
    out = read_image("out/cells_x2.ome.tif")
    np.testing.assert_array_equal(out.data, super_resolve(cells.data, 2, model=network, channel_axis=0))
    assert out.channel_names == ("DNA", "actin")


def test_upscale_axes_says_what_the_file_does_not(folder, vdsr, network):
    image = draw(folder / "a.tif", (2, 12, 14), axes="QYX")
    assert vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 2, "--axes", "CYX").exit_code == 0
    expected = super_resolve(image.data, 2, model=network, channel_axis=0)
    np.testing.assert_array_equal(read_image("b.tif").data, expected)
    result = vdsr("upscale", "a.tif", "-o", "c.tif", "--scale", 2, "--axes", "YXZ")
    assert result.exit_code == 1
    assert "a.tif: the last axes must be rows and columns (YX), got YXZ" in result.stderr


def test_upscale_in_range_is_used(folder, vdsr, network):
    image = draw(folder / "a.tif", (12, 14), np.float32)
    assert vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 2, "--in-range", "-1", "4.5").exit_code == 0
    expected = super_resolve(image.data, 2, model=network, in_range=(-1, 4.5))
    np.testing.assert_array_equal(read_image("b.tif").data, expected)


@pytest.mark.parametrize("source", [("in",), ("in/*.png",), ("in/**",), ("in/a.png", "in/b.png"), ("in", "in/a.*")])
def test_upscale_takes_folders_and_patterns(folder, vdsr, source):
    (folder / "in").mkdir()
    for name in ("a.png", "b.png"):
        draw(folder / "in" / name, (6, 7))
    (folder / "in" / "notes.txt").write_text("no image")
    result = vdsr("upscale", *source, "-o", "new/out", "--scale", 3, "--format", "tif")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir("new/out")) == ["a_x3.tif", "b_x3.tif"]


def test_upscale_takes_names_with_brackets_and_dots(folder, vdsr):
    draw(folder / "a[1].v2.png", (6, 7))
    assert vdsr("upscale", "a[1].v2.png", "-o", "out.v2/", "--scale", "2,1.5").exit_code == 0
    assert os.listdir("out.v2") == ["a[1].v2_x2x1.5.png"]


def test_upscale_reads_and_writes_zarr(folder, vdsr, network):
    pytest.importorskip("zarr")
    image = draw(folder / "a.zarr", (2, 20, 25), np.uint16, axes="CYX")
    assert vdsr("upscale", ".", "-o", "out", "--scale", 2).exit_code == 0
    out = read_image("out/a_x2.zarr")
    assert (out.axes, out.data.dtype) == ("CYX", np.uint16)
    np.testing.assert_array_equal(out.data[...], super_resolve(image.data, 2, model=network, channel_axis=0))
    assert vdsr("upscale", "a.zarr", "-o", "b.zarr", "--scale", 2).exit_code == 0
    assert vdsr("upscale", "a.zarr", "-o", "b.zarr", "--scale", 2).stdout.endswith("(--overwrite replaces it)\n")


def test_upscale_keeps_outputs_unless_told(folder, vdsr):
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


def test_upscale_into_its_own_folder_does_not_upscale_outputs_again(folder, vdsr):
    draw(folder / "a.png", (6, 7))
    for _ in range(2):
        assert vdsr("upscale", ".", "-o", ".", "--scale", 2).exit_code == 0
    assert sorted(os.listdir()) == ["a.png", "a_x2.png"]


def test_upscale_never_replaces_an_input(folder, vdsr):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "a.png", "--scale", 2, "--overwrite")
    assert result.exit_code == 1
    assert "must be the output of one image and no input" in result.stderr
    assert read_image("a.png").data.shape == (6, 7)


def test_upscale_refuses_two_images_with_one_output(folder, vdsr):
    for name in ("x", "y"):
        (folder / name).mkdir()
        draw(folder / name / "a.png", (6, 7))
    result = vdsr("upscale", "x", "y", "-o", "out", "--scale", 2)
    assert result.exit_code == 1
    assert re.search(r"out.a_x2\.png must be the output of one image and no input, got x.a\.png and y", result.stderr)
    assert not (folder / "out").exists()


def test_upscale_goes_on_after_a_bad_file(folder, vdsr):
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
def test_upscale_checks_the_target_before_computing(folder, vdsr, monkeypatch, target, message):
    draw(folder / "a.png", (6, 7), np.uint16)
    monkeypatch.setattr("vdsr_core.cli_upscale.upscale_image", lambda *_: pytest.fail("computed"))
    result = vdsr("upscale", "a.png", "-o", target, "--scale", 2)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir() == ["a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "-o", "b.png"], "Missing option"),
        (["a.png", "-o", "b.png", "--scale", "two"], "must be a number"),
        (["a.png", "-o", "b.png", "--scale", "1,2,3"], "must be a number"),
        (["a.png", "-o", "b.png", "--scale", "0.5"], "must be greater than 1"),
        (["a.png", "-o", "b.png", "--scale", "nan"], "finite"),
        (["a.png", "-o", "b.png", "--scale", "1e9"], "at most 1000"),
        (["a.png", "-o", "b.png", "--scale", "2", "--tile", "0"], "--tile"),
        (["a.png", "-o", "b.png", "--scale", "2", "--device", "abacus"], "--device must be one of cpu"),
        (["a.png", "-o", "b.png", "--scale", "2", "--in-range", "5", "5"], "low < high"),
        (["a.png", "a.png", ".", "-o", "b.png", "--scale", "2", "--format", "png"], "folder OUT"),
        (["*.png", "-o", "b.png", "--scale", "2"], "must be a folder for 2 images"),
    ],
)
def test_upscale_names_wrong_options(folder, vdsr, words, message):
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


def test_upscale_refuses_what_memory_cannot_hold(folder, vdsr, monkeypatch):
    draw(folder / "a.tif", (300, 300), np.float64)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10**8}))
    result = vdsr("upscale", "a.tif", "-o", "b.tif", "--scale", 20)
    assert result.exit_code == 1
    assert "a.tif: the result must fit in memory, got 0.3 GB for shape (6000, 6000) with 0.1 GB free" in result.stderr


def test_unknown_network_lists_the_known_ones(folder, vdsr):
    draw(folder / "a.png", (6, 7))
    result = vdsr("upscale", "a.png", "-o", "b.png", "--scale", 2, model="nope")
    assert result.exit_code == 1
    assert result.stderr.startswith("vdsr: `model` must be one of ")
    assert len(result.stderr.splitlines()) == 1


def test_interruption_leaves_no_file(folder, vdsr, monkeypatch):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    draw(folder / "a.png", (6, 7))
    for where in ("vdsr_core.inference.super_resolve_tiles", "vdsr_core.io.write_png"):
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
def test_ctrl_c_leaves_no_file(folder, network):
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


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line_however_many_images(folder, vdsr, network):
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
def test_file_names_may_be_any_bytes(folder, vdsr):
    draw(folder / "a.png", (6, 7))
    os.rename(b"a.png", b"\xe9.png")
    result = vdsr("upscale", ".", "-o", "out", "--scale", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert os.listdir(b"out") == [b"\xe9_x2.png"]


# --------------------------------------------------------------------------------------------- evaluate


@pytest.fixture
def sharp(folder):
    """Two sharp images by name."""
    return {
        "a": draw(folder / "a.png", (50, 41)).data,
        "b": draw(folder / "b.png", (40, 44, 3), axes="YXS").data,
    }


def numbers(rows):
    """Rows without what a clock says."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def expected_rows(model, images, scales):
    """The rows that `evaluate` of vdsr_core gives."""
    scores = list(evaluate(model, images, scales))
    pairs = [(a, b) for part in (scores, mean_scores(scores)) for a, b in zip(part[::2], part[1::2], strict=True)]
    return [
        {
            "image": ours.image, "scale": ours.scale, "bicubic_psnr": bicubic.psnr, "psnr": ours.psnr,
            "gain": ours.psnr - bicubic.psnr, "bicubic_ssim": bicubic.ssim, "ssim": ours.ssim,
        }
        for scale in scales for bicubic, ours in pairs if ours.scale == scale
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--scales", "2", "3"], ["--scales", "2,3"], ["--scales=2,3"]])
def test_evaluate_json_equals_evaluate(sharp, vdsr, tiny_model, words):
    result = vdsr("evaluate", ".", *words, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert numbers(json.loads(result.stdout)) == expected_rows(tiny_model, sharp, [2, 3])


def test_evaluate_csv_equals_evaluate(sharp, vdsr, tiny_model):
    result = vdsr("evaluate", "--scales", "3", ".", "--format", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [
        {key: value if key == "image" else float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(result.stdout))
    ]
    assert [row["image"] for row in rows] == ["a", "b", "mean"]
    assert numbers(rows) == expected_rows(tiny_model, sharp, [3])
    assert all(row["seconds"] > 0 for row in rows)


def test_evaluate_table_shows_both_methods(sharp, vdsr, tiny_model):
    result = vdsr("evaluate", ".", "--mean-only", "--scales", "2.5", "4")
    assert (result.exit_code, result.stderr) == (0, "")
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()]
    assert head == ["image", "scale", "bicubic psnr", "psnr", "gain", "bicubic ssim", "ssim", "seconds"]
    for row, known in zip(
        rows, [r for r in expected_rows(tiny_model, sharp, [2.5, 4]) if r["image"] == "mean"], strict=True
    ):
        assert row[:2] == ["mean", f"{known['scale']:g}"]
        assert row[2:5] == [f"{known['bicubic_psnr']:.2f}", f"{known['psnr']:.2f}", f"{known['gain']:+.2f}"]


def test_evaluate_writes_the_format_of_the_suffix(sharp, vdsr, tiny_model, tmp_path):
    result = vdsr("evaluate", ".", "--scales", "2", "-o", tmp_path / "scores.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert numbers(json.loads((tmp_path / "scores.json").read_text())) == expected_rows(tiny_model, sharp, [2])


def test_evaluate_json_has_no_nan(folder, vdsr):
    draw(folder / "small.png", (10, 10))
    result = vdsr("evaluate", ".", "--scales", "2", "--format", "json")
    assert json.loads(result.stdout, parse_constant=pytest.fail)[0]["ssim"] is None


def test_evaluate_gate_fails_for_other_images_of_a_known_name(folder, vdsr):
    (folder / "Set5").mkdir()
    draw(folder / "Set5" / "a.png", (40, 40))
    result = vdsr("evaluate", "Set5", "--scales", "2", "--format", "csv")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert re.fullmatch(r"vdsr: bicubic must score 33\.66 dB on Set5 x2, got .*\n", result.stderr)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone"], 1, "vdsr: gone is not a folder"),
        (["empty"], 1, "vdsr: empty holds no image"),
        (["deep"], 1, "must be 8-bit gray"),
        (["deep", "-o", "gone/scores.csv"], 1, "gone does not exist"),
        (["deep", "--scales", "x"], 2, "must be numbers"),
        (["deep", "--scales", ","], 2, "must be numbers"),
        (["deep", "--scales", "1"], 2, "must be greater than 1"),
        (["deep", "--scales"], 2, "requires an argument"),
    ],
)
def test_evaluate_names_bad_input(folder, vdsr, network, words, code, message):
    (folder / "empty").mkdir()
    (folder / "deep").mkdir()
    draw(folder / "deep" / "a.png", (40, 40), np.uint16)
    result = vdsr("evaluate", "--model", network, *words, model=None)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def test_evaluate_known_set_passes_the_gate(data_dir, vdsr):
    result = vdsr("evaluate", data_dir / "Set5", "--scales", "4", "--mean-only", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)[0]["bicubic_psnr"] == pytest.approx(28.42, abs=0.005)


# -------------------------------------------------------------------------------------- info, the whole


def test_info_names_network_machine_and_versions(tmp_path, tiny_model, vdsr):
    tiny_model.card = {"name": "tiny", "terms": "", "scores": {"Set5": {"x2": 36.5}}, "note": "[bold]"}
    save_checkpoint(tmp_path / "card.safetensors", tiny_model)
    result = vdsr("info", tmp_path / "card.safetensors", model=None)
    assert (result.exit_code, result.stderr) == (0, "")
    parameters = sum(parameter.numel() for parameter in tiny_model.parameters())
    for line in (
        f"vdsr      {__version__}",
        f"numpy     {np.__version__}",
        "embedded  starter",
        f"network   depth 4, width 8, {parameters} parameters",
        "halo      4 pixels",
        "name      tiny",
        "scores\n  Set5\n    x2    36.5",
        "note      [bold]",
    ):
        assert f"{line}\n" in result.stdout
    assert "terms" not in result.stdout


def test_info_describes_the_default_network(vdsr):
    result = vdsr("info", model=None)
    assert "\nnetwork   depth 20, width 64, 665921 parameters\nscales    2, 3, 4\n" in result.stdout


def test_doctor_names_engines_and_what_is_chosen(vdsr):
    result = vdsr("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^cpu       torch +\d+\.\d{3}   0\.0e\+00", result.stdout, re.MULTILINE)
    assert result.stdout.count(" chosen\n") == 1


def test_info_of_a_damaged_file_is_one_line(tmp_path, vdsr):
    (tmp_path / "a.pt").write_bytes(b"PK")
    result = vdsr("info", tmp_path / "a.pt", model=None)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("vdsr: ")


def test_help_names_every_option(vdsr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name, command in get_command(app).commands.items():
        shown = re.sub(r"\x1b\[[\d;]*m", "", vdsr(name, "--help", model=None).stdout)
        for param in command.params:
            assert param.param_type_name == "argument" or all(word in shown for word in param.opts)
            assert param.help.endswith("."), f"{name} {param.name}"


def test_help_and_version_load_no_torch():
    code = "import sys; from vdsr_core.cli import app\n"
    code += "try: app(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
        assert "vdsr" in done.stdout.lower()


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vdsr_core", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vdsr {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "vdsr_core", "upscale"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vdsr upscale: Missing ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "vdsr: No such option: --foo"),
        (["enlarge"], "vdsr: No such command 'enlarge'"),
        (["upscale", "--foo"], "vdsr upscale: No such option: --foo"),
        (["upscale", "a.png", "-o"], "vdsr upscale: Option '-o' requires an argument"),
        (["upscale", "a.png", "-o", "b.png", "--scale", "nan"], "vdsr upscale: --scale must be a positive finite"),
        (
            ["upscale", "a.png", "-o", "b.png", "--scale", "2", "--tile", "0"],
            "vdsr upscale: Invalid value for '--tile'",
        ),
        (
            ["upscale", "a.png", "-o", "b.png", "--scale", "2", "--tile", "x"],
            "vdsr upscale: Invalid value for '--tile'",
        ),
        (["train", "a", "-o", "b.csv"], "vdsr train: --output must end with .safetensors, got b.csv."),
    ],
)
def test_a_wrong_command_line_is_one_line(folder, vdsr, words, message):
    draw(folder / "a.png", (6, 7))
    result = vdsr(*words, model=None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_no_words_show_the_help(vdsr):
    result = vdsr(model=None)
    assert (result.exit_code, result.stderr) == (2, "")
    assert "Usage: " in result.stdout


def test_suffixes_are_those_of_io():
    assert set(SUFFIXES) == set(vdsr_io._KINDS)


# ------------------------------------------------------------------------------------------------ train


@pytest.fixture
def photographs(folder):
    """Five sharp images in a folder of their own, below the current one."""
    (folder / "sharp").mkdir()
    for number in range(5):
        draw(folder / "sharp" / f"{number}.png", (30 + number, 40, 3), axes="YXS")
    return folder / "sharp"


@pytest.fixture
def train(vdsr, network):
    """Runs a short training of the small network on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ["-o", "out.safetensors", "--from", network, "--scales", "2", "--steps", "6"]
    yield lambda *more: vdsr("train", "sharp", *words, *more, model=None)
    torch.set_num_threads(threads)


def parameters(path):
    return torch.cat([parameter.detach().ravel() for parameter in load_checkpoint(path).parameters()])


def stop_at(monkeypatch, step, stop):
    """Let something happen within a step of the training."""
    advance = Trainer.advance

    def stopping(self, *args):
        result = advance(self, *args)
        if self.step == step:
            stop()
        return result

    monkeypatch.setattr(Trainer, "advance", stopping)


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_train_takes_the_options_of_its_recipe(photographs, train):
    result = train("--patch", 20, "--average", 0.5)
    assert result.exit_code == 0, result.stderr
    recipe = load_checkpoint("out.safetensors").card["recipe"]
    assert "patches of 20 x 20" in recipe
    assert "weight average 0.5" in recipe
    result = train("--initial", "identity", "--overwrite")
    assert result.exit_code == 2
    assert result.stderr == "vdsr train: --initial goes without --from: it is for a new network.\n"


def test_train_writes_a_better_known_network_and_a_log(photographs, train, network):
    result = train("--preset", "finetune")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^out\.safetensors  6 steps, \d+ s, [+-]\d+\.\d\d dB over bicubic\n$", result.stdout, re.M)
    model = load_checkpoint("out.safetensors")
    assert load_trainer("out.safetensors") is None
    assert not torch.equal(parameters("out.safetensors"), parameters(network))
    assert model.scales == (2.0,)
    assert model.card["data"] == "5 images (5 planes), of sharp, 10% held out"
    assert model.card["recipe"].startswith("from tiny")
    rows = rows_of("out.train.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]  # each is measured in so short a training
    assert float(rows[-1]["gain"]) == pytest.approx(gain_of(model.card), abs=2e-3)


def test_train_takes_batch_size_and_learning_rate(photographs, train):
    result = train("--batch-size", "3", "--learning-rate", "2e-5")
    assert result.exit_code == 0, result.stderr
    recipe = load_checkpoint("out.safetensors").card["recipe"]
    assert "of 3 patches" in recipe
    assert "rate 2e-05" in recipe
    assert "`batch_size` must be a whole number of at least 1" in train("--overwrite", "--batch-size", "0").stderr


def gain_of(card):
    scores = card["hold_out"]["2"]
    return scores["after"] - scores["bicubic"]


@pytest.mark.parametrize("preset", ["finetune", "kim2016"])
def test_resumed_after_ctrl_c_equals_uninterrupted(photographs, train, monkeypatch, preset):
    assert train("--preset", preset).exit_code == 0
    whole, rows = parameters("out.safetensors"), rows_of("out.train.csv")
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        result = train("--preset", preset, "--overwrite")
    assert result.exit_code == 130
    assert "interrupted after step 3; --resume goes on from out.safetensors" in result.stderr
    assert load_trainer("out.safetensors")[1]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = train("--resume")
    assert result.exit_code == 0, result.stderr
    assert torch.equal(parameters("out.safetensors"), whole)
    for row, again in zip(rows, rows_of("out.train.csv"), strict=True):
        row.pop("patches_per_second"), again.pop("patches_per_second")
        assert row == again


def test_killed_training_loses_the_steps_since_the_last_checkpoint(photographs, train, monkeypatch):
    assert train().exit_code == 0
    whole = parameters("out.safetensors")

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        stop_at(patch, 4, kill)
        assert isinstance(train("--overwrite", "--save-every", "0s").exception, Killed)
    assert load_trainer("out.safetensors")[1]["step"] == 3
    assert train("--resume").exit_code == 0
    assert torch.equal(parameters("out.safetensors"), whole)


def test_resume_refuses_another_training(photographs, train, vdsr, folder):
    assert "out.safetensors does not exist" in train("--resume").stderr
    assert train().exit_code == 0
    assert "got a finished network" in train("--resume").stderr
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train("--overwrite").exit_code == 130
    assert "`steps` must be as the training was begun, 6, got 7" in train("--resume", "--steps", "7").stderr
    draw(folder / "sharp" / "new.png", (30, 30))
    assert "got ['new.png'] missing or too many" in train("--resume").stderr


def test_a_training_that_exists_is_kept(photographs, train):
    assert train().exit_code == 0
    before = (photographs.parent / "out.safetensors").read_bytes()
    result = train()
    assert result.exit_code == 1
    assert "out.safetensors exists" in result.stderr
    assert (photographs.parent / "out.safetensors").read_bytes() == before


def test_loss_that_is_not_finite_keeps_the_last_checkpoint(photographs, train, monkeypatch):
    monkeypatch.setattr("vdsr_core.training.compute_loss", lambda sr, hr, kind: (sr * math.nan).sum())
    result = train()
    assert result.exit_code == 1
    assert "the loss must stay finite, got nan in step 1" in result.stderr
    assert load_trainer("out.safetensors")[1]["step"] == 0


def test_bad_images_are_left_out_named_and_counted(photographs, train):
    (photographs / "broken.png").write_bytes(b"no image")
    draw(photographs / "small.tif", (7, 30))
    write_image(photographs / "flat.tif", ImageFile(np.zeros((40, 40), np.uint16), "YX"))
    result = train()
    assert result.exit_code == 0, result.stderr
    assert "broken.png is not a readable" in result.stderr
    assert "flat.tif: left out, constant" in result.stderr
    assert "small.tif: left out, smaller than 8 x 8 pixels" in result.stderr
    assert "3 of 8 images left out" in result.stderr
    for path in photographs.iterdir():
        if path.suffix == ".png":
            path.write_bytes(b"")
    assert "must hold an image to train with, got 8 that cannot be used" in train("--overwrite").stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400), ("45s", 45), ("7", 7)]
)
def test_times(text, seconds):
    assert parse_time(text, "--time-budget") == seconds


def test_output_must_be_a_checkpoint(photographs, vdsr):
    result = vdsr("train", "sharp", "-o", "out.csv", model=None)
    assert result.exit_code == 2
    assert "must end with .safetensors, got out.csv" in result.stderr


@pytest.mark.parametrize("text", ["", "2x", "h", "1m2h", "-3s", "1..5h"])
def test_bad_times_are_usage_errors(photographs, train, text):
    result = train("--save-every", text)
    assert result.exit_code == 2
    assert result.stderr == f"vdsr train: --save-every must be a time, got {text!r}. Try 2h, 90m or 1h30m.\n"


def test_time_budget_bounds_the_training(photographs, vdsr, network):
    words = ["-o", "out.safetensors", "--from", network, "--time-budget", "0.2s"]
    result = vdsr("train", "sharp", *words, model=None)
    assert result.exit_code == 0, result.stderr
    assert "steps, 0 s" in result.stdout


def test_curves_are_drawn_where_matplotlib_is_installed(photographs, train):
    pytest.importorskip("matplotlib")
    assert train().exit_code == 0
    assert read_image("out.train.png").data.shape[2] >= 3


def test_several_folders_train_together(photographs, vdsr, network, folder):
    (folder / "more").mkdir()
    draw(folder / "more" / "0.png", (33, 40))  # a name that the other folder has, too
    draw(folder / "more" / "new.png", (33, 40))
    words = ["-o", "out.safetensors", "--from", network, "--scales", "2", "--steps", "1"]
    result = vdsr("train", "sharp", "more", *words, model=None)
    assert result.exit_code == 0, result.stderr
    assert load_checkpoint("out.safetensors").card["data"] == "7 images (7 planes), of sharp, more, 10% held out"


@pytest.mark.skipif(sys.platform != "linux", reason="torchrun with gloo")
def test_two_processes_train_as_one(photographs, train, network):
    """One log, one report, one file; the weights of one process to rounding."""
    assert train().exit_code == 0
    whole = parameters("out.safetensors")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "vdsr_core", "train", "sharp", "-o", "two.safetensors", "--from", str(network)]
    command += ["--scales", "2", "--steps", "6", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps,") == 1
    torch.testing.assert_close(parameters("two.safetensors"), whole, rtol=0, atol=1e-6)
    assert not torch.equal(whole, parameters(network))
    for row, other in zip(rows_of("out.train.csv"), rows_of("two.train.csv"), strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


def test_log_drops_the_rows_that_come_again(tmp_path):
    (tmp_path / "out.train.csv").write_text("step,loss\n100,3.0\n200,2.0\n300,1.0\n")
    with TrainingLog(tmp_path / "out.safetensors", 200) as log:
        assert [row["step"] for row in log.rows] == ["100", "200"]
    assert [row["loss"] for row in rows_of(tmp_path / "out.train.csv")] == ["3.0", "2.0"]


# Streaming, to OME-Zarr and OME-TIFF


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
def test_upscale_streams_large_tiff(vdsr, big, network, words, monkeypatch):
    if not words:
        monkeypatch.setattr("vdsr_core.cli_upscale.LARGE", 1000)
    result = vdsr(*big, "big_x2.ome.tif", *words)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"big\.zarr -> big_x2\.ome\.tif  \(90, 140\) uint16  50 shards", result.stdout)
    image = read_image("big_x2.ome.tif")
    np.testing.assert_array_equal(image.data, super_resolve(read_image("big.zarr").data[:], 2, model=network, tile=16))
    assert (image.pixel_size, image.unit) == ((0.25, 0.25), "µm")
    assert vdsr("verify", "big_x2.ome.tif").exit_code == 0
    assert "kept: it exists" in vdsr(*big, "big_x2.ome.tif").stdout


def test_upscale_says_what_it_would_do(vdsr, big, folder):
    result = vdsr(*big, "big_x2.ome.zarr", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "(90, 140) uint16" in result.stdout
    assert re.search(r"shards   15, 6, 2, 1, 1 in 5 levels, 32 x 32 each", result.stdout)
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
        (["out.png", "--part", "1/2"], "--part: goes with an OUT that ends in .ome.zarr or .tif"),
        (["out.zarr", "--dry-run"], "--dry-run: goes with an OUT that ends in .ome.zarr or .tif"),
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
    assert "`cluster` must be the address of a scheduler" in result.stderr


def test_verify_tells_what_differs(vdsr, big):
    import zarr

    vdsr(*big, "big_x2.ome.zarr")
    assert vdsr("verify", "big_x2.ome.zarr").exit_code == 0
    zarr.open_array("big_x2.ome.zarr/0")[:] = 0
    result = vdsr("verify", "big_x2.ome.zarr")
    assert result.exit_code == 1
    assert "DIFFERS by" in result.stdout
    assert "places differ by more than rounding" in result.stderr


# Files of several images


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plate_becomes_a_plate(vdsr, network, folder, version):
    zarr, models = pytest.importorskip("zarr"), pytest.importorskip("ome_zarr_models")
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


def test_images_of_a_tiff_become_files_or_a_collection(vdsr, network, folder):
    zarr = pytest.importorskip("zarr")
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
