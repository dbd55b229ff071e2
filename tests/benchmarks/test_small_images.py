"""Pictures cut out of photographs, and a network with an opponent that learns from them."""

import csv

import numpy as np
import pytest
import torch
from benchmarks.reproduction.adversarial import BATCH, BETAS, RATE, Discriminator, fine_detail, train
from benchmarks.reproduction.small_images import HELD_OUT, LEARN, SCALE, SIDE, make_pictures
from PIL import Image

from vdsr_core import VDSRConfig
from vdsr_core.dataset.patches import Patches
from vdsr_core.network.model import make_model


@pytest.fixture
def folder(tmp_path, rng):
    """Ten photographs of two crops each; the grey levels of each tell which one it is. One is not CC0, one is even."""
    (tmp_path / "photo").mkdir()
    with (tmp_path / "CREDITS.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "licence"])
        for photograph in range(10):
            for crop in range(2):
                name = f"photo/p{photograph}_{crop}.png"
                image = 36 + 20 * photograph + rng.integers(0, 24, (40, 36)) * (photograph != 7)
                Image.fromarray(image.astype(np.uint8)).save(tmp_path / name)
                writer.writerow([name, "CC-BY-4.0" if photograph == 3 else "CC0-1.0"])
    return tmp_path


def test_pictures_are_of_different_photographs(folder):
    learn, held_out = make_pictures(folder)
    assert [len(learn), len(held_out)] == [LEARN, HELD_OUT]
    assert {picture.shape for picture in (*learn, *held_out)} == {(SIDE, SIDE)}
    photographs = [{int(picture.min() - 36) // 20 for picture in pictures} for pictures in (learn, held_out)]
    assert photographs[0] & photographs[1] == set()
    assert photographs[0] | photographs[1] == set(range(10)) - {3, 7}
    again, _ = make_pictures(folder)
    np.testing.assert_array_equal(learn, again)


def test_even_photographs_are_an_error(folder):
    for path in (folder / "photo").iterdir():
        Image.new("L", (40, 40), 100).save(path)
    with pytest.raises(ValueError, match="even"):
        make_pictures(folder)


def test_discriminator_gives_one_logit():
    assert Discriminator(4)(torch.rand(3, 1, SIDE, SIDE)).shape == (3, 1)


def test_without_an_opponent_the_generator_is_trained_by_l1(rng):
    data = Patches([rng.random((SIDE, SIDE)).astype(np.float32)], [SCALE], patch=SIDE)
    ours, plain = (make_model(0, VDSRConfig(3, 4), start="identity") for _ in range(2))
    opponent = Discriminator(4)
    before = [parameter.clone() for parameter in opponent.parameters()]
    history = train(data, ours, opponent, (1.0, 0.0), 3, seed=0)
    optimizer = torch.optim.Adam(plain.parameters(), RATE, BETAS)
    for step in range(3):
        ilr, hr = data.gather(data.choose(step, BATCH, 0))
        loss = (hr - plain(ilr)).abs().mean()
        assert history[step] == (pytest.approx(loss.item()), 0, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, two in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    assert all(torch.equal(*pair) for pair in zip(before, opponent.parameters(), strict=True))


def test_opponent_learns_to_tell_blurred_images(rng):
    data = Patches([rng.random((SIDE, SIDE)).astype(np.float32) for _ in range(8)], [SCALE], patch=SIDE)
    torch.manual_seed(0)
    generator = make_model(0, VDSRConfig(3, 4), start="identity")  # which gives the interpolated images
    history = train(data, generator, Discriminator(4), (1.0, 0.01), 30, seed=0)
    assert history[-1][2] < 0.8 * history[0][2]


def test_fine_detail_is_the_energy_above_half_of_the_frequencies(rng):
    image = rng.normal(size=(16, 16))
    assert fine_detail(np.full((16, 16), 3.0)) == 0
    assert fine_detail(np.tile([1.0, -1.0], (16, 8))) == pytest.approx(256**2)  # all of its energy
    assert fine_detail(np.tile([1.0, 1.0, -1.0, -1.0], (16, 4))) == pytest.approx(0)  # a quarter of the frequencies
    assert 0 < fine_detail(image) < 256 * np.sum(image**2)
