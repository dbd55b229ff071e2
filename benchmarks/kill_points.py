"""Stop a process before and after each of its file operations, and go on from what a kill would leave there.

A kill loses what is in the memory of a process, and its locks; so a copy of the folder, made while the process is
stopped, is what the next process finds. From each state that is new, the same command is run, and another one with
other options. Wrong are: a target that is neither absent, nor the old one, nor the new one; a result of the next run
that is not the one of an uninterrupted run; files that stay behind, also in the target. Another command must give its
own right result, or refuse with a message.

python benchmarks/kill_points.py
python benchmarks/kill_points.py --only "stream" --every 5
"""

import argparse
import builtins
import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import tifffile
import torch

from vdsr_core import (
    VDSR,
    FineTuneConfig,
    ImageFile,
    VDSRConfig,
    fine_tune_steps,
    load_model,
    make_model,
    plan,
    read_card,
    read_image,
    save_checkpoint,
    stream,
    upscale_files,
    write_image,
    write_pyramid,
)
from vdsr_core.streaming.workspace import sweep
from vdsr_core.training import resume

REFUSED, WRONG = 3, 4  # exit codes of a command that refuses with a message, and of one whose result is not right
OPERATIONS = "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "chmod", "utime", "truncate"


def pixels(seed=0):
    return np.random.default_rng(seed).integers(1000, 60000, (20, 24)).astype(np.uint16)


def network(seed=0):
    torch.manual_seed(seed)
    return VDSR(VDSRConfig(depth=3, width=4), scales=[2])


class Streaming:
    """`stream` from one file to another."""

    resumable = False

    def __init__(self, name, overwrite=False, format=None):
        self.name, self.overwrite, self.format = name, overwrite, format

    def prepare(self, folder):
        write_image(folder / "in.tif", ImageFile(pixels(), "YX"))
        if self.overwrite:
            self.act(folder, 2)

    def act(self, folder, variant):
        ranges, options = ((0, 65535), (0, 60000), (0, 50000)), {"model": network(), "tile": 16, "shard": 32}
        if (folder / self.name).exists() and variant == 0 and not self.overwrite:
            sweep(folder / self.name)  # as the command does
            return
        job = plan(
            folder / "in.tif", 2, folder / self.name, in_range=ranges[variant], format=self.format,
            overwrite=self.overwrite or variant == 1, **options,
        )  # fmt: skip
        for _ in stream(job, model=options["model"], threads=1):
            pass

    def load(self, folder):
        return np.asarray(read_image(folder / self.name).data)


class Writing:
    """`write_image` or `write_pyramid` over another image."""

    resumable = False

    def __init__(self, name, write=write_image):
        self.name, self.write = name, write

    def prepare(self, folder):
        self.act(folder, 2)

    def act(self, folder, variant):
        kind = np.uint8 if self.name.endswith("png") else np.uint16
        self.write(folder / self.name, ImageFile(pixels(variant).astype(kind), "YX"), overwrite=True)

    def load(self, folder):
        return np.asarray(read_image(folder / self.name).data)


class Saving:
    """`save_checkpoint` over another network."""

    name, resumable = "net.safetensors", False

    def prepare(self, folder):
        self.act(folder, 2)

    def act(self, folder, variant):
        save_checkpoint(folder / self.name, network(variant))

    def load(self, folder):
        return np.concatenate([array.detach().numpy().ravel() for array in load_model(folder / self.name).parameters()])


class Naming(Saving):
    """Import a network into the models of the plugin, and rename it there."""

    name = "napari-vdsr/models/new.safetensors"

    def prepare(self, folder):
        save_checkpoint(folder / "first.safetensors", network())

    def act(self, folder, variant):
        from napari_vdsr.models.library import import_model, list_models, rename_model

        os.environ["XDG_DATA_HOME"] = str(folder)
        if "new" not in list_models():
            if "first" not in list_models():
                import_model(folder / "first.safetensors")
            rename_model("first", "new")

    def load(self, folder):
        assert read_card(folder / self.name)["name"] == "new"
        return super().load(folder)


