"""Peak memory of `stream` by the size of the result, its time over the network's alone, and what tasks and graphs cost.

python benchmarks/streaming.py memory 4096 16384 32768
python benchmarks/streaming.py overhead
python benchmarks/streaming.py tasks 1000 10000 100000
python benchmarks/streaming.py io
python benchmarks/streaming.py graph 1000 10000
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TILE = 512


def make_source(folder, side):
    """A square uint16 zarr array, written chunk by chunk."""
    import zarr

    array = zarr.create_array(folder / "source.zarr", shape=(side, side), chunks=(512, 512), dtype="uint16")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 4096, (512, 512), np.uint16)
    for row in range(0, side, 512):
        for column in range(0, side, 512):
            size = min(512, side - row), min(512, side - column)
            array[row : row + size[0], column : column + size[1]] = np.roll(noise, row + column)[: size[0], : size[1]]
    return folder / "source.zarr"


def tiny():
    import torch

    from vdsr_core import VDSR, VDSRConfig

    torch.manual_seed(0)
    return VDSR(VDSRConfig(depth=4, width=8))


def stream_once(folder):
    """In a process of its own: megabytes beyond the interpreter with its imports, and seconds."""
    from vdsr_core import plan, stream

    model = tiny()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    job = plan(
        Path(folder) / "source.zarr", 2, Path(folder) / "out.ome.zarr", model=model, in_range=(0, 4095), tile=TILE
    )
    shards = sum(1 for _ in stream(job, model=model))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{job.shape[0]} {shards} {(peak - before) / 1024:.0f} {peak / 1024:.0f} {time.perf_counter() - start:.0f}")


def measure_memory(sides):
    print("| output | shards | peak beyond the imports, MB | peak of the process, MB | s |\n|---|---|---|---|---|")
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            make_source(Path(folder), side // 2)
            run = subprocess.run([sys.executable, __file__, "once", folder], capture_output=True, text=True, check=True)
            print("|", " | ".join(run.stdout.split()), "|", flush=True)


def timed(work):
    """Seconds on the clock, and of processor time in all threads of this process."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def measure_overhead(side=1024, repeats=3):
    """Streaming against the network alone on the same tiles, halo included, turn by turn; the plan counts, too."""
    from vdsr_core import load_model, plan, stream
    from vdsr_core.images.resampling import make_taps
    from vdsr_core.images.tiling import cover
    from vdsr_core.network.devices import choose_device
    from vdsr_core.network.engine import Engine

    model = load_model()
    engine = Engine(model, choose_device())
    pieces = []
    for tile in cover((side, side), TILE, model.halo):
        taps = tuple(make_taps(side // 2, 2.0, part.start, part.stop) for part in tile.read)
        shape = [t.source.stop - t.source.start for t in taps]
        pieces.append((np.random.default_rng(0).random((1, *shape)), taps))

    def alone():
        for window, taps in pieces:
            engine.run([window], [taps])

    engine.run([pieces[0][0]], [pieces[0][1]])  # the first is slow
    times = []
    print("| side | streamed, s | processor, s | network alone, s | processor, s | ratio of processor times |")
    print("|---|---|---|---|---|---|")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            source = make_source(Path(name), side // 2)

            def streamed(source=source, target=Path(name) / "out.ome.zarr"):
                list(stream(plan(source, 2, target, model=model, in_range=(0, 4095), tile=TILE), model=model))

            times.append((*timed(streamed), *timed(alone)))
        row = " | ".join(f"{seconds:.1f}" for seconds in times[-1])
        print(f"| {side} | {row} | {times[-1][1] / times[-1][3]:.3f} |", flush=True)
    wall, processor = (np.sum(times, 0)[i] / np.sum(times, 0)[i + 2] for i in (0, 1))
    print(f"of all together: processor time {processor:.3f}, clock {wall:.3f}")


def nothing(task, folder, signature, device):
    return task


def measure_tasks(counts):
    """Tasks that do nothing, sent as `stream` sends shards, to a scheduler in this process: its time for each.

    The fit over all counts is processor time = start + share * tasks; a shard that takes a worker t seconds keeps
    t / share workers busy before the scheduler is.
    """
    from distributed import Client, LocalCluster, as_completed

    print("| tasks | to send, s | in all, s | processor time of client and scheduler, s | µs for each |")
    print("|---|---|---|---|---|")
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "ERROR"}
    common = {"folder": "/a/folder/.result.ome.zarr.partial", "signature": "0" * 64, "device": None}
    used = []
    with LocalCluster(2, **options) as cluster, Client(cluster) as client:
        client.submit(nothing, (0, (0, 0)), **common).result()  # the first is slow
        for count in counts:
            tasks = [(0, (i // 100, i % 100)) for i in range(count)]
            start = time.perf_counter(), time.process_time()
            futures = client.map(nothing, tasks, pure=False, key=f"shard-{count}", **common)
            sent = time.perf_counter() - start[0]
            for future in as_completed(futures):
                future.release()
            total = time.perf_counter() - start[0]
            used.append(time.process_time() - start[1])
            each = used[-1] / count * 1e6
            print(f"| {count} | {sent:.2f} | {total:.2f} | {used[-1]:.2f} | {each:.0f} |", flush=True)
    share, first = np.polyfit(counts, used, 1)
    print(f"fit: {first:.2f} s + {share * 1e6:.0f} µs for each task")
    for seconds in (1, 10, 60):
        print(f"shards of {seconds} s keep {seconds / share:.0f} workers busy")


def measure_io(side=4096):
    """What a shard reads and writes, in bytes of system calls, with the pyramid's share and the notes of progress."""
    import psutil

    from vdsr_core import plan, stream

    model = tiny()
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder), side // 2)
        job = plan(source, 2, Path(folder) / "out.ome.zarr", model=model, in_range=(0, 4095), tile=TILE)
        before, start = psutil.Process().io_counters(), time.process_time()
        shards = sum(1 for shard in stream(job, model=model) if not shard.level)
        after, seconds = psutil.Process().io_counters(), time.process_time() - start
    read, written = after.read_chars - before.read_chars, after.write_chars - before.write_chars
    print(
        f"{shards} shards of {job.shard} x {job.shard} {job.dtype}: each reads {read / shards / 1e6:.2f} MB and writes"
    )
    print(f"{written / shards / 1e6:.2f} MB in {(after.write_count - before.write_count) / shards:.0f} calls; ", end="")
    print(f"{seconds / shards:.1f} s of processor time with a network of depth 4 and width 8")


def measure_graph(counts):
    """The graph of a lazy result: keys, processor time to build it, and to take out what one view of it needs."""
    import dask.array as da

    from vdsr_core import super_resolve

    print("| tiles | keys | to build, s | keys of a view | to find them, s |\n|---|---|---|---|---|")
    for count in counts:
        side = 256 * round(count**0.5)
        image = da.zeros((side // 2, side // 2), chunks=512, dtype=np.uint16)
        start = time.process_time()
        result = super_resolve(image, 2, model=tiny(), in_range=(0, 4095), tile=256)
        built = time.process_time() - start
        start = time.process_time()
        view = result[:512, :512]
        keys = len(view.__dask_optimize__(view.dask, view.__dask_keys__()))
        found = time.process_time() - start
        ours = len(result.dask) - len(image.dask)
        print(f"| {result.npartitions} | {ours} | {built:.2f} | {keys} | {found:.3f} |", flush=True)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "once":
        stream_once(words[0])
    elif what == "memory":
        measure_memory([int(word) for word in words])
    elif what == "overhead":
        measure_overhead(*map(int, words))
    elif what == "graph":
        measure_graph([int(word) for word in words])
    elif what == "io":
        measure_io(*map(int, words))
    else:
        measure_tasks([int(word) for word in words])
