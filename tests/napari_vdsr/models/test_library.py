import numpy as np
import pytest

pytest.importorskip("platformdirs")
from napari_vdsr.models.library import (
    check_name,
    delete_model,
    export_model,
    find_model,
    free_name,
    list_models,
    models_folder,
    rename_model,
    save_model,
)
from vdsr_core import load_checkpoint, super_resolve


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
