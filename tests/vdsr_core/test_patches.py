import numpy as np
import pytest
import torch

from vdsr_core import degrade, resize
from vdsr_core.patches import Patches


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
        back = resize(degrade(truth, scale), scale, output_shape=truth.shape)
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
