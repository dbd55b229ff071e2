import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig
from vdsr_core.network import strips
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import fold, unfold
from vdsr_core.network.ncnn_engine import find_ncnn
from vdsr_core.stopping import Stopped

pytest.importorskip("ncnn")
from vdsr_core.network import ncnn_workers  # only where ncnn is
from vdsr_core.network.ncnn_network import NcnnNetwork
from vdsr_core.network.ncnn_workers import NcnnWorkers


@pytest.fixture(autouse=True)
def every_image_is_large(monkeypatch):
    monkeypatch.setattr(ncnn_workers, "LARGE", 1)
    monkeypatch.setattr(strips, "LARGE", 1)


def make_layers(depth, width):
    torch.manual_seed(depth)
    model = VDSR(VDSRConfig(depth, width)).requires_grad_(False)
    return model, [(layer.weight.numpy(), layer.bias.numpy()) for layer in model.convolutions]


@pytest.fixture(scope="module")
def shared():
    model, layers = make_layers(4, 16)
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 1), 2)
    return model, workers


@pytest.fixture
def slow():
    """A network that takes seconds for the image beside it."""
    _, layers = make_layers(20, 64)
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 1), 2)
    return workers, np.random.default_rng(0).random((1, 1, 600, 900), dtype=np.float32)


def find_processes():
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "ncnn_workers" in " ".join(child.cmdline()):
                found.add(child)
    return found


@pytest.fixture
def started():
    """The processes that a test has started and that still run."""
    before = find_processes()
    return lambda: find_processes() - before


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come true in 30 s")


@settings(max_examples=20)
@given(rows=st.integers(1, 200), columns=st.integers(1, 900))
def test_processes_equal_torch(shared, rows, columns):
    model, workers = shared
    ilr = np.random.default_rng(rows).random((1, 1, rows, columns), dtype=np.float32)
    expected = model.residual(torch.from_numpy(ilr)).numpy()
    np.testing.assert_allclose(workers.residual(ilr), expected, rtol=0, atol=1e-5)


def test_processes_know_blocks_and_squares(rng):
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(6, 16, fold=2, blocks=True)).requires_grad_(False)
    layers = [(layer.weight.numpy(), layer.bias.numpy()) for layer in model.convolutions]
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 1, blocks=True), 2, blocks=True)
    ilr = torch.from_numpy(rng.random((1, 1, 151, 201), dtype=np.float32))
    found = torch.from_numpy(workers.residual(fold(ilr, 2).numpy()))
    torch.testing.assert_close(unfold(found, 2, ilr.shape), model.residual(ilr), rtol=0, atol=1e-5)
    assert workers._works


def test_threads_share_the_processes(shared, rng):
    _, workers = shared
    images = rng.random((3, 1, 1, 100, 500), dtype=np.float32)
    expected = [workers.residual(image) for image in images]
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: workers.residual(images[n])})) for n in range(len(images))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, result in enumerate(expected):
        np.testing.assert_array_equal(found[number], result)


def test_images_share_the_processes_block_by_block(shared, rng, monkeypatch):
    """All blocks at once: the bits are those of each image alone."""
    _, workers = shared
    monkeypatch.setattr(ncnn_workers, "LARGE", 3000)
    images = rng.random((3, 1, 100, 500), dtype=np.float32)
    expected = [workers.residual(image[None])[0] for image in images]
    each, calls = workers._each, []
    monkeypatch.setattr(workers, "_each", lambda pieces, stop: calls.append(len(pieces)) or each(pieces, stop))
    np.testing.assert_array_equal(workers.residual(images), expected)
    assert len(calls) == 1
    assert calls[0] > len(images)


def test_images_one_after_the_other_take_the_process_that_is_ready(started, rng):
    _, layers = make_layers(3, 4)
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 1), 4)
    for _ in range(3):
        workers._each([rng.random((1, 30, 30), dtype=np.float32)], None)
    assert len(started()) == 1


def test_small_images_start_no_process(rng, monkeypatch, started):
    monkeypatch.setattr(ncnn_workers, "LARGE", 2**16)
    _, layers = make_layers(3, 4)
    NcnnWorkers(layers, NcnnNetwork(layers, 1), 2).residual(rng.random((1, 1, 40, 40), dtype=np.float32))
    assert not started()


