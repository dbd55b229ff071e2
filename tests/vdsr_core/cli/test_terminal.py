import io
import math
import os
import sys

import pytest
from rich.console import Console

from vdsr_core import save_checkpoint
from vdsr_core.cli.terminal import FIGURES, training_table
from vdsr_core.training.progress import Progress


def progress(step, gain=None, share=0.5):
    psnr = None if gain is None else 30 + gain
    return Progress(step, share, 5e-4, 0.02, 0.25, 23.4, math.nan if not step else 3725, psnr, gain)


def test_a_terminal_shows_a_table_that_stays(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, height=10, color_system=None)
    with training_table(screen) as show:
        show(progress(0, 0.0), math.nan)
        for step in range(1, 31):
            show(progress(step, step / 100 if step % 2 == 0 else None), 0.0123)
    shown = screen.file.getvalue()
    last = shown[shown.rindex("patches/s") :]
    assert all(name in shown for name in FIGURES)
    assert [line.split() for line in last.splitlines()[1:]] == [
        ["0", "30.00", "+0.00", "0.0005", "25%", "23.4"],
        *(
            [f"{step}", "0.0123", f"{30 + step / 100:.2f}", f"+{step / 100:.2f}", "0.0005", "25%", "23.4", "1:02:05"]
            for step in range(2, 31, 2)
        ),
    ]
    assert capsys.readouterr().out == ""


def test_a_file_gets_a_line_for_each_measurement(capsys):
    console = Console(file=io.StringIO(), width=100)
    with training_table(console) as show:
        show(progress(0, 0.0), math.nan)
        show(progress(1), 0.5)
        show(progress(2, -0.12), 0.25)
    assert capsys.readouterr().out.splitlines() == [
        "step 0  30.00 dB, +0.00 over bicubic",
        "step 2  loss 0.25  29.88 dB, -0.12 over bicubic",
    ]
    assert console.file.getvalue() == ""


EVIL = "\x1b]0;owned\x07\x1b[2J\r\n\u009b31m\u202e\x7f"


def test_control_characters_of_a_card_are_shown_as_escapes(vdsr, tmp_path, tiny_model):
    tiny_model.card = {"name": EVIL, "inner": {EVIL: EVIL}}
    save_checkpoint(tmp_path / "evil.safetensors", tiny_model)
    result = vdsr("info", tmp_path / "evil.safetensors", model=None)
    assert result.exit_code == 0
    assert not set(EVIL) & set(result.output) - set("]0;owned[2J31m\n")
    assert r"\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\x7f" in result.output


@pytest.mark.parametrize("debug", ["", "1"])
def test_control_characters_of_file_names_are_shown_as_escapes(vdsr, folder, draw, monkeypatch, debug):
    monkeypatch.setenv("VDSR_DEBUG", debug)
    draw(folder / "a.png", (8, 9))
    os.rename("a.png", f"{EVIL}.png")
    (folder / f"b{EVIL}.png").write_bytes(b"no image")
    result = vdsr("upscale", ".", "-o", "out/", "--scale", 2)
    assert result.exit_code == 1
    assert "\\x1b" in result.stdout
    assert "\\x1b" in result.stderr
    assert not set(EVIL) & set(result.output) - set("]0;owned[2J31m\n")
