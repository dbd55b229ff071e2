import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.dataset.split import read_groups, split


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
