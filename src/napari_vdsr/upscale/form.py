"""The controls of the Upscale widget, as magicgui containers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QProgressBar, QPushButton, QScrollArea, QWidget

from napari_vdsr.forms import (
    Held,
    NumberBox,
    NumberSlider,
    align_labels,
    choice,
    ignore_wheel,
    make_collapsible,
    make_column,
    make_row,
    make_text,
    refill,
)
from napari_vdsr.models.box import ModelBox
from napari_vdsr.upscale.layer_list import LayerList
from napari_vdsr.upscale.preferences import preference
from napari_vdsr.upscale.task import AUTO, LayerCondition, to_compression, to_quality

if TYPE_CHECKING:
    from napari_vdsr.upscale.error_plot import ErrorPlot
    from vdsr_core import ErrorReport

HONEST = "The network predicts detail from what it saw in other images; it does not measure it."
MAX_SCALE = 1000
PLACED = 200  # milliseconds after which a text that is shown has its place
MEMORY, LAZY, DISK = "memory", "lazy", "disk"  # where a result is
RESULTS = [("In memory", MEMORY), ("Compute while I look around", LAZY), ("On disk, as OME-Zarr", DISK)]
Offer = Callable[[Any], list[tuple[str, Any]]]
AUTOMATIC, BY_HAND, NONE = "automatic", "by hand", "none"


class Form:
    """The controls, without what they do; `chosen` and `advanced` are magicgui containers.

    `offer_channels`, `offer_planes` and `offer_regions` give the choices that there are now, as magicgui asks for them.
    """

    def __init__(self, layers: LayerList, offer_channels: Offer, offer_planes: Offer, offer_regions: Offer) -> None:
        self.layers, self.model = layers, ModelBox()
        self.scale = NumberBox(name="scale", label="Enlarge by", value=2.0, min=1.01, max=MAX_SCALE, step=0.5)
        self.scale.tooltip = "Output pixels per input pixel along rows and columns; it need not be an integer."
        self.pixel_size = NumberBox(name="pixel_size", label="Pixel size", value=0, min=0, max=1)
        self.pixel_size.native.setKeyboardTracking(False)
        self.quality = choice(
            "Quality",
            "Best gives the network the image in eight positions, turned and mirrored, and takes the mean of the "
            "results.",
            [("Standard", False), ("Best (about 8 times slower)", True)],
        )
        self.removal = Removal()
        self.channels = choice("Channels", "", offer_channels)
        self.planes = choice("Z and time", "", offer_planes)
        self.region = choice(
            "Region",
            "The whole layer, what the canvas shows now, or what lies inside a shape: the selected shapes of a Shapes "
            "layer, or its last one. A region has the same pixels as in the result of the whole layer.",
            offer_regions,
        )
        self.chosen = Container(
            widgets=[
                Held(self.layers, name="layers", label="Layers"),
                self.scale,
                self.pixel_size,
                Held(self.model, name="model", label="Model"),
                self.quality,
                *self.removal.rows,
                self.channels,
                self.planes,
                self.region,
            ]
        )
        self.advanced = self._build_advanced()
        for container in (self.chosen, self.advanced):
            container.margins = (0, 0, 0, 0)

    def _build_advanced(self) -> Container[Any]:
        """The settings that are rarely changed."""
        self.device = choice("Device", "Looking for devices…", [("Automatic", None)])
        self.result = choice(
            "Result",
            "In memory: everything is computed now. Compute while I look around: only what you look at is computed, "
            "when you look at it; for images that are large or lie on disk. On disk: everything is computed now and "
            "written to an OME-Zarr folder, in little memory; a cancelled run can be resumed.",
            RESULTS,
        )
        self.tile = NumberBox(name="tile", label="Tile size", value=0, min=0, max=4096, step=32)
        self.tile.native.setSpecialValueText("Automatic")
        self.range = choice(
            "Black and white",
            "The intensities that become 0 and 1 for the network. Automatic finds them once for the whole layer; hot "
            "pixels do not count. Values outside are not clipped.",
            [("Automatic", AUTOMATIC), ("By hand", BY_HAND)],
        )
        limits = {"min": -1e15, "max": 1e15, "step": 1.0, "enabled": False}
        self.low = NumberBox(name="low", label="Black", value=0, **limits)
        self.high = NumberBox(name="high", label="White", value=255, **limits)
        self.keep = CheckBox(name="keep", label="", text="Keep finished tiles when cancelled")
        self.keep.tooltip = "Otherwise the layer of a cancelled run is removed."
        return Container(widgets=[self.device, self.result, self.tile, self.range, self.low, self.high, self.keep])

    def recall(self) -> None:
        """Begin with what was chosen last."""
        self.scale.value = preference("scale")
        self.result.value = preference("result")
        self.keep.value = preference("keep")
        self.quality.value = preference("best")
        wanted = preference("model")
        self.model.choose(wanted if self.model.findData(wanted) >= 0 or Path(wanted).is_file() else None)


class Removal:
    """What the network removes: noise and the traces of JPEG; seen where it can."""

    def __init__(self) -> None:
        self._condition = LayerCondition()
        self._maps: tuple[str, ...] = ()
        self.noise = choice(
            "Noise",
            "Automatic removes the noise that is found in the layer, in percent of the range from black to white; some "
            "models keep weak noise. By hand begins with that; turn Preview on to see what the slider does. Fine "
            "detail may look like noise and be removed, too.",
            self._offer_noise,
        )
        self.level = NumberSlider(label="Noise, %", value=0, min=0, max=20, step=0.1, visible=False)
        self.level.tooltip = "Standard deviation of the noise, in percent of the range from black to white."
        self.compression = choice(
            "JPEG traces",
            "Automatic removes the blocks and rings of JPEG, as strongly as the file of the layer was compressed.",
            self._offer_compression,
        )
        self.jpeg = NumberSlider(label="JPEG quality", value=100, min=10, max=100, step=1, visible=False)
        self.jpeg.tooltip = "The quality that the image was saved with; the lower, the more is removed."
        self.rows = self.noise, self.level, self.compression, self.jpeg
        for box, slider, name in ((self.noise, self.level, "noise"), (self.compression, self.jpeg, "compression")):
            box.changed.connect(partial(self._chosen, box, slider, name))
        self.show_for((), LayerCondition())

    def _offer_noise(self, box: Any) -> list[tuple[str, str]]:
        found = ""
        if self._condition.noise:
            shares = [f"{100 * share:.2g}" for share in self._condition.noise if share >= 0.0005]
            found = f": {self._condition.about}{', '.join(shares)} %" if shares else ": none"
        return [(f"Automatic{found}", AUTO), ("None", NONE), ("By hand", BY_HAND)]

    def _offer_compression(self, box: Any) -> list[tuple[str, str]]:
        found = ""
        if self._condition.noise:
            strength = self._condition.compression
            found = f": quality {to_quality(strength):.0f}" if strength else ": none"
        return [(f"Automatic{found}", AUTO), ("None", NONE), ("By hand", BY_HAND)]

    def show_for(self, maps: tuple[str, ...], condition: LayerCondition) -> None:
        """Show what a network with these maps can remove, and what was found of the layers."""
        self._maps, self._condition = maps, condition
        for box, slider, name in ((self.noise, self.level, "noise"), (self.compression, self.jpeg, "compression")):
            refill(box)
            box.visible = name in maps
            slider.visible = name in maps and box.value == BY_HAND

    def _chosen(self, box: Any, slider: Any, name: str, value: str) -> None:
        """Begin by hand with what was found."""
        if value == BY_HAND and self._condition.noise:
            noise, compression = self._condition.noise, self._condition.compression
            slider.value = 100 * max(noise) if box is self.noise else to_quality(compression)
        slider.visible = name in self._maps and value == BY_HAND

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of `super_resolve`; nothing of a network that has no such map."""
        noise = {AUTO: AUTO, NONE: 0, BY_HAND: f"{self.level.value:.4g}%"}[self.noise.value]
        by_hand = to_compression(self.jpeg.value) if self.jpeg.value < 100 else 0.0
        compression = {AUTO: AUTO, NONE: 0.0, BY_HAND: by_hand}[self.compression.value]
        return {name: one for name, one in (("noise", noise), ("compression", compression)) if name in self._maps}