class Batch:
    """`upscale_files` of a file with two images, which become one OME-Zarr."""

    name, resumable = "out.ome.zarr", True

    def prepare(self, folder):
        with tifffile.TiffWriter(folder / "in.ome.tif") as tiff:
            for number in range(2):
                tiff.write(pixels(number), metadata={"axes": "YX", "Name": f"image {number}"})

    def act(self, folder, variant):
        options = {"model": network(), "tile": 16, "shard": 32, "in_range": (0, 65535 - 9999 * variant)}
        overwrite = variant == 1
        for step in upscale_files(folder / "in.ome.tif", folder / self.name, 2, overwrite=overwrite, **options):
            if step.error is not None:
                raise step.error

    def load(self, folder):
        parts = [folder / self.name / name for name in "01"]
        return np.array([np.asarray(read_image(part).data) for part in parts if part.exists()])


class FineTuning(Saving):
    """`fine_tune_steps` with a checkpoint after each measurement, resumed if there is one."""

    resumable = True

    def prepare(self, folder):
        pass

    def act(self, folder, variant):
        resume.SAVE_SECONDS = 0
        path, model = folder / self.name, network()
        options = {"scales": [2], "batch_size": 2, "patch": 10, "validate_every": 1, "patience": 99, "checkpoint": path}
        for _ in fine_tune_steps(model, [pixels()], steps=4 + variant, resume=path.exists(), **options):
            pass


