import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vdsr_core import resize
from vdsr_core.dataset.hold_out import HoldOut, windows
from vdsr_core.network.model import VDSR, Condition, VDSRConfig, add_maps


@given(rows=st.integers(1, 900), columns=st.integers(1, 900), count=st.integers(0, 9))
@example(rows=900, columns=180, count=9)
def test_pieces_are_spread_over_a_plane_and_do_not_overlap(rows, columns, count):
    plane = np.add.outer(np.arange(rows), np.arange(columns)).astype(np.float32)
    times = np.zeros(plane.shape)
    found = windows(plane, count)
    for window in found:
        times[window] += 1
    assert times.max() == 1
    assert len(found) <= max(1, min(count, 4))
    if max(rows, columns) > 2 * 192 and count > 1:
        assert len(found) > 1
    if min(rows, columns) > 1:
        assert abs(np.argwhere(times).mean(0) - (np.array(plane.shape) - 1) / 2).max() <= 1


def test_a_piece_has_detail_where_the_plane_has(rng):
    plane = np.zeros((500, 700), np.float32)
    plane[:40, :40] = rng.random((40, 40))
    for count in (1, 4):
        (window,) = windows(plane, count)
        assert np.ptp(plane[window])
    assert HoldOut([plane], [2]).pieces


def test_score_of_bicubic_is_that_of_a_network_without_residual(tiny_model, rng):
    with torch.no_grad():
        for parameter in tiny_model.convolutions[-1].parameters():
            parameter.zero_()
    hold_out = HoldOut([rng.random((300, 40)).astype(np.float32)] * 20, [2, 3])
    assert len(hold_out.pieces) <= 16
    assert len(HoldOut([rng.random((9, 40)).astype(np.float32)] * 40, [2], pieces=32).pieces) == 20
    assert len(HoldOut([rng.random((900, 200)).astype(np.float32)], [2, 3]).pieces) == 8  # four of one plane
    assert max(max(piece.hr.shape) for piece in hold_out.pieces) <= 192
    assert hold_out.means(hold_out.restore(tiny_model)) == pytest.approx(hold_out.bicubic, abs=1e-4)
    assert hold_out.validate(tiny_model) == pytest.approx((np.mean(list(hold_out.bicubic.values())), 0), abs=1e-4)


def test_degraded_pieces_are_measured_beside_the_others(rng):
    planes = [resize(rng.random((30, 24), dtype=np.float32), 4) for _ in range(3)]
    plain, told = (HoldOut(planes, [2, 3], degraded=degraded) for degraded in (False, True))
    assert set(told.bicubic) == {"2", "2 degraded", "3", "3 degraded"}
    assert {name: told.bicubic[name] for name in plain.bicubic} == plain.bicubic
    assert all(told.bicubic[f"{scale} degraded"] < told.bicubic[scale] for scale in ("2", "3"))
    assert {piece.condition for piece in plain.pieces} == {Condition(scale=2), Condition(scale=3)}
    heard = VDSR(VDSRConfig(2, 4, maps=("noise", "compression"))).requires_grad_(False)
    heard.convolutions[0].weight[:, :1] = 0  # it sees the maps alone
    silent = add_maps(VDSR(VDSRConfig(2, 4)).requires_grad_(False))
    assert told.means(told.restore(heard)) != told.means(told.restore(silent))
    spoken = [piece.condition for piece in told.pieces]
    restored = told.restore(heard)
    assert any(condition[:3] != Condition()[:3] for condition in spoken)
    for piece, sr in zip(told.pieces, restored, strict=True):
        ilr = torch.from_numpy(piece.ilr)[None, None].float()
        expected = ilr + heard.residual(ilr, torch.tensor([piece.condition]))
        np.testing.assert_allclose(sr, expected[0, 0], atol=1e-5)
