import os

import numpy as np
import pytest
import torch

from vdsr_core.cli.doctor import EngineCheck, advise, check_engines, describe_build
from vdsr_core.network.engine import Engine
from vdsr_core.network.ncnn_engine import has_ncnn

GOOD = EngineCheck("cpu", "torch", 1.0, 0.0, "", True)


def test_every_engine_here_is_measured_and_right(tiny_model):
    checks = list(check_engines(tiny_model, seconds=0))
    assert checks[0].device == "cpu"
    assert checks[0].engine == "torch"
    assert checks[0].difference == 0
    assert has_ncnn() == any(check.engine == "ncnn" for check in checks)
    assert sum(check.chosen for check in checks) == 1
    assert all(check.speed > 0 and not check.problem and check.difference < 1e-3 for check in checks)


def test_an_engine_that_fails_or_is_wrong_is_named(tiny_model, monkeypatch):
    monkeypatch.setattr("vdsr_core.network.devices.list_devices", lambda: {"cpu": "", "meta": ""})
    run, calls = Engine.run, iter(range(100))

    def wrong(self, windows, taps):
        return run(self, windows, taps) + np.float32(next(calls) > 0)  # the first call is the reference

    monkeypatch.setattr(Engine, "run", wrong)
    checks = list(check_engines(tiny_model, seconds=0))
    assert {check.problem for check in checks if check.device == "cpu"} == {"is wrong"}
    (meta,) = (check for check in checks if check.device == "meta")
    assert meta.problem.startswith("failed: ")
    assert meta.speed == 0
    assert any("torch on cpu is wrong" in sentence for sentence in advise(checks))


def test_ncnn_is_advised_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.platform", "linux")
    assert any("pip install ncnn" in sentence for sentence in advise([GOOD]))
    assert list(advise([GOOD, EngineCheck("cpu", "ncnn", 2.0, 1e-6, "", True)])) == []


def test_a_driver_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("the NVIDIA driver may be too old for CUDA 13.0" in sentence for sentence in advise([GOOD]))


def test_two_openmp_runtimes_are_not_loaded_on_macos(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not has_ncnn()
    assert list(advise([GOOD])) == []


@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch has CUDA")
def test_cuda_is_advised_where_there_is_a_driver(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert any("pytorch.org" in sentence for sentence in advise([GOOD]))


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the driver's tool")
@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 580.65.06; echo 580.65.06", "driver 580.65.06"), ("exit 9", "driver that does not answer"), (None, "")],
)
def test_the_driver_is_named(tmp_path, monkeypatch, script, said):
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    text = describe_build()
    assert text.startswith("made for ")
    assert text.endswith(said)
    assert bool(said) == ("driver" in text)
