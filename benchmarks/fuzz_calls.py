"""Call `super_resolve` with random arrays and arguments: each call gives a right result or an error that says why.

Tiny networks take turns: plain, folded with blocks, and with maps. A result is right if it has the promised shape and
dtype, is finite (NaN only where asked for), leaves the input as it was, and equals the call with another tile. An error
must be a TypeError, a ValueError or a MemoryError whose message names an argument.

python benchmarks/fuzz_calls.py 20000
python benchmarks/fuzz_calls.py 2000 --seed 7
"""

import argparse
import collections
import faulthandler
import math
import re
import resource
import sys
import time
import warnings

import numpy as np
import torch

from vdsr_core import VDSR, VDSRConfig, super_resolve
from vdsr_core.network.model import MAPS

DTYPES = (
    "?",
    "i1",
    "u1",
    "i2",
    "u2",
    ">u2",
    "i4",
    "u4",
    "i8",
    "u8",
    "f2",
    "f4",
    ">f4",
    "f8",
    "g",
    "c8",
    "O",
    "U3",
    "M8[s]",
)
EXPECTED = TypeError, ValueError, MemoryError
NAMED = re.compile(
    r"`(image|scale|model|channel_axis|rgb|in_range|noise|compression|self_ensemble|tile|window|nan|device)"
)


