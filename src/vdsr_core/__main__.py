"""Run the `vdsr` command as ``python -m vdsr_core``."""

from vdsr_core.cli.main import app

if __name__ == "__main__":
    app()
