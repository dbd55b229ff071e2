import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig, load_model, super_resolve
from vdsr_core.images.resampling import make_taps
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import fold, unfold
from vdsr_core.network.model import make_model as start_model
from vdsr_core.network.ncnn_engine import find_ncnn
from vdsr_core.network.strips import ROWS

pytest.importorskip("ncnn")
from vdsr_core.network import ncnn_network  # only where ncnn is
from vdsr_core.network.ncnn_network import NcnnNetwork

CPU = torch.device("cpu")


def convert(model, threads=1):
    layers = [(c.weight.detach().numpy(), c.bias.detach().numpy()) for c in model.convolutions]
    return NcnnNetwork(layers, threads, model.config.blocks)


def make_model(depth, width, **shape):
    torch.manual_seed(depth)
    return VDSR(VDSRConfig(depth, width, **shape)).requires_grad_(False)


def run(network, ilr, side=1, prepare=None):
    """The residual of an image, (H, W); `prepare` gives what the first layer sees, by default the folded image."""
    ilr = torch.from_numpy(ilr)[None, None]
    strips = network.residual_strips((prepare(ilr) if prepare else fold(ilr, side))[0].numpy(), ROWS)
    return unfold(torch.from_numpy(np.concatenate(list(strips), 1))[None], side, ilr.shape).numpy()[0, 0]


