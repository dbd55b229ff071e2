import copy

import numpy as np
import pytest
import torch

from vdsr_core import VDSR, VDSRConfig, compare_models, degrade, psnr, resize, ssim, super_resolve
from vdsr_core.images.color import rgb_to_ycbcr


@pytest.fixture
def zero(tiny_model):
    """A network that adds nothing."""
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in model.convolutions[-1].parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("maps", [(), ("noise",)])
def test_scores_are_those_of_the_public_functions(maps, turned):
    """One part holds the whole of a small image: reduced, restored and compared by hand."""
    torch.manual_seed(0)
    model = VDSR(VDSRConfig(depth=4, width=8, maps=maps))
    image = np.random.default_rng(0).random((60, 52)) * 300 + 20
    scores = list(compare_models(image, 2, models={"tiny": model}, in_range=(0, 400), self_ensemble=turned))
    low = degrade(image, 2)
    sr = super_resolve(low, 2, model=model, in_range=(0, 400), noise=0, self_ensemble=turned)
    restored = {"bicubic": resize(low, 2), "tiny": sr}
    assert [score.method for score in scores] == list(restored)
    for score in scores:
        options = {"data_range": 400, "crop_border": 2}
        assert score.psnr == pytest.approx(psnr(image, restored[score.method], **options), abs=1e-3)
        assert score.ssim == pytest.approx(ssim(image, restored[score.method], **options), abs=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 1.5])
def test_a_network_that_adds_nothing_is_bicubic(zero, scale):
    stack = np.random.default_rng(1).integers(0, 4000, (2, 300, 260)).astype(np.uint16)
    bicubic, other = compare_models(stack, scale, models={"zero": zero})
    assert (bicubic.psnr, bicubic.ssim) == (other.psnr, other.ssim)


def test_colour_is_scored_by_its_luma(zero):
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    luma = rgb_to_ycbcr(np.moveaxis(image, 2, 0) / 255)[0]
    coloured = next(compare_models(image, 2, models={"zero": zero}, rgb=True))
    gray = next(compare_models(luma, 2, models={"zero": zero}, in_range=(0, 1)))
    assert coloured.psnr == pytest.approx(gray.psnr, abs=1e-3)


def test_embedded_networks_are_compared_by_default():
    from vdsr_core import model_names

    image = np.random.default_rng(0).random((32, 32))
    assert [score.method for score in compare_models(image)] == ["bicubic", *model_names()]


@pytest.mark.parametrize(("image", "why"), [(np.ones((64, 64)), "it is constant"), (np.eye(5), "smaller than 8 x 8")])
def test_images_that_cannot_be_compared_are_named(image, why):
    with pytest.raises(ValueError, match=why):
        next(compare_models(image))
