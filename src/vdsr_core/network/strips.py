"""How to cut an image into strips, bands and blocks, for a network to run over with little memory."""

from __future__ import annotations

from itertools import pairwise, product

# Least rows of a strip, and pixels that narrow strips may have, by measurement; multiples of 4 rows, the block of
# Winograd's F(4 x 4, 3 x 3). In PyTorch the buffers of a layer stay below 32 MB for tiles of 1024, from where on Linux
# takes memory away and gives it back at each layer. ncnn, which waits for memory more than for arithmetic, has them
# in the cache; blocks keep what they are given there, too.
ROWS = 16
SIZES = {"torch": (ROWS, 2**14), "ncnn": (8, 2**12), "ncnn, blocks": (8, 2**11)}
BAND = 384  # columns that ncnn computes at once, without the halo
LARGE = 2**16  # pixels from which on each core gets blocks of its own


def choose_rows(columns: int, library: str = "torch") -> int:
    """The rows of a strip of an image this wide, for a library that computes it."""
    rows, pixels = SIZES[library]
    return max(rows, pixels // columns // 4 * 4)


def choose_count(pixels: int, cores: int) -> int:
    """How many of the cores share an image: more would compute more halo than image."""
    return min(cores, 1 + pixels // LARGE)


def bands(columns: int, halo: int, band: int = BAND) -> list[tuple[slice, slice]]:
    """Cut columns into bands of about equal width, at most `band` without the halo that the network needs beside them.

    For each band these are its columns, and those with the halo.

    Examples
    --------
    >>> bands(100, 20, 50)
    [(slice(0, 50, None), slice(0, 70, None)), (slice(50, 100, None), slice(30, 100, None))]
    """
    return _divide(columns, halo, -(-columns // band) if columns > band + 2 * halo else 1)


def _divide(length: int, halo: int, count: int) -> list[tuple[slice, slice]]:
    """`count` parts of about equal length, and with the halo what the network must see of them."""
    edges = pairwise(length * i // count for i in range(count + 1))
    return [(slice(a, b), slice(max(0, a - halo), min(length, b + halo))) for a, b in edges]


Block = tuple[tuple[slice, slice], tuple[slice, slice]]


def blocks(rows: int, columns: int, halo: int, count: int) -> list[Block]:
    """Cut an image into blocks, bands or parts of them, that keep `count` workers busy for about the same time.

    For each block these are its rows and columns, and those with the halo that the network must see.

    Examples
    --------
    >>> [inner for inner, _ in blocks(600, 400, 20, 2)]
    [(slice(0, 300, None), slice(0, 400, None)), (slice(300, 600, None), slice(0, 400, None))]
    """
    least = len(bands(columns, halo))

    def cost(shape: tuple[int, int]) -> float:
        """The pixels that the busiest worker computes, with halos, of so many bands in so many parts."""
        across, down = shape
        turns = -(-across * down // count)
        return turns * (columns / across + 2 * halo * (across > 1)) * (rows / down + 2 * halo * (down > 1))

    # The first of equal ones: narrow blocks, which have more rows in the cache.
    wide, high = range(min(columns, least + count), least - 1, -1), range(1, min(rows, count) + 1)
    across, down = min(product(wide, high), key=cost)
    parts = product(_divide(columns, halo, across), _divide(rows, halo, down))
    return [((y, x), (seen_y, seen_x)) for (x, seen_x), (y, seen_y) in parts]


def within(inner: tuple[slice, slice], seen: tuple[slice, slice]) -> tuple[slice, slice]:
    """Where a block lies in what the network sees of it."""
    y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, seen, strict=True))
    return y, x


def cut_strips(rows: int, depth: int, strip: int = ROWS) -> list[slice]:
    """The rows of an image that each strip brings to the first of `depth` 3 x 3 layers; one if there are few rows.

    Every layer lags one row behind the one before. So the first strip has `depth` rows more, which gives `strip` at the
    last layer, and the last strip's result has `depth` rows more than the strip.

    Examples
    --------
    >>> cut_strips(60, 20)
    [slice(0, 36, None), slice(36, 60, None)]
    """
    starts = [0, *range(strip + depth, rows - strip // 2, strip)]
    return [slice(start, stop) for start, stop in pairwise([*starts, rows])]


def tallest(rows: int, depth: int, strip: int = ROWS) -> int:
    """The most rows that a layer has to hold at once."""
    return min(rows, strip + strip // 2 + depth)
