import os
import subprocess
import sys
import threading

import pytest

from vdsr_core.workers import begin_ahead

COLLECTIVE = """
import torch
from vdsr_core.workers import add_up, find_rank, joined_processes

def threads():
    names = [open(f"/proc/self/task/{number}/comm").read().strip() for number in os.listdir("/proc/self/task")]
    return sum("gloo" in name for name in names)

import os
with joined_processes("cpu") as device:
    assert (device, find_rank()) == ("cpu", (0, 1))
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1).zero_grad()
    import torch._dynamo
    add_up([torch.ones(2)])
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


@pytest.mark.parametrize("count", [1, 2, 5])
def test_calls_begin_ahead_and_end_in_order(count):
    """As many as asked for are under way; items are taken one by one, none before there is room."""
    taken, running = [], []

    def items():
        for item in range(8):
            taken.append(item)
            yield item

    def square(item):
        running.append(threading.get_ident())
        return item**2

    for number, (item, call) in enumerate(begin_ahead(square, items(), count)):
        assert len(taken) == min(8, number + count)
        assert (item, call()) == (number, number**2)
    assert len(running) == 8
    assert (threading.get_ident() in running) == (count == 1)
