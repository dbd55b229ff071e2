import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsr_core import VDSRConfig, load_model, resize
from vdsr_core.network.model import make_model
from vdsr_core.training.winograd import Workspace


def differentiate(residual, ilr, model):
    """The residual, and the gradients of a function of it in which each pixel has another weight."""
    out = residual(ilr)
    loss = (out.square() * torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()
    return out, torch.autograd.grad(loss, list(model.parameters()))


@given(
    depth=st.integers(3, 5),
    width=st.integers(1, 9),
    count=st.integers(1, 3),
    rows=st.integers(1, 14),
    columns=st.integers(1, 14),
    residual=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_residual_and_gradients_are_those_of_direct_convolution(depth, width, count, rows, columns, residual, seed):
    """To the rounding of double precision; twice, since all arrays are used again."""
    model = make_model(seed, VDSRConfig(depth, width, residual)).double()
    for layer in model.convolutions:  # no sum is 0 but for rounding, where ReLU's gradient would be a matter of taste
        torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(seed))
    space = Workspace(model, (count, rows, columns), torch.double)
    for number in range(2):
        ilr = torch.rand(count, 1, rows, columns, dtype=torch.double, generator=torch.Generator().manual_seed(number))
        out, gradients = differentiate(space.residual, ilr, model)
        expected, direct = differentiate(model.residual, ilr, model)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
        for ours, theirs in zip(gradients, direct, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("start", ["he", "identity"])
def test_single_precision_of_the_whole_depth(start):
    """As near to double precision as training could tell: gradients to a thousandth of their norm."""
    model = make_model(0, VDSRConfig(20, 16), start=start)
    exact = copy.deepcopy(model).double()
    ilr = torch.rand(2, 1, 17, 20, generator=torch.Generator().manual_seed(0))
    out, gradients = differentiate(Workspace(model, (2, 17, 20)).residual, ilr, model)
    expected, direct = differentiate(exact.residual, ilr.double(), exact)
    assert (out - expected).norm() < 1e-4 * expected.norm()
    for ours, theirs in zip(gradients, direct, strict=True):
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_default_network_is_about_as_exact_as_by_direct_convolution(rng):
    model = load_model()
    image = torch.from_numpy(resize(rng.random((10, 10)), 3))[None, None]
    exact = copy.deepcopy(model).double().residual(image)
    direct, ours = (
        (residual(image.float()) - exact).abs().max()
        for residual in (model.residual, Workspace(model, (1, 30, 30)).residual)
    )
    assert direct < 2e-6
    assert ours < 4e-6
