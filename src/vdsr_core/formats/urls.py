"""Images by URL: paths that are read through fsspec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def is_url(value: Any) -> bool:
    """Whether a path is a URL, such as ``https://...`` or ``s3://...``."""
    return bool(re.match(r"[A-Za-z][\w+.-]+://", str(value)))


def open_url(url: Any) -> Path:
    """A URL as a path."""
    try:
        from upath import UPath
    except ImportError as error:
        msg = "images by URL need fsspec and more. Install them: `pip install 'napari-vdsr[remote]'`."
        raise ImportError(msg) from error
    path: Any = UPath(str(url).rstrip("/"))
    return path  # type: ignore[no-any-return]


def existing_url(url: Any) -> Path:
    """A URL as a path, checked to hold a zarr."""
    import zarr

    path = open_url(url)
    try:
        zarr.open(str(path), mode="r")
    except FileNotFoundError as error:
        msg = f"{path} holds no zarr, and only zarr is read by URL. Check the address, or download the file."
        raise FileNotFoundError(msg) from error
    except Exception as error:  # each protocol has its own
        msg = f"{path} cannot be read: {str(error) or type(error).__name__}. Check the address and the network."
        raise ConnectionError(msg) from error
    return path


def resolve(path: Path) -> Path:
    """The absolute path, without links; a URL as it is: asking it for its links takes time."""
    return path if is_url(path) else path.resolve()
