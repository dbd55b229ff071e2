"""The face of the Upscale widget: its controls and where they are."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_vdsr.forms import make_box, make_collapsible, make_combo, make_form, make_row, make_text
from napari_vdsr.models.box import ModelBox
from napari_vdsr.upscale.preferences import preference

HONEST = "The network predicts detail from what it saw in other images; it does not measure it."
MAX_SCALE = 1000
MEMORY, LAZY, DISK = "memory", "lazy", "disk"  # where a result is


class UpscaleForm(QWidget):
    """All controls of the Upscale widget, without what they do."""

    def __init__(self) -> None:
        super().__init__()
        chosen = self._build_choices()
        self.estimate = make_text()
        self.message = make_text()
        self.preview_button = QPushButton("Preview")
        self.preview_button.setCheckable(True)
        self.run_button = QPushButton("Run")
        self.disk_button = QPushButton("Save to disk…")
        self.disk_button.setToolTip("Runs with the result on disk: an OME-Zarr folder, shown while it grows.")
        self.disk_button.hide()
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.cancel_button.setToolTip("Ends the run within a second.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.hide()
        self.copy_button = QPushButton("Copy as Python")
        self.copy_button.setToolTip("Copies a script for napari's console that gives the same layer.")
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        column.addLayout(chosen)
        column.addWidget(self._build_advanced())
        column.addWidget(self.estimate)
        column.addLayout(make_row(self.preview_button, self.run_button, self.cancel_button))
        column.addWidget(self.bar)
        column.addWidget(self.message)
        column.addWidget(self.disk_button)
        column.addWidget(self.copy_button)
        column.addWidget(self._build_checks())
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)

    def say(self, words: str) -> None:
        """Show one sentence below the buttons."""
        self.message.setText(words)
        self.message.setVisible(bool(words))

    def _build_checks(self) -> QCollapsible:
        """What tells how far a result can be trusted."""
        self.compare = QSlider(Qt.Orientation.Horizontal)
        self.compare.setRange(0, 100)
        self.compare.setToolTip("Draws the source over the left part of the view, up to here; 0 takes it away.")
        self.try_button = QPushButton("Try on this image")
        self.try_button.setToolTip(
            "Makes the middle of the current plane, or of its chosen region (of channels: the first), smaller by the\n"
            "scale, upscales it back, and compares bicubic interpolation and the network with the original. No layer\n"
            "is added."
        )
        self.added_button = QPushButton("Added detail")
        self.consistency_button = QPushButton("Consistency")
        self.trial = make_text()
        self.trial.hide()
        honest = make_text(HONEST)
        honest.setObjectName("honest")
        lines = make_form()
        lines.addRow("Source | result", self.compare)
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(lines)
        column.addLayout(make_row(self.added_button, self.consistency_button))
        column.addWidget(self.try_button)
        column.addWidget(self.trial)
        column.addWidget(honest)
        return make_collapsible("Check the result", box, open_=True)

    def _build_choices(self) -> QFormLayout:
        """What a run needs to know."""
        self.layer = make_combo("The image to upscale. It stays as it is; the result is a new layer.")
        self.scale = ShortSpinBox()
        self.scale.setRange(1.01, MAX_SCALE)
        self.scale.setSingleStep(0.5)
        self.scale.setValue(preference("scale"))
        self.pixel_size = ShortSpinBox()
        self.pixel_size.setKeyboardTracking(False)
        self.scale.setToolTip("Output pixels per input pixel along rows and columns. It need not be a whole number.")
        self.model = ModelBox()
        self.channels = make_combo("")
        self.planes = make_combo("")
        self.region = make_combo(
            "The whole layer, what the canvas shows now, or what lies inside a shape: the selected shapes of a Shapes\n"
            "layer, or its last one. A region comes out as it does in the whole layer."
        )
        self.device = make_combo("Looking for devices…")
        self.device.addItem("Automatic", None)
        lines = make_form()
        for label, control in (
            ("Layer", self.layer),
            ("Scale", self.scale),
            ("Pixel size", self.pixel_size),
            ("Model", self.model),
            ("Channels", self.channels),
            ("Planes", self.planes),
            ("Region", self.region),
            ("Device", self.device),
        ):
            lines.addRow(label, control)
        return lines

    def _build_advanced(self) -> QCollapsible:
        """What hardly anybody has to change, closed."""
        self.tile = QSpinBox()
        self.tile.setRange(0, 4096)
        self.tile.setSingleStep(32)
        self.tile.setSpecialValueText("Automatic")
        self.range = make_combo(
            "The intensities that become 0 and 1 for the network: by default found once for the whole layer, so that\n"
            "hot pixels do not count and a region comes out as it does in the whole. Values outside are not clipped."
        )
        self.range.addItems(["Found in the layer", "Given"])
        self.low, self.high = QLineEdit("0"), QLineEdit("255")
        for edit, word in ((self.low, "0"), (self.high, "1")):
            edit.setToolTip(f"The intensity that becomes {word}. Choose “Given” to set it.")
            edit.setEnabled(False)
        self.result = make_combo(
            "In memory: all of it is computed now. Lazy: a layer of several levels, the finest of which is computed\n"
            "where one looks, when one looks; for images that are large or lie on disk. On disk: all is computed now\n"
            "and written to an OME-Zarr folder, which needs little memory; a run that is cancelled goes on later."
        )
        self.result.addItem("In memory", MEMORY)
        self.result.addItem("Lazy: computed where you look", LAZY)
        self.result.addItem("On disk: saved as OME-Zarr", DISK)
        self.asynchronous = QPushButton("Render asynchronously")
        self.asynchronous.setToolTip("Turns on asynchronous rendering, as under Preferences > Experimental.")
        self.asynchronous.hide()
        self.keep = QCheckBox("Keep finished tiles when cancelled")
        self.keep.setChecked(preference("keep"))
        self.keep.setToolTip("If not, the layer of a cancelled run is removed.")
        lines = make_form()
        lines.addRow("Result", self.result)
        lines.addRow(self.asynchronous)
        lines.addRow("Tile size", self.tile)
        lines.addRow("Range", self.range)
        lines.addRow("", make_box(make_row(self.low, self.high)))
        lines.addRow(self.keep)
        box = QWidget()
        box.setLayout(lines)
        self.advanced = make_collapsible("Advanced", box, open_=False)
        return self.advanced


class ShortSpinBox(QDoubleSpinBox):
    """A number without trailing zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(9)

    def textFromValue(self, value: float) -> str:
        """The number in up to six digits."""
        return f"{value:.6g}"
