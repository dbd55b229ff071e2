from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_vdsr.fine_tune import data as _train_data
from napari_vdsr.layers import image_layers, regions
from vdsr_core import super_resolve

AFFINE = np.array([[1.1, 0.3, 5], [-0.2, 0.9, 7], [0, 0, 1]])
TRANSFORMS = {
    "plain": {},
    "scale and translate": {"scale": (0.5, 0.25), "translate": (10, -20)},
    "rotate, shear and affine": {"scale": (0.5, 0.25), "rotate": 30, "shear": [0.4], "affine": AFFINE},
}


def make_viewer(shape=(40, 48), **keywords):
    viewer = ViewerModel()
    layer = viewer.add_image(np.random.default_rng(0).random(shape, dtype=np.float32), name="image", **keywords)
    return viewer, layer, image_layers.whole(layer)


@pytest.mark.parametrize("scale", [2, 2.5])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_region_overlays_its_source_and_is_a_window_of_the_whole(transform, scale, tiny_model):
    _, layer, whole = make_viewer(**TRANSFORMS[transform])
    source = whole.within(slice(3, 17), slice(11, 30))
    options = {"model": tiny_model, "in_range": (0, 1)}
    pixels = super_resolve(layer.data, scale, window=source.window(scale), **options)
    assert pixels.shape == source.result_shape(scale)
    np.testing.assert_allclose(pixels, super_resolve(layer.data, scale, **options)[source.window(scale)], atol=1e-5)
    part = Image(pixels, **image_layers.layer_keywords(layer, source, scale, "tiny x2"))
    full = Image(np.zeros(whole.result_shape(scale)), **image_layers.layer_keywords(layer, whole, scale, "tiny x2"))
    for pixel in ((0, 0), pixels.shape):
        of_the_whole = np.add(pixel, [p.start for p in source.grid(scale)])
        np.testing.assert_allclose(part.data_to_world(pixel), full.data_to_world(of_the_whole), atol=1e-9)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_region_of_a_shape_is_the_pixels_it_touches(transform):
    viewer, layer, whole = make_viewer(**TRANSFORMS[transform])
    # Drawn in the world, in a Shapes layer with a transform of its own.
    world = [layer.data_to_world(corner) for corner in ((4.5, 9.5), (4.5, 20.2), (12.2, 20.2), (12.2, 9.5))]
    shapes = viewer.add_shapes(scale=(3, 3), translate=(1, 2))
    shapes.add_polygons(np.array([shapes.world_to_data(corner) for corner in world]))
    source = regions.in_shapes(viewer, layer, whole, shapes)
    assert source.part == (slice(5, 13), slice(10, 21))


def test_selected_shapes_count_and_planes_are_kept():
    viewer, layer, whole = make_viewer((3, 40, 48))
    shapes = viewer.add_shapes([np.array([[2, 2], [6, 8]]), np.array([[10, 10], [20, 60]])], shape_type="rectangle")
    assert regions.in_shapes(viewer, layer, whole, shapes).part == (slice(0, 3), slice(10, 21), slice(10, 48))
    shapes.selected_data = {0}
    assert regions.in_shapes(viewer, layer, whole, shapes).part == (slice(0, 3), slice(2, 7), slice(2, 9))


def test_rectangles_of_a_layer_with_channels_at_the_end():
    layer = Image(np.zeros((60, 80, 3)), rgb=False, scale=(0.5, 0.25, 1))
    corners = np.array([[9.5, 19.5, 0], [9.5, 49.5, 0], [39.5, 49.5, 0], [39.5, 19.5, 0]])
    shapes = Shapes([np.array([layer.data_to_world(corner) for corner in corners])])
    (part,) = _train_data.rectangles(layer, image_layers.whole(layer, 2), shapes)
    assert part.part == (slice(10, 40), slice(20, 50), slice(0, 3))


@pytest.mark.parametrize("scale", [0.1, 0.325, 3])
def test_rectangles_may_share_an_edge_and_those_beside_are_left_out(scale):
    layer = Image(np.zeros((40, 200)), scale=(scale, scale))
    edges = [-90.5, -0.5, 32.5, 67.5, 99.5, 131.5, 170.5]
    boxes = [np.array([[-0.5, a], [-0.5, b], [39.5, b], [39.5, a]]) * scale for a, b in pairwise(edges)]
    parts = _train_data.rectangles(layer, image_layers.whole(layer), Shapes(boxes))
    assert [part.part[1] for part in parts] == [slice(round(a + 0.5), round(b + 0.5)) for a, b in pairwise(edges[1:])]
    with pytest.raises(ValueError, match="Shapes 2 and 7 overlap"):
        _train_data.rectangles(layer, image_layers.whole(layer), Shapes([*boxes, boxes[1]]))


def test_no_shape_and_a_shape_beside_the_layer_are_named():
    viewer, layer, whole = make_viewer()
    with pytest.raises(regions.NoRegion, match="has no shape yet"):
        regions.in_shapes(viewer, layer, whole, Shapes(name="mine"))
    beside = Shapes([np.array([[60, 60], [80, 80]])], shape_type="rectangle")
    with pytest.raises(regions.NoRegion, match="lies beside “image”"):
        regions.in_shapes(viewer, layer, whole, beside)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_region_in_view_fills_the_canvas(transform):
    viewer, layer, whole = make_viewer((400, 480), **TRANSFORMS[transform])
    camera = regions.camera(viewer)
    camera.center = (0, *layer.data_to_world((200.1, 240.1)))
    camera.zoom = 40
    height, width = regions.canvas_size(viewer)
    source = regions.in_view(viewer, layer, whole)
    corners = [
        layer.world_to_data(np.array(camera.center[-2:]) + np.array([v * height, u * width]) / 80)
        for v in (-1, 1)
        for u in (-1, 1)
    ]
    for axis in range(2):
        low, high = min(c[axis] for c in corners), max(c[axis] for c in corners)
        assert source.part[axis] == slice(int(np.floor(low + 0.5)), int(np.ceil(high + 0.5)))
    near = regions.centre_of_view(viewer, layer, source, 2)
    grid = source.grid(2)
    np.testing.assert_array_equal(np.add(near, [p.start for p in grid]), (401, 481))


def test_no_region_in_view_says_why():
    viewer, layer, whole = make_viewer((3, 40, 48))
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(regions.NoRegion, match="other axes"):
        regions.in_view(viewer, layer, whole)
    viewer.dims.order = (0, 1, 2)
    viewer.dims.ndisplay = 3
    with pytest.raises(regions.NoRegion, match="3D"):
        regions.in_view(viewer, layer, whole)
    viewer.dims.ndisplay = 2
    regions.camera(viewer).center = (0, 1e6, 1e6)
    with pytest.raises(regions.NoRegion, match="out of view"):
        regions.in_view(viewer, layer, whole)
