import copy
import itertools
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from vdsr_core import VDSR, VDSRConfig, load_checkpoint, resize, save_checkpoint
from vdsr_core.dataset.patches import Patches
from vdsr_core.network.checkpoint import load_trainer
from vdsr_core.network.model import make_model
from vdsr_core.stopping import Stopped
from vdsr_core.training.cuda_graph import Recording
from vdsr_core.training.objective import clip_gradients, compute_loss
from vdsr_core.training.recipe import PRESETS, TrainConfig
from vdsr_core.training.trainer import PART, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"batch_size": 4, "learning_rate": 1e-3, "loss": "l1", "optimizer": "adamw", "clip": "none"}

MUON = QUICK | {"optimizer": "muon", "average": 0.9}


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


@pytest.mark.parametrize("clip", ["value", "none"])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_network(data, clip):
    trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, TrainConfig(steps=5, average=0.9, **QUICK | {"clip": clip}))
    run = trainer.run()
    next(run)
    before = copy.deepcopy(trainer.state())
    data.hr[:] = math.nan
    with pytest.raises(FloatingPointError, match=r"got nan in step 2 at learning rate .*Start again from"):
        next(run)
    after = trainer.state()
    assert after[1]["step"] == 1
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])


def stuck(model, data, gain=0.0, steps=300, **options):
    """The warnings of 150 steps with a constant gain over bicubic, validated every 30."""
    config = TrainConfig(**{"steps": steps, "batch_size": 2, "learning_rate": 1e-9} | options)
    validate = lambda _: (30.0, gain() if callable(gain) else gain)  # noqa: E731
    trainer = Trainer(model, data, config, validate=validate, validate_every=30)
    return [progress.warning for progress in itertools.islice(trainer.run(), 150) if progress.warning]


def silent(model, factor=0.0):
    """The network with its last layer scaled: by 0, its residual has collapsed."""
    with torch.no_grad():
        for parameter in model.convolutions[-1].parameters():
            parameter *= factor
    return model


def test_stuck_at_bicubic_is_named_once_with_its_cause(data):
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(3, 4))
    wide = {"theta": 1e3, "momentum": 0}
    causes = {
        "`theta` is too small": stuck(copy.deepcopy(model), data, theta=1e-20),
        "has collapsed to 0.0%": stuck(silent(copy.deepcopy(model)), data, **wide),
        "is too high": stuck(silent(copy.deepcopy(model), 100), data, **wide),
        "almost flat": stuck(copy.deepcopy(model), Patches([np.full((30, 30), 0.5)], [2], patch=16), **wide),
    }
    for cause, messages in causes.items():
        assert len(messages) == 1
        assert messages[0].startswith("stuck at or below bicubic: +0.00 dB after step 120. ")
        assert cause in messages[0]
    assert stuck(copy.deepcopy(model), data, gain=0.06, **wide) == []
    gains = iter(range(-9, 0))
    (message,) = stuck(copy.deepcopy(model), data, gain=lambda: next(gains), **wide)
    assert "It still gains: train longer" in message
    assert "after step 150" in stuck(copy.deepcopy(model), data, steps=1300, **wide)[0]  # not before a tenth


def test_resumed_names_the_same_cause_once(data):
    """That a network still gains shows in the validation before, and a warning is not repeated."""
    config = TrainConfig(steps=300, batch_size=2, learning_rate=1e-9)
    gains, warnings, state = itertools.count(-9), [], None
    for last in (100, 130, 160):
        validate = lambda _: (30.0, next(gains))  # noqa: E731
        trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, config, validate=validate, validate_every=30)
        if state:
            trainer.restore(state)
        warnings += [(step.step, step.warning) for step in itertools.islice(trainer.run(), last - trainer.step)]
        state = trainer.state()
    ((step, warning),) = [(step, warning) for step, warning in warnings if warning]
    assert step == 120
    assert "It still gains: train longer" in warning