def test_a_stop_ends_the_processes_and_the_next_image_starts_others(slow, started):
    workers, ilr = slow
    for started_before in (False, True):
        if started_before:
            workers.residual(ilr[..., :30, :30])
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()  # in the midst of a block, or of the start
        with pytest.raises(Stopped):
            workers.residual(ilr, stop)
        assert not started()
    small = ilr[..., :30, :30]
    found = workers.residual(small)
    assert started()
    workers._works = False
    np.testing.assert_array_equal(found, workers.residual(small))


def test_a_killed_process_is_a_warning_and_the_same_result(slow, started):
    workers, ilr = slow
    ilr = ilr[:, :, :100]

    def kill():
        wait_until(started)
        for child in started():
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.warns(UserWarning, match="ncnn's processes do not work here .*; continuing in one"):
        found = workers.residual(ilr)
    killer.join()
    assert not started()
    workers = NcnnWorkers(workers._arguments[0], workers._network, 2)
    np.testing.assert_array_equal(found, workers.residual(ilr))
    assert len(started()) == 2


def test_a_process_that_has_ended_without_work_is_replaced(shared, rng, started, monkeypatch):
    """Also one that ends after it was asked whether it runs: no warning, and the processes are used from then on."""
    _, workers = shared
    ilr = rng.random((1, 1, 90, 90), dtype=np.float32)
    expected = workers.residual(ilr)
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(ncnn_workers.Worker, "alive", True)
        for child in find_processes():
            child.kill()
            child.wait()
        np.testing.assert_array_equal(workers.residual(ilr), expected)
        assert workers._works
        assert len(started()) == 2


