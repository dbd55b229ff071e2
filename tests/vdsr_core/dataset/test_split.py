import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.dataset.planes import find_pairs
from vdsr_core.dataset.split import cut_plane, read_groups, split, split_with_pairs


def draw(count):
    return {f"{n}": [(None, np.random.default_rng(n).random((20, 24)))] for n in range(count)}


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(0, 9), st.floats(0.1, 0.9))
def test_split_keeps_groups_together(numbers, seed, hold_out):
    """Whatever the order; each image is on one side; as many groups are held out as the fraction says."""
    images = draw(len(numbers))
    groups = {name: f"picture {number}" for name, number in zip(images, numbers, strict=True)}
    count = len(set(numbers))
    train, held = split(images, hold_out, 4, seed, groups=groups)
    if count == 1:  # each image gives a part
        assert len(train) == len(held) == len(images)
        return
    sides = [{groups[name] for name in images for _, hr in part if hr is images[name][0][1]} for part in (train, held)]
    assert not sides[0] & sides[1]
    assert len(train) + len(held) == len(images)
    assert len(sides[1]) == min(max(1, round(hold_out * count)), count - 1)
    turned = dict(reversed(images.items()))
    again = split(turned, hold_out, 4, seed, groups=groups)[1]
    assert {id(hr) for _, hr in again} == {id(hr) for _, hr in held}


def test_a_large_group_is_held_out_no_more_often_than_a_small_one():
    images = draw(12)
    groups = {name: "large" if n < 10 else name for n, name in enumerate(images)}
    held = [len(split(images, 0.3, 4, seed, groups=groups)[1]) for seed in range(200)]
    assert 0.2 < np.mean(np.equal(held, 10)) < 0.47  # a third; 10 of 12 images would be 0.83


def test_groups_are_read_beside_their_table(tmp_path):
    table = tmp_path / "credits.csv"
    table.write_text("file,author,source\na/1.png,me,x\na/2.png,you,x\n../b.png,me,y\n")
    files = {
        "1": tmp_path / "a" / "1.png",
        "2.png": tmp_path / "a" / ".." / "a" / "2.png",
        "b": tmp_path.parent / "b.png",
    }
    assert read_groups(table, files) == {"1": "x", "2.png": "x", "b": "y"}
    with pytest.raises(ValueError, match=r"must name all images, got none of .*c\.png\. Add rows"):
        read_groups(table, files | {"c": tmp_path / "c.png"})
    table.write_text("name,source\n")
    with pytest.raises(ValueError, match="must have the columns file and source, got name, source"):
        read_groups(table, files)


def test_images_of_one_field_of_view_are_held_out_by_strips():
    plane = np.add.outer(np.zeros(50), np.arange(200))
    train, held = split({"one": [(None, plane)], "two": [(None, plane)]}, 0.25, 20, strips=True)
    assert [high.shape for _, high in train + held] == [(50, 130)] * 2 + [(50, 50)] * 2


def test_several_images_are_held_out_whole_and_one_by_a_strip_with_a_gap(rng):
    planes = [rng.random((20, 20)) for _ in range(10)]
    sources = {f"{n}": [(None, plane), (None, plane)] for n, plane in enumerate(planes)}
    train, held = split(sources, 0.2, 4, seed=1)
    of_train, of_held = ({plane[0, 0] for _, plane, *_ in part} for part in (train, held))
    assert (len(of_train), len(of_held), len(held)) == (8, 2, 4)
    assert not of_train & of_held
    assert split(sources, 0.2, 4, seed=1)[1][0][1] is held[0][1]
    plane = np.add.outer(np.zeros(50), np.arange(200))
    train, held = split({"one": [(plane, plane)]}, 0.25, 20)
    assert train[0][1].shape == train[0][0].shape == (50, 130)
    np.testing.assert_array_equal(held[0][1], plane[:, 150:])


@pytest.mark.parametrize("seed", range(6))
def test_images_of_one_content_are_held_out_together(seed, rng):
    planes = [rng.random((20, 20)) for _ in range(4)]
    sources = {f"{n}": [(None, planes[n % 4].copy())] for n in range(8)}  # each twice
    train, held = split(sources, 0.25, 4, seed)
    contents = [{plane.tobytes() for _, plane, *_ in part} for part in (train, held)]
    assert not contents[0] & contents[1]
    assert (len(train), len(held)) == (6, 1)
    once = {f"{n}": [(None, plane)] for n, plane in enumerate(planes)}
    (_, expected), *none = split(once, 0.25, 4, seed)[1]
    assert not none
    assert {plane.tobytes() for _, plane in held} == {expected.tobytes()}
    train, held = split({f"{n}": [(None, planes[0])] for n in range(3)}, 0.25, 4, seed)
    assert len(train) == len(held) == 3
    assert all(plane.shape == (12, 20) for _, plane in train)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_is_held_out_is_trained_with(seed, rng):
    """Neither under another range, nor by way of an image that shares a plane with both, nor beside the pairs."""
    one, two, three, *others = (np.rint(100 * rng.random((20, 20))) for _ in range(7))

    def overlap(train, held):
        contents = [{plane.tobytes() for _, plane, *_ in part} for part in (train, held)]
        return contents[0] & contents[1]

    pairs = find_pairs([(plane * factor, plane) for factor in (0.5, 1) for plane in (one, two, three)])[0]
    assert not np.array_equal(pairs["pair 0"][0][1], pairs["pair 3"][0][1])  # the sharp one, in the range of each low
    train, held = split(pairs, 0.3, 4, seed)
    assert held
    of_train, of_held = ({np.argsort(hr, None, stable=True).tobytes() for _, hr, *_ in part} for part in (train, held))
    assert not of_train & of_held

    stacks = {"a": [one, two], "b": [two, three], "c": [three], "d": others[:1], "e": others[1:2]}
    sources = {name: [(None, plane) for plane in planes] for name, planes in stacks.items()}
    for share in (0.2, 0.5):
        assert not overlap(*split(sources, share, 4, seed))

    images = {name: [(None, plane)] for name, plane in zip("abc", (one, two, three), strict=True)}
    both = {name: [(plane + 1, plane)] for name, plane in zip("ab", (one, two), strict=True)}
    train, held = split_with_pairs(images, both, 0.3, 4, seed)
    assert not overlap(train, held)
    assert len(train) + len(held) == 5
    apart = {"x": [(others[0], others[0])]}
    train, held = split_with_pairs(images, apart, 0.3, 4, seed)
    assert [low is None for low, _ in held] == [True, False]  # of each


def test_what_is_held_out_does_not_depend_on_order_and_little_on_other_images(rng):
    planes = [rng.random((8, 8)) for _ in range(40)]

    def held(numbers):
        found = split({f"{n}": [(None, planes[number])] for n, number in enumerate(numbers)}, 0.25, 4)[1]
        return {plane.tobytes() for _, plane in found}

    assert len(held(range(40))) == 10
    assert held(reversed(range(40))) == held(range(40))
    assert len(held(range(36)) - held(range(40))) == 0  # nine of the ten, or those that are still there


@pytest.mark.parametrize("side", [8, 12, 16, 32, 100])
def test_cut_leaves_something_on_both_sides(side):
    (_, train), (_, held) = cut_plane((None, np.zeros((side, 8))), 0.2, 20)
    assert len(held) >= min(16, side // 3)
    assert len(train) >= side // 2 - 1
    assert len(train) + len(held) <= side
