import csv
import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr

from vdsr_core import (
    ImageFile,
    VDSRConfig,
    load_checkpoint,
    read_image,
    write_image,
)
from vdsr_core.cli.train import parse_time
from vdsr_core.cli.training import STOPPING
from vdsr_core.network.checkpoint import load_trainer
from vdsr_core.training.resume import RunFile
from vdsr_core.training.trainer import Trainer


@pytest.fixture
def photographs(folder, draw):
    """Five sharp images in a folder of their own, below the current one."""
    (folder / "sharp").mkdir()
    for number in range(5):
        draw(folder / "sharp" / f"{number}.png", (30 + number, 40, 3), axes="YXS")
    return folder / "sharp"


@pytest.fixture
def train(vdsr, network, one_thread):
    """Runs a short training of the small network on one thread."""
    words = ["-o", "out.safetensors", "--from", network, "--scales", "2", "--steps", "6"]
    return lambda *more: vdsr("train", "sharp", *words, *more, model=None)


def parameters(path):
    return torch.cat([parameter.detach().ravel() for parameter in load_checkpoint(path).parameters()])


def stop_at(monkeypatch, step, stop):
    """Let something happen within a step of the training."""
    advance = Trainer._advance

    def stopping(self, *args):
        result = advance(self, *args)
        if self.step == step:
            stop()
        return result

    monkeypatch.setattr(Trainer, "_advance", stopping)


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
    assert "--initial cannot be used with --from: it is for a new network." in result.stderr


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


def test_a_scale_given_twice_is_one_scale_of_the_network(photographs, vdsr, network):
    words = [
        "train",
        photographs,
        "-o",
        "out.safetensors",
        "--from",
        network,
        "--steps",
        "1",
        "--scales",
        "3",
        "2",
        "3",
    ]
    result = vdsr(*words, model=None)
    assert result.exit_code == 0, result.stderr
    model = load_checkpoint("out.safetensors")
    assert model.scales == (2.0, 3.0)
    assert "scales 3, 2, 3" in model.card["recipe"]


def test_train_takes_what_is_done_to_the_images(photographs, train, monkeypatch):
    words = ["--scale-range", 1.5, 3, "--blur", 0.7, "--added-noise", 0.01, "--gain", 0.5, 2, "--offset", -0.1, 0.1]
    with monkeypatch.context() as context:
        stop_at(context, 3, lambda: signal.raise_signal(signal.SIGINT))
        assert train(*words).exit_code == 130
    result = train(*words, "--resume")
    assert result.exit_code == 0, result.stderr
    model = load_checkpoint("out.safetensors")
    assert model.scales == (1.5, 2.0, 3.0)
    assert list(model.card["hold_out"]) == ["1.5", "2", "3"]
    done = "and any scale from 1.5 to 3; blur 0.7 pixels, noise 0.01 of the range; gain from 0.5 to 2; "
    assert done + "offset from -0.1 to 0.1; 6 steps" in model.card["recipe"]
    interrupted = parameters("out.safetensors")
    assert train(*words, "--overwrite").exit_code == 0
    assert torch.equal(parameters("out.safetensors"), interrupted)
    assert train("--overwrite").exit_code == 0
    assert not torch.equal(parameters("out.safetensors"), interrupted)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scale-range", 3, 2), "--scale-range must be "),
        (("--gain", 0, 2), "--gain must be "),
        (("--blur", -1), "--blur must be "),
    ],
)
def test_what_cannot_be_done_to_images_is_named(photographs, train, words, said):
    result = train(*words)
    assert result.exit_code in (1, 2)
    assert said in result.stderr


def test_an_image_given_three_times_trains_three_times_as_often(photographs, vdsr, network):
    words = ["-o", "out.safetensors", "--from", network, "--steps", "1", "--scales", "2"]
    result = vdsr("train", photographs, photographs, photographs, *words, model=None)
    assert result.exit_code == 0, result.stderr
    assert load_checkpoint("out.safetensors").card["data"].startswith("15 images (15 planes)")


