import json
import math
import os
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vdsr_core import VDSR, ErrorTable, VDSRConfig, load_checkpoint, load_model, save_checkpoint
from vdsr_core.network.checkpoint import fingerprint, load_trainer, to_arrays
from vdsr_core.network.model import MAPS, make_model
from vdsr_core.network.pretrained import model_names, read_card


@pytest.fixture
def saved(tmp_path, tiny_model):
    tiny_model.scales, tiny_model.card = (2.0, 3.5), {"data": "none", "scores": {"Set5": [1.5]}}
    save_checkpoint(tmp_path / "m.safetensors", tiny_model)
    return tmp_path / "m.safetensors"


def header_of(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size])["__metadata__"]


def rewrite(path, model, **header):
    save_file(to_arrays(model), path, header_of(path) | header)


def test_saved_equals_loaded(saved, tiny_model):
    model = load_checkpoint(saved)
    assert (model.config, model.scales, model.card) == (tiny_model.config, tiny_model.scales, tiny_model.card)
    for a, b in zip(model.parameters(), tiny_model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_errors_are_saved(saved, tiny_model):
    table = ErrorTable((2.0, 4.0), ((0.0, 0.1),) * 2, ((0.0, 0.1), (0.0, 0.2)), ((0.0, 0.2), (0.0, 0.4)))
    tiny_model.errors = replace(table, noisy=((0.01, table), (0.1, table)), compressed=((0.3, table),))
    save_checkpoint(saved, tiny_model)
    assert load_checkpoint(saved).errors == tiny_model.errors
    assert "errors" not in read_card(saved)


@pytest.mark.parametrize(
    "errors",
    [
        "[]",
        "{}",
        '{"scales": [2], "detail": [[0, 1]], "mean": [[1, 0]], "bound": [[0, 1]]}',
        '{"scales": [2], "detail": [[0, 1]], "mean": [[0, 1]], "bound": [[0]]}',
        '{"scales": [2], "detail": [[0, 1]], "mean": [[0, 1]], "bound": [[0, Infinity]]}',
        '{"scales": [2, 3], "detail": [[0, 1]], "mean": [[0, 1]], "bound": [[0, 1]]}',
        '{"scales": [2], "detail": [[0, 1]], "mean": [[0, 1]], "bound": [[0, 1]], "noisy": [[0.1, {}]]}',
        '{"scales": ["a"], "detail": [[0, 1]], "mean": [[0, 1]], "bound": [[0, 1]]}',
    ],
)
def test_damaged_errors_are_named(saved, tiny_model, errors):
    rewrite(saved, tiny_model, errors=errors)
    with pytest.raises(ValueError, match=r"errors.* is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("shape", [{"fold": 2, "blocks": True}, {"fold": 3}, {"blocks": True}, {"residual": False}])
def test_shape_is_saved(tmp_path, shape):
    model = VDSR(VDSRConfig(4, 8, **shape))
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded, ilr = load_checkpoint(tmp_path / "m.safetensors"), torch.rand(1, 1, 7, 9)
    assert loaded.config == model.config
    assert torch.equal(loaded(ilr), model(ilr))


def test_files_from_before_fold_and_blocks_load_as_they_did(saved, tiny_model):
    rewrite(saved, tiny_model, config=json.dumps({"depth": 4, "width": 8}))
    ilr = torch.rand(1, 1, 7, 9)
    assert load_checkpoint(saved).config == VDSRConfig(4, 8)
    assert torch.equal(load_checkpoint(saved)(ilr), tiny_model(ilr))


def test_npz_arrays_equal_the_checkpoint(tmp_path, saved, tiny_model):
    np.savez(tmp_path / "m.npz", **{k: v.numpy() for k, v in to_arrays(tiny_model).items()})
    a, b = load_model(tmp_path / "m.npz"), load_model(saved)
    x = torch.rand(1, 1, 9, 9)
    assert torch.equal(a(x), b(x))


def test_interrupted_save_keeps_the_old_file(saved, tiny_model):
    before = saved.read_bytes()
    tiny_model.card = {"data": object()}
    with pytest.raises(TypeError):
        save_checkpoint(saved, tiny_model)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("size", [0, 5, 100, -10])
def test_truncated_file_is_named(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"m\.safetensors is not a safetensors file, or is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_text_file_is_named(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_text("these are not weights")
    with pytest.raises(ValueError, match=path.name):
        load_model(path)


def test_newer_format_is_named(saved, tiny_model):
    rewrite(saved, tiny_model, format="2")
    with pytest.raises(ValueError, match=r"has format 2; this version reads format 1\. Please update"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"config": "{"}, "an object in JSON as the config of its header, got {"),
        ({"config": '{"depth": 5, "width": 8}'}, "the network its header says"),
        ({"config": '{"depth": 4, "width": 8, "extra": 1}'}, "the network its header says"),
        ({"config": '{"depth": 4, "width": 8, "residual": "no"}'}, "`residual` must be True or False, got 'no'"),
        ({"scales": "3"}, "a list in JSON as the scales of its header, got 3"),
        ({"scales": '["a"]'}, "`scales` must be numbers, one for both axes, got 'a'"),
        ({"scales": "[2, -1]"}, "`scales` must be finite numbers, greater than 1, got -1"),
        ({"scales": "[NaN]"}, "`scales` must be finite numbers, greater than 1, got nan"),
        ({"card": "[1]"}, "an object in JSON as the card of its header, got [1]"),
        ({"card": "[]"}, "an object in JSON as the card of its header, got []"),
        ({"format": '"1"'}, 'an integer in JSON as the format of its header, got "1"'),
        ({"format": "true"}, "an integer in JSON as the format of its header, got true"),
    ],
)
def test_wrong_header_is_named(saved, tiny_model, header, message):
    rewrite(saved, tiny_model, **header)
    with pytest.raises(ValueError, match=rf"m\.safetensors must (have|hold) .*{re.escape(message)}.* It is damaged\."):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_damaged_state_of_a_training_is_named(saved, tiny_model, text):
    rewrite(saved, tiny_model, trainer=text)
    with pytest.raises(ValueError, match=r"m\.safetensors must have an object in JSON as the trainer of its header"):
        load_trainer(saved)


