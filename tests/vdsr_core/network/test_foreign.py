"""Networks that other programs saved, and files that try to run code."""

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import savemat
from torch import nn

from vdsr_core import VDSR, VDSRConfig, evaluate, load_model, psnr, resize, save_checkpoint
from vdsr_core.network.checkpoint import to_arrays


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.conv(x))


class InputLast(nn.Module):
    """Names and order as in a common repository: the first layer stands behind the hidden ones, and none has a bias."""

    def __init__(self, depth=20, width=8):
        super().__init__()
        self.residual_layer = nn.Sequential(*(Block(width) for _ in range(depth - 2)))
        self.input = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.output = nn.Conv2d(width, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.output(self.residual_layer(torch.relu(self.input(x))))


class Trunk(nn.Module):
    """Names as in another one: the first layer in a sequence."""

    def __init__(self, depth=12, width=8):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.ReLU(True))
        self.trunk = nn.Sequential(*(Block(width) for _ in range(depth - 2)))
        self.conv2 = nn.Conv2d(width, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.conv2(self.trunk(self.conv1(x)))


class Plain(nn.Module):
    """A sequence, with biases."""

    def __init__(self, depth=5, width=8):
        super().__init__()
        widths = [1, *[width] * (depth - 1), 1]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        self.net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))

    def forward(self, x):
        return x + self.net[:-1](x)


@pytest.fixture(params=[InputLast, Trunk, Plain])
def net(request):
    torch.manual_seed(0)
    net = request.param()
    for parameter in net.parameters():
        if parameter.ndim == 4:  # so that all layers matter
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return net


def check_same(path, net):
    """The file gives what the network gives that it was saved from."""
    model, ilr = load_model(path), torch.rand(2, 1, 19, 26)
    with torch.inference_mode():
        assert (net(ilr) - ilr).abs().max() > 0.01
        torch.testing.assert_close(model(ilr), net(ilr), atol=1e-5, rtol=1e-5)
    return model


