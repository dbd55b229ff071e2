import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from vdsr_core import (
    VDSR,
    ImageFile,
    VDSRConfig,
    make_model,
    read_image,
    save_checkpoint,
    super_resolve,
    verify,
    write_image,
)
from vdsr_core.files import Busy
from vdsr_core.formats.ome_zarr import halve
from vdsr_core.streaming.plan import Plan, plan
from vdsr_core.streaming.source import BadSource
from vdsr_core.streaming.stream import stream
from vdsr_core.streaming.workspace import holding

TILE = {"tile": 16, "shard": 32}


def finest(path):
    return zarr.open_array(path / "0", mode="r")[:]


# The law: streamed == whole


@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("YX", (45, 70), "YX"),
        ("YXS", (30, 41, 3), "SYX"),
        ("YXC", (30, 41, 2), "CYX"),
        ("TCZYX", (2, 2, 2, 20, 33), "TCZYX"),
        ("ZTYX", (2, 3, 20, 33), "TZYX"),
        ("SYX", (4, 20, 33), "SYX"),
    ],
)
@pytest.mark.parametrize(("scale", "format"), [(2, "0.5"), (2.37, "0.4")])
def test_streamed_equals_whole_bit_for_bit(tmp_path, rng, model, axes, shape, order, scale, format):
    image = ImageFile(rng.integers(0, 4096, shape, np.uint16), axes)
    options = {"channel_axis": image.channel_axis, "rgb": image.rgb}
    whole = super_resolve(image.data, scale, model=model, tile=16, **options)
    job = plan(image, scale, tmp_path / "out.ome.zarr", model=model, format=format, **TILE)
    shards = list(stream(job, image=image, model=model))
    found = finest(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(found, np.transpose(whole, [axes.index(letter) for letter in order]))
    assert len({(shard.level, shard.index) for shard in shards}) == len(shards)
    assert os.listdir(tmp_path) == ["out.ome.zarr"]


@pytest.mark.parametrize("scale", [2, 2.37])
def test_folded_network_is_streamed_bit_for_bit(tmp_path, rng, scale):
    """Shards of 32 pixels end within squares of 3."""
    torch.manual_seed(0)
    folded = VDSR(VDSRConfig(4, 8, fold=3, blocks=True))
    image = rng.integers(0, 4096, (45, 71), np.uint16)
    best = {"model": folded, "self_ensemble": scale == 2}
    job = plan(ImageFile(image, "YX"), scale, tmp_path / "out.ome.zarr", **best, **TILE)
    list(stream(job, image=ImageFile(image, "YX"), model=folded))
    expected = super_resolve(image, scale, tile=16, **best)
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), expected)


@pytest.mark.parametrize(
    ("axes", "shape", "options"),
    [
        ("YX", (45, 71), {}),
        ("CYX", (2, 45, 71), {"noise": (3, 10), "compression": 0.2}),
        ("YXS", (45, 71, 3), {"scale": 1}),
        ("YX", (45, 71), {"scale": 2.5, "in_range": (0, 3000)}),
        ("CYX", (2, 45, 71), {"scale": 1, "noise": 0}),
    ],
)
def test_noise_and_compression_are_removed_as_of_the_whole(tmp_path, rng, axes, shape, options):
    network = make_model(0, VDSRConfig(4, 8, fold=2, blocks=True, maps=("noise", "compression")))
    image = ImageFile(rng.poisson(1000, shape).astype(np.uint16), axes, compression=0.1)
    given = {"scale": 2, "model": network, **options}
    expected = super_resolve(image, tile=16, **given)
    job = plan(image, target=tmp_path / "out.ome.zarr", **given, **TILE)
    list(stream(job, image=image, model=network))
    order = [axes.index(letter) for letter in job.letters]
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), expected.transpose(order))
    assert job.compression == options.get("compression", 0.1)
    assert Plan.from_json(job.to_json()) == job
    assert all(check.ok for check in verify(tmp_path / "out.ome.zarr", source=image, model=network))


def test_noisy_channels_are_handed_over_as_of_the_whole(tmp_path, rng):
    """The default network: one channel is noisy, in the other one there is too little noise."""
    ramp = np.add.outer(10.0 * np.arange(45), 4.0 * np.arange(40))
    pixels = 100 + np.stack([ramp + rng.normal(0, 30, ramp.shape), ramp + rng.normal(0, 0.8, ramp.shape)])
    image = ImageFile(pixels.round().clip(0, None).astype(np.uint16), "CYX")
    job = plan(image, 2, tmp_path / "out.ome.zarr", **TILE)
    list(stream(job, image=image))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), super_resolve(image, 2, tile=16))
    assert job.noise[0] != (0, 0) == job.noise[1]


