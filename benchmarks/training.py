"""Time per training step against the loop of common re-implementations.

    python benchmarks/training.py [--batch 16] [--patch 41] [--repeats 5] [--device cpu]

Both train the whole network, 20 layers of 64 filters, by SGD with momentum and clipping, on the same images, in turns:

    common  patches cut and interpolated beforehand and held in memory (so decoding costs it nothing), a `DataLoader`
            with its best number of workers (measured first), layers as `nn.Conv2d` and `nn.ReLU(inplace=True)` in
            NCHW, `cudnn.benchmark`, TF32 as PyTorch sets it, `clip_grad_norm_`
    ours    `Trainer` on `Patches`: places, scales, flips and rotations drawn for each batch, all else included

"time" is the ratio of the medians of the steps by the clock, "CPU" the same in processor time, which other jobs on the
machine disturb less. Validation is in neither. "share of the peak": the arithmetic of a step, convolutions as if
computed directly, forwards and twice as much backwards, over that of a large matrix product in its time, in bfloat16
where the device multiplies in it, else in float32. `--float32` leaves bfloat16 out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from measuring import take_turns
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vdsr_core import VDSR, Patches, TrainConfig, Trainer
from vdsr_core.training import trainer as training
from vdsr_core.training.trainer import computes_bfloat16

STEPS = 10**6  # more than are done
SIDE = 4096  # of the matrices
PRODUCTS = {"cpu": 1, "cuda": 50}  # of matrices, timed together


def make_images() -> list[NDArray[np.float32]]:
    """Smooth random images of the size of those of BSDS."""
    rng = np.random.default_rng(0)
    return [np.cumsum(rng.normal(0, 0.01, (321, 481)), 1).clip(0, 1).astype(np.float32) for _ in range(4)]


def common_loop(images: list[NDArray[np.float32]], options: argparse.Namespace, workers: int) -> Iterator[None]:
    """A step for each `next`."""
    data = Patches(images, patch=options.patch)
    parts = [data.gather(data.choose(step, options.batch)) for step in range(16)]
    ilr, hr = (torch.cat(part) for part in zip(*parts, strict=True))
    pin = options.device == "cuda"
    loader = DataLoader(
        TensorDataset(ilr, hr),
        options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )
    layers: list[nn.Module] = []
    for layer in VDSR().layers:
        layers += [layer, nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers[:-1]).to(options.device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    while True:
        for low, high in loader:
            x, y = low.to(options.device, non_blocking=pin), high.to(options.device, non_blocking=pin)
            loss = (x + network(x) - y).square().sum() / (2 * len(x))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 4.0)
            optimizer.step()
            loss.item()
            yield


def our_loop(images: list[NDArray[np.float32]], options: argparse.Namespace) -> Iterator[None]:
    """A step for each `next`."""
    data = Patches(images, patch=options.patch, device=options.device)
    for _ in Trainer(VDSR(), data, TrainConfig(steps=STEPS, batch_size=options.batch)).run():
        yield


def make_product(device: str, kind: torch.dtype) -> Callable[[], None]:
    """`PRODUCTS[device]` matrix products, of 2 SIDE^3 operations each."""
    a = torch.ones(SIDE, SIDE, dtype=kind, device=device)

    def multiply() -> None:
        for _ in range(PRODUCTS[device]):
            a @ a
        finish(device)

    return multiply


def finish(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def step(loop: Iterator[None], device: str) -> None:
    """One step of a loop, to its end."""
    next(loop)
    finish(device)


def main() -> None:
    """Find the best number of workers, then measure both loops in turns."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=41)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--float32", action="store_true")
    options = parser.parse_args()
    if options.float32:
        training.BFLOAT16, training.AMPERE = (), (999, 0)
    torch.backends.cudnn.benchmark = True
    images = make_images()
    best = options.workers[0]
    if len(options.workers) > 1:
        trials = {str(workers): partial(next, common_loop(images, options, workers)) for workers in options.workers}
        medians = {name: np.median(times[:, 0]) for name, times in take_turns(trials, 3).items()}
        best = int(min(medians, key=medians.__getitem__))
        print("workers: " + ", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))
        del trials
    loops = {"common": common_loop(images, options, best), "ours": our_loop(images, options)}
    runs = {name: partial(step, loop, options.device) for name, loop in loops.items()}
    kind = torch.bfloat16 if computes_bfloat16(torch.device(options.device)) else torch.float32
    times = take_turns(runs | {"product": make_product(options.device, kind)}, options.repeats)
    (clock, cpu), (our_clock, our_cpu) = (np.median(times[name], 0) for name in ("common", "ours"))
    print("| batch | patch | workers | common, s | ours, s | common, ms a patch | ours, ms a patch | time | CPU |")
    print("|---|---|---|---|---|---|---|---|---|")
    cells = [options.batch, options.patch, best, f"{clock:.2f}", f"{our_clock:.2f}"]
    cells += [f"{1000 * seconds / options.batch:.1f}" for seconds in (clock, our_clock)]
    print("| " + " | ".join(map(str, [*cells, f"{clock / our_clock:.2f} x", f"{cpu / our_cpu:.2f} x"])) + " |")
    least, ours = times["common"][:, 0].min(), times["ours"][:, 0].min()
    weights = sum(layer.weight.numel() for layer in VDSR().convolutions)
    work = 3 * 2 * weights * options.batch * options.patch**2
    peak = PRODUCTS[options.device] * 2 * SIDE**3 / np.median(times["product"][:, 0])
    shares = ", ".join(
        f"{name} {work / seconds / peak:.2f}" for name, seconds in (("common", clock), ("ours", our_clock))
    )
    print(f"share of the peak, {peak / 1e9:.0f} GFLOP/s in {str(kind).removeprefix('torch.')}: {shares}")
    print(f"fastest steps: {least:.2f} s and {ours:.2f} s, {least / ours:.2f} x")


if __name__ == "__main__":
    main()
