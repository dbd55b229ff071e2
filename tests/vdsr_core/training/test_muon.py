import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import VDSRConfig
from vdsr_core.dataset.patches import Patches
from vdsr_core.network.model import make_model
from vdsr_core.training.muon import Muon, as_matrix, orthogonalize
from vdsr_core.training.recipe import TrainConfig
from vdsr_core.training.trainer import Trainer


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(weight, gradient, optimizer=None, rate=1.0):
    """What a step changes."""
    optimizer = optimizer or Muon([weight], lr=rate)
    before, weight.grad = weight.detach().clone(), gradient
    optimizer.step()
    return weight.detach() - before


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    spread=st.floats(0, 1),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_orthogonalize_keeps_singular_vectors_and_brings_singular_values_near_1(rows, columns, spread, half, seed):
    """Of matrices of full rank, whose singular values differ by a factor of up to ten."""
    count = min(rows, columns)
    u, v = (torch.linalg.qr(draw(side, count, seed=seed + n))[0] for n, side in enumerate((rows, columns)))
    values = 10 ** (-spread * torch.linspace(0, 1, count))
    found = orthogonalize((u * values @ v.T)[None], torch.bfloat16 if half else torch.float32)[0]
    new = u.T @ found @ v
    assert 0.6 < new.diagonal().min() <= new.diagonal().max() < 1.3
    tolerance = 0.05 if half else 1e-5
    torch.testing.assert_close(u * new.diagonal() @ v.T, found, rtol=0, atol=tolerance)


def test_step_is_that_of_the_definition():
    """The momentum of two gradients by hand in NumPy, singular values by the same polynomial."""
    weight, gradients = torch.zeros(4, 3, 3, 3), [draw(4, 3, 3, 3, seed=seed) for seed in (1, 2)]
    optimizer, mean = Muon([weight], lr=0.1), np.zeros((4, 27))
    for gradient in gradients:
        change = step(weight, gradient, optimizer)
        matrix = gradient.permute(0, 2, 3, 1).reshape(4, 27).numpy().astype(np.float64)
        mean = 0.95 * mean + 0.05 * matrix
        u, s, v = np.linalg.svd(0.95 * mean + 0.05 * matrix, full_matrices=False)
        s /= np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        expected = -0.1 * 0.2 * math.sqrt(27) * (u * s) @ v
        np.testing.assert_allclose(as_matrix(change), expected, atol=1e-6)


def test_step_does_not_depend_on_the_size_of_the_gradient():
    gradient = draw(4, 3, 3, 3)
    expected = step(torch.zeros(4, 3, 3, 3), gradient)
    for factor in (1e-9, 1e9):
        torch.testing.assert_close(step(torch.zeros(4, 3, 3, 3), factor * gradient), expected, rtol=1e-3, atol=1e-5)
    assert not step(torch.zeros(4, 3, 3, 3), torch.zeros_like(gradient)).any()


@pytest.mark.parametrize("shape", [(8,), (8, 1, 3, 3), (1, 8, 3, 3)])
def test_biases_and_layers_of_one_channel_are_adams(shape):
    ours, theirs = torch.zeros(shape), torch.zeros(shape)
    optimizers = Muon([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for seed in range(3):
        step(ours, draw(*shape, seed=seed), optimizers[0])
        step(theirs, draw(*shape, seed=seed), optimizers[1])
        torch.testing.assert_close(ours, theirs)


def test_layers_of_one_shape_are_updated_as_each_by_itself():
    together, alone = ([torch.zeros(4, 2, 3, 3) for _ in range(7)] for _ in range(2))
    for seed, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.grad = draw(4, 2, 3, 3, seed=seed)
        step(other, one.grad)
    Muon(together, lr=1.0).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [VDSRConfig(8, 16), VDSRConfig(8, 16, fold=2, blocks=True)])
def test_muon_learns_faster_than_adamw(rng, shape):
    """It removes more than twice as much of the interpolation's error in 100 steps."""
    image = np.kron(rng.random((12, 12)), np.ones((7, 7)))  # edges, which interpolation blurs
    data = Patches([image], [2, 3], patch=16)
    ilr, hr = data.gather(data.choose(9999, 64))
    left = {}
    for optimizer in ("adamw", "muon"):
        kinds = {"learning_rate": 3e-3, "loss": "l1", "optimizer": optimizer, "clip": "none", "schedule": "cosine"}
        trainer = Trainer(make_model(0, shape, start="identity"), data, TrainConfig(steps=100, batch_size=4, **kinds))
        list(trainer.run())
        with torch.no_grad():
            left[optimizer] = float((trainer.result(ilr) - hr).abs().mean() / (ilr - hr).abs().mean())
    assert 1 - left["muon"] > 2 * (1 - left["adamw"]) > 0
