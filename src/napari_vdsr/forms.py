"""Rows, buttons and texts that the forms of both widgets are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from html import escape
from importlib.resources import files
from typing import Any

from magicgui.backends._qtpy.widgets import FloatSlider, QBaseRangedWidget, QBaseWidget
from magicgui.widgets import ComboBox, Container, Widget
from magicgui.widgets.bases import RangedWidget, SliderWidget
from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QGuiApplication, QHelpEvent, QIcon, QValidator
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QDockWidget,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QTextBrowser,
    QToolTip,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

MARGIN = 4  # pixels of a list beside its text
ARROWS = {False: "\u25b8", True: "\u25be"}  # of what is folded away, and what is not


def choice(label: str, tooltip: str, choices: Any = ()) -> ComboBox:
    """A list of choices, as magicgui has it, that does not widen the widget."""
    box = ComboBox(label=label, choices=choices)
    box.tooltip = f"<qt>{tooltip}</qt>" if tooltip else ""
    narrow(box.native)
    return box


def narrow(combo: QComboBox) -> None:
    """Let the longest entry of a list not widen the widget."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(12)
    combo.installEventFilter(_Elided(combo))


class _Elided(QObject):
    """Ends a chosen text that does not fit with an ellipsis, and puts it above the tooltip; Qt only cuts it."""

    def eventFilter(self, combo: QObject | None, event: QEvent | None) -> bool:
        if event is None or not isinstance(combo, QComboBox):
            return False
        if event.type() == QEvent.Type.Paint:
            option = QStyleOptionComboBox()
            shorten(combo, option)
            painter = QStylePainter(combo)
            painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
            painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
            painter.end()
            return True
        if isinstance(event, QHelpEvent) and shorten(combo, QStyleOptionComboBox()) != combo.currentText():
            tip = re.sub("</?qt>", "", combo.toolTip())
            QToolTip.showText(event.globalPos(), f"<qt><b>{escape(combo.currentText())}</b><br>{tip}</qt>", combo)
            return True
        return False


def shorten(combo: QComboBox, option: QStyleOptionComboBox) -> str:
    """Describe how to draw a list, with as much of the chosen text as fits; gives the text."""
    combo.initStyleOption(option)
    style = combo.style()
    assert style is not None
    room = style.subControlRect(
        QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, combo
    ).width()
    metrics = combo.fontMetrics()
    option.currentText = metrics.elidedText(combo.currentText(), Qt.TextElideMode.ElideRight, room - MARGIN)
    return option.currentText


def make_text(words: str = "") -> QLabel:
    """A few lines of text that may be copied."""
    label = QLabel(words)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


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


class ShortSpinBox(QDoubleSpinBox):
    """A number without trailing zeros, typed with the decimal comma or point.

    Where the decimal point is a point, commas between groups of three digits separate thousands, as in 65,535.
    """

    def __init__(self, parent: QWidget | None = None) -> None:  # which magicgui gives
        super().__init__(parent)
        self.setDecimals(9)

    def textFromValue(self, value: float) -> str:
        """The number in up to six digits."""
        return f"{value:.6g}".replace(".", self.locale().decimalPoint())

    def valueFromText(self, text: str | None) -> float:
        """The number that was typed; the value itself where the text is still the one shown for it."""
        number = self._parse(text)
        return self.value() if number is None or self._parse(self.textFromValue(self.value())) == number else number

    def validate(self, text: str | None, position: int) -> Any:
        """Whether the text is a number in the range."""
        number = self._parse(text)
        fits = number is not None and self.minimum() <= number <= self.maximum()
        return (QValidator.State.Acceptable if fits else QValidator.State.Intermediate), text, position

    def _parse(self, text: str | None) -> float | None:
        typed = (text or "").removesuffix(self.suffix()).strip()
        if self.locale().decimalPoint() == "." and re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", typed):
            typed = typed.replace(",", "")
        try:
            return float(typed.replace(",", "."))
        except ValueError:
            return None


class _NumberBackend(QBaseRangedWidget):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(ShortSpinBox, **keywords)


class NumberBox(RangedWidget[float]):
    """`ShortSpinBox` as a magicgui widget."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(widget_type=_NumberBackend, **keywords)


class _SliderBackend(FloatSlider):
    _readout = ShortSpinBox


class NumberSlider(SliderWidget[float]):
    """A slider beside a `ShortSpinBox`, as a magicgui widget."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(widget_type=_SliderBackend, **keywords)


class _HeldBackend(QBaseWidget):
    def __init__(self, held: QWidget, parent: QWidget | None = None, **keywords: Any) -> None:
        super().__init__(lambda parent: held, parent=parent)  # type: ignore[arg-type]


class Held(Widget):
    """A Qt widget that magicgui has no kind of, as a row of a container."""

    def __init__(self, held: QWidget, **keywords: Any) -> None:
        super().__init__(widget_type=_HeldBackend, backend_kwargs={"held": held}, **keywords)