def test_residual_learning_and_its_opposite(rng):
    """f(x) is the residual, or the image itself; so is what the loss compares it with."""
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(3, 4))
    other = VDSR(VDSRConfig(3, 4, residual=False))
    other.load_state_dict(model.state_dict())
    ilr, hr = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    f = model.residual(ilr)
    torch.testing.assert_close(other(ilr), f)
    torch.testing.assert_close(compute_loss(model(ilr), hr, "l2"), (hr - ilr - f).square().sum() / 4)
    torch.testing.assert_close(compute_loss(other(ilr), hr, "l2"), (hr - f).square().sum() / 4)


def test_losses_against_their_definitions(rng):
    hr, sr = torch.from_numpy(rng.random((2, 3, 1, 5, 5)))
    error = (hr - sr).numpy()
    expected = np.mean([0.5 * np.sum(e**2) for e in error])
    assert compute_loss(sr, hr, "l2").item() == pytest.approx(expected)
    assert compute_loss(sr, hr, "l1").item() == pytest.approx(np.mean(np.abs(error)))
    decibels = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(hr.numpy(), sr.numpy(), strict=True)]
    assert compute_loss(sr, hr, "psnr").item() == pytest.approx(58.92 - np.mean(decibels), abs=0.01)


def test_psnr_loss_counts_smooth_and_busy_patches_alike(rng):
    """Twice the error costs the same decibels in a patch of small errors as in one of large errors."""
    hr, error = torch.from_numpy(rng.random((2, 1, 1, 32, 32)))
    costs = [compute_loss(hr + size * error, hr, "psnr").item() for size in (0.05, 0.1, 0.4, 0.8)]
    assert np.diff(costs)[[0, 2]] == pytest.approx(20 * np.log10(2), abs=0.02)
    exact = hr.clone().requires_grad_()
    compute_loss(exact, hr, "psnr").backward()
    assert not exact.grad.any()  # and not NaN
    rounded = torch.from_numpy(np.rint(hr.numpy() * 255) / 255)
    assert compute_loss(rounded, hr, "psnr").item() == pytest.approx(10 * np.log10(2), abs=0.2)


@pytest.mark.parametrize("maps", [(), ("noise", "compression")])
@pytest.mark.parametrize("config", [QUICK | {"average": 0.9}, MUON, {"batch_size": 4, "theta": 0.001}])
def test_resumed_equals_uninterrupted_bit_for_bit(data, tmp_path, config, maps):
    torch.manual_seed(0)
    start = VDSR(VDSRConfig(4, 8, maps=maps))
    config = TrainConfig(steps=8, **config)
    whole = Trainer(copy.deepcopy(start), data, config)
    list(whole.run())
    first = Trainer(copy.deepcopy(start), data, config)
    run = first.run()
    for _ in range(3):
        next(run)
    save_checkpoint(tmp_path / "c.safetensors", first.result, trainer=first.state())
    run.close()
    second = Trainer(VDSR(VDSRConfig(4, 8, maps=maps)), data, config)
    second.restore(load_trainer(tmp_path / "c.safetensors"))
    assert [p.step for p in second.run()] == [4, 5, 6, 7, 8]
    assert torch.equal(weights(second.model), weights(whole.model))
    assert torch.equal(weights(second.result), weights(whole.result))


@pytest.mark.parametrize(("optimizer", "half"), [("sgd", False), ("adamw", True), ("muon", False), ("muon", True)])
def test_threads_do_not_change_a_bit(data, monkeypatch, optimizer, half):
    """Batches of nine patches, in parts of 4, 4 and 1; five layers of one shape, in parts of 3 and 2 for Muon."""
    monkeypatch.setattr("vdsr_core.training.trainer.computes_bfloat16", lambda device: half)
    config = TrainConfig(steps=3, **QUICK | {"batch_size": 2 * PART + 1, "optimizer": optimizer})
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        model = make_model(0, VDSRConfig(7, 32))
        results.append(([p.loss for p in Trainer(model, data, config).run()], weights(model)))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads
    assert results[0][0] == results[1][0] == results[2][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][1], results[2][1])


