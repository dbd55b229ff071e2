"""The commands `vdsr info` and `vdsr doctor`: what a network is, and what can compute here."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdsr_core.cli.terminal import Model, plain_errors, say

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.network.model import VDSR

SIDE = 384  # of the measured tile, in output pixels: large enough for ncnn's processes


def info(
    model: Annotated[
        str | None,
        typer.Argument(help="Network: photo, fast, microscopy, restore, vdsr, or a file.", show_default="photo"),
    ] = None,
) -> None:
    """Describe a network: its card, scales and size; and this machine."""
    with plain_errors():
        from vdsr_core.network.checkpoint import load_model

        network = load_model(model)
        for line in (*machine_lines(), *network_lines(network)):
            say(line)


def doctor(model: Model = None) -> None:
    """Show which devices can compute here, how fast, whether their results are right, and what would be faster.

    The exit code is 1 if the device that is chosen by default is wrong.
    """
    with plain_errors():
        from vdsr_core.network.checkpoint import load_model

        for line in machine_lines():
            say(line)
        say()
        say("device    engine    Mpx/s   difference")
        checks = []
        for check in check_engines(load_model(model)):
            checks.append(check)
            remark = check.problem or ("chosen" if check.chosen else "")
            figures = f"{check.device:<9} {check.engine:<6} {check.speed:>8.3f}   {check.difference:<10.1e}"
            say(f"{figures} {remark}".rstrip())
        for sentence in advise(checks):
            say()
            say(sentence)
        raise typer.Exit(int(any(check.chosen and check.problem for check in checks)))


def machine_lines() -> Iterator[str]:
    """Versions and devices."""
    from importlib.metadata import version

    from vdsr_core import __version__
    from vdsr_core.network.devices import choose_device, list_devices
    from vdsr_core.network.ncnn_engine import has_ncnn
    from vdsr_core.network.pretrained import model_names

    yield f"vdsr      {__version__}"
    yield f"python    {platform.python_version()} on {platform.platform()}"
    yield f"torch     {version('torch')}, {describe_build()}"
    if has_ncnn():
        yield f"ncnn      {version('ncnn')}"
    yield f"numpy     {version('numpy')}"
    yield f"devices   {', '.join(f'{name} ({text})' for name, text in list_devices().items())}"
    yield f"chosen    {choose_device()}"
    yield f"embedded  {', '.join(model_names())}"


def network_lines(model: VDSR) -> Iterator[str]:
    """What a network is, and its card."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield ""
    config = model.config
    more = f" on squares of {config.fold} x {config.fold} pixels" * (config.fold > 1)
    more += ", in residual blocks" * config.blocks + f", told {' and '.join(config.maps)}" * bool(config.maps)
    yield f"network   {config.depth} layers of {config.width} filters{more}; {parameters} parameters"
    if model.restorer:
        yield f"restorer  {model.restorer}, for noisy and compressed images"
    yield f"scales    {', '.join(f'{scale:g}' for scale in model.scales) or 'not known'}"
    yield f"halo      {model.halo} pixels"
    yield from card_lines(model.card)


def card_lines(card: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A card, an entry per line, those inside another one indented."""
    for key, value in card.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}"
            yield from card_lines(value, f"{indent}  ")
        elif value not in ({}, [], "", None):
            yield f"{indent}{key:<{max(9 - len(indent), 0)}} {value}"


@dataclass(frozen=True)
class EngineCheck:
    """What was found about an engine on a device.

    `speed` is in megapixels of the result per second, tile by tile; `difference` is the largest one from PyTorch on the
    CPU, as a fraction of the range. They are 0 and infinite if it failed. `problem` says what is wrong, if anything.
    `chosen` tells whether `super_resolve` takes this engine and device by itself.
    """

    device: str
    engine: str
    speed: float
    difference: float
    problem: str
    chosen: bool


def check_engines(model: VDSR, *, seconds: float = 1.0) -> Iterator[EngineCheck]:
    """Try each engine on each device with a network, PyTorch on the CPU first, for some seconds each."""
    import numpy as np
    import torch

    from vdsr_core.images.resampling import make_taps
    from vdsr_core.network.devices import AGREEMENT, AGREEMENTS, choose_device, list_devices, make_engine
    from vdsr_core.network.engine import Engine
    from vdsr_core.network.ncnn_engine import has_ncnn

    window = np.random.default_rng(0).random((1, SIDE // 2, SIDE // 2), dtype=np.float32)
    taps = (make_taps(SIDE // 2, 2, 0, SIDE), make_taps(SIDE // 2, 2, 0, SIDE))
    expected = Engine(model, torch.device("cpu"), fast=False).run([window], [taps])
    chosen_engine = make_engine(model, None)
    best = str(chosen_engine.device), chosen_engine.name
    for name in list_devices():
        for fast in (False, True) if name == "cpu" and has_ncnn() else (False,):
            wanted = "ncnn" if fast else "torch"
            chosen = (name.removesuffix(":0"), wanted) == best  # "cuda" is the first of them
            try:
                engine = Engine(model, choose_device(name), fast=fast)
                difference = float(np.abs(engine.run([window], [taps]) - expected).max())
            except Exception as error:  # of any kind: the others are still of interest
                yield EngineCheck(name, wanted, 0.0, math.inf, f"failed: {error}", chosen)
                continue
            bound = AGREEMENTS.get(engine.device.type, AGREEMENT) * float(np.abs(expected).max())
            problem = "" if difference < bound else "is wrong"
            if engine.name != wanted:
                problem = "does not work"
            count, start = 0, time.perf_counter()
            while not count or time.perf_counter() - start < seconds:
                engine.run([window], [taps])
                count += 1
            speed = count * SIDE**2 / 1e6 / (time.perf_counter() - start)
            yield EngineCheck(name, wanted, speed, difference, problem, chosen)


def describe_build() -> str:
    """What this PyTorch was made for, such as ``made for CUDA 13.0; NVIDIA driver 580.65.06``."""
    import torch

    kinds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip, "MPS": torch.backends.mps.is_built() or None}
    made = [name if version is True else f"{name} {version}" for name, version in kinds.items() if version]
    text = f"made for {made[0] if made else 'the CPU alone'}"
    if not (tool := shutil.which("nvidia-smi")):
        return text
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        lines = []
    return f"{text}; NVIDIA driver {lines[0] if lines else 'that does not answer'}"


def advise(checks: Iterable[EngineCheck]) -> Iterator[str]:
    """What to install or change to be faster, a sentence each."""
    import torch

    found = {(check.device, check.engine): check for check in checks}
    if ("cpu", "ncnn") not in found and sys.platform != "darwin":
        yield "`pip install ncnn` brings the fastest engine on a CPU."
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        yield "There is an NVIDIA driver, but this PyTorch has no CUDA: see https://pytorch.org/get-started/locally/."
    if torch.version.cuda and not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        yield f"PyTorch finds no GPU: the NVIDIA driver may be too old for CUDA {torch.version.cuda}."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.get_num_threads() < cores // 2:  # PyTorch counts cores, the system may count two threads for each
        yield f"PyTorch uses {torch.get_num_threads()} threads of {cores}: is OMP_NUM_THREADS set?"
    for check in found.values():
        if check.problem:
            yield f"{check.engine} on {check.device} {check.problem}. Update it, or use another device."
