"""The hidden folder of a plan: what counts, what is refused, what is made again."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from vdsr_core import ImageFile, plan, read_image, stream, super_resolve, upscale_files
from vdsr_core.streaming.notes import shard_name
from vdsr_core.streaming.source import identify, samples

TILE = {"tile": 16, "shard": 32}


def finest(path):
    return zarr.open_array(path / "0", mode="r")[:]


@pytest.fixture
def begun(tmp_path, source, model):
    """A plan of which four shards or more are done, and the whole result."""
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, in_range=(0, 4095), **TILE)
    shards = stream(job, model=model, threads=1)
    for _ in range(4):
        next(shards)
    shards.close()
    return job, super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16, in_range=(0, 4095))


@pytest.mark.parametrize("lost", ["done", "plan.json", "image", "image/0", "making", "model.safetensors"])
def test_what_is_lost_is_made_again(tmp_path, begun, model, lost):
    job, whole = begun
    path = job.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if lost == "image/0":
        with pytest.raises(FileNotFoundError):
            list(stream(job, model=model))
        return
    list(stream(job, model=model))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)
    assert not job.folder.exists()


@pytest.mark.parametrize("change", ["file", "size", "note"])
def test_shard_counts_by_its_own_file(tmp_path, begun, model, change):
    job, whole = begun
    done = job.done
    note = job.folder / "done" / shard_name(*min(done))
    file = job.folder / "image" / next(iter(json.loads(note.read_text())["files"]))
    if change == "file":
        file.unlink()
    elif change == "size":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        note.write_text("")
    assert job.done == done - {min(done)}
    list(stream(job, model=model))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


def test_stray_files_do_not_matter(tmp_path, begun, model):
    job, whole = begun
    for name in (".DS_Store", "0.0", "x.y"):
        (job.folder / "done" / name).touch()
    list(stream(job, model=model))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


def test_touched_source_keeps_the_shards_and_another_one_does_not(tmp_path, source, model, monkeypatch):
    """Pixels that change where no sample is taken: the shards that were made from them are made again."""
    monkeypatch.setattr("vdsr_core.streaming.source.SAMPLE", 2)
    array = zarr.open_array(source)
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, in_range=(0, 4095), **TILE)
    shards = stream(job, model=model, threads=1)
    for _ in range(4):
        next(shards)
    shards.close()
    before = job.done
    os.utime(source / "c" / "0" / "0")
    stream(job, model=model).close()
    assert job.done == before
    known = identify(read_image(source))
    for place in np.ndindex(8, 8):
        original = int(array[place])
        array[place] = 4095 - original
        if identify(read_image(source)) == known:
            break
        array[place] = original
    stream(job, model=model).close()
    assert (0, (0, 0)) in before - job.done
    list(stream(job, model=model))
    whole = super_resolve(array[:], 2, model=model, tile=16, in_range=(0, 4095))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


@pytest.mark.parametrize("when", ["during a shard", "after the last shard"])
def test_source_that_changes_or_vanishes_is_not_published(tmp_path, source, model, when):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, in_range=(0, 4095), **TILE)
    shards = stream(job, model=model, threads=1)
    for _ in range(job.count - 1 if when == "after the last shard" else 2):
        next(shards)
    moved = source.with_name("moved")
    os.rename(source, moved)
    with pytest.raises(ValueError, match="must stay as it is"):
        list(shards)
    assert not (tmp_path / "out.ome.zarr").exists()
    os.rename(moved, source)
    list(stream(job, model=model))
    whole = super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16, in_range=(0, 4095))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


def test_image_in_memory_that_changes_is_not_published(tmp_path, rng, model):
    image = ImageFile(rng.integers(0, 4096, (45, 70), np.uint16), "YX")
    job = plan(image, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    shards = stream(job, image=image, model=model)
    next(shards)
    image.data[44, 69] ^= 1
    with pytest.raises(ValueError, match="must stay as it is"):
        list(shards)
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize("shape", [(9, 11), (2, 3, 5000, 1000), (1, 1), (3, 20_000_000)])
def test_identity_of_all_pixels_does_not_depend_on_how_they_are_read(tmp_path, rng, shape):
    if np.prod(shape) > 10**7:
        shape = (*shape[:-1], shape[-1] // 10)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    axes = "TCYX"[-len(shape) :]
    known = identify(ImageFile(pixels, axes))
    assert identify(ImageFile(np.asfortranarray(pixels), axes)) == known
    assert identify(ImageFile(pixels.view(), axes), whole=False) != known
    pixels[(-1,) * len(shape)] ^= 1
    assert identify(ImageFile(pixels, axes)) != known


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_link_in_place_of_the_folder_is_refused(tmp_path, source, model):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    (tmp_path / "elsewhere").mkdir()
    job.folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(PermissionError, match="must be a folder of your own"):
        stream(job, model=model)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="acts as another user")
def test_folder_of_another_user_is_refused(tmp_path, source, model):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    job.folder.mkdir()
    os.chown(job.folder, 65534, 65534)
    with pytest.raises(PermissionError, match="must be a folder of your own"):
        stream(job, model=model)
    assert os.listdir(job.folder) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_permissions_of_a_replaced_target_stay(tmp_path, source, model, name):
    for _ in range(2):
        job = plan(source, 2, tmp_path / name, model=model, overwrite=True, **TILE)
        shards = stream(job, model=model)
        assert job.folder.stat().st_mode & 0o077 == 0
        list(shards)
        (tmp_path / name).chmod(0o700)
        model = type(model)(model.config)  # another network: the target is made again
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_overwriting_makes_a_result_anew_only_if_the_source_has_changed(tmp_path, rng, model):
    source = zarr.create_array(tmp_path / "in.zarr", data=rng.integers(0, 4095, (300, 200), np.uint16), chunks=(50, 50))
    spot = np.ones((300, 200), bool)
    for window in samples(read_image(tmp_path / "in.zarr")):
        spot[window] = False
    assert spot.any()  # pixels by which the source is not recognised

    def run():
        options = {"model": model, "in_range": (0, 4095), "tile": 64, "shard": 128, "overwrite": True}
        steps = list(upscale_files(tmp_path / "in.zarr", tmp_path / "out.ome.zarr", 2, **options))
        assert steps[-1].outcome == "done", steps[-1].message
        return steps[-1].message

    assert " 0 shards" not in run()
    assert " 0 shards" in run()
    source[...] = np.where(spot, 4095 - source[...], source[...])
    assert " 0 shards" not in run()
    whole = super_resolve(source[...], 2, model=model, tile=64, in_range=(0, 4095))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("out.ome.tif", lambda text: text.replace(b"</OME>", b"<</OME")),  # XML
        ("out.ome.tif", lambda text: text.replace(b"identity", b"identit\\")),  # JSON in it
        ("out.ome.tif", lambda text: text[: len(text) // 2]),
        ("out.ome.zarr/zarr.json", lambda text: text.replace(b'"node_type"', b'"node"')),
        ("out.ome.zarr/zarr.json", lambda text: text.replace(b'"vdsr_core"', b'"vdsr_core": [1], "other"')),
        ("out.ome.zarr/zarr.json", lambda text: b'{"a":' * 100_000),
    ],
)
def test_damaged_target_is_replaced(tmp_path, source, model, name, damage):
    target, path = tmp_path / name.split("/")[0], tmp_path / name
    options = {"model": model, "in_range": (0, 4095), "overwrite": True, **TILE}
    list(stream(plan(source, 2, target, **options), model=model))
    right = np.asarray(read_image(target).data)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    list(stream(plan(source, 2, target, **options), model=model))
    np.testing.assert_array_equal(np.asarray(read_image(target).data), right)


KILL = """
import os, signal, sys
from vdsr_core import load_model, plan, stream
source, target, network, point = sys.argv[1:]
def kill(old, new, replace=os.replace):
    before, name = point.split()
    if name in (os.path.basename(old), os.path.basename(new)):
        if before == "after":
            replace(old, new)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
