import contextlib

import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig, load_model, super_resolve
from vdsr_core.images.resampling import apply_taps, make_taps
from vdsr_core.network import ncnn_engine
from vdsr_core.network.engine import Engine, full_float32, interpolate
from vdsr_core.network.model import Condition, make_model

CPU = torch.device("cpu")


def identity(*shape):
    return tuple(make_taps(n, 1, 0, n) for n in shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [2, 3, 2.37])
def test_taps_in_torch_equal_numpy_bit_for_bit(rng, dtype, scale):
    window = rng.random((3, 13, 17)).astype(dtype)
    rows, columns = (make_taps(n, scale, 3, 20) for n in window.shape[-2:])
    window = window[:, rows.source, columns.source]
    expected = apply_taps(apply_taps(window, rows, -2), columns, -1)
    np.testing.assert_array_equal(interpolate(torch.from_numpy(window), rows, columns).numpy(), expected)


def test_run_adds_the_residual_to_the_first_channel_only(rng, tiny_model):
    window = rng.random((2, 9, 11), dtype=np.float32)
    out = Engine(tiny_model, CPU).run([window], [identity(9, 11)])[0]
    expected = tiny_model(torch.from_numpy(window[None, :1])).detach().numpy()[0, 0]
    np.testing.assert_allclose(out[0], expected, atol=1e-6)
    np.testing.assert_array_equal(out[1], window[1])


@pytest.mark.parametrize("shape", [(12, 18), (11, 17)])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_self_ensemble_is_the_mean_over_turned_images(rng, side, shape):
    """Of images extended to whole squares, by NumPy; what it adds turns with the image."""
    model = make_model(0, VDSRConfig(4, 6, fold=side, blocks=True)).double().requires_grad_(False)
    ilr = rng.random(shape)
    found = Engine(model, CPU).run([ilr[None]], [identity(*shape)], self_ensemble=True)[0, 0]
    whole = np.pad(ilr, [(0, -n % side) for n in shape], mode="edge")

    def residual(image):
        return model.residual(torch.from_numpy(image.copy())[None, None])[0, 0].numpy()

    turns = [np.rot90(residual(np.rot90(whole, k)), -k) for k in range(4)]
    turns += [np.rot90(residual(np.rot90(whole, k).T).T, -k) for k in range(4)]
    expected = ilr + np.mean(turns, 0)[: shape[0], : shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_what_shares_a_batch_does_not_matter(rng, tiny_model):
    engine = Engine(tiny_model, CPU)
    windows = list(rng.random((3, 1, 20, 20), dtype=np.float32))
    together = engine.run(windows, [identity(20, 20)] * 3)
    one_by_one = [engine.run([window], [identity(20, 20)])[0] for window in windows]
    if engine.name == "ncnn":
        np.testing.assert_array_equal(together, one_by_one)
    else:
        np.testing.assert_allclose(together, one_by_one, atol=1e-6)
        assert engine.pixels == 0  # one at a time, so that it is bit for bit in `super_resolve`


def test_the_callers_model_stays_as_it_is(rng, tiny_model):
    tiny_model.train()
    Engine(tiny_model, CPU, half=True).run([rng.random((1, 8, 8))], [identity(8, 8)])
    assert tiny_model.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in tiny_model.parameters())


def test_half_precision_stays_within_its_bound_on_a_ramp():
    """The interpolated image, the first and the last layer and the sum stay in float32."""
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    exact, half = (Engine(load_model(), CPU, half=h).run([ramp], [identity(64, 64)]) for h in (False, True))
    assert 0 < np.abs(exact - half).max() < 1e-3


@pytest.mark.parametrize("fast", [True, False])
def test_the_callers_autocast_is_not_for_the_network(rng, fast):
    image = rng.random((20, 20), dtype=np.float32)
    expected = super_resolve(image, 2, model=Engine(load_model(), CPU, fast=fast))
    ncnn_engine._make_ncnn.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(super_resolve(image, 2, model=Engine(load_model(), CPU, fast=fast)), expected)
        assert torch.is_autocast_enabled("cpu")


def test_what_a_device_cannot_address_is_computed_in_parts(rng, tiny_model):
    image = rng.random((50, 60), dtype=np.float32)
    engine = Engine(tiny_model, CPU)
    expected = super_resolve(image, 2, model=engine, tile=None)
    engine.most = 3000
    run, sizes = engine.run, []

    def noted(windows, taps, *others, **options):
        sizes.append(len(windows) * taps[0][0].index.shape[1] * taps[0][1].index.shape[1])
        return run(windows, taps, *others, **options)

    engine.run = noted
    np.testing.assert_allclose(super_resolve(image, 2, model=engine, tile=None), expected, atol=1e-6)
    assert len(sizes) > 3
    assert max(sizes) <= 3000


