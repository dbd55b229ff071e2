"""The face of the Fine-tune widget: its controls and where they are."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_vdsr.fine_tune.pair_rows import PairRows
from napari_vdsr.fine_tune.plots import Curves, Tiles
from napari_vdsr.fine_tune.recipe import LENGTHS, NEW
from napari_vdsr.forms import make_box, make_combo, make_form, make_row, make_text
from napari_vdsr.models.box import ModelBox
from napari_vdsr.models.page import ModelsPage

LAYERS, PAIRS, FOLDER = "Image layers", "Pairs of layers: low, sharp", "A folder of images"
ALL = "All of them"
BICUBIC, CAMERA = "Bicubic", "Blur and noise, as given"
SET_UP, TRAINING, MODELS = range(3)  # the tabs


class TrainForm(QWidget):
    """All controls of the Fine-tune widget, without what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.own = ModelsPage()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for title, page in (
            ("Set up", self._build_set_up()),
            ("Training", self._build_training()),
            ("My models", self.own),
        ):
            self.tabs.addTab(scrolled(page), title)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(340)

    # -------------------------------------------------------------------------------------------- set up

    def _build_set_up(self) -> QWidget:
        """What to train with, where to start, for how long."""
        self.kind = make_combo("What the network learns from: sharp images as you would like to have them.")
        for words in (LAYERS, PAIRS, FOLDER):
            self.kind.addItem(words, words)
        self.model = ModelBox(NEW)
        self.model.setToolTip("Where to start. A network that was trained before needs far fewer images and steps.")
        self.scales = QLineEdit("2, 3, 4")
        self.scales.setToolTip(
            "The scales to learn, numbers from 1.1 to 32 with commas between. Fewer are learnt faster."
        )
        self.length = QComboBox()
        for words in LENGTHS:
            self.length.addItem(words, words)
        self.name = QLineEdit()
        self.name.setToolTip("The name of the network that comes out, in the list of models.")
        form = make_form()
        form.addRow("Learn from", self.kind)
        form.addRow(self._build_layers())
        self.pairs = PairRows()
        form.addRow(self.pairs)
        form.addRow(self._build_folder())
        form.addRow("Start from", self.model)
        form.addRow("Scales", self.scales)
        form.addRow("Length", self.length)
        form.addRow("Name", self.name)
        self.estimate = make_text()
        self.reason = make_text()
        self.start_button = QPushButton("Start")
        self.copy_button = QPushButton("Copy as Python")
        self.command_button = QPushButton("Copy as command")
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(self._build_unfinished())
        column.addLayout(form)
        column.addWidget(self._build_advanced())
        column.addWidget(self.estimate)
        column.addWidget(self.start_button)
        column.addLayout(make_row(self.copy_button, self.command_button))
        column.addWidget(self.reason)
        column.addStretch()
        return page

    def _build_layers(self) -> QWidget:
        self.layers = QListWidget()
        self.layers.setFixedHeight(84)
        self.layers.setToolTip("Tick sharp images. A part of each is held out, to see whether the training helps.")
        self.part = make_combo("Draw rectangles in a Shapes layer to learn from those parts only.")
        self.channels = make_combo("An axis of channels, if the layers have one: each channel gets its own range.")
        form = make_form()
        form.addRow(self.layers)
        form.addRow("Parts", self.part)
        form.addRow("Channels", self.channels)
        self.layers_box = make_page(form)
        return self.layers_box

    def _build_folder(self) -> QWidget:
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("Folder of TIFF, PNG, JPEG or zarr images")
        self.browse_button = QPushButton("Browse…")
        self.folder_box = make_box(make_row(self.folder, self.browse_button))
        return self.folder_box

    def _build_unfinished(self) -> QWidget:
        """A training that can be gone on with."""
        self.unfinished = make_combo("Trainings that were cancelled, or under way when napari was closed.")
        self.resume_button = QPushButton("Resume")
        self.resume_button.setToolTip("Goes on from the last checkpoint, as if there had been no interruption.")
        self.discard_button = QPushButton("Discard")
        self.discard_button.setToolTip("Deletes what has been learnt so far.")
        self.unfinished_box = QFrame()
        column = QVBoxLayout(self.unfinished_box)
        column.setContentsMargins(0, 0, 0, 6)
        column.addWidget(make_text("An unfinished training:"))
        column.addWidget(self.unfinished)
        column.addLayout(make_row(self.resume_button, self.discard_button))
        return self.unfinished_box

    def _build_advanced(self) -> QCollapsible:
        """What hardly anybody has to change, closed."""
        self.low_side = make_combo(
            "How low images are made from sharp ones: by bicubic reduction, or blurred before it and noisy after it,\n"
            "as from your camera. Then the network learns to sharpen and to denoise as well."
        )
        self.low_side.addItems([BICUBIC, CAMERA])
        self.blur = make_number(0, 20, 1.0, 2, 0.1, "Standard deviation of the blur, in pixels of the sharp image.")
        self.noise = make_number(
            0, 50, 1.0, 2, 0.1, "Standard deviation of the noise of low images, in percent of the range of intensities."
        )
        self.noise.setSuffix(" %")
        self.measure_button = QPushButton("Measure in the layer")
        self.measure_button.setToolTip(
            "Chooses blur and noise so that a layer made smaller is as soft and as noisy as it is itself."
        )
        self.steps = make_count(1, 10_000_000, 1000, "Most batches to train with.")
        self.rate = make_number(1e-7, 1, 1e-4, 7, 1e-5, "Learning rate at the start; it falls as a cosine.")
        self.theta = make_number(
            0, 10, 0, 5, 0.001, "Gradient clipping: no element goes beyond theta / learning rate. 0 is none."
        )
        self.theta.setSpecialValueText("none")
        self.batch = make_count(1, 256, 16, "Patches in each batch.")
        self.patch = make_count(16, 256, 48, "Pixels of a patch's sides.")
        self.hold_out = make_count(
            5,
            50,
            20,
            "The share that is never trained with, to measure on: of each layer, or of the images of a folder.",
        )
        self.hold_out.setSuffix(" %")
        self.every = make_count(1, 100_000, 50, "Steps between two measurements on the held-out part.")
        self.patience = make_count(1, 1000, 5, "After how many measurements without a better one to stop.")
        self.seed = make_count(0, 2**31 - 1, 0, "Of all that is random: the same one gives the same network.")
        self.device = make_combo("Where to compute.")
        self.device.addItem("Automatic", None)
        form = make_form()
        for label, control in (
            ("Low images", self.low_side),
            ("Blur", self.blur),
            ("Noise", self.noise),
            ("", self.measure_button),
            ("Steps", self.steps),
            ("Learning rate", self.rate),
            ("Theta", self.theta),
            ("Batch", self.batch),
            ("Patch", self.patch),
            ("Held out", self.hold_out),
            ("Measure every", self.every),
            ("Patience", self.patience),
            ("Seed", self.seed),
            ("Device", self.device),
        ):
            form.addRow(label, control)
        self.advanced = QCollapsible("Advanced")
        self.advanced.setDuration(0)
        self.advanced.setCollapsedIcon("\u25b6")
        self.advanced.setExpandedIcon("\u25bc")
        self.advanced.addWidget(make_page(form))
        self.advanced.collapse(animate=False)
        return self.advanced

    # ------------------------------------------------------------------------------------------ training

    def _build_training(self) -> QWidget:
        """What is seen while it trains, and in the end."""
        self.message = make_text("Nothing has been trained yet.")
        self.warning = make_text()
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.pause_button = QPushButton("Pause")
        self.pause_button.setToolTip("Waits after this step; Upscale has all of the processor meanwhile.")
        self.stop_button = QPushButton("Stop, keep best")
        self.stop_button.setToolTip("Ends now with the network that was best on the held-out part.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(
            "Ends now without a network. It can be resumed under Set up until it is discarded."
        )
        self.curves = Curves()
        self.tiles = Tiles()
        self.scores = make_text()
        self.scores.setTextFormat(Qt.TextFormat.RichText)
        self.scores.setToolTip("PSNR on the held-out part in dB; the gain is that of this training.")
        self.use_button = QPushButton("Use in Upscale")
        self.use_button.setToolTip("Opens the Upscale widget with this network chosen.")
        self.save_button = QPushButton("Save anyway")
        self.save_button.setToolTip("Adds the network to your models although it did not help.")
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(self.bar)
        column.addLayout(make_row(self.pause_button, self.stop_button, self.cancel_button))
        column.addWidget(self.message)
        column.addWidget(self.scores)
        column.addLayout(make_row(self.use_button, self.save_button))
        column.addWidget(self.warning)
        column.addWidget(self.curves)
        column.addWidget(self.tiles)
        column.addStretch()
        return page


def make_page(layout: object) -> QWidget:
    """A layout as a widget without margins."""
    page = QWidget()
    layout.setContentsMargins(0, 0, 0, 0)  # type: ignore[attr-defined]
    page.setLayout(layout)  # type: ignore[arg-type]
    return page


def scrolled(page: QWidget) -> QScrollArea:
    """A page that scrolls up and down if it does not fit."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(page)
    return scroll


def make_count(low: int, high: int, value: int, tooltip: str) -> QSpinBox:
    """A whole number."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setValue(value)
    box.setToolTip(tooltip)
    return box


def make_number(low: float, high: float, value: float, decimals: int, step: float, tooltip: str) -> QDoubleSpinBox:
    """A number."""
    box = QDoubleSpinBox()
    box.setDecimals(decimals)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setValue(value)
    box.setToolTip(tooltip)
    return box