@pytest.mark.parametrize("loss", ["l2", "l1", "psnr"])
def test_parts_of_a_batch_add_up_to_it(data, loss):
    """The loss of a step, and its gradient, are those of the whole batch in one piece."""
    model = make_model(0, VDSRConfig(4, 8))
    trainer = Trainer(copy.deepcopy(model), data, TrainConfig(batch_size=PART + 1, loss=loss, clip="none"))
    value, _ = trainer._advance(0.1)
    ilr, hr = data.gather(data.choose(0, PART + 1))
    expected = compute_loss(model(ilr), hr, loss)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-5)
    for ours, whole in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, whole.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_memory_layout_is_that_of_the_weights(data, optimizer):
    """Weights are channels_last, and fused optimisers take nothing else: not even from a checkpoint."""
    config = TrainConfig(steps=4, **QUICK | {"optimizer": optimizer})
    trainer, other = (Trainer(make_model(0, VDSRConfig(4, 8)), data, config) for _ in range(2))
    trainer._advance(1e-3)
    tensors, record = trainer.state()
    other.restore(({name: tensor.contiguous() for name, tensor in tensors.items()}, record))
    other._advance(1e-3)
    assert other.model.convolutions[1].weight.is_contiguous(memory_format=torch.channels_last)
    for parameter, entry in other._optimizer.state.items():
        moments = {tensor.stride() for tensor in entry.values() if tensor.ndim}
        assert {parameter.grad.stride(), *moments} == {parameter.stride()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_recorded_steps_equal_others(rng, optimizer):
    """Steps on a GPU: recorded as a graph, and resumed; or one by one."""
    data = Patches([rng.random((40, 40))], [2, 3], patch=16, device="cuda")
    config = TrainConfig(steps=6, average=0.9, **QUICK | {"optimizer": optimizer})
    results = []
    for recorded in (True, False):
        trainer = Trainer(make_model(0, VDSRConfig(4, 8)), data, config)
        if not recorded:
            trainer._differentiate = trainer._loss_and_gradients
        for _ in itertools.islice(trainer.run(), 3):
            pass
        other = Trainer(make_model(1, VDSRConfig(4, 8)), data, config)
        other.restore(trainer.state())
        list(other.run())
        results.append(weights(other.result).cpu())
        assert recorded == isinstance(trainer._differentiate, Recording)
    torch.testing.assert_close(results[0], results[1], rtol=1e-2, atol=1e-4)


def test_wide_networks_are_trained_in_bfloat16_where_the_processor_multiplies_in_it(data, monkeypatch):
    """With the losses of float32 but for its rounding, and weights in float32; narrow networks are not."""
    config, results = TrainConfig(steps=3, **QUICK), []
    for half in (True, False):
        monkeypatch.setattr("vdsr_core.training.trainer.computes_bfloat16", lambda device, half=half: half)
        trainer = Trainer(make_model(0, VDSRConfig(4, 48)), data, config)
        results.append(([progress.loss for progress in trainer.run()], weights(trainer.model)))
        assert not Trainer(make_model(0, VDSRConfig(4, 8)), data, config).half
    (losses, ours), (expected, exact) = results
    assert losses == pytest.approx(expected, rel=1e-2)
    assert losses != expected
    assert ours.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=0, atol=4e-3)  # three steps of 1e-3 at most


def test_a_checkpoint_in_the_middle_holds_the_network_to_keep(data, tmp_path):
    trainer = Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3, average=0.9, **QUICK))
    list(trainer.run())
    save_checkpoint(tmp_path / "c.safetensors", trainer.result, trainer=trainer.state())
    assert torch.equal(weights(load_checkpoint(tmp_path / "c.safetensors")), weights(trainer.result))
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
    for damage in ({"step": "3"}, {"config": []}, {"spent": None}):
        with pytest.raises(ValueError, match="`state` must hold config, step and time spent"):
            Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3)).restore((state[0], state[1] | damage))


