import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QLocale, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QVBoxLayout, QWidget

from napari_vdsr.forms import NumberBox, NumberSlider, ShortSpinBox, choice, ignore_wheel, refill


@pytest.fixture(params=["en_US", "de_DE", "fr_FR", "C"])
def locale(request):
    before = QLocale()
    QLocale.setDefault(QLocale(request.param))
    yield request.param
    QLocale.setDefault(before)


@pytest.fixture
def box(locale, qtbot):
    box = NumberBox(value=2, min=1.01, max=1000, step=0.5)
    qtbot.addWidget(box.native)
    return box


def test_number_is_the_same_after_enter_and_after_an_edit(box):
    box.native.stepUp()
    QTest.keyClick(box.native, Qt.Key.Key_Return)
    assert box.value == 2.5
    box.native.lineEdit().end(False)
    QTest.keyClick(box.native, Qt.Key.Key_Backspace)
    QTest.keyClicks(box.native, "7")
    box.native.interpretText()
    assert box.value == 2.7
    box.value = 13 / 6  # more digits than are shown
    QTest.keyClick(box.native, Qt.Key.Key_Return)
    assert box.value == pytest.approx(13 / 6, abs=1e-9)


@pytest.mark.parametrize("typed", ["3,25", "3.25"])
def test_comma_and_point_are_both_understood(box, typed):
    box.native.selectAll()
    QTest.keyClicks(box.native, typed)
    box.native.interpretText()
    assert box.value == 3.25


@pytest.mark.parametrize("typed", ["0,25", "0.25"])
def test_slider_understands_comma_and_point(locale, qtbot, typed):
    slider = NumberSlider(value=3, min=0, max=20, step=0.1)
    qtbot.addWidget(slider.native)
    box = slider.native.findChild(ShortSpinBox)
    assert box.text() == "3"
    box.selectAll()
    QTest.keyClicks(box, typed)
    QTest.keyClick(box, Qt.Key.Key_Return)
    assert slider.value == pytest.approx(0.25)
    assert box.text() in ("0.25", "0,25")


@pytest.mark.parametrize(("country", "expected"), [("en_US", 65535), ("C", 65535), ("de_DE", 65.535)])
def test_comma_of_thousands_is_none_of_decimals(qtbot, country, expected):
    box = NumberBox(value=2, min=0, max=1e6)
    qtbot.addWidget(box.native)
    box.native.setLocale(QLocale(country))
    box.native.selectAll()
    QTest.keyClicks(box.native, "65,535")
    QTest.keyClick(box.native, Qt.Key.Key_Return)
    assert box.value == expected


def test_wheel_scrolls_and_changes_nothing(qtbot):
    inner, area = QWidget(), QScrollArea()
    qtbot.addWidget(area)
    box = NumberBox(value=2, min=0, max=10)
    QVBoxLayout(inner).addWidget(box.native)
    inner.setFixedHeight(2000)
    area.setWidget(inner)
    area.resize(200, 200)
    area.show()
    ignore_wheel(area)
    place = QPointF(5, 5)
    down = QWheelEvent(
        place,
        box.native.mapToGlobal(place),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(box.native, down)
    assert box.value == 2
    assert not down.isAccepted()  # it goes on to what scrolls


@pytest.mark.parametrize("chosen", ["auto", "none"])
def test_choices_whose_words_change_keep_their_places(qapp, chosen):
    words, heard = ["Automatic"], []
    box = choice("Noise", "", lambda _: [(words[-1], "auto"), ("None", "none"), ("By hand", "hand")])
    box.value = chosen
    box.changed.connect(heard.append)
    words.append("Automatic: 3 %")
    refill(box)
    assert (box.choices, box.value, heard) == (("auto", "none", "hand"), chosen, [])
    assert [box.native.itemText(i) for i in range(3)] == ["Automatic: 3 %", "None", "By hand"]
