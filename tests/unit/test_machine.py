from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fatwheel import machine
from fatwheel.machine import all_memory, cores, free_memory

GIB = 1 << 30

Group = Callable[..., None]


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """Writes the files of a control group, on a machine with 8 cores and 20 GiB free."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    free = SimpleNamespace(available=20 * GIB, total=32 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)

    def write(**files: object) -> None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{content}\n")

    return write


def test_without_a_control_group_the_machine_is_ours(group: Group) -> None:
    assert cores() == 8
    assert free_memory() == 19 * GIB, "what is free, less a margin of 1 GiB"


def test_all_memory_is_the_machines_or_the_limit(group: Group) -> None:
    assert all_memory() == 32 * GIB
    group(memory_dot_max="max")
    assert all_memory() == 32 * GIB
    group(memory_dot_max=8 * GIB)
    assert all_memory() == 8 * GIB
    group(memory__memory_dot_limit_in_bytes=6 * GIB)
    assert all_memory() == 6 * GIB


def test_where_there_is_no_affinity_all_cores_count(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cores() == 12


# -- version 2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1),
     ("6400000 100000", 8), ("nonsense", 8)],
)  # fmt: skip
def test_a_cpu_quota_limits_the_cores(group: Group, limit: str, expected: int) -> None:
    group(cpu_dot_max=limit)
    assert cores() == expected


def test_affinity_limits_the_cores(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert cores() == 2


def test_a_memory_limit_counts(group: Group) -> None:
    group(memory_dot_max=8 * GIB, memory_dot_current=2 * GIB, memory_dot_stat="anon 2147483648")
    assert free_memory() == 5 * GIB


def test_cached_files_in_a_group_are_free(group: Group) -> None:
    """After 5 GB of downloads the group's use is near its limit, and nearly all of it is cache."""
    stat = f"anon 1\nactive_file {2 * GIB}\ninactive_file {3 * GIB}\nslab 5"
    group(memory_dot_max=8 * GIB, memory_dot_current=7 * GIB, memory_dot_stat=stat)
    assert free_memory() == 5 * GIB


def test_no_memory_limit_leaves_what_the_machine_has(group: Group) -> None:
    group(memory_dot_max="max", memory_dot_current=GIB, memory_dot_stat="anon 1")
    assert free_memory() == 19 * GIB


def test_a_limit_above_what_is_free_does_not_count(group: Group) -> None:
    group(memory_dot_max=64 * GIB, memory_dot_current=GIB, memory_dot_stat="anon 1")
    assert free_memory() == 19 * GIB


def test_there_is_always_a_little(group: Group) -> None:
    group(memory_dot_max=GIB, memory_dot_current=2 * GIB, memory_dot_stat="anon 1")
    assert free_memory() == GIB // 2


# -- version 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (200000, 2), (10000, 1)])
def test_a_version_1_quota_limits_the_cores(group: Group, quota: int, expected: int) -> None:
    group(cpu__cpu_dot_cfs_quota_us=quota, cpu__cpu_dot_cfs_period_us=100000)
    assert cores() == expected


def test_a_version_1_memory_limit_counts(group: Group) -> None:
    group(
        memory__memory_dot_limit_in_bytes=8 * GIB,
        memory__memory_dot_usage_in_bytes=6 * GIB,
        memory__memory_dot_stat=f"cache 1\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}",
    )
    assert free_memory() == 3 * GIB


def test_version_1_without_a_limit(group: Group) -> None:
    group(
        memory__memory_dot_limit_in_bytes=9223372036854771712,
        memory__memory_dot_usage_in_bytes=6 * GIB,
        memory__memory_dot_stat="cache 1",
    )
    assert free_memory() == 19 * GIB


# -- here --------------------------------------------------------------------------------------


def test_this_machine_has_something_to_give() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert GIB // 2 <= free_memory() < psutil.virtual_memory().total
