"""VDSR super-resolution in napari."""

from napari_vdsr.upscale.layer import upscale_layer

__all__ = ["upscale_layer"]
