import gc
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image as Picture

pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QInputDialog

from napari_vdsr.canvas import find_canvas
from napari_vdsr.layers import regions
from napari_vdsr.layers.writer import write_ome_tiff, write_ome_zarr
from napari_vdsr.upscale.queue import queue_of
from napari_vdsr.upscale.targets import FolderDialog
from napari_vdsr.words import TIMES
from vdsr_core import (
    VDSR,
    ImageFile,
    VDSRConfig,
    calibrate,
    compare_errors,
    compare_models,
    estimate_noise,
    find_range,
    load_checkpoint,
    load_model,
    noise_fraction,
    predict_error,
    read_image,
    resize,
    save_checkpoint,
    super_resolve,
    write_image,
)
from vdsr_core.network.engine import Engine

WAIT = 60_000
SEVERAL = 520, 520  # pixels whose result takes several tiles, however fast the machine is


@pytest.fixture
def network(tmp_path, tiny_model):
    path = tmp_path / "tiny.safetensors"
    tiny_model.scales = (1.5, 2)
    save_checkpoint(path, tiny_model)
    return str(path)


@pytest.fixture
def opened(viewer, qtbot):
    """Open the widget; `opened(layer data, ...)` adds layers first."""

    def open_with(*images, model=None, **keywords):
        for image in images:
            viewer.add_image(image, **keywords)
        _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
        qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
        if model is not None:
            widget.choose_model_file(model)
            qtbot.waitUntil(lambda: widget.facts is not None or bool(widget.facts_finder.trouble), timeout=WAIT)
        return widget

    return open_with


def click(qtbot, button):
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def run(qtbot, widget):
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)


def last_row(widget):
    """What the list of runs says of the latest."""
    _, words, *_ = widget.queue_list.rows[widget.queue.batches[-1]]
    return words.text().replace("\u00a0", " ")


def noise(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(100, 4000, shape).astype(dtype)


def test_run_with_defaults(viewer, opened, qtbot):
    image = noise(40, 48)
    widget = opened(image, name="cells", scale=(0.5, 0.25), units=("um", "um"), colormap="green", blending="additive")
    assert f"80 {TIMES} 96, uint16, 15.4 kB" in widget.face.estimate.text()
    assert "Time: about" in widget.face.estimate.text() or "less than a second" in widget.face.estimate.text()
    assert "CPU" in widget.form.device.tooltip
    run(qtbot, widget)
    source, result = viewer.layers["cells"], viewer.layers["cells [VDSR photo x2]"]
    np.testing.assert_array_equal(result.data, super_resolve(image, 2, tile=widget.facts.tile))
    np.testing.assert_allclose(result.data_to_world((-0.5, -0.5)), source.data_to_world((-0.5, -0.5)))
    assert result.units == source.units
    assert result.colormap.name == "green"
    record = result.metadata["vdsr"]
    assert record["tiles_done"] == record["tiles"]
    assert record["in_range"] == find_range(image)
    assert "done in" in last_row(widget)
    assert "done" not in widget.face.message.text()  # which would say it twice
    run(qtbot, widget)
    names = ["cells", "cells [VDSR photo x2]", "cells [VDSR photo x2] [1]"]
    assert [layer.name for layer in viewer.layers] == names
    assert [layer.visible for layer in viewer.layers] == [False, False, True]  # nothing counts twice
    click(qtbot, widget.face.original_button)
    assert [layer.visible for layer in viewer.layers] == [True, False, False]
    click(qtbot, widget.face.original_button)
    assert [layer.visible for layer in viewer.layers] == [False, False, True]
    image //= 2  # in place, of which napari tells nothing
    run(qtbot, widget)
    assert viewer.layers[-1].metadata["vdsr"]["in_range"] == find_range(image)


def test_best_quality_is_the_mean_over_turned_images(viewer, opened, qtbot, network, preferences):
    image = noise(40, 48)
    widget = opened(image, name="cells", model=network)
    speed = widget.facts.speed
    widget.form.quality.value = True
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
    assert widget.facts.speed == speed / 8  # what the estimate is made of: measured once
    assert preferences.best
    click(qtbot, widget.face.preview_button)
    qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.complete, timeout=WAIT)
    expected = super_resolve(image, 2, model=network, self_ensemble=True)
    assert not np.array_equal(expected, super_resolve(image, 2, model=network))
    np.testing.assert_allclose(viewer.layers["cells [VDSR preview]"].data, expected.astype(int), rtol=0, atol=1)
    run(qtbot, widget)
    result = viewer.layers["cells [VDSR tiny x2 best]"]
    np.testing.assert_array_equal(result.data, expected)
    assert result.metadata["vdsr"]["self_ensemble"]
    assert widget.queue.batches[-1].title == f"tiny {TIMES}2, best, cells"
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_array_equal(viewer.layers[-1].data, expected)
    qtbot.waitUntil(lambda: bool(widget.condition_finder.condition.noise), timeout=WAIT)
    click(qtbot, widget.face.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "No noise is removed here" in widget.face.trial.text()
    assert "in the best quality" in widget.face.trial.text()
    _, score = compare_models(image, 2, models={"tiny": network}, self_ensemble=True)
    assert f"{score.psnr:.2f}&nbsp;dB" in widget.face.trial.text()
    click(qtbot, widget.face.defaults_button)
    assert not widget.form.quality.value


@pytest.fixture
def jpeg(tmp_path):
    """A noisy gray photograph in a file, so little compressed that the noise is still white."""
    rows, columns = np.mgrid[:80, :96]
    image = 120 + 60 * np.sin(rows / 9) * np.cos(columns / 11) + np.random.default_rng(0).normal(0, 12, rows.shape)
    Picture.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / "noisy.jpg", quality=85)
    return tmp_path / "noisy.jpg"


@pytest.fixture
def mapped(tmp_path):
    """A network that is told of noise and compression."""
    torch.manual_seed(0)
    network = VDSR(VDSRConfig(depth=4, width=8, maps=("noise", "compression")))
    network.scales = (1.5, 2)
    save_checkpoint(tmp_path / "mapped.safetensors", network)
    return str(tmp_path / "mapped.safetensors")


