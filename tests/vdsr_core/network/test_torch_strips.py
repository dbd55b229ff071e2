import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig
from vdsr_core.network import strips, torch_strips
from vdsr_core.network.model import fold, unfold
from vdsr_core.network.strips import ROWS
from vdsr_core.network.torch_strips import residual_strips
from vdsr_core.stopping import Stopped

SHAPES = [{}, {"fold": 2, "blocks": True}, {"fold": 3}, {"blocks": True}]


def make_model(depth, width, **shape):
    torch.manual_seed(depth)
    return VDSR(VDSRConfig(depth, width, **shape)).double().requires_grad_(False)


@given(
    rows=st.integers(1, 5 * ROWS),
    columns=st.integers(1, 9),
    depth=st.sampled_from([2, 3, 4, 6]),
    side=st.integers(1, 3),
    blocks=st.booleans(),
)
@example(rows=ROWS + 4, columns=5, depth=4, side=1, blocks=False)
@example(rows=ROWS + 4 + ROWS // 2, columns=5, depth=4, side=1, blocks=True)
@example(rows=ROWS + 4 + ROWS // 2 + 1, columns=5, depth=4, side=1, blocks=True)
def test_strips_equal_the_whole(rows, columns, depth, side, blocks):
    model = make_model(depth, 3, fold=side, blocks=blocks and depth % 2 == 0)
    ilr = torch.rand(2, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    found = torch.cat(list(residual_strips(model, fold(ilr, side), ROWS)), 2)
    torch.testing.assert_close(unfold(found, side, ilr.shape), model.residual(ilr), rtol=0, atol=1e-12)


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
        patch.setattr("vdsr_core.network.torch_strips.conv2d", count)
        list(residual_strips(model, ilr, ROWS))
    assert rows == dict.fromkeys(range(4), 4 * ROWS)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(torch_strips, "LARGE", 1)
    monkeypatch.setattr(strips, "LARGE", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 120), columns=st.integers(1, 900), shape=st.sampled_from(SHAPES))
def test_blocks_on_two_cores_equal_the_whole(two_cores, rows, columns, shape):
    model = make_model(4, 3, **shape)
    ilr = torch.rand(2, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    side = model.config.fold
    found = unfold(torch_strips.residual(model, fold(ilr, side)), side, ilr.shape)
    torch.testing.assert_close(found, model.residual(ilr), rtol=0, atol=1e-12)
    assert torch.get_num_threads() == 2


def test_threads_that_start_meanwhile_have_all_cores(two_cores):
    """Those that compute have one each; nobody else notices."""
    model, found = make_model(4, 3), []

    class Look(threading.Event):
        """Asked in the midst of the work."""

        def is_set(self):
            with ThreadPoolExecutor(1) as pool:
                found.append(pool.submit(torch.get_num_threads).result())
            return False

    torch_strips.residual(model, torch.rand(1, 1, 40, 40, dtype=torch.float64), Look())
    assert set(found) == {2}


def test_blocks_stop_when_asked(two_cores):
    model = make_model(4, 3)
    ilr = torch.rand(1, 1, 200, 200, dtype=torch.float64)
    seen = []

    class Watch(threading.Event):
        """Set after three looks at it."""

        def is_set(self):
            seen.append(None)
            return len(seen) > 3

    with pytest.raises(Stopped):
        torch_strips.residual(model, ilr, Watch())
    assert torch.get_num_threads() == 2
