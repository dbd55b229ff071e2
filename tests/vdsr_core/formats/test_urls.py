"""OME-Zarr by URL."""

import functools
import http.server
import threading
import uuid

import numpy as np
import pytest
import zarr

from vdsr_core import (
    ImageFile,
    image_names,
    plan,
    read_image,
    stream,
    super_resolve,
    upscale_files,
    verify,
    write_image,
    write_pyramid,
)

pytest.importorskip("upath")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path):
    """Where a server on this machine gives the files of a folder."""
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path, rng):
    image = ImageFile(rng.integers(0, 4096, (2, 40, 50), np.uint16), "CYX", (0.5, 0.5), "µm", ("DNA", "actin"))
    write_pyramid(tmp_path / "cells.ome.zarr", image)
    write_image(tmp_path / "plain.zarr", image)
    return image


@pytest.mark.parametrize("name", ["cells.ome.zarr", "cells.ome.zarr/", "cells.ome.zarr/0", "plain.zarr"])
def test_image_by_url_equals_that_on_disk(tmp_path, image, address, name):
    remote, local = read_image(f"{address}/{name}"), read_image(tmp_path / name)
    np.testing.assert_array_equal(remote.data[...], image.data)
    said = [(i.axes, i.pixel_size, i.unit, i.channel_names, i.data.dtype, i.extra) for i in (remote, local)]
    assert said[0] == said[1]


@pytest.mark.filterwarnings("ignore:not kept")
@pytest.mark.parametrize("target", ["out/cells_x2.ome.zarr", "out/cells_x2.ome.tif", "out/cells_x2.zarr"])
def test_upscaled_from_a_url_equals_whole(folder, image, network, address, target):
    kind = target.partition(".")[2]
    steps = upscale_files(f"{address}/cells.ome.zarr", "out/", 2, model=network, format=kind, tile=32)
    assert [(step.outcome, str(step.target)) for step in steps if step.outcome] == [("done", target)]
    whole = super_resolve(image.data, 2, model=network, channel_axis=0, tile=32)
    np.testing.assert_array_equal(read_image(target).data[...], whole)


def test_streamed_from_a_url_resumes_and_verifies(folder, image, network, address):
    job = plan(f"{address}/cells.ome.zarr", 2, "out.ome.zarr", model=network, tile=16, shard=32)
    shards = stream(job, model=network)
    next(shards)
    shards.close()
    list(stream(plan(job.source, 2, "out.ome.zarr", model=network, tile=16, shard=32), model=network))
    whole = super_resolve(image.data, 2, model=network, channel_axis=0, tile=16)
    np.testing.assert_array_equal(read_image("out.ome.zarr").data[...], whole)
    assert all(check.ok for check in verify("out.ome.zarr", model=network, samples=2))


@pytest.fixture
def memory():
    """The URL of a new place in memory."""
    return f"memory://{uuid.uuid4()}.zarr"


def test_images_of_a_collection_by_url_are_named(folder, network, memory, rng):
    zarr.open_group(memory, mode="w", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for name in "01":
        array = zarr.create_array(f"{memory}/{name}", shape=(9, 12), dtype=np.uint8, dimension_names=["y", "x"])
        array[:] = rng.integers(0, 255, (9, 12))
    zarr.open_group(f"{memory}/OME", mode="w", attributes={"ome": {"series": ["0", "1"]}})
    assert image_names(memory) == ["0", "1"]
    list(upscale_files(memory, "both.ome.zarr", 2, model=network))
    for name in "01":
        whole = super_resolve(read_image(f"{memory}/{name}").data[:], 2, model=network)
        np.testing.assert_array_equal(read_image(f"both.ome.zarr/{name}").data[...], whole)


@pytest.mark.parametrize("name", ["../secret", "/secret", "http://127.0.0.1:1/x", "a/../../secret", "%2e%2e%2Fx/.."])
def test_a_part_elsewhere_is_refused(memory, name):
    says = {"ome": {"version": "0.5", "multiscales": [{"axes": [], "datasets": [{"path": name}]}]}}
    zarr.open_group(memory, mode="w", attributes=says)
    with pytest.raises(ValueError, match="which lies outside of it"):
        read_image(memory)


def test_what_is_not_at_a_url_is_named(address, image):
    with pytest.raises(FileNotFoundError, match=r"none\.zarr holds no zarr"):
        read_image(f"{address}/none.zarr")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:1/x\.zarr cannot be read"):
        read_image("http://127.0.0.1:1/x.zarr")
    with pytest.raises(OSError, match=r"does not exist"):
        write_image(f"{address}/new.zarr", image)
