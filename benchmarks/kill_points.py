"""Kill a process before and after each of its file operations, then run the same command, and another one.

Counts, for each kind of work, the points at which it was killed (SIGKILL), and what was wrong afterwards: a target that
is neither absent, nor the old one, nor the new one; a result of the next run that is not the one of an uninterrupted
run; files that stay behind. Another command (other options) must give its own right result, or refuse with a message.

python benchmarks/kill_points.py
python benchmarks/kill_points.py --only "stream" --every 5
"""

import argparse
import builtins
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from vdsr_core import (
    VDSR,
    ImageFile,
    VDSRConfig,
    fine_tune_steps,
    load_model,
    plan,
    read_image,
    save_checkpoint,
    stream,
    write_image,
    write_pyramid,
)
from vdsr_core.streaming.workspace import sweep
from vdsr_core.training import resume

REFUSED = 3  # exit code of a command that refuses with a message
OPERATIONS = "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "chmod", "utime", "truncate"


def pixels(seed=0):
    return np.random.default_rng(seed).integers(1000, 60000, (20, 24)).astype(np.uint16)


def network(seed=0):
    torch.manual_seed(seed)
    return VDSR(VDSRConfig(depth=3, width=4), scales=[2])


class Streaming:
    """`stream` from one file to another."""

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

    name = "net.safetensors"

    def prepare(self, folder):
        self.act(folder, 2)

    def act(self, folder, variant):
        save_checkpoint(folder / self.name, network(variant))

    def load(self, folder):
        return np.concatenate([array.detach().numpy().ravel() for array in load_model(folder / self.name).parameters()])


class FineTuning(Saving):
    """`fine_tune_steps` with a checkpoint after each measurement, resumed if there is one."""

    def prepare(self, folder):
        pass

    def act(self, folder, variant):
        resume.SAVE_SECONDS = 0
        path, model = folder / self.name, network()
        options = {"scales": [2], "batch_size": 2, "patch": 10, "validate_every": 1, "patience": 99, "checkpoint": path}
        for _ in fine_tune_steps(model, [pixels()], steps=4 + variant, resume=path.exists(), **options):
            pass


class Training(Saving):
    """`vdsr train`, resumed if there is something to resume."""

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
    "save a network": Saving(),
    "fine-tune": FineTuning(),
    "train": Training(),
}


def count_operations(folder, kill, note):
    """Count what changes files below a folder; die before or after the operation `kill`."""
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        note[0] = count

    def watch(original, writes=lambda *_, **__: True):
        def operation(*args, **options):
            mine = writes(*args, **options) and (
                "dir_fd" in options or str(folder) in os.path.abspath(os.fsdecode(args[0]))
            )
            if mine:
                tick()
            result = original(*args, **options)
            if mine:
                tick()
            return result

        return operation

    def for_writing(path, mode="r", *_, **__):
        return not isinstance(path, int) and bool(set(mode) & set("wax+"))

    for name in OPERATIONS:
        setattr(os, name, watch(getattr(os, name)))
    io.open = builtins.open = watch(io.open, for_writing)


def in_fork(work, seconds=120):
    """How a forked process ends that does some work: 0, 1 after an error, `REFUSED`, or minus a signal."""
    if not (child := os.fork()):
        signal.alarm(seconds)
        code = 1
        try:
            work()
            code = 0
        except (FileExistsError, PermissionError, ValueError) as error:
            code = REFUSED
            if os.environ.get("VDSR_DEBUG"):
                print("   refused:", error)
        except BaseException as error:
            print(f"   {type(error).__name__}: {error}")
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def names(folder):
    """Files and folders, hidden ones too; what trainings write beside their network aside."""
    return {name for name in os.listdir(folder) if ".train." not in name}


