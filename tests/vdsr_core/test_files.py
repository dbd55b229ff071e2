import errno
import os
import subprocess
import sys

import pytest

from vdsr_core.files import Busy, locked, replacing, tidy


def test_what_is_written_takes_the_place(tmp_path):
    path = tmp_path / "a.ome.tif"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.name.endswith(".ome.tif")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.ome.tif"]


def test_folders_are_replaced_too(tmp_path):
    path = tmp_path / "a.zarr"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / text).touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    with pytest.raises(FileExistsError, match="got a folder"), replacing(tmp_path / "folder") as temporary:
        temporary.touch()
    with pytest.raises(FileExistsError, match="got a file"), replacing(tmp_path / "folder" / "precious") as temporary:
        temporary.mkdir()
    assert (tmp_path / "folder" / "precious").is_file()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "precious"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "old").touch()
    replace = os.replace

    def fail(source, target):
        if target == path and source.name == "new.zarr":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"), replacing(path) as temporary:
        temporary.mkdir()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("stranger", [False, True])
def test_a_folder_is_never_lost_whenever_its_replacement_is_interrupted(tmp_path, monkeypatch, stranger):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "old").touch()
    replace = os.replace

    def interrupt(source, target):
        replace(source, target)
        if source == path:
            if stranger:  # somebody makes one of the same name
                path.mkdir()
                (path / "strange").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(FileExistsError if stranger else KeyboardInterrupt) as caught, replacing(path) as temporary:
        temporary.mkdir()
    kept = tmp_path / str(caught.value).rsplit(" ", 1)[-1].rstrip(".") if stranger else path
    assert os.listdir(kept) == ["old"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_long_names_work(tmp_path):
    path = tmp_path / ("a" * 250)
    with replacing(path) as temporary:
        temporary.touch()
    assert path.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_existing_file_is_kept_unless_asked(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError, match="exists"), replacing(tmp_path / "a", overwrite=False):
        pass


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"),
        replacing(tmp_path / "none" / "a"),
    ):
        pass


def test_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"), replacing(tmp_path / "f" / "a"):
        pass


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    message = r"a\.png could not be written: No space left on device\. Is the disk full\?"
    with pytest.raises(OSError, match=message), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


HOLD = """
import sys, threading
from vdsr_core.files import locked
with locked(sys.argv[1], "mine"):
    print("held", flush=True)
    threading.Event().wait()
"""


def test_locked_is_refused_until_its_holder_is_dead(tmp_path):
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Busy, match="somebody is at it"), locked(path, "somebody is at it"):
            pass
        process.kill()
    with locked(path, "somebody is at it"):
        pass


def fail():
    raise ZeroDivisionError


def test_locked_is_refused_within_one_process_and_ends_with_an_error(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, "busy"), pytest.raises(Busy), locked(path, "busy"):
        pass
    with pytest.raises(ZeroDivisionError), locked(path, "busy"):
        fail()
    with locked(path, "busy"):
        pass


def test_lock_leaves_no_file(tmp_path):
    with locked(tmp_path / "a.lock", "busy"):
        assert os.listdir(tmp_path) == ["a.lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o700, 0o770, 0o777, 0o755])
def test_whoever_may_write_to_a_folder_may_lock_in_it(tmp_path, mode):
    tmp_path.chmod(mode)
    with locked(tmp_path / "a.lock", "busy"):
        assert (tmp_path / "a.lock").stat().st_mode & 0o022 == mode & 0o022


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o700])
@pytest.mark.parametrize("make", [os.mkdir, lambda path: path.touch()])
def test_permissions_stay(tmp_path, mode, make):
    path = tmp_path / "a"
    make(path)
    path.chmod(mode)
    with replacing(path) as temporary:
        make(temporary)
        assert temporary.parent.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o777 == mode


WRITE = """
import os, signal, sys
from vdsr_core.files import replacing
path, point = sys.argv[1:]
def kill(source, target, replace=os.replace):
    if point != "between" or "old" not in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
with replacing(path) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("point", ["before", "between"])  # the two renamings
def test_what_killed_processes_left_is_tidied(tmp_path, point):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "precious").touch()
    (tmp_path / ".a.zarr.12345678.partial").mkdir()  # killed when it began
    (tmp_path / ".others.partial").mkdir()
    (tmp_path / ".b.abcdefgh.partial").mkdir()
    (tmp_path / ".b.abcdefgh.partial" / "not ours").touch()
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", WRITE, path, point], check=False).returncode == -9
    assert path.exists() == (point == "before")
    with replacing(tmp_path / "b") as alive:
        tidy.cache_clear()
        with replacing(tmp_path / "c") as temporary:
            temporary.touch()
        alive.touch()
    assert os.listdir(path) == ["precious"]
    assert sorted(os.listdir(tmp_path)) == [".b.abcdefgh.partial", ".others.partial", "a.zarr", "b", "c"]
