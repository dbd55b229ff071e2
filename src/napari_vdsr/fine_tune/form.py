"""The controls of the Fine-tune widget, as magicgui containers, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import Container, FileEdit, LineEdit, PushButton, SpinBox
from qtpy.QtWidgets import QPushButton, QWidget

from napari_vdsr.fine_tune.pair_rows import PairRows
from napari_vdsr.fine_tune.recipe import LENGTHS, NEW
from napari_vdsr.forms import Held, NumberBox, align_labels, choice, make_collapsible, make_column, make_row, make_text
from napari_vdsr.models.box import ModelBox
from napari_vdsr.upscale.layer_list import LayerList
from vdsr_core import FineTuneConfig

LAYERS, PAIRS, FOLDER = "Image layers", "Pairs: blurred and sharp", "A folder of images"
REDUCED, CAMERA = "Reduced only", "With blur and noise"
GIVEN = "As under Advanced"
Offer = Callable[[Any], list[tuple[str, Any]]]


class Form:
    """The controls, without what they do; `chosen` and `advanced` are magicgui containers.

    `offer_parts`, `offer_channels` and `offer_lengths` give the choices that there are now, as magicgui asks for them.
    """

    def __init__(self, layers: LayerList, offer_parts: Offer, offer_channels: Offer, offer_lengths: Offer) -> None:
        self.layers, self.pairs, self.model = layers, PairRows(), ModelBox(NEW)
        self.layers.setToolTip("Tick sharp images. A part of each is kept for testing whether the training helps.")
        self.model.setToolTip("Where to start. A network that was trained before needs far fewer images and steps.")
        kinds = "What the network learns from: sharp images, as you would like to have them."
        self.kind = choice("Learn from", kinds, [LAYERS, PAIRS, FOLDER])
        parts = "Draw rectangles in a Shapes layer to learn from those parts only."
        self.part = choice("Parts", parts, offer_parts)
        channels = "An axis of channels, if the layers have one. Each channel gets its own range of intensities."
        self.channels = choice("Channels", channels, offer_channels)
        self.folder = FileEdit(label="Folder", mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True)
        self.folder.tooltip = (
            "Holds TIFF, PNG, JPEG, WebP or zarr images. Files that cannot be read are left out and named."
        )
        self.scales = LineEdit(label="Enlarge by", value="2, 3, 4")
        self.scales.tooltip = "The scales to learn, from 1.1 to 32. One scale is learnt faster than three."
        self.length = choice("Length", "Training ends earlier when nothing better is found for long.", offer_lengths)
        self.name = LineEdit(label="Name")
        self.name.tooltip = "The name of the new network in the list of models."
        self.rows = {
            "layers": Held(self.layers, name="layers", label="Layers"),
            "pairs": Held(self.pairs, name="pairs", label="Pairs"),
        }
        start = Held(self.model, name="model", label="Start from")
        self.chosen: Container[Any] = Container(
            widgets=[
                self.kind,
                *self.rows.values(),
                self.folder,
                self.part,
                self.channels,
                start,
                self.scales,
                self.length,
                self.name,
            ]
        )
        self.advanced = self._build_advanced()
        for container in (self.chosen, self.advanced):
            container.margins = (0, 0, 0, 0)

    def _build_advanced(self) -> Container[Any]:
        """The settings that are rarely changed."""
        self.low_side = choice(
            "Blurred copies",
            "How the low-resolution copies of your sharp images are made: by reduction only, or with blur before and "
            "noise after it, as in your camera. Then the network also learns to sharpen and to remove noise.",
            [REDUCED, CAMERA],
        )
        self.blur = NumberBox(label="Blur", value=1, min=0, max=20, step=0.1)
        self.blur.tooltip = "Standard deviation of the blur, in pixels of the sharp image."
        self.noise = NumberBox(label="Noise, %", value=1, min=0, max=50, step=0.1)
        self.noise.tooltip = "Standard deviation of the noise of the blurred copies, in percent of the intensity range."
        self.measure_button = PushButton(text="Measure in the layer")
        self.measure_button.tooltip = (
            "Chooses blur and noise so that the reduced layer is as soft and noisy as the layer itself."
        )
        self.hold_out = SpinBox(label="Kept for testing, %", value=20, min=5, max=50)
        self.hold_out.tooltip = "The fraction that is never trained with: of each layer, or of the images of a folder."
        self.steps = count("Steps", 1000, 10_000_000, "The maximum number of training steps.")
        self.rate = NumberBox(label="Learning rate", value=FineTuneConfig.learning_rate, min=1e-7, max=1, step=1e-5)
        self.rate.tooltip = "How far a step changes the network at first; it falls to zero as a cosine."
        self.theta = NumberBox(label="Gradient clip", value=0, min=0, max=10, step=0.001)
        self.theta.native.setSpecialValueText("none")
        self.theta.tooltip = "Theta: limits the gradient to theta / learning rate, and trains with AdamW."
        self.batch = count("Patches per step", 16, 256, "How many patches the network sees in each step (batch size).")
        self.patch = count("Patch size", 48, 256, "Rows and columns of a patch in pixels.", least=16)
        self.every = count(
            "Steps between tests", 50, 100_000, "Steps between two tests on the part that is kept for testing."
        )
        self.patience = count(
            "Tests without gain", 5, 1000, "Training ends after this many tests without a better result."
        )
        self.seed = count(
            "Seed", 0, 2**31 - 1, "The seed of all random choices: the same one gives the same network.", 0
        )
        self.device = choice("Device", "Where to compute.", [("Automatic", None)])
        self.of_length = {
            "steps": self.steps,
            "batch_size": self.batch,
            "validate_every": self.every,
            "patience": self.patience,
        }
        widgets = [self.low_side, self.blur, self.noise, self.measure_button, self.hold_out, self.steps, self.rate]
        widgets += [self.theta, self.batch, self.patch, self.every, self.patience, self.seed, self.device]
        return Container(widgets=widgets)

    @property
    def camera(self) -> bool:
        """Whether exercises are blurred and noisy; a pair of layers says itself what is blurred."""
        return bool(self.low_side.value == CAMERA and self.kind.value != PAIRS)

    def show_kind(self) -> None:
        """Show the controls of what is learnt from."""
        kind = self.kind.value
        rows: list[tuple[Any, bool]] = [
            (self.rows["layers"], kind == LAYERS),
            (self.rows["pairs"], kind == PAIRS),
            (self.folder, kind == FOLDER),
            (self.part, kind == LAYERS),
            (self.channels, kind != FOLDER),
            (self.scales, kind != PAIRS),
            (self.low_side, kind != PAIRS),
            *((widget, self.camera) for widget in (self.blur, self.noise, self.measure_button)),
        ]
        for widget, shown in rows:
            widget.visible = shown

    def set_length(self, length: str) -> None:
        """Set what a choice of length means."""
        for name, value in LENGTHS.get(length, {}).items():
            with self.of_length[name].changed.blocked():
                self.of_length[name].value = value


class SetUpPage(QWidget):
    """The tab Set up."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form
        self.unfinished = choice("", "Trainings that were cancelled, or under way when napari was closed.")
        self.resume_button, self.discard_button = QPushButton("Resume"), QPushButton("Discard")
        self.resume_button.setToolTip("Continues from the last checkpoint; the result is as without the interruption.")
        self.discard_button.setToolTip("Deletes what has been learnt so far.")
        self.unfinished_box = QWidget()
        title, buttons = make_text("Unfinished trainings:"), make_row(self.resume_button, self.discard_button)
        make_column(self.unfinished_box, title, self.unfinished.native, buttons).setContentsMargins(0, 0, 0, 6)
        self.estimate, self.reason = make_text(), make_text()
        self.start_button = QPushButton("Start")
        self.copy_button, self.command_button = QPushButton("Copy as Python"), QPushButton("Copy as command")
        self.guide_button = QPushButton("?")
        self.guide_button.setFixedWidth(28)
        self.guide_button.setToolTip("Opens the guide.")
        advanced = make_collapsible("Advanced", form.advanced.native, open_=False)
        start, copies = make_row(self.start_button, self.guide_button), make_row(self.copy_button, self.command_button)
        choices = self.unfinished_box, form.chosen.native, advanced
        make_column(self, *choices, self.estimate, start, self.reason, copies, margin=6).addStretch(1)

    def showEvent(self, event: Any) -> None:
        """Align the controls, now that the fonts are known."""
        super().showEvent(event)
        align_labels(self._form.chosen, self._form.advanced)


def count(label: str, value: int, most: int, tooltip: str, least: int = 1) -> SpinBox:
    """An integer."""
    box = SpinBox(label=label, value=value, min=least, max=most)
    box.tooltip = tooltip
    return box
