"""The widget that upscales layers."""
