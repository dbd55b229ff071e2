"""Small pieces that the widgets are made of."""

from __future__ import annotations

import errno
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QSizePolicy, QWidget
from superqt import QCollapsible

ARROWS = {False: "\u25b8", True: "\u25be"}  # of what is folded away, and what is not
SHOWN = {  # the arguments of the core, as the widget calls them
    "image": "The layer",
    "scale": "Scale",
    "model": "The model",
    "tile": "tile size",
    "in_range": "The range",
    "device": "The device",
}


def sentence(error: Exception | None) -> str:
    """An error in words that a user of the widget can act on."""
    words = str(error) or type(error).__name__
    if isinstance(error, MemoryError) and "`" not in words:
        words = f"The memory does not suffice ({words}). Choose a smaller tile, the current plane or a smaller scale."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        words = "The disk is full: make room, and try again."
    for name, shown in SHOWN.items():
        words = words.replace(f"`{name}`", shown)
    return words.replace("`", "")


def make_combo(tooltip: str) -> QComboBox:
    """A choice that does not widen the widget."""
    combo = QComboBox()
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(12)
    combo.setToolTip(tooltip)
    return combo


def make_text(words: str = "") -> QLabel:
    """A few lines of text that may be copied."""
    label = QLabel(words)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def make_form() -> QFormLayout:
    """Labels beside controls."""
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setContentsMargins(0, 0, 0, 0)
    return form


def make_collapsible(title: str, box: QWidget, *, open_: bool) -> QCollapsible:
    """Controls that can be folded away."""
    folded = QCollapsible()
    button = folded.toggleButton()
    folded.setExpandedIcon(QIcon())  # icons are drawn in a colour that a dark theme hides
    folded.setCollapsedIcon(QIcon())
    button.setStyleSheet("QPushButton, QPushButton:checked {text-align: left; border: none; background: transparent;}")
    folded.toggled.connect(lambda opened: folded.setText(f"{ARROWS[opened]}  {title}"))
    folded.setDuration(0)
    for layout in (folded.layout(), folded.content().layout()):
        if layout is not None:
            layout.setContentsMargins(0, 0, 0, 0)
    folded.addWidget(box)
    folded.setText(f"{ARROWS[False]}  {title}")
    if open_:
        folded.expand(animate=False)
    return folded


def make_row(*widgets: QWidget) -> QHBoxLayout:
    """Controls side by side."""
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    row.setContentsMargins(0, 0, 0, 0)
    return row


def make_box(layout: QHBoxLayout) -> QWidget:
    """A layout as a widget."""
    box = QWidget()
    box.setLayout(layout)
    return box


def fill(combo: QComboBox, entries: list[tuple[str, Any]]) -> None:
    """Offer these entries, keeping the choice; it is not told if it stays."""
    chosen = combo.currentData()
    combo.blockSignals(True)
    combo.clear()
    for words, data in entries:
        combo.addItem(words, data)
    kept = [number for number, (_, data) in enumerate(entries) if chosen is not None and data == chosen]
    combo.setCurrentIndex(kept[0] if kept else 0)
    combo.blockSignals(False)
