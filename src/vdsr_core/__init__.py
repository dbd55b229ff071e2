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
    from vdsr_core.checkpoint import load_checkpoint, load_model, save_checkpoint
    from vdsr_core.degradation import degrade, estimate_degradation
    from vdsr_core.evaluation import Score, evaluate, psnr, ssim
    from vdsr_core.fine_tuning import FineTuneProgress, fine_tune, fine_tune_steps
    from vdsr_core.hold_out import Preview
    from vdsr_core.inference import find_range, super_resolve, super_resolve_tiles
    from vdsr_core.intensity import Rescale
    from vdsr_core.io import ImageFile, image_names, read_image, write_image
    from vdsr_core.model import VDSR, VDSRConfig
    from vdsr_core.patches import Patches
    from vdsr_core.planning import Plan, plan
    from vdsr_core.pyramid import write_pyramid
    from vdsr_core.recipe import TrainConfig
    from vdsr_core.resampling import resize
    from vdsr_core.shards import Shard
    from vdsr_core.streaming import stream
    from vdsr_core.tiling import Tile, cover
    from vdsr_core.training import Progress, Trainer, clip_gradients
    from vdsr_core.verification import Check, verify

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
    "Check": "verification",
    "FineTuneProgress": "fine_tuning",
    "ImageFile": "io",
    "Patches": "patches",
    "Plan": "planning",
    "Preview": "hold_out",
    "Progress": "training",
    "Rescale": "intensity",
    "Score": "evaluation",
    "Shard": "shards",
    "Tile": "tiling",
    "TrainConfig": "recipe",
    "Trainer": "training",
    "VDSR": "model",
    "VDSRConfig": "model",
    "clip_gradients": "training",
    "cover": "tiling",
    "degrade": "degradation",
    "estimate_degradation": "degradation",
    "evaluate": "evaluation",
    "find_range": "inference",
    "fine_tune": "fine_tuning",
    "fine_tune_steps": "fine_tuning",
    "image_names": "io",
    "load_checkpoint": "checkpoint",
    "load_model": "checkpoint",
    "plan": "planning",
    "psnr": "evaluation",
    "read_image": "io",
    "resize": "resampling",
    "save_checkpoint": "checkpoint",
    "ssim": "evaluation",
    "stream": "streaming",
    "super_resolve": "inference",
    "super_resolve_tiles": "inference",
    "verify": "verification",
    "write_image": "io",
    "write_pyramid": "pyramid",
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
