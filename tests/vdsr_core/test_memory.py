import os
import subprocess
import sys

import psutil
import pytest

from vdsr_core.memory import _group_limits, check_free, free_memory

GROUPS = {  # the layout of control groups: (line of /proc/self/cgroup, folder, limit, use, name of the cache)
    "version 2": ("0::{}", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "version 1": (
        "4:memory:{}", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
    ),
    "with others": (
        "4:cpu,memory:{}", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}  # fmt: skip


def make_group(folder, kind, limit, use, cache):
    folder.mkdir(parents=True, exist_ok=True)
    _, _, *names, cached = kind
    for name, value in zip(names, (limit, use), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{cached} {cache}\nslab 2\n")


@pytest.mark.parametrize("layout", GROUPS)
@pytest.mark.parametrize("inside", [False, True])  # of a container that does not see its own group's place
def test_least_group_counts(tmp_path, layout, inside):
    kind = GROUPS[layout]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("9:name=systemd:/\n8:pids:/x\n" + kind[0].format("/jobs/one") + "\n")
    root = tmp_path / kind[1]
    make_group(root if inside else root / "jobs/one", kind, 1000, 700, 50)
    if not inside:
        make_group(root / "jobs", kind, 500, 400, 0)
        make_group(root, kind, "max", 0, 0)
    assert sorted(_group_limits(tmp_path)) == ([350] if inside else [100, 350])


def test_no_groups_set_no_limit(tmp_path):
    assert list(_group_limits(tmp_path)) == []


def free_in_child(lines="", **environment):
    code = f"{lines}\nfrom vdsr_core.memory import free_memory; print(free_memory())"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are limited on Linux only")
def test_limit_of_addresses_counts():
    limited = free_in_child("import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))")
    assert 0 < limited < 10**9


@pytest.mark.parametrize(
    "job", [{"SLURM_MEM_PER_NODE": "500"}, {"SLURM_MEM_PER_CPU": "250", "SLURM_CPUS_ON_NODE": "2"}]
)
def test_batch_job_counts(job):
    assert 300e6 < free_in_child(**job) < 500 * 2**20


def test_job_of_the_whole_machine_sets_no_limit():
    assert free_in_child(SLURM_MEM_PER_NODE="0") > 600 * 2**20 or psutil.virtual_memory().available < 700 * 2**20


def test_what_does_not_fit_is_named():
    check_free(1, "a byte", "")
    with pytest.raises(MemoryError, match=r"the map must fit in memory, got 1e\+09 GB with .* GB free. Take less."):
        check_free(1e18, "the map", "Take less.")
    assert 0 < free_memory() <= psutil.virtual_memory().total
