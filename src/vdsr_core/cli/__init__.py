"""The command `vdsr`."""