def test_noise_may_be_a_fraction_of_the_range(tmp_path, rng):
    network = make_model(0, VDSRConfig(4, 8, maps=("noise",)))
    image = ImageFile(rng.integers(0, 4096, (2, 20, 20), np.uint16), "CYX", compression=0.2)
    options = {"model": network, "in_range": [(0, 1000), (0, 4000)], **TILE}
    job = plan(image, 2, tmp_path / "out.ome.zarr", noise="3%", **options)
    np.testing.assert_allclose(job.noise, [(0, 30**2), (0, 120**2)])
    assert job.compression == 0  # this network has no map of it
    for bad in ("-3%", "x%", "101%"):
        with pytest.raises(ValueError, match="`noise` must be from 0% to 100% of the range"):
            plan(image, 2, tmp_path / "out.ome.zarr", noise=bad, **options)


def test_plans_of_networks_without_maps_remove_nothing(tmp_path, rng, model):
    image = ImageFile(rng.integers(0, 4096, (20, 20), np.uint16), "YX", compression=0.2)
    job = plan(image, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    assert (job.noise, job.compression) == ((), 0)
    known = json.loads(job.to_json())
    del known["noise"], known["compression"]  # of an earlier version
    assert Plan.from_json(json.dumps(known)) == job
    with pytest.raises(ValueError, match="`noise` must be 'auto' or 0 for a network that cannot remove it"):
        plan(image, 2, tmp_path / "out.ome.zarr", model=model, noise="3%", **TILE)


@pytest.mark.parametrize("name", ["cells.tif", "cells.ome.tif", "cells.png", "cells.zarr"])
def test_files_are_streamed(tmp_path, rng, model, name):
    image = rng.integers(0, 4096, (70, 45), np.uint16)
    write_image(tmp_path / name, ImageFile(image, "YX", (0.5, 0.5), "µm" if "ome" in name else "cm"))
    job = plan(tmp_path / name, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    list(stream(job, model=model))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), super_resolve(image, 2, model=model, tile=16))


@pytest.mark.parametrize(("axes", "given"), [("YX", None), ("YX", (200, 200)), ("YXS", (200, 200))])
def test_constant_image_is_streamed_as_such(tmp_path, model, axes, given):
    image = ImageFile(np.full((30, 40, 3)[: len(axes)], 200, np.uint8), axes)
    job = plan(image, 2, tmp_path / "out.ome.zarr", model=model, in_range=given, **TILE)
    list(stream(job, image=image, model=model))
    found = finest(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(found, np.full((3, 60, 80)[-found.ndim :], 200, np.uint8))


def test_slide_in_jpeg_is_streamed_by_its_tiles(tmp_path, rng, model):
    """As slide scanners write it: YCbCr tiles, a pyramid in further pages."""
    tifffile = pytest.importorskip("tifffile")
    coarse = rng.integers(0, 255, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    options = {"photometric": "rgb", "tile": (16, 16), "compression": "jpeg", "compressionargs": {"level": 95}}
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(coarse, subifds=1, metadata=None, **options)
        tiff.write(coarse[::2, ::2], subfiletype=1, metadata=None, **options)
    image = read_image(tmp_path / "slide.tif")
    assert hasattr(read_image(tmp_path / "slide.tif", lazy=True).data, "chunks")
    list(stream(plan(tmp_path / "slide.tif", 2, tmp_path / "out.ome.zarr", model=model, **TILE), model=model))
    whole = super_resolve(image.data, 2, model=model, tile=16, rgb=True)
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), np.moveaxis(whole, -1, 0))


def test_levels_are_means_of_the_finer_ones(tmp_path, source, model):
    job = plan(source, 2.37, tmp_path / "out.ome.zarr", model=model, **TILE)
    list(stream(job, model=model))
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    levels = [group[str(level)][:] for level in range(job.levels)]
    assert [level.shape for level in levels] == [(107, 166), (54, 83), (27, 42), (14, 21), (7, 11)]
    for finer, coarser in itertools.pairwise(levels):
        np.testing.assert_array_equal(halve(finer), coarser)
    even = levels[1][:54, :82].astype(float).reshape(27, 2, 41, 2).mean((1, 3))
    np.testing.assert_array_equal(levels[2][:, :41], np.rint(even))


