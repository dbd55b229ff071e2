"""Threads for long work, and PyTorch in them, while the viewer stays responsive."""
