import gc
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
import torch
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt, QThreadPool

import vdsr_core
from napari_vdsr.background import job as _job
from napari_vdsr.background import pytorch
from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import generators
from napari_vdsr.upscale import script as _script
from napari_vdsr.upscale import task as _tasks
from vdsr_core import compare_models, find_range, resize, save_checkpoint, super_resolve


@pytest.fixture
def network(tmp_path, tiny_model):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, tiny_model)
    return str(path)


def make_task(network, *shape, **options):
    layer = Image(np.random.default_rng(0).random(shape, dtype=np.float32))
    return _tasks.Task(image_layers.whole(layer), 2, model=network, **options)


def test_work_that_waits_is_next():
    """As an upscaling beside a training, which wants the next turn as soon as it has given one away."""
    order, never = [], threading.Event()

    def work():
        with pytorch.computing(never):
            order.append("waited")

    thread = threading.Thread(target=work)
    with pytorch.computing(never):
        thread.start()
        deadline = time.monotonic() + 30
        while not pytorch._next.locked():
            assert time.monotonic() < deadline
            time.sleep(0.001)
    with pytorch.computing(never):
        order.append("had one")
    thread.join()
    assert order == ["waited", "had one"]


def test_work_begins_beside_other_work_on_a_computer_with_one_core(qtbot):
    pool, enough, ended = QThreadPool.globalInstance(), threading.Event(), []
    before = pool.maxThreadCount()
    pool.setMaxThreadCount(1)

    def wait(cancelled):
        assert enough.wait(60)
        yield

    def end(cancelled):
        yield from ()

    jobs = [_job.Job(work) for work in (wait, wait, end)]
    for job in jobs:
        job.ended.connect(lambda job, error: ended.append((job, error)))
        job.start()
    qtbot.waitUntil(lambda: ended == [(jobs[2], None)], timeout=30_000)
    enough.set()
    qtbot.waitUntil(lambda: len(ended) == 3, timeout=30_000)
    pool.setMaxThreadCount(before)


def test_upscale_is_super_resolve_and_counts_its_tiles(network):
    task = make_task(network, 2, 20, 24, tile=16)
    started, *written = generators.upscale(task, threading.Event())
    expected = super_resolve(task.source.data, 2, model=network)
    np.testing.assert_allclose(started.data, expected, rtol=0, atol=1e-5)
    assert len(written) == started.count == 2 * 3 * 3


def test_a_stack_whose_coarsest_level_is_as_narrow_as_colour(network):
    stack = np.random.default_rng(0).random((5, 32, 32), dtype=np.float32)
    layer = Image([stack, stack[:, ::8, ::8]], name="pyramid")
    task = _tasks.Task(image_layers.whole(layer), 2, model=network, looked_at=image_layers.coarsest(layer))
    started, *_ = generators.upscale(task, threading.Event())
    lows, highs = zip(*find_range(stack[:, ::8, ::8], channel_axis=0), strict=True)
    assert started.found.in_range == (min(lows), max(highs))
    expected = super_resolve(stack, 2, model=network, in_range=started.found.in_range)
    np.testing.assert_allclose(started.data, expected, rtol=0, atol=1e-5)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    exec(_script.python_script([(layer, task)]), {"viewer": viewer})
    np.testing.assert_allclose(viewer.layers[-1].data, expected, rtol=0, atol=1e-5)


def test_cancel_takes_effect_after_a_tile_and_before_the_next_is_read(network):
    cancelled = threading.Event()
    run = generators.upscale(make_task(network, 20, 24, tile=16), cancelled)
    started, _ = next(run), next(run)
    cancelled.set()
    with pytest.raises(pytorch.Cancelled):
        next(run)
    expected = resize(data := make_task(network, 20, 24).source.data, 2)  # what is not finished is interpolated
    expected[:16, :16] = super_resolve(data, 2, model=network)[:16, :16]
    np.testing.assert_allclose(started.data, expected, rtol=0, atol=1e-5)


def test_one_run_at_a_time_and_threads_are_given_back(network):
    threads = torch.get_num_threads()
    first = generators.upscale(make_task(network, 20, 24), threading.Event())
    next(first)
    assert torch.get_num_threads() == max(1, threads - 1)
    impatient = threading.Event()
    impatient.set()
    with pytest.raises(pytorch.Cancelled):
        next(generators.upscale(make_task(network, 20, 24), impatient))
    first.close()
    assert torch.get_num_threads() == threads
    assert len(list(generators.upscale(make_task(network, 20, 24), threading.Event()))) > 1