def test_noise_and_compression_are_found_and_removed(viewer, opened, qtbot, mapped, jpeg):
    layer = viewer.open(jpeg, plugin="napari")[0]
    widget = opened(model=mapped)
    removal, image = widget.form.removal, np.asarray(layer.data)
    qtbot.waitUntil(lambda: "%" in removal.noise.current_choice, timeout=WAIT)
    noise, in_range = estimate_noise(image), find_range(image)
    fraction = 100 * noise_fraction(noise, in_range)
    assert fraction > 1
    assert removal.noise.current_choice == f"Automatic: {fraction:.2g} %"
    assert removal.compression.current_choice == "Automatic: quality 85"
    assert removal.level.native.isHidden()
    compression = read_image(jpeg).compression
    run(qtbot, widget)
    assert (
        f"Removed: noise of {fraction:.2g} % of the range and traces of JPEG of quality 85"
        in widget.face.message.text()
    )
    result = viewer.layers["noisy [VDSR mapped x2]"]
    expected = super_resolve(image, 2, model=mapped, noise=noise, compression=compression)
    assert not np.array_equal(expected, super_resolve(image, 2, model=mapped, noise=0))
    np.testing.assert_array_equal(result.data, expected)
    record = result.metadata["vdsr"]
    assert (record["noise"], record["compression"]) == (noise, compression)
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_array_equal(viewer.layers[-1].data, expected)

    removal.noise.value = "by hand"
    assert not removal.level.native.isHidden()
    assert removal.level.value == pytest.approx(fraction, abs=0.1)
    removal.compression.value = "none"
    click(qtbot, widget.face.preview_button)
    for level in (10, 2):
        removal.level.value = level
        low, high = in_range
        expected = super_resolve(image, 2, model=mapped, noise=level / 100 * (high - low), compression=0)
        qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.complete, timeout=WAIT)
        preview = viewer.layers["noisy [VDSR preview]"]
        qtbot.waitUntil(
            lambda preview=preview, expected=expected: np.abs(preview.data - expected.astype(int)).max() <= 1,
            timeout=WAIT,
        )
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_allclose(viewer.layers[-1].data, expected.astype(int), rtol=0, atol=1)


@pytest.mark.parametrize("write", [write_ome_zarr, write_ome_tiff])
def test_file_that_napari_opened_is_opened_again_with_its_sizes(viewer, opened, qtbot, tmp_path, write):
    saved = Image(noise(40, 48), name="cells", scale=(0.5, 0.25), translate=(3, 4), units="um", colormap="green")
    data, keywords, _ = saved.as_layer_data_tuple()
    path = str(tmp_path / ("cells.ome.zarr" if write is write_ome_zarr else "cells.ome.tif"))
    write(path, data, keywords)
    viewer.open(path, plugin="napari")
    widget = opened()
    assert "without the pixel size" in widget.face.hint.text()
    click(qtbot, widget.face.hint_button)
    layer = viewer.layers["cells"]
    assert len(viewer.layers) == 1
    np.testing.assert_allclose((layer.scale, layer.translate), ((0.5, 0.25), (3, 4)))
    assert layer.colormap.name == "green"
    assert widget.form.pixel_size.native.text() == "0.125 µm"
    assert widget.face.hint_box.isHidden()


def test_a_network_for_noisy_images_is_proposed(viewer, opened, qtbot, network, mapped, jpeg, monkeypatch):
    monkeypatch.setattr("napari_vdsr.upscale.condition_finder.find_fitting", lambda deep: "fast")
    viewer.open(jpeg, plugin="napari")
    widget = opened(model=network)
    qtbot.waitUntil(lambda: not widget.face.hint_box.isHidden(), timeout=WAIT)
    assert "too noisy" in widget.face.hint.text()
    assert "Use" not in widget.face.hint.text()  # the button names the model
    assert widget.form.removal.noise.native.isHidden()
    click(qtbot, widget.face.hint_button)
    assert widget.form.model.currentData() == "fast"
    widget.choose_model_file(mapped)
    qtbot.waitUntil(lambda: not widget.form.removal.noise.native.isHidden(), timeout=WAIT)
    assert widget.face.hint_box.isHidden()


def test_rgb_current_plane_and_channels(viewer, opened, qtbot, network):
    colour = noise(24, 20, 3, dtype=np.uint8)
    widget = opened(colour, name="colour", rgb=True, model=network)
    widget.form.scale.value = 1.5
    run(qtbot, widget)
    result = viewer.layers["colour [VDSR tiny x1.5]"]
    assert result.rgb
    np.testing.assert_array_equal(result.data, super_resolve(colour, 1.5, model=network, rgb=True))

    stack = noise(2, 3, 24, 20)
    viewer.add_image(stack, name="stack", axis_labels=("c", "t", "y", "x"))
    widget.choose_layer(viewer.layers["stack"])
    viewer.dims.set_point(1, 2)
    widget.form.planes.value = "current"
    assert f" {TIMES} ".join(["2", "1", "36", "30"]) in widget.face.estimate.text()
    run(qtbot, widget)
    whole = super_resolve(stack, 1.5, model=network, channel_axis=0)
    result = viewer.layers["stack [VDSR tiny x1.5]"]
    np.testing.assert_array_equal(result.data, whole[:, 2:3])
    assert result.metadata["vdsr"]["source"]["part"] == ((0, 2), (2, 3), (0, 24), (0, 20))
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_array_equal(viewer.layers[-1].data, result.data)

    viewer.add_image(noise(3, 24, 20), name="dyes")
    widget.choose_layer(viewer.layers["dyes"])
    assert widget.form.channels.value is None
    assert "Are the 3 planes of “dyes” channels?" in widget.face.hint.text()
    click(qtbot, widget.face.hint_button)
    assert widget.form.channels.value == 0
    assert widget.face.hint_box.isHidden()


