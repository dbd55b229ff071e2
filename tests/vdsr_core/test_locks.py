import subprocess
import sys

import pytest

from vdsr_core.locks import Busy, locked

HOLD = """
import sys, threading
from vdsr_core.locks import locked
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
