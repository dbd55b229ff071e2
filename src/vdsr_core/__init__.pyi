from .dataset.calibration import ErrorReport, calibrate, compare_errors
from .dataset.comparison import compare_models
from .dataset.hold_out import Preview
from .dataset.patches import Patches
from .evaluation import Score, evaluate, psnr, ssim
from .formats.folder import read_folder
from .formats.io import ImageFile, image_names, read_image, write_image
from .formats.pyramid import read_pyramid, write_pyramid
from .images.degradation import degrade, estimate_degradation
from .images.intensity import Rescale
from .images.noise import estimate_noise, noise_fraction
from .images.resampling import resize
from .images.tiling import Tile, cover
from .memory import free_memory
from .network.bioimageio_file import save_bioimageio
from .network.checkpoint import load_checkpoint, load_model, save_checkpoint
from .network.devices import list_devices
from .network.error_table import ErrorTable
from .network.model import VDSR, VDSRConfig, make_model
from .network.onnx_file import save_onnx
from .network.pretrained import model_names, read_card
from .streaming.files import FileProgress, upscale_files
from .streaming.plan import Plan, plan
from .streaming.shards import Shard
from .streaming.stream import stream
from .streaming.verify import Check, verify
from .training.fine_tune import fine_tune, fine_tune_steps
from .training.objective import clip_gradients
from .training.progress import Progress
from .training.recipe import FineTuneConfig, TrainConfig
from .training.session import FineTuneProgress
from .training.trainer import Trainer
from .upscaling.error_map import predict_error
from .upscaling.inference import super_resolve, super_resolve_tiles
from .upscaling.quality import describe_quality, find_misfit
from .upscaling.survey import find_range, survey

__version__: str

__all__ = [
    "VDSR",
    "Check",
    "ErrorReport",
    "ErrorTable",
    "FileProgress",
    "FineTuneConfig",
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
    "VDSRConfig",
    "calibrate",
    "clip_gradients",
    "compare_errors",
    "compare_models",
    "cover",
    "degrade",
    "describe_quality",
    "estimate_degradation",
    "estimate_noise",
    "evaluate",
    "find_misfit",
    "find_range",
    "fine_tune",
    "fine_tune_steps",
    "free_memory",
    "image_names",
    "list_devices",
    "load_checkpoint",
    "load_model",
    "make_model",
    "model_names",
    "noise_fraction",
    "plan",
    "predict_error",
    "psnr",
    "read_card",
    "read_folder",
    "read_image",
    "read_pyramid",
    "resize",
    "save_bioimageio",
    "save_checkpoint",
    "save_onnx",
    "ssim",
    "stream",
    "super_resolve",
    "super_resolve_tiles",
    "survey",
    "upscale_files",
    "verify",
    "write_image",
    "write_pyramid",
]
