import pytest

pytest.importorskip("napari")
from napari import settings
from npe2 import PluginManifest

from napari_vdsr.upscale import preferences as _preferences
from napari_vdsr.upscale.preferences import DEFAULTS, preference, remember

SETTINGS = _preferences._settings  # before a fixture puts others in its place


def test_defaults_are_those_of_the_manifest():
    properties = PluginManifest.from_distribution("napari-vdsr").contributions.configurations["upscale"].properties
    assert {name: properties[name].default for name in properties} == DEFAULTS


@pytest.mark.skipif(not hasattr(settings, "get_plugin_settings"), reason="needs napari 0.9")
def test_preferences_are_what_the_user_has_set(request, monkeypatch):
    monkeypatch.setattr(_preferences, "_settings", SETTINGS)
    request.getfixturevalue("npe2pm").register(PluginManifest.from_distribution("napari-vdsr"))
    request.getfixturevalue("plugin_settings")
    assert {name: preference(name) for name in DEFAULTS} == DEFAULTS
    settings.get_plugin_settings("napari-vdsr").upscale.scale = 3.5
    assert preference("scale") == 3.5
    remember(scale=2.5, model="microscopy")
    assert settings.get_plugin_settings("napari-vdsr").upscale.scale == 2.5
    assert preference("model") == "microscopy"