os.replace = kill
model = load_model(network)
job = plan(source, 2, target, model=model, tile=16, shard=32, in_range=(0, 4095), overwrite=True)
list(stream(job, model=model, threads=1))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("point", ["before old", "after old", "after image", "before note", "after note"])
@pytest.mark.parametrize("other", [False, True])
def test_after_a_kill_the_same_and_another_command_are_right(tmp_path, source, network, model, point, other):
    target = tmp_path / "out.ome.zarr"
    pixels = zarr.open_array(source)[:]
    list(stream(plan(source, 2, target, model=model, in_range=(0, 9999), **TILE), model=model))
    before = finest(target)
    run = subprocess.run([sys.executable, "-c", KILL, source, target, network, point], check=False)
    assert run.returncode == -9
    options = {"in_range": (0, 3000) if other else (0, 4095)}
    whole = super_resolve(pixels, 2, model=model, tile=16, **options)
    job = plan(source, 2, target, model=model, overwrite=True, **options, **TILE)
    if other and point != "after image":  # it is begun, and not finished
        with pytest.raises(FileExistsError, match="is being made after another plan"):
            stream(job, model=model)
        np.testing.assert_array_equal(finest(target), before)
        return
    list(stream(job, model=model))
    np.testing.assert_array_equal(finest(target), whole)
    assert not job.folder.exists()


def test_leftovers_beside_a_kept_target_are_removed(tmp_path, folder, network, draw):
    draw(folder / "a.tif", (20, 25))
    list(upscale_files("a.tif", "out.ome.zarr", 2, model=network))
    (folder / ".out.ome.zarr.partial" / "old").mkdir(parents=True)
    (last,) = [step for step in upscale_files("a.tif", "out.ome.zarr", 2, model=network) if step.outcome]
    assert last.outcome == "kept"
    assert sorted(os.listdir(folder)) == ["a.tif", "out.ome.zarr"]
