import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr.layers.image_layers import bare, placement
from napari_vdsr.upscale.compare import SOURCE, Compare, Line, Picture, bring_together, join

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


KINDS = {
    "opaque": ("opaque", "additive", "additive"),
    "multiplicative": ("multiplicative", "translucent", "multiplicative"),
    "minimum": ("minimum", "minimum", "additive"),
}


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_both_sides_together_are_the_picture_without_a_line(viewer, qtbot, rng, theme):
    """However the layers lie, whatever their blending is, and whatever the colour of the canvas."""
    viewer.theme = theme
    viewer.show()
    comparison = Compare(viewer, None)
    firsts = ("plain", "turned by a right angle", "mirrored", "with an affine")
    for first, blendings in zip(firsts, [*KINDS.values(), KINDS["opaque"]], strict=True):
        while viewer.layers:
            viewer.layers.pop()
            qtbot.wait(50)
        places = PLACES["turned"], PLACES[first], PLACES["mirrored"]
        for place, kind, blending in zip(places, ["gray", "gray", "colour"], blendings, strict=True):
            image = rng.integers(0, 255, (*SHAPE, 3) if kind == "colour" else SHAPE).astype(np.uint8)
            looks = {"blending": blending, "opacity": 0.7 if viewer.layers else 1}
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
def test_what_is_seen_to_the_left_lies_to_the_left(place, turn):
    """Of a line in any direction, which points down, or to the right if it is level."""
    layer = Image(np.zeros((15, 20)), **PLACES[place])
    left, right = (Picture.of(np.full((15, 20), one), placement(layer, (1, 1), (0, 0)), (0, 1)) for one in "lr")
    angle = np.deg2rad(turn)
    line = Line.through(np.array(layer.data_to_world((7.2, 9.1))), np.array([np.cos(angle), np.sin(angle)]))
    assert line.right[1] > 0 or (abs(line.right[1]) < 1e-9 and line.right[0] > 0)
    for index, side in np.ndenumerate(join(left, right, line, [-2, -1])):
        away = (np.asarray(layer.data_to_world(index)) - line.point) @ line.right
        assert away < 1e-9 if side == "l" else away > -1e-9


@pytest.mark.parametrize("place", PLACES)
def test_two_sides_on_one_grid(rng, place):
    """The coarser one is shown in its own pixels, wherever its part begins."""
    image = rng.random((20, 30))
    layer = Image(image, **PLACES[place])
    coarse = Picture.of(image[4:], placement(layer, (1, 1), (4, 0)), (0, 1))
    fine = Picture.of(rng.random((48, 84)), placement(layer, (3, 3), (4, 2)), (0, 1))
    expected = image[4:, 2:].repeat(3, 0).repeat(3, 1)
    for left, right in (bring_together(coarse, fine), bring_together(fine, coarse)[::-1]):
        np.testing.assert_array_equal(left.pixels, expected)
        assert right is fine
        np.testing.assert_allclose(left.corner, fine.corner)
