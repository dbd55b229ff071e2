import copy

import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig, load_model, resize
from vdsr_core.network.model import make_model


def test_parameter_count_is_the_papers():
    assert sum(p.numel() for p in VDSR().parameters()) == 665_921


def test_zero_weights_return_ilr(tiny_model):
    for parameter in tiny_model.parameters():
        torch.nn.init.zeros_(parameter)
    ilr = torch.rand(2, 1, 7, 9)
    assert torch.equal(tiny_model(ilr), ilr)


@pytest.mark.parametrize("depth", [2, 4, 7, 20])
def test_halo_is_the_receptive_field(depth):
    """The gradient of one output pixel reaches exactly `halo` pixels far."""
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(depth, 4)).double()
    for layer in model.layers:  # no dead units, no cancelling
        layer.weight.data.abs_()
    size = 2 * depth + 11
    ilr = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    model.residual(ilr)[0, 0, size // 2, size // 2].backward()
    reached = np.flatnonzero(ilr.grad[0, 0].abs().sum(0).numpy())
    assert (reached.min(), reached.max()) == (size // 2 - model.halo, size // 2 + model.halo)


def test_he_initialisation_keeps_the_scale():
    torch.manual_seed(0)
    layer = VDSR().layers[10]
    assert layer.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize("kwargs", [{"depth": 1}, {"width": 0}, {"depth": 2.5}, {"width": True}])
def test_bad_config_is_named(kwargs):
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}` must be a whole number"):
        VDSRConfig(**kwargs)


def test_residual_is_true_or_false():
    with pytest.raises(ValueError, match="`residual` must be True or False, got 'no'"):
        VDSRConfig(residual="no")


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
