"""The hidden folder beside a target in which its shards are collected until all are there.

It counts only if it holds a plan and an image. A plan is written last and removed first, so what a killed
process leaves is either complete or invalid; the next run continues a complete folder and clears an invalid one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.files import locked
from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_tiff import read_attributes
from vdsr_core.formats.pyramid import check_place, warn_of_pyramid_loss
from vdsr_core.network.checkpoint import save_checkpoint
from vdsr_core.network.model import VDSR
from vdsr_core.streaming.notes import IMAGE, NOTES, Note, read_note, shard_name
from vdsr_core.streaming.plan import PLACES, Index, Plan, work_folder
from vdsr_core.streaming.source import is_same, stamp

PLAN, MODEL, PACKED, OLD, MAKING = "plan.json", "model.safetensors", "image.ome.tif", "old", "making"
LOCK, PATIENCE = "begin.lock", 60  # seconds to wait for it
METADATA = ("zarr.json", ".zarray", ".zattrs")  # of an array


def prepare(plan: Plan, image: ImageFile, model: VDSR, unchanged: Callable[[Index, Note], bool]) -> None:
    """Make the folder of a plan, which has the present stamp of its source, or continue the one that is there.

    `unchanged` says whether a shard was made from what the source holds now; it is asked where the source's files have
    changed. Raises FileExistsError if the target exists or is being made after another plan, PermissionError if the
    folder belongs to another user.
    """
    plan.folder.mkdir(mode=0o700, exist_ok=True)
    check_owner(plan.folder)
    with beginning(plan.folder):
        old, target = plan.folder / OLD, Path(plan.target)
        if old.exists() and not target.exists():  # killed while the target was replaced
            os.replace(old, target)
            check_place(target, plan.format, plan.overwrite)
        if is_published(plan):
            return  # another part has done it meanwhile
        other = read_plan(plan.folder)
        if other is None or is_published(replace(other, target=plan.target)):
            clear(plan.folder)
            create(plan, image, model)
            return
        check_same(plan, other)
        for name in (NOTES, MAKING):
            (plan.folder / name).mkdir(exist_ok=True)
        if other.stamp != plan.stamp:
            drop_changed(plan, unchanged)
            write_plan(plan)


def create(plan: Plan, image: ImageFile, model: VDSR) -> None:
    """Fill the empty folder of a plan."""
    version = "0.5" if plan.tiff else plan.format
    warn_of_pyramid_loss(image, plan.format)
    title = plan.name or Path(plan.target).name
    attributes = ome_zarr.make_attributes(image, plan.scale, plan.levels, plan.in_range, version, title)
    attributes["vdsr_core"] = plan_record(plan)
    options = (np.dtype(plan.dtype), plan.chunk, plan.block, version)
    ome_zarr.create(plan.folder / IMAGE, attributes, plan.shapes, *options)
    for name in (NOTES, MAKING):
        (plan.folder / name).mkdir()
    save_checkpoint(plan.folder / MODEL, model)
    write_plan(plan)


def check_owner(folder: Path) -> None:
    """Raise if a folder is a link or was made by another user, who could have put links or false shards into it."""
    status = folder.lstat()
    if not folder.is_symlink() and (not hasattr(os, "geteuid") or status.st_uid == os.geteuid()):
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as probe:  # some disks give all files one owner
        if not folder.is_symlink() and os.stat(probe).st_uid == status.st_uid:
            return
    msg = f"{folder} must be a folder of your own, got a link or one that another user made. Choose another target, "
    msg += "or have it removed."
    raise PermissionError(msg)


def read_plan(folder: Path) -> Plan | None:
    """The plan that is being carried out in a folder; None if there is none that can be continued."""
    try:
        plan = Plan.from_json((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plan if (folder / IMAGE).is_dir() else None


def write_plan(plan: Plan) -> None:
    """Write the plan into its folder, which counts from now on."""
    part = plan.folder / f"{PLAN}.part"
    part.write_text(plan.to_json(), encoding="utf-8")
    part.replace(plan.folder / PLAN)


def drop_changed(plan: Plan, unchanged: Callable[[Index, Note], bool]) -> None:
    """Forget the shards that were made from what the source does not hold any more, and all coarser levels."""
    kept = 0
    for index in plan.shards(0):
        if (note := read_note(plan.folder, 0, index)) is not None and unchanged(index, note):
            kept += 1
        else:
            (plan.folder / NOTES / shard_name(0, index)).unlink(missing_ok=True)
    if kept < len(plan.shards(0)):
        for level in range(1, plan.levels):
            for index in plan.shards(level):
                (plan.folder / NOTES / shard_name(level, index)).unlink(missing_ok=True)


def missing(plan: Plan, level: int, shards: Sequence[Index] | None = None) -> Iterator[tuple[int, Index]]:
    """The tasks of a level that are still to be done, of all or of some shards."""
    for index in plan.shards(level) if shards is None else shards:
        if read_note(plan.folder, level, index) is None:
            yield level, index


def store(plan: Plan, level: int, index: Index, values: NDArray[Any], source: str) -> None:
    """Write the pixels of a shard, bring them to the disk, then note that they are there.

    Files appear in the image under their names only when they are whole.
    """
    import zarr

    window, place = plan.window(level, index), plan.folder / IMAGE / str(level)
    making = Path(tempfile.mkdtemp(dir=plan.folder / MAKING))
    try:
        for name in METADATA:
            if (place / name).exists():
                shutil.copyfile(place / name, making / name)
        array: Any = zarr.open_array(making, mode="r+")
        array[window] = values
        sizes, files = array.shards or array.chunks, {}
        for chunk in product(*(range(s.start // n, -(-s.stop // n)) for s, n in zip(window, sizes, strict=True))):
            key = array.metadata.encode_chunk_key(chunk)
            if not (making / key).exists():  # it holds zeros only
                (place / key).unlink(missing_ok=True)
                continue
            with (making / key).open("rb+") as stream:
                os.fsync(stream.fileno())
            files[f"{level}/{key}"] = (making / key).stat().st_size
            (place / key).parent.mkdir(parents=True, exist_ok=True)
            os.replace(making / key, place / key)
        (making / "note").write_text(json.dumps(asdict(Note(source, files))), encoding="utf-8")
        os.replace(making / "note", plan.folder / NOTES / shard_name(level, index))
    finally:
        shutil.rmtree(making, ignore_errors=True)


def publish(plan: Plan, image: ImageFile) -> None:
    """Put the target in its place and remove the folder; a ValueError if the source has changed since its stamp."""
    target, old = Path(plan.target), plan.folder / OLD
    with beginning(plan.folder):
        check_place(target, plan.format, plan.overwrite)
        if stamp(image, plan.source) != plan.stamp or not is_same(image, plan.identity):
            write_plan(replace(plan, stamp=""))  # each shard is compared with the source before it counts again
            msg = f"the source of {target} must stay as it is while it is upscaled, got changed or missing files. "
            msg += "Restore it, and start again."
            raise ValueError(msg)
        made = plan.folder / (PACKED if plan.tiff else IMAGE)
        if target.exists():
            shutil.copymode(target, made)
        if target.is_dir():
            os.replace(target, old)
        os.replace(made, target)
    sweep(target)


def sweep(target: Path) -> None:
    """Remove the hidden folder beside a target that is in its place, unless it holds work on another one."""
    folder = work_folder(target)
    with suppress(OSError):  # there is none, or not one of ours
        check_owner(folder)
        with beginning(folder):
            plan = read_plan(folder)
            if plan is None or is_published(replace(plan, target=str(target))):
                clear(folder)
                shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Empty the folder of a plan except for the lock, the plan first: without it the rest does not count."""
    (folder / PLAN).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink(missing_ok=True)


