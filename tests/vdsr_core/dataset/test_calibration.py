import numpy as np
import pytest
from scipy.stats import spearmanr

from vdsr_core import (
    ErrorTable,
    VDSRConfig,
    calibrate,
    compare_errors,
    degrade,
    make_model,
    predict_error,
    super_resolve,
)
from vdsr_core.images.degradation import mean_step


@pytest.fixture
def image(rng):
    """Noise whose strength grows from left to right: so do detail and errors."""
    return rng.normal(0.5, np.linspace(0.001, 0.1, 96), (96, 96))


def test_calibrated_errors_are_those_of_the_image(tiny_model, image):
    tiny_model.errors = calibrate(tiny_model, image, 2)
    (found,) = compare_errors(image, 2, model=tiny_model)
    np.testing.assert_allclose(found.predicted, found.measured, rtol=0.1)
    assert found.coverage == pytest.approx(0.9, abs=0.01)
    assert np.all(np.diff(found.predicted) >= 0)


def test_report_is_made_of_the_public_functions(tiny_model, image):
    tiny_model.errors = calibrate(tiny_model, image, 2, in_range=(0, 1))
    (found,) = compare_errors(image, 2, model=tiny_model, in_range=(0, 1))
    sr = super_resolve(degrade(image, 2), 2, model=tiny_model, in_range=(0, 1))
    inside = np.s_[2:-2, 2:-2]
    error = np.abs(image - sr)[inside]
    mean, bound = (
        predict_error(sr, 2, model=tiny_model, in_range=(0, 1), bound=bound)[inside] for bound in (False, True)
    )
    assert found.pixels == error.size
    assert sum(found.predicted) / 10 == pytest.approx(mean.mean(), rel=1e-3)
    assert sum(found.measured) / 10 == pytest.approx(error.mean(), rel=1e-3)
    assert found.coverage == pytest.approx(np.mean(error <= bound), abs=2e-3)
    assert found.correlation == pytest.approx(spearmanr(mean.ravel(), error.ravel()).statistic, abs=1e-3)


def test_noise_and_compression_are_measured_where_they_are_removed(image):
    network = make_model(0, VDSRConfig(depth=3, width=4, maps=("noise", "compression")))
    network.errors = calibrate(network, image, 2, in_range=(0, 1))
    assert [level for level, _ in network.errors.noisy] == [0.01, 0.03, 0.1]
    assert [level for level, _ in network.errors.compressed] == [mean_step(quality) for quality in (90, 70, 40)]
    for degradation in ({"read_noise": 0.03}, {"jpeg": 40}):
        (found,) = compare_errors(image, 2, model=network, in_range=(0, 1), degradation=degradation)
        assert sum(found.predicted) == pytest.approx(sum(found.measured), rel=0.02)
        assert found.coverage == pytest.approx(0.9, abs=0.01)


def test_degradations_need_a_network_that_removes_them(tiny_model, image):
    tiny_model.errors = calibrate(tiny_model, image, 2)
    assert (tiny_model.errors.noisy, tiny_model.errors.compressed) == ((), ())
    with pytest.raises(ValueError, match="`degradation` must add neither noise nor compression"):
        next(compare_errors(image, 2, model=tiny_model, degradation={"jpeg": 50}))
    with pytest.raises(ValueError, match="`read_noise` must be"):
        next(compare_errors(image, 2, model=tiny_model, degradation={"read_noise": -1}))
    (found,) = compare_errors(image, 2, model=tiny_model, degradation={"kernel": "box"})
    assert found.scale == 2


def test_scales_are_those_of_the_network(tiny_model, image):
    tiny_model.scales = (2.0, 3.0)
    assert calibrate(tiny_model, image).scales == (2.0, 3.0)


def test_images_without_detail_are_named(tiny_model):
    with pytest.raises(ValueError, match="image 0 is constant"):
        calibrate(tiny_model, np.ones((64, 64)), 2)
    with pytest.raises(ValueError, match="errors measured"):
        next(compare_errors(np.eye(64), 2, model=tiny_model))
    tiny_model.errors = ErrorTable((2.0,), ((0.0, 1.0),), ((0.0, 1.0),), ((0.0, 1.0),))
    with pytest.raises(ValueError, match="`scale` must lie between 2 and 2"):
        next(compare_errors(np.eye(64), (2, 3), model=tiny_model))