class Matrix:
    """All kill points of one kind of work."""

    def __init__(self, title, work, scratch):
        self.title, self.work = title, work
        self.base, self.place, self.again = (scratch / name for name in ("base", "work", "again"))
        self.base.mkdir(parents=True)
        self.must(lambda: work.prepare(self.base))
        self.known = scratch / "known.npz"  # the old result, if any, and those of both commands
        self.before = names(self.base)
        found = []
        for variant in (None, 0, 1):
            self.copy(self.base, self.place)
            if variant is not None:
                self.must(lambda variant=variant: self.act_and_tell(variant))
                self.import_told()
            result = scratch / f"{variant}.npy"
            if (self.place / work.name).exists():
                self.must(lambda result=result: np.save(result, self.work.load(self.place)))
                found.append(result)
        self.results = {path.stem: path for path in found}
        self.after = self.before | {work.name}

    def must(self, work):
        if code := in_fork(work):
            sys.exit(f"{self.title}: it does not work without kills either ({code})")

    def act_and_tell(self, variant):
        """Do the work, and write down which modules it has imported."""
        self.work.act(self.place, variant)
        (self.base.parent / "modules").write_text("\n".join(sys.modules))

    def import_told(self):
        """Import the same modules here, once for all forks: that takes longer than the work."""
        for name in (self.base.parent / "modules").read_text().splitlines():
            if name not in sys.modules:
                with suppress(Exception):  # parts of packages that cannot be imported by themselves
                    import_module(name)

    def copy(self, source, target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)

    def holds(self, folder, *variants):
        """Whether the target is the result of one of these commands."""

        def compare():
            found = self.work.load(folder)
            if not any(np.array_equal(found, np.load(self.results[v])) for v in variants if v in self.results):
                sys.exit(1)

        return in_fork(compare) == 0

    def count(self):
        """How many points there are."""
        self.copy(self.base, self.place)
        path = self.base.parent / "count"

        def act():
            note = [0]
            count_operations(self.place, 0, note)
            try:
                self.work.act(self.place, 0)
            finally:
                Path(path).write_text(str(note[0]))

        self.must(act)
        return int(path.read_text())

    def kill(self, point):
        """What is wrong after a kill at a point."""
        self.copy(self.base, self.place)

        def act():
            count_operations(self.place, point, [0])
            self.work.act(self.place, 0)

        wrong = []
        if (code := in_fork(act)) != -signal.SIGKILL:
            return [] if code == 0 else [f"ended with {code} instead"]
        target = self.place / self.work.name
        resumable = isinstance(self.work, FineTuning | Training)
        if target.exists() and not resumable and not self.holds(self.place, "None", "0"):
            wrong.append("the target is neither old nor new")
        for variant in (0, 1):
            self.copy(self.place, self.again)
            code = in_fork(lambda variant=variant: self.work.act(self.again, variant))
            what = "the same command" if variant == 0 else "another command"
            if code == REFUSED and variant == 1:
                continue
            if code and not (resumable and code == REFUSED):  # as it does of a finished network
                wrong.append(f"{what} ends with {code}")
            elif not self.holds(self.again, *("01" if resumable else str(variant))):
                wrong.append(f"{what} gives a wrong result")
            elif not code and (left := names(self.again) - self.after):
                wrong.append(f"{what} leaves {sorted(left)}")
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kinds of work with this in their name")
    parser.add_argument("--every", type=int, default=1, help="take each n-th point only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    total = bad = 0
    print(f"{'work':<40} {'points':>6} {'wrong':>6} {'s':>6}")
    for title, work in WORK.items():
        if options.only not in title:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            matrix = Matrix(title, work, Path(scratch).resolve())
            points = range(1, matrix.count() + 1, options.every)
            found = {point: matrix.kill(point) for point in points}
        wrong = {point: what for point, what in found.items() if what}
        total, bad = total + len(points), bad + len(wrong)
        print(f"{title:<40} {len(points):>6} {len(wrong):>6} {time.perf_counter() - start:>6.0f}", flush=True)
        for point, what in list(wrong.items())[:8]:
            print(f"   point {point}: {'; '.join(what)}")
    print(f"{'all':<40} {total:>6} {bad:>6}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
