import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig


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
