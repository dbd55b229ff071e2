"""Fixtures for all tests."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=25, derandomize="CI" in os.environ)
settings.load_profile("default")
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background inherit an ignored one


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tiny_model():
    import torch

    from vdsr_core import VDSR, VDSRConfig

    torch.manual_seed(0)
    return VDSR(VDSRConfig(depth=4, width=8))


class Impatient(threading.Event):
    """An event that is set once it has been looked at so often."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return super().is_set() or self.looks < 0


@pytest.fixture
def impatient():
    return Impatient


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the benchmark photographs: Set5, Set14, B100, ..."""
    return path_from("VDSR_DATA", "the folder of Set5, Set14 and B100")


@pytest.fixture(scope="session")
def oracle_path():
    """Arrays of the network that the authors of VDSR published."""
    return path_from("VDSR_ORACLE", "the .npz file of the published network")


def path_from(variable, meaning):
    if variable not in os.environ:
        pytest.skip(f"needs {variable}, {meaning}")
    path = Path(os.environ[variable])
    assert path.exists(), f"{variable} must name {meaning}, got {path}"
    return path
