import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vdsr_core.network.threads import divided_work

COLLECTIVE = """
import torch
from vdsr_core.training.processes import sum_over_processes, find_rank, joined_processes

def threads():
    names = [open(f"/proc/self/task/{number}/comm").read().strip() for number in os.listdir("/proc/self/task")]
    return sum("gloo" in name for name in names)

import os
with joined_processes("cpu") as device:
    assert (device, find_rank()) == ("cpu", (0, 1))
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1).zero_grad()
    import torch._dynamo
    sum_over_processes([torch.ones(2)])
    assert threads() > 0
assert threads() == 0, threads()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads by name")
def test_no_thread_outlives_the_joined_processes():
    """Gloo's threads abort a process that exits while they still run."""
    rank = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIVE], capture_output=True, text=True, check=False, env=os.environ | rank
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupt_while_the_threads_start_does_not_hang(monkeypatch, at):
    submit, calls = ThreadPoolExecutor.submit, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) > at:
            raise KeyboardInterrupt
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(KeyboardInterrupt), divided_work(torch.device("cpu")):
        pass