def test_resuming_a_damaged_state_is_named(data):
    trainer = Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3, **QUICK))
    next(trainer.run())
    tensors, record = trainer.state()
    lost = {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.2.")}
    for damaged in (
        lost,
        tensors | {"foo": torch.zeros(1)},
        lost | {"optimizer.x.exp_avg": torch.zeros(1)},
        tensors | {"optimizer.2.exp_avg": torch.zeros(3)},
    ):
        with pytest.raises(ValueError, match="`state` must hold weights, average and optimizer, got a damaged one"):
            Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3, **QUICK)).restore((damaged, record))


def test_a_step_that_looks_at_nothing_is_not_begun_when_it_is_to_stop(data):
    """As one that is recorded on a GPU."""
    stop = threading.Event()
    trainer = Trainer(VDSR(VDSRConfig(4, 8)), data, TrainConfig(steps=3, **QUICK), stop=stop)
    trainer._differentiate = lambda ilr, hr: pytest.fail("a step was begun")
    stop.set()
    with pytest.raises(Stopped):
        next(trainer.run())


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


def test_the_papers_recipe_learns(rng):
    """At its rate of 0.1; with a theta of 0.01 the layers die, and the gain over bicubic stays 0."""
    image = np.full((120, 120), 0.1)
    for row, column, height, width in rng.integers((0, 0, 4, 4), (110, 110, 40, 40), (60, 4)):
        image[row : row + height, column : column + width] = rng.uniform(0.1, 0.9)
    data = Patches([image], [2, 3], patch=24, grid=True)
    trainer = Trainer(make_model(0, VDSRConfig(8, 16)), data, replace(PRESETS["kim2016"], steps=80, batch_size=8))
    list(trainer.run())
    ilr, hr = data.gather(data.choose(999, 64))
    with torch.inference_mode():
        ratio = (ilr - hr).square().mean() / (trainer.result(ilr) - hr).square().mean()
    assert 10 * math.log10(ratio) > 0.2


def test_validation_is_called_with_what_is_kept(data):
    trainer = Trainer(
        VDSR(VDSRConfig(3, 4)),
        data,
        TrainConfig(steps=5, average=0.9, **QUICK),
        validate=lambda model: (weights(model).abs().sum().item(), 0.5),
        validate_every=2,
    )
    found = [(progress.psnr, progress.gain) for progress in trainer.run()]
    assert [gain for _, gain in found] == [None, 0.5, None, 0.5, 0.5]
    assert [psnr is None for psnr, _ in found] == [True, False, True, False, False]
    assert found[-1][0] == weights(trainer.result).abs().sum().item()


@pytest.mark.parametrize("steps", [40, 5, 30])
def test_validations_are_spread_evenly(data, steps):
    config = TrainConfig(steps=steps, **QUICK)
    trainer = Trainer(VDSR(VDSRConfig(3, 4)), data, config, validate=lambda _: (30.0, 1.0), validate_every=None)
    found = [progress.step for progress in trainer.run() if progress.gain is not None]
    assert found == sorted({math.ceil(steps * part / 20) for part in range(1, 21)})


def test_validate_every_is_checked(data):
    with pytest.raises(ValueError, match=r"`validate_every` must be a.* of at least 1, got 0"):
        Trainer(VDSR(VDSRConfig(3, 4)), data, validate_every=0)


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


