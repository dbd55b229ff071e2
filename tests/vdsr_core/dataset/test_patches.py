import numpy as np
import pytest
import torch

from vdsr_core import degrade, resize
from vdsr_core.dataset.patches import Patches
from vdsr_core.dataset.store import join


@pytest.fixture
def images(rng):
    return [rng.random(shape, dtype=np.float32) for shape in ((31, 40), (50, 27), (24, 24))]


def dihedral(patch):
    return [np.rot90(q, k) for q in (patch, patch.T) for k in range(4)]


@pytest.mark.parametrize("grid", [False, True])
def test_patches_come_from_the_images_and_belong_together(images, grid):
    """Every (ilr, hr) is a window of the reference pair, in one and the same orientation."""
    scales = [2, 3, 2.5]
    patches = Patches(images, scales, patch=9, grid=grid)
    choice = patches.choose(0, 64)
    ilr, hr = (part.numpy()[:, 0] for part in patches.gather(choice))
    seen = set()
    for k in range(64):
        scale, number = scales[choice.pair[k] // len(images)], int(choice.pair[k]) % len(images)
        m = [int(n / scale) for n in images[number].shape]
        truth = images[number][: round(scale * m[0]), : round(scale * m[1])].astype(np.float64)
        back = resize(degrade(images[number].astype(np.float64), scale), scale, output_shape=truth.shape)
        rows, columns = (slice(start, start + 9) for start in (choice.row[k], choice.column[k]))
        orientation = [i for i, p in enumerate(dihedral(truth[rows, columns])) if np.allclose(p, hr[k])]
        assert len(orientation) == 1
        np.testing.assert_allclose(ilr[k], dihedral(back[rows, columns])[orientation[0]], atol=1e-6)
        seen.add(orientation[0])
    assert seen == set(range(8))


def test_all_scales_are_equally_likely_and_images_by_their_places(images):
    patches = Patches(images, [2, 3, 4], patch=20)
    pair = patches.choose(0, 6000).pair
    scale, image = pair // 3, pair % 3
    assert torch.bincount(scale).tolist() == pytest.approx([2000] * 3, rel=0.1)
    places = np.array([(30 - 19) * (40 - 19), (50 - 19) * (26 - 19), 25], float)
    share = torch.bincount(image[scale == 0], minlength=3).numpy()
    np.testing.assert_allclose(share / share.sum(), places / places.sum(), atol=0.03)


def test_an_epoch_of_the_grid_takes_each_patch_once(images):
    patches = Patches(images, [2, 4], patch=8, grid=True)
    count = len(patches)
    for epoch in range(2):
        choices = [patches.choose(step, 1) for step in range(epoch * count, (epoch + 1) * count)]
        places = {(int(c.pair[0]), int(c.row[0]), int(c.column[0])) for c in choices}
        assert len(places) == count
        assert all(row % 8 == 0 and column % 8 == 0 for _, row, column in places)


def test_choices_follow_from_seed_and_step_alone(images):
    patches = Patches(images, [2, 3], patch=8)
    first = patches.choose(5, 16, seed=1)
    patches.choose(7, 3)
    again, other = patches.choose(5, 16, seed=1), patches.choose(5, 16, seed=2)
    assert torch.equal(first.row, again.row)
    assert torch.equal(first.flips, again.flips)
    assert not torch.equal(first.row, other.row)


@pytest.mark.parametrize(("augment", "count"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_augment_bounds_the_orientations(images, augment, count):
    flips = Patches(images, [2], patch=8, augment=augment).choose(0, 400).flips
    assert len(set(map(tuple, flips.tolist()))) == count


def test_patch_shrinks_to_the_smallest_image(rng):
    patches = Patches([rng.random((40, 40)), rng.random((15, 60))], [2], patch=41)
    assert patches.patch == 14
    assert patches.gather(patches.choose(0, 3))[0].shape == (3, 1, 14, 14)


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        Patches([])


def test_draws_from_a_range_of_scales_are_prepared_like_given_scales(images):
    """A pair for each image and part of the range, equal to that of the same scale when it is given."""
    patches = Patches(images, [2], scale_range=(1.5, 4), draws=5, patch=8)
    assert patches.factors[:3] == [2, 2, 2]
    drawn = np.reshape(patches.factors[3:], (5, 3))
    edges = np.linspace(1.5, 4, 6)
    assert np.all((edges[:-1, None] <= drawn) & (drawn < edges[1:, None]))
    assert len(np.unique(drawn)) == 15
    start = 0
    for number, scale in enumerate(patches.factors):
        ilr = Patches([images[number % 3]], [scale]).ilr
        torch.testing.assert_close(patches.ilr[start : start + len(ilr)], ilr, rtol=0, atol=0)
        start += len(ilr)
    assert start == len(patches.ilr)
    assert Patches(images, [2], scale_range=(1.5, 4), draws=5, seed=1).factors != patches.factors
    group = patches.choose(0, 6000).pair // 3
    assert torch.bincount(group).tolist() == pytest.approx([1000] * 6, rel=0.15)


def test_gain_and_offset_are_drawn_per_patch_and_change_nothing_else(images):
    plain = Patches(images, [2, 3], patch=8)
    varied = Patches(images, [2, 3], patch=8, gain=(0.25, 4), offset=(-0.5, 0.5))
    before, choice = plain.choose(3, 500), varied.choose(3, 500)
    assert torch.equal(before.row, choice.row)
    assert torch.equal(before.flips, choice.flips)
    gain, offset = choice.intensity.T
    assert 0.25 <= gain.min() < 0.3
    assert 3.5 < gain.max() <= 4
    assert (gain < 1).float().mean().item() == pytest.approx(0.5, abs=0.1)  # as often down as up
    assert -0.5 <= offset.min() < -0.4 < 0.4 < offset.max() <= 0.5
    for old, new in zip(plain.gather(before), varied.gather(choice), strict=True):
        torch.testing.assert_close(new, old * gain[:, None, None, None] + offset[:, None, None, None])


def test_degrade_is_the_callers(images):
    patches = Patches(images, [2], degrade=lambda image, scale: degrade(image, scale, blur=2), patch=8)
    expected = [resize(degrade(im.astype(float), 2, blur=2), 2) for im in images]
    np.testing.assert_allclose(patches.ilr, np.concatenate([e.ravel() for e in expected]), atol=1e-6)
    with pytest.raises(ValueError, match=r"`degrade` must give floor\(n / scale\) pixels, \(15, 20\)"):
        Patches(images, [2], degrade=lambda image, _: image)


def test_registered_pairs_join_and_are_a_group_of_their_own(images, rng):
    pairs = [(rng.random((9, 10)), rng.random((18, 20))), (rng.random((8, 10)), rng.random((20, 25)))]
    patches = Patches(images, [2, 3], pairs=pairs, patch=8)
    assert patches.factors[6:] == [2, 2.5]
    choice = patches.choose(0, 600)
    assert (choice.pair >= 6).float().mean().item() == pytest.approx(1 / 3, abs=0.06)
    ilr, hr = (part.numpy()[:, 0] for part in patches.gather(choice))
    for k in torch.nonzero(choice.pair >= 6).ravel().tolist()[:20]:
        low, high = pairs[int(choice.pair[k]) - 6]
        window = tuple(slice(start, start + 8) for start in (choice.row[k], choice.column[k]))
        (orientation,) = (i for i, p in enumerate(dihedral(high[window])) if np.allclose(p, hr[k]))
        up = resize(low, high.shape[0] / low.shape[0])
        np.testing.assert_allclose(ilr[k], dihedral(up[window])[orientation], atol=1e-6)
    alone = Patches(pairs=[(high, high) for _, high in pairs])
    assert torch.equal(alone.hr, alone.ilr)  # as large as the sharp one: interpolated already
    told = Patches(pairs=[(high, high) for _, high in pairs], ratios=[3, 2.5])
    choice = told.choose(0, 50)
    assert torch.equal(told.conditions(choice)[:, 3], torch.tensor([3, 2.5])[choice.pair])


def test_patches_from_files_are_those_from_memory(images, rng, tmp_path):
    """Bit for bit; nothing is left in the folder."""
    pairs = [(rng.random((9, 10)), rng.random((18, 20)))]
    options = {"pairs": pairs, "scale_range": (1.5, 4), "patch": 8}
    memory, files = Patches(images, [2, 3], **options), Patches(images, [2, 3], store=tmp_path, **options)
    assert isinstance(join(images, tmp_path), np.memmap)
    assert list(tmp_path.iterdir()) == []
    for step in range(3):
        for a, b in zip(memory.gather(memory.choose(step, 50)), files.gather(files.choose(step, 50)), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(FileNotFoundError):
        Patches(images, [2], store=tmp_path / "missing")


@pytest.mark.parametrize("shape", [(10, 20), (10, 21), (9, 9), (30, 20)])
def test_pairs_of_other_fields_of_view_are_named(rng, shape):
    pair = (rng.random((10, 10)), rng.random(shape))
    with pytest.raises(ValueError, match=r"`pairs` must show one field of view.*\(10, 10\) and .* in pair 1"):
        Patches(pairs=[(rng.random((5, 5)), rng.random((10, 10))), pair])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "`patch` must be an integer of at least 1, got 0"),
        ({"scales": []}, "`scales` must hold at least one scale"),
        ({"scale_range": (1, 3)}, "`scale_range` must be two numbers, 1 < low <= high"),
        ({"scale_range": (2, 3), "draws": 0}, "`draws` must be an integer of at least 1"),
        ({"augment": "rotations"}, "`augment` must be one of none, flips, dihedral, got 'rotations'"),
        ({"gain": (0, 2)}, "`gain` must be two numbers, 0 < low <= high"),
        ({"offset": (1, 0)}, "`offset` must be two numbers, low <= high"),
        ({"images": [np.full((30, 30), np.nan)]}, "`images` must be finite .*got NaN or infinity"),
        ({"images": [np.zeros((3, 30, 30))]}, r"`images` must be .*got shape \(3, 30, 30\)"),
    ],
)
def test_bad_options_are_named(images, options, message):
    with pytest.raises(ValueError, match=message):
        Patches(**{"images": images} | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((48, 48))}, "`images` must be a list of images, got an array of shape .48, 48."),
        ({"images": [np.zeros((48, 48), np.uint8)]}, "`images` must be floats in .0, 1., got uint8"),
        ({"scales": ["a"]}, "`scales` must be numbers, one for both axes, got 'a'"),
        ({"scales": 1}, "`scales` must be finite numbers, greater than 1, got 1"),
        ({"scale_range": 2}, "`scale_range` must be two numbers, 1 < low <= high, got 2"),
        ({"scale_range": (2, 3), "draws": 1.5}, "`draws` must be an integer of at least 1, got 1.5"),
        ({"patch": 1.5}, "`patch` must be an integer of at least 1, got 1.5"),
        ({"gain": 2}, "`gain` must be two numbers, 0 < low <= high, got 2"),
        ({"offset": ("a", 1)}, "`offset` must be two numbers, low <= high, got 'a'"),
        ({"pairs": [np.zeros((4, 4))]}, "`pairs` must hold two images each"),
        ({"degrade": 5}, "`degrade` must be callable, got 5"),
    ],
)
def test_patches_name_wrong_arguments(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Patches(**{"images": [np.zeros((48, 48))], **change})


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", ""])
def test_unknown_device_is_named(images, device):
    with pytest.raises(ValueError, match=f"^`device` must be one of cpu.* here, got '{device}'"):
        Patches(images, [2], device=device)


def test_images_that_do_not_fit_the_memory_lie_in_files(images, monkeypatch):
    """Those of other processes may fill it, so what is free is made up here; the patches are the same."""
    options = {"scales": [2, 3], "patch": 9}
    memory = Patches(images, **options)
    monkeypatch.setattr("vdsr_core.dataset.store.find_free", lambda _: 8 * memory.ilr.nbytes)
    Patches(images, **options)
    monkeypatch.setattr("vdsr_core.dataset.store.find_free", lambda _: memory.ilr.nbytes)
    with pytest.warns(UserWarning, match="more than half of what is free: they leave memory for /.* by `store`"):
        files = Patches(images, **options)
    for ours, theirs in zip(memory.gather(memory.choose(3, 8)), files.gather(files.choose(3, 8)), strict=True):
        assert torch.equal(ours, theirs)


def test_own_degradation_is_called_in_turn(images):
    """It may draw noise from one generator."""
    seen = []

    def note(image, scale):
        seen.append((image.shape, scale))
        return degrade(image, scale)

    Patches(images, [2, 3], patch=9, degrade=note)
    assert seen == [(image.shape, scale) for scale in (2, 3) for image in images]


def test_every_other_interpolated_image_is_clipped(rng):
    """Black and white squares, around which interpolation goes beyond both."""
    image = np.repeat(np.repeat(rng.integers(0, 2, (10, 10)), 6, 0), 6, 1).astype(float)
    plain, clipped = (Patches([image], [3], patch=16, clip=clip) for clip in (None, (0.0, 1.0)))
    choice = plain.choose(0, 64)
    assert torch.equal(choice.clipped, clipped.choose(0, 64).clipped)
    assert 16 < choice.clipped.sum() < 48
    (ilr, hr), (ours, same) = plain.gather(choice), clipped.gather(choice)
    assert torch.equal(hr, same)
    assert (ilr.amin((1, 2, 3)) < 0).all()
    assert torch.equal(ours[~choice.clipped], ilr[~choice.clipped])
    assert torch.equal(ours[choice.clipped], ilr[choice.clipped].clamp(0, 1))


def test_a_wrong_clip_is_named(rng):
    with pytest.raises(ValueError, match=r"`clip` must be two numbers, low <= high, got \(1.0, 0.0\)"):
        Patches([rng.random((20, 20))], [2], patch=16, clip=(1, 0))


def test_patches_that_shrink_for_some_images_are_told(rng):
    images = [rng.random((40, 40)), rng.random((16, 16))]
    with pytest.warns(UserWarning, match="all patches shrink from 24 to 16 pixels: 1 of 2 images"):
        Patches(images, [2], patch=24)


def test_degraded_versions_stand_beside_the_others(images):
    """The images as they would be without them come first, with the same pixels."""
    patches, clean = (Patches(images, [2, 3], patch=8, degraded=n, seed=5) for n in (2, 0))
    count = 2 * len(images)
    assert len(patches.shape) == 3 * count
    assert torch.equal(patches.ilr[: len(clean.ilr)], clean.ilr)
    done, estimated = patches.told.unbind(1)
    assert not done[:count, :3].any()
    assert done[count:, :3].any()
    assert done[:, 3].tolist() == estimated[:, 3].tolist() == patches.factors
    versions = patches.ilr[len(clean.ilr) :].chunk(2)
    assert not torch.equal(*versions)
    assert torch.equal(Patches(images, [2, 3], patch=8, degraded=2, seed=5).ilr, patches.ilr)
    assert not torch.equal(Patches(images, [2, 3], patch=8, degraded=2, seed=6).ilr, patches.ilr)
    choice = patches.choose(0, 400)
    told = torch.where(choice.estimated[:, None], estimated[choice.pair], done[choice.pair])
    assert torch.equal(patches.conditions(choice), told)
    assert choice.estimated.float().mean() == pytest.approx(0.5, abs=0.1)


def test_conditions_follow_gain_and_offset(images):
    """The variance at a * x + b is a ** 2 times that at x."""
    patches = Patches(images, [2], patch=8, degraded=1, gain=(0.3, 3), offset=(-0.2, 0.4))
    choice = patches.choose(0, 200)
    told = patches.conditions(choice).double()
    done, estimated = patches.told.unbind(1)
    before = torch.where(choice.estimated[:, None], estimated[choice.pair], done[choice.pair]).double()
    a, b = choice.intensity.double().T
    for x in (0.1, 0.7):
        variance = told[:, 0] * (a * x + b) + told[:, 1]
        torch.testing.assert_close(variance, a**2 * (before[:, 0] * x + before[:, 1]), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(told[:, 2], a * before[:, 2])


def test_a_fraction_of_the_patches_has_low_contrast(images):
    faint, plain = (Patches(images, [2], patch=8, low_contrast=share) for share in (0.25, 0))
    choice, other = faint.choose(0, 800), plain.choose(0, 800)
    assert torch.equal(choice.pair, other.pair)
    (_, hr), (_, sharp) = faint.gather(choice), plain.gather(other)
    changed = (choice.intensity != torch.tensor([1.0, 0.0])).any(1)
    assert changed.float().mean() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(hr[~changed], sharp[~changed])
    gain, offset = choice.intensity[changed].T
    assert gain.min() >= 0.02
    assert (offset >= 0).all()
    assert (gain + offset <= 1).all()
    contrast = (hr.amax((1, 2, 3)) - hr.amin((1, 2, 3)))[changed]
    torch.testing.assert_close(contrast, gain * (sharp.amax((1, 2, 3)) - sharp.amin((1, 2, 3)))[changed])


@pytest.mark.parametrize(("option", "value"), [("degraded", -1), ("low_contrast", 1.5), ("low_contrast", -0.1)])
def test_options_of_quality_are_checked(images, option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        Patches(images, [2], **{option: value})
