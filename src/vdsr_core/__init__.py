"""Super-resolution of images of any size with one network, VDSR (Kim, Lee and Lee, CVPR 2016).

A public name is loaded when it is first used: ``import vdsr_core`` alone is quick and loads no PyTorch.

Examples
--------
>>> import numpy as np
>>> from vdsr_core import resize
>>> resize(np.zeros((20, 30), np.uint16), 1.5).shape
(30, 45)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdsr_core.dataset.hold_out import Preview
    from vdsr_core.dataset.patches import Patches
    from vdsr_core.evaluation import Score, evaluate, psnr, ssim
    from vdsr_core.formats.io import ImageFile, image_names, read_image, write_image
    from vdsr_core.formats.pyramid import write_pyramid
    from vdsr_core.images.degradation import degrade, estimate_degradation
    from vdsr_core.images.intensity import Rescale
    from vdsr_core.images.resampling import resize
    from vdsr_core.images.tiling import Tile, cover
    from vdsr_core.network.checkpoint import load_checkpoint, load_model, save_checkpoint
    from vdsr_core.network.model import VDSR, VDSRConfig
    from vdsr_core.streaming.plan import Plan, plan
    from vdsr_core.streaming.shards import Shard
    from vdsr_core.streaming.stream import stream
    from vdsr_core.streaming.verify import Check, verify
    from vdsr_core.training.fine_tune import FineTuneProgress, fine_tune, fine_tune_steps
    from vdsr_core.training.recipe import TrainConfig
    from vdsr_core.training.trainer import Progress, Trainer, clip_gradients
    from vdsr_core.upscaling.inference import find_range, super_resolve, super_resolve_tiles

    __version__: str

__all__ = [  # noqa: RUF022 (the order of `sorted`)
    "Check",
    "FineTuneProgress",
    "ImageFile",
    "Patches",
    "Plan",
    "Preview",
    "Progress",
    "Rescale",
    "Score",
    "Shard",
    "Tile",
    "TrainConfig",
    "Trainer",
    "VDSR",
    "VDSRConfig",
    "clip_gradients",
    "cover",
    "degrade",
    "estimate_degradation",
    "evaluate",
    "find_range",
    "fine_tune",
    "fine_tune_steps",
    "image_names",
    "load_checkpoint",
    "load_model",
    "plan",
    "psnr",
    "read_image",
    "resize",
    "save_checkpoint",
    "ssim",
    "stream",
    "super_resolve",
    "super_resolve_tiles",
    "verify",
    "write_image",
    "write_pyramid",
]

_MODULES = {
    "Check": "streaming.verify",
    "FineTuneProgress": "training.fine_tune",
    "ImageFile": "formats.io",
    "Patches": "dataset.patches",
    "Plan": "streaming.plan",
    "Preview": "dataset.hold_out",
    "Progress": "training.trainer",
    "Rescale": "images.intensity",
    "Score": "evaluation",
    "Shard": "streaming.shards",
    "Tile": "images.tiling",
    "TrainConfig": "training.recipe",
    "Trainer": "training.trainer",
    "VDSR": "network.model",
    "VDSRConfig": "network.model",
    "clip_gradients": "training.trainer",
    "cover": "images.tiling",
    "degrade": "images.degradation",
    "estimate_degradation": "images.degradation",
    "evaluate": "evaluation",
    "find_range": "upscaling.inference",
    "fine_tune": "training.fine_tune",
    "fine_tune_steps": "training.fine_tune",
    "image_names": "formats.io",
    "load_checkpoint": "network.checkpoint",
    "load_model": "network.checkpoint",
    "plan": "streaming.plan",
    "psnr": "evaluation",
    "read_image": "formats.io",
    "resize": "images.resampling",
    "save_checkpoint": "network.checkpoint",
    "ssim": "evaluation",
    "stream": "streaming.stream",
    "super_resolve": "upscaling.inference",
    "super_resolve_tiles": "upscaling.inference",
    "verify": "streaming.verify",
    "write_image": "formats.io",
    "write_pyramid": "formats.pyramid",
}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use."""
    value: Any
    if name in _MODULES:
        value = getattr(import_module(f"vdsr_core.{_MODULES[name]}"), name)
    elif name == "__version__":
        value = import_module("importlib.metadata").version("napari-vdsr")
    else:
        msg = f"module 'vdsr_core' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
