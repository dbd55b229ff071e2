"""How much memory is free: on the machine, in its container or batch job, and for this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# Control groups of Linux by their version: where they are, the limit, the use, and how much of that is cached files.
_GROUPS = {
    2: ("", "memory.max", "memory.current", "inactive_file"),
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int:
    """Memory that this process can still take.

    Returns
    -------
    int
        Bytes: the least of what is available on the machine, what is left to the container or batch job (Linux
        control groups, SLURM), and what is left to the process (``ulimit -v``).

    Examples
    --------
    >>> free_memory() > 0
    True
    """
    return max(0, int(min([psutil.virtual_memory().available, *_group_limits(), *_process_limits(), *_job_limits()])))


def check_free(nbytes: float, what: str, way_out: str) -> None:
    """Raise `MemoryError`, with `what` and `way_out` in its message, if that many bytes are not free.

    Examples
    --------
    >>> check_free(1e18, "the result", "Use a smaller scale.")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    MemoryError: the result must fit in memory, got 1e+09 GB with ... GB free. Use a smaller scale.
    """
    free = free_memory()
    if nbytes > free:
        msg = f"{what} must fit in memory, got {nbytes / 1e9:.3g} GB with {free / 1e9:.3g} GB free. {way_out}"
        raise MemoryError(msg)


def _group_limits(system: Path = Path("/")) -> Iterator[int]:
    """Bytes left to each of the Linux control groups that hold this process."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, limit, use, cache = _GROUPS[1 if controllers else 2]
        root = system / "sys/fs/cgroup" / folder
        group = root / name.lstrip("/")
        # Inside a container the path may be the one outside: then only its end, or nothing, exists here.
        for place in (group, *group.parents):
            with suppress(OSError, ValueError, StopIteration):  # no such group, or "max"
                left = int((place / limit).read_text()) - int((place / use).read_text())
                rows = (row.split() for row in (place / "memory.stat").read_text().splitlines())
                yield left + next(int(value) for key, value in rows if key == cache)
            if place == root:
                break


def _process_limits() -> Iterator[int]:
    """Bytes of addresses left to this process, where they are limited."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - psutil.Process().memory_info().vms


def _job_limits() -> Iterator[int]:
    """Bytes left to a SLURM job on this machine, by what it asked for: not every site uses control groups."""
    node, each, cores = (
        int(os.environ.get(f"SLURM_{name}") or 0) for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE")
    )
    megabytes = node or each * cores
    if megabytes:  # 0 asks for all of the machine
        used = 0
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                used += process.memory_info().rss
        yield megabytes * 2**20 - used
