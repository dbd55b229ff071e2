import numpy as np
import pytest
import torch

from vdsr_core import VDSR, load_model
from vdsr_core.images.resampling import make_taps
from vdsr_core.network import devices, engine
from vdsr_core.network.devices import agrees_with_cpu, choose_device, list_devices
from vdsr_core.network.engine import Engine

CPU = torch.device("cpu")


def identity(*shape):
    return tuple(make_taps(n, 1, 0, n) for n in shape)


def test_a_device_without_memory_left_is_tried_again(monkeypatch):
    compute, calls = Engine.run, []

    def run(self, *args):
        calls.append(self.device)
        if len(calls) == 2:  # the first is the reference
            raise MemoryError
        return compute(self, *args)

    monkeypatch.setattr(Engine, "run", run)
    devices._compare_with_cpu.cache_clear()
    with pytest.warns(UserWarning, match="cpu has no memory left now; continuing with the CPU"):
        assert not agrees_with_cpu("cpu")
    assert agrees_with_cpu("cpu")
    assert agrees_with_cpu("cpu")
    assert len(calls) == 4


def test_a_device_that_is_full_beforehand_is_tried_again(monkeypatch, tiny_model):
    def full(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    devices._compare_with_cpu.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(VDSR, "to", full)
        with pytest.raises(MemoryError, match=r"^CUDA error: out of memory$"):
            Engine(tiny_model, CPU, fast=False)
        patch.setattr(engine, "has_ncnn", lambda: False)
        with pytest.warns(UserWarning, match="cpu has no memory left now"):
            assert not agrees_with_cpu("cpu")
        patch.setattr(torch, "zeros", full)
        with pytest.raises(MemoryError, match=r"^CUDA error: out of memory$"):
            choose_device("cpu")
    assert agrees_with_cpu("cpu")


def test_a_gpu_whose_driver_is_too_old_is_no_device(monkeypatch):
    """It is counted all the same, and nothing else can be asked of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: (_ for _ in ()).throw(RuntimeError("driver too old")))
    assert "cuda:0" not in list_devices()
    with pytest.raises(ValueError, match="`device` must be one of cpu"):
        choose_device("gpu")


def test_cpu_agrees_with_itself_and_a_device_that_fails_is_a_warning():
    assert agrees_with_cpu("cpu")
    with pytest.warns(UserWarning, match="meta is here but does not work .*; continuing with the CPU"):
        assert not agrees_with_cpu("meta")


def test_the_best_device_leaves_the_random_numbers_alone():
    devices._compare_with_cpu.cache_clear()
    before = torch.get_rng_state()
    agrees_with_cpu("cpu")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta7", 3.5])
def test_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=r"`device` must be one of cpu.* here, got"):
        choose_device(device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_cpu():
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    cpu = Engine(load_model(), CPU).run([ramp], [identity(64, 64)])
    cuda = Engine(load_model(), choose_device()).run([ramp] * 3, [identity(64, 64)] * 3)
    assert np.abs(cuda - cpu).max() < 1e-3