def is_published(plan: Plan) -> bool:
    """Whether the target is there, made after this plan, and where it may be replaced from the files as they are."""
    says = provenance(Path(plan.target))
    return says.get("signature") == plan.signature and not (plan.overwrite and says.get("stamp") != plan.stamp)


def provenance(target: Path) -> dict[str, Any]:
    """What a target says of the plan after which it was made; {} if there is none, or it is damaged."""
    import zarr

    try:
        if target.is_file():
            return read_attributes(target)
        attributes: Any = zarr.open_group(target, mode="r").attrs.asdict()
        return dict(attributes.get("vdsr_core", {}))
    except Exception:  # decoders raise anything on damaged files
        return {}


def plan_record(plan: Plan) -> dict[str, Any]:
    """What a target says of its plan."""
    return dict(json.loads(plan.to_json())) | {"signature": plan.signature}


def check_same(plan: Plan, other: Plan) -> None:
    """Raise unless the plan that is being carried out is this one."""
    if plan.signature == other.signature:
        return
    mine, others = asdict(plan), asdict(other)
    differ = [field for field in mine if mine[field] != others[field] and field not in PLACES]
    msg = f"{plan.target} is being made after another plan, which differs in {', '.join(differ)}. "
    msg += f"Continue that one, or delete {plan.folder}."
    raise FileExistsError(msg)


def beginning(folder: Path) -> AbstractContextManager[None]:
    """The lock of all that changes the folder of a plan as a whole."""
    msg = f"{folder} must be prepared by one process, got another one that is preparing it. Start again later."
    return locked(folder / LOCK, msg, timeout=PATIENCE)


def holding(plan: Plan, what: str) -> AbstractContextManager[None]:
    """The lock of a part of a plan."""
    msg = f"{what} of {plan.target} must be computed once, got another process that is computing it. Wait for that one."
    return locked(plan.folder / f"{what}.lock", msg)


@contextmanager
def naming_full_disk(plan: Plan) -> Iterator[None]:
    """Say which target it is that finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        msg = f"{plan.target} could not be written: {os.strerror(error.errno)}. Make room, and start again: finished "
        msg += "shards are kept."
        raise OSError(msg) from error
