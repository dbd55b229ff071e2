"""Files of networks from strangers: nothing runs, and memory stays within what the file can hold."""

import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from vdsr_core import load_model

PEAK = """
import resource, sys
from vdsr_core import load_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_model(sys.argv[1])
except ValueError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


def arrays(width, depth=3):
    """Arrays of zeros; only their shapes take memory."""
    found = {}
    for number in range(depth):
        shape = (1 if number == depth - 1 else width, 1 if number == 0 else width, 3, 3)
        found[f"weight_{number:02d}"], found[f"bias_{number:02d}"] = (
            np.zeros(shape, np.float32),
            np.zeros(shape[0], "f4"),
        )
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured as on Unix")
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_small_file_takes_little_memory(tmp_path, kind):
    """A packed file of 150 MB of zeros; and one whose first layer claims what the others do not hold."""
    path = tmp_path / f"bomb.{kind}"
    if kind == "npz":
        np.savez_compressed(path, **arrays(2000))
        assert path.stat().st_size < 10**6
    else:
        short = {f"{name}_{number:02d}": np.zeros(1, np.float32) for name in ("weight", "bias") for number in range(3)}
        header = {"format": "1", "config": "{}", "scales": "[2]", "card": "{}"}
        save_file(short | {"weight_00": np.zeros((8000, 1, 3, 3), np.float32)}, path, header)
    run = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    kilobytes, message = run.stdout.split(" ", 1)
    assert int(kilobytes) < 50_000
    assert "must not grow much" in message or "must be of shape" in message


@pytest.mark.parametrize("key", ["config", "card", "scales"])
def test_deep_json_is_an_error(tmp_path, key):
    header = {"format": "1", "config": json.dumps({"depth": 3, "width": 4}), "scales": "[2]", "card": "{}"}
    save_file(arrays(4), tmp_path / "deep.safetensors", header | {key: "[" * 100_000 + "]" * 100_000})
    with pytest.raises(ValueError, match=r"deep\.safetensors"):
        load_model(tmp_path / "deep.safetensors")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a file ran')",)


@pytest.mark.parametrize("name", ["net.pth", "net.npz", "net.safetensors", "net.bioimageio.zip", "net.mat"])
@pytest.mark.parametrize("packed", [False, True])
def test_no_code_of_a_file_runs(tmp_path, name, packed):
    path = tmp_path / name
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Evil(), protocol=2))
            archive.writestr("archive/version", "3")
            archive.writestr("weight_00.npy", pickle.dumps(Evil()))
    else:
        path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="net"):
        load_model(path)
