"""Which default `in_range` is best: gain over bicubic by several rules, on clean and on spoilt microscopy.

    python benchmarks/in_range.py FOLDER [--model vdsr_kim2016.npz] [--window 96] [--only PART-OF-NAME]

FOLDER is searched for TIFF files (8-bit or 16-bit gray; every channel, the first frame of a time series).
Each channel is degraded by 2. A rule finds the range on the *whole* spoilt low-resolution channel, as
`super_resolve` does; the gain of `super_resolve(..., in_range=...)` over `resize` is measured on the window
of the sharp image with the largest variance, 2 pixels shaved.

The network sees nothing beyond its halo: further than that from a planted pixel, the result is that of the
clean image with the spoilt image's range. So lone defects need no run of their own (a check at the end makes
one and compares), and ranges within 0.2 % of each other share a run. The columns:

    clean      as it is
    hot 1      1 pixel at the largest value of the dtype; outside its halo
    hot 1e-4   0.01 % of the pixels, at random; outside their halos
    hot 1e-3   0.1 % of them, also in the window; further than 6 pixels from any (halos would leave nothing)
    hot pair   2 neighbours; outside their halo
    hot trio   3 pixels of a 2 x 2 block; outside their halo
    dead 5     5 pixels at 0; outside their halos
    near hot   1 hot pixel in the middle of the window; 6 to 20 pixels from it, where bicubic does not see it
    beads off  10 Gaussian spots on the sharp image (sigma 1.2 pixels, peak 20 times the 99.9th percentile);
               far from them
    beads at   the same, within 6 pixels of the 2 that lie in the window

The rules: "pairs" takes the extremes that two neighbours of a row or column share, "3 of 2x2" those that 3
pixels of a 2 x 2 block share, "order" leaves out some values at each end, "+ 1/8" adds an eighth of the range
on both sides, "find_range" is what the library does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, median_filter

from vdsr_core.images.degradation import degrade
from vdsr_core.images.resampling import resize
from vdsr_core.network.checkpoint import load_model
from vdsr_core.network.model import VDSR
from vdsr_core.upscaling.inference import super_resolve
from vdsr_core.upscaling.survey import find_range

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]
Range = tuple[float, float]
Window = tuple[slice, slice]
Gains = dict[tuple[str, str], float]  # (rule, condition): dB

SCALE, SHAVE, NEAR = 2, 2, 6
ALIKE = 0.002  # ranges that differ by less of their span share a run


# ------------------------------------------ rules: a low-resolution channel -> (low, high)
def percentile(percent: float) -> Callable[[Array], Range]:
    """The rule that leaves out `percent` of the pixels at each end."""
    return lambda lr: tuple(float(v) for v in np.percentile(lr, (percent, 100 - percent)))  # type: ignore[return-value]


def order(values: Array, fraction: float = 1e-5) -> Range:
    """The extremes without ``fraction * n`` values (at least one) at each end."""
    drop = int(np.ceil(fraction * values.size))
    ordered = np.partition(values.ravel(), (drop, values.size - 1 - drop))
    return float(ordered[drop]), float(ordered[-1 - drop])


def median3(lr: Array) -> Range:
    """The extremes after a 3 x 3 median filter."""
    smooth = median_filter(lr, 3)
    return float(smooth.min()), float(smooth.max())


def block(count: int) -> Callable[[Array], Range]:
    """The rule that takes the extremes which `count` pixels of a 2 x 2 block share."""

    def rule(lr: Array) -> Range:
        ordered = np.sort([lr[:-1, :-1], lr[:-1, 1:], lr[1:, :-1], lr[1:, 1:]], axis=0)
        return float(ordered[count - 1].min()), float(ordered[4 - count].max())

    return rule


def pairs_order(lr: Array) -> Range:
    """As `pairs`, without 1e-5 of the pairs at each end."""
    couples = [(lr[:-1], lr[1:]), (lr[:, :-1], lr[:, 1:])]
    high = order(np.concatenate([np.minimum(a, b).ravel() for a, b in couples]))[1]
    low = order(np.concatenate([np.maximum(a, b).ravel() for a, b in couples]))[0]
    return low, high


def pairs(lr: Array) -> Range:
    """The extremes that two neighbours of a row or column share."""
    couples = [(lr[:-1], lr[1:]), (lr[:, :-1], lr[:, 1:])]
    high = max(float(np.minimum(a, b).max()) for a, b in couples)
    low = min(float(np.maximum(a, b).min()) for a, b in couples)
    return low, high


def wider(rule: Callable[[Array], Range], share: float) -> Callable[[Array], Range]:
    """A rule with a margin on both sides, as a share of the range."""

    def wide(lr: Array) -> Range:
        low, high = rule(lr)
        return low - share * (high - low), high + share * (high - low)

    return wide


RULES: dict[str, Callable[[Array], Range]] = {
    "min, max": lambda lr: (float(lr.min()), float(lr.max())),
    "0.01 %": percentile(0.01),
    "0.1 %": percentile(0.1),
    "1 %": percentile(1),
    "order 1e-5": order,
    "3x3 median": median3,
    "pairs": pairs,
    "pairs 1e-5": pairs_order,
    "2 of 2x2": block(2),
    "3 of 2x2": block(3),
    "4 of 2x2": block(4),
    "3 of 2x2 + 1/8": wider(block(3), 1 / 8),
    "pairs + 1/4": wider(pairs, 1 / 4),
    "3 of 2x2 + 1/4": wider(block(3), 1 / 4),
    "4 of 2x2 + 1/4": wider(block(4), 1 / 4),
    "3 of 2x2 + 1/2": wider(block(3), 1 / 2),
    "4 of 2x2 + 1/2": wider(block(4), 1 / 2),
    "find_range": find_range,  # type: ignore[dict-item]
}
DTYPE = "dtype"
ALL = (*RULES, DTYPE)


def find(rule: str, lr: Array, limits: Range) -> Range:
    """The range by a rule; min and max where the rule gives none."""
    low, high = limits if rule == DTYPE else RULES[rule](lr)
    return (low, high) if low < high else RULES["min, max"](lr)


# ------------------------------------------ what spoils an image
def plant(lr: Array, value: float, where: NDArray[np.intp]) -> Array:
    """A copy with the pixels of flat index `where` set to `value`."""
    spoilt = lr.copy()
    spoilt.flat[where] = value
    return spoilt


def defects(lr: Array, top: float, rng: np.random.Generator) -> dict[str, Array]:
    """The spoilt copies that are measured outside the halos of what was planted."""

    def scattered(count: int) -> NDArray[np.intp]:
        return rng.choice(lr.size, max(1, count), replace=False)

    row, column = (int(rng.integers(n - 1)) for n in lr.shape)
    corner = row * lr.shape[1] + column
    return {
        "hot 1": plant(lr, top, scattered(1)),
        "hot 1e-4": plant(lr, top, scattered(round(lr.size * 1e-4))),
        "hot 1e-3": plant(lr, top, scattered(round(lr.size * 1e-3))),
        "hot pair": plant(lr, top, np.array([corner, corner + 1])),
        "hot trio": plant(lr, top, np.array([corner, corner + 1, corner + lr.shape[1]])),
        "dead 5": plant(lr, 0, scattered(5)),
    }


def add_beads(hr: Array, window: Window, rng: np.random.Generator) -> tuple[Array, Mask]:
    """`hr` with 10 bright spots, 2 of them inside the window; and where their centres are."""
    centres = [tuple(rng.integers(part.start + 20, part.stop - 20) for part in window) for _ in range(2)]
    centres += [tuple(rng.integers(n) for n in hr.shape) for _ in range(8)]
    peak = 20 * np.percentile(hr, 99.9)
    beaded, marks = hr.copy(), np.zeros(hr.shape, bool)
    for row, column in centres:
        rows = np.exp(-0.5 * ((np.arange(hr.shape[0]) - row) / 1.2) ** 2)
        columns = np.exp(-0.5 * ((np.arange(hr.shape[1]) - column) / 1.2) ** 2)
        beaded += peak * np.outer(rows, columns)
        marks[row, column] = True
    return beaded, marks


# ------------------------------------------ measuring
def channels(folder: Path, only: str) -> Iterator[tuple[str, NDArray[np.unsignedinteger]]]:
    """Every gray channel of the TIFF files in a folder, even-sized."""
    for path in sorted(p for p in folder.rglob("*.tif") if only in p.name):
        with tifffile.TiffFile(path) as file:
            axes, image = file.series[0].axes, file.series[0].asarray()
        if axes[0] == "T":
            image, axes = image[0], axes[1:]
        for number, plane in enumerate(image.reshape(-1, *image.shape[-2:])):
            name = path.stem + (f"[{number}]" if image.ndim > 2 else "")
            yield name, plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]


def busiest(hr: Array, side: int) -> Window:
    """The window with the largest variance, on a grid of 16 pixels."""
    lengths = [min(side, n) for n in hr.shape]
    starts = (range(0, n - length + 1, 16) for n, length in zip(hr.shape, lengths, strict=True))
    windows = [(slice(r, r + lengths[0]), slice(c, c + lengths[1])) for r, c in product(*starts)]
    return max(windows, key=lambda window: hr[window].var())


def half(window: Window) -> Window:
    """The window of the low-resolution image under a window of the sharp one."""
    rows, columns = (slice(part.start // SCALE, part.stop // SCALE) for part in window)
    return rows, columns


class Scene:
    """A sharp window, its low-resolution input, and the gains by range."""

    def __init__(self, hr: Array, lr: Array, mask: Mask | None = None) -> None:
        self.hr, self.lr = hr, lr.astype(np.float32)
        self.ilr = resize(self.lr, SCALE)
        inside = np.zeros(hr.shape, bool)
        inside[SHAVE:-SHAVE, SHAVE:-SHAVE] = True
        self.mask = inside if mask is None else inside & mask
        self.runs: dict[tuple[int, int, int], Array] = {}

    def error(self, image: Array, mask: Mask) -> float:
        """Mean squared error over the mask."""
        return float(np.mean((image.astype(np.float64) - self.hr)[mask] ** 2))

    def gain(self, model: VDSR, in_range: Range, mask: Mask | None = None) -> float:
        """PSNR of the network above bicubic; the peak cancels out."""
        low, high = in_range
        step = ALIKE * (high - low)
        size = round(np.log(high - low) / ALIKE)
        key = (id(model), size, round(low / step))
        if key not in self.runs:
            self.runs[key] = super_resolve(self.lr, SCALE, model=model, in_range=in_range)
        mask = self.mask if mask is None else self.mask & mask
        return 10 * np.log10(self.error(self.ilr, mask) / self.error(self.runs[key], mask))


@dataclass
class Channel:
    """What is measured on a channel: by condition, the image that gives the range, and the scene."""

    limits: Range
    sources: dict[str, Array]
    scenes: dict[str, Scene]

    @classmethod
    def make(cls, image: NDArray[np.unsignedinteger], side: int) -> Channel:
        """Degrade, choose the window, spoil."""
        rng = np.random.default_rng(0)
        top = float(np.iinfo(image.dtype).max)
        lr, hr = degrade(image, SCALE).astype(np.float64), image.astype(np.float64)
        window = busiest(hr, side)
        sharp, low = hr[window], lr[half(window)]
        sources = {"clean": lr, **defects(lr, top, rng)}
        scenes = dict.fromkeys(sources, Scene(sharp, low))

        many = sources["hot 1e-3"][half(window)]
        scenes["hot 1e-3"] = Scene(sharp, many, distance(spots(many, low)) > NEAR)

        one = plant(low, top, np.array([low.size // 2 + low.shape[1] // 2]))
        away = distance(spots(one, low))
        sources["near hot"] = sources["hot 1"]
        scenes["near hot"] = Scene(sharp, one, (away > NEAR) & (away <= 20))

        beaded, marks = add_beads(hr, window, rng)
        sources["beads off"] = sources["beads at"] = beads = degrade(beaded, SCALE)
        scenes["beads off"] = scenes["clean"]
        scenes["beads at"] = Scene(beaded[window], beads[half(window)], distance(marks[window]) <= NEAR)
        return cls((0.0, top), sources, scenes)

    def gains(self, model: VDSR) -> Gains:
        """By rule and condition; "ref" conditions are the clean image on the same pixels."""
        found: Gains = {}
        clean = self.scenes["clean"]
        for rule in ALL:
            unspoilt = find(rule, self.sources["clean"], self.limits)
            for condition, source in self.sources.items():
                scene = self.scenes[condition]
                found[rule, condition] = scene.gain(model, find(rule, source, self.limits))
                found[rule, "ref " + condition] = clean.gain(model, unspoilt, scene.mask)
        return found


def spots(spoilt: Array, clean: Array) -> Mask:
    """Where a low-resolution image was spoilt, on the sharp grid."""
    return np.kron(spoilt != clean, np.ones((SCALE, SCALE), bool))


def distance(marks: Mask) -> Array:
    """Pixels to the nearest mark; infinite without one."""
    return distance_transform_edt(~marks) if marks.any() else np.full(marks.shape, np.inf)  # type: ignore[no-any-return]


def check_locality(channel: Channel, model: VDSR) -> float:
    """Largest difference, outside the halo of a hot pixel, between a run with it and one without it."""
    clean, spoilt = channel.scenes["clean"].lr, channel.scenes["near hot"].lr
    in_range = pairs(channel.sources["clean"])
    runs = [super_resolve(lr, SCALE, model=model, in_range=in_range) for lr in (spoilt, clean)]
    # The halo is a square: as far as its corner, and the two taps beyond it.
    away = distance(spots(spoilt, clean)) > np.sqrt(2) * (model.halo + 2 * SCALE)
    return float(np.abs(runs[0] - runs[1])[away].max())


# ------------------------------------------ tables
def print_table(title: str, conditions: list[str], columns: dict[tuple[str, str], Range]) -> None:
    """A row for each rule, two figures for each condition."""
    print(f"\n{title}\n")
    print("| rule | " + " | ".join(conditions) + " |\n|---|" + "---|" * len(conditions))
    for rule in ALL:
        cells = ("{:.2f} ({:.2f})".format(*np.round(columns[rule, c], 2) + 0.0) for c in conditions)
        print(f"| {rule} | " + " | ".join(cells) + " |")


def print_tables(name: str, results: list[Gains]) -> None:
    """Mean gain and worst loss, then what each condition costs."""
    conditions = list(dict.fromkeys(c for _, c in results[0] if not c.startswith("ref ")))
    gains: dict[tuple[str, str], Range] = {}
    costs: dict[tuple[str, str], Range] = {}
    for rule, c in product(ALL, conditions):
        loss = max(max(r[other, c] for other in ALL) - r[rule, c] for r in results)
        gains[rule, c] = float(np.mean([r[rule, c] for r in results])), loss
        cost = [r[rule, "ref " + c] - r[rule, c] for r in results]
        costs[rule, c] = float(np.mean(cost)), max(cost)
    title = f"{name}, {len(results)} channels: mean gain over bicubic in dB (worst loss to the best rule)"
    print_table(title, conditions, gains)
    title = f"{name}: cost in dB against the clean image on the same pixels, mean (largest)"
    print_table(title, [c for c in conditions if c not in ("clean", "beads at")], costs)


def main() -> None:
    """Measure all channels with the default network and the given one."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="another network beside the default")
    parser.add_argument("--window", type=int, default=96, help="side of the measured window, sharp pixels")
    parser.add_argument("--only", default="", help="part of the file names")
    options = parser.parse_args()
    models = {"default": load_model()}
    if options.model:
        models[options.model.stem] = load_model(options.model)
    results: dict[str, list[Gains]] = {name: [] for name in models}
    for name, image in channels(options.folder, options.only):
        start = time.perf_counter()
        channel = Channel.make(image, options.window)
        clean = channel.scenes["clean"]
        bicubic = 10 * np.log10(float(np.ptp(image)) ** 2 / clean.error(clean.ilr, clean.mask))
        report = [f"{name}: bicubic {bicubic:.2f} dB"]
        for key, model in models.items():
            gains = channel.gains(model)
            results[key].append(gains)
            best = max(ALL, key=lambda rule, gains=gains: gains[rule, "clean"])
            report.append(f"{key} {gains['find_range', 'clean']:+.2f}, {best} {gains[best, 'clean']:+.2f}")
        print("; ".join([*report, f"{time.perf_counter() - start:.0f} s"]), flush=True)
    for key, found in results.items():
        print_tables(key, found)
        difference = check_locality(channel, models[key])
        print(f"\n{key}: outside the halo of a hot pixel the result differs by {difference:g}")


if __name__ == "__main__":
    main()
