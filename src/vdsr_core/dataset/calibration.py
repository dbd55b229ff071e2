"""Measure the errors of a network on sharp images, and how well they are predicted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from vdsr_core.arguments import check_scales, check_switch
from vdsr_core.dataset.hold_out import HoldOut, Piece, make_piece
from vdsr_core.dataset.planes import Images, find_planes
from vdsr_core.images.degradation import degrade, mean_step
from vdsr_core.images.ranges import Range
from vdsr_core.network.checkpoint import to_network
from vdsr_core.network.error_table import ErrorTable
from vdsr_core.network.model import VDSR, Condition, check_network
from vdsr_core.upscaling.error_map import find_detail, find_errors, find_restored, local_mean, predict_piece

COVERED = 0.9  # of the errors lie below the bound
ROWS = 32  # of a table
CONTRAST = 5  # side of the square whose standard deviation is the local contrast
NOISES, QUALITIES = (0.01, 0.03, 0.1), (90, 70, 40)  # at which errors are measured: of the range, and of JPEG
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorReport:
    """How well the errors of some images were predicted; errors are fractions of the range.

    Attributes
    ----------
    scale : float
        The scale by which the images were reduced and restored.
    predicted, measured : tuple of 10 float
        The mean of the predicted and of the measured absolute errors in each tenth of the pixels, which are sorted by
        their predicted error.
    coverage : float
        The fraction of the pixels whose error is below the predicted 90 % bound.
    correlation : float
        Spearman's rank correlation of predicted and measured errors.
    contrast : float
        For comparison, the rank correlation of the local contrast of the interpolated image and measured errors.
    pixels : int
        Number of pixels that were compared.
    """

    scale: float
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    coverage: float
    correlation: float
    contrast: float
    pixels: int


def calibrate(
    model: VDSR,
    images: Images,
    scales: float | Sequence[float] | None = None,
    *,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    pieces: int = 48,
    device: str | None = None,
) -> ErrorTable:
    """Measure how large the errors of a network are, on sharp images that it was not trained with.

    Set the result as ``model.errors``; `save_checkpoint` keeps it, and `predict_error` uses it. If the network has maps
    of noise and compression, its errors are also measured on noisy and on compressed versions of the images.

    Parameters
    ----------
    model : VDSR
        The network; it stays as it is.
    images : ndarray, ImageFile, sequence of them, or mapping of name to them
        Sharp images, as in `fine_tune`. They are reduced by `degrade`, restored, and compared.
    scales : float or sequence of float, optional
        Scales at which to measure; errors can be predicted from the smallest one to the largest one. By default the
        scales of the network.
    channel_axis, rgb, in_range, device
        As in `super_resolve`, for all images.
    pieces : int, optional
        Maximum number of parts of 192 x 192 pixels that are restored.

    Returns
    -------
    ErrorTable

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or no image has detail.

    Examples
    --------
    >>> from vdsr_core import make_model, VDSRConfig
    >>> model = make_model(0, VDSRConfig(depth=3, width=4), start="identity")
    >>> model.errors = calibrate(model, np.random.default_rng(0).random((64, 64)), 2)
    >>> model.errors.scales
    (2.0,)
    """
    check_network(model)
    hold_out = _hold_out(images, check_scales(model.scales if scales is None else scales), pieces, device,
                         channel_axis=channel_axis, rgb=rgb, in_range=in_range)  # fmt: skip
    noises = NOISES if "noise" in model.config.maps else ()
    qualities = QUALITIES if "compression" in model.config.maps else ()
    return replace(
        _measure(model, hold_out, {}),
        noisy=tuple((noise, _measure(model, hold_out, {"read_noise": noise})) for noise in noises),
        compressed=tuple((mean_step(quality), _measure(model, hold_out, {"jpeg": quality})) for quality in qualities),
    )


def compare_errors(
    images: Images,
    scales: float | Sequence[float] = (2, 3, 4),
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    self_ensemble: bool = False,
    degradation: Mapping[str, Any] | None = None,
    pieces: int = 48,
    device: str | None = None,
) -> Iterator[ErrorReport]:
    """Reduce images, restore them, and compare the predicted with the real errors.

    Parameters
    ----------
    images, channel_axis, rgb, in_range, pieces, device
        As in `calibrate`. They should be other images than those of `calibrate`.
    scales : float or sequence of float, optional
        Scales by which the images are reduced.
    model : VDSR, str or path, optional
        A network, or what `load_model` takes. The default network by default.
    self_ensemble
        As in `super_resolve`.
    degradation : mapping, optional
        Options of `degrade` other than the scale, such as ``{"read_noise": 0.02}``; intensities are 0 to 1 there. The
        network, or its restorer, is told noise and compression.

    Yields
    ------
    ErrorReport
        For each scale, over all images together.

    Raises
    ------
    TypeError, ValueError
        As in `calibrate` and `predict_error`, at the first step.

    See Also
    --------
    predict_error : The expected error of each pixel of a result.
    compare_models : Which of several networks restores an image best.

    Examples
    --------
    >>> from vdsr_core import make_model, VDSRConfig
    >>> model, image = make_model(0, VDSRConfig(depth=3, width=4), start="identity"), np.eye(64)
    >>> model.errors = calibrate(model, image, 2)
    >>> [report.scale for report in compare_errors(image, 2, model=model)]
    [2.0]
    """
    network = to_network(model)
    options = dict(degradation or {})
    degrade(np.full((16, 16), 0.5), 2, **options)  # raises for wrong options
    told = find_condition(options)
    if told.is_degraded and not network.maps:
        msg = f"`degradation` must add neither noise nor compression for a network that removes none, got {options}. "
        raise ValueError(msg + "Use one with maps or a restorer, such as photo.")
    table = find_restored(network) if told.is_degraded else find_errors(network)
    turned = check_switch("self_ensemble", self_ensemble)
    for scale in check_scales(scales):
        table.predict(np.zeros(1), scale)  # raises before anything is restored
    for scale in check_scales(scales):
        hold_out = _hold_out(images, (scale,), pieces, device, channel_axis=channel_axis, rgb=rgb, in_range=in_range)
        if options:
            hold_out.pieces = [degrade_piece(piece, options, seed) for seed, piece in enumerate(hold_out.pieces)]
        yield report(table, scale, hold_out.pieces, hold_out.restore(network, self_ensemble=turned))


def _hold_out(images: Images, scales: Sequence[float], pieces: int, device: str | None, **options: Any) -> HoldOut:
    """Parts of images to restore."""
    if not scales:
        msg = "`scales` must hold at least one scale, got none. Try [2, 3, 4]."
        raise ValueError(msg)
    sources, skipped = find_planes(images, scales, **options)
    if not sources:
        why = "; ".join(f"{name} is {reason}" for name, reason in list(skipped.items())[:3])
        msg = f"`images` must have something to measure, but {why}. Use larger ones, with detail."
        raise ValueError(msg)
    return HoldOut([hr for source in sources.values() for _, hr in source], scales, pieces=pieces, device=device)


def _measure(model: VDSR, hold_out: HoldOut, options: Mapping[str, Any]) -> ErrorTable:
    """The errors of a network on pieces that are degraded by some options of `degrade`."""
    clean = hold_out.pieces
    hold_out.pieces = [degrade_piece(piece, options, seed) for seed, piece in enumerate(clean)] if options else clean
    table = measure_errors(hold_out.pieces, hold_out.restore(model))
    hold_out.pieces = clean
    assert table is not None  # all pieces have a scale
    return table


def find_condition(options: Mapping[str, Any]) -> Condition:
    """What a network is told of an image that is reduced with some options of `degrade`."""
    quality = options.get("jpeg")
    variance = options.get("shot_noise", 0.0), options.get("read_noise", 0.0) ** 2
    return Condition(*variance, 0.0 if quality is None else mean_step(quality))


def degrade_piece(piece: Piece, options: Mapping[str, Any], seed: int) -> Piece:
    """A piece whose low-resolution image is made with other options of `degrade`."""
    low = degrade(piece.hr, piece.factor, **{"seed": seed, **options})
    return make_piece(piece.factor, piece.hr.astype(np.float32), low, find_condition(options))


def measure_errors(pieces: Sequence[Piece], restored: Sequence[Values]) -> ErrorTable | None:
    """The table of pieces and of what a network made of them; None if their scales are not known."""
    found: dict[float, list[tuple[Values, Values]]] = {}
    for piece, sr in zip(pieces, restored, strict=True):
        if piece.factor:
            found.setdefault(piece.factor, []).append(_compare(piece, sr)[:2])
    if not found:
        return None
    rows = [_measure_rows(*map(np.concatenate, zip(*found[scale], strict=True))) for scale in sorted(found)]
    return ErrorTable(tuple(sorted(found)), *(tuple(table) for table in zip(*rows, strict=True)))


def _measure_rows(detail: Values, error: Values) -> list[tuple[float, ...]]:
    """Rows of detail, mean error and 90 % bound: smooth where pixels are many, finer where detail is rare."""
    order = np.argsort(detail, kind="stable")
    cuts = np.unique(np.round(len(order) * (1 - np.linspace(1, 0, ROWS + 1)[1:-1] ** 2)).astype(int))
    bins = [part for part in np.split(order, cuts) if len(part)]
    counts = [len(part) for part in bins]
    rows = [
        np.array([detail[part].mean() for part in bins]),
        isotonic_regression([error[part].mean() for part in bins], weights=counts).x,
        isotonic_regression([np.quantile(error[part], COVERED) for part in bins], weights=counts).x,
    ]
    return [tuple(float(f"{value:.4g}") for value in row) for row in rows]


def _compare(piece: Piece, sr: Values) -> tuple[Values, Values, Values]:
    """The fine detail of a restored piece, its absolute error and the contrast of what it was made of; flat."""
    contrast = np.sqrt(np.maximum(local_mean(piece.ilr**2, CONTRAST) - local_mean(piece.ilr, CONTRAST) ** 2, 0))
    detail, error, contrast = (_inside(piece, values) for values in (find_detail(sr), np.abs(piece.hr - sr), contrast))
    return detail, error, contrast


def _inside(piece: Piece, values: Values) -> Values:
    """The pixels of a piece without its border, flat."""
    return values[tuple(slice(piece.border, n - piece.border) for n in values.shape)].ravel()


def report(table: ErrorTable, scale: float, pieces: Sequence[Piece], restored: Sequence[Values]) -> ErrorReport:
    """How well a table predicts the errors of pieces that were restored from one scale."""
    pairs = list(zip(pieces, restored, strict=True))
    detail, error, contrast = map(np.concatenate, zip(*(_compare(*pair) for pair in pairs), strict=True))
    predicted, bound = (
        np.concatenate([_inside(piece, predict_piece(table, sr, piece.condition, bound=kind)) for piece, sr in pairs])
        for kind in (False, True)
    )
    tenths = np.array_split(np.lexsort((detail, predicted)), 10)
    return ErrorReport(
        scale,
        tuple(float(predicted[part].mean()) for part in tenths),
        tuple(float(error[part].mean()) for part in tenths),
        float(np.mean(error <= bound)),
        float(spearmanr(predicted, error).statistic),
        float(spearmanr(contrast, error).statistic),
        len(error),
    )
