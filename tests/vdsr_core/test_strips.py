import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig
from vdsr_core.strips import ROWS, bands, cut, residual_strips, tallest

HEIGHTS = st.integers(1, 5 * ROWS)


def make_model(depth, width, residual=True):
    torch.manual_seed(depth)
    return VDSR(VDSRConfig(depth, width, residual=residual)).double().requires_grad_(False)


@given(rows=HEIGHTS, columns=st.integers(1, 9), depth=st.integers(2, 6), residual=st.booleans())
@example(rows=ROWS + 4, columns=5, depth=4, residual=True)
@example(rows=ROWS + 4 + ROWS // 2, columns=5, depth=4, residual=True)
@example(rows=ROWS + 4 + ROWS // 2 + 1, columns=5, depth=4, residual=False)
def test_strips_equal_the_whole(rows, columns, depth, residual):
    model = make_model(depth, 3, residual)
    ilr = torch.rand(2, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    found = torch.cat(list(residual_strips(model, ilr, ROWS)), 2)
    torch.testing.assert_close(found, model.residual(ilr), rtol=0, atol=1e-12)


@given(rows=HEIGHTS, depth=st.integers(2, 40))
def test_cut_covers_the_rows_and_no_layer_runs_dry(rows, depth):
    parts = cut(rows, depth)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    heights = [part.stop - part.start for part in parts]
    if len(parts) > 1:
        assert heights[0] == ROWS + depth
        assert set(heights[1:-1]) <= {ROWS}
        heights[-1] += depth  # what the layers have held back
    assert max(heights) <= tallest(rows, depth)


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
        patch.setattr("vdsr_core.strips.conv2d", count)
        list(residual_strips(model, ilr, ROWS))
    assert rows == dict.fromkeys(range(4), 4 * ROWS)


@given(columns=st.integers(1, 300), halo=st.integers(0, 40), band=st.integers(1, 100))
def test_bands_cover_the_columns_and_see_their_halo(columns, halo, band):
    parts = bands(columns, halo, band)
    assert [column for inner, _ in parts for column in range(inner.start, inner.stop)] == list(range(columns))
    for inner, seen in parts:
        assert seen == slice(max(0, inner.start - halo), min(columns, inner.stop + halo))
        assert seen.stop - seen.start <= band + 2 * halo
