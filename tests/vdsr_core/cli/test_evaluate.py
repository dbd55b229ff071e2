import csv
import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from vdsr_core import (
    calibrate,
    compare_errors,
    evaluate,
    read_image,
    save_checkpoint,
)
from vdsr_core.evaluation import mean_scores


@pytest.fixture
def sharp(folder, draw):
    """Two sharp images by name."""
    return {
        "a": draw(folder / "a.png", (50, 41)).data,
        "b": draw(folder / "b.png", (40, 44, 3), axes="YXS").data,
    }


def numbers(rows):
    """Rows without what a clock says."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def expected_rows(model, images, scales, **options):
    """The rows that `evaluate` of vdsr_core gives."""
    scores = list(evaluate(model, images, scales, **options))
    pairs = [(a, b) for part in (scores, mean_scores(scores)) for a, b in zip(part[::2], part[1::2], strict=True)]
    return [
        {
            "image": ours.image, "scale": ours.scale, "bicubic_psnr": bicubic.psnr, "psnr": ours.psnr,
            "gain": ours.psnr - bicubic.psnr, "bicubic_ssim": bicubic.ssim, "ssim": ours.ssim,
        }
        for scale in scales for bicubic, ours in pairs if ours.scale == scale
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--scales", "2", "3"], ["--scales", "2 3"], ["--scales=2 3"]])
def test_evaluate_json_equals_evaluate(sharp, vdsr, tiny_model, words):
    result = vdsr("evaluate", ".", *words, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert numbers(json.loads(result.stdout)) == expected_rows(tiny_model, sharp, [2, 3])


def test_evaluate_measures_the_self_ensemble(sharp, vdsr, tiny_model):
    result = vdsr("evaluate", ".", "--scales", "2", "--self-ensemble", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    expected = expected_rows(tiny_model, sharp, [2], self_ensemble=True)
    assert numbers(json.loads(result.stdout)) == expected != expected_rows(tiny_model, sharp, [2])


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


def test_evaluate_json_has_no_nan(folder, vdsr, draw):
    draw(folder / "small.png", (10, 10))
    result = vdsr("evaluate", ".", "--scales", "2", "--format", "json")
    assert json.loads(result.stdout, parse_constant=pytest.fail)[0]["ssim"] is None


def test_evaluate_gate_fails_for_other_images_of_a_known_name(folder, vdsr, draw):
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
        (["deep", "--scales", "x"], 2, "must be a number, got 'x'"),
        (["deep", "--scales", " "], 2, "must be numbers"),
        (["deep", "--scales", "2,5"], 2, "must have a decimal point, not a comma, got '2,5'. Try --scales 2 2.5 3."),
        (["deep", "--scales", "2", "2,5"], 2, "must have a decimal point"),
        (["deep", "--scales", "2,3,4"], 2, "must have a decimal point"),
        (["deep", "--scales", "1"], 2, "must be greater than 1"),
        (["deep", "--scales"], 2, "requires an argument"),
    ],
)
def test_evaluate_names_bad_input(folder, vdsr, network, words, code, message, draw):
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


def test_evaluate_degrades_as_told(sharp, vdsr, tiny_model):
    result = vdsr("evaluate", ".", "--scales", 2, "--format", "json", "--degrade", "noise 5, jpeg 40, kernel box")
    options = {"read_noise": 5, "jpeg": 40, "kernel": "box"}
    scores = list(evaluate(tiny_model, sharp, [2], degradation=options))
    assert [row["psnr"] for row in json.loads(result.stdout)][:2] == [score.psnr for score in scores[1::2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois 5", "must be words and values, of noise, shot, jpeg, blur, kernel, got 'nois 5'"),
        ("noise", "must be words and values"),
        ("noise five", "must be a number, got 'five'"),
        ("noise -5", "must have numbers of at least 0, got 'noise -5'"),
        ("noise 5, jpeg 400", "must be a quality from 1 to 100"),
    ],
)
def test_evaluate_names_wrong_degradations(sharp, vdsr, text, message):
    result = vdsr("evaluate", ".", "--degrade", text)
    assert result.exit_code != 0
    assert message in result.stderr


@pytest.fixture
def calibrated(draw, folder, network, tiny_model):
    """A network whose errors are measured, in the file that the command takes, and the image in the folder."""
    image = draw(folder / "a.png", (96, 96)).data
    tiny_model.errors = calibrate(tiny_model, image, (2, 3))
    save_checkpoint(network, tiny_model)
    return tiny_model, image


def test_calibration_json_equals_compare_errors(calibrated, vdsr):
    model, image = calibrated
    result = vdsr("evaluate", ".", "--scales", "2", "3", "--calibration", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    reports = [json.loads(json.dumps(asdict(found))) for found in compare_errors(image, (2, 3), model=model)]
    assert json.loads(result.stdout) == reports
    result = vdsr("evaluate", ".", "--scales", "2", "--calibration", "--self-ensemble", "--format", "json")
    reports = [asdict(found) for found in compare_errors(image, 2, model=model, self_ensemble=True)]
    assert json.loads(result.stdout) == json.loads(json.dumps(reports))


def test_calibration_is_shown_and_drawn(calibrated, vdsr, tmp_path):
    model, image = calibrated
    (found,) = compare_errors(image, 2, model=model)
    result = vdsr("evaluate", ".", "--scales", "2", "--calibration")
    assert f"{found.coverage:.1%} of {found.pixels} pixels" in result.stdout
    assert f"| {100 * found.predicted[9]:9.3f} | {100 * found.measured[9]:8.3f} |" in result.stdout
    pytest.importorskip("matplotlib")
    noisy = vdsr("evaluate", ".", "--scales", "2", "--calibration", "--degrade", "noise 5")
    assert "`degradation` must add neither noise nor compression for a network that removes none" in noisy.stderr
    box = vdsr("evaluate", ".", "--scales", "2", "--calibration", "--degrade", "kernel box", "--format", "json")
    (found,) = compare_errors(image, 2, model=model, degradation={"kernel": "box"})
    assert json.loads(box.stdout)[0]["coverage"] == found.coverage
    assert vdsr("evaluate", ".", "--scales", "2", "--calibration", "-o", tmp_path / "plot.png").exit_code == 0
    assert read_image(tmp_path / "plot.png").data.shape[2] == 4


def test_a_picture_needs_calibration(folder, vdsr, draw):
    draw(folder / "a.png", (96, 96))
    result = vdsr("evaluate", ".", "-o", "plot.png")
    assert result.exit_code == 2
    assert "--calibration" in result.stderr
    assert not (folder / "plot.png").exists()


def test_calibration_needs_measured_errors(folder, vdsr, draw, tiny_model):
    draw(folder / "a.png", (96, 96))
    result = vdsr("evaluate", ".", "--scales", "2", "--calibration")
    assert result.exit_code == 1
    assert "--model must have its errors measured" in result.stderr