class Draw:
    """Random arguments; half of them are sound."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def one(self, *values):
        return values[self.rng.integers(len(values))]

    def rare(self, sound, *odd):
        """Nearly always the first."""
        return sound if self.rng.random() < 0.85 else self.one(*odd)

    def shape(self):
        plane = [int(n) for n in self.rng.integers(1, 14, 2)]
        leading = [int(n) for n in self.rng.integers(1, 4, self.one(0, 0, 0, 1, 1, 2))]
        return tuple(self.rare([*leading, *plane], [], [0, 5], [5], [3, 0, 4], [1, 1], [2, 1, 1], [7, 7, 3], [7, 6, 4]))

    def values(self, shape, dtype):
        dtype = np.dtype(dtype)
        if dtype.kind in "iu":
            ends = np.iinfo(dtype)
            low, high = self.one((ends.min, ends.max), (0, 100), (ends.max - 1, ends.max), (7, 7))
            noise = self.rng.random(shape)
            return np.clip(low + noise * (float(high) - float(low)), ends.min, ends.max).astype(dtype)
        if dtype.kind == "f":
            size = self.one(1, 1e-30, 1e30, 1e300, 0, 1e-310)
            with np.errstate(all="ignore"):
                values = np.asarray((self.rng.random(shape) - self.one(0, 0.5)) * size + self.one(0, 1, 1e9)).astype(
                    dtype
                )
            if self.rng.random() < 0.05 and values.size:
                values[tuple(0 for _ in shape)] = self.one(np.nan, np.inf, -np.inf)
            return values
        return (self.rng.random(shape) * 5).astype("i8").astype(dtype)

    def image(self):
        shape = self.shape()
        values = np.asarray(self.values(shape, self.rare(self.one("u1", "u2", "i2", "f4", "f8"), *DTYPES)))
        change = self.rare(
            lambda a: a,
            lambda a: a[..., ::-1],
            np.asfortranarray,
            lambda a: np.swapaxes(a, 0, -1) if a.ndim else a,
            lambda a: np.broadcast_to(a, (2, *a.shape)),
            lambda a: a.tolist(),
            lambda a: np.ma.masked_array(a, mask=False),
            lambda a: np.ma.masked_less(a, 3) if a.dtype.kind in "iuf" else a,
            lambda a: None,
            lambda a: "image",
            lambda a: memoryview(np.ascontiguousarray(a)) if a.dtype.kind in "iuf" and a.dtype.isnative else a,
        )
        return change(values) if values.ndim else values

    def arguments(self):
        scale = self.rare(
            self.one(2, 3, 1.5, 2.37, (2, 3), (1, 2), np.float32(2)),
            1, 0, -2, 1.0001, 20, 1001, math.nan, math.inf, None, "2", (2,), (2, 2, 2), [2, 3], True, 1e300, 2 + 0j,
            10**400,
        )  # fmt: skip
        options = {
            "channel_axis": self.rare(None, 0, 1, -1, 9, "x", 1.0),
            "rgb": self.rare(False, True, True, None, 1, "yes"),
            "in_range": self.rare(
                None, (0, 1), (0, 255), (5, 5), (9, 3), (math.nan, 1), (0, math.inf), 3, "ab", [(0, 1), (0, 2)],
                (-1e308, 1e308), (0, 1e-320), (1e30, 1e31), np.array([0, 60000], np.uint16),
            ),
            "tile": self.rare(self.one(1024, 8, 5, None), 0, -1, 2.5, "x", 10**30, True),
            "window": self.rare(
                None, (slice(0, 2), slice(1, 3)), (slice(None), slice(None)), (slice(2, 1), slice(0, 1)), 3,
                (slice(0, 999),) * 2, (slice(0, 2, 2), slice(0, 2)), (slice(-2, None), slice(0, 1)),
                (slice("a"), slice(0, 1)),
            ),
            "noise": self.rare(
                "auto", 0, 5, 0.1, (0.5, 2), [(0, 1), (0.1, 2)], -1, math.nan, 1e300, "5", (1, 2, 3), None
            ),
            "compression": self.rare("auto", 0, 0.1, 1, 2, -1, math.nan, "x", None),
            "nan": self.rare("raise", "keep", "keep", "drop", None, 1),
            "self_ensemble": self.rare(False, True, True, 1, None),
            "device": self.rare("cpu", None, "cuda:99", "x", 3),
        }  # fmt: skip
        return scale, {name: value for name, value in options.items() if self.rng.random() < 0.5}


def judge(image, scale, options, model):
    """What is wrong with a call; the name of the error, or "right"."""
    before = np.array(image, copy=True) if isinstance(image, np.ndarray) else None
    try:
        result = super_resolve(image, scale, model=model, **options)
    except EXPECTED as error:
        if not NAMED.search(str(error)):
            return f"wrong: an error that names nothing: {type(error).__name__}: {error}"
        return type(error).__name__
    pixels = np.asarray(image)
    if result.dtype != pixels.dtype or result.ndim != pixels.ndim:
        return f"wrong: {result.dtype} {result.shape} of {pixels.dtype} {pixels.shape}"
    gaps = np.isnan(result) if pixels.dtype.kind == "f" else np.zeros(result.shape, bool)
    if pixels.dtype.kind == "f" and (np.isinf(result).any() or (gaps.any() and options.get("nan") != "keep")):
        return "wrong: not finite"
    if before is not None and not np.array_equal(before, image, equal_nan=before.dtype.kind == "f"):
        return "wrong: the input has changed"
    other = super_resolve(image, scale, model=model, **options | {"tile": 16 if options.get("tile") != 16 else 5})
    if not np.array_equal(gaps, np.isnan(other) if pixels.dtype.kind == "f" else gaps):
        return "wrong: another tile has NaN elsewhere"
    with np.errstate(all="ignore"):
        apart = np.abs(result.astype("f8") - other.astype("f8"))[~gaps].max(initial=0)
        pixels = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        span = max(float(np.ptp(pixels.astype("f8"))) if pixels.size else 0.0, 1e-300)
    given = options.get("in_range")
    if given is not None:
        span = max(span, float(np.ptp(np.asarray(given, "f8"))))
    if pixels.dtype.kind == "f" and apart > (1e-2 if pixels.dtype.itemsize == 2 else 2e-5) * max(
        span, np.abs(pixels).max(initial=0)
    ):
        return f"wrong: another tile differs by {apart:g} of {span:g}"
    if pixels.dtype.kind in "iu" and apart > max(1, 2e-5 * span):
        return f"wrong: another tile differs by {apart:g}"
    return "right"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calls", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds = VDSRConfig(3, 4), VDSRConfig(4, 4, fold=2, blocks=True), VDSRConfig(3, 4, maps=MAPS)
    models = [VDSR(config, scales=[2]) for config in kinds]
    counts, seen, start = collections.Counter(), set(), time.perf_counter()
    for number in range(options.calls):
        draw = Draw((options.seed, number))
        image, (scale, more) = draw.image(), draw.arguments()
        begun = time.process_time()  # which a busy machine does not lengthen
        faulthandler.dump_traceback_later(600, exit=True)  # a call that hangs
        try:
            found = judge(image, scale, more, models[number % 3])
        except Exception as error:
            found = f"wrong: {type(error).__name__}: {error}"
        if time.process_time() - begun > 30:
            found = "wrong: it computed for longer than 30 s"
        counts["wrong" if found.startswith("wrong") else found] += 1
        if number % 1000 == 999:
            print(f"{number + 1} calls, {time.perf_counter() - start:.0f} s: {dict(counts)}", flush=True)
        kind = re.sub(r"[\d.e+-]+", "#", found)
        if found.startswith("wrong") and kind not in seen:
            seen.add(kind)
            what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else repr(image)[:60]
            print(f"call {number}: {found}\n   {what}, {scale!r}, {more}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{options.calls} calls in {time.perf_counter() - start:.0f} s, {peak:.2f} GB at most: {dict(counts)}")
    return bool(counts["wrong"])


if __name__ == "__main__":
    sys.exit(main())
