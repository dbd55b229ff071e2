import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig, save_onnx, super_resolve
from vdsr_core.network import onnx_file
from vdsr_core.network.checkpoint import to_arrays
from vdsr_core.network.onnx_file import find_halo, make_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONFIGS = {
    "plain": VDSRConfig(4, 8),
    "direct": VDSRConfig(4, 8, residual=False),
    "folded": VDSRConfig(4, 8, fold=2),
    "blocks": VDSRConfig(4, 8, fold=3, blocks=True),
    "maps": VDSRConfig(4, 8, fold=2, blocks=True, maps=("scale", "noise", "compression")),
    "one map": VDSRConfig(4, 8, maps=("compression",)),
}
SIDES = st.integers(1, 40)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    model = VDSR(CONFIGS[request.param])
    for layer in model.convolutions:
        torch.nn.init.normal_(layer.bias, std=0.1)
    return model


@pytest.fixture(scope="module")
def run(model):
    """Runs the graph of the network in ONNX Runtime; a session for each set of options."""
    sessions = {}

    def run(image, **options):
        if (key := str(options)) not in sessions:
            data = make_graph(model, **options).SerializeToString()
            sessions[key] = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (given,) = sessions[key].get_inputs()
        (sr,) = sessions[key].run(None, {given.name: image.astype(np.float32)})
        return sr

    return run


@given(st.integers(1, 3), SIDES, SIDES)
def test_onnx_runtime_equals_pytorch(run, model, batch, rows, columns):
    ilr = np.random.default_rng(0).random((batch, 1, rows, columns), np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ilr)).numpy()
    np.testing.assert_allclose(run(ilr), expected, atol=1e-5, rtol=1e-5)


@given(st.floats(-0.1, 0.1), st.floats(-0.01, 0.01), st.floats(0, 0.2), st.floats(1, 8), SIDES, SIDES)
def test_maps_equal_those_of_pytorch(gain, offset, compression, scale, rows, columns):
    torch.manual_seed(0)
    model = VDSR(CONFIGS["maps"])
    session = onnxruntime.InferenceSession(make_graph(model).SerializeToString(), providers=["CPUExecutionProvider"])
    ilr = np.random.default_rng(0).random((2, 1, rows, columns), np.float32)
    conditions = np.array([[gain, offset, compression, scale], [0, 1e-3, 0.1, 3]], np.float32)
    told = {"scale": conditions[:, 3], "noise": conditions[:, :2], "compression": conditions[:, 2]}
    (sr,) = session.run(None, {"ilr": ilr} | told)
    with torch.inference_mode():
        expected = ilr + model.residual(torch.from_numpy(ilr), torch.from_numpy(conditions)).numpy()
    np.testing.assert_allclose(sr, expected, atol=1e-5, rtol=1e-5)


@given(st.integers(2, 4), SIDES, SIDES)
def test_with_the_interpolation_it_equals_super_resolve(run, model, scale, rows, columns):
    image = np.random.default_rng(0).uniform(100, 4000, (rows, columns)).astype(np.float32)
    expected = super_resolve(image, scale, model=model, in_range=(100, 4000), noise=0, device="cpu")
    sr = run(image[None, None], scale=scale, in_range=(100, 4000))[0, 0]
    if image.size > 1:  # a constant image does not pass the network in `super_resolve`
        np.testing.assert_allclose(sr, expected, atol=1e-4 * 3900)
    assert sr.shape == expected.shape


@given(st.integers(2, 3), st.integers(2, 30), st.integers(2, 30))
def test_colour_equals_super_resolve(run, model, scale, rows, columns):
    image = np.random.default_rng(0).random((rows, columns, 3), np.float32)
    options = {"model": model, "rgb": True, "in_range": (0, 1), "noise": 0, "device": "cpu"}
    expected = super_resolve(image, scale, **options)
    sr = run(np.moveaxis(image, -1, 0)[None], scale=scale, rgb=True)
    np.testing.assert_allclose(np.moveaxis(sr[0], 0, -1), expected, atol=1e-4)


@pytest.mark.parametrize("scale", [None, 2, 3])
def test_halo_is_what_a_tile_needs(run, model, scale):
    ratio, fold = scale or 1, model.config.fold
    halo, grid = find_halo(model, scale), ratio * fold  # windows begin where a square of the folding begins
    cut, side = 3 * grid, 2 * halo + 6 * grid
    image = np.random.default_rng(0).random((1, 1, side // ratio, side // ratio), np.float32)
    options = {} if scale is None else {"scale": scale}
    whole, part = run(image, **options), run(image[..., cut // ratio :, cut // ratio :], **options)
    valid = halo + (-halo) % fold
    np.testing.assert_allclose(part[..., valid:, valid:], whole[..., cut + valid :, cut + valid :], atol=1e-5)
    edge = part[..., : halo // 2, : halo // 2] - whole[..., cut : cut + halo // 2, cut : cut + halo // 2]
    assert np.abs(edge).max() > 1e-3


def test_file_holds_the_weights_and_what_is_known(tmp_path, model):
    model.card = {"name": "test", "terms": "none"}
    path = tmp_path / "net.onnx"
    assert save_onnx(path, model, scale=2, in_range=(0, 255)) < 1e-5
    loaded = onnx.load(path)
    said = {entry.key: json.loads(entry.value) for entry in loaded.metadata_props}
    assert (said["scales"], said["card"], said["range"]) == (list(model.scales), model.card, [0, 255])
    assert said["halo"] == find_halo(model, 2)
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in loaded.graph.initializer}
    for name, value in to_arrays(model).items():
        np.testing.assert_array_equal(arrays[name], value.numpy())


def test_another_dtype_and_device_are_left_as_they_are(tmp_path, tiny_model):
    save_onnx(tmp_path / "net.onnx", tiny_model.double())
    assert tiny_model.convolutions[0].weight.dtype == torch.float64


def test_graph_that_differs_from_pytorch_is_not_written(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(onnx_file, "AGREEMENT", -1)
    with pytest.raises(RuntimeError, match="must agree with PyTorch, got a difference of"):
        save_onnx(tmp_path / "net.onnx", tiny_model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": 1}, ValueError, "`scale` must be .* at least 2, got 1"),
        ({"scale": 2.5}, TypeError, "`scale` must be .* got 2.5"),
        ({"in_range": (3, 3)}, ValueError, "`in_range` must be two finite numbers, low < high"),
    ],
)
def test_wrong_options_are_named(tmp_path, tiny_model, options, error, message):
    with pytest.raises(error, match=message):
        save_onnx(tmp_path / "net.onnx", tiny_model, **options)
    with pytest.raises(TypeError, match="`model` must be a VDSR, got dict"):
        save_onnx(tmp_path / "net.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"scale": 2}, {"scale": 3, "rgb": True}])
def test_openvino_equals_onnx_runtime(run, model, options):
    openvino = pytest.importorskip("openvino")
    data = make_graph(model, **options).SerializeToString()
    compiled = openvino.compile_model(openvino.Core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rng = np.random.default_rng(0)
    for rows, columns in ((1, 1), (2, 3), (17, 24), (31, 9)):
        image = rng.random((2, 3 if options.get("rgb") else 1, rows, columns), np.float32)
        (sr,) = compiled(image).values()
        np.testing.assert_allclose(sr, run(image, **options), atol=1e-4)


def test_without_onnx_it_says_what_to_install(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'napari-vdsr\[export\]'"):
        save_onnx(tmp_path / "net.onnx", tiny_model)
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: name == "onnx")
    assert save_onnx(tmp_path / "net.onnx", tiny_model) is None