class Face(QWidget):
    """How the form, the buttons and the texts are laid out."""

    def __init__(self, form: Form, compare: Container[Any], queue: QWidget) -> None:
        super().__init__()
        self.hint_box = self._build_hint()
        self.asynchronous = QPushButton("Allow background drawing (napari setting)")
        self.asynchronous.setToolTip(
            "Without it napari would freeze while it computes. This turns on Preferences > Experimental > Render "
            "images asynchronously; you can turn it off there."
        )
        self.estimate, self.caution, self.message, self.trial = (make_text() for _ in range(4))
        self.preview_button, self.run_button, self.cancel_button = map(QPushButton, ("Preview", "Run", "Cancel"))
        self.preview_button.setCheckable(True)
        self.cancel_button.setToolTip("Ends the run within a second. (Escape)")
        self.bar = QProgressBar()
        self.disk_button = QPushButton("Save to disk…")
        self.disk_button.setToolTip("Runs with the result on disk: an OME-Zarr folder, shown while it grows.")
        self.nan_button = QPushButton("Replace NaN…")
        self.nan_button.setToolTip("Adds a copy of the layer in which a number replaces NaN and infinity.")
        self.copy_button, self.folder_button = QPushButton("Copy as Python"), QPushButton("A folder of files…")
        self.copy_button.setToolTip("Copies a few lines for napari's console that give the same layers.")
        self.defaults_button, self.guide_button = QPushButton("Restore defaults"), QPushButton("?")
        self.guide_button.setFixedWidth(28)
        self.guide_button.setToolTip("Opens the guide.")
        self.unfinished_box = self._build_unfinished()
        advanced = QWidget()
        buttons = make_row(self.defaults_button, self.copy_button)
        make_column(advanced, form.advanced.native, self.asynchronous, buttons)
        self.advanced = make_collapsible("Advanced", advanced, open_=False)
        self.checks = make_collapsible("Look at the result", self._build_checks(compare), open_=True)
        above = self.hint_box, form.chosen.native, self.advanced, self.estimate, self.caution
        run = make_row(self.preview_button, self.run_button, self.cancel_button)
        below = self.bar, self.message, self.disk_button, self.nan_button, self.unfinished_box, queue, self.checks
        make_column(self, *above, run, *below, make_row(self.folder_button, self.guide_button), margin=6).addStretch(1)
        self._placing = QTimer(self)
        self._placing.setSingleShot(True)
        self._placing.setInterval(PLACED)
        self._placing.timeout.connect(self._scroll_to_trial)
        self._containers = form.chosen, form.advanced, compare
        some_times = self.hint_box, self.asynchronous, self.bar, self.disk_button, self.nan_button, self.unfinished_box
        for hidden in (*some_times, self.trial):
            hidden.hide()
        ignore_wheel(self)

    def _build_hint(self) -> QWidget:
        """A sentence that proposes something, and two answers."""
        self.hint, self.hint_button, self.no_hint_button = make_text(), QPushButton(), QPushButton("No, thanks")
        box = QWidget()
        make_column(box, self.hint, make_row(self.hint_button, self.no_hint_button))
        return box

    def _build_unfinished(self) -> QWidget:
        """The results on disk that are not finished, and what can be done with them."""
        self.unfinished = choice("", "Results on disk that are not finished.")
        self.resume_button, self.discard_button = QPushButton("Resume"), QPushButton("Discard")
        box = QWidget()
        make_column(box, self.unfinished.native, make_row(self.resume_button, self.discard_button))
        return box

    def _build_checks(self, compare: Container[Any]) -> QWidget:
        """What shows the difference, and tells how far a result can be trusted."""
        self.original_button = QPushButton("Show original")
        self.original_button.setCheckable(True)
        self.original_button.setToolTip("Shows the source in place of the result, as while the key B is held down.")
        self.added_button, self.agrees_button = QPushButton("What was invented"), QPushButton("Agrees with original?")
        self.expected_button = QPushButton("Expected error")
        self.try_button, self.side_button = QPushButton("Try on this image"), QPushButton("Side by side")
        self.side_button.setToolTip("Opens a window with up to four models beside each other on the part in view.")
        compare.margins = (0, 0, 0, 0)
        self.error_plot: ErrorPlot | None = None  # made when there is something to show
        honest = make_text(HONEST)
        honest.setObjectName("honest")
        box, signed = QWidget(), make_row(self.added_button, self.agrees_button)
        trials = make_row(self.try_button, self.side_button)
        parts = self.original_button, compare.native, signed, self.expected_button, trials, self.trial, honest
        self._checks_column = make_column(box, *parts)
        return box

    def showEvent(self, event: Any) -> None:
        """Align what could not be measured before."""
        super().showEvent(event)
        align_labels(*self._containers)

    def show_trial(self, words: str, errors: ErrorReport | None = None) -> None:
        """Show what a check or a trial has found, and scroll to it once it has its place."""
        self.hide_trial()
        self.trial.setText(words)
        self.trial.show()
        if errors is not None:
            if self.error_plot is None:
                from napari_vdsr.upscale.error_plot import ErrorPlot  # pyqtgraph takes its time

                self.error_plot = ErrorPlot()
                self._checks_column.insertWidget(self._checks_column.indexOf(self.trial) + 1, self.error_plot)
            self.error_plot.show_report(errors)
            self.error_plot.show()
        self._placing.start()

    def hide_trial(self, *_: Any) -> None:
        """Say no longer what was found for something else."""
        self.trial.hide()
        if self.error_plot is not None:
            self.error_plot.hide()

    def _scroll_to_trial(self) -> None:
        above = self.parent()
        while above is not None and not isinstance(above, QScrollArea):
            above = above.parent()
        if above is not None:
            above.ensureWidgetVisible(self.trial)
            if self.error_plot is not None and not self.error_plot.isHidden():
                above.ensureWidgetVisible(self.error_plot)

    def say(self, words: str) -> None:
        """Show one sentence below the buttons."""
        self.message.setText(words)
        self.message.setVisible(bool(words))
