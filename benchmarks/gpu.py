"""How near a GPU comes to its limit, and what half precision loses.

    python benchmarks/gpu.py [--device cuda] [--side 4096] [--repeats 5] [--compile] [--data FOLDER]

In turns, with the default network, for a result of SIDE x SIDE: the network alone on what lies on the device, in half
precision as `super_resolve` computes it, and by two other ways that may be faster, bias and ReLU fused into cuDNN's
convolution (CUDA only) and `torch.compile` (``--compile``); `super_resolve` from uint16 in NumPy to uint16 in NumPy;
and what common repositories do, float32 in one piece (NCHW, TF32 as PyTorch sets it), on what lies on the device. The
peak is that of products of large matrices in half precision. Medians; "share" is the network's arithmetic over the
peak.

Then the largest difference of half precision from float32 on a ramp of 16 bits, as a share of the range, and, with
FOLDER, which holds Set5, what it costs there in dB.

``--device cpu --side 128`` shows that all runs.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import make_image

from vdsr_core import VDSR, load_model, read_image, super_resolve
from vdsr_core.evaluation import _scores, mean_scores
from vdsr_core.network.engine import Engine

MATRIX = {"cuda": 8192, "mps": 4096, "cpu": 512}  # sides of the matrices


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def fused(model: VDSR, ilr: torch.Tensor) -> torch.Tensor:
    """The residual, all of it in half precision; cuDNN adds the bias and ends with ReLU itself."""
    *layers, last = model.convolutions
    for layer in layers:
        ilr = torch.cudnn_convolution_relu(ilr, layer.weight, layer.bias, (1, 1), (1, 1), (1, 1), 1)
    return last(ilr)


@torch.inference_mode()
def measure(options: argparse.Namespace) -> None:
    """Print what a result takes by each way."""
    device, side = torch.device(options.device), options.side
    model = load_model()
    engine = Engine(model, device, half=True)
    eager = load_model().to(device).eval()
    image = make_image(side // 2)
    ilr = torch.rand(1, 1, side, side, device=device)
    still = ilr.contiguous(memory_format=torch.channels_last)
    n = MATRIX[device.type]
    a, b = torch.randn(2, n, n, device=device).half()
    runs = {
        "peak": partial(torch.mm, a, b),
        "network, half, on the device": partial(engine._run, still, None, torch.float16),
        "super_resolve, uint16 to uint16": partial(super_resolve, image, 2, model=engine),
        "eager float32, one piece, on the device": partial(eager, ilr),
    }
    if device.type == "cuda":
        runs["network, half, fused"] = partial(fused, copy.deepcopy(engine._exact).half(), still.half())
    if options.compile:
        compiled = torch.compile(partial(engine._exact.residual, half=torch.float16))
        runs["network, half, compiled"] = partial(compiled, still)
    for run in runs.values():
        timed(run, device)  # algorithms are chosen, memory is taken
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            found[name].append(timed(run, device))
    seconds = {name: float(np.median(values)) for name, values in found.items()}
    peak = 2 * n**3 / seconds.pop("peak")
    weights = sum(layer.weight.numel() for layer in model.convolutions)
    print(f"{describe(device)}; peak {peak / 1e12:.1f} TFLOP/s in half precision; {side} x {side}\n")
    print("| | ms | share of the peak | against the network alone |\n|---|---|---|---|")
    alone = seconds["network, half, on the device"]
    for name, value in seconds.items():
        share = 2 * weights * side**2 / value / peak
        print(f"| {name} | {1e3 * value:.1f} | {share:.2f} | {value / alone:.2f} |")


def measure_loss(options: argparse.Namespace) -> None:
    """Print what half precision loses."""
    device = torch.device(options.device)
    half, full = (Engine(load_model(), device, half=half) for half in (True, False))
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16) / np.float64(65535)
    found, exact = (super_resolve(ramp, 2, model=engine, in_range=(0, 1)) for engine in (half, full))
    print(f"\n16-bit ramp: {np.abs(found - exact).max():.1e} of the range")
    if not options.data:
        return
    images = {path.stem: read_image(path).data for path in sorted((options.data / "Set5").glob("*.png"))}
    scores = [mean_scores(_scores(images.items(), [2, 3, 4], engine)) for engine in (half, full)]
    for less, more in zip(*scores, strict=True):
        if less.method == "vdsr":
            print(f"Set5 x{less.scale:g}: {less.psnr - more.psnr:+.4f} dB")


def describe(device: torch.device) -> str:
    """What the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    measure(options)
    measure_loss(options)
