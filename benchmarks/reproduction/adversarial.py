"""A generator with an opponent: what VDSR gives if a second network judges its images. On 32 x 32 from 16 x 16 pixels.

    python -m benchmarks.reproduction.adversarial --data FOLDER [--size small] [--budget 9m]

The same network is trained by an L1 loss alone, as ours is; by L1 and the discriminator of DCGAN [1]; and by the
discriminator alone. The opponent rewards what looks sharp, not what is true: this is for comparison, and no network of
it is for use. Scores and pictures are of photographs held out, of FOLDER/open, as in ``small_images``; two seeds.

[1] A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks", ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import argparse
from itertools import product
from typing import Any

import numpy as np
import torch
from benchmarks.reproduction.small_images import SCALE, SIDE, interpolate, make_pictures
from benchmarks.reproduction.study import SEEDS, measure, report, restore, run_rows, spread, start
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from vdsr_core import VDSR, Patches, VDSRConfig, load_checkpoint, save_checkpoint
from vdsr_core.network.model import make_model

# What the generator minimises: the weight of the mean absolute error, and that of the opponent.
LOSSES = {"L1": (1.0, 0.0), "L1 + adversarial": (1.0, 0.01), "adversarial": (0.0, 1.0)}
RATE, BETAS, BATCH = 2e-4, (0.5, 0.999), 16  # DCGAN's Adam
# Depth, width and iterations, by size.
TRAININGS = {"tiny": (3, 4, 4), "brief": (5, 16, 200), "small": (10, 16, 1000), "full": (20, 64, 20_000)}
SHOWN = 6  # pictures


class Discriminator(nn.Sequential):
    """DCGAN's for 32 x 32 pixels: four strided convolutions with batch normalisation; the output is a logit."""

    def __init__(self, width: int = 64) -> None:
        first = [nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        middle = [
            layer
            for n in (width, 2 * width)
            for layer in (nn.Conv2d(n, 2 * n, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * n), nn.LeakyReLU(0.2))
        ]
        super().__init__(*first, *middle, nn.Conv2d(4 * width, 1, 4), nn.Flatten())
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.02)


def train(
    data: Patches, generator: VDSR, opponent: Discriminator, weights: tuple[float, float], iterations: int, seed: int
) -> list[tuple[float, float, float]]:
    """Train both in turns; the losses of each iteration: L1, that of the generator's opponent, the discriminator's."""
    of_error, of_opponent = weights
    ours = torch.optim.Adam(generator.parameters(), RATE, BETAS)
    theirs = torch.optim.Adam(opponent.parameters(), RATE, BETAS)
    history = []
    for step in range(iterations):
        ilr, hr = data.gather(data.choose(step, BATCH, seed))
        sr = generator(ilr)
        judged = fooled = torch.zeros(())
        if of_opponent:
            judged = judge(opponent(hr), True) + judge(opponent(sr.detach()), False)
            theirs.zero_grad()
            judged.backward()
            theirs.step()
            fooled = judge(opponent(sr), True)
        error = (hr - sr).abs().mean()
        ours.zero_grad()
        (of_error * error + of_opponent * fooled).backward()
        ours.step()
        history.append((float(error.detach()), float(fooled.detach()), float(judged.detach())))
    return history


def judge(logits: Tensor, real: bool) -> Tensor:
    """The loss of saying that images are real, or are not."""
    return cross_entropy(logits, torch.full_like(logits, float(real)))


def fine_detail(image: NDArray[np.float64]) -> float:
    """The energy of an image in the upper half of frequencies, where the interpolated one has next to nothing."""
    spectrum = np.abs(np.fft.fft2(image)) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in image.shape)
    return float(spectrum[np.maximum(rows[:, None], columns) > 0.25].sum())


