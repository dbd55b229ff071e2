import gc
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_vdsr.layers import regions as _regions
from napari_vdsr.layers.source import TIMES
from napari_vdsr.upscale.choices import UpscaleChoices
from napari_vdsr.upscale.work import Found
from vdsr_core import find_range, read_image, resize, save_checkpoint, super_resolve
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
            qtbot.waitUntil(lambda: widget.facts is not None or bool(widget._trouble), timeout=WAIT)
        return widget

    return open_with


def click(qtbot, button):
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def run(qtbot, widget):
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)


def noise(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(100, 4000, shape).astype(dtype)


def test_run_with_defaults(viewer, opened, qtbot):
    image = noise(40, 48)
    widget = opened(image, name="cells", scale=(0.5, 0.25), units=("um", "um"), colormap="green")
    assert f"80 {TIMES} 96, uint16, 15.4 kB" in widget.estimate.text()
    assert "Time: about" in widget.estimate.text()
    assert "CPU" in widget.device.toolTip()
    run(qtbot, widget)
    result = viewer.layers["cells [VDSR x2]"]
    np.testing.assert_array_equal(result.data, super_resolve(image, 2, tile=widget.facts.tile))
    np.testing.assert_allclose(result.data_to_world((-0.5, -0.5)), viewer.layers[0].data_to_world((-0.5, -0.5)))
    assert result.units == viewer.layers[0].units
    assert result.colormap.name == "green"
    record = result.metadata["vdsr"]
    assert record["tiles_done"] == record["tiles"]
    assert record["in_range"] == widget.task(widget.source()).in_range
    assert "Done" in widget.message.text()
    run(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [VDSR x2]", "cells [VDSR x2] [1]"]


def test_rgb_current_plane_and_channels(viewer, opened, qtbot, network):
    colour = noise(24, 20, 3, dtype=np.uint8)
    widget = opened(colour, name="colour", rgb=True, model=network)
    widget.scale.setValue(1.5)
    run(qtbot, widget)
    result = viewer.layers["colour [VDSR x1.5]"]
    assert result.rgb
    np.testing.assert_array_equal(result.data, super_resolve(colour, 1.5, model=network, rgb=True))

    stack = noise(2, 3, 24, 20)
    viewer.add_image(stack, name="stack", axis_labels=("c", "t", "y", "x"))
    widget.choose_layer(viewer.layers["stack"])
    viewer.dims.set_point(1, 2)
    widget.planes.setCurrentIndex(1)
    assert f" {TIMES} ".join(["2", "1", "36", "30"]) in widget.estimate.text()
    run(qtbot, widget)
    whole = super_resolve(stack, 1.5, model=network, channel_axis=0)
    result = viewer.layers["stack [VDSR x1.5]"]
    np.testing.assert_array_equal(result.data, whole[:, 2:3])
    assert result.metadata["vdsr"]["source"]["part"] == ((0, 2), (2, 3), (0, 24), (0, 20))
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_array_equal(viewer.layers[-1].data, result.data)


def test_current_view_and_a_shape(viewer, opened, qtbot, network):
    image = noise(200, 240)
    widget = opened(image, name="cells", scale=(0.5, 0.5), translate=(3, 4), model=network)
    whole = super_resolve(image, 2, model=network, tile=widget.facts.tile)
    layer = viewer.layers["cells"]
    camera = _regions.camera(viewer)
    camera.center = layer.data_to_world((60, 70))
    camera.zoom *= 5
    widget.region.setCurrentIndex(1)
    before = widget.estimate.text()
    camera.zoom *= 2
    qtbot.waitUntil(lambda: widget.estimate.text() != before, timeout=WAIT)
    run(qtbot, widget)
    seen = viewer.layers["cells [VDSR x2]"]
    assert max(seen.data.shape) < 200
    corner = np.rint(np.array(layer.world_to_data(seen.data_to_world((-0.5, -0.5)))) * 2 + 1).astype(int)
    rows, columns = (slice(c, c + n) for c, n in zip(corner, seen.data.shape, strict=True))
    np.testing.assert_allclose(seen.data, whole[rows, columns].astype(int), rtol=0, atol=1)  # cut otherwise

    viewer.add_shapes([np.array([[20, 30], [35, 50]])], shape_type="rectangle", name="mine", scale=(0.5, 0.5))
    assert widget.region.itemText(2) == "Shape in “mine”"
    widget.region.setCurrentIndex(2)
    run(qtbot, widget)
    exec(widget.copy_python(), {"viewer": viewer})
    np.testing.assert_array_equal(viewer.layers[-1].data, viewer.layers[-2].data)
    np.testing.assert_array_equal(viewer.layers[-1].translate, viewer.layers[-2].translate)
    viewer.layers["mine"].selected_data = {0}
    viewer.layers["mine"].remove_selected()
    qtbot.waitUntil(lambda: "no shape yet" in widget.message.text(), timeout=WAIT)
    viewer.layers.remove("mine")
    assert widget.region.currentText() == "Whole layer"


def test_scale_and_pixel_size_go_together(viewer, opened, qtbot, network):
    widget = opened(noise(20, 24), name="plain", model=network)
    assert not widget.pixel_size.isEnabled()
    assert "no pixel size" in widget.pixel_size.toolTip()
    layer = viewer.add_image(noise(20, 24), name="cells", scale=(0.65, 0.325), units=("um", "um"))
    widget.choose_layer(layer)
    assert widget.pixel_size.text() == "0.1625 µm"
    widget.pixel_size.setValue(0.1)
    assert widget.scale.value() == pytest.approx(3.25)
    assert "0.65 in height become 0.2" in widget.pixel_size.toolTip()
    run(qtbot, widget)
    np.testing.assert_allclose(viewer.layers["cells [VDSR x3.25]"].scale, (0.2, 0.1))
    layer.scale = (1, 1)
    assert widget.pixel_size.text() == "0.307692 µm"


def test_multiscale_is_upscaled_from_its_finest_level(viewer, opened, qtbot, network):
    image = noise(40, 48)
    viewer.add_image([image, image[::2, ::2]], name="pyramid")
    widget = opened(model=network)
    run(qtbot, widget)
    result = viewer.layers["pyramid [VDSR x2]"]
    in_range = result.metadata["vdsr"]["in_range"]
    assert in_range == find_range(image[::2, ::2])
    np.testing.assert_array_equal(result.data, super_resolve(image, 2, model=network, in_range=in_range))


def test_lazy_result_computes_what_is_looked_at(viewer, opened, qtbot, network, monkeypatch):
    from napari.settings import get_settings

    calls = []
    run_engine = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, *given: calls.append(1) or run_engine(self, *given))
    image = noise(2, 900, 1200)
    viewer.show()  # a level is chosen when it is drawn
    widget = opened(image, name="big", model=network)
    widget.advanced.expand(animate=False)
    widget.result.setCurrentIndex(1)
    assert "freeze" in widget.message.text()
    click(qtbot, widget.asynchronous)
    assert get_settings().experimental.async_
    calls.clear()
    run(qtbot, widget)
    result = viewer.layers["big [VDSR x2]"]
    assert [level.shape for level in result.data] == [(2, 1800, 2400), (2, 900, 1200)]
    assert not calls
    np.testing.assert_allclose(result.data_to_world((0, -0.5, -0.5)), (0, -0.5, -0.5))
    _regions.camera(viewer).center = (0, 100, 100)
    _regions.camera(viewer).zoom *= 20
    qtbot.waitUntil(lambda: result.data_level == 0 and result.loaded and len(calls) > 0, timeout=WAIT)
    assert len(calls) < 20
    in_range = result.metadata["vdsr"]["in_range"]
    expected = super_resolve(image, 2, model=network, in_range=in_range, window=(slice(0, 256), slice(256, 512)))
    np.testing.assert_array_equal(np.asarray(result.data[0][:, :256, 256:512]), expected)
    for button, name in ((widget.added_button, "added by VDSR"), (widget.consistency_button, "small again")):
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
    widget.tile.setValue(32)
    widget.result.setCurrentIndex(2)
    assert widget.run_button.text() == "Run and save\u2026"
    whole = super_resolve(image, 2, model=network, channel_axis=1)
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    growing = viewer.layers["cells [VDSR x2]"].data[0]
    (window,) = growing._written[:1]
    channel, rows, columns = window
    part = np.s_[rows, channel, columns]
    np.testing.assert_allclose(growing[part], whole[part].astype(int), rtol=0, atol=1)
    last = np.s_[599:600, 1, 439:440]
    np.testing.assert_array_equal(growing[last], image[299:, 1, 219:])
    click(qtbot, widget.cancel_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "run again" in widget.message.text()
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert not names.exists()

    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.total > 0, timeout=WAIT)
    assert widget.run._before > 0
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert str(names) in widget.message.text()
    result = viewer.layers["cells [VDSR x2]"]
    assert result.multiscale
    np.testing.assert_allclose(result.data[0], whole.astype(int), rtol=0, atol=1)
    np.testing.assert_allclose(result.data_to_world((-0.5, 0, -0.5)), (-0.25, 0, -0.125))
    read = read_image(names)
    assert (read.axes, read.pixel_size, read.unit) == ("CYX", (0.25, 0.125), "µm")
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "exists" in widget.message.text()
    monkeypatch.chdir(names.parent)
    exec(widget.copy_python(), {"viewer": viewer})
    again = read_image("cells x2.ome.zarr")
    assert (again.axes, again.pixel_size, again.unit) == (read.axes, read.pixel_size, read.unit)
    np.testing.assert_array_equal(again.data[...], read.data[...])


def test_lazy_layer_gives_the_range_of_all_planes(viewer, opened, qtbot, network):
    stack = noise(3, 20, 24)
    stack[1] *= 4
    lazy = pytest.importorskip("dask.array").from_array(stack, chunks=(1, 20, 24))
    widget = opened(lazy, name="lazy", contrast_limits=(0, 16000), model=network)
    viewer.dims.set_point(0, 0)
    widget.planes.setCurrentIndex(1)
    run(qtbot, widget)
    plane = viewer.layers["lazy [VDSR x2]"].data
    np.testing.assert_array_equal(plane, super_resolve(stack, 2, model=network)[:1])
    assert viewer.layers[-1].contrast_limits == [0, 16000]


def test_a_range_is_that_of_the_pixels_the_layer_has_now(qtbot):
    viewer = ViewerModel()
    choices = UpscaleChoices(viewer)
    qtbot.addWidget(choices)
    pixels, new = noise(20, 24), noise(20, 24) * 10
    layer, other = viewer.add_image(pixels), viewer.add_image(noise(20, 24))
    choices.choose_layer(layer)
    found = Found(choices.source(), (100, 4000))
    choices.keep_range(layer, found)
    assert choices.task(choices.source()).in_range == (100, 4000)
    layer.data = new
    choices.keep_range(layer, found)  # of a run that had begun before
    assert choices.task(choices.source()).in_range is None
    layer.data = pixels
    choices.keep_range(layer, found)
    choices.choose_layer(other)
    layer.data = new
    choices.choose_layer(layer)
    assert choices.task(choices.source()).in_range is None
    choices.keep_range(layer, Found(choices.source(), (1000, 40000)))
    new //= 2
    layer.data = new  # other values in the same array
    assert choices.task(choices.source()).in_range is None


@pytest.mark.parametrize("keep", [True, False])
def test_cancel_ends_the_worker_at_once(viewer, opened, qtbot, keep):
    widget = opened(noise(*SEVERAL), name="cells")
    widget.keep.setChecked(keep)
    click(qtbot, widget.run_button)
    assert not widget.run_button.isEnabled()
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    qtbot.wait(300)  # well within a tile
    assert "cells [VDSR x2]" in viewer.layers
    assert widget.bar.value() > 0
    started = widget.run
    click(qtbot, widget.cancel_button)
    done = started.done
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert started.done <= done + 1  # a tile may have been on its way to the viewer
    assert "Cancelled" in widget.message.text()
    assert ("cells [VDSR x2]" in viewer.layers) is keep
    if keep:
        record = viewer.layers["cells [VDSR x2]"].metadata["vdsr"]
        assert 0 < record["tiles_done"] < record["tiles"]
    assert widget.run_button.isEnabled()


def test_cancel_in_the_activity_dock(viewer, opened, qtbot):
    widget = opened(noise(*SEVERAL))
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    widget.run._activity.cancel()
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "Cancelled" in widget.message.text()


def test_layers_deleted_and_changed_while_running(viewer, opened, qtbot):
    widget = opened(noise(*SEVERAL), name="cells")
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    viewer.layers["cells"].data = noise(10, 10)
    viewer.layers.remove("cells")
    viewer.layers.remove("cells [VDSR x2]")
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert "Open an image" in widget.message.text()
    assert not widget.run_button.isEnabled()


def test_viewer_closed_while_running(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    viewer.add_image(noise(*SEVERAL))
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    job = widget.run.job
    viewer.close()
    gc.collect()
    QApplication.processEvents()
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    assert job.cancelled.is_set()


def test_widget_closed_while_running(viewer, opened, qtbot):
    widget = opened(noise(*SEVERAL), name="cells")
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.run.done > 0, timeout=WAIT)
    job = widget.run.job
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(job.cancelled.is_set, timeout=WAIT)
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    viewer.add_image(noise(8, 8))
    viewer.layers.remove("cells")


@pytest.mark.parametrize(
    ("image", "words"),
    [(noise(12, 3), "at least 4 rows"), (np.full((8, 8), np.nan, np.float32), "64 NaN")],
    ids=["tiny", "nan"],
)
def test_bad_layer_is_one_sentence(viewer, opened, qtbot, image, words):
    widget = opened(image)
    if widget.run_button.isEnabled():
        run(qtbot, widget)
    assert words in widget.message.text()
    assert len(viewer.layers) == 1


def test_why_run_is_disabled(viewer, opened, qtbot, tmp_path):
    widget = opened()
    assert "Open an image" in widget.message.text()
    viewer.add_labels(np.zeros((8, 8), np.uint8))
    assert "Labels" in widget.message.text()
    viewer.add_image(noise(300, 300), name="cells")
    assert widget.run_button.isEnabled()
    assert not widget.disk_button.isVisibleTo(widget)
    widget.scale.setValue(1000)
    assert "180.0 GB" in widget.message.text()
    assert "lazy result" in widget.message.text()
    assert widget.disk_button.isVisibleTo(widget)
    widget.scale.setValue(2)
    widget.range.setCurrentIndex(1)
    widget.low.setText("300")
    assert "two numbers" in widget.run_button.toolTip()
    widget.range.setCurrentIndex(0)
    (tmp_path / "no model.safetensors").write_bytes(b"nothing")
    widget.choose_model_file(str(tmp_path / "no model.safetensors"))
    qtbot.waitUntil(lambda: not widget.run_button.isEnabled(), timeout=WAIT)
    assert "is not a safetensors file" in widget.message.text()
    widget.choose_model_file("")
    qtbot.waitUntil(widget.run_button.isEnabled, timeout=WAIT)


def test_runtime_error_is_reported(opened, qtbot, network, monkeypatch):
    import vdsr_core

    def fail(*arguments, **keywords):
        yield from ()
        msg = "CUDA out of memory"
        raise RuntimeError(msg)

    widget = opened(noise(16, 16), model=network)
    monkeypatch.setattr(vdsr_core, "super_resolve_tiles", fail)
    run(qtbot, widget)
    assert widget.message.text() == "CUDA out of memory"
    monkeypatch.undo()
    run(qtbot, widget)
    assert "Done" in widget.message.text()


def test_try_on_this_image(opened, qtbot, network):
    widget = opened(noise(3, 32, 30), model=network)
    click(qtbot, widget.try_button)
    qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
    assert f"32 {TIMES} 30 pixels" in widget.trial.text()
    assert "Bicubic" in widget.trial.text()
    assert "SSIM" in widget.trial.text()


def test_checks_of_a_result(viewer, opened, qtbot, network):
    image = noise(30, 40)
    widget = opened(image, name="cells", scale=(0.5, 0.5), translate=(3, 4), blending="additive", model=network)
    assert "Run first" in widget.added_button.toolTip()
    run(qtbot, widget)
    for button, words, shape in (
        (widget.added_button, "predicted, not measured", (60, 80)),
        (widget.consistency_button, "differs from the source", (30, 40)),
    ):
        click(qtbot, button)
        qtbot.waitUntil(lambda: widget.run is None, timeout=WAIT)
        assert words in widget.trial.text()
        layer = viewer.layers[-1]
        assert layer.data.shape == shape
        np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), (2.75, 3.75))
    ilr = resize(image.astype(np.float32), 2)
    np.testing.assert_allclose(viewer.layers[2].data, viewer.layers["cells [VDSR x2]"].data - ilr, atol=0.01)

    widget.compare.setValue(50)
    over = viewer.layers["cells [VDSR compare]"]
    np.testing.assert_array_equal(over.data, image[:, :20])
    np.testing.assert_allclose(over.data_to_world((-0.5, -0.5)), (2.75, 3.75))
    widget.compare.setValue(25)
    np.testing.assert_array_equal(over.data, image[:, :10])
    assert [widget.layer.itemText(i) for i in range(widget.layer.count())][:2] == ["cells", "cells [VDSR x2]"]
    assert "cells [VDSR compare]" not in [widget.layer.itemText(i) for i in range(widget.layer.count())]
    widget.compare.setValue(0)
    assert "cells [VDSR compare]" not in viewer.layers


