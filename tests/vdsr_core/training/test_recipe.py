import itertools
import math

import numpy as np
import pytest
import torch

from vdsr_core.training.recipe import TrainConfig, rate_at


def test_schedule_is_the_papers():
    config = TrainConfig(steps=80)
    rates = [rate_at(step, step / 80, config) for step in range(80)]
    expected = np.repeat([0.1, 0.01, 0.001, 0.0001], 20)
    np.testing.assert_allclose(rates, expected)


def test_cosine_warms_up_and_falls():
    config = TrainConfig(steps=100, schedule="cosine", warmup=10, learning_rate=1)
    rates = [rate_at(step, step / 100, config) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=0.03)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.001)


def test_a_short_time_budget_warms_up_in_its_first_twentieth():
    """However few steps it has room for; many are warmed up by their number."""
    config = TrainConfig(seconds=600, schedule="cosine", warmup=500, learning_rate=1)
    rates = [rate_at(step, step / 200, config) for step in range(200)]
    assert max(rates) == rates[10] > 0.99
    np.testing.assert_allclose(rates[:11], np.arange(11) / 10, atol=0.01)
    assert rate_at(499, 1e-6, config) == pytest.approx(1)


def test_one_cycle_is_that_of_torch():
    config = TrainConfig(steps=1000, schedule="one_cycle", learning_rate=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, 1001, pct_start=0.3, div_factor=25, final_div_factor=40, cycle_momentum=False
    )
    for step in range(1000):
        optimizer.step()
        theirs.step()
        expected = theirs.get_last_lr()[0]
        assert rate_at(step + 1, (step + 1) / 1000, config) == pytest.approx(expected, rel=0.02, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("loss", "l3", "be one of l2, l2_mean, l1, charbonnier"),
        ("optimizer", "adam", "be one of sgd, adamw"),
        ("schedule", None, "be one of step, cosine, one_cycle"),
        ("clip", "element", "be one of value, norm, none"),
        ("steps", 0, "be a whole number of at least 1"),
        ("steps", 2.5, "be a whole number of at least 1"),
        ("batch_size", True, "be a whole number of at least 1"),
        ("seed", -1, "be a whole number of at least 0"),
        ("learning_rate", 0, "be a finite number greater than 0"),
        ("theta", math.nan, "be a finite number greater than 0"),
        ("seconds", "2h", "be a finite number greater than 0"),
        ("momentum", 1, "be a number from 0 to below 1"),
        ("average", -0.1, "be a number from 0 to below 1"),
        ("weight_decay", math.inf, "be a number from 0 to below inf"),
    ],
)
def test_bad_config_is_named(name, value, rule):
    with pytest.raises(ValueError, match=rf"^`{name}` must {rule}, got {value!r}\. Leave it out"):
        TrainConfig(**{name: value})
