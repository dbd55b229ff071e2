import os

import numpy as np
import pytest
import torch

pytest.importorskip("platformdirs")
from napari_vdsr.models.library import (
    check_name,
    delete_model,
    export_model,
    find_model,
    free_name,
    import_model,
    list_models,
    list_networks,
    models_folder,
    rename_model,
    save_model,
)
from vdsr_core import load_checkpoint, model_names, save_checkpoint, super_resolve
from vdsr_core.network.checkpoint import to_arrays


def test_saved_listed_renamed_exported_deleted(tiny_model, tmp_path):
    image = np.random.default_rng(0).random((12, 10))
    assert list_models() == {}
    tiny_model.card = {"summary": "small"}
    expected = super_resolve(image, 2, model=tiny_model)
    path = save_model(tiny_model, "my Cells 2.5")
    save_model(tiny_model, "Beads")
    assert list(list_models()) == ["Beads", "my Cells 2.5"]
    assert load_checkpoint(path).card == {"summary": "small", "name": "my Cells 2.5"}
    renamed = rename_model("my Cells 2.5", "My cells")
    assert list(list_models()) == ["Beads", "My cells"]
    assert load_checkpoint(renamed).card["name"] == "My cells"
    rename_model("My cells", "my cells")
    export_model("my cells", tmp_path / "out.safetensors")
    delete_model("my cells")
    assert list(list_models()) == ["Beads"]
    np.testing.assert_array_equal(super_resolve(image, 2, model=tmp_path / "out.safetensors"), expected)
    assert [entry.name for entry in models_folder().iterdir()] == ["Beads.safetensors"]


@pytest.mark.parametrize("where", ["os.replace", "vdsr_core.save_checkpoint"])
def test_a_renaming_that_is_interrupted_can_be_repeated(tiny_model, monkeypatch, where):
    save_model(tiny_model, "old")
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            rename_model("old", "new")
    assert list(list_models()) == ["old"]
    assert load_checkpoint(rename_model("old", "new")).card["name"] == "new"
    assert [entry.name for entry in models_folder().iterdir()] == ["new.safetensors"]


def interrupt(source, target, replace=os.replace):
    """End like Ctrl-C, but not where the file of the old name is replaced."""
    if not str(source).endswith(".safetensors") or not str(target).endswith("old.safetensors"):
        raise KeyboardInterrupt
    replace(source, target)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must begin and end"),
        (" x", "must begin and end"),
        (".x", "must begin and end"),
        ("a/b", "leave out /"),
        ("a:b?", r"leave out : \?"),
        ("a\nb", "leave out"),
        ("x" * 81, "81 characters"),
        ("CELLS", "There is a model “CELLS” already: choose another name, such as “CELLS 2”"),
    ],
)
def test_names_that_cannot_be(tiny_model, name, message):
    save_model(tiny_model, "cells")
    with pytest.raises((ValueError, FileExistsError), match=message):
        check_name(name)
    with pytest.raises((ValueError, FileExistsError), match=message):
        save_model(tiny_model, name)
    assert list(list_models()) == ["cells"]


def test_free_name(tiny_model):
    for expected in ("cells", "cells 2", "cells 3"):
        assert free_name("cells") == expected
        save_model(tiny_model, expected)


def test_a_model_that_is_gone():
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        find_model("gone")


def test_an_export_that_fails_leaves_what_was_there(tiny_model, tmp_path):
    save_model(tiny_model, "cells")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="folder"):
        export_model("cells", target)
    assert list(tmp_path.glob(".*")) == []


def test_networks_of_the_package_come_first(tiny_model):
    tiny_model.card = {"summary": "small", "hold_out": {"2": {"bicubic": 30.0, "before": 31.0, "after": 31.5}}}
    path = save_model(tiny_model, "cells")
    *built_in, own = list_networks()
    assert [network.name for network in built_in] == model_names()
    assert built_in[0].model is None
    assert all(network.sentence and not network.own for network in built_in)
    assert (own.title, own.sentence, own.model) == ("cells: yours, +0.50 dB", "small", str(path))
    path.write_bytes(b"damaged")
    assert "damaged" in list_networks()[-1].sentence


def test_a_file_is_imported_once_and_others_are_refused(tiny_model, tmp_path):
    image = np.random.default_rng(0).random((12, 10))
    expected = super_resolve(image, 2, model=tiny_model)
    save_checkpoint(tmp_path / "my: cells.safetensors", tiny_model)
    path = import_model(tmp_path / "my: cells.safetensors")
    assert list(list_models()) == ["my- cells"]
    np.testing.assert_array_equal(super_resolve(image, 2, model=path), expected)
    assert import_model(tmp_path / "my: cells.safetensors") == path
    assert import_model(path) == path
    arrays = {name: array.numpy() for name, array in to_arrays(tiny_model).items()}
    np.savez(tmp_path / "arrays.npz", **arrays)
    np.testing.assert_array_equal(super_resolve(image, 2, model=import_model(tmp_path / "arrays.npz")), expected)
    torch.save({"state_dict": tiny_model.state_dict()}, tmp_path / "theirs.pth")
    np.testing.assert_array_equal(super_resolve(image, 2, model=import_model(tmp_path / "theirs.pth")), expected)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"“bad\.safetensors” is not a network"):
        import_model(tmp_path / "bad.safetensors")
    assert list(list_models()) == ["arrays", "my- cells", "theirs"]
