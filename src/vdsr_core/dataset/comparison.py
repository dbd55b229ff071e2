"""Which of several networks restores an image best."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_scales, check_switch
from vdsr_core.dataset.hold_out import HoldOut
from vdsr_core.dataset.planes import find_planes
from vdsr_core.evaluation import Score, ssim
from vdsr_core.formats.io import ImageFile
from vdsr_core.images.ranges import Range
from vdsr_core.network.checkpoint import to_network
from vdsr_core.network.model import VDSR
from vdsr_core.network.pretrained import model_names

Model = VDSR | str | os.PathLike[str] | None
NAME = "image"  # of the one image, in messages and scores
SSIM_SIDE = 11  # pixels of the window of `ssim`


def compare_models(
    image: ArrayLike | ImageFile,
    scale: float = 2,
    *,
    models: Sequence[str | os.PathLike[str]] | Mapping[str, Model] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    self_ensemble: bool = False,
    device: str | None = None,
) -> Iterator[Score]:
    """Reduce an image, let several networks restore it, and score each against the original.

    Up to eight parts of 192 x 192 pixels are reduced by `degrade` and interpolated back; they are spread over the
    planes of the image, up to four on one plane. Every network restores the same parts. The scores are measured as
    `fine_tune` measures its held-out part, so the scores of the two can be compared. No network removes noise here: the
    original has it, too, so a cleaner result would have a lower score.

    Parameters
    ----------
    image : ndarray or ImageFile
        Shape (..., M, N), as in `super_resolve`. For a colour image, the luma is scored.
    scale : float, optional
        The factor by which the image is reduced and restored, greater than 1.
    models : sequence of str or path, or mapping of name to model, optional
        The networks, each as `load_model` takes it or as a `VDSR`. By default all that come with the package.
    channel_axis, rgb, in_range, self_ensemble, device
        As in `super_resolve`; for an `ImageFile` the axes are those of the file.

    Yields
    ------
    Score
        First for "bicubic", then for each network under its name as `method`, as soon as it is measured. PSNR and SSIM
        are means over the parts, with the range of the image as the peak.

    Raises
    ------
    TypeError, ValueError
        At the first step, if the image is constant or has fewer than ``4 * scale`` rows or columns, if an argument is
        invalid, or later, if a network cannot be loaded.

    See Also
    --------
    evaluate : The protocol of the field's tables, for 8-bit images.

    Examples
    --------
    >>> from vdsr_core import VDSRConfig
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> networks = {"untrained": VDSR(VDSRConfig(depth=3, width=4))}
    >>> [score.method for score in compare_models(image, 2, models=networks)]
    ['bicubic', 'untrained']
    """
    (factor,) = check_scales(scale)
    named = models if isinstance(models, Mapping) else {str(name): name for name in models or model_names()}
    options = {"channel_axis": channel_axis, "rgb": rgb, "in_range": in_range}
    turned = check_switch("self_ensemble", self_ensemble)
    sources, skipped = find_planes({NAME: image}, (factor,), **options)
    if not sources:
        msg = f"`image` must have something to compare, but it is {skipped[NAME]}. Choose a larger part, with detail."
        raise ValueError(msg)
    hold_out = HoldOut([plane for _, plane in sources[NAME]], (factor,), device=device)

    def score(method: str, restored: Sequence[NDArray[np.float64]], seconds: float) -> Score:
        (psnr,) = hold_out.means(restored).values()
        pairs = zip(hold_out.pieces, restored, strict=True)
        similar = [
            ssim(piece.hr, sr, data_range=1, crop_border=piece.border)
            for piece, sr in pairs
            if min(piece.hr.shape) - 2 * piece.border >= SSIM_SIDE
        ]
        return Score(NAME, factor, method, psnr, float(np.mean(similar)) if similar else math.nan, seconds)

    yield score("bicubic", [piece.ilr for piece in hold_out.pieces], 0.0)
    for name, model in named.items():
        network = to_network(model)
        start = time.perf_counter()
        restored = hold_out.restore(network, self_ensemble=turned)
        yield score(name, restored, time.perf_counter() - start)