def test_a_folder_is_neither_loaded_nor_replaced(tmp_path, tiny_model):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    for load in (load_checkpoint, load_trainer):
        with pytest.raises(IsADirectoryError, match="folder must be a file, got a folder"):
            load(tmp_path / "folder")
    with pytest.raises(FileExistsError, match="folder must be a file to be replaced by one, got a folder"):
        save_checkpoint(tmp_path / "folder", tiny_model)
    assert os.listdir(tmp_path / "folder") == ["precious"]


def test_byte_order_of_arrays_does_not_matter(tmp_path, tiny_model):
    arrays = {name: value.numpy() for name, value in to_arrays(tiny_model).items()}
    np.savez(tmp_path / "m.npz", **{name: array.astype(">f4") for name, array in arrays.items()})
    for name, value in to_arrays(load_model(tmp_path / "m.npz")).items():
        np.testing.assert_array_equal(value, arrays[name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scales": (2, 0.5)}, ValueError, "`scales` must be finite numbers, greater than 1, got 0.5"),
        ({"card": []}, TypeError, "`model.card` must be a dict of what JSON holds, got list"),
        ({"card": {"a": object()}}, TypeError, "`model.card` must be a dict .* got one where .*object"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, tiny_model, change, error, message):
    vars(tiny_model).update(change)
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / "m.safetensors", tiny_model)
    with pytest.raises(TypeError, match="`model` must be a VDSR, got dict"):
        save_checkpoint(tmp_path / "m.safetensors", {})
    assert not os.listdir(tmp_path)


def test_file_of_another_program_is_no_checkpoint(tmp_path, tiny_model):
    save_file(to_arrays(tiny_model), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="must have config, scales, card and format in its header"):
        load_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_01": None}, "must hold weight_00, bias_00"),
        ({"extra": torch.zeros(3)}, "must hold weight_00, bias_00"),
        ({"weight_00": torch.zeros(8, 9)}, r"weights of shape \(out, in, 3, 3\)"),
        ({"weight_02": torch.zeros(8, 8, 5, 5)}, r"weight_02 must be of shape \(8, 8, 3, 3\)"),
        ({"bias_03": torch.zeros(1, dtype=torch.int32)}, "bias_03 must be of shape"),
        ({"bias_01": torch.full((8,), float("nan"))}, "bias_01 must be finite"),
    ],
)
def test_wrong_arrays_are_named(saved, tiny_model, change, message):
    arrays = {k: v for k, v in (to_arrays(tiny_model) | change).items() if v is not None}
    save_file(arrays, saved, header_of(saved))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(saved)


