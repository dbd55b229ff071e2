"""What an image is, as NumPy arrays: axes, colour, intensity, ranges, resampling, tiling, degradation."""