@pytest.mark.parametrize("legacy", [True, False])
def test_tensorfloat_is_off_while_a_gpu_computes_and_as_before_afterwards(monkeypatch, legacy):
    place, name = torch.backends.cudnn, "allow_tf32"
    if legacy:
        for kind in ("conv", "rnn"):
            monkeypatch.setattr(place, kind, None, raising=False)
    elif hasattr(place, "conv"):  # since PyTorch 2.9
        place, name = place.conv, "fp32_precision"
    before = getattr(place, name)
    assert before not in (False, "ieee")
    with full_float32(CPU):
        assert getattr(place, name) == before
    with contextlib.suppress(MemoryError), full_float32(torch.device("cuda")):
        assert getattr(place, name) in (False, "ieee")
        raise MemoryError
    assert getattr(place, name) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_full_precision_on_a_gpu_is_that_of_float32():
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    cpu = Engine(load_model(), CPU, fast=False).run([ramp], [identity(64, 64)])
    found = Engine(load_model(), torch.device("cuda"), half=False).run([ramp], [identity(64, 64)])
    np.testing.assert_allclose(found, cpu, atol=1e-5)


def test_tiles_that_overflow_in_half_precision_are_run_again(rng):
    """Activations beyond 65504: float16 gives infinity in one of two tiles."""
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(4, 8))
    for layer, factor in zip(model.layers, (4e4, 1, 1 / 4e2, 1 / 1e2), strict=True):
        layer.weight.data *= factor
    windows = [rng.random((1, 12, 12), dtype=np.float32) * level for level in (1, 1e-3)]
    taps = [identity(12, 12)] * 2
    exact, half = (Engine(model, CPU, half=h).run(windows, taps) for h in (False, True))
    assert np.isfinite(half).all()
    np.testing.assert_allclose(half[0], exact[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(half[1], exact[1], rtol=1e-2, atol=1e-3)
    assert not np.array_equal(half[1], exact[1])


def test_the_network_is_shown_no_more_than_it_knows(rng, tiny_model):
    """A hot pixel stays in the image; the network sees it at the end of its range."""
    window = rng.random((1, 9, 11), dtype=np.float32)
    window[0, 4, 5], window[0, 2, 2] = 50, -3
    out = Engine(tiny_model, CPU).run([window], [identity(9, 11)])[0, 0]
    seen = torch.from_numpy(np.clip(window, -0.25, 1.25)[None])
    np.testing.assert_allclose(out, window[0] + tiny_model.residual(seen).detach().numpy()[0, 0], atol=1e-5)


def test_a_network_that_gives_nan_is_an_error(rng, tiny_model):
    tiny_model.layers[0].weight.data.fill_(1e38)
    with pytest.raises(FloatingPointError, match="the network gave NaN or infinity"):
        Engine(tiny_model, CPU).run([rng.random((1, 8, 8))], [identity(8, 8)])


@pytest.mark.parametrize(
    "message",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA out of memory. Tried",
        "MPS backend out of memory",
    ],
)
def test_lack_of_memory_is_a_memory_error(rng, tiny_model, monkeypatch, message):
    def fail(*_, stop):
        raise RuntimeError(message)

    monkeypatch.setattr("vdsr_core.network.torch_strips.residual_strips", fail)
    engine = Engine(tiny_model, CPU, fast=False)
    with pytest.raises(MemoryError, match=message[:10]):
        engine.run([rng.random((1, 8, 8))], [identity(8, 8)])


def test_other_errors_of_the_device_are_not_swallowed(rng, tiny_model, monkeypatch):
    def fail(*_, stop):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr("vdsr_core.network.torch_strips.residual_strips", fail)
    engine = Engine(tiny_model, CPU, fast=False)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        engine.run([rng.random((1, 8, 8))], [identity(8, 8)])


@pytest.mark.parametrize("fast", [False, True])
def test_memory_of_layers_does_not_grow_with_the_rows_of_a_tile(tiny_model, fast):
    engine = Engine(tiny_model, CPU, fast=fast)
    small, tall, taller = (engine.memory(rows, 100) for rows in (10, 1000, 2000))
    assert small < tall
    assert taller - tall == 1000 * 100 * 32  # the interpolated image and what is made of it


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("fold", [1, 2])
def test_engines_tell_the_network_noise_and_compression(rng, fold, fast):
    torch.manual_seed(0)
    config = VDSRConfig(4, 8, fold=fold, blocks=True, maps=("noise", "compression"))
    model = VDSR(config).requires_grad_(False)
    run = Engine(model, torch.device("cpu"), fast=fast).run
    windows, taps = [rng.random((1, 21, 30), dtype=np.float32) for _ in range(2)], [identity(21, 30)] * 2
    conditions = [Condition(0.1, 0.02, 0.3), Condition(0, 0.5, 0)]
    together = run(windows, taps, conditions=conditions)
    for number in range(2):
        ilr = torch.from_numpy(windows[number][None])
        expected = ilr + model.residual(ilr, torch.tensor([conditions[number]]))
        np.testing.assert_allclose(together[number], expected[0].numpy(), rtol=0, atol=1e-5)
        alone = run(windows[number : number + 1], taps[:1], conditions=conditions[number : number + 1])
        np.testing.assert_allclose(alone[0], together[number], rtol=0, atol=1e-5)
    assert np.abs(together - run(windows, taps)).max() > 1e-3