def test_small_images_of_a_stack_go_to_the_processes_whole(rng, monkeypatch, started):
    monkeypatch.setattr(ncnn_workers, "LARGE", 5000)
    _, layers = make_layers(4, 16)
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 2), 2)
    images = rng.random((4, 1, 40, 50), dtype=np.float32)
    alone = np.concatenate([workers.residual(image[None]) for image in images])
    few = workers.residual(images[:2])
    assert not started()
    together = workers.residual(images)
    assert len(started()) == 2
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(few, alone[:2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_processes_of_its_own(shared, rng):
    """Also one in whose parent all are busy at that moment; the parent's go on."""
    _, workers = shared
    ilr = rng.random((1, 1, 90, 90), dtype=np.float32)
    expected = workers.residual(ilr)
    taken = [workers._free.get() for _ in range(2)]
    if not (child := os.fork()):
        signal.alarm(60)  # one that waits for ever ends
        same = False
        with contextlib.suppress(BaseException):
            same = np.array_equal(workers.residual(ilr), expected)
            del workers, taken
        os._exit(not same)
    for worker in taken:
        workers._free.put(worker)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert all(worker.alive for worker in taken)
    np.testing.assert_array_equal(workers.residual(ilr), expected)


def test_processes_end_with_their_network(rng, started):
    _, layers = make_layers(3, 4)
    workers = NcnnWorkers(layers, NcnnNetwork(layers, 1), 2)
    workers.residual(rng.random((1, 1, 40, 40), dtype=np.float32))
    assert len(started()) == 2
    del workers
    assert not started()


def test_the_engine_takes_processes_for_several_threads():
    model, _ = make_layers(7, 4)
    assert isinstance(find_ncnn(model, 2)[0], NcnnWorkers)
    assert isinstance(find_ncnn(model, 1)[0], NcnnNetwork)
    cpu = torch.device("cpu")
    threads = torch.get_num_threads()
    try:
        memory = []
        for count in (1, 2):
            torch.set_num_threads(count)
            memory.append(Engine(model, cpu).memory(1000, 1000))
    finally:
        torch.set_num_threads(threads)
    assert memory[0] < memory[1] < 2 * memory[0]


SCRIPT = """
import multiprocessing, sys
import numpy as np, torch
from vdsr_core import VDSR, VDSRConfig, super_resolve
from vdsr_core.network import ncnn_workers
from vdsr_core.network import strips

torch.set_num_threads(2)
ncnn_workers.LARGE = strips.LARGE = 1
"""


def run_script(tmp_path, text, **options):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    process = run_script(
        tmp_path,
        """
        image = np.random.default_rng(0).random((60, 60), dtype=np.float32)
        print(super_resolve(image, 2, model=VDSR(VDSRConfig(3, 4)), in_range=(0, 1), device="cpu").shape)
        """,
    )
    out, err = process.communicate(timeout=120)
    assert (out.strip(), err, process.returncode) == ("(120, 120)", "", 0)


@pytest.mark.skipif(os.name != "posix", reason="a script takes the place of the program")
def test_a_program_that_embeds_python_is_not_started(tmp_path):
    host = tmp_path / "host"
    host.write_text("#!/bin/sh\ntouch started\nexec sleep 60\n")
    host.chmod(0o755)
    process = run_script(
        tmp_path,
        """
        import multiprocessing.spawn, sys
        sys.executable = "./host"
        multiprocessing.spawn.set_executable("./host")
        image = np.random.default_rng(0).random((60, 60), dtype=np.float32)
        print(super_resolve(image, 2, model=VDSR(VDSRConfig(3, 4)), in_range=(0, 1), device="cpu").shape)
        """,
        cwd=tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (out.strip(), err, process.returncode) == ("(120, 120)", "", 0)
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("large", [1, 10**9])
def test_a_fork_computes_after_a_call_in_its_parent(tmp_path, large):
    """By processes, and by threads: OpenMP's are the parent's."""
    process = run_script(
        tmp_path,
        f"""
        import os, signal, warnings
        warnings.simplefilter("ignore")
        ncnn_workers.LARGE = strips.LARGE = {large}
        network = VDSR(VDSRConfig(3, 4))
        image = np.random.default_rng(0).random((80, 90), dtype=np.float32)
        def compute():
            return super_resolve(image, 2, model=network, in_range=(0, 1), device="cpu")
        expected = compute()
        if not (child := os.fork()):
            signal.alarm(40)
            os._exit(not np.array_equal(compute(), expected))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    )
    out, err = process.communicate(timeout=120)
    assert (out.strip(), err, process.returncode) == ("0", "", 0)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_in_silence_with_their_caller(tmp_path, number):
    process = run_script(
        tmp_path,
        """
        import threading, time, psutil
        def tell():
            while len(psutil.Process().children()) < 2:
                time.sleep(0.05)
            time.sleep(1)
            print("busy", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        super_resolve(np.random.default_rng(0).random((2000, 2000), dtype=np.float32), 2, in_range=(0, 1), device="cpu")
        """,
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == ""  # they have closed it: all have ended


def test_a_daemon_has_no_processes(tmp_path):
    process = run_script(
        tmp_path,
        """
        import psutil
        from vdsr_core.network.ncnn_engine import find_ncnn

        def work():
            network, _ = find_ncnn(VDSR(VDSRConfig(3, 4)), 2)
            print(network.residual(np.ones((1, 1, 30, 40), np.float32)).shape, psutil.Process().children())

        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
            process.start()
            process.join()
        """,
    )
    out, err = process.communicate(timeout=120)
    assert (out.strip(), err, process.returncode) == ("(1, 1, 30, 40) []", "", 0)


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_a_thread_goes_on_when_the_script_ends(tmp_path, dtype):
    """With ncnn and, in double precision, with PyTorch: no pool takes anything then."""
    process = run_script(
        tmp_path,
        f"""
        import threading, time, torch
        torch.set_num_threads(2)
        image = np.random.default_rng(0).random((150, 150), dtype=np.float32)
        def work():
            time.sleep(0.5)
            network = VDSR(VDSRConfig(3, 4)).{dtype}()
            print(super_resolve(image, 2, model=network, in_range=(0, 1), device="cpu").shape)
        threading.Thread(target=work).start()
        """,
    )
    out, err = process.communicate(timeout=120)
    assert (out.strip(), err, process.returncode) == ("(300, 300)", "", 0)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_ends_all_processes(tmp_path):
    process = run_script(
        tmp_path,
        """
        import threading, time, psutil
        def tell():
            while len(psutil.Process().children()) < 2:
                time.sleep(0.05)
            time.sleep(1)
            print("busy", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        super_resolve(np.random.default_rng(0).random((2000, 2000), dtype=np.float32), 2, in_range=(0, 1), device="cpu")
        """,
        start_new_session=True,
    )
    assert process.stdout.readline() == "busy\n"
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.count("KeyboardInterrupt") == 1
    assert len(err.split("Traceback")) == 2
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in family))
