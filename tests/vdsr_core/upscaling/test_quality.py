import pytest

from vdsr_core import describe_quality, find_misfit, noise_fraction

CLEAN, NOISY = [(0.0, 1.0)], [(0.0, 100.0)]
RANGES = [(0, 255)]


def test_fraction_is_that_of_the_middle():
    assert noise_fraction((2.0, -100.0), (0, 200)) == pytest.approx(0.05)
    assert noise_fraction((0.0, 4.0), (7, 7)) == 0
    assert noise_fraction((0.0, -4.0), (0, 7)) == 0


@pytest.mark.parametrize(
    ("noises", "compression", "words"),
    [
        ([(0.0, 0.0)], 0, ""),
        (NOISY, 0, "noise of 3.9 % of the range"),
        ([(0.0, 0.0)], 0.11, "compression 0.11"),
        (NOISY, 0.11, "noise of 3.9 % of the range, compression 0.11"),
    ],
)
def test_quality_in_words(noises, compression, words):
    assert describe_quality(noises, RANGES, compression) == words


def test_quality_of_channels():
    assert describe_quality(CLEAN + NOISY, RANGES * 2) == "noise of 0.39, 3.9 % of the range"


@pytest.mark.parametrize(
    ("noises", "compression", "word"),
    [(NOISY, 0, "too noisy"), (CLEAN, 0.3, "too compressed"), (NOISY, 0.3, "noisy and too")],
)
def test_misfit_names_what_is_wrong(noises, compression, word):
    assert word in find_misfit((), noises, RANGES, compression)
    assert find_misfit(("noise", "compression"), noises, RANGES, compression) == ""
    assert find_misfit((), CLEAN, RANGES, 0.02) == ""


def test_one_channel_needs_no_list():
    assert describe_quality((0.0, 9.0), (0, 300)) == describe_quality([(0.0, 9.0)], [(0, 300)])
    assert find_misfit((), (0.0, 900.0), (0, 300)) == find_misfit((), [(0.0, 900.0)], [(0, 300)])
    assert describe_quality([], []) == find_misfit((), [], []) == ""
    with pytest.raises(ValueError, match="`noises` and `ranges` must be pairs, one of each for each channel"):
        describe_quality([(0.0, 9.0)] * 2, (0, 300))