def test_menu_opens_the_widget_with_the_active_layer(viewer, qtbot):
    from napari._app_model import get_app_model

    viewer.add_image(noise(8, 8), name="first")
    viewer.add_image(noise(8, 8), name="second")
    viewer.layers.selection.active = viewer.layers["first"]
    menu = [item.command.id for item in get_app_model().menus.get_menu("napari/layers/transform")]
    assert "napari-vdsr.open_upscale_widget" in menu
    get_app_model().commands.execute_command("napari-vdsr.open_upscale_widget").result()
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert widget.layer.currentText() == "first"
    assert len(viewer.layers) == 2
    qtbot.waitUntil(lambda: widget.facts is not None, timeout=WAIT)


def test_import_loads_no_torch():
    code = "import napari_vdsr.upscale.widget, napari_vdsr.sample_data, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_preview_follows_the_view_and_is_the_result(viewer, opened, qtbot, network, monkeypatch):
    monkeypatch.setattr("napari_vdsr.upscale.preview.SIDES", (64,))
    image = noise(200, 240)
    widget = opened(image, name="cells", model=network)
    click(qtbot, widget.preview_button)
    qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.complete, timeout=WAIT)
    assert "complete" in widget.message.text()
    layer = viewer.layers["cells [VDSR preview]"]
    assert [entry.name for entry in viewer.layers] == ["cells", "cells [VDSR preview]"]
    assert widget.layer.count() == 1
    whole = super_resolve(image, 2, model=network)
    np.testing.assert_allclose(layer.data, whole.astype(int), rtol=0, atol=1)

    _regions.camera(viewer).zoom *= 4
    _regions.camera(viewer).center = (0, 60, 70)
    qtbot.waitUntil(lambda: layer.data.shape != whole.shape, timeout=WAIT)
    assert widget.preview.complete  # nothing is computed again
    corner = np.rint(np.array(layer.data_to_world((-0.5, -0.5))) * 2 + 1).astype(int)
    rows, columns = (slice(c, c + n) for c, n in zip(corner, layer.data.shape, strict=True))
    np.testing.assert_allclose(layer.data, whole[rows, columns].astype(int), rtol=0, atol=1)

    widget.scale.setValue(3)
    qtbot.waitUntil(lambda: layer.scale[0] == 1 / 3, timeout=WAIT)
    qtbot.waitUntil(lambda: widget.preview.complete, timeout=WAIT)
    in_range = find_range(image)
    assert widget.task(widget.source()).in_range == in_range
    run(qtbot, widget)
    assert [entry.name for entry in viewer.layers] == ["cells", "cells [VDSR x3]"]
    assert not widget.preview_button.isChecked()
    assert viewer.layers["cells [VDSR x3]"].metadata["vdsr"]["in_range"] == in_range


def test_preview_taken_away(viewer, opened, qtbot):
    widget = opened(noise(2, 256, 256), name="cells")
    click(qtbot, widget.preview_button)
    qtbot.waitUntil(lambda: widget.preview is not None and widget.preview.done > 0, timeout=WAIT)
    job = widget.preview._job
    assert viewer.layers["cells [VDSR preview]"].data.shape[0] == 1
    viewer.layers.remove("cells [VDSR preview]")
    assert not widget.preview_button.isChecked()
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    click(qtbot, widget.preview_button)
    viewer.layers.remove("cells")
    assert len(viewer.layers) == 0
