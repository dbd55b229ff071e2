"""Super-resolution of images of any size with one network, VDSR (Kim, Lee and Lee, CVPR 2016).

The public names are listed in ``__init__.pyi``. Each is loaded when it is first used, so ``import vdsr_core`` alone is
quick and does not load PyTorch.

Examples
--------
>>> import numpy as np
>>> from vdsr_core import resize
>>> resize(np.zeros((20, 30), np.uint16), 1.5).shape
(30, 45)
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name):  # type annotations are in __init__.pyi
    """Load a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-vdsr")
    return _load(name)
