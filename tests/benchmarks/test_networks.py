"""The networks that VDSR is compared with: shapes, sizes, what they see, and that the trainer takes them."""

import argparse
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.reproduction import study
from benchmarks.reproduction.drcn import DRCN, SHARE, RecursiveTrainer
from benchmarks.reproduction.networks import count_multiplications
from benchmarks.reproduction.srcnn import SRCNN
from benchmarks.reproduction.study import OutOfTimeError, Setting, check_left, load_run, restore, run, run_seeds, score
from PIL import Image

from vdsr_core import VDSR, Patches, TrainConfig, Trainer, VDSRConfig, evaluate

NETWORKS = {
    "SRCNN 9-1-5": SRCNN,
    "SRCNN 9-5-5": lambda: SRCNN((9, 5, 5)),
    "SRCNN 9-1-5, deeper": lambda: SRCNN(more=5, residual=True),
    "DRCN": lambda: DRCN(width=8, recursions=6),
    "VDSR": lambda: VDSR(VDSRConfig(depth=5, width=8)),
}
CONFIG = TrainConfig(steps=4, batch_size=4, learning_rate=1e-5, schedule="cosine", clip="none")


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


@pytest.fixture
def patches(rng):
    return Patches([rng.random((40, 40)).astype(np.float32)], [2], patch=16)


def count(network):
    weights = sum(p.numel() for p in network.parameters() if p.ndim == 4)
    return weights, sum(p.numel() for p in network.parameters()) - weights


def test_residual_has_the_shape_of_the_image(network):
    image = torch.rand(2, 1, 23, 31)
    assert network.residual(image).shape == image.shape


def test_halo_is_what_the_gradient_reaches(network):
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.reset_parameters()  # that of DRCN begins as the identity, which sees one pixel
    side = 2 * network.halo + 5
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    network.double().residual(image)[0, 0, middle, middle].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    for reached in (rows, columns):
        assert (int(reached.min()), int(reached.max())) == (middle - network.halo, middle + network.halo)


def test_sizes_are_the_published_ones():
    assert count(SRCNN())[0] == 8032  # Table 1 of the journal paper of SRCNN: 9-1-5
    assert count(SRCNN((9, 5, 5)))[0] == 57184  # and 9-5-5
    assert count(VDSR()) == (664704, 1217)
    assert round(sum(count(DRCN(width=256))), -3) == 1_775_000  # Table 3 of the paper of LapSRN has 1,775 k


@pytest.mark.parametrize("more", [0, 2])
def test_multiplications_are_weights_that_are_applied(more):
    assert count_multiplications(SRCNN(more=more)) == count(SRCNN(more=more))[0]
    recursion, reconstruction = 8 * 8 * 9, 8 * 8 * 9 + 8 * 9
    applied = 8 * 9 + 8 * 8 * 9 + 6 * (recursion + reconstruction)
    assert count_multiplications(DRCN(width=8, recursions=6)) == applied


def test_srcnn_with_the_residual_adds_the_image():
    plain, residual = SRCNN(), SRCNN(residual=True)
    residual.load_state_dict(plain.state_dict())
    image = torch.rand(1, 1, 20, 20)
    torch.testing.assert_close(image + residual.residual(image), 2 * image + plain.residual(image))


def test_drcn_shares_one_recursion():
    few, many = DRCN(width=8, recursions=2), DRCN(width=8, recursions=16)
    assert sum(count(many)) - sum(count(few)) == 14  # a weight of each image
    few.load_state_dict(many.state_dict() | {"weights": torch.ones(2)})
    image = torch.rand(1, 1, 20, 20)
    torch.testing.assert_close(few.residual(image), many.residuals(image)[:, :2].mean(1, keepdim=True))


def test_recursive_supervision_is_the_mean_over_recursions(patches):
    network = DRCN(width=8, recursions=3)
    ilr, hr = patches.gather(patches.choose(0, 4))
    squares = [(hr - ilr - found[:, None]).square().sum() / 8 for found in network.residuals(ilr).unbind(1)]
    result = (hr - ilr - network.residual(ilr)).square().sum() / 8
    expected = (1 - SHARE) * result + SHARE * sum(squares) / 3
    torch.testing.assert_close(RecursiveTrainer(network, patches, CONFIG).loss(ilr, hr), expected)