class _Still(QObject):
    """Hands the wheel on to what scrolls."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or event.type() != QEvent.Type.Wheel:
            return False
        event.ignore()
        return True


def ignore_wheel(box: QWidget) -> None:
    """Let the wheel scroll a form, and never change the control that it happens to pass over."""
    still = _Still(box)
    for kind in (QComboBox, QAbstractSpinBox, QSlider):
        for control in box.findChildren(kind):
            control.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            control.installEventFilter(still)


class Panel(QWidget):
    """A page that is docked: it leaves the viewer when it is closed, and shares the place of our other panel.

    napari takes a closed panel out of its dock, and makes another one when it is opened again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown = True  # or not closed yet

    def leave(self) -> None:
        """Follow the viewer no longer; work that is under way continues, and another panel will show it."""

    def showEvent(self, event: Any) -> None:
        """Become a tab beside the other panel."""
        super().showEvent(event)
        if isinstance(self.window(), QMainWindow):
            QTimer.singleShot(0, partial(tabify, self))

    def changeEvent(self, event: Any) -> None:
        """Leave when the panel is closed."""
        super().changeEvent(event)
        if event.type() == event.Type.ParentChange and self.parent() is None and self.shown:
            self.shown = False
            self.leave()


def set_tip(button: QWidget, words: str) -> None:
    """Give a tooltip whose lines are wrapped."""
    button.setToolTip(f"<qt>{words.strip()}</qt>")


def scrolled(page: QWidget) -> QScrollArea:
    """A page that scrolls up and down."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(page)
    return scroll


def copy_text(text: str, what: str) -> str:
    """Put a text on the clipboard, say so, and return it."""
    if (clipboard := QGuiApplication.clipboard()) is not None:
        clipboard.setText(text)
    show_info(f"The {what} is on the clipboard.")
    return text


def open_panel(viewer: Any, name: str) -> Any:
    """Show one of our panels, which may be under another tab; give its widget."""
    dock, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", name, tabify=True)
    dock.show()
    dock.raise_()
    return widget


def tabify(widget: QWidget) -> None:
    """Put a docked widget as a tab onto another one of ours, if there is one: each gets the whole height."""
    window, dock = widget.window(), widget.parent()
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parent()
    if dock is None or not isinstance(window, QMainWindow):
        return
    for other in window.findChildren(QDockWidget):
        ours = any(type(child).__module__.startswith("napari_vdsr.") for child in other.findChildren(QWidget))
        if other is not dock and ours and other.isVisible() and other not in window.tabifiedDockWidgets(dock):
            window.tabifyDockWidget(other, dock)
            dock.raise_()


def show_guide(parent: QWidget, title: str, name: str) -> None:
    """Show a guide that comes with the package, without a browser or a network."""
    text = QTextBrowser()
    text.setMarkdown((files("napari_vdsr") / "guides" / f"{name}.md").read_text(encoding="utf-8"))
    dialog = QDialog(parent)
    dialog.setWindowTitle(title)
    dialog.resize(560, 620)
    column = QVBoxLayout(dialog)
    column.addWidget(text)
    dialog.show()


def make_row(*widgets: QWidget) -> QHBoxLayout:
    """Controls side by side."""
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    row.setContentsMargins(0, 0, 0, 0)
    return row


def make_column(box: QWidget, *parts: QWidget | QLayout, margin: int = 0) -> QVBoxLayout:
    """Put controls and rows of them below each other into a box."""
    column = QVBoxLayout(box)
    column.setContentsMargins(margin, margin, margin, margin)
    for part in parts:
        if isinstance(part, QLayout):
            column.addLayout(part)
        else:
            column.addWidget(part)
    return column


def make_box(layout: QHBoxLayout) -> QWidget:
    """A layout as a widget."""
    box = QWidget()
    box.setLayout(layout)
    return box


def offer_devices(box: ComboBox, devices: Mapping[str, str]) -> None:
    """Offer devices, each with a few words, below the automatic choice."""
    found = [(f"{name.upper()}: {words}" if name != "cpu" else "CPU", name) for name, words in devices.items()]
    with box.changed.blocked():
        box.choices = [("Automatic", None), *found]


def align_labels(*containers: Container[Any]) -> None:
    """Give the labels of some magicgui forms one width, so that their controls begin in one column; when shown."""
    rows = [row for container in containers for widget in container if (row := widget._labeled_widget()) is not None]
    widest = max(row._label_widget.native.sizeHint().width() for row in rows)
    for row in rows:
        row.label_width = widest


def refill(box: ComboBox) -> None:
    """Ask for the choices again, in which words may differ, and keep the choice; only another one emits a signal."""
    before = box.value
    with box.changed.blocked(), QSignalBlocker(box.native):
        box.native.clear()  # magicgui would put those with other words behind those with the same
        box.reset_choices()
        if before in box.choices:
            box.value = before
    if box.value != before:
        box.changed.emit(box.value)