# Files


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["YX", "CYX", "YXS", "TCZYX"])
def test_group_is_valid_ome_zarr_and_all_levels_begin_where_the_source_does(tmp_path, rng, model, axes, version):
    models = pytest.importorskip("ome_zarr_models")
    sizes = {"S": 3, "C": 2, "T": 2, "Z": 3, "Y": 20, "X": 21}
    image = ImageFile(rng.integers(0, 99, [sizes[letter] for letter in axes], np.uint16), axes, (0.5, 0.25), "µm")
    list(stream(plan(image, 2, tmp_path / "o.ome.zarr", model=model, format=version, **TILE), image=image, model=model))
    group = models.open_ome_zarr(zarr.open_group(tmp_path / "o.ome.zarr", mode="r"))
    assert group.ome_zarr_version == version
    known = group.attributes if version == "0.4" else group.attributes.ome
    multiscale = known.multiscales[0]
    assert [axis.unit for axis in multiscale.axes[-2:]] == ["micrometer", "micrometer"]
    for level, dataset in enumerate(multiscale.datasets):
        scale, translation = dataset.coordinateTransformations
        size, place = np.array(scale.scale), np.array(translation.translation)
        np.testing.assert_allclose(size[-2:], np.array([0.5, 0.25]) / 2 * 2**level)
        np.testing.assert_allclose((place - size / 2)[-2:], [-0.25, -0.125])  # the corner of the first pixel


def test_result_lies_on_its_source(tmp_path, rng, model):
    """Through two generations: the world position of an output pixel is that of the input there."""
    image = ImageFile(rng.integers(0, 99, (2, 20, 21), np.uint16), "CYX", (0.5, 0.25), "µm", ("a", "b"))
    image = replace(image, extra={"channel_colors": ((255, 0, 128), (0, 255, 0))})
    for scale, name in ((2.5, "first.ome.zarr"), (3, "second.ome.zarr")):
        origin, size = np.array(image.extra.get("origin", (0, 0))), np.array(image.pixel_size)
        list(stream(plan(image, scale, tmp_path / name, model=model, **TILE), image=image, model=model))
        result = read_image(tmp_path / name)
        np.testing.assert_allclose(np.array(result.pixel_size), size / scale)
        np.testing.assert_allclose(
            np.array(result.extra["origin"]) - np.array(result.pixel_size) / 2, origin - size / 2
        )
        assert (result.axes, result.unit, result.channel_names) == ("CYX", "µm", ("a", "b"))
        assert result.extra["channel_colors"] == ((255, 0, 128), (0, 255, 0))
        image = result


def test_chunks_are_in_shards(tmp_path, source, model):
    list(stream(plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE), model=model))
    array = zarr.open_array(tmp_path / "out.ome.zarr" / "0", mode="r")
    assert (array.chunks, array.shards) == ((16, 16), (32, 32))
    assert len([path for path in (tmp_path / "out.ome.zarr" / "0" / "c").rglob("*") if path.is_file()]) == 15


def test_plan_reads_its_own_text(tmp_path, source, model):
    job = plan(source, (2, 1.5), tmp_path / "out.ome.zarr", model=model, **TILE)
    assert Plan.from_json(job.to_json()) == job
    assert Plan.from_json(job.to_json()).signature == job.signature


# Resuming


def test_what_is_done_is_not_done_again(tmp_path, source, model):
    whole = super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16)
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    shards = stream(job, model=model, threads=1)
    first = [next(shards) for _ in range(4)]
    shards.close()
    assert not (tmp_path / "out.ome.zarr").exists()
    noted = len(job.done)
    rest = list(stream(job, model=model))
    assert len(first) <= noted <= len(first) + 1
    assert len(rest) == sum(len(job.shards(level)) for level in range(job.levels)) - noted
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)
    assert list(stream(job, model=model)) == []


@pytest.mark.parametrize("looks", [0, 1, 4, 40])
def test_stop_ends_in_the_midst_of_a_shard_and_the_rest_follows(tmp_path, source, model, impatient, looks):
    whole = super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16)
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    assert job.done == set()
    first = list(stream(job, model=model, threads=1, stop=impatient(looks)))
    assert {(shard.level, shard.index) for shard in first} == job.done
    assert len(job.done) < job.count
    assert not (tmp_path / "out.ome.zarr").exists()
    rest = list(stream(job, model=model))
    assert len(first) + len(rest) == job.count
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


SCRIPT = """
import sys, time
from vdsr_core.streaming.plan import plan
from vdsr_core.streaming.shards import ShardMaker
from vdsr_core.streaming.stream import stream
make = ShardMaker.make
def slowly(self, *task):
    time.sleep(0.2)
    return make(self, *task)
ShardMaker.make = slowly
source, target, model = sys.argv[1:]
for shard in stream(plan(source, 2, target, model=model, tile=16, shard=32), model=model, threads=1):
    print(shard.index, flush=True)
"""


