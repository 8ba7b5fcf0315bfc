"""What this process may use of the machine: control groups as the kernel shows them, on a tree of their files."""

import os

import pytest

from mipo_nb.base import hardware

GB = 2**30
NO_LIMIT = "9223372036854771712\n"  # what version 1 says of memory


def tree(root, groups, **files):
    """A folder with `proc/self/cgroup` and the files of control groups under `sys/fs/cgroup`."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


# A container with its own view; one whose groups bear the host's names; a batch system, two groups down; both versions
# side by side; version 1 with a container's own view, and with the host's names.
LIMITED = {
    "own view": ("0::/\n", {"memory.max": f"{2 * GB}\n", "cpu.max": "300000 100000\n"}),
    "names of the host": (
        "0::/system.slice/docker-4f2a.scope\n",
        {"memory.max": f"{2 * GB}\n", "cpu.max": "300000 100000\n"},
    ),
    "on a group around it": (
        "0::/slurm/job_7/step_0\n",
        {
            "slurm/job_7/memory.max": f"{2 * GB}\n",
            "slurm/job_7/cpu.max": "300000 100000\n",
            "slurm/job_7/step_0/memory.max": "max\n",
            "slurm/job_7/step_0/cpu.max": "max 100000\n",
        },
    ),
    "the tightest of two": (
        "0::/a/b\n",
        {"a/memory.max": f"{2 * GB}\n", "a/b/memory.max": f"{3 * GB}\n", "a/cpu.max": "max 100000\n",
         "a/b/cpu.max": "150000 50000\n"},
    ),
    "version 1": (
        "5:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a\n1:name=systemd:/docker/4f2a\n0::/\n",
        {"memory/memory.limit_in_bytes": f"{2 * GB}\n", "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
         "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
    ),
    "version 1, two groups down": (
        "5:memory:/slurm/job_7\n4:cpu:/slurm/job_7\n",
        {"memory/slurm/job_7/memory.limit_in_bytes": NO_LIMIT, "memory/slurm/memory.limit_in_bytes": f"{2 * GB}\n",
         "cpu/slurm/job_7/cpu.cfs_quota_us": "300000\n", "cpu/slurm/job_7/cpu.cfs_period_us": "100000\n",
         "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ),
    "version 2 beside version 1": (
        "5:memory:/\n0::/job\n",
        {"memory/memory.limit_in_bytes": NO_LIMIT, "unified/job/memory.max": f"{2 * GB}\n",
         "unified/job/cpu.max": "300000 100000\n"},
    ),
}  # fmt: skip


@pytest.fixture
def large(monkeypatch):
    """A machine of eight cores and 64 GB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 64 * GB // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)


@pytest.mark.parametrize("case", LIMITED)
def test_a_limit_on_any_group_holds(large, tmp_path, case):
    groups, files = LIMITED[case]
    assert hardware.cores_and_memory(tree(tmp_path, groups, **files)) == (3, 2 * GB)


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}),
        ("0::/job\n", {}),
        ("0::/../outside\n", {"cgroup.procs": "1\n"}),
        ("5:memory:/\n4:cpu:/\n", {"memory/memory.limit_in_bytes": NO_LIMIT, "cpu/cpu.cfs_quota_us": "-1\n",
                                   "cpu/cpu.cfs_period_us": "100000\n"}),
        ("0::/\n", {"memory.max": f"{128 * GB}\n", "cpu.max": "6400000 100000\n"}),
    ],
)  # fmt: skip
def test_without_a_limit_it_is_the_whole_machine(large, tmp_path, groups, files):
    assert hardware.cores_and_memory(tree(tmp_path, groups, **files)) == (8, 64 * GB)


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("199999", 1), ("250000", 2)])
def test_a_part_of_a_core_is_none_but_one_is_always_left(large, tmp_path, quota, cores):
    root = tree(tmp_path, "0::/\n", **{"cpu.max": f"{quota} 100000\n"})
    assert hardware.cores_and_memory(root) == (cores, 64 * GB)


def test_no_control_groups_at_all(large, tmp_path):
    assert hardware.cores_and_memory(tmp_path) == (8, 64 * GB)


def test_what_is_shown_of_the_machine_is_within_the_limits(tmp_path, monkeypatch):
    """By `hardware`, and with it by the doctor and in the manifest."""
    monkeypatch.setattr(hardware, "cores_and_memory", lambda: (1, GB))
    found = hardware.hardware()
    assert (found.cores, found.memory) == (1, GB)
