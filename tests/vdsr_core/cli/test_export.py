import json
from zipfile import ZipFile

import pytest

from vdsr_core import load_model
from vdsr_core.network.checkpoint import fingerprint

onnx = pytest.importorskip("onnx")


def test_export_writes_onnx_and_says_how_it_compares(vdsr, network, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    result = vdsr("export", network, "-o", path, "--scale", 2, "--in-range", 0, 255, model=None)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{path}  ONNX Runtime differs from PyTorch by ")
    said = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert (said["scale"], said["range"]) == (2, [0, 255])


def test_export_to_safetensors_is_the_same_network(vdsr, network, tmp_path):
    path = tmp_path / "net.safetensors"
    assert vdsr("export", network, "-o", path, model=None).exit_code == 0
    assert fingerprint(load_model(path)) == fingerprint(load_model(network))


def test_export_keeps_what_exists(vdsr, network, tmp_path):
    path = tmp_path / "net.onnx"
    path.touch()
    result = vdsr("export", network, "-o", path, model=None)
    assert result.exit_code == 1
    assert "net.onnx exists" in result.stderr
    assert not path.read_bytes()
    assert vdsr("export", network, "-o", path, "--overwrite", model=None).exit_code == 0
    assert path.read_bytes()


def test_export_writes_a_package_with_authors_and_licence(vdsr, network, tmp_path):
    path = tmp_path / "net.bioimageio.zip"
    words = ("--author", "A. Smith", "--author", "B. Jones", "--license", "CC-BY-4.0")
    result = vdsr("export", network, "-o", path, "--scale", 2, *words, model=None)
    assert result.exit_code == 0, result.stderr
    said = json.loads(ZipFile(path).read("rdf.yaml"))
    assert [author["name"] for author in said["authors"]] == ["A. Smith", "B. Jones"]
    assert said["license"] == "CC-BY-4.0"
    assert fingerprint(load_model(path)) == fingerprint(load_model(network))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "net.pb"), "must end in .onnx, .bioimageio.zip, .safetensors, got net.pb"),
        (("-o", "net.safetensors", "--scale", "2"), "--scale: cannot be used for .safetensors"),
        (("-o", "net.bioimageio.zip", "--rgb"), "--rgb: cannot be used for .bioimageio.zip"),
        (("-o", "net.onnx", "--license", "MIT"), "--license: cannot be used for .onnx"),
        (("-o", "net.onnx", "--scale", "1"), "--scale"),
    ],
)
def test_wrong_command_line_is_named(vdsr, network, words, message, folder):
    result = vdsr("export", network, *words, model=None)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("'", "").split())
    assert not list(folder.iterdir())