def make_trainer(name, patches, **changed):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    kind = RecursiveTrainer if name == "DRCN" else Trainer
    return kind(network, patches, replace(CONFIG, **changed))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("changed", [{}, {"optimizer": "muon", "average": 0.9}])
def test_resumed_is_uninterrupted(name, changed, patches):
    whole, first, second = (make_trainer(name, patches, **changed) for _ in range(3))
    losses = [progress.loss for progress in whole.run()]
    assert len(set(losses)) == 4
    steps = first.run()
    next(steps)
    second.restore(first.state())
    assert [progress.loss for progress in second.run()] == losses[1:]
    for ours, theirs in zip(whole.result.parameters(), second.result.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def options(tmp_path, rng):
    for name in ("T91", "BSDS200", "Set5"):  # images of our own
        (tmp_path / name).mkdir()
        for number in range(2):
            image = rng.integers(16, 236, (48, 44), np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    return argparse.Namespace(data=tmp_path, size="tiny", output=tmp_path / "out", device="cpu", deadline=math.inf)


@pytest.fixture(autouse=True)
def unpublished(monkeypatch):
    """What is called Set5 here does not score what Set5 does."""
    monkeypatch.setattr(study, "check_bicubic", lambda name, means: None)


def test_score_is_that_of_evaluate(options):
    network = VDSR(VDSRConfig(depth=3, width=4))
    folder = options.data / "Set5"
    images = {path.stem: np.asarray(Image.open(path)) for path in folder.iterdir()}
    for scale, psnr in score(network, folder, (2, 3), "cpu").items():
        expected = [s.psnr for s in evaluate(network, images, float(scale)) if s.method == "vdsr"]
        assert psnr == pytest.approx(np.mean(expected), abs=0.01)


def test_run_is_kept_and_loaded(options, rng):
    setting = Setting("srcnn9-1-5", "default", residual=False)
    points = run(setting, options)
    assert [point.epoch for point in points] == [10, 20, 40, 80]
    assert run(setting, replace_data(options)) == points  # without the images: nothing is trained again
    assert score(load_run(setting, options), options.data / "Set5", (2, 3, 4), "cpu") == points[-1].psnr


def test_shorter_run_is_scored_at_its_end(options):
    points = run(Setting("srcnn9-1-5", "default", epochs=40), options, test=(2,), epochs=(20, 80))
    assert [point.epoch for point in points] == [20, 40]


def replace_data(options):
    return argparse.Namespace(**vars(options) | {"data": options.data / "nowhere"})


class Impatient(argparse.Namespace):
    """Options whose deadline comes when it has been looked at so often."""

    looks = 0

    @property
    def deadline(self):
        self.looks -= 1
        return math.inf if self.looks >= 0 else -math.inf

    @deadline.setter
    def deadline(self, value):
        pass


def test_stopped_run_ends_as_an_uninterrupted_one(options):
    setting = Setting("drcn", "default")
    whole = run(setting, options)
    stopped = Impatient(**vars(options) | {"output": options.output / "stopped"})
    stopped.looks = 6  # at the start, and after five steps
    with pytest.raises(OutOfTimeError):
        run(setting, stopped)
    stopped.looks = 1000
    assert [point.psnr for point in run(setting, stopped)] == [point.psnr for point in whole]
    one, two = (load_run(setting, where).state_dict() for where in (options, stopped))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_seeds_are_left_for_the_next_command_when_time_is_over(options):
    options.left = []
    setting = Setting("srcnn9-1-5", "default", epochs=10)
    one, two = run_seeds(setting, options, test=(2,))
    assert one != two
    options.deadline = -math.inf
    assert run_seeds(setting, options, test=(2,)) == [one, two]  # these are there
    check_left(options)
    assert run_seeds(replace(setting, seed=5, residual=False), options) == []
    with pytest.raises(OutOfTimeError, match="residual=False"):
        check_left(options)


def test_diverged_run_is_marked(options):
    points = run(Setting(recipe="unclipped", learning_rate=1e30), options)
    assert [point.epoch for point in points] == [10, 20, 40, 80]
    assert all(math.isnan(value) for value in points[-1].psnr.values())


def test_restore_keeps_the_image_without_a_residual(rng):
    network = SRCNN(residual=True)
    torch.nn.init.zeros_(network.layers[-1].weight)
    image = rng.uniform(16, 235, (20, 21))
    np.testing.assert_allclose(restore(network, image, "cpu"), image, atol=1e-4)