def test_current_view_and_a_shape(viewer, opened, qtbot, network):
    image = noise(200, 240)
    widget = opened(image, name="cells", scale=(0.5, 0.5), translate=(3, 4), model=network)
    whole = super_resolve(image, 2, model=network, tile=widget.facts.tile)
    layer = viewer.layers["cells"]
    camera = regions.camera(viewer)
    camera.center = layer.data_to_world((60, 70))
    camera.zoom *= 5
    widget.form.region.value = "view"
    before = widget.face.estimate.text()
    camera.zoom *= 2
    qtbot.waitUntil(lambda: widget.face.estimate.text() != before, timeout=WAIT)
    run(qtbot, widget)
    seen = viewer.layers["cells [VDSR tiny x2]"]
    assert max(seen.data.shape) < 200
    corner = np.rint(np.array(layer.world_to_data(seen.data_to_world((-0.5, -0.5)))) * 2 + 1).astype(int)
    rows, columns = (slice(c, c + n) for c, n in zip(corner, seen.data.shape, strict=True))
    np.testing.assert_allclose(seen.data, whole[rows, columns].astype(int), rtol=0, atol=1)  # cut otherwise

    viewer.add_shapes([np.array([[20, 30], [35, 50]])], shape_type="rectangle", name="mine", scale=(0.5, 0.5))
    assert "Shape in “mine”" in widget.form.region.native.itemText(2)
    widget.form.region.value = viewer.layers["mine"].__wrapped__
    run(qtbot, widget)
    exec(widget.copy_python(), {"viewer": viewer})
    shape = viewer.layers["cells [VDSR tiny x2] [1]"]
    np.testing.assert_array_equal(viewer.layers[-1].data, shape.data)
    np.testing.assert_array_equal(viewer.layers[-1].translate, shape.translate)
    assert viewer.layers["cells"].visible  # it shows where the part does not cover it
    viewer.layers["mine"].selected_data = {0}
    viewer.layers["mine"].remove_selected()
    qtbot.waitUntil(lambda: "no shape yet" in widget.face.message.text(), timeout=WAIT)
    viewer.layers.remove("mine")
    assert widget.form.region.current_choice == "Whole layer"


def test_region_of_an_additive_layer_keeps_what_is_around_it(viewer, opened, qtbot, network):
    stack = noise(2, 40, 48)
    widget = opened(stack, name="cells", blending="additive", contrast_limits=(0, 4000), model=network)
    viewer.add_shapes([np.array([[10, 12], [30, 36]])], shape_type="rectangle", name="mine")
    widget.form.planes.value = "current"
    widget.form.region.value = viewer.layers["mine"].__wrapped__
    run(qtbot, widget)
    source, result, around = (viewer.layers[name] for name in ("cells", "cells [VDSR tiny x2]", "[around] cells"))
    assert result.data.shape == (1, 42, 50)
    assert [source.visible, result.visible, around.visible] == [False, True, True]
    plane = int(viewer.dims.point[0])
    expected = stack.copy()
    expected[plane, 10:31, 12:37] = 0  # which shows as nothing, where the result lies
    np.testing.assert_array_equal(np.stack([around.data[0], around.data[1]]), expected)
    result.contrast_limits = (10, 2000)
    assert around.contrast_limits == [10, 2000]
    assert [layer.name for layer in widget.choices.layer_list.layers()] == ["cells", "cells [VDSR tiny x2]"]
    click(qtbot, widget.face.original_button)
    assert [source.visible, result.visible, around.visible] == [True, False, False]
    click(qtbot, widget.face.original_button)
    viewer.layers.remove(result)
    assert "[around] cells" not in viewer.layers
    assert source.visible


def test_side_by_side(viewer, opened, qtbot, network):
    image = noise(2, 30, 40)
    widget = opened(image, name="cells", axis_labels=("c", "y", "x"), contrast_limits=(0, 4000), model=network)
    viewer.dims.set_point(0, 1)
    click(qtbot, widget.face.side_button)
    window = widget.side_by_side
    first, *others = window.pictures
    assert [picture.side.current_choice for picture in window.pictures] == ["tiny", "photo", "fast", "microscopy"]
    for picture, side in zip(others, ("bicubic", "source", ("network", network)), strict=True):
        picture.side.value = side
    qtbot.waitUntil(lambda: widget.queue.batch is None and not widget.queue.batches[-1].error, timeout=WAIT)
    in_range = find_range(image, channel_axis=0)[1]
    sr = super_resolve(image[1], 2, model=network, in_range=in_range)
    shown = [sr, resize(image[1], 2), np.kron(image[1], np.ones((2, 2))), sr]
    for picture, pixels in zip(window.pictures, shown, strict=True):
        expected = np.clip(pixels / 4000, 0, 1)
        np.testing.assert_allclose(picture.image.image, 255 * expected[..., None].repeat(3, -1), atol=1)
        assert picture.image.boundingRect().width() == 80
    first.view.setRange(xRange=(5, 15), yRange=(5, 15), padding=0)
    for picture in others:
        np.testing.assert_allclose(picture.view.viewRange(), first.view.viewRange())
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_scale_and_pixel_size_go_together(viewer, opened, qtbot, network):
    widget = opened(noise(20, 24), name="plain", model=network)
    assert widget.form.pixel_size.native.isHidden()
    layer = viewer.add_image(noise(20, 24), name="cells", scale=(0.65, 0.325), units=("um", "um"))
    widget.choose_layer(layer)
    assert widget.form.pixel_size.native.text() == "0.1625 µm"
    widget.form.pixel_size.value = 0.1
    assert widget.form.scale.value == pytest.approx(3.25)
    assert "0.65 in height become 0.2" in widget.form.pixel_size.tooltip
    run(qtbot, widget)
    np.testing.assert_allclose(viewer.layers["cells [VDSR tiny x3.25]"].scale, (0.2, 0.1))
    layer.scale = (1, 1)
    assert widget.form.pixel_size.native.text() == "0.307692 µm"


