import copy
import itertools
import math

import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig, load_checkpoint, resize, save_checkpoint
from vdsr_core.checkpoint import load_trainer
from vdsr_core.patches import Patches
from vdsr_core.training import TrainConfig, Trainer, clip_gradients, compute_loss, rate_at

QUICK = {"batch_size": 4, "learning_rate": 1e-3, "loss": "l1", "optimizer": "adamw", "clip": "none"}


@pytest.fixture
def data(rng):
    return Patches([resize(rng.random((12, 12)), 4), resize(rng.random((9, 14)), 3)], [2, 3], patch=16)


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def test_clip_bounds_each_element_by_theta_over_rate():
    parameter = torch.zeros(5)
    for rate, expected in ((0.1, [-0.5, -0.5, 0.1, 0.4, 0.5]), (0.05, [-1, -0.9, 0.1, 0.4, 1])):
        parameter.grad = torch.tensor([-3, -0.9, 0.1, 0.4, 2])
        share = clip_gradients([parameter], 0.05, rate)
        torch.testing.assert_close(parameter.grad, torch.tensor(expected))
        assert share == pytest.approx(3 / 5 if rate == 0.1 else 2 / 5)


def test_clip_by_norm_keeps_the_direction():
    a, b = torch.zeros(1), torch.zeros(1)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert clip_gradients([a, b], 0.1, 0.1, norm=True) == 1
    torch.testing.assert_close(torch.cat([a.grad, b.grad]), torch.tensor([0.6, -0.8]))
    assert clip_gradients([a, b], 0.1, 0.01, norm=True) == 0
    torch.testing.assert_close(torch.cat([a.grad, b.grad]), torch.tensor([0.6, -0.8]))


def test_step_of_sgd_is_at_most_theta(data):
    """What the clip is for, whatever the rate: without momentum and decay, no weight moves by more than theta."""
    for rate in (10.0, 0.1):
        model = VDSR(VDSRConfig(4, 8))
        before = weights(model)
        config = TrainConfig(steps=1, batch_size=4, learning_rate=rate, momentum=0, weight_decay=0, theta=0.01)
        (progress,) = Trainer(model, data, config).run()
        moved = (weights(model) - before).abs().max().item()
        assert moved == pytest.approx(0.01, rel=1e-3)
        assert progress.clipped > 0


def test_schedule_is_the_papers():
    config = TrainConfig(steps=80)
    rates = [rate_at(step, step / 80, config) for step in range(80)]
    expected = np.repeat([0.1, 0.01, 0.001, 0.0001], 20)
    np.testing.assert_allclose(rates, expected)


def test_cosine_warms_up_and_falls():
    config = TrainConfig(steps=100, schedule="cosine", warmup=10, learning_rate=1)
    rates = [rate_at(step, step / 100, config) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=0.03)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.001)


def test_losses_against_their_definitions(rng):
    hr, sr = torch.from_numpy(rng.random((2, 3, 1, 5, 5)))
    error = (hr - sr).numpy()
    expected = np.mean([0.5 * np.sum(e**2) for e in error])
    assert compute_loss(sr, hr, "l2").item() == pytest.approx(expected)
    assert compute_loss(sr, hr, "l2_mean").item() == pytest.approx(np.mean(error**2))
    assert compute_loss(sr, hr, "l1").item() == pytest.approx(np.mean(np.abs(error)))
    assert compute_loss(sr, hr, "charbonnier").item() == pytest.approx(np.mean(np.sqrt(error**2 + 1e-6)))


@pytest.mark.parametrize("config", [QUICK | {"average": 0.9}, {"batch_size": 4, "theta": 0.001}])
def test_resumed_equals_uninterrupted_bit_for_bit(data, tmp_path, config):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = VDSR(VDSRConfig(4, 8))
    config = TrainConfig(steps=8, **config)
    whole = Trainer(copy.deepcopy(start), data, config)
    list(whole.run())
    first = Trainer(copy.deepcopy(start), data, config)
    run = first.run()
    for _ in range(3):
        next(run)
    save_checkpoint(tmp_path / "c.safetensors", first.result, trainer=first.state())
    run.close()
    second = Trainer(VDSR(VDSRConfig(4, 8)), data, config)
    second.restore(load_trainer(tmp_path / "c.safetensors"))
    assert [p.step for p in second.run()] == [4, 5, 6, 7, 8]
    torch.set_num_threads(threads)
    assert torch.equal(weights(second.model), weights(whole.model))
    assert torch.equal(weights(second.result), weights(whole.result))


def test_a_checkpoint_in_the_middle_holds_the_network_to_keep(data, tmp_path):
    trainer = Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3, average=0.9, **QUICK))
    list(trainer.run())
    save_checkpoint(tmp_path / "c.safetensors", trainer.result, trainer=trainer.state())
    assert torch.equal(weights(load_checkpoint(tmp_path / "c.safetensors")), weights(trainer.average))
    save_checkpoint(tmp_path / "c.safetensors", trainer.result)
    assert load_trainer(tmp_path / "c.safetensors") is None


def test_resuming_something_else_is_named(data):
    state = Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3)).state()
    with pytest.raises(
        ValueError, match=r"`config` must be that of the training to resume, got another \{'steps': 3\}"
    ):
        Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=4)).restore(state)
    with pytest.raises(ValueError, match="`model` must be the network of the training to resume"):
        Trainer(VDSR(VDSRConfig(5, 8)), data, TrainConfig(steps=3)).restore(state)


def test_average_is_the_running_mean_of_the_weights(data):
    trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, TrainConfig(steps=5, average=0.5, **QUICK))
    expected = weights(trainer.model)
    for step, _ in enumerate(trainer.run()):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(trainer.model)
    torch.testing.assert_close(weights(trainer.result), expected)


def test_overfits_one_patch(rng):
    """To more than 60 dB."""
    torch.manual_seed(0)
    data = Patches([rng.random((10, 10))], [2], patch=10, augment="none")
    config = TrainConfig(steps=600, **QUICK | {"learning_rate": 5e-3, "batch_size": 1}, schedule="cosine")
    trainer = Trainer(VDSR(VDSRConfig(4, 32)), data, config)
    list(trainer.run())
    ilr, hr = data.gather(data.choose(0, 1))
    error = (trainer.result(ilr) - hr).square().mean().item()
    assert -10 * math.log10(error) > 60


def test_validation_is_called_with_what_is_kept(data):
    trainer = Trainer(
        VDSR(VDSRConfig(3, 4)),
        data,
        TrainConfig(steps=5, average=0.9, **QUICK),
        validate=lambda model: weights(model).sum().item(),
        validate_every=2,
    )
    gains = [progress.gain for progress in trainer.run()]
    assert [gain is None for gain in gains] == [True, False, True, False, False]
    assert gains[-1] == weights(trainer.average).sum().item()


def test_closing_the_iterator_stops(data):
    trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, TrainConfig(steps=100, **QUICK))
    run = trainer.run()
    next(run)
    run.close()
    assert trainer.step == 1


def test_time_budget_resumes_at_its_spent_share(data):
    config = TrainConfig(seconds=1000.0, **QUICK)
    trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, config)
    next(trainer.run())
    tensors, record = trainer.state()
    other = Trainer(VDSR(VDSRConfig(3, 4)), data, config)
    other.restore((tensors, record | {"spent": 750.0}))
    assert other.share == 0.75