def main(options: argparse.Namespace) -> None:
    """Train the network by each loss and seed."""
    learn, held_out = make_pictures(options.data / "open")
    data = Patches([p.astype(np.float32) / 255 for p in learn], [SCALE], patch=SIDE, device=options.device)
    pairs = [(hr, interpolate(hr)) for hr in held_out]
    depth, width, iterations = TRAININGS[options.size]

    def path(case: tuple[str, int]) -> Any:
        return options.output / f"runs_{options.size}" / f"generator,{case[0]},{case[1]}.safetensors"

    def run(case: tuple[str, int]) -> dict[str, Any]:
        loss, seed = case
        generator = make_model(seed, VDSRConfig(depth, width), start="identity").to(options.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            opponent = Discriminator(width).to(options.device)
        history = train(data, generator, opponent, LOSSES[loss], iterations, seed)
        save_checkpoint(path(case), generator)
        images = [restore(generator, ilr, options.device) for _, ilr in pairs]
        psnr = float(np.mean([measure(hr, sr, SCALE) for (hr, _), sr in zip(pairs, images, strict=True)]))
        detail = sum(map(fine_detail, images)) / sum(fine_detail(hr) for hr, _ in pairs)
        return {"loss": loss, "seed": seed, "psnr": psnr, "detail": detail, "history": history}

    runs = run_rows(options, "adversarial", list(product(LOSSES, SEEDS)), run)
    bicubic = float(np.mean([measure(*pair, SCALE) for pair in pairs]))
    share = sum(fine_detail(ilr) for _, ilr in pairs) / sum(fine_detail(hr) for hr, _ in pairs)
    rows = [{"trained by": "bicubic", "PSNR, dB": f"{bicubic:.2f}", "fine detail, %": f"{100 * share:.0f}"}]
    for loss in LOSSES:
        mine = [run for run in runs if run["loss"] == loss]
        figures = spread([run["psnr"] for run in mine]), spread([100 * run["detail"] for run in mine])
        rows.append({"trained by": loss} | dict(zip(list(rows[0])[1:], figures, strict=True)))
    report(options, "adversarial", rows)
    draw_losses(options, runs)
    networks = {loss: load_checkpoint(path((loss, 0))) for loss in LOSSES}
    draw_pictures(options, networks, pairs[:: len(pairs) // SHOWN][:SHOWN])


def draw_losses(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """The losses of generator and discriminator over the iterations, of seed 0, as means of 20 iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in (run for run in runs if run["seed"] == 0):
        history = np.array(run["history"])
        history = history[: len(history) // 20 * 20].reshape(-1, 20, 3).mean(1) if len(history) > 20 else history
        steps = np.arange(len(history)) * len(run["history"]) / len(history)
        left.semilogy(steps, history[:, 0], label=run["loss"])
        if run["loss"] != "L1":
            (line,) = right.plot(steps, history[:, 1], label=f"{run['loss']}: generator")
            right.plot(steps, history[:, 2], "--", color=line.get_color(), label="its discriminator")
    left.set(xlabel="iteration", ylabel="mean absolute error")
    right.set(xlabel="iteration", ylabel="cross entropy")
    for axes in (left, right):
        axes.legend(fontsize=7)
    figure.savefig(options.output / "adversarial_losses.png", dpi=80)


def draw_pictures(
    options: argparse.Namespace,
    networks: dict[str, VDSR],
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Pictures side by side: interpolated, by each network, sharp."""
    from matplotlib.figure import Figure

    names = ["bicubic", *networks, "sharp"]
    figure = Figure(figsize=(1.3 * len(names), 1.3 * len(pairs)), layout="constrained")
    grid = figure.subplots(len(pairs), len(names), squeeze=False)
    for row, (hr, ilr) in zip(grid, pairs, strict=True):
        images = [ilr, *(restore(network, ilr, "cpu") for network in networks.values()), hr]
        for axes, image in zip(row, images, strict=True):
            axes.imshow(image, cmap="gray", vmin=hr.min(), vmax=hr.max(), interpolation="nearest")
            axes.set_axis_off()
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=8)
    figure.savefig(options.output / "adversarial.png", dpi=60)


if __name__ == "__main__":
    start(__doc__, main)