def test_multiscale_is_upscaled_from_its_finest_level(viewer, opened, qtbot, network):
    image = noise(40, 48)
    viewer.add_image([image, image[::2, ::2]], name="pyramid")
    widget = opened(model=network)
    run(qtbot, widget)
    result = viewer.layers["pyramid [VDSR tiny x2]"]
    in_range = result.metadata["vdsr"]["in_range"]
    assert in_range == find_range(image[::2, ::2])
    np.testing.assert_array_equal(result.data, super_resolve(image, 2, model=network, in_range=in_range))


def test_lazy_result_computes_what_is_looked_at(viewer, opened, qtbot, network, monkeypatch):
    from napari.settings import get_settings

    calls = []
    run_engine = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, *given, **more: calls.append(1) or run_engine(self, *given, **more))
    image = noise(2, 900, 1200)
    viewer.show()  # a level is chosen when it is drawn
    widget = opened(image, name="big", model=network)
    widget.face.advanced.expand(animate=False)
    widget.form.result.value = "lazy"
    assert "freeze" in widget.face.message.text()
    click(qtbot, widget.face.asynchronous)
    assert get_settings().experimental.async_
    calls.clear()
    run(qtbot, widget)
    result = viewer.layers["big [VDSR tiny x2]"]
    assert [level.shape for level in result.data] == [(2, 1800, 2400), (2, 900, 1200)]
    assert not calls
    np.testing.assert_allclose(result.data_to_world((0, -0.5, -0.5)), (0, -0.5, -0.5))
    regions.camera(viewer).center = (0, 100, 100)
    regions.camera(viewer).zoom *= 20
    qtbot.waitUntil(lambda: result.data_level == 0 and result.loaded and len(calls) > 0, timeout=WAIT)
    assert len(calls) < 20
    in_range = result.metadata["vdsr"]["in_range"]
    expected = super_resolve(image, 2, model=network, in_range=in_range, window=(slice(0, 256), slice(256, 512)))
    np.testing.assert_array_equal(np.asarray(result.data[0][:, :256, 256:512]), expected)
    for button, name in ((widget.face.added_button, "invented"), (widget.face.agrees_button, "disagrees")):
        click(qtbot, button)
        qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
        seen = viewer.layers[-1]
        assert name in seen.name
        assert seen.data.shape[0] == 1  # the current plane, in view
        assert 0 < seen.data.shape[2] < 1200
        viewer.layers.remove(seen)
    exec(widget.copy_python(), {"viewer": viewer})
    again = viewer.layers[-1]
    assert again.multiscale
    again.visible = False
    np.testing.assert_array_equal(np.asarray(again.data[0][0, :256, :256]), np.asarray(result.data[0][0, :256, :256]))


@pytest.fixture
def names(monkeypatch, tmp_path):
    """What a user types into the dialog for a file's name; a window of the system cannot be driven."""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "result"), ""))
    return tmp_path / "result.ome.zarr"


