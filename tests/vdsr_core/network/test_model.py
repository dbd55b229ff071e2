import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from vdsr_core import VDSR, VDSRConfig, cover, load_model, model_names, resize
from vdsr_core.network.model import MAPS, Condition, add_maps, make_model


def test_parameter_count_is_the_papers():
    assert sum(p.numel() for p in VDSR().parameters()) == 665_921


def test_zero_weights_return_ilr(tiny_model):
    for parameter in tiny_model.parameters():
        torch.nn.init.zeros_(parameter)
    ilr = torch.rand(2, 1, 7, 9)
    assert torch.equal(tiny_model(ilr), ilr)


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize(("depth", "blocks"), [(2, True), (4, True), (7, False), (20, False)])
def test_halo_is_the_receptive_field(depth, blocks, fold):
    """The gradient of a square of output pixels reaches exactly `halo` pixels far, that of each pixel as far."""
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(depth, 4, fold=fold, blocks=blocks)).double()
    for layer in model.layers:  # no dead units, no cancelling
        layer.weight.data.abs_()
    start = (depth + 1) * fold  # of the square
    size = 2 * start + fold
    for pixel in range(start, start + fold):
        ilr = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        model.residual(ilr)[0, 0, pixel, pixel].backward()
        reached = np.flatnonzero(ilr.grad[0, 0].abs().sum(0).numpy())
        assert (reached.min(), reached.max()) == (start - model.halo, start + fold - 1 + model.halo)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_residual_equals_its_definition(rng, fold, blocks):
    """Squares become channels, pairs of layers add to what they are given; written out with SciPy, odd sides too."""
    model = make_model(0, VDSRConfig(6, 3, fold=fold, blocks=blocks)).double().requires_grad_(False)
    ilr = rng.random((7, 8))
    padded = np.pad(ilr, ((0, -7 % fold), (0, -8 % fold)), mode="edge")
    x = np.stack([padded[i::fold, j::fold] for i in range(fold) for j in range(fold)])

    def convolve(layer, x):
        """Each filter is the sum over its channels."""
        weight, bias = layer.weight.numpy(), layer.bias.numpy()
        filters = zip(weight, bias, strict=True)
        return np.stack([sum(map(partial(correlate, mode="constant"), x, kernels)) + b for kernels, b in filters])

    def relu(x):
        return np.maximum(x, 0)

    first, *hidden, last = model.convolutions
    x = relu(convolve(first, x))
    for one, two in zip(hidden[::2], hidden[1::2], strict=True):
        y = convolve(two, relu(convolve(one, x)))
        x = x + y if blocks else relu(y)
    expected = np.empty_like(padded)
    for number, channel in enumerate(convolve(last, x)):
        expected[number // fold :: fold, number % fold :: fold] = channel
    np.testing.assert_allclose(model.residual(torch.from_numpy(ilr)[None, None])[0, 0], expected[:7, :8], atol=1e-12)


@pytest.mark.parametrize(("fold", "blocks"), [(1, True), (2, True), (2, False), (3, True)])
def test_aligned_tiles_equal_the_whole(rng, fold, blocks):
    """Of random covers of random windows a random tile each; sides that no fold divides."""
    model = make_model(0, VDSRConfig(4, 4, fold=fold, blocks=blocks)).double().requires_grad_(False)
    ilr = torch.from_numpy(rng.random((67, 83)))
    whole = model.residual(ilr[None, None])[0, 0]
    for _ in range(500):
        cuts = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in ilr.shape]
        window = (slice(*cuts[0]), slice(*cuts[1]))
        tiles = cover(ilr.shape, int(rng.integers(5, 90)), model.halo, window, align=fold)
        tile = tiles[rng.integers(len(tiles))]
        found = model.residual(ilr[None, None, *tile.read])[0, 0][tile.crop]
        torch.testing.assert_close(found, whole[tile.write], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", model_names())
def test_a_flat_noisy_area_shows_no_pattern_of_squares(rng, name):
    """The mean residual of each place within a square is the same, to a fiftieth of the noise that is told."""
    model, noise = load_model(name).requires_grad_(False), 0.02
    side = max(2, model.config.fold)
    ilr = 0.5 + np.stack([resize(noise * rng.standard_normal((110, 110)), 2) for _ in range(2)])
    told = torch.tensor([Condition(offset=noise**2)] * 2)  # networks without a map of noise ignore it
    residual = model.residual(torch.from_numpy(ilr.astype(np.float32))[:, None], told)[:, 0].double()
    inside = residual[:, 40:-40, 40:-40]
    means = [inside[:, i::side, j::side].mean() for i in range(side) for j in range(side)]
    assert max(means) - min(means) < noise / 50
    assert inside.std() > noise / 10  # it does something


def test_he_initialisation_keeps_the_scale():
    torch.manual_seed(0)
    layer = VDSR().layers[10]
    assert layer.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize("kwargs", [{"depth": 1}, {"width": 0}, {"depth": 2.5}, {"width": True}, {"fold": 0}])
def test_bad_config_is_named(kwargs):
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}` must be an integer of at least"):
        VDSRConfig(**kwargs)


@pytest.mark.parametrize("name", ["residual", "blocks"])
def test_switches_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"`{name}` must be True or False, got 'no'"):
        VDSRConfig(**{name: "no"})


def test_blocks_need_an_even_depth():
    with pytest.raises(ValueError, match=r"^`depth` must be even with `blocks`, .* got 7. Use 8.$"):
        VDSRConfig(7, blocks=True)


def test_identity_start_is_bicubic_at_first_whatever_the_depth():
    """Layers pass on what they are given, and the residual is next to nothing."""
    ilr = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for depth in (4, 12):
        model = make_model(0, VDSRConfig(depth, 16), start="identity")
        first, *middle, last = model.convolutions
        he = make_model(0, VDSRConfig(depth, 16)).convolutions
        for layer, random in zip(middle, he[1:-1], strict=True):
            centre = torch.zeros_like(layer.weight)
            centre[range(16), range(16), 1, 1] = 1
            torch.testing.assert_close(layer.weight, centre + random.weight / 4)
        torch.testing.assert_close(last.weight, he[-1].weight / 50)
        assert torch.equal(first.weight, he[0].weight)
        assert model.residual(ilr).abs().max() < 0.1
    assert model.config == VDSRConfig(12, 16)


def test_blocks_start_as_bicubic_without_an_identity():
    config = VDSRConfig(6, 16, fold=2, blocks=True)
    model, he = (make_model(0, config, start=start).convolutions for start in ("identity", "he"))
    for number, (layer, random) in enumerate(zip(model, he, strict=True)):
        factor = {0: 1, 5: 0.02}.get(number, 0.25)
        torch.testing.assert_close(layer.weight, factor * random.weight)


def test_blocks_add_in_full_precision(monkeypatch):
    """The running sum, which grows block by block, is rounded to bfloat16 nowhere."""
    model = make_model(0, VDSRConfig(8, 4, blocks=True)).requires_grad_(False)
    given = []
    for layer in model.convolutions[1::2]:  # the first layer of each block, and the last layer
        layer.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0].dtype))
    model.residual(torch.rand(1, 1, 9, 9), half=torch.bfloat16)
    assert given == [torch.float32] * 4


def test_half_precision_rounds_neither_the_image_nor_the_sum(rng):
    """On an interpolated image the error is several times smaller than of all layers in bfloat16."""
    model = load_model()
    ilr = torch.from_numpy(resize(rng.random((12, 12)), 4)).float()[None, None] / 2 + 0.25
    with torch.no_grad():
        exact, half = model.residual(ilr), model.residual(ilr, half=torch.bfloat16)
        all_half = copy.deepcopy(model).bfloat16().residual(ilr.bfloat16())
    assert half.dtype == exact.dtype == torch.float32
    assert 0 < (half - exact).square().mean() < (all_half.float() - exact).square().mean() / 9


def test_unknown_start_is_named():
    with pytest.raises(ValueError, match=r"^`start` must be one of he, identity, got 'zero'"):
        make_model(start="zero")


def mapped(seed=0, **config):
    torch.manual_seed(seed)
    return VDSR(VDSRConfig(4, 8, maps=MAPS, **config)).requires_grad_(False)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_maps_follow_their_definition(rng, fold):
    model = mapped(fold=fold).double()
    ilr = rng.random((2, 1, 7, 8))
    conditions = np.array([[0.2, 0.01, 0.1, 2.0], [0.3, -0.1, 0.0, 8.0]])
    seen = model.prepare(torch.from_numpy(ilr), torch.from_numpy(conditions)).numpy()
    padded = np.pad(ilr[:, 0], ((0, 0), (0, -7 % fold), (0, -8 % fold)), mode="edge")
    rows, columns = padded.shape[1] // fold, padded.shape[2] // fold
    mean = padded.reshape(2, rows, fold, columns, fold).mean((2, 4))
    gain, offset, compression, _ = conditions.T[:, :, None, None]
    assert seen.shape[1] == fold**2 + 3
    np.testing.assert_array_equal(seen[:, -3], np.broadcast_to([[[0.5]], [[1.0]]], mean.shape))  # no more than x4
    np.testing.assert_allclose(seen[:, -2], np.sqrt(np.maximum(gain * mean + offset, 0)), atol=1e-12)
    np.testing.assert_array_equal(seen[:, -1], np.broadcast_to(compression, mean.shape))


@pytest.mark.parametrize("fold", [1, 2])
def test_maps_without_weight_change_nothing(fold):
    model = mapped(fold=fold, blocks=True)
    model.layers[0].weight[:, fold**2 :] = 0
    plain = VDSR(VDSRConfig(4, 8, fold=fold, blocks=True)).requires_grad_(False)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        theirs.copy_(ours[:, : fold**2] if ours is model.layers[0].weight else ours)
    ilr = torch.rand(1, 1, 9, 10)
    torch.testing.assert_close(
        model.residual(ilr, torch.tensor([[0.1, 0.2, 0.3, 4.0]])), plain.residual(ilr), rtol=0, atol=1e-6
    )
    assert torch.equal(model.residual(ilr), model.residual(ilr, torch.tensor([[0.0, 0.0, 0.0, 2.0]])))


@pytest.mark.parametrize("maps", ["noise", ("compression", "noise"), ("blur",), ("noise", "noise"), 3])
def test_unknown_maps_are_named(maps):
    with pytest.raises(ValueError, match=r"`maps` must be some of \('scale', .*'compression'\) in this order, got"):
        VDSRConfig(maps=maps)


@pytest.mark.parametrize("fold", [1, 2])
def test_added_maps_change_nothing_until_they_are_trained(fold):
    model = make_model(3, VDSRConfig(4, 8, fold=fold, blocks=True))
    told = add_maps(model)
    assert told.config == VDSRConfig(4, 8, fold=fold, blocks=True, maps=("scale", "noise", "compression"))
    assert told.scales == model.scales
    ilr = torch.rand(2, 1, 9, 8)
    for conditions in (None, 1 + torch.rand(2, 4)):
        torch.testing.assert_close(told.residual(ilr, conditions), model.residual(ilr), rtol=0, atol=1e-6)
    told.convolutions[0].weight.data.fill_(1)
    assert not torch.equal(told.convolutions[0].weight[:, : fold**2], model.convolutions[0].weight)
