"""Fixtures for the tests of the plugin."""

from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """No test reads or writes the networks of whoever runs it."""
    pytest.importorskip("platformdirs")
    monkeypatch.setattr("napari_vdsr.models.library.data_folder", lambda: tmp_path / "user data")
    return tmp_path / "user data"


@pytest.fixture(autouse=True)
def preferences(monkeypatch):
    """Nor the preferences, of the plugin or of napari; a model was proposed already."""
    from napari_vdsr.upscale import preferences

    monkeypatch.setattr("napari_vdsr.layers.writer.prefer_own_reader", lambda: None)

    session = SimpleNamespace(**preferences.DEFAULTS | {"proposed": True})
    monkeypatch.setattr(preferences, "_settings", lambda: session)
    return session


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    """A napari whose plugins find it as they do in the window; no work outlives it."""
    from qtpy.QtCore import QThreadPool

    yield make_napari_viewer_proxy()
    QThreadPool.globalInstance().waitForDone(20_000)