def test_train_takes_batch_size_learning_rate_and_loss(photographs, train):
    words = ["--batch-size", "3", "--learning-rate", "2e-5", "--loss", "l2", "--clip-luma", "--theta", "1e-3"]
    assert "`clip` must be 'none' with the optimizer muon" in train(*words).stderr
    result = train(*words, "--optimizer", "adamw")
    assert result.exit_code == 0, result.stderr
    recipe = load_checkpoint("out.safetensors").card["recipe"]
    assert "of 3 patches" in recipe
    assert "l2" in recipe
    assert "every other patch clipped to 16..235" in recipe
    assert "rate 2e-05" in recipe
    assert "gradients clipped by value, theta 0.001" in recipe
    assert "--batch-size must be an integer of at least 1" in train("--overwrite", "--batch-size", "0").stderr


def gain_of(card):
    scores = card["hold_out"]["2"]
    return scores["after"] - scores["bicubic"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_disk_that_is_full_for_a_while_does_not_end_a_training(photographs, train, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    advance = Trainer._advance

    def limited(self, *args):
        if self.step in (2, 4):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000 if self.step == 2 else limits[0], limits[1]))
        return advance(self, *args)

    monkeypatch.setattr(Trainer, "_advance", limited)
    result = train("--save-every", "0")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("out.safetensors could not be written: File too large. Is the disk full?") == 1
    assert load_trainer("out.safetensors") is None
    assert [row["step"] for row in rows_of("out.train.csv")] == ["1", "2", "3", "4", "5", "6"]


