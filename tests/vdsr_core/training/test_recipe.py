import itertools
import math

import numpy as np
import pytest

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


def test_the_learning_rate_is_constant_until_the_decay():
    """A training at a constant rate and one that starts where its decay begins."""
    kinds = {"steps": 100, "schedule": "cosine", "learning_rate": 1}
    constant, both, decay = (TrainConfig(**kinds, decay=fraction) for fraction in (0, 0.4, 1))
    assert {rate_at(step, step / 100, constant) for step in range(101)} == {1}
    assert {rate_at(step, step / 100, both) for step in range(61)} == {1}
    for part in np.linspace(0, 1, 11):
        assert rate_at(9, 0.6 + 0.4 * part, both) == pytest.approx(rate_at(9, part, decay))


def test_muon_is_neither_clipped_nor_silent_about_it():
    with pytest.raises(ValueError, match=r"^`clip` must be 'none' with the optimizer muon, got 'value': .* `theta`"):
        TrainConfig(optimizer="muon", theta=1e-3)
    assert TrainConfig(optimizer="muon", clip="none").optimizer == "muon"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("loss", "l3", "be one of l2, l1, psnr"),
        ("optimizer", "adam", "be one of sgd, adamw, muon"),
        ("schedule", None, "be one of step, cosine"),
        ("clip", "element", "be one of value, none"),
        ("steps", 0, "be an integer of at least 1"),
        ("steps", 2.5, "be an integer of at least 1"),
        ("batch_size", True, "be an integer of at least 1"),
        ("seed", -1, "be an integer of at least 0"),
        ("learning_rate", 0, "be a finite number greater than 0"),
        ("theta", math.nan, "be a finite number greater than 0"),
        ("seconds", "2h", "be a finite number greater than 0"),
        ("momentum", 1, "be a number from 0 to below 1"),
        ("decay", 1.1, "be a number from 0 to 1"),
        ("average", -0.1, "be a number from 0 to below 1"),
        ("weight_decay", math.inf, "be a number from 0 to below inf"),
    ],
)
def test_bad_config_is_named(name, value, rule):
    kind = TypeError if (name, value) in [("steps", 2.5), ("batch_size", True), ("seconds", "2h")] else ValueError
    with pytest.raises(kind, match=rf"^`{name}` must {rule}, got {value!r}\. Leave it out"):
        TrainConfig(**{name: value})
