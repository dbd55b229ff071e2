import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vdsr_core import (
    VDSR,
    VDSRConfig,
    degrade,
    estimate_noise,
    evaluate,
    load_model,
    make_model,
    psnr,
    resize,
    ssim,
    super_resolve,
)
from vdsr_core.evaluation import BICUBIC, Score, check_bicubic, luma, mean_scores, restore
from vdsr_core.network.devices import make_engine
from vdsr_core.network.model import Condition
from vdsr_core.network.pretrained import model_names

# PSNR and SSIM of the network that the authors published, on Set5.
PUBLISHED = {2: (37.527, 0.9587), 3: (33.661, 0.9213), 4: (31.346, 0.8838)}


def read_folder(folder):
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_psnr_of_known_noise(rng):
    image = rng.random((20, 20))
    assert psnr(image, image + 0.01, data_range=1) == pytest.approx(40)
    assert psnr(image, image, data_range=1) == math.inf


def test_crop_border_ignores_edges(rng):
    image = rng.random((20, 21))
    other = image.copy()
    other[[0, 1, -1, -2]] += 1
    other[:, [0, 1, -1, -2]] += 1
    assert psnr(image, other, data_range=1, crop_border=2) == math.inf
    assert psnr(image, other, data_range=1, crop_border=1) < 20
    assert ssim(image, other, data_range=1, crop_border=2) == 1


def test_ssim_matches_its_definition(rng):
    """Wang's formula with an 11 x 11 Gaussian, at one valid position."""
    a, b = rng.random((2, 11, 11)) * 255
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / np.outer(axis, axis).sum()
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
    covariance = (window * a * b).sum() - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert ssim(a, b, data_range=255) == pytest.approx(expected, rel=1e-9)


def test_luma_of_gray_is_gray_and_of_rgb_is_rounded(rng):
    gray = rng.integers(0, 256, (5, 6), np.uint8)
    np.testing.assert_array_equal(luma(gray), gray)
    y = luma(rng.integers(0, 256, (5, 6, 3), np.uint8))
    np.testing.assert_array_equal(y, np.rint(y))
    assert y.min() >= 16
    assert y.max() <= 235


def test_bicubic_stands_beside_each_score(tiny_model, rng):
    images = {"a": rng.integers(0, 256, (40, 44, 3), np.uint8), "b": rng.integers(0, 256, (31, 30), np.uint8)}
    scores = list(evaluate(tiny_model, images, [2, 2.5]))
    assert [(s.image, s.scale, s.method) for s in scores] == [
        (image, scale, method) for image in "ab" for scale in (2.0, 2.5) for method in ("bicubic", "vdsr")
    ]
    means = mean_scores(scores)
    assert means[0].psnr == pytest.approx((scores[0].psnr + scores[4].psnr) / 2)


def test_zero_network_scores_as_bicubic(tiny_model, rng):
    for parameter in tiny_model.parameters():
        parameter.data.zero_()
    bicubic, ours = evaluate(tiny_model, {"a": rng.integers(0, 256, (40, 44), np.uint8)}, [3])
    assert (bicubic.psnr, bicubic.ssim) == pytest.approx((ours.psnr, ours.ssim), rel=1e-6)


@pytest.mark.parametrize("name", ["Set5", "Set14", "B100"])
def test_bicubic_rows_are_the_published_ones(data_dir, name):
    images = read_folder(data_dir / name)
    small = VDSR(VDSRConfig(2, 1))
    means = mean_scores(s for s in evaluate(small, images, [2, 3, 4]) if s.method == "bicubic")
    assert len(means) == 3
    for score in means:
        expected = BICUBIC[name][int(score.scale)]
        assert score.psnr == pytest.approx(expected[0], abs=0.005 + 0.005)  # the tables round to 0.01
        assert score.ssim == pytest.approx(expected[1], abs=0.0002)
    check_bicubic(name, means)


def test_published_network_scores_as_published(data_dir, oracle_path):
    means = mean_scores(evaluate(load_model(oracle_path), read_folder(data_dir / "Set5"), [2, 3, 4]))
    for score in means:
        if score.method == "vdsr":
            assert score.psnr == pytest.approx(PUBLISHED[int(score.scale)][0], abs=0.005)
            assert score.ssim == pytest.approx(PUBLISHED[int(score.scale)][1], abs=0.0002)


