import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr.layers.source import bare, placement
from napari_vdsr.upscale.compare import SOURCE, Compare, Line, Picture

SHAPE = 30, 40
PLACES = {
    "plain": {},
    "turned": {"rotate": 30, "translate": (4, 10)},
    "turned by a right angle": {"rotate": 90, "translate": (0, 35)},
    "upside down": {"rotate": 180, "translate": (30, 40)},
    "mirrored": {"scale": (1, -1), "translate": (0, 39)},
    "sheared": {"shear": [0.4], "scale": (0.5, 0.8)},
    "with an affine": {"affine": np.array([[0.8, 0.3, 2], [-0.2, 1.1, 1], [0, 0, 1]]), "scale": (0.7, 1.2)},
}


def test_both_sides_together_are_the_picture_without_a_line(viewer, qtbot, rng):
    """However the layers lie, and whatever their blending is."""
    viewer.show()
    comparison = Compare(viewer, None)
    kinds = ["gray", "gray", "colour"]
    for first in ("plain", "turned by a right angle", "mirrored", "with an affine"):
        while viewer.layers:
            viewer.layers.pop()
            qtbot.wait(50)
        for place, kind in zip([PLACES["turned"], PLACES[first], PLACES["mirrored"]], kinds, strict=True):
            image = rng.integers(0, 255, (*SHAPE, 3) if kind == "colour" else SHAPE).astype(np.uint8)
            looks = {"blending": "opaque" if not viewer.layers else "additive", "opacity": 0.7 if viewer.layers else 1}
            viewer.add_image(image, rgb=kind == "colour", **place, **looks)
        viewer.reset_view()
        sources = [bare(layer) for layer in reversed(viewer.layers)]
        before = shoot(viewer, qtbot)
        comparison.show([(layer, SOURCE, SOURCE) for layer in sources], lambda layer: None, 2)
        for place in ((0.5, 0.5), (0.3, 0.6)):
            comparison.move(*place)
            np.testing.assert_allclose(shoot(viewer, qtbot).astype(int), before, atol=2, err_msg=first)
        comparison.close()
        np.testing.assert_array_equal(shoot(viewer, qtbot), before)


def shoot(viewer, qtbot):
    qtbot.wait(50)
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3]


@pytest.mark.parametrize("turn", [0, 45, 90, 180])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_seen_to_the_left_lies_to_the_left(rng, place, turn):
    """Of a line in any direction, which points down, or to the right if it is level."""
    pixels = rng.random((15, 20))
    layer = Image(pixels, **PLACES[place])
    picture = Picture.of(pixels, placement(layer, (1, 1), (0, 0)), (0, 1))
    angle = np.deg2rad(turn)
    line = Line.through(np.array(layer.data_to_world((7.2, 9.1))), np.array([np.cos(angle), np.sin(angle)]))
    assert line.right[1] > 0 or (abs(line.right[1]) < 1e-9 and line.right[0] > 0)
    counted = 0
    for left in (True, False):
        cut, translate = picture.cut(line, [-2, -1], left=left)
        layer = Image(cut, **PLACES[place] | {"translate": translate})
        for index in np.argwhere(np.isfinite(cut)):
            away = (np.asarray(layer.data_to_world(index)) - line.point) @ line.right
            assert away < 0.8 if left else away > -0.8  # half a pixel
            counted += 1
    assert counted == pixels.size
