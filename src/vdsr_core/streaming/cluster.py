"""Make shards on the workers of a dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_core.network.checkpoint import load_checkpoint
from vdsr_core.network.devices import SharedEngine
from vdsr_core.stopping import stop_if
from vdsr_core.streaming.plan import Index, Plan, find_version
from vdsr_core.streaming.shards import Shard, ShardMaker
from vdsr_core.streaming.source import BadSource, open_source, raise_bad_chunks
from vdsr_core.streaming.workspace import MODEL, PLAN

if TYPE_CHECKING:
    from distributed import Client

PATIENCE, QUEUE = 5, 60  # seconds to wait for a scheduler, and for its first worker


def run_on_cluster(
    client: Client, plan: Plan, tasks: Sequence[tuple[int, Index]], device: str | None, stop: threading.Event
) -> Iterator[Shard]:
    """Make shards on the workers of a dask cluster; those of a lost worker are made by another, none after `stop`."""
    from distributed import as_completed

    check_workers(client)
    options: dict[str, Any] = {"folder": str(plan.folder), "signature": plan.signature, "device": device}
    futures = client.map(make_shard, tasks, pure=False, key=f"shard-{plan.signature[:8]}", **options)
    bad = []
    try:
        for future in as_completed(futures):
            stop_if(stop)
            try:
                yield future.result()
            except BadSource as error:
                bad.append(error)
            future.release()
    finally:
        client.cancel(futures)
    raise_bad_chunks(bad)


@contextmanager
def connect(cluster: str | None) -> Iterator[Client | None]:
    """A client of a dask cluster: at an address, or of ``local:N`` processes on this machine; None without."""
    if cluster is None:
        yield None
        return
    from distributed import Client, LocalCluster

    if not cluster.startswith("local:"):
        try:
            client = Client(cluster, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            msg = f"the scheduler {cluster} cannot be reached: {error}. Is it running, and its port open from here?"
            raise OSError(msg) from error
        with client:
            yield client
        return
    count = cluster.removeprefix("local:")
    if not count.isdecimal() or not int(count):
        msg = f"`cluster` must be the address of a scheduler, or local: and a number, got {cluster!r}. Try local:2."
        raise ValueError(msg)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "ERROR"}
    with LocalCluster(int(count), **options) as processes, Client(processes) as client:
        yield client


def check_workers(client: Client) -> None:
    """Raise unless the workers of a cluster have this version of the package."""
    try:
        client.wait_for_workers(1, timeout=QUEUE)
    except TimeoutError as error:
        msg = f"the scheduler must have a worker, got none within {QUEUE} seconds. Start workers."
        raise TimeoutError(msg) from error
    versions: dict[str, Any] = client.run(metadata.version, "napari-vdsr", on_error="return")
    for worker, found in versions.items():
        if found != find_version():
            got = f"{found if isinstance(found, str) else 'none'} at {worker}"
            msg = f"the workers must have version {find_version()} of napari-vdsr, got {got}. Install it there."
            raise RuntimeError(msg)


@lru_cache(maxsize=1)
def open_maker(folder: str, signature: str, device: str | None) -> ShardMaker:
    """The maker of a plan's shards in a worker; cached, because loading the network is expensive."""
    plan = Plan.from_json((Path(folder) / PLAN).read_text(encoding="utf-8"))
    if plan.signature != signature or plan.version != find_version():
        msg = f"the worker must have version {plan.version} of napari-vdsr and the plan {signature}, "
        msg += f"got {find_version()} and {plan.signature}. Install the same version everywhere."
        raise RuntimeError(msg)
    model = load_checkpoint(Path(folder) / MODEL)
    return ShardMaker(plan, open_source(plan.source, plan.axes, plan.name), SharedEngine(model, device))


def make_shard(task: tuple[int, Index], folder: str, signature: str, device: str | None) -> Shard:
    """What a worker of a cluster does."""
    return open_maker(folder, signature, device).make(*task)