@pytest.mark.parametrize("name", model_names())
def test_embedded_networks_score_as_their_cards_say(data_dir, name):
    model = load_model(name)
    means = mean_scores(evaluate(model, read_folder(data_dir / "Set5"), [2]))
    assert means[1].psnr == pytest.approx(model.card["scores"]["Set5"]["2"][0], abs=0.005)
    assert means[1].ssim == pytest.approx(model.card["scores"]["Set5"]["2"][1], abs=0.0002)


def test_wrong_bicubic_row_is_no_result():
    score = Score("mean", 2.0, "bicubic", 33.69, 0.93, 0.1)
    with pytest.raises(ValueError, match=r"bicubic must score 33.66 dB on Set5 x2, got 33.69"):
        check_bicubic("Set5", [score])
    check_bicubic("my folder", [score])


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint16), np.zeros((9, 9, 4), np.uint8), np.zeros(9, np.uint8)])
def test_other_than_8_bit_images_are_named(tiny_model, image):
    with pytest.raises(ValueError, match="photo must be 8-bit gray"):
        list(evaluate(tiny_model, {"photo": image}))


def test_unequal_shapes_and_large_borders_are_named():
    with pytest.raises(ValueError, match="`image_test` must have the shape of `image_true`"):
        psnr(np.zeros((3, 3)), np.zeros((3, 4)), data_range=1)
    with pytest.raises(ValueError, match="`crop_border` must leave some pixels, got 2"):
        psnr(np.zeros((4, 4)), np.zeros((4, 4)), data_range=1, crop_border=2)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels"):
        ssim(np.zeros((10, 30)), np.zeros((10, 30)), data_range=1)


def test_any_scale_degrades_the_image_and_not_its_crop(rng):
    """24 pixels at 2.5: 9 are left, which make 22; 22 pixels would leave 8."""
    image = rng.integers(0, 256, (24, 29), np.uint8)
    bicubic, _ = evaluate(VDSR(VDSRConfig(2, 1)), {"a": image}, [2.5])
    ilr = np.clip(np.rint(resize(degrade(image.astype(float), 2.5), 2.5)), 16, 235)
    assert ilr.shape == (22, 28)
    assert bicubic.psnr == psnr(image[:22, :28], ilr, data_range=255, crop_border=3)


def test_self_ensemble_scores_the_mean_of_eight(tiny_model, rng):
    image = rng.integers(16, 236, (24, 32), np.uint8)
    _, single = evaluate(tiny_model, {"a": image}, 2)
    _, ensemble = evaluate(tiny_model, {"a": image}, 2, self_ensemble=True)
    ilr = np.clip(resize(degrade(image.astype(float), 2), 2), 16, 235)
    engine, found = make_engine(tiny_model, None, half=False), np.zeros(ilr.shape)
    for flip in (False, True):
        for turns in range(4):
            turned = np.rot90(ilr[::-1] if flip else ilr, turns)
            back = np.rot90(restore(turned.copy(), engine, Condition(scale=2)), -turns)
            found += (back[::-1] if flip else back) / 8
    expected = psnr(image, np.clip(np.rint(found), 16, 235), data_range=255, crop_border=2)
    assert ensemble.psnr == pytest.approx(expected, abs=1e-3)
    assert ensemble.psnr != single.psnr


@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_range": 0}, "`data_range` must be a finite number greater than 0, got 0"),
        ({"data_range": None}, "`data_range` must be a finite number greater than 0, got None"),
        ({"data_range": math.nan}, "`data_range` must be a finite number greater than 0, got nan"),
        ({"crop_border": 1.5}, "`crop_border` must be an integer of at least 0, got 1.5"),
        ({"crop_border": -1}, "`crop_border` must be an integer of at least 0, got -1"),
        ({"image_true": np.zeros(20)}, "`image_true` must have at least 2 axes"),
        ({"image_test": np.zeros((20, 20), complex)}, "`image_test` must be of a real dtype, got complex128"),
        ({"image_true": "a"}, "`image_true` must be of a real dtype"),
    ],
)
def test_scores_name_wrong_arguments(score, change, message):
    images = {"image_true": np.zeros((20, 20)), "image_test": np.ones((20, 20))}
    with pytest.raises((TypeError, ValueError), match=message):
        score(**{**images, "data_range": 1, **change})


