"""Upscale from file to file, in pieces that survive an interruption."""
