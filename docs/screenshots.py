"""Make the pictures of the plugin's guide, under Xvfb with GLX where there is no screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_vdsr.upscale import disk
from napari_vdsr.upscale.widget import UpscaleWidget

IMAGES = Path(__file__).parent / "images"
SIZE = (1280, 800)


def main() -> None:
    """Look at a preview of the sample, upscale it, look at the result, and take a picture of each."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-vdsr", "u2os")
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    widget.restore_defaults()
    wait(lambda: widget.facts is not None)
    take(viewer, "before")
    show_preview(viewer, widget)
    viewer.reset_view()
    widget.form.tile.value = 96  # the sample is small
    widget.start()
    wait(lambda: widget.queue.batch is not None and widget.queue.batch.fraction() > 0.5)
    take(viewer, "running")
    wait(lambda: widget.run is None)
    widget.form.tile.value = 0
    look_closely(viewer)
    take(viewer, "result")
    widget.compare.on.value = True
    take(viewer, "compare")
    widget.compare.on.value = False
    viewer.theme = "light"
    check(viewer, widget)
    viewer.theme = "dark"
    show_reason(viewer, widget)
    save_to_disk(viewer, widget)
    viewer.close()


def look_closely(viewer: napari.Viewer) -> None:
    """Zoom in on a cell."""
    viewer.scene.camera.center = (0, 93, 135)
    viewer.scene.camera.zoom *= 3


def show_preview(viewer: napari.Viewer, widget: UpscaleWidget) -> None:
    """A preview at work: a picture of each step, as an animation, and of the end."""
    look_closely(viewer)
    steps = [canvas(viewer)]
    widget.face.preview_button.setChecked(True)
    count = 0
    while not widget.previews.complete:
        wait(lambda count=count: sum(preview.done for preview in widget.previews.shown) > count)
        count = sum(preview.done for preview in widget.previews.shown)
        steps.append(canvas(viewer))
    take(viewer, "preview")
    durations = [1500] + [350] * (len(steps) - 2) + [3000]
    steps[0].save(IMAGES / "napari_preview.gif", save_all=True, append_images=steps[1:], duration=durations, loop=0)
    widget.face.preview_button.setChecked(False)


def canvas(viewer: napari.Viewer) -> Image.Image:
    """A picture of the canvas, in few colours."""
    picture = Image.fromarray(viewer.screenshot(canvas_only=True, flash=False)[..., :3])
    picture.thumbnail((480, 600))
    return picture.quantize(128)


def check(viewer: napari.Viewer, widget: UpscaleWidget) -> None:
    """What was invented, and models beside each other."""
    widget.start_check("added")
    wait(lambda: widget.run is None)
    take(viewer, "added_light")
    viewer.layers.remove(viewer.layers[-1])
    widget.show_side_by_side()
    dialog = widget.side_by_side
    assert dialog is not None
    wait(lambda: widget.run is None)
    dialog.pictures[0].view.scaleBy((0.6, 0.6))
    dialog.grab().save(str(IMAGES / "napari_side_by_side_light.png"))
    dialog.close()


def show_reason(viewer: napari.Viewer, widget: UpscaleWidget) -> None:
    """A scale that memory forbids."""
    widget.form.scale.value = 1000
    take(viewer, "reason")


def save_to_disk(viewer: napari.Viewer, widget: UpscaleWidget) -> None:
    """A result that grows on disk."""
    widget.form.scale.value, widget.form.tile.value, widget.form.result.value = 4, 128, "disk"
    widget.choices.layer_list.tick(widget.choices.layers[:1])
    viewer.reset_view()
    disk.SHARD = 256  # the sample is small
    with TemporaryDirectory() as folder:
        QFileDialog.getSaveFileName = lambda *_: (str(Path(folder, "U2OS cells x4")), "")  # type: ignore[method-assign]
        widget.start()
        wait(lambda: widget.run is not None and widget.run.done > 5)
        take(viewer, "disk")
        widget.queue.cancel()
        wait(lambda: widget.run is None)
        widget.discard()
        widget.restore_defaults()


def wait(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Let the viewer work until a condition holds."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TimeoutError
        QApplication.processEvents()
        time.sleep(0.01)


def take(viewer: napari.Viewer, name: str) -> None:
    """Take a picture of the whole window."""
    start = time.monotonic()
    wait(lambda: time.monotonic() - start > 1)
    viewer.screenshot(str(IMAGES / f"napari_{name}.png"), canvas_only=False, flash=False)


if __name__ == "__main__":
    main()
