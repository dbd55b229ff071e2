"""Upscale an array: in one call, tile by tile, or lazily."""
