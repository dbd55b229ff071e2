import gc
import json
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig, load_model, save_bioimageio
from vdsr_core.network.bioimageio_file import PERCENTILES
from vdsr_core.network.checkpoint import fingerprint
from vdsr_core.network.onnx_file import find_halo

pytest.importorskip("onnx")
# The warnings are those of other packages.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def close_files():
    """Files that other packages have left open are closed here, not in a later test."""
    yield
    gc.collect()


CASES = {
    "interpolated": (VDSRConfig(4, 8), {}),
    "x2": (VDSRConfig(4, 8), {"scale": 2, "in_range": (100, 2000)}),
    "folded x3": (VDSRConfig(4, 8, fold=2, blocks=True), {"scale": 3, "authors": ["A. Smith"], "license": "CC0-1.0"}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A package, its network, and the options that it was written with."""
    config, options = CASES[request.param]
    torch.manual_seed(0)
    model = VDSR(config, card={"name": "test: 1", "data": "none", "recipe": "none", "terms": "ask me"})
    path = tmp_path_factory.mktemp("package") / "net.bioimageio.zip"
    image = np.random.default_rng(0).uniform(100, 2000, (40, 50))
    save_bioimageio(path, model, image=image, **options)
    return path, model, options


def test_package_is_read_back_as_the_same_network(case):
    path, model, _ = case
    loaded = load_model(path)
    assert fingerprint(loaded) == fingerprint(model)
    assert (loaded.scales, loaded.card, loaded.config) == (model.scales, model.card, model.config)


def test_description_is_valid_and_says_what_is_known(case):
    spec = pytest.importorskip("bioimageio.spec")
    path, model, options = case
    description = spec.load_description(path)
    assert description.validation_summary.status in ("passed", "valid-format")
    assert description.name.startswith("VDSR test- 1")
    assert [str(cite.doi) for cite in description.cite] == ["10.1109/CVPR.2016.182"]
    rows = description.outputs[0].axes[2]
    assert rows.halo == find_halo(model, options.get("scale"))
    said = json.loads(ZipFile(path).read("rdf.yaml"))
    names = set(ZipFile(path).namelist())
    assert said["license"] == options.get("license", {"source": "LICENSE.md"})
    assert ("license" in options) != ("LICENSE.md" in names)
    assert {"README.md", "cover.png", "network.safetensors", "weights.onnx"} <= names


def test_its_own_test_passes(case):
    core = pytest.importorskip("bioimageio.core")
    summary = core.test_model(case[0])
    assert summary.status == "passed", summary.format()


def test_tiles_equal_the_whole(case):
    """By the program that runs the model zoo: blocks with the halo, at the places that the description allows."""
    core = pytest.importorskip("bioimageio.core")
    image = np.random.default_rng(0).uniform(100, 2000, (1, 1, 60, 54)).astype(np.float32)
    description = core.load_model_description(case[0])
    name = description.inputs[0].id
    whole, tiled = (
        core.predict(model=description, inputs={name: image}, blocksize_parameter=size).members["sr"].data.values
        for size in (None, 6)
    )
    assert tiled.shape == whole.shape
    np.testing.assert_allclose(tiled, whole, atol=1e-4 * np.ptp(whole))


def test_result_in_units_equals_super_resolve(case):
    core = pytest.importorskip("bioimageio.core")
    from vdsr_core import super_resolve

    path, model, options = case
    image = np.random.default_rng(0).uniform(100, 2000, (60, 54)).astype(np.float32)
    if "scale" not in options:
        pytest.skip("its input is interpolated already")
    description = core.load_model_description(path)
    sr = core.predict(model=description, inputs={"image": image[None, None]}).members["sr"].data.values[0, 0]
    low, high = options.get("in_range") or np.percentile(image, PERCENTILES)
    margin = 0 if "in_range" in options else 0.25 * (high - low)
    expected = super_resolve(image, options["scale"], model=model, in_range=(low - margin, high + margin), device="cpu")
    if "in_range" not in options:
        expected = (expected - low) / (high - low)
    halo = find_halo(model, options["scale"])  # that program mirrors images at their edges
    inner = (slice(halo, -halo), slice(halo, -halo))
    np.testing.assert_allclose(sr[inner], expected[inner], atol=1e-4 * np.ptp(expected))


def test_wrong_image_is_named(tmp_path, tiny_model):
    with pytest.raises(ValueError, match=r"`image` must have two axes, rows and columns, got shape \(2, 9, 9\)"):
        save_bioimageio(tmp_path / "net.bioimageio.zip", tiny_model, image=np.zeros((2, 9, 9)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (40, 9)])
def test_small_images_are_enlarged_for_the_test(tmp_path, tiny_model, shape):
    path = tmp_path / "net.bioimageio.zip"
    save_bioimageio(path, tiny_model, image=np.arange(np.prod(shape)).reshape(shape), scale=2, in_range=(0, 100))
    with ZipFile(path) as archive, archive.open("input.npy") as stream:
        assert min(np.load(stream).shape[2:]) >= 9


def test_damaged_package_is_named(case, tmp_path):
    path = tmp_path / "net.bioimageio.zip"
    with ZipFile(case[0]) as whole, ZipFile(path, "w") as archive:
        archive.writestr("network.safetensors", whole.read("network.safetensors")[:100])
    with pytest.raises(ValueError, match=r"network\.safetensors is not a safetensors file, or is damaged"):
        load_model(path)