def test_result_on_disk_grows_is_cancelled_and_goes_on(viewer, opened, qtbot, network, names, monkeypatch):
    monkeypatch.setattr("napari_vdsr.upscale.disk.SHARD", 64)
    image = noise(300, 2, 220)
    widget = opened(image, name="cells", axis_labels=("y", "c", "x"), scale=(0.5, 1, 0.25), units="um", model=network)
    widget.form.tile.value = 32
    widget.form.result.value = "disk"
    assert widget.face.run_button.text() == "Run and save\u2026"
    whole = super_resolve(image, 2, model=network, channel_axis=1)
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    growing = viewer.layers["cells [VDSR tiny x2]"].data[0]
    (window,) = growing._written[:1]
    channel, rows, columns = window
    part = np.s_[rows, channel, columns]
    np.testing.assert_allclose(growing[part], whole[part].astype(int), rtol=0, atol=1)
    last = np.s_[599:600, 1, 439:440]
    np.testing.assert_array_equal(growing[last], image[299:, 1, 219:])
    click(qtbot, widget.face.cancel_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "pieces are kept" in widget.face.message.text()
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert not names.exists()

    widget.form.scale.value = 3  # it is resumed with what it was begun with
    assert not widget.face.unfinished_box.isHidden()
    click(qtbot, widget.face.resume_button)
    qtbot.waitUntil(lambda: widget.run.total > 0, timeout=WAIT)
    assert widget.run.before > 0
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert str(names) in widget.face.message.text()
    assert widget.form.scale.value == 2
    assert widget.face.unfinished_box.isHidden()
    result = viewer.layers["cells [VDSR tiny x2]"]
    assert result.multiscale
    np.testing.assert_allclose(result.data[0], whole.astype(int), rtol=0, atol=1)
    np.testing.assert_allclose(result.data_to_world((-0.5, 0, -0.5)), (-0.25, 0, -0.125))
    read = read_image(names)
    assert (read.axes, read.pixel_size, read.unit) == ("CYX", (0.25, 0.125), "µm")
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "exists" in widget.face.message.text()
    monkeypatch.chdir(names.parent)
    exec(widget.copy_python(), {"viewer": viewer})
    again = read_image("cells x2.ome.zarr")
    assert (again.axes, again.pixel_size, again.unit) == (read.axes, read.pixel_size, read.unit)
    np.testing.assert_array_equal(again.data[...], read.data[...])


def test_folder_of_files(viewer, opened, qtbot, network, tmp_path):
    sources, results = tmp_path / "plate", tmp_path / "results"
    sources.mkdir()
    image = noise(20, 24)
    write_image(sources / "one.tif", ImageFile(image, "YX"))
    (sources / "two.tif").write_bytes(b"no image")
    widget = opened(noise(8, 8), model=network)
    widget.form.quality.value = True
    click(qtbot, widget.face.folder_button)
    dialog = widget.findChild(FolderDialog)
    begin = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
    assert not begin.isEnabled()
    dialog.sources.line_edit.value, dialog.target.line_edit.value = str(sources), str(results)
    dialog.format.value = "png"
    click(qtbot, begin)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "1 done, 1 failed" in widget.face.message.text()
    assert "two.tif" in widget.face.message.text()
    expected = super_resolve(image, 2, model=network, self_ensemble=True)
    np.testing.assert_array_equal(read_image(results / "one_x2.png").data, expected)


def test_lazy_layer_gives_the_range_of_all_planes(viewer, opened, qtbot, network):
    stack = noise(3, 20, 24)
    stack[1] *= 4
    lazy = pytest.importorskip("dask.array").from_array(stack, chunks=(1, 20, 24))
    widget = opened(lazy, name="lazy", contrast_limits=(0, 16000), model=network)
    viewer.dims.set_point(0, 0)
    widget.form.planes.value = "current"
    run(qtbot, widget)
    plane = viewer.layers["lazy [VDSR tiny x2]"].data
    np.testing.assert_array_equal(plane, super_resolve(stack, 2, model=network)[:1])
    assert viewer.layers[-1].contrast_limits == [0, 16000]


@pytest.mark.parametrize("keep", [True, False])
def test_cancel_ends_the_worker_at_once(viewer, opened, qtbot, keep):
    widget = opened(noise(*SEVERAL), name="cells")
    widget.form.keep.value = keep
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    assert "cells [VDSR photo x2]" in viewer.layers
    qtbot.waitUntil(lambda: widget.face.bar.value() > 0, timeout=WAIT)
    started = widget.run
    click(qtbot, widget.face.cancel_button)
    done = started.done
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert started.done <= done + 1  # a tile may have been on its way to the viewer
    assert "Cancelled" in widget.face.message.text()
    assert ("cells [VDSR photo x2]" in viewer.layers) is keep
    if keep:
        record = viewer.layers["cells [VDSR photo x2]"].metadata["vdsr"]
        assert 0 < record["tiles_done"] < record["tiles"]
    assert widget.face.run_button.isEnabled()


def test_cancel_in_the_activity_dock(viewer, opened, qtbot):
    widget = opened(noise(*SEVERAL))
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    widget.queue._activity.cancel()
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "Cancelled" in widget.face.message.text()


def test_layers_deleted_and_changed_while_running(viewer, opened, qtbot):
    widget = opened(noise(*SEVERAL), name="cells")
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    assert not viewer.layers["cells"].visible
    viewer.layers.remove("cells [VDSR photo x2]")
    assert viewer.layers["cells"].visible
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    click(qtbot, widget.face.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    viewer.layers["cells"].data = noise(10, 10)
    viewer.layers.remove("cells")
    assert widget.choices.layers == []  # an unfinished result is not taken in its place
    QApplication.processEvents()
    viewer.layers.remove("cells [VDSR photo x2]")
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "Open an image" in widget.face.message.text()
    assert not widget.face.run_button.isEnabled()


def test_viewer_closed_while_running(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    viewer.show()
    viewer.add_image(noise(*SEVERAL))
    dock, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    click(qtbot, widget.face.run_button)
    queue = widget.queue
    qtbot.waitUntil(lambda: queue.run.done > 0, timeout=WAIT)
    job = queue.run.job
    assert "VDSR super-resolution: upscaling" in str(job)  # what napari calls it when it asks
    dock.destroyOnClose()  # without the panel, too
    viewer.close()
    del widget, dock
    gc.collect()
    QApplication.processEvents()
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    assert job.cancelled.is_set()


def test_panel_opened_again_finds_the_run(viewer, opened, qtbot):
    viewer.show()
    closed = opened(noise(*SEVERAL), name="cells")
    click(qtbot, closed.face.run_button)
    qtbot.waitUntil(lambda: closed.run.done > 0, timeout=WAIT)
    viewer.window.remove_dock_widget(closed)
    assert not closed.choices.following
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert widget is not closed
    assert widget.run.done > 0
    assert [layer.name for layer in widget.choices.layers] == ["cells"]  # not the result, which napari made active
    qtbot.waitUntil(lambda: widget.face.bar.isVisibleTo(widget), timeout=WAIT)
    assert last_row(widget).startswith(f"photo {TIMES}2, cells: ")
    assert "measuring" not in widget.face.estimate.text()  # nothing can be measured meanwhile, but it is known
    click(qtbot, widget.face.run_button)  # waits for its turn
    assert "waiting" in last_row(widget)
    waiting = queue_of(viewer).batches[-1]
    qtbot.mouseClick(widget.queue_list.rows[waiting][3], Qt.MouseButton.LeftButton)
    assert waiting not in queue_of(viewer).batches
    click(qtbot, widget.face.cancel_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "Cancelled" in widget.face.message.text()


def test_nan_is_replaced_in_a_copy(viewer, opened, qtbot, network, monkeypatch):
    image = noise(8, 8).astype(np.float32)
    image[2, 3] = np.nan
    widget = opened(image, name="cells", model=network)
    assert widget.face.nan_button.isHidden()
    run(qtbot, widget)
    assert "“cells” must be finite, got 1 NaN" in widget.face.message.text()
    assert "failed" in last_row(widget)
    assert len(viewer.layers) == 1
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *given: (given[3], True))  # the number that is offered
    click(qtbot, widget.face.nan_button)
    copy = viewer.layers["cells without NaN"]
    np.testing.assert_array_equal(copy.data, np.nan_to_num(image, nan=np.nanmin(image)))
    assert np.isnan(viewer.layers["cells"].data[2, 3])
    run(qtbot, widget)
    assert "cells without NaN [VDSR tiny x2]" in viewer.layers


def test_why_run_is_disabled(viewer, opened, qtbot, tmp_path, preferences):
    widget = opened()
    face, form = widget.face, widget.form
    assert "Open an image" in face.message.text()
    viewer.add_labels(np.zeros((8, 8), np.uint8))
    assert "Labels" in face.message.text()
    viewer.add_image(noise(12, 3), name="narrow")
    assert "at least 4 rows" in face.message.text()
    viewer.add_image(resize(noise(30, 30), 10), name="cells")  # smooth: no other network is proposed
    qtbot.waitUntil(lambda: [layer.name for layer in widget.choices.layers] == ["cells"], timeout=WAIT)
    assert face.run_button.isEnabled()
    assert face.disk_button.isHidden()
    assert not face.caution.text()
    form.scale.value = 8
    assert f"trained for {TIMES}1.25 to {TIMES}4" in face.caution.text()
    form.scale.value = 150
    assert "about" in face.caution.text()
    assert "region first" in face.caution.text()
    form.scale.value = 1000
    assert "180.0 GB" in face.message.text()
    assert not face.disk_button.isHidden()
    form.scale.value = 2
    form.range.value = "by hand"
    layer = viewer.layers["cells"]
    assert [form.low.value, form.high.value] == list(layer.contrast_limits_range)
    form.low.value = form.high.value + 1
    assert "Black must be below white" in face.run_button.toolTip()
    form.range.value = "automatic"
    (tmp_path / "no model.safetensors").write_bytes(b"nothing")
    widget.choose_model_file(str(tmp_path / "no model.safetensors"))
    qtbot.waitUntil(lambda: not face.run_button.isEnabled(), timeout=WAIT)
    assert "is not a safetensors file" in face.message.text()
    widget.choose_model_file("")
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
    assert face.run_button.isEnabled()

    assert face.hint_box.isHidden()  # it was answered once
    preferences.proposed = False
    widget.update_state()
    assert not face.hint_box.isHidden()
    click(qtbot, face.hint_button)
    assert form.model.currentData() == preferences.model == "microscopy"
    assert preferences.proposed
    assert face.hint_box.isHidden()
    widget.compare.left.value, form.removal.noise.value = "bicubic", "none"
    click(qtbot, face.defaults_button)
    assert (form.model.currentData(), preferences.model, form.scale.value) == (None, "", 2)
    assert (widget.compare.left.value, form.removal.noise.value) == ("source", "auto")
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)


def test_runtime_error_is_reported(opened, qtbot, network, monkeypatch):
    import vdsr_core

    def fail(*arguments, **keywords):
        yield from ()
        msg = "CUDA out of memory"
        raise RuntimeError(msg)

    widget = opened(noise(16, 16), model=network)
    monkeypatch.setattr(vdsr_core, "super_resolve_tiles", fail)
    run(qtbot, widget)
    assert widget.face.message.text() == "CUDA out of memory"
    monkeypatch.undo()
    run(qtbot, widget)
    assert "done in" in last_row(widget)


def test_try_on_this_image(viewer, opened, qtbot, network):
    stack = noise(3, 32, 30)
    widget = opened(stack, name="cells", axis_labels=("c", "y", "x"), model=network)
    viewer.dims.set_point(0, 2)
    click(qtbot, widget.face.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    text = widget.face.trial.text()
    assert "channel 2 of “cells”" in text
    scores = compare_models(stack[2], 2, models={"tiny": network}, in_range=find_range(stack, channel_axis=0)[2])
    assert f"{[score.psnr for score in scores][1]:.2f}&nbsp;dB" in text
    assert all(f"<td>{name}" in text or f"<b>{name}" in text for name in ("bicubic", "photo", "microscopy", "tiny"))
    assert "Expected error" not in text  # it was not measured
    measured = load_model(network)
    measured.errors = calibrate(measured, stack[2], 2)
    save_checkpoint(network, measured)
    click(qtbot, widget.face.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    (errors,) = compare_errors(stack[2], 2, model=measured, in_range=find_range(stack, channel_axis=0)[2])
    assert f"{errors.coverage:.0%} of the errors" in widget.face.trial.text()
    expected, made = widget.face.error_plot.points.getOriginalDataset()
    np.testing.assert_allclose((expected, made), 100 * np.array([errors.predicted, errors.measured]))
    widget.form.scale.value = 1.5
    assert widget.face.trial.isHidden()  # it was for another scale
    assert widget.face.error_plot.isHidden()
    widget.choose_model_file("")  # the default network
    click(qtbot, widget.face.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "<b>Expected error</b> of “photo”" in widget.face.trial.text()
    assert not widget.face.error_plot.isHidden()
    viewer.show()
    widget.resize(widget.width(), 300)
    click(qtbot, widget.face.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    qtbot.waitUntil(lambda: not widget.face.error_plot.visibleRegion().isEmpty(), timeout=WAIT)  # it is scrolled to
    viewer.layers["cells"].data = stack[:, :5]
    assert not widget.face.try_button.isEnabled()
    assert "at least 6 pixels" in widget.face.try_button.toolTip()


def test_checks_of_a_result(viewer, opened, qtbot, network):
    image = noise(30, 40)
    widget = opened(image, name="cells", scale=(0.5, 0.5), translate=(3, 4), blending="additive", model=network)
    assert "Run first" in widget.face.added_button.toolTip()
    run(qtbot, widget)
    for button, words, shape in (
        (widget.face.added_button, "predicted, not measured", (60, 80)),
        (widget.face.agrees_button, "reduced again", (30, 40)),
    ):
        for _ in range(2):  # a new one takes the place of the one before
            click(qtbot, button)
            qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
            QApplication.processEvents()
        assert words in widget.face.trial.text()
        layer = viewer.layers[-1]
        assert layer.data.shape == shape
        np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), (2.75, 3.75))
    assert len(viewer.layers) == 4
    viewer.show()
    widget.resize(widget.width(), 300)
    click(qtbot, widget.face.agrees_button)
    qtbot.waitUntil(lambda: not widget.face.trial.visibleRegion().isEmpty(), timeout=WAIT)  # it is scrolled to
    click(qtbot, widget.face.expected_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "must have its errors measured" in widget.face.trial.text() + widget.face.message.text()
    measured = load_model(network)
    measured.errors = calibrate(measured, image, 2)
    save_checkpoint(network, measured)
    click(qtbot, widget.face.expected_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    expected = viewer.layers["[expected error, intensity] cells"]
    result = viewer.layers["cells [VDSR tiny x2]"]
    in_range = result.metadata["vdsr"]["in_range"]
    np.testing.assert_array_equal(expected.data, predict_error(result.data, 2, model=measured, in_range=in_range))
    assert expected.contrast_limits == [0, viewer.layers["[invented] cells"].contrast_limits[1]]
    assert "not against the specimen" in widget.face.trial.text()
    viewer.layers.remove(expected)
    ilr = resize(image.astype(np.float32), 2)
    added = viewer.layers["[invented] cells"]
    np.testing.assert_allclose(added.data, viewer.layers["cells [VDSR tiny x2]"].data - ilr, atol=0.01)
    run(qtbot, widget)
    assert widget.face.trial.isHidden()  # it was for the result before
    assert not added.visible  # and would lie on top of this one
    assert [layer.visible for layer in viewer.layers if "cells" in layer.name[:5]] == [False, False, True]
    for shown in ("cells [VDSR tiny x2]", "cells"):  # what a result hid is shown when it is deleted
        viewer.layers.remove(next(layer for layer in viewer.layers if layer.visible))
        assert [layer.name for layer in viewer.layers if layer.visible] == [shown]


def test_compare_shows_both_sides_of_a_line(viewer, opened, qtbot, network):
    viewer.show()
    image = noise(30, 40)
    widget = opened(image, name="cells", scale=(0.5, 0.5), translate=(3, 4), blending="additive", model=network)
    run(qtbot, widget)
    source, result = viewer.layers["cells"], viewer.layers["cells [VDSR tiny x2]"]
    regions.camera(viewer).zoom /= 2  # all is in view
    widget.compare.on.value = True
    shown = viewer.layers["[compare] cells"]
    assert not source.visible
    assert not result.visible
    nearest = image.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(shown.data, np.hstack([nearest[:, :40], result.data[:, 40:]]))
    np.testing.assert_allclose(shown.data_to_world((-0.5, -0.5)), (2.75, 3.75))
    np.testing.assert_allclose(shown.data_to_world((59.5, 79.5)), source.data_to_world((29.5, 39.5)))
    result.contrast_limits = (10, 2000)
    result.colormap = "green"
    for layer in (source, shown):
        assert layer.contrast_limits == [10, 2000]
        assert layer.colormap.name == "green"

    line = widget.compare.comparison.line
    qtbot.waitUntil(line.isVisible, timeout=WAIT)
    width, middle = line.width(), line.height() // 2
    assert line.mask().contains(QPoint(width // 2, middle))
    assert not line.mask().contains(QPoint(width // 4, middle))
    qtbot.mousePress(line, Qt.MouseButton.LeftButton, pos=QPoint(width // 2, middle))
    qtbot.mouseMove(line, QPoint(width // 2 - width // 10, middle))
    qtbot.waitUntil(lambda: np.array_equal(shown.data[:, 38:], result.data[:, 38:]), timeout=WAIT)
    qtbot.mouseRelease(line, Qt.MouseButton.LeftButton)
    widget.compare.left.value = "bicubic"
    shown = viewer.layers["[compare] cells"].data
    half = shown.shape[1] // 2  # of the view; the line is to the left of it
    np.testing.assert_array_equal(shown[:, : half // 2], resize(image, 2)[:, : half // 2])
    np.testing.assert_array_equal(shown[:, half:], result.data[:, half:])

    before = widget.compare.right.value
    run(qtbot, widget)
    qtbot.waitUntil(lambda: widget.compare.right.value is not before, timeout=WAIT)  # another result
    qtbot.waitUntil(lambda: "[compare] cells" in viewer.layers, timeout=WAIT)
    latest = viewer.layers["cells [VDSR tiny x2] [1]"]
    np.testing.assert_array_equal(viewer.layers["[compare] cells"].data[:, half:], latest.data[:, half:])
    assert not latest.visible
    widget.compare.on.value = False
    assert [layer.visible for layer in viewer.layers] == [False, False, True]


def test_line_passes_through_the_pointer_on_a_turned_layer(viewer, opened, qtbot, network):
    viewer.show()
    image = noise(60, 80)
    widget = opened(image, name="cells", scale=(0.5, 0.5), rotate=90, translate=(20, 300), model=network)
    viewer.reset_view()
    widget.compare.right.value = "bicubic"
    widget.compare.on.value = True
    line = widget.compare.comparison.line
    qtbot.waitUntil(line.isVisible, timeout=WAIT)
    width, height = line.width(), line.height()
    assert line.mask().contains(QPoint(width // 4, height // 2))  # it lies: columns of the layer run across
    qtbot.mousePress(line, Qt.MouseButton.LeftButton, pos=QPoint(width // 4, height // 2))
    qtbot.mouseMove(line, QPoint(width // 4, height // 2 + height // 10))
    qtbot.waitUntil(lambda: line.mask().contains(QPoint(width // 4, height // 2 + height // 10)), timeout=WAIT)
    shown = viewer.layers["[compare] cells"]
    nearest, right = image.repeat(2, 0).repeat(2, 1), resize(image, 2)
    is_right = (shown.data == right).all(axis=0)
    cut = shown.data.shape[1] - np.argmin(is_right)  # columns run upwards: above the line is the left side
    assert is_right.argmin() == is_right.sum()
    np.testing.assert_array_equal(shown.data[:, -cut:], nearest[:, -cut:])
    world = regions.camera(viewer).center[-2] + height / 10 / regions.camera(viewer).zoom
    assert shown.data_to_world((0, is_right.sum() - 0.5))[0] == pytest.approx(world, abs=0.26)


def test_keys(viewer, opened, qtbot, network):
    viewer.show()
    widget = opened(noise(30, 40), name="cells", model=network)
    listed = {str(key) for key in ViewerModel.class_keymap}
    assert {"Ctrl+Enter", "Escape", "Shift+C", "B"} <= listed  # what Preferences > Shortcuts shows
    canvas = find_canvas(widget)
    qtbot.keyClick(canvas, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: "cells [VDSR tiny x2]" in viewer.layers and widget.run is None, timeout=WAIT)
    qtbot.keyPress(canvas, Qt.Key.Key_B)
    assert [layer.visible for layer in viewer.layers] == [True, False]
    qtbot.keyRelease(canvas, Qt.Key.Key_B)
    qtbot.waitUntil(lambda: [layer.visible for layer in viewer.layers] == [False, True], timeout=WAIT)
    qtbot.keyClick(canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert "[compare] cells" in viewer.layers


def test_menu_opens_the_widget_with_the_active_layer(viewer, qtbot):
    from napari._app_model import get_app_model

    viewer.add_image(noise(8, 8), name="first")
    viewer.add_image(noise(8, 8), name="second")
    viewer.layers.selection.active = viewer.layers["first"]
    menu = [item.command.id for item in get_app_model().menus.get_menu("napari/layers/transform")]
    assert "napari-vdsr.open_upscale_widget" in menu
    get_app_model().commands.execute_command("napari-vdsr.open_upscale_widget").result()
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert [layer.name for layer in widget.choices.layers] == ["first"]
    assert len(viewer.layers) == 2
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
    viewer.show()
    get_app_model().commands.execute_command("napari-vdsr.open_fine_tune_widget").result()
    qtbot.waitUntil(lambda: widget.visibleRegion().isEmpty(), timeout=WAIT)  # under the other tab
    get_app_model().commands.execute_command("napari-vdsr.open_upscale_widget").result()
    qtbot.waitUntil(lambda: not widget.visibleRegion().isEmpty(), timeout=WAIT)


def test_import_loads_no_torch():
    code = "import napari_vdsr.upscale.widget, napari_vdsr.sample_data, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_preview_follows_the_view_and_is_the_result(viewer, opened, qtbot, network, monkeypatch):
    monkeypatch.setattr("napari_vdsr.upscale.preview.SIDES", (64,))
    image = noise(200, 240)
    widget = opened(image, name="cells", model=network, blending="additive")
    click(qtbot, widget.face.preview_button)
    qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.complete, timeout=WAIT)
    assert "complete" in widget.face.message.text()
    assert not viewer.layers["cells"].visible
    layer = viewer.layers["cells [VDSR preview]"]
    assert [entry.name for entry in viewer.layers] == ["cells", "cells [VDSR preview]"]
    assert len(widget.choices.layer_list.layers()) == 1
    whole = super_resolve(image, 2, model=network)
    np.testing.assert_allclose(layer.data, whole.astype(int), rtol=0, atol=1)

    regions.camera(viewer).zoom *= 4
    regions.camera(viewer).center = (0, 60, 70)
    qtbot.waitUntil(lambda: layer.data.shape != whole.shape, timeout=WAIT)
    assert widget.preview.complete  # nothing is computed again
    corner = np.rint(np.array(layer.data_to_world((-0.5, -0.5))) * 2 + 1).astype(int)
    rows, columns = (slice(c, c + n) for c, n in zip(corner, layer.data.shape, strict=True))
    np.testing.assert_allclose(layer.data, whole[rows, columns].astype(int), rtol=0, atol=1)

    widget.form.scale.value = 3
    qtbot.waitUntil(lambda: layer.scale[0] == 1 / 3, timeout=WAIT)
    qtbot.waitUntil(lambda: widget.preview.complete, timeout=WAIT)
    before = np.array(layer.data)
    image[:] = 4000 - image  # in place, of which napari tells nothing
    camera = regions.camera(viewer)
    camera.zoom *= 1.01
    qtbot.waitUntil(lambda: widget.preview.complete and not np.array_equal(layer.data, before), timeout=WAIT)
    assert not viewer.layers["cells [VDSR preview]"].metadata["vdsr"].get("source")
    run(qtbot, widget)
    assert [entry.name for entry in viewer.layers] == ["cells", "cells [VDSR tiny x3]"]
    assert not widget.face.preview_button.isChecked()
    assert viewer.layers["cells [VDSR tiny x3]"].metadata["vdsr"]["in_range"] == find_range(image)


def test_preview_taken_away(viewer, opened, qtbot):
    widget = opened(noise(2, 256, 256), name="cells")
    click(qtbot, widget.face.preview_button)
    qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.done > 0, timeout=WAIT)
    job = widget.preview._work._job
    assert viewer.layers["cells [VDSR preview]"].data.shape[0] == 1
    viewer.layers.remove("cells [VDSR preview]")
    QApplication.processEvents()
    assert not widget.face.preview_button.isChecked()
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    click(qtbot, widget.face.preview_button)
    viewer.layers.remove("cells")
    assert len(viewer.layers) == 0


def test_three_channels_look_like_their_source(viewer, qtbot, network):
    """The demo: what lies on top changes with the blending of the first channel, translucent, and of the others."""
    viewer.show()
    viewer.open_sample("napari-vdsr", "u2os")
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert [layer.name for layer in widget.choices.layers] == ["U2OS cells", "U2OS cells [1]", "U2OS cells [2]"]
    sources = list(viewer.layers)
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
    before = brightness(viewer, qtbot)
    quiet = load_checkpoint(network)  # adds nothing, as a network that was never trained would add noise
    for parameter in quiet.parameters():
        parameter.data.zero_()
    save_checkpoint(network, quiet)
    widget.choose_model_file(network)
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)
    assert "3 results" in widget.face.estimate.text()
    run(qtbot, widget)
    assert [layer.name for layer in viewer.layers if layer not in sources] == [
        f"{layer.name} [VDSR tiny x2]" for layer in sources
    ]
    assert brightness(viewer, qtbot) == pytest.approx(before, rel=0.02)
    widget.compare.on.value = True
    assert brightness(viewer, qtbot) == pytest.approx(before, rel=0.02)
    widget.compare.on.value = False
    QApplication.processEvents()
    widget.form.scale.value = 1.5
    click(qtbot, widget.face.preview_button)
    qtbot.waitUntil(lambda: widget.previews.complete, timeout=WAIT)
    assert brightness(viewer, qtbot) == pytest.approx(before, rel=0.02)
    viewer.layers.selection.active = sources[1]  # one of the three: they stay ticked
    QApplication.processEvents()
    assert len(widget.choices.layers) == 3
    viewer.layers.selection.clear()
    viewer.layers.selection.update(sources[:2])
    qtbot.waitUntil(lambda: len(widget.choices.layers) == 2, timeout=WAIT)


def brightness(viewer, qtbot):
    """The mean intensity of the rendered canvas."""
    qtbot.wait(100)
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].mean()