def test_resuming_with_other_pixels_is_named(photographs, train, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train().exit_code == 130
    (photographs / "2.png").write_bytes((photographs / "1.png").read_bytes())
    result = train("--resume")
    assert result.exit_code == 1
    assert "`images` must be those that the run in out.safetensors was begun with, got others" in result.stderr


@pytest.mark.parametrize("preset", ["finetune", "kim2016"])
def test_resumed_after_ctrl_c_equals_uninterrupted(photographs, train, monkeypatch, preset, capfd):
    assert train("--preset", preset).exit_code == 0
    whole, rows = parameters("out.safetensors"), rows_of("out.train.csv")
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        result = train("--preset", preset, "--overwrite")
    assert result.exit_code == 130
    assert "stopping after this step" in capfd.readouterr().err  # at once
    assert "interrupted after step 3; --resume continues out.safetensors" in result.stderr
    assert load_trainer("out.safetensors")[1]["step"] == 3
    result = train("--resume")
    assert result.exit_code == 0, result.stderr
    assert torch.equal(parameters("out.safetensors"), whole)
    for row, again in zip(rows, rows_of("out.train.csv"), strict=True):
        row.pop("patches_per_second"), again.pop("patches_per_second")
        assert row == again


def test_mean_loss_of_a_row_includes_the_steps_before_an_interruption(photographs, train, monkeypatch):
    assert train("--steps", "60").exit_code == 0  # with a row for each third step
    whole = [(row["step"], row["loss"]) for row in rows_of("out.train.csv")]
    with monkeypatch.context() as patch:
        stop_at(patch, 11, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train("--steps", "60", "--overwrite").exit_code == 130
    assert train("--steps", "60", "--resume").exit_code == 0
    assert [(row["step"], row["loss"]) for row in rows_of("out.train.csv")] == whole
    assert whole[3][0] == "12"


def test_two_trainings_do_not_write_one_file(photographs, train):
    with RunFile(photographs.parent / "out.safetensors", {}).held():
        result = train()
    assert result.exit_code == 1
    assert "which another one is writing. Wait for that one, or choose another name." in result.stderr
    assert not (photographs.parent / "out.safetensors").exists()
    assert train().exit_code == 0


KILLED = """
import os, signal, sys
import torch
from vdsr_core.cli.main import app
from vdsr_core.training.resume import RunFile
from vdsr_core.training.trainer import Trainer

def advance(self, *args, ordinary=Trainer._advance):
    if self.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return ordinary(self, *args)

Trainer._advance = advance
torch.set_num_threads(1)
app(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_training_loses_the_steps_since_the_last_checkpoint(photographs, train, network):
    assert train().exit_code == 0
    whole = parameters("out.safetensors")
    words = ["train", "sharp", "-o", "out.safetensors", "--from", network, "--scales", "2", "--steps", "6"]
    words += ["--overwrite", "--save-every", "0s"]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_trainer("out.safetensors")[1]["step"] == 3
    assert train("--resume").exit_code == 0
    assert torch.equal(parameters("out.safetensors"), whole)


STUCK = """
import sys, time
from vdsr_core.cli.main import app
from vdsr_core.training.trainer import Trainer

def advance(self, *args, ordinary=Trainer._advance):
    if self.step == 3:
        print("now", flush=True)
        time.sleep(100)
    return ordinary(self, *args)

Trainer._advance = advance
app(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_training_at_once(photographs, train, network, number):
    """In the midst of a step that does not end; the last checkpoint stays and can be resumed."""
    assert train().exit_code == 0
    whole = parameters("out.safetensors")
    words = ["train", "sharp", "-o", "out.safetensors", "--from", network, "--scales", "2", "--steps", "6"]
    words += ["--overwrite", "--save-every", "0s"]
    command = [sys.executable, "-c", STUCK, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "now\n" in iter(process.stdout.readline, "")
        process.send_signal(number)
        assert STOPPING.decode() in iter(process.stderr.readline, "")
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (rest, errors, process.returncode) == ("", "", -number)
    assert load_trainer("out.safetensors")[1]["step"] == 3
    assert train("--resume").exit_code == 0
    assert torch.equal(parameters("out.safetensors"), whole)
    assert not [name for name in os.listdir() if name.startswith(".") and not name.endswith(".lock")]


def test_resume_refuses_another_training(photographs, train, vdsr, folder, draw):
    assert "out.safetensors does not exist" in train("--resume").stderr
    assert train().exit_code == 0
    assert "which holds a finished network" in train("--resume").stderr
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train("--overwrite").exit_code == 130
    assert "--steps must be that of the run in out.safetensors, 6, got 7" in train("--resume", "--steps", "7").stderr
    draw(folder / "sharp" / "new.png", (30, 30))
    assert "`images` must be those that the run in out.safetensors was begun with" in train("--resume").stderr


def test_a_new_network_has_the_shape_that_is_asked_for(photographs, vdsr):
    words = ["train", "sharp", "-o", "new.safetensors", "--scales", "2", "--steps", "1", "--overwrite"]
    small = ["--depth", "4", "--width", "8"]
    for more, expected in (
        (small, VDSRConfig(4, 8, fold=2, blocks=True, maps=("scale",))),
        ([*small, "--fold", "3", "--no-blocks"], VDSRConfig(4, 8, fold=3, maps=("scale",))),
        ([*small, "--preset", "kim2016"], VDSRConfig(4, 8)),
    ):
        result = vdsr(*words, *more, model=None)
        assert result.exit_code == 0, result.stderr
        assert load_checkpoint("new.safetensors").config == expected
    result = vdsr(*words, "--from", "new.safetensors", "--depth", "4", model=None)
    assert "--depth cannot be used with --from" in result.stderr


def test_a_branch_starts_from_an_unfinished_training_and_keeps_groups_apart(photographs, vdsr, monkeypatch):
    """Constant learning rate, interrupted; then a training from it whose learning rate falls."""
    (photographs.parent / "credits.csv").write_text(
        "file,source\n" + "".join(f"sharp/{n}.png,{'one' if n < 4 else 'other'}\n" for n in range(5))
    )
    words = ["--scales", "2", "--batch-size", "2", "--patch", "16", "--groups", "credits.csv"]
    small = ["--depth", "4", "--width", "8", "--decay", "0", "--steps", "100"]
    with monkeypatch.context() as patch:
        stop_at(patch, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert vdsr("train", "sharp", "-o", "trunk.safetensors", *words, *small, model=None).exit_code == 130
    config = load_trainer("trunk.safetensors")[1]["config"]
    assert (config["optimizer"], config["decay"]) == ("muon", 0)
    assert {row["learning_rate"] for row in rows_of("trunk.train.csv")[-3:]} == {"0.001"}
    branch = ["--from", "trunk.safetensors", "--preset", "default", "--decay", "1", "--steps", "4"]
    result = vdsr("train", "sharp", "-o", "branch.safetensors", *words, *branch, model=None)
    assert result.exit_code == 0, result.stderr
    rates = [float(row["learning_rate"]) for row in rows_of("branch.train.csv")]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 2
    assert load_checkpoint("branch.safetensors").card["recipe"].startswith("from trunk; default: at most 4 steps")


def test_a_training_that_exists_is_kept(photographs, train):
    assert train().exit_code == 0
    before = (photographs.parent / "out.safetensors").read_bytes()
    result = train()
    assert result.exit_code == 1
    assert "out.safetensors exists" in result.stderr
    assert (photographs.parent / "out.safetensors").read_bytes() == before


def test_loss_that_is_not_finite_keeps_the_last_checkpoint(photographs, train, monkeypatch):
    monkeypatch.setattr("vdsr_core.training.trainer.compute_loss", lambda sr, hr, kind: (sr * math.nan).sum())
    result = train()
    assert result.exit_code == 1
    assert "the loss must stay finite, got nan in step 1" in result.stderr
    assert load_trainer("out.safetensors")[1]["step"] == 0


def test_bad_images_are_left_out_named_and_counted(photographs, train, draw):
    (photographs / "broken.png").write_bytes(b"no image")
    draw(photographs / "small.tif", (7, 30))
    write_image(photographs / "flat.tif", ImageFile(np.zeros((40, 40), np.uint16), "YX"))
    damaged = zarr.create_array(photographs / "damaged.zarr", shape=(40, 40), chunks=(40, 40), dtype=np.uint8)
    damaged[:] = np.arange(1600).reshape(40, 40) % 256
    for chunk in (photographs / "damaged.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    result = train()
    assert result.exit_code == 0, result.stderr
    assert "damaged.zarr" in result.stderr
    assert "broken.png is not a readable" in result.stderr
    assert "flat.tif: left out, constant" in result.stderr
    assert "small.tif: left out, smaller than 8 x 8 pixels" in result.stderr
    assert "4 of 9 images left out" in result.stderr
    for path in photographs.iterdir():
        if path.suffix == ".png":
            path.write_bytes(b"")
    assert "must hold an image to train with, got none. Check them" in train("--overwrite").stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400), ("45s", 45), ("7", 7)]
)
def test_times(text, seconds):
    assert parse_time(text, "--time-budget") == seconds


def test_output_must_be_a_checkpoint(photographs, vdsr):
    result = vdsr("train", "sharp", "-o", "out.csv", model=None)
    assert result.exit_code == 2
    assert "must end with .safetensors, got out.csv" in result.stderr


@pytest.mark.parametrize("text", ["", "2x", "h", "1m2h", "-3s", "1..5h", "1,5h"])
def test_bad_times_are_usage_errors(photographs, train, text):
    result = train("--save-every", text)
    assert result.exit_code == 2
    assert f"--save-every must be a time, got {text!r}. Try 2h, 90m or 1h30m." in result.stderr


def test_time_budget_bounds_the_training(photographs, vdsr, network):
    words = ["-o", "out.safetensors", "--from", network, "--time-budget", "0.2s"]
    result = vdsr("train", "sharp", *words, model=None)
    assert result.exit_code == 0, result.stderr
    assert int(re.search(r"safetensors  (\d+) steps", result.stdout)[1]) < 1000  # those of the preset


def test_curves_are_drawn_where_matplotlib_is_installed(photographs, train):
    pytest.importorskip("matplotlib")
    assert train().exit_code == 0
    assert read_image("out.train.png").data.shape[2] >= 3


def test_several_folders_train_together(photographs, vdsr, network, folder, draw):
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


def test_train_tells_a_network_noise_and_compression(photographs, train, monkeypatch):
    """A new one, one without maps that gets them, and one that has them."""
    words = ["--maps", "--low-contrast", 0.25]
    with monkeypatch.context() as context:
        stop_at(context, 3, lambda: signal.raise_signal(signal.SIGINT))
        assert train(*words).exit_code == 130
    assert train(*words, "--resume").exit_code == 0
    model = load_checkpoint("out.safetensors")
    assert model.config.maps == ("scale", "noise", "compression")
    assert list(model.card["hold_out"]) == ["2", "2 degraded"]
    assert "low contrast in 25% of the patches; half of the patches noisy, compressed" in model.card["recipe"]
    interrupted = parameters("out.safetensors")
    assert train(*words, "--overwrite").exit_code == 0
    assert torch.equal(parameters("out.safetensors"), interrupted)