def test_killed_run_goes_on(tmp_path, source, model):
    save_checkpoint(tmp_path / "net.safetensors", model)
    command = [sys.executable, "-c", SCRIPT, source, tmp_path / "out.ome.zarr", tmp_path / "net.safetensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    noted = len(job.done)
    assert len(seen) <= noted < 15
    rest = list(stream(job, model=model))
    assert len([shard for shard in rest if shard.level == 0]) == 15 - noted
    whole = super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16)
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


def test_parts_together_are_the_whole(tmp_path, source, model):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    made = []
    for number in (3, 1, 2):
        assert not (tmp_path / "out.ome.zarr").exists()
        made += [shard.index for shard in stream(job, model=model, part=(number, 3)) if shard.level == 0]
    assert sorted(made) == job.shards(0)
    whole = super_resolve(zarr.open_array(source)[:], 2, model=model, tile=16)
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


@pytest.mark.parametrize("change", ["model", "source", "scale", "range"])
def test_other_plans_are_not_mixed_in(tmp_path, source, model, change):
    target = tmp_path / "out.ome.zarr"
    shards = stream(plan(source, 2, target, model=model, in_range=(0, 4095), **TILE), model=model)
    next(shards)
    shards.close()
    if change == "model":
        model = VDSR(VDSRConfig(4, 8))
    if change == "source":
        zarr.open_array(source)[0, 0] = 7
    options = {"in_range": (0, 4000)} if change == "range" else {"in_range": (0, 4095)}
    other = plan(source, 3 if change == "scale" else 2, target, model=model, **options, **TILE)
    word = {"model": "network", "source": "identity", "scale": "scale", "range": "in_range"}[change]
    with pytest.raises(FileExistsError, match=f"made after another plan, which differs in .*{word}"):
        stream(other, model=model)


def test_two_processes_do_not_work_on_one_part(tmp_path, source, model):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    begun = stream(job, model=model)
    next(begun)
    begun.close()
    with holding(job, "part 1 of 1"), pytest.raises(Busy, match="another process that is computing it"):
        next(stream(job, model=model))
    assert len(list(stream(job, model=model))) > 9


# A cluster


@pytest.fixture
def client():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.slow
def test_cluster_gives_the_same_bytes_though_a_worker_is_killed(tmp_path, source, model, client):
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    made = []
    for shard in stream(job, model=model, client=client):
        if len(made) == 3:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        made.append((shard.level, shard.index))
    assert sorted(made) == [(level, index) for level in range(job.levels) for index in job.shards(level)]
    alone = plan(source, 2, tmp_path / "alone.ome.zarr", model=model, **TILE)
    list(stream(alone, model=model))
    files = [path for path in (tmp_path / "alone.ome.zarr").rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(files) == len(made)
    for path in files:
        other = tmp_path / "out.ome.zarr" / path.relative_to(tmp_path / "alone.ome.zarr")
        assert path.read_bytes() == other.read_bytes()


# Bad input


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of some size, or mounts it anew with other options; only root can."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", folder], check=False, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a disk")
@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_full_disk_is_named_and_finished_shards_are_kept(tmp_path, rng, model, small_disk, name):
    image = ImageFile(rng.integers(0, 65535, (300, 300), np.uint16), "YX")  # noise cannot be compressed
    disk = small_disk("size=300k" if name == "out.ome.zarr" else "size=700k")
    job = plan(image, 2, disk / name, model=model, tile=64, shard=128)
    with pytest.raises(OSError, match=rf"{name} could not be written: No space left on device. Make room, and start"):
        list(stream(job, image=image, model=model))
    assert not (disk / name).exists()
    noted = len(job.done)
    assert noted > 5
    small_disk("remount,size=9m")
    assert len(list(stream(job, image=image, model=model))) == job.total - noted
    whole = super_resolve(image.data, 2, model=model, tile=64)
    found = finest(disk / name) if name == "out.ome.zarr" else read_image(disk / name).data
    np.testing.assert_array_equal(found, whole)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a disk")
def test_disk_that_cannot_be_written_is_named_before_the_work(rng, model, small_disk):
    image = ImageFile(rng.integers(0, 65535, (30, 30), np.uint16), "YX")
    disk = small_disk("size=600k")
    small_disk("remount,ro")
    with pytest.raises(PermissionError, match=r"cannot be written to. Choose another place for out"):
        plan(image, 2, disk / "out.ome.zarr", model=model, **TILE)