class FineTuningInNapari(Saving):
    """A training of the plugin, resumed if it is unfinished, and saved among the models."""

    name, resumable = "napari-vdsr/models/new.safetensors", True

    def prepare(self, folder):
        save_checkpoint(folder / "first.safetensors", make_model(0, VDSRConfig(depth=3, width=4), start="identity"))

    def act(self, folder, variant):
        from napari_vdsr.fine_tune.data import Data
        from napari_vdsr.fine_tune.recipe import Recipe
        from napari_vdsr.fine_tune.unfinished import list_unfinished
        from napari_vdsr.fine_tune.work import Control, train
        from napari_vdsr.layers.image_layers import Source
        from napari_vdsr.models.library import list_models

        os.environ["XDG_DATA_HOME"] = str(folder)
        resume.SAVE_SECONDS = 0
        rows, columns = np.ogrid[:64, :64]
        image = (1000 * ((rows // 5 + columns // 7) % 3)).astype(np.uint16)
        layer = Source(image, "a", False, None, (slice(0, 64), slice(0, 64)))
        options = {"scales": [2], "batch_size": 2, "patch": 16, "validate_every": 20, "learning_rate": 5e-3}
        recipe = Recipe("new", FineTuneConfig(steps=40 + 20 * variant, **options), str(folder / "first.safetensors"))
        data = None if (begun := list_unfinished().get("new")) else Data({"a": layer})
        if begun or "new" not in list_models():
            *_, last = train(begun or recipe, data, Control(), threading.Event())
            if last.path is None:  # it must help to be saved
                raise RuntimeError(last.network.card["summary"])


class Training(Saving):
    """`vdsr train`, resumed if there is something to resume."""

    resumable = True

    def prepare(self, folder):
        (folder / "images").mkdir()
        for number in range(3):
            write_image(folder / "images" / f"{number}.png", ImageFile(pixels(number).astype(np.uint8), "YX"))
        save_checkpoint(folder / "first.safetensors", network())

    def act(self, folder, variant):
        from typer.testing import CliRunner

        from vdsr_core.cli.main import app

        out = folder / self.name
        words = ["train", str(folder / "images"), "-o", str(out), "--scales", "2", "--patch", "10", "--batch-size", "2"]
        words += ["--from", str(folder / "first.safetensors"), "--steps", str(3 + variant)]
        if out.exists():
            words = ["train", str(folder / "images"), "-o", str(out), "--resume"]
        result = CliRunner().invoke(app, words)
        if result.exit_code:
            raise ValueError(result.output)


WORK = {
    "stream to OME-Zarr": Streaming("out.ome.zarr"),
    "stream to OME-Zarr 0.4": Streaming("out.ome.zarr", format="0.4"),
    "stream to OME-Zarr, replacing": Streaming("out.ome.zarr", overwrite=True),
    "stream and pack to OME-TIFF": Streaming("out.ome.tif"),
    "stream and pack to OME-TIFF, replacing": Streaming("out.ome.tif", overwrite=True),
    "write PNG": Writing("out.png"),
    "write TIFF": Writing("out.tif"),
    "write zarr": Writing("out.zarr"),
    "write an OME-Zarr pyramid": Writing("out.ome.zarr", write_pyramid),
    "write an OME-TIFF pyramid": Writing("out.ome.tif", write_pyramid),
    "several images in one OME-Zarr": Batch(),
    "save a network": Saving(),
    "import and rename a network": Naming(),
    "fine-tune": FineTuning(),
    "fine-tune in napari": FineTuningInNapari(),
    "train": Training(),
}


def stop_at_operations(folder):
    """Stop this process before and after each operation that changes files below a folder."""

    def stop():
        os.kill(os.getpid(), signal.SIGSTOP)

    def watch(original, writes=lambda *_, **__: True):
        def operation(*args, **options):
            mine = writes(*args, **options) and (
                "dir_fd" in options or str(folder) in os.path.abspath(os.fsdecode(args[0]))
            )
            if mine:
                stop()
            result = original(*args, **options)
            if mine:
                stop()
            return result

        return operation

    def for_writing(path, mode="r", *_, **__):
        return not isinstance(path, int) and bool(set(mode) & set("wax+"))

    def creates(path, flags, *_, **__):
        return bool(flags & os.O_CREAT)

    for name in OPERATIONS:
        setattr(os, name, watch(getattr(os, name)))
    os.open = watch(os.open, creates)
    io.open = builtins.open = watch(io.open, for_writing)


def fork(work, seconds=900):
    """The number of a forked process that does some work, and ends with 0, `WRONG`, `REFUSED` or 1 after an error."""
    if child := os.fork():
        return child
    signal.alarm(seconds)
    code = 1
    try:
        code = work() or 0
    except (FileExistsError, PermissionError, ValueError) as error:
        code = REFUSED
        if os.environ.get("VDSR_DEBUG"):
            print("   refused:", error)
    except BaseException as error:
        print(f"   {type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(code)


def in_fork(work):
    """How a forked process ends that does some work, or minus a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


def names(folder):
    """All files and folders below a folder, hidden ones too; what trainings write beside their network aside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".train." not in path.name}


def digest(folder):
    """A number that tells what a folder holds."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.update(repr((str(path.relative_to(folder)), status.st_mode)).encode())
        if path.is_symlink():
            found.update(os.readlink(path).encode())
        elif path.is_file():
            found.update(hashlib.blake2b(path.read_bytes()).digest())
    return found.digest()


class Matrix:
    """All kill points of one kind of work."""

    def __init__(self, title, work, scratch):
        self.title, self.work, self.scratch = title, work, scratch
        self.base, self.place = scratch / "base", scratch / "work"
        self.base.mkdir(parents=True)
        self.must(lambda: work.prepare(self.base))
        self.results, self.names = {}, {}  # of the old state, if there is a result, and of both commands
        for variant in (None, 0, 1):
            copy(self.base, self.place)
            if variant is not None:
                self.must(lambda variant=variant: self.act_and_tell(variant))
                self.import_told()
            if (self.place / work.name).exists():
                self.results[variant] = scratch / f"{variant}.npy"
                self.must(lambda: np.save(self.results[variant], work.load(self.place)))  # noqa: B023
            self.names[variant] = names(self.place)

    def must(self, work):
        if code := in_fork(work):
            sys.exit(f"{self.title}: it does not work without kills either ({code})")

    def act_and_tell(self, variant):
        """Do the work, and write down which modules it has imported."""
        self.work.act(self.place, variant)
        (self.scratch / "modules").write_text("\n".join(sys.modules))

    def import_told(self):
        """Import the same modules here, once for all forks: that takes longer than the work."""
        for name in (self.scratch / "modules").read_text().splitlines():
            if name not in sys.modules:
                with suppress(Exception):  # parts of packages that cannot be imported by themselves
                    import_module(name)

    def find_states(self):
        """What a kill leaves at each point: its number, and a folder of its own for each state that is new."""
        copy(self.base, self.place)

        def act():
            stop_at_operations(self.place)
            self.work.act(self.place, 0)

        child, point, states = fork(act), 0, {}
        while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
            point += 1
            state = states.setdefault(digest(self.place), [])
            if not state:
                copy(self.place, self.scratch / f"state{point}")
            state.append(point)
            os.kill(child, signal.SIGCONT)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"{self.title}: it does not work while it is watched ({code})")
        return list(states.values())

    def holds(self, *variants):
        """Whether the target is the result of one of these commands."""

        def compare():
            found = self.work.load(self.place)
            same = (np.array_equal(found, np.load(self.results[v])) for v in variants if v in self.results)
            return 0 if any(same) else WRONG

        return in_fork(compare) == 0

    def is_sound(self):
        """Whether the target is absent, or that of before or after; of work that is resumed, whether it can be read."""
        if not (self.place / self.work.name).exists():
            return True
        return in_fork(lambda: self.work.load(self.place) is None) == 0 if self.work.resumable else self.holds(None, 0)

    def examine(self, state):
        """What is wrong after a kill in a state."""
        wrong, resumable, copied = [], self.work.resumable, self.scratch / f"state{state[0]}"
        copy(copied, self.place)
        if not self.is_sound():
            wrong.append("the target is neither old nor new")
        for variant in (0, 1):
            copy(copied, self.place)
            code = in_fork(lambda variant=variant: self.work.act(self.place, variant))
            what = "the same command" if variant == 0 else "another command"
            if code == REFUSED and variant == 1:
                if not self.is_sound():
                    wrong.append(f"{what} refuses, and leaves a target that is neither old nor new")
                continue
            right = (0, 1) if resumable and variant == 1 else (variant,)
            if code and not (resumable and code == REFUSED):  # as it does of a finished network
                wrong.append(f"{what} ends with {code}")
            elif not self.holds(*right):
                wrong.append(f"{what} gives a wrong result")
            elif not code and (left := names(self.place) - set.union(*(self.names[v] for v in right))):
                wrong.append(f"{what} leaves {sorted(left)}")
        shutil.rmtree(copied)
        return wrong


def copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kinds of work with this in their name")
    parser.add_argument("--every", type=int, default=1, help="take each n-th state only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    total = bad = 0
    print(f"{'work':<40} {'points':>6} {'states':>6} {'wrong':>6} {'s':>6}")
    for title, work in WORK.items():
        if options.only not in title:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            matrix = Matrix(title, work, Path(scratch).resolve())
            states = matrix.find_states()
            taken = states[:: options.every]
            found = {state[0]: matrix.examine(state) for state in taken}
        points, wrong = sum(map(len, taken)), {point: what for point, what in found.items() if what}
        total, bad = total + points, bad + len(wrong)
        seconds = time.perf_counter() - start
        print(f"{title:<40} {points:>6} {len(taken):>6} {len(wrong):>6} {seconds:>6.0f}", flush=True)
        for point, what in list(wrong.items())[:8]:
            print(f"   point {point}: {'; '.join(what)}")
    print(f"{'all':<40} {total:>6} {'':>6} {bad:>6}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
