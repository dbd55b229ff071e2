import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

distributed = pytest.importorskip("distributed")

from vdsr_core import VDSR, ImageFile, VDSRConfig, plan, stream, write_image  # noqa: E402
from vdsr_core.streaming import cluster as module  # noqa: E402
from vdsr_core.streaming.cluster import connect  # noqa: E402

WORKER = """
import asyncio, sys
from importlib import metadata
from distributed import Worker

def version(name):
    if not sys.argv[2]:
        raise metadata.PackageNotFoundError(name)
    return sys.argv[2]

async def run():
    async with Worker(sys.argv[1], dashboard_address=":0") as worker:
        await worker.finished()

metadata.version = version
asyncio.run(run())
"""


@pytest.fixture
def job(tmp_path):
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(4, 8))
    write_image(tmp_path / "cells.zarr", ImageFile(np.eye(40, dtype=np.uint16), "YX"))
    return plan(tmp_path / "cells.zarr", 2, tmp_path / "out.ome.zarr", model=model, tile=16, shard=32), model


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_scheduler_that_is_not_there_is_named_soon(address, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 1)
    with pytest.raises(OSError, match=f"the scheduler {address} cannot be reached: .* Is it running"), connect(address):
        pass


@pytest.mark.slow
def test_stop_ends_the_work_of_a_cluster_and_the_rest_follows(job):
    work, model = job
    stop = threading.Event()
    with connect("local:1") as client:
        shards = stream(work, model=model, client=client, stop=stop)
        next(shards)
        stop.set()
        assert list(shards) == []
        assert not os.path.exists(work.target)
        assert 1 <= len(work.done) < work.count
        list(stream(work, model=model, client=client))
    assert os.path.exists(work.target)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["9.9", None])
def test_worker_of_another_version_is_named(tmp_path, job, version, monkeypatch):
    """A worker that finds other metadata of the package, or none, and a scheduler without any worker."""
    monkeypatch.setattr(module, "QUEUE", 1)
    work, model = job
    options = {"n_workers": 0, "dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(**options) as nobody, distributed.Client(nobody) as client:
        with pytest.raises(TimeoutError, match="the scheduler must have a worker, got none within 1 seconds"):
            list(stream(work, model=model, client=client))
        monkeypatch.setattr(module, "QUEUE", 60)
        command = [sys.executable, "-c", WORKER, nobody.scheduler_address, version or ""]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            try:
                with pytest.raises(RuntimeError, match=f"of napari-vdsr, got {version or 'none'} at tcp"):
                    list(stream(work, model=model, client=client))
            finally:
                worker.kill()
    assert not os.path.exists(work.target)
