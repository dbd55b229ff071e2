"""The command `vdsr evaluate`."""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_core.cli import calibration as predict
from vdsr_core.cli.terminal import (
    Device,
    Model,
    check_options,
    parse_scales,
    plain,
    plain_errors,
    progress_bar,
    read_number,
    refuse,
    say,
)

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.evaluation import Score
    from vdsr_core.network.model import VDSR


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Sharp 8-bit images, gray or RGB, such as Set5.", show_default=False)],
    scales: Annotated[str, typer.Option(metavar="S...", help="Upscaling factors, such as 2 2.5 3.")] = "2 3 4",
    model: Model = None,
    format: Annotated[
        Literal["table", "csv", "json"] | None,
        typer.Option(help="How to print; csv and json with all digits.", show_default="by FILE's suffix, else table"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file instead of standard output."),
    ] = None,
    device: Device = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            show_default="bicubic reduction alone",
            help="How to degrade the low-resolution images, such as 'noise 5, jpeg 40': noise (of 255), shot (value of "
            "a photon), jpeg (quality), blur (in pixels of the sharp image), kernel (bicubic, box, lanczos). Networks "
            "that remove noise and compression do so.",
        ),
    ] = None,
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble", help="Take the mean over eight flips and rotations: a little better, 8 times slower."
        ),
    ] = False,
    per_image: Annotated[
        bool, typer.Option("--per-image/--mean-only", help="Print a row for each image, or for the mean only.")
    ] = True,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Instead of scores, measure how well the errors of the network are predicted, on images of any type; "
            "-o FILE.png, .svg or .pdf draws that, with matplotlib.",
        ),
    ] = False,
) -> None:
    """Score a network and bicubic interpolation on sharp images, by the protocol of published tables.

    Prints PSNR in dB and SSIM of the luma, the gain over bicubic in dB, and the network's seconds per image. If the
    folder is called Set5, Set14 or B100 and the bicubic scores are not the published ones, the exit code is 1: the
    scores cannot be compared with published ones.

    Example: vdsr evaluate Set5 --scales 2 3 4
    """
    factors, degradation = parse_scales(scales), parse_degradation(degrade or "")
    suffix = output.suffix[1:].lower() if output else ""
    if suffix in predict.PLOTS and not calibration:
        refuse(f"must be a text unless --calibration draws a plot, got {output}. Try a .csv or .json file.", "--output")
    style = format or (suffix if suffix in ("csv", "json") else "table")
    with plain_errors():
        from vdsr_core.evaluation import check_bicubic, mean_scores
        from vdsr_core.files import replacing
        from vdsr_core.network.checkpoint import load_model

        network = load_model(model)
        check_options(factors, model=network, device=device)
        with replacing(output) if output else nullcontext() as temporary:
            if calibration:
                noise = {name: degradation[name] / 255 for name in ("read_noise", "shot_noise") if name in degradation}
                options = {"degradation": degradation | noise, "self_ensemble": self_ensemble}
                reports = predict.measure(folder, factors, network, device, options)
                if temporary and suffix in predict.PLOTS:
                    predict.draw(reports, temporary, suffix)
                else:
                    _write(predict.to_text(reports, style), temporary)
                return
            options = {"degradation": degradation, "self_ensemble": self_ensemble}
            scores = score_images(folder, factors, network, device, options)
            means = mean_scores(scores)
            rows = pair_methods([*(scores if per_image else []), *means])
            _write({"table": to_table, "csv": to_csv, "json": to_json}[style](rows), temporary)
        if not degradation:
            check_bicubic(folder.resolve().name, means)


def _write(text: str, file: Path | None) -> None:
    """Write text to a file, or to stdout."""
    if file:
        file.write_text(text, encoding="utf-8")
    else:
        for line in text.splitlines():
            say(line)


DEGRADATIONS = {"noise": "read_noise", "shot": "shot_noise", "jpeg": "jpeg", "blur": "blur", "kernel": "kernel"}


def parse_degradation(text: str) -> dict[str, Any]:
    """``noise 5, jpeg 40`` as options of `degrade`."""
    hint = "Try 'noise 5, jpeg 40'."
    found: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        word, _, value = part.partition(" ")
        if word not in DEGRADATIONS or not value:
            refuse(f"must be words and values, of {', '.join(DEGRADATIONS)}, got {part!r}. {hint}", "--degrade")
        number = value.strip() if word == "kernel" else read_number(value, "--degrade", hint)
        if isinstance(number, float) and number < 0:
            refuse(f"must have numbers of at least 0, got {part!r}. {hint}", "--degrade")
        found[DEGRADATIONS[word]] = int(number) if word == "jpeg" and number == int(number) else number
    return found


def score_images(
    folder: Path, scales: list[float], model: VDSR, device: str | None, options: dict[str, Any]
) -> list[Score]:
    """The scores of all images of a folder, with a progress bar; with options of `vdsr_core.evaluate`."""
    from vdsr_core.evaluation import evaluate as scores_of
    from vdsr_core.formats.folder import list_folder
    from vdsr_core.formats.io import read_image

    if not folder.is_dir():
        msg = f"{folder} is not a folder. Give one that holds the images."
        raise NotADirectoryError(msg)
    paths = list_folder(folder)
    images: Any = ((path.stem, read_image(path).data) for path in paths)
    scores = []
    with progress_bar("{task.completed:.0f} of {task.total:.0f}") as progress:
        task = progress.add_task(plain(folder.name), total=2 * len(paths) * len(scales))
        for score in scores_of(model, images, scales, device=device, **options):
            scores.append(score)
            progress.update(task, advance=1, description=plain(f"{score.image} x{score.scale:g}"))
    return scores


def pair_methods(scores: list[Score]) -> list[dict[str, Any]]:
    """One row for each image and scale, scale by scale, from scores that alternate: bicubic, network."""
    return [
        {
            "image": ours.image,
            "scale": ours.scale,
            "bicubic_psnr": bicubic.psnr,
            "psnr": ours.psnr,
            "gain": ours.psnr - bicubic.psnr,
            "bicubic_ssim": bicubic.ssim,
            "ssim": ours.ssim,
            "bicubic_seconds": bicubic.seconds,
            "seconds": ours.seconds,
        }
        for bicubic, ours in sorted(zip(scores[::2], scores[1::2], strict=True), key=lambda both: both[0].scale)
    ]


def to_table(rows: list[dict[str, Any]]) -> str:
    """Rows for people, as a Markdown table."""
    formats = {
        "image": "", "scale": "g", "bicubic_psnr": ".2f", "psnr": ".2f", "gain": "+.2f",
        "bicubic_ssim": ".4f", "ssim": ".4f", "seconds": ".2f",
    }  # fmt: skip
    head = [name.replace("_", " ") for name in formats]
    cells = [[f"{row[name]:{form}}" for name, form in formats.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = (
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in (head, rule, *cells)
    )
    return "".join(f"| {line} |\n" for line in lines)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as comma-separated values in full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_json(rows: list[dict[str, Any]]) -> str:
    """Rows as a list of JSON objects in full precision; null for what is not finite."""

    def known(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{key: known(value) for key, value in row.items()} for row in rows], indent=1) + "\n"
