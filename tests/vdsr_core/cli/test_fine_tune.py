import csv
import inspect
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vdsr_core import ImageFile, fine_tune, load_checkpoint, read_card, read_image, save_checkpoint, write_image
from vdsr_core.cli import fine_tune as cli_fine_tune
from vdsr_core.cli.main import app
from vdsr_core.training.recipe import FineTuneConfig
from vdsr_core.training.resume import RunFile
from vdsr_core.training.trainer import Trainer

QUICK = ["--scales", "2", "--steps", "6", "--batch-size", "2", "--patch", "16", "--validate-every", "2"]


@pytest.fixture
def sharp(tmp_path, monkeypatch):
    """Five sharp images in a folder below the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sharp"
    folder.mkdir()
    for number in range(5):
        coarse = np.random.default_rng(number).integers(0, 4000, (10 + number, 12), dtype=np.uint16)
        write_image(folder / f"{number}.tif", ImageFile(np.kron(coarse, np.ones((4, 4), np.uint16)), "YX"))
    return folder


@pytest.fixture
def run(sharp, tiny_model):
    """Runs the command on these images, with a small network to start from."""
    save_checkpoint("tiny.safetensors", tiny_model)
    return lambda *words: CliRunner().invoke(app, ["fine-tune", "sharp", *words])


def parameters(path):
    return torch.cat([parameter.detach().ravel() for parameter in load_checkpoint(path).parameters()])


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_fine_tune_gives_the_weights_of_the_function(run, sharp):
    (sharp / "broken.png").write_bytes(b"nothing")
    write_image(sharp / "invalid.tif", ImageFile(np.full((30, 30), np.nan, np.float32), "YX"))
    words = [
        "--learning-rate",
        "1e-3",
        "--added-noise",
        "0.01",
        "--theta",
        "0.1",
        "--hold-out",
        "0.4",
        "--optimizer",
        "adamw",
    ]
    result = run("-o", "out.safetensors", "--from", "tiny.safetensors", *QUICK, *words)
    assert result.exit_code == 0, result.stderr
    assert "broken.png" in result.stderr
    assert "invalid.tif" in result.stderr
    total = len(list(sharp.iterdir()))
    assert f"vdsr: 2 of {total} images left out" in result.stderr
    (sharp / "invalid.tif").unlink()
    images = {path.name: read_image(path) for path in sorted(sharp.glob("*.tif"))}
    options = {
        "steps": 6,
        "batch_size": 2,
        "patch": 16,
        "validate_every": 2,
        "added_noise": 0.01,
        "theta": 0.1,
        "optimizer": "adamw",
    }
    with warnings.catch_warnings(action="ignore"):
        model = fine_tune(
            images, model="tiny.safetensors", scales=[2], learning_rate=1e-3, hold_out=0.4, seed=0, **options
        )
    expected = torch.cat([parameter.detach().ravel() for parameter in model.parameters()])
    assert torch.equal(parameters("out.safetensors"), expected)
    assert not torch.equal(expected, parameters("tiny.safetensors"))
    assert load_checkpoint("out.safetensors").card == model.card | {"name": "out"}
    assert result.stdout.splitlines()[-1] == f"out.safetensors  {model.card['summary']}"
    assert [row["step"] for row in rows_of("out.train.csv")] == ["2", "4", "6"]


def test_fine_tune_has_an_option_for_each_setting():
    """All but the time; with the defaults of the function."""
    given = inspect.signature(cli_fine_tune.fine_tune).parameters
    settings = FineTuneConfig().to_json()
    del settings["seconds"]
    assert {name: given[name].default for name in settings} == settings


def test_fine_tune_interrupted_and_resumed_is_uninterrupted(run, monkeypatch):
    words = ["--from", "tiny.safetensors", *QUICK]
    assert run("-o", "whole.safetensors", *words).exit_code == 0
    advance = Trainer._advance

    def interrupt(self, *args):
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", interrupt)
        result = run("-o", "out.safetensors", *words)
    assert result.exit_code == 130
    assert "interrupted after step 3; --resume continues out.safetensors" in result.stderr
    assert run("-o", "out.safetensors", *words).exit_code == 1  # it exists
    result = run("-o", "out.safetensors", "--from", "tiny.safetensors", "--resume")  # all else is in the file
    assert result.exit_code == 0, result.stderr
    assert torch.equal(parameters("out.safetensors"), parameters("whole.safetensors"))
    assert [row["gain"] for row in rows_of("out.train.csv")] == [row["gain"] for row in rows_of("whole.train.csv")]
    log, written = (Path("out" + ending).read_bytes() for ending in (".train.csv", ".safetensors"))
    again = run(
        "-o", "out.safetensors", "--from", "tiny.safetensors", "--resume"
    )  # as a queue does that starts a job once more
    assert (again.exit_code, again.stdout.splitlines()) == (0, result.stdout.splitlines()[-2:])
    assert (Path("out.train.csv").read_bytes(), Path("out.safetensors").read_bytes()) == (log, written)
    assert read_card("out.safetensors")["name"] == "out"
    other = run("-o", "out.safetensors", "--from", "tiny.safetensors", "--resume", "--seed", "1")
    assert (other.exit_code, "--seed must be that of the run" in other.stderr) == (1, True)


def test_fine_tune_that_is_refused_leaves_the_log_of_the_other(run, sharp):
    words = ["-o", "out.safetensors", "--from", "tiny.safetensors", *QUICK]
    assert run(*words).exit_code == 0
    log = (sharp.parent / "out.train.csv").read_bytes()
    with RunFile(sharp.parent / "out.safetensors", {}).held():
        result = run(*words, "--overwrite")
    assert result.exit_code == 1
    assert "which another one is writing" in result.stderr
    assert (sharp.parent / "out.train.csv").read_bytes() == log


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "out.tif"], 2, "must end with .safetensors"),
        (["-o", "out.safetensors", "--new", "--from", "tiny.safetensors"], 2, "--new cannot be used with --from"),
        (["-o", "out.safetensors", "--resume"], 1, "out.safetensors does not exist"),
        (["nowhere.tif", "-o", "out.safetensors", "--new", "--hold-out", "2"], 1, "--hold-out must be a number"),
        (["-o", "out.safetensors", "--from", "tiny.safetensors", "--scales", "1"], 1, "--scales must"),
    ],
)
def test_fine_tune_names_bad_input(run, words, code, message):
    result = run(*words)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_fine_tune_names_files_that_hold_no_images(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.safetensors", tiny_model)
    (tmp_path / "a.tif").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["fine-tune", "a.tif", "-o", "out.safetensors", "--from", "tiny.safetensors"])
    assert result.exit_code == 1
    assert "a.tif" in result.stderr
    assert "must hold an image to train with, got none" in result.stderr
