import numpy as np
import pytest

pytest.importorskip("napari")
from magicgui import magic_factory
from napari.layers import Image, Layer

from napari_vdsr import upscale_layer
from vdsr_core import find_range, save_checkpoint, super_resolve


@pytest.fixture
def network(tmp_path, tiny_model):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, tiny_model)
    return str(path)


@pytest.fixture
def layer(rng):
    stack = rng.integers(0, 4000, (3, 20, 24)).astype(np.uint16)
    return Image(stack, name="cells", scale=(1, 0.5, 0.25), translate=(0, 3, 4), colormap="green", axis_labels="tyx")


def test_upscale_layer_is_super_resolve_on_top_of_its_source(layer, network):
    result = Layer.create(*upscale_layer(layer, 2, model=network))
    assert result.name == "cells [VDSR tiny x2]"
    assert result.colormap.name == "green"
    assert result.metadata["vdsr"]["in_range"] == find_range(layer.data)
    np.testing.assert_array_equal(result.data, super_resolve(layer.data, 2, model=network))
    np.testing.assert_allclose(result.data_to_world((-0.5,) * 3), layer.data_to_world((-0.5,) * 3))


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("option", ["part", "lazy", "target"])
def test_options_give_the_same_pixels(layer, network, tmp_path, option, best):
    whole = super_resolve(layer.data, 2, model=network, self_ensemble=best).astype(int)
    part = (slice(1, 2), slice(4, 15), slice(6, 20))
    given = {"part": part, "lazy": True, "target": str(tmp_path / "cells.ome.zarr")}[option]
    data, keywords, _ = upscale_layer(layer, 2, model=network, self_ensemble=best, **{option: given})
    finest = np.asarray(data[0] if keywords["multiscale"] else data)
    expected = whole[1:2, 8:30, 12:40] if option == "part" else whole
    np.testing.assert_allclose(finest, expected, rtol=0, atol=1)
    corner = [span.start - 0.5 for span in part] if option == "part" else [-0.5] * 3
    np.testing.assert_allclose(Layer.create(data, keywords).data_to_world((-0.5,) * 3), layer.data_to_world(corner))


def test_a_layer_that_cannot_be_upscaled_is_named():
    with pytest.raises(ValueError, match="“narrow” has planes of 12"):
        upscale_layer(Image(np.zeros((12, 3)), name="narrow"))


def test_magic_factory_makes_a_widget_of_it(qtbot):
    made = magic_factory(upscale_layer)()
    qtbot.addWidget(made.native)
    assert {widget.name for widget in made if widget.visible or not widget.gui_only} >= {"layer", "scale", "model"}
    assert made.model.choices[:1] == (None,)
    assert "microscopy" in made.model.choices
    assert made.scale.value == 2