def test_corrupt_chunk_is_named_and_the_rest_is_kept(tmp_path, source, model):
    image = zarr.open_array(source)[:]
    chunk = source / "c" / "1" / "2"
    good = chunk.read_bytes()
    job = plan(source, 2, tmp_path / "out.ome.zarr", model=model, in_range=(0, 4095), **TILE)
    chunk.write_bytes(good[: len(good) // 2])
    with pytest.raises(BadSource, match=r"chunk \(1, 2\) of the source cannot be read"):
        list(stream(job, model=model))
    assert len(job.done) == 15 - 9  # all but those that need it, with their halo
    with pytest.raises(BadSource, match=r"chunk \(1, 2\)"):
        plan(source, 2, tmp_path / "out.ome.zarr", model=model, **TILE)
    chunk.write_bytes(good)
    assert len([shard for shard in stream(job, model=model) if shard.level == 0]) == 9
    whole = super_resolve(image, 2, model=model, tile=16, in_range=(0, 4095))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), whole)


def test_nan_is_named(tmp_path, rng, model):
    image = ImageFile(rng.random((40, 40)).astype(np.float32), "YX")
    image.data[30, 20] = np.nan
    job = plan(image, 2, tmp_path / "out.ome.zarr", model=model, in_range=(0, 1), **TILE)
    with pytest.raises(BadSource, match=r"got 1 NaN or infinite pixels, the first in pixel \(30, 20\)"):
        list(stream(job, image=image, model=model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "0.3"}, ValueError, "`format` must be one of"),
        ({"scale": 0.5}, ValueError, "`scale` must be greater than 1"),
        ({"tile": 0}, ValueError, "`tile` must be an integer of at least 1"),
        ({"axes": "QX"}, ValueError, "`axes` must"),
        ({"axes": "YXX"}, ValueError, "`axes` must"),
        ({"axes": "XY"}, ValueError, "the last axes must be rows and columns"),
        ({"tile": None}, TypeError, "`tile` must be an integer"),
        ({"in_range": (300, 100)}, ValueError, "`in_range` must"),
        ({"in_range": (1, 2, 3)}, ValueError, "`in_range` must be"),
        ({"in_range": [[5], [9]]}, ValueError, "`in_range` must be"),
        ({"target": "missing/out.ome.zarr"}, FileNotFoundError, "does not exist"),
    ],
)
def test_bad_option_is_named(tmp_path, source, options, error, message):
    given = {"scale": 2, "target": "out.ome.zarr", **options}
    with pytest.raises(error, match=message):
        plan(source, given.pop("scale"), tmp_path / given.pop("target"), **given)


@pytest.mark.parametrize("target", [".", "inner"])
def test_target_that_holds_the_source_is_refused(tmp_path, source, target):
    place = tmp_path / "all.ome.zarr"
    zarr.create_group(place)
    os.rename(source, place / "inner")
    with pytest.raises(ValueError, match="`target` must not hold the source"):
        plan(place / "inner", 2, place / target, format="0.5", overwrite=True)
    assert zarr.open_array(place / "inner").shape == (45, 70)


def test_range_of_8_bit_colour_is_not_looked_for(tmp_path, model):
    class Counted:
        shape, dtype, ndim = (2000, 1500, 3), np.dtype(np.uint8), 3

        def __getitem__(self, window):
            seen.append(np.empty(self.shape, np.uint8)[window])
            return seen[-1]

    seen = []
    job = plan(ImageFile(Counted(), "YXS"), 2, tmp_path / "out.ome.zarr", model=model)
    assert job.in_range == ((0, 255),)
    assert sum(pixels.size for pixels in seen) < 2000 * 1500 * 3 / 10


def test_existing_target_is_kept(tmp_path, source, model):
    (tmp_path / "out.ome.zarr").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        plan(source, 2, tmp_path / "out.ome.zarr")
    list(stream(plan(source, 2, tmp_path / "out.ome.zarr", model=model, overwrite=True, **TILE), model=model))
    assert finest(tmp_path / "out.ome.zarr").shape == (90, 140)


def test_xarray_over_dask_is_streamed(tmp_path, rng, model):
    xarray = pytest.importorskip("xarray")
    dask = pytest.importorskip("dask.array")
    pixels = rng.integers(0, 4096, (30, 45), np.uint16)
    image = ImageFile(xarray.DataArray(dask.from_array(pixels, chunks=20), dims=("y", "x")), "YX")
    list(stream(plan(image, 2, tmp_path / "out.ome.zarr", model=model, **TILE), image=image, model=model))
    np.testing.assert_array_equal(finest(tmp_path / "out.ome.zarr"), super_resolve(pixels, 2, model=model, tile=16))
