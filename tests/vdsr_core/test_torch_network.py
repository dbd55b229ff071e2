import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig
from vdsr_core.strips import ROWS
from vdsr_core.torch_network import residual_strips


def make_model(depth, width, residual=True):
    torch.manual_seed(depth)
    return VDSR(VDSRConfig(depth, width, residual=residual)).double().requires_grad_(False)


@given(rows=st.integers(1, 5 * ROWS), columns=st.integers(1, 9), depth=st.integers(2, 6), residual=st.booleans())
@example(rows=ROWS + 4, columns=5, depth=4, residual=True)
@example(rows=ROWS + 4 + ROWS // 2, columns=5, depth=4, residual=True)
@example(rows=ROWS + 4 + ROWS // 2 + 1, columns=5, depth=4, residual=False)
def test_strips_equal_the_whole(rows, columns, depth, residual):
    model = make_model(depth, 3, residual)
    ilr = torch.rand(2, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    found = torch.cat(list(residual_strips(model, ilr, ROWS)), 2)
    torch.testing.assert_close(found, model.residual(ilr), rtol=0, atol=1e-12)


def test_nothing_is_computed_twice():
    """The rows that come out of the layers, all strips together, are those of the image."""
    model = make_model(4, 3)
    rows = dict.fromkeys(range(4), 0)
    ilr = torch.rand(1, 1, 4 * ROWS, 3, dtype=torch.float64)
    original = torch.nn.functional.conv2d

    def count(x, weight, bias, padding):
        number = next(i for i, layer in enumerate(model.convolutions) if layer.weight is weight)
        out = original(x, weight, bias, padding=padding)
        rows[number] += out.shape[2]
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdsr_core.torch_network.conv2d", count)
        list(residual_strips(model, ilr, ROWS))
    assert rows == dict.fromkeys(range(4), 4 * ROWS)
