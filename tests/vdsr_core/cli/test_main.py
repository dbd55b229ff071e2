import re
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
from typer.main import get_command

from vdsr_core import (
    VDSR,
    VDSRConfig,
    __version__,
    save_checkpoint,
)
from vdsr_core.cli.main import app
from vdsr_core.network.ncnn_engine import has_ncnn
from vdsr_core.network.pretrained import model_names


def test_info_names_network_machine_and_versions(tmp_path, tiny_model, vdsr):
    tiny_model.card = {"name": "tiny", "terms": "", "scores": {"Set5": {"x2": 36.5}}, "note": "[bold]"}
    save_checkpoint(tmp_path / "card.safetensors", tiny_model)
    result = vdsr("info", tmp_path / "card.safetensors", model=None)
    assert (result.exit_code, result.stderr) == (0, "")
    parameters = sum(parameter.numel() for parameter in tiny_model.parameters())
    for line in (
        f"vdsr      {__version__}",
        f"numpy     {np.__version__}",
        f"embedded  {', '.join(model_names())}",
        f"network   4 layers of 8 filters; {parameters} parameters",
        "halo      4 pixels",
        "name      tiny",
        "scores\n  Set5\n    x2    36.5",
        "note      [bold]",
    ):
        assert f"{line}\n" in result.stdout
    assert "terms" not in result.stdout


def test_info_says_how_a_network_folds(tmp_path, vdsr):
    save_checkpoint(tmp_path / "m.safetensors", VDSR(VDSRConfig(4, 8, fold=3, blocks=True)))
    result = vdsr("info", tmp_path / "m.safetensors", model=None)
    assert (
        "\nnetwork   4 layers of 8 filters on squares of 3 x 3 pixels, in residual blocks; 2481 parameters\n"
        in result.stdout
    )
    assert "\nhalo      12 pixels\n" in result.stdout


def test_info_describes_the_default_network(vdsr):
    result = vdsr("info", model=None)
    assert "\nscales    1.25, 1.5, 2, 2.5, 3, 4\n" in result.stdout
    shape = "20 layers of 64 filters on squares of 2 x 2 pixels, in residual blocks, told scale; 669956 parameters"
    assert f"\nnetwork   {shape}\n" in result.stdout


def test_doctor_names_engines_and_what_is_chosen(vdsr):
    result = vdsr("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^cpu       torch +\d+\.\d{3}   0\.0e\+00", result.stdout, re.MULTILINE)
    assert result.stdout.count(" chosen\n") == 1
    assert re.search(r"^torch     \S+, made for ", result.stdout, re.MULTILINE)
    assert ("\nncnn      " in result.stdout) == has_ncnn()


def test_info_of_a_damaged_file_is_one_line(tmp_path, vdsr):
    (tmp_path / "a.pt").write_bytes(b"PK")
    result = vdsr("info", tmp_path / "a.pt", model=None)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("vdsr: ")


def test_help_names_every_option(vdsr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name, command in get_command(app).commands.items():
        shown = re.sub(r"\x1b\[[\d;]*m", "", vdsr(name, "--help", model=None).stdout)
        for param in command.params:
            assert param.param_type_name == "argument" or all(word in shown for word in param.opts)
            assert param.help.endswith("."), f"{name} {param.name}"


def test_help_and_version_load_no_torch():
    code = "import sys; from vdsr_core.cli.main import app\n"
    code += "try: app(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
        assert "vdsr" in done.stdout.lower()


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vdsr_core", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vdsr {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "vdsr_core", "upscale"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument 'IN...'" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "No such option: --foo"),
        (["enlarge"], "No such command 'enlarge'"),
        (["upscale", "--foo"], "No such option: --foo"),
        (["upscale", "a.png", "-o"], "Option '-o' requires an argument"),
        (["upscale", "a.png", "-o", "b.png", "--scale", "nan"], "--scale must be a positive finite"),
        (
            ["upscale", "a.png", "-o", "b.png", "--scale", "2", "--tile", "0"],
            "Invalid value for '--tile'",
        ),
        (
            ["upscale", "a.png", "-o", "b.png", "--scale", "2", "--tile", "x"],
            "Invalid value for '--tile'",
        ),
        (["train", "a", "-o", "b.csv"], "--output must end with .safetensors, got b.csv."),
    ],
)
def test_a_wrong_command_line_is_named(folder, vdsr, words, message, draw):
    draw(folder / "a.png", (6, 7))
    result = vdsr(*words, model=None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


NUMBERS = [
    (name, param.opts[0], param.nargs)
    for name, command in get_command(app).commands.items()
    for param in command.params
    if re.search("int|float", str(get_type_hints(command.callback).get(param.name)))
]


def test_options_that_take_numbers_are_found():
    assert {("upscale", "--in-range", 2), ("train", "--theta", 1), ("verify", "--samples", 1)} <= set(NUMBERS)


@pytest.mark.parametrize(("command", "option", "words"), NUMBERS)
def test_a_comma_in_a_number_is_named_in_every_option(vdsr, command, option, words):
    result = vdsr(command, "x", option, *["1"] * (words - 1), "2,5", model=None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr
    assert "Numbers have a decimal point and no comma" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["upscale", "x", "-o", "y", "--scale", "2,5"],
        ["upscale", "x", "-o", "y", "--scale", "2,1.5"],
        ["upscale", "x", "-o", "y", "--size", "4,096x"],
        ["upscale", "x", "-o", "y", "--pixel-size", "0,1um"],
        ["upscale", "x", "-o", "y.tif", "--scale", "2", "--part", "1,5/2"],
        ["evaluate", "x", "--scales", "2,5"],
        ["evaluate", "x", "--scales", "2,3,4"],
        ["train", "x", "-o", "y.safetensors", "--scales", "2", "2,5"],
        ["train", "x", "-o", "y.safetensors", "--time-budget", "1,5h"],
        ["fine-tune", "x", "-o", "y.safetensors", "--scales", "2,5"],
    ],
)
def test_a_comma_is_never_a_separator(vdsr, words):
    result = vdsr(*words, model=None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search("decimal point|must be (COLUMNSxROWS|a number from|a time)", result.stderr)


def test_no_words_show_the_help(vdsr):
    result = vdsr(model=None)
    assert (result.exit_code, result.stderr) == (2, "")
    assert "Usage: " in result.stdout
