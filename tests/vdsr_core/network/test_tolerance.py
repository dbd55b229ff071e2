"""What a network leaves in an image."""

from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import noise_fraction
from vdsr_core.network.tolerance import HANDED_OVER, Tolerance

VARIANCE = st.floats(-1, 10, allow_nan=False)
RANGE = st.tuples(st.floats(-100, 100), st.floats(1, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(found=st.lists(st.tuples(st.tuples(VARIANCE, VARIANCE), RANGE), max_size=4), least=st.floats(0, 0.1))
def test_weak_noise_is_left_and_all_other_noise_is_returned_as_it_is(found, least):
    noises, ranges = [noise for noise, _ in found], [span for _, span in found]
    selected = Tolerance(least).select_noise(noises, ranges)
    for noise, span, kept in zip(noises, ranges, selected, strict=True):
        assert kept == (noise if noise_fraction(noise, span) >= least else (0, 0))
    assert Tolerance(least).select_noise(noises, ranges, compression=0.2) == noises


def test_compression_is_left_up_to_the_tolerance():
    assert HANDED_OVER.select_compression(HANDED_OVER.compression) == 0
    assert HANDED_OVER.select_compression(2 * HANDED_OVER.compression) == 2 * HANDED_OVER.compression
    assert Tolerance().select_compression(0.001) == 0.001