def test_claim_of_many_filters_costs_no_memory(tmp_path):
    arrays = {f"{kind}_{number:02d}": np.zeros(1, np.float32) for number in range(3) for kind in ("weight", "bias")}
    np.savez(tmp_path / "m.npz", **arrays | {"weight_00": np.zeros((400_000, 1, 3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"m\.npz: bias_00 must be of shape \(400000,\)"):
        load_model(tmp_path / "m.npz")


def test_weights_that_are_not_finite_do_not_replace_good_ones(tmp_path, tiny_model):
    save_checkpoint(tmp_path / "c.safetensors", tiny_model)
    expected = to_arrays(load_checkpoint(tmp_path / "c.safetensors"))["weight_01"]
    with torch.no_grad():
        tiny_model.convolutions[1].weight[0, 0] = math.inf
    with pytest.raises(ValueError, match="`model` must hold finite weights, got NaN or infinity in weight_01"):
        save_checkpoint(tmp_path / "c.safetensors", tiny_model)
    assert torch.equal(to_arrays(load_checkpoint(tmp_path / "c.safetensors"))["weight_01"], expected)


def test_default_network_is_embedded_with_its_card():
    model = load_model()
    assert model.config == VDSRConfig(fold=2, blocks=True, maps=("scale",))
    assert model.scales == (1.25, 1.5, 2, 2.5, 3, 4)
    assert {"name", "data", "recipe", "terms", "scores"} <= set(model.card)
    assert model_names()[0] == model.card["name"]


def test_every_embedded_network_tells_its_scores():
    for name in model_names():
        model = load_model(name)
        assert model.card["name"] == name
        assert {f"{scale:g}" for scale in model.scales} <= set(model.card["scores"]["Set14"])


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=rf"`model` must be one of {', '.join(model_names())} or a file, got 'nope'"):
        load_model("nope")
    with pytest.raises(TypeError, match="`model` must be a VDSR, a name, a path or None, got int"):
        load_model(3)
    with pytest.raises(TypeError, match="`model` must be a VDSR, a name, a path or None, got bytes"):
        load_model(b"photo")


def test_card_and_scales_are_each_models_own():
    a, b = VDSR(VDSRConfig(2, 1)), VDSR(VDSRConfig(2, 1))
    a.card["name"] = "a"
    assert b.card == {}


def test_non_residual_network_is_saved_as_such_and_files_without_the_word_are_residual(tmp_path, tiny_model):
    for residual in (False, True):
        model = VDSR(VDSRConfig(4, 8, residual=residual))
        save_checkpoint(tmp_path / "c.safetensors", model)
        assert load_checkpoint(tmp_path / "c.safetensors").config == model.config
    assert load_model("photo").config.residual


@pytest.mark.parametrize("path", [None, 5, b"a.safetensors"])
def test_a_path_that_is_none_is_named(path, tiny_model):
    with pytest.raises(TypeError, match="`path` must be a str or a path, got"):
        load_checkpoint(path)
    with pytest.raises(TypeError, match="`path` must be a str or a path, got"):
        save_checkpoint(path, tiny_model)


def test_read_card_gives_what_the_network_has(tmp_path, tiny_model):
    tiny_model.card = {"name": "tiny", "summary": "small"}
    save_checkpoint(tmp_path / "tiny.safetensors", tiny_model)
    maps = make_model(0, VDSRConfig(4, 8, maps=("compression",)))
    save_checkpoint(tmp_path / "maps.safetensors", maps)
    for name in (tmp_path / "tiny.safetensors", tmp_path / "maps.safetensors", None, *model_names()):
        model = load_model(name)
        assert read_card(name) == {**model.card, "scales": list(model.scales), "maps": list(model.maps)}


def test_a_restorer_is_kept_and_changes_the_pixels(saved, tiny_model):
    alone = fingerprint(tiny_model)
    tiny_model.restorer = "restore"
    save_checkpoint(saved, tiny_model)
    loaded = load_checkpoint(saved)
    assert loaded.restorer == "restore"
    assert loaded.maps == MAPS != loaded.config.maps
    assert read_card(saved)["maps"] == list(MAPS)
    assert fingerprint(loaded) == fingerprint(tiny_model) != alone


def test_a_restorer_that_is_not_here_is_neither_saved_nor_loaded(saved, tiny_model):
    before = saved.read_bytes()
    tiny_model.restorer = "../restore"
    with pytest.raises(ValueError, match=r"`restorer` must be one of photo, .*, got '\.\./restore'\. Update"):
        save_checkpoint(saved, tiny_model)
    assert saved.read_bytes() == before
    tiny_model.restorer = None
    rewrite(saved, tiny_model, restorer='"../restore"')
    with pytest.raises(ValueError, match=r"`restorer` must be one of photo, .*, got '\.\./restore'\. Update"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", model_names())
def test_embedded_restorers_see_as_far_as_their_networks(name):
    model = load_model(name)
    other = model if model.restorer is None else load_model(model.restorer)
    assert (other.halo, other.config.fold, other.restorer) == (model.halo, model.config.fold, None)
    assert set(model.maps) <= set(other.config.maps)


def test_read_card_refuses_what_is_not_a_network(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must be a network that this package saved"):
        read_card(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        read_card(tmp_path / "b.safetensors")


@pytest.mark.parametrize("maps", [("noise",), ("compression",), ("noise", "compression")])
def test_maps_are_kept(tmp_path, maps):
    model = VDSR(VDSRConfig(4, 8, fold=2, maps=maps))
    save_checkpoint(tmp_path / "maps.safetensors", model)
    loaded = load_checkpoint(tmp_path / "maps.safetensors")
    assert loaded.config == model.config
    ilr, conditions = torch.rand(1, 1, 8, 8), torch.rand(1, 4)
    assert torch.equal(loaded.residual(ilr, conditions), model.residual(ilr, conditions))


def test_any_length_of_a_header_is_read(tmp_path, tiny_model):
    """A file begins with the length of its header: 0x80 in its first byte is that of a pickle, too."""
    path, seen = tmp_path / "tiny.safetensors", set()
    for length in range(0, 264, 8):
        tiny_model.card = {"name": "x" * length}
        save_checkpoint(path, tiny_model)
        seen.add(path.read_bytes()[0])
        assert load_model(path).card == tiny_model.card
    assert 0x80 in seen
