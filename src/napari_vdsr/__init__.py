"""VDSR super-resolution in napari."""
