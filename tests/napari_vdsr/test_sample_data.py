import pytest

pytest.importorskip("napari")


def test_manifest_is_valid():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-vdsr")
    manifest.validate_imports()
    assert manifest.package_version


def test_sample_opens_one_layer_per_channel(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    viewer.open_sample("napari-vdsr", "u2os")
    assert [(layer.data.shape, layer.data.dtype.name) for layer in viewer.layers] == [((256, 256), "uint16")] * 3