ONE_OF_TWO = """
import sys
import numpy as np, torch, torch.distributed as dist
from vdsr_core import VDSR, VDSRConfig, Patches, TrainConfig, Trainer, save_checkpoint
rank, count, folder, optimizer = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
if count > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
torch.manual_seed(rank)  # the weights of the first are taken
model = VDSR(VDSRConfig(4, 8))
data = Patches([np.random.default_rng(0).random((30, 40))], [2, 3], patch=16)
config = TrainConfig(steps=4, batch_size=5, theta=0.001, average=0.9)
if optimizer == "muon":
    config = TrainConfig(steps=4, batch_size=5, average=0.9, optimizer="muon", clip="none", learning_rate=1e-3)
trainer = Trainer(model, data, config, validate=lambda _: (30.0, 1.0), validate_every=2)
steps = list(trainer.run())
trainer.result.card = {"loss": [p.loss for p in steps], "clipped": [p.clipped for p in steps],
                       "gain": [p.gain for p in steps]}
save_checkpoint(f"{folder}/{rank}_of_{count}.safetensors", trainer.result)
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_two_processes_train_as_one(tmp_path, optimizer):
    """A batch of 5 in parts of 3 and 2: weights, losses and clipped shares of the joint batch, to rounding."""
    jobs = [(0, 1), (0, 2), (1, 2)]
    runs = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(rank), str(count), str(tmp_path), optimizer])
        for rank, count in jobs
    ]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    one, first, second = (load_checkpoint(tmp_path / f"{rank}_of_{count}.safetensors") for rank, count in jobs)
    assert torch.equal(weights(first), weights(second))
    torch.testing.assert_close(weights(first), weights(one), rtol=1e-4, atol=1e-6)
    assert first.card["loss"] == second.card["loss"] == pytest.approx(one.card["loss"], rel=1e-4)
    assert first.card["clipped"] == pytest.approx(one.card["clipped"], abs=0.01)
    assert 0 < min(one.card["clipped"]) < 1 or optimizer == "muon"
    assert (first.card["gain"], second.card["gain"]) == ([None, 1, None, 1], [None] * 4)


def test_network_with_maps_is_trained_with_what_it_is_told(rng):
    image = resize(rng.random((12, 12)), 4)
    data = Patches([image], [2], patch=16, degraded=6)  # of each kind
    model = make_model(0, VDSRConfig(4, 8, maps=("noise", "compression")))
    first = model.convolutions[0].weight.detach().clone()
    config = TrainConfig(steps=16, **MUON)
    list(Trainer(model, data, config).run())
    moved = (model.convolutions[0].weight - first).abs().amax((0, 2, 3))
    assert (moved > 1e-4).all()
    # The gradient is that of the residual which is told.
    trainer = Trainer(copy.deepcopy(model), data, config)
    ilr, hr, conditions = trainer._draw()
    choice = data.choose(0, 4, config.seed)
    assert torch.equal(conditions, data.conditions(choice))
    loss, _ = trainer._loss_and_gradients(ilr, hr, conditions)
    expected = compute_loss(ilr + trainer.model.residual(ilr, conditions), hr, "l1")
    torch.testing.assert_close(loss, expected.detach())
    assert loss != trainer._loss_and_gradients(ilr, hr)[0]


class Factor(torch.nn.Module):
    """A network of one parameter: what is missing is a multiple of the image."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5))

    def residual(self, ilr):
        return self.factor * ilr


def test_any_module_with_a_residual_is_trained(rng):
    data = Patches([rng.random((24, 24)).astype(np.float32)], [2], patch=12)
    config = TrainConfig(steps=1, batch_size=6, learning_rate=1e-3, momentum=0, weight_decay=0, clip="none")
    trainer = Trainer(Factor(), data, config, validate=lambda model: (30.0, model.factor.item()), validate_every=1)
    (progress,) = trainer.run()
    ilr, hr = data.gather(data.choose(0, 6))
    error = hr - 1.5 * ilr
    assert progress.loss == pytest.approx(float(error.square().sum() / 12), rel=1e-5)
    expected = 0.5 + 1e-3 * float((error * ilr).sum() / 6)  # half the squared error, the mean over the batch
    assert trainer.result.factor.item() == progress.gain == pytest.approx(expected, rel=1e-5)