def test_ssim_is_of_one_plane():
    with pytest.raises(ValueError, match="`image_true` must be one plane"):
        ssim(np.zeros((3, 20, 20)), np.zeros((3, 20, 20)), data_range=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "photo"}, "`model` must be a VDSR, got str"),
        ({"images": np.zeros((40, 40), np.uint8)}, "`images` must map names to images, got ndarray"),
        ({"images": [np.zeros((40, 40), np.uint8)]}, "`images` must hold pairs of name and image, got ndarray"),
        ({"scales": [40]}, "photo must have at least 160 pixels a side to be scored at scale 40, got shape .40, 40."),
        ({"scales": [(2, 3)]}, "`scales` must be numbers, one for both axes, got .2, 3."),
        ({"scales": 1}, "`scales` must be finite numbers, greater than 1, got 1"),
        ({"scales": []}, "`scales` must hold at least one scale"),
    ],
)
def test_evaluate_names_wrong_arguments(tiny_model, change, message):
    given = {"model": tiny_model, "images": {"photo": np.zeros((40, 40), np.uint8)}, "scales": [2]}
    with pytest.raises((TypeError, ValueError), match=message):
        next(evaluate(**given | change))


def test_masked_pixels_are_named(tiny_model):
    image = np.ma.masked_array(np.zeros((20, 20), np.uint8), np.eye(20) > 0)
    with pytest.raises(ValueError, match="`image_test` must have no masked pixels, got 20"):
        psnr(np.zeros((20, 20)), image, data_range=255)
    with pytest.raises(ValueError, match="`cells` must have no masked pixels, got 20"):
        list(evaluate(tiny_model, {"cells": image}, [2]))


@pytest.mark.parametrize(
    "degradation", [{"read_noise": 10}, {"shot_noise": 2}, {"jpeg": 40}, {"read_noise": 5, "jpeg": 60, "kernel": "box"}]
)
def test_degraded_images_are_restored_as_what_is_found_says(rng, degradation):
    model = make_model(0, VDSRConfig(4, 8, fold=2, maps=("noise", "compression")))
    image = np.clip(rng.normal(120, 3, (60, 64)) + np.arange(64), 0, 255).astype(np.uint8)
    bicubic, ours = evaluate(model, {"a": image}, 2, degradation=degradation)
    options = {name: value / 255 if "noise" in name else value for name, value in degradation.items()}
    low = 255 * degrade(image / 255, 2, seed=0, **options)
    compression = 0.0
    if "jpeg" in degradation:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=degradation["jpeg"])
        compression = np.mean(Image.open(file).quantization[0]) / 255
    told = {"noise": estimate_noise(low), "compression": compression, "in_range": (0, 255)}
    for score, sr in ((bicubic, resize(low, 2)), (ours, super_resolve(low, 2, model=model, **told))):
        expected = psnr(image, np.clip(np.rint(sr), 16, 235), data_range=255, crop_border=2)
        assert score.psnr == pytest.approx(expected, abs=0.02)  # the protocol clips before the network


def test_clean_images_are_told_to_be_clean(rng):
    model = make_model(0, VDSRConfig(4, 8, fold=2, maps=("noise", "compression")))
    image = np.clip(rng.normal(120, 3, (60, 64)) + np.arange(64), 0, 255).astype(np.uint8)
    _, ours = evaluate(model, {"a": image}, 2)
    sr = super_resolve(degrade(image.astype(float), 2), 2, model=model, noise=0, in_range=(0, 255))
    expected = psnr(image, np.clip(np.rint(sr), 16, 235), data_range=255, crop_border=2)
    assert ours.psnr == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("degradation", "name"),
    [({"read_noise": 0.3}, None), ({"jpeg": 95}, None), ({"read_noise": 10}, "restore"), ({"jpeg": 40}, "restore")],
)
def test_degraded_images_are_handed_over_if_they_are_not_weakly_so(degradation, name):
    """The default network scores as itself without restorer, or as its restorer."""
    images = {"a": np.add.outer(np.arange(60) + 40, 2 * np.arange(64)).astype(np.uint8)}
    other = load_model(name)
    other.restorer = None
    scores = [list(evaluate(model, images, 2, degradation=degradation))[1].psnr for model in (load_model(), other)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("degradation", [{"read_noise": -1}, {"jpeg": 0}, {"kernel": "sinc"}])
def test_bad_degradations_are_refused_at_the_call(tiny_model, rng, degradation):
    with pytest.raises(ValueError, match="must be"):
        evaluate(tiny_model, {"a": np.zeros((40, 40), np.uint8)}, 2, degradation=degradation)
