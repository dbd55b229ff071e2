import numpy as np
import pytest
import zarr

from vdsr_core import plan, stream, verify

TILE = {"tile": 16, "shard": 32}


def test_verify_finds_what_was_changed(tmp_path, source, model):
    target = tmp_path / "out.ome.zarr"
    list(stream(plan(source, 2, target, model=model, **TILE), model=model))
    checks = list(verify(target, model=model, samples=20))
    places = {(check.level, *((part.start, part.stop) for part in check.window)) for check in checks}
    assert len(places) == len(checks)  # none twice, although the coarser levels have few
    assert {check.level for check in checks} == set(range(5))
    assert all(check.ok for check in checks)
    finest = [check for check in checks if check.level == 0]
    tiles = [check for check in finest if all(part.start % 16 == 0 for part in check.window)]
    assert len(tiles) > 10
    assert max(check.largest for check in tiles) == 0  # whole tiles, bit for bit
    assert {check.window[0].start % 32 for check in finest if check not in tiles} >= {24}
    array = zarr.open_array(target / "0")
    array[40:72, 60:100] = array[40:72, 60:100] + 2
    assert not all(check.ok for check in verify(target, model=model, samples=20))


def test_verify_wants_what_the_target_was_made_of(tmp_path, source, model):
    target = tmp_path / "out.ome.zarr"
    list(stream(plan(source, 2, target, model=model, **TILE), model=model))
    with pytest.raises(ValueError, match="`model` must be the network of the target"):
        verify(target)
    with pytest.raises(ValueError, match="must say by which plan it was made"):
        verify(source)
    zarr.open_array(source)[:] = 0
    with pytest.raises(ValueError, match="must be the one of the plan"):
        verify(target, model=model)


def test_verify_allows_a_step_of_integers_and_the_rounding_of_a_wide_range(tmp_path, model):
    """On another processor float32 rounds otherwise, by many steps of 32-bit integers."""
    source, target = tmp_path / "image.zarr", tmp_path / "out.ome.zarr"
    channels = [np.tile(np.repeat(np.array([0, high], np.int32), 4), (8, 1)) for high in (200, 2**30)]
    zarr.save_array(source, np.stack(channels))
    list(stream(plan(source, 2, target, model=model, axes="CYX", **TILE), model=model))
    checks = [check for check in verify(target, model=model) if check.level == 0]
    wide = pytest.approx(1e-5 * 2**30 * 1.5)
    assert {check.window[0].start for check in checks} == {0, 1}
    assert all(check.allowed == (wide if check.window[0].start else 1) for check in checks)