def test_state_dict_is_the_network_it_was_saved_from(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    model = check_same(tmp_path / "net.pth", net)
    assert (model.scales, model.card["name"], model.card["data"]) == ((), "net", "not known")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    check_same(tmp_path / "old.pt", net)
    torch.save(nn.DataParallel(net).state_dict(), tmp_path / "parallel.pth.tar")
    check_same(tmp_path / "parallel.pth.tar", net)


@pytest.mark.parametrize("key", ["state_dict", "model", "params_ema", "net"])
def test_state_dict_is_found_in_a_checkpoint(tmp_path, net, key):
    other = {"epoch": 3, "optimizer": {"state": {0: torch.rand(3)}}, "loss": torch.tensor(0.5), "scale": 3}
    torch.save(other | {key: net.state_dict()}, tmp_path / "net.ckpt")
    assert check_same(tmp_path / "net.ckpt", net).scales == (3.0,)


def test_arrays_in_other_files(tmp_path, net):
    state = net.state_dict()
    save_file(dict(sorted(state.items())), tmp_path / "net.safetensors")
    check_same(tmp_path / "net.safetensors", net)
    np.savez(tmp_path / "net.npz", **{name: array.numpy() for name, array in state.items()})
    check_same(tmp_path / "net.npz", net)


def test_score_is_that_of_the_network_it_was_saved_from(tmp_path):
    net = InputLast()
    with torch.no_grad():
        net.output.weight *= 0.1
    torch.save({"model": net.state_dict()}, tmp_path / "net.pth")
    rng = np.random.default_rng(0)
    image = np.rint(resize(rng.uniform(40, 200, (12, 15)), 4)).astype(np.uint8)
    (_, ours) = evaluate(load_model(tmp_path / "net.pth"), [("random", image)], [2.0], device="cpu")
    ilr = np.clip(resize(resize(image.astype(float), 0.5), 2), 16, 235)
    with torch.inference_mode():
        sr = net(torch.from_numpy(ilr / 255).float()[None, None])[0, 0].double().numpy()
    expected = psnr(image, np.rint(np.clip(sr * 255, 16, 235)).astype(np.uint8), data_range=255, crop_border=2)
    assert ours.psnr == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("biases", [True, False])
def test_matlab_file_of_the_published_network(tmp_path, tiny_model, biases):
    arrays = {name: array.numpy() for name, array in to_arrays(tiny_model).items()}
    model = {"weight": np.empty((1, 4), object), "bias": np.empty((1, 4), object)}
    for number in range(4):  # MATLAB drops the last axis of the last filters, of length 1
        filters = arrays[f"weight_{number:02d}"].transpose(2, 3, 1, 0)
        model["weight"][0, number] = filters[..., 0] if number == 3 else filters
        model["bias"][0, number] = arrays[f"bias_{number:02d}"][:, None] + biases * np.float32(0.1)
    savemat(tmp_path / "net.mat", {"model": model if biases else {"weight": model["weight"]}, "epoch": 80.0})
    loaded = to_arrays(load_model(tmp_path / "net.mat"))
    for name, array in arrays.items():
        expected = array + biases * np.float32(0.1) if name.startswith("bias") else array
        np.testing.assert_array_equal(loaded[name].numpy(), expected)


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_bomb(kind, path, ran, state):
    """A file that makes the folder `ran` when it is unpickled."""
    bomb = Bomb(ran)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif kind == "old pickle":
        path.write_bytes(pickle.dumps(bomb, protocol=0))
    elif kind == "npz":
        with path.open("wb") as stream:
            np.savez(stream, weight_00=np.array([bomb], object))
    elif kind == "npz and more":
        with path.open("wb") as stream:
            np.savez(stream, **{name: array.numpy() for name, array in state.items()}, extra=np.array([bomb], object))
    else:
        torch.save(state | {"bomb": bomb}, path, _use_new_zipfile_serialization=kind == "torch")


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors", ".mat", ".bioimageio.zip"])
@pytest.mark.parametrize("kind", ["pickle", "old pickle", "torch", "old torch", "npz", "npz and more"])
def test_no_code_is_run(tmp_path, kind, suffix):
    path, ran = tmp_path / f"bomb{suffix}", tmp_path / "ran"
    write_bomb(kind, path, ran, Plain().state_dict())
    with pytest.raises(ValueError, match="bomb") as refused:
        load_model(path)
    assert not ran.exists()
    if kind in ("pickle", "torch", "old torch"):
        assert "`posix.mkdir`" in str(refused.value) or "`nt.mkdir`" in str(refused.value)


def test_whole_module_is_refused_by_its_name(tmp_path):
    torch.save({"epoch": 50, "model": Plain()}, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"whole.pth must hold tensors alone, got a pickle that calls `.*Plain`"):
        load_model(tmp_path / "whole.pth")


def test_dict_that_holds_itself_ends(tmp_path):
    loop = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    with pytest.raises(ValueError, match=r"loop.pth must hold a state dict"):
        load_model(tmp_path / "loop.pth")


def zip_of(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(
                zipfile.ZipInfo(name), b"1"
            )  # without the time of day: all test processes name a test alike
    return data.getvalue()


def tar_of_nothing():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("net.onnx", b"\x08\x07", "got an ONNX file"),
        ("net.pt", zip_of("net/code/__torch__.py", "net/data.pkl", "net/constants.pkl"), "got a TorchScript program"),
        ("net.zip", zip_of("rdf.yaml", "weights.pt"), "got a BioImage.IO package of another program"),
        ("net.zip", zip_of("a.txt"), "got a zip archive: unpack it first"),
        ("net.zip", zip_of("a.txt")[:-30], "is a damaged zip archive"),
        ("net.h5", b"\x89HDF\r\n\x1a\n", "got an HDF5 file"),
        ("net.mat", b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "save it with `-v7`"),
        ("net.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "is not a MATLAB file, or is damaged"),
        ("net.pth", tar_of_nothing(), "got a tar archive"),
        ("net.pth", b"<!DOCTYPE html>", "got a web page"),
        ("net.pth", b"version https://git-lfs.github.com/spec/v1", "got a pointer of Git LFS"),
        ("net.pth", b"\x89PNG\r\n\x1a\n", "got a PNG image"),
        ("net.pth", b"\x80\x02", "is not a file of `torch.save`, or is damaged"),
        ("net.pth", b"", "is not a safetensors file, or is damaged"),
        ("net.pth", b"\xff" * 8 + b"{" * 100, "is not a safetensors file, or is damaged"),
        ("net.pth", b"\0\1" + b"\0" * 6 + b"{" + b"[" * 255, "is not a safetensors file, or is damaged"),
    ],
)
def test_what_else_a_file_is(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as refused:
        load_model(tmp_path / name)
    assert name in str(refused.value)


def filters(*shape):
    return torch.zeros(shape)


GOOD = {"a.weight": filters(8, 1, 3, 3), "b.weight": filters(8, 8, 3, 3), "c.weight": filters(1, 8, 3, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.weight": filters(8, 3, 3, 3)}, r"got a.weight of shape \(8, 3, 3, 3\), c.weight"),
        ({"b.weight": filters(8, 8, 5, 5)}, r"got b.weight of shape \(8, 8, 5, 5\)"),
        ({"b.running_mean": filters(8)}, r"got b.running_mean of shape \(8,\)"),
        ({"d.weight": filters(1, 8, 3, 3)}, r"got a.weight of shape .*, c.weight of shape"),
        ({"a.weight": None}, r"got c.weight of shape"),
        ({"c.weight": filters(1, 4, 3, 3)}, "weight_02 must be of shape"),
        ({"b.bias": filters(4)}, "bias_01 must be of shape"),
        ({"b.weight": filters(1).expand(8, 8, 3, 3)}, "b.weight must hold all its values"),
        ({"b.weight": torch.full((8, 8, 3, 3), float("nan"))}, "weight_01 must be finite"),
        ({"b.weight": filters(8, 8, 3, 3).to_sparse()}, "b.weight must hold all its values"),
        ({"b.weight": 3}, "must hold a state dict, itself or as one of .*, got a dict of 'a.weight'"),
        (dict.fromkeys(GOOD), "must hold a state dict, itself or as one of .*, got a dict of "),
    ],
)
def test_another_network_is_named(tmp_path, change, message):
    path = tmp_path / "net.pth"
    torch.save(OrderedDict((k, v) for k, v in (GOOD | change).items() if v is not None), path)
    with pytest.raises(ValueError, match=message) as refused:
        load_model(path)
    assert str(path) in str(refused.value)


def test_foreign_network_is_saved_as_ours(tmp_path):
    torch.save(GOOD, tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth")
    save_checkpoint(tmp_path / "net.safetensors", model)
    again = load_model(tmp_path / "net.safetensors")
    assert (again.config, again.card, again.scales) == (VDSRConfig(3, 8), model.card, ())
    assert isinstance(again, VDSR)