@pytest.mark.parametrize("cancel", [False, True])
def test_work_goes_on_when_its_first_step_has_been_handled_or_at_once_if_cancelled(qtbot, cancel):
    handled, seen = [], []

    def work(cancelled):
        yield "first"
        seen.extend(handled)
        yield "second"

    def handle(job, step):
        if cancel:
            job.cancel()
        time.sleep(0.3)
        handled.append(step)

    job = _job.Job(work)
    job.stepped.connect(handle, Qt.ConnectionType.QueuedConnection)
    with qtbot.waitSignal(job.ended) as ended:
        job.start()
    assert ended.args == [job, None]
    assert seen == ([] if cancel else ["first"])


def test_garbage_is_collected_once_after_many_objects_were_made_also_when_that_fails():
    generations, during = [], []

    def note(phase, info):
        if phase == "stop":
            generations.append(info["generation"])

    def fail():
        kept = [[number] for number in range(100_000)]
        during.extend(generations)
        raise ImportError(len(kept))

    gc.callbacks.append(note)
    try:
        with pytest.raises(ImportError, match="100000"), pytorch.collecting_after():
            fail()
    finally:
        gc.callbacks.remove(note)
    assert during == []
    assert generations == [2]
    assert gc.isenabled()


@pytest.mark.parametrize(("platform", "words"), [("win32", "before Qt"), ("linux", "--force-reinstall")])
def test_missing_torch_says_what_to_do(monkeypatch, platform, words):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ImportError, match=words):
        pytorch.load_torch()


def test_trial_of_colour_and_of_a_constant_layer(network):
    colour = np.random.default_rng(0).integers(0, 255, (30, 34, 3)).astype(np.uint8)
    task = _tasks.Task(image_layers.whole(Image(colour, rgb=True)), 2, model=network)
    scores = list(generators.try_out(task, {"mine": network}, threading.Event()))
    assert [score.method for score in scores] == ["bicubic", "mine"]
    again = compare_models(colour, 2, models={"mine": network}, rgb=True)
    assert [score.psnr for score in scores] == [score.psnr for score in again]
    flat = _tasks.Task(image_layers.whole(Image(np.full((20, 20), 7, np.uint8))), 2, model=network)
    with pytest.raises(ValueError, match="detail"):
        list(generators.try_out(flat, {"mine": network}, threading.Event()))


def test_a_range_is_that_of_the_pixels_there_are_now(network):
    task = make_task(network, 20, 24)
    never = threading.Event()
    assert _tasks.find_ranges(task, never) == find_range(task.source.data)
    task.source.data[:] *= 3  # in place
    assert _tasks.find_ranges(task, never) == find_range(task.source.data)
    task.source.data[3, 5] = 100  # one pixel
    assert _tasks.fingerprint(task.source.data) != _tasks.fingerprint(task.source.data[::-1])


def test_a_speed_is_kept_with_its_network(network):
    """So that no other network is taken for one that is gone."""
    facts = pytorch.examine_now(network, "cpu")
    assert pytorch.examine_now(network, "cpu") == facts
    examined = weakref.ref(pytorch.load_network(network))
    pytorch._load_network.cache_clear()
    gc.collect()
    assert examined() is not None


@pytest.mark.parametrize("speed", [2e4, 5e5, 1e8])
def test_a_slow_first_call_does_not_count_as_the_speed(tiny_model, monkeypatch, speed):
    """As right after the start, when the first call loads what the later ones need. The clock is the test's own."""
    clock, sides = [0.0], []

    def compute(image, scale, **_):
        side = image.shape[0] * scale
        clock[0] += (0 if sides else 3) + 0.001 + side**2 / speed
        sides.append(side)

    monkeypatch.setattr(vdsr_core, "super_resolve", compute)
    monkeypatch.setattr(pytorch, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    pytorch.measure_speed.cache_clear()
    found = pytorch.measure_speed(tiny_model, "cpu")
    pytorch.measure_speed.cache_clear()
    assert clock[0] < 3 + pytorch.PROBE_SECONDS
    assert found == pytest.approx(sides[-1] ** 2 / (0.001 + sides[-1] ** 2 / speed))
    assert found > 0.85 * speed or sides[-1] == 512  # a small window or the largest one


def test_seconds_count_the_halo():
    facts = pytorch.Facts(halo=20, speed=1000.0, summary="", devices={}, chosen="")
    source = image_layers.whole(Image(np.zeros((5, 100, 50))))
    assert facts.seconds(source, 2, 1000) == 5 * 200 * 100 / 1000
    assert facts.seconds(source, 2, 100) == 5 * 240 * 100 / 1000


def test_explain_device():
    gpu = {"cuda:0": "A GPU", "cpu": "processor"}
    assert "no GPU" in pytorch.explain_device(None, {"cpu": "processor"})
    assert "A GPU" in pytorch.explain_device(None, gpu)
    assert "you chose" in pytorch.explain_device("cpu", gpu)
