"""SRCNN, DRCN and VDSR, trained and measured alike: what each part of VDSR is worth. PSNR on Set5, two seeds.

    python -m benchmarks.reproduction.networks --data FOLDER [--size small] [--budget 30m]

Three tables: SRCNN with more and more layers, with and without the residual and the clip; the networks beside each
other, by one recipe; how fast SRCNN learns at its own rate. FOLDER holds T91, BSDS200 and Set5.
"""

import argparse
import time
from typing import Any

import torch
from benchmarks.reproduction.study import (
    DEPTH,
    EPOCHS,
    SIZES,
    Setting,
    check_left,
    draw,
    load_run,
    make_network,
    report,
    run_seeds,
    spread,
    start,
    summarize,
)
from torch import nn

SIDE = 256  # of the image whose restoration is timed
MORE = (0, 5, 10, 15)  # 3 x 3 layers of 32 filters, before SRCNN's last one
WAYS = {
    "1e-5, unclipped": {"recipe": "srcnn"},
    "0.1, clipped": {"recipe": "kim2016"},
    "Muon": {"recipe": "default"},
}


def network_cases(options: argparse.Namespace) -> dict[str, Setting]:
    """The networks that one recipe, the default one, trains."""
    deep = None if SIZES[options.size].depth == DEPTH else DEPTH
    srcnn = {
        f"SRCNN {kernels}{', residual' if residual else ''}": Setting(f"srcnn{kernels}", "default", residual=residual)
        for kernels in ("9-1-5", "9-5-5")
        for residual in (False, True)
    }
    return srcnn | {
        "VDSR": Setting("vdsr", "default", depth=deep),
        "VDSR, half the steps": Setting("vdsr", "default", depth=deep, epochs=40),
        "DRCN": Setting("drcn", "default"),
        "DRCN, half the steps": Setting("drcn", "default", epochs=40),
    }


def count_multiplications(network: nn.Module, side: int = 48) -> float:
    """Multiplications a pixel of all convolutions, each as often as it is applied."""
    total = 0

    def count(layer: nn.Conv2d, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out.shape[-2] * out.shape[-1] * layer.weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.residual(torch.zeros(1, 1, side, side))  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return total / side**2


@torch.no_grad()
def time_image(network: Any, device: str) -> float:
    """Seconds for an image of 256 x 256, the least of three."""
    image = torch.rand(1, 1, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        float(network.residual(image).sum())  # which waits for a GPU
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def compare_networks(options: argparse.Namespace) -> None:
    """All networks at equal steps; with half the steps, DRCN takes about as many multiplications as VDSR."""
    rows = []
    for name, setting in network_cases(options).items():
        runs = run_seeds(setting, options)
        if not runs:
            continue
        network = load_run(setting, options)
        size = SIZES[options.size]
        row = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
        row["multiplications"] = round(count_multiplications(make_network(setting, size)))
        row |= {"steps": size.steps * setting.epochs // 80, "minutes": spread([p[-1].seconds / 60 for p in runs])}
        row |= summarize([points[-1].psnr for points in runs])
        rows.append(row | {"s / image": f"{time_image(network, options.device):.3f}"})
    report(options, "networks", rows)


def deepen(options: argparse.Namespace, more: int) -> list[dict[str, Any]]:
    """SRCNN with so many layers more, by each way of training, with and without the residual."""
    rows = []
    for way, how in WAYS.items():
        for residual in (False, True):
            setting = Setting("srcnn9-1-5", residual=residual, depth=3 + more if more else None, **how)
            last = [points[-1].psnr for points in run_seeds(setting, options)]
            if not last:
                continue
            kind = "residual" if residual else "image"
            rows.append({"rate": way, "learns the": kind, "more layers": more} | summarize(last))
    return rows


def follow_srcnn(options: argparse.Namespace) -> None:
    """SRCNN 9-1-5 at its own rate, over the epochs, beside other ways."""
    rows, curves = [], {}
    for rate, residual in ((1e-5, False), (1e-5, True), (1e-4, False), (1e-4, True)):
        setting = Setting("srcnn9-1-5", "srcnn", residual=residual, learning_rate=None if rate == 1e-5 else rate)
        runs = run_seeds(setting, options)
        if not runs:
            continue
        values = list(zip(*([p.psnr["2"] for p in points] for points in runs), strict=True))
        kind = "residual" if residual else "image"
        cells = {f"epoch {epoch}": spread(value) for epoch, value in zip(EPOCHS, values, strict=True)}
        rows.append({"rate": f"{rate:g}", "learns the": kind} | cells)
        curves[f"{kind}, {rate:g}"] = EPOCHS, [sum(value) / len(value) for value in values]
    report(options, "srcnn", rows)
    draw(options, "srcnn", curves, x="epoch (of 80)", y="PSNR on Set5 x2, dB")


def main(options: argparse.Namespace) -> None:
    """What is most wanted first."""
    follow_srcnn(options)
    rows: list[dict[str, Any]] = []
    for more in MORE[:2]:
        rows += deepen(options, more)
    report(options, "deeper", rows)
    compare_networks(options)
    for more in MORE[2:]:
        rows += deepen(options, more)
    report(options, "deeper", rows)
    check_left(options)


if __name__ == "__main__":
    start(__doc__, main)
