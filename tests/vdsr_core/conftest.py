"""Fixtures for the tests of the core: a small network, images, and the command that upscales them."""

import signal

import numpy as np
import pytest
import torch
import zarr
from typer.testing import CliRunner

from vdsr_core import (
    ImageFile,
    save_checkpoint,
    write_image,
)
from vdsr_core.cli.main import app


@pytest.fixture
def network(tmp_path, tiny_model):
    """The path of a small network; the tests' own folder is beside it."""
    (tmp_path / "network").mkdir()
    path = tmp_path / "network" / "tiny.safetensors"
    save_checkpoint(path, tiny_model)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    path = tmp_path / "images"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture(autouse=True)
def _signals():
    """A command that was interrupted leaves the next signal to the system: its process is about to end."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def vdsr(network):
    """Runs the command in this process, with the small network where a network is wanted."""

    def run(*words, model=network):
        words = [str(word) for word in words]
        words = words if model is None else [*words, "--model", str(model)]
        return CliRunner().invoke(app, words, env={"COLUMNS": "400"})  # no message is broken into lines

    return run


@pytest.fixture
def draw():
    """Writes an image of random blobs and returns it."""

    def draw(path, shape, dtype=np.uint8, axes="YX", **known):
        rng = np.random.default_rng(sum(path.name.encode()))
        coarse = rng.random([-(-n // 3) if letter in "YX" else n for n, letter in zip(shape, axes, strict=True)])
        for axis, letter in enumerate(axes):
            coarse = np.repeat(coarse, 3, axis) if letter in "YX" else coarse
        limit = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
        image = ImageFile((coarse[tuple(slice(n) for n in shape)] * limit).astype(dtype), axes, **known)
        write_image(path, image)
        return image

    return draw


@pytest.fixture
def one_thread():
    """More are slower for so small networks, and need not give the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(tiny_model):
    return tiny_model


@pytest.fixture
def source(tmp_path, rng):
    """A zarr array of 45 x 70 pixels in chunks of 16 x 16: at x2, 3 x 5 shards of 32 x 32."""
    image = rng.integers(0, 4096, (45, 70), np.uint16)
    array = zarr.create_array(tmp_path / "cells.zarr", shape=image.shape, chunks=(16, 16), dtype=image.dtype)
    array[:] = image
    return tmp_path / "cells.zarr"