def identity(*shape):
    return tuple(make_taps(n, 1, 0, n) for n in shape)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 4 * ROWS),
    columns=st.integers(1, 40),
    depth=st.sampled_from([2, 4, 5, 6]),
    width=st.integers(1, 20),
    side=st.integers(1, 3),
    blocks=st.booleans(),
)
@example(rows=ROWS + 4 + ROWS // 2 + 1, columns=5, depth=4, width=8, side=1, blocks=False)
@example(rows=ROWS + 4 + ROWS // 2 + 1, columns=5, depth=4, width=8, side=1, blocks=True)
@example(rows=4 * ROWS, columns=33, depth=6, width=16, side=1, blocks=True)
@example(rows=1, columns=1, depth=2, width=64, side=2, blocks=True)
def test_ncnn_equals_torch(rows, columns, depth, width, side, blocks):
    model = make_model(depth, width, fold=side, blocks=blocks and depth % 2 == 0)
    ilr = np.random.default_rng(rows).random((rows, columns), dtype=np.float32)
    expected = model.double().residual(torch.from_numpy(ilr).double()[None, None]).numpy()[0, 0]
    found = run(convert(model.float()), ilr, side)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("shape", [None, {}, {"fold": 2, "blocks": True}])
def test_networks_of_full_size_equal_float64(rng, shape):
    """The default one, the paper's and a folded one; several strips of 20 layers."""
    model = load_model() if shape is None else start_model(0, VDSRConfig(**shape), start="identity")
    model.requires_grad_(False)
    side = model.config.fold
    ilr = rng.random(((4 * ROWS + 20) * side, 60 * side + 1), dtype=np.float32)
    found = run(convert(model, threads=2), ilr, side, model.prepare)
    expected = model.double().residual(torch.from_numpy(ilr).double()[None, None]).numpy()[0, 0]
    assert 0 < np.abs(found - expected).max() < 1e-5


def test_weights_are_copied_without_a_file(rng, monkeypatch):
    """Neither a full disk nor the letters of a Windows user's name matter, nor what becomes of the arrays."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    model, ilr = make_model(4, 16), rng.random((40, 30), dtype=np.float32)
    expected = model.residual(torch.from_numpy(ilr)[None, None]).numpy()[0, 0]
    network = convert(model)
    for parameter in model.parameters():
        parameter.fill_(np.nan)
    np.testing.assert_allclose(run(network, ilr), expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


def test_bands_of_a_wide_image_equal_the_whole(rng):
    model = make_model(4, 8)
    ilr = rng.random((40, 900), dtype=np.float32)
    expected = model.residual(torch.from_numpy(ilr)[None, None]).numpy()[0, 0]
    np.testing.assert_allclose(convert(model).residual(ilr[None, None])[0, 0], expected, rtol=0, atol=1e-5)


def test_two_threads_through_one_network_do_not_mix(rng):
    network = convert(make_model(4, 16))
    images = rng.random((2, 4 * ROWS, 40), dtype=np.float32)
    expected = [run(network, image) for image in images]
    found = [[], []]

    def work(number):
        for _ in range(5):
            found[number].append(run(network, images[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert len(found[number]) == 5
        for result in found[number]:
            np.testing.assert_array_equal(result, expected[number])


def test_a_closed_run_leaves_the_network_as_it_was(rng):
    network = convert(make_model(4, 16))
    ilr = rng.random((4 * ROWS, 40), dtype=np.float32)
    expected = run(network, ilr)
    strips = network.residual_strips(ilr[None], ROWS)
    np.testing.assert_array_equal(next(strips)[0], expected[:ROWS])
    strips.close()
    np.testing.assert_array_equal(run(network, ilr), expected)


def test_the_engine_takes_ncnn_by_itself_on_the_cpu_in_float32():
    model = make_model(4, 8)
    assert Engine(model, CPU).name == "ncnn"
    assert Engine(model, CPU, fast=False).name == "torch"
    assert Engine(model, CPU, half=True).name == "torch"
    assert Engine(model.double(), CPU).name == "torch"


def test_the_engine_leaves_the_random_numbers_alone():
    model, state = make_model(7, 8), torch.get_rng_state()
    assert Engine(model, CPU).name == "ncnn"
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "shape", [{}, {"residual": False}, {"fold": 2, "blocks": True}, {"fold": 3, "residual": False}]
)
def test_the_engines_agree(rng, shape):
    model = make_model(6, 12, **shape)
    window, taps = rng.random((2, 70, 31), dtype=np.float32), identity(70, 31)
    fast, slow = (Engine(model, CPU, fast=fast).run([window], [taps]) for fast in (True, False))
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-5)


def test_a_network_changed_in_place_is_converted_again(rng):
    model = make_model(4, 8)
    window, taps = rng.random((1, 20, 20), dtype=np.float32), identity(20, 20)
    before = Engine(model, CPU).run([window], [taps])
    model.layers[1].weight.data *= 1.1
    after = Engine(model, CPU).run([window], [taps])
    np.testing.assert_allclose(after, Engine(model, CPU, fast=False).run([window], [taps]), rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_what_overflows_in_winograd_is_run_again_by_torch():
    """Activations of 1e37: sums of 36 of them are infinite in float32, sums of 9 weighted ones are not."""
    model = make_model(4, 16)
    model.layers[0].weight.data *= 3e37
    model.layers[-1].weight.data /= 3e37
    window, taps = np.full((1, 24, 24), 0.7, np.float32), identity(24, 24)
    window[0, ::3] = 0.2
    engine = Engine(model, CPU, fast=False)
    expected = engine.run([window], [taps])
    engine._network = convert(model)
    assert not np.isfinite(run(engine._network, window[0])).all()
    np.testing.assert_array_equal(engine.run([window], [taps]), expected)


def test_a_broken_ncnn_is_a_warning_and_torch(monkeypatch):
    model = make_model(6, 8)
    monkeypatch.setattr(ncnn_network, "MAGIC", 1)
    with pytest.warns(UserWarning, match="ncnn is installed but does not work here .*; continuing with PyTorch"):
        engine = Engine(model, CPU)
    assert engine.name == "torch"


def test_an_ncnn_that_fails_at_work_is_a_warning_and_torch(monkeypatch, rng):
    model, window = make_model(5, 8), rng.random((1, 9, 11), dtype=np.float32)
    taps = [tuple(make_taps(n, 1, 0, n) for n in window.shape[1:])]
    engine = Engine(model, CPU)
    monkeypatch.setattr(ncnn_network, "_extract", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("code -1")))
    with pytest.warns(
        UserWarning, match=r"ncnn is installed but does not work here \(code -1\); continuing with PyTorch"
    ):
        found = engine.run([window], taps)
    np.testing.assert_array_equal(found, Engine(model, CPU, fast=False).run([window], taps))
    assert engine.name == "torch"


def test_an_ncnn_that_disagrees_is_a_warning_and_torch(monkeypatch):
    model = make_model(3, 8)
    monkeypatch.setattr(ncnn_network, "RAW", b"\x01\x00\x00\x00")
    with pytest.warns(UserWarning, match="ncnn is installed but does not work here"):
        assert find_ncnn(model, 1) is None


def test_the_result_is_the_same_within_a_step(rng):
    image = rng.integers(0, 4000, (60, 45), np.uint16)
    model = make_model(4, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiled = super_resolve(image, 2, model=model, noise=0, tile=32, device="cpu")
    whole = super_resolve(image, 2, model=model, noise=0, tile=None, device="cpu")
    assert np.abs(tiled.astype(int) - whole).max() <= 1
