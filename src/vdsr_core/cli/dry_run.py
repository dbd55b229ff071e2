"""What `vdsr upscale --dry-run` says: how large results would be, how long they take, in how many shards."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_core.cli.terminal import print_error, refuse, say

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.network.model import VDSR
    from vdsr_core.streaming.goal import Goal
    from vdsr_core.streaming.outputs import FileJob
    from vdsr_core.streaming.plan import Plan


def estimate_files(jobs: list[FileJob], goal: Goal, options: dict[str, Any], makes_folders: bool) -> int:
    """Say of each image how large, how long and in how many shards it would be made; returns the exit code."""
    from vdsr_core.formats.io import read_image
    from vdsr_core.streaming.files import is_pyramid
    from vdsr_core.streaming.plan import plan
    from vdsr_core.streaming.source import open_source

    if others := [job.target for job in jobs if not is_pyramid(job)]:
        refuse(f"needs an OUT that ends in .ome.zarr or .tif, got {others[0]}.", "--dry-run")
    device, failed = options.pop("device"), False
    for job in jobs:
        folder = (job.whole or job.target).absolute().parent
        if makes_folders:
            folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        kind = ".tif" if job.target.suffix.lower() in (".tif", ".tiff") else ".ome.zarr"
        place = folder / f".vdsr-dry-run{kind}"
        try:
            scale = goal.scale(open_source(read_image(job.source, lazy=True, name=job.name), options["axes"]))
            work = plan(job.source, scale, place, name=job.name, **options)
            lines = list(describe_plan(work, options["model"], device))
        except Exception as error:  # decoders raise anything on damaged files
            print_error(error, job.source)
            failed = True
            continue
        say(f"{job.source}{f', {job.name}' if job.name else ''} -> {job.target}  planned")
        for line in lines:
            say(line)
    return int(failed)


def describe_plan(job: Plan, network: VDSR, device: str | None) -> Iterator[str]:
    """How large the result of a plan is, in how many shards, with how much memory, and how long it takes here."""
    from vdsr_core.upscaling.quality import describe_quality

    seconds, memory, name = estimate(job, network, device)
    sizes = ", ".join(f"{len(job.shards(level))}" for level in range(job.levels))
    free = shutil.disk_usage(Path(job.target).parent).free
    yield f"  result   {job.shape} {job.dtype}, {job.nbytes * 4 / 3e9:.2f} GB with its pyramid, before compression"
    yield f"  disk     {free / 1e9:.2f} GB free{', for this and for the shards that it is packed from' * job.tiff}"
    yield f"  shards   {sizes} in {job.levels} levels, {' x '.join(map(str, job.block))} each"
    yield f"  range    {', '.join(f'{low:g} to {high:g}' for low, high in job.in_range)}"
    if job.noise:
        yield f"  removed  {describe_quality(job.noise, job.in_range, job.compression) or 'nothing'}"
    yield f"  memory   about {memory / 1e9:.1f} GB for each process"
    yield f"  time     about {f'{seconds / 60:.2g} min' if seconds < 6000 else f'{seconds / 3600:.2g} h'} on {name}"


def estimate(job: Plan, model: VDSR, device: str | None = None) -> tuple[float, float, str]:
    """Seconds for all tiles of a plan in one process, from the time of one; bytes of memory; and the device."""
    import numpy as np

    from vdsr_core.network.devices import make_engine
    from vdsr_core.upscaling.inference import super_resolve

    engine: Any = make_engine(model, device)
    side = job.tile + 2 * model.halo
    image = np.random.default_rng(0).random([max(1, round(side / factor)) for factor in job.scale])
    times = []
    for _ in range(2):  # the first is slow
        start = time.perf_counter()
        super_resolve(image, job.scale, model=engine, in_range=(0, 1), tile=None, self_ensemble=job.self_ensemble)
        times.append(time.perf_counter() - start)
    tiles = math.prod(-(-n // size) for n, size in zip(job.shape, job.chunk, strict=True))
    shard = math.prod(job.block) * (8 + 4 * np.dtype(job.dtype).itemsize)
    network = engine.memory(side, side) if engine.device.type == "cpu" else 0
    return tiles * min(times), network + 2 * shard, f"{engine.device} ({engine.name})"
