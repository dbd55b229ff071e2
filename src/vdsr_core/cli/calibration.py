"""What `vdsr evaluate --calibration` prints and draws: predicted beside measured errors."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_core.cli.terminal import plain, progress_bar
from vdsr_core.cli.training import read_planes

if TYPE_CHECKING:
    from vdsr_core.dataset.calibration import ErrorReport
    from vdsr_core.network.model import VDSR

PIECES = 48  # that are restored, or one of each plane
PLOTS = ("png", "svg", "pdf")  # suffixes of drawings


def measure(
    folder: Path, scales: list[float], model: VDSR, device: str | None, options: dict[str, Any]
) -> list[ErrorReport]:
    """How well the errors of a network are predicted on a folder, with a progress bar; options of `compare_errors`."""
    from vdsr_core.dataset.calibration import compare_errors

    sources = read_planes([str(folder)], scales).planes
    planes = {f"{name} {number}": hr for name, source in sources.items() for number, (_, hr) in enumerate(source)}
    pieces = max(PIECES, len(planes))
    with progress_bar("{task.completed:.0f} of {task.total:.0f}") as progress:
        reports = compare_errors(planes, scales, model=model, in_range=(0, 1), pieces=pieces, device=device, **options)
        return list(progress.track(reports, len(scales), description=plain(folder.name)))


def to_text(reports: list[ErrorReport], style: str) -> str:
    """The reports for people, as Markdown tables in percent of the range; or in full precision."""
    if style == "json":
        return json.dumps([asdict(report) for report in reports], indent=1) + "\n"
    if style == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["scale", "tenth", "predicted", "measured", "coverage", "correlation", "contrast", "pixels"])
        for found in reports:
            rest = found.coverage, found.correlation, found.contrast, found.pixels
            for tenth, both in enumerate(zip(found.predicted, found.measured, strict=True), 1):
                writer.writerow([found.scale, tenth, *both, *rest])
        return stream.getvalue()
    return "\n".join(map(_table, reports))


def _table(found: ErrorReport) -> str:
    """The report of one scale."""
    lines = [f"x{found.scale:g}: mean absolute error in percent of the range, by tenths of the predicted error", ""]
    lines += [
        "| tenth | predicted | measured | predicted / measured |",
        "| ----: | --------: | -------: | -------------------: |",
    ]
    for tenth, (predicted, measured) in enumerate(zip(found.predicted, found.measured, strict=True), 1):
        ratio = f"{predicted / measured:.2f}" if measured else "-"
        lines.append(f"| {tenth:5} | {100 * predicted:9.3f} | {100 * measured:8.3f} | {ratio:>20} |")
    words = f"{found.coverage:.1%} of {found.pixels} pixels have an error below their 90 % bound. "
    words += f"Rank correlation with measured errors: {found.correlation:.3f}; "
    lines += ["", words + f"of the local contrast alone: {found.contrast:.3f}."]
    return "\n".join(lines) + "\n"


def draw(reports: list[ErrorReport], path: Path, kind: str) -> None:
    """Draw measured against predicted errors, a curve for each scale, into a file."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "A drawing needs matplotlib, which is not installed. Install it, or write a .csv or .json file."
        raise ValueError(msg) from error
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for found in reports:
        predicted, measured = ([100 * value for value in row] for row in (found.predicted, found.measured))
        axes.loglog(predicted, measured, "o-", label=f"x{found.scale:g}, {found.coverage:.0%} below the bound")
    ends = axes.get_xlim()
    axes.plot(ends, ends, ":", color="gray", label="as predicted")
    axes.set_xlabel("Predicted error (% of the range)")
    axes.set_ylabel("Measured error (% of the range)")
    axes.set_aspect("equal")
    axes.legend()
    figure.savefig(path, format=kind)
