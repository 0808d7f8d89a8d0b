from __future__ import annotations

import os
import re
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
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text("4:memory:/not/shown/here\n3:cpu,cpuacct:/\n0::/\n")
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


# -- groups in groups -------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "job/", "job/step/"])
@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_outer_groups_hold_too(
    place: str, version: int, group: Group, tmp_path: Path
) -> None:
    """As Slurm's and systemd's: the process is in the innermost, the limit may be on any."""
    groups = "0::/job/step\n" if version == 2 else "4:memory:/job/step\n3:cpu:/job/step\n"
    (tmp_path / "groups").write_text(groups)
    cpu, memory = ("", "") if version == 2 else ("cpu/", "memory/")
    for name in (cpu, memory):
        (tmp_path / name / "job" / "step").mkdir(parents=True, exist_ok=True)
    files = {
        2: {"cpu.max": "300000 100000", "memory.max": 8 * GIB, "memory.current": 2 * GIB},
        1: {
            "cpu.cfs_quota_us": 300000, "cpu.cfs_period_us": 100000,
            "memory.limit_in_bytes": 8 * GIB, "memory.usage_in_bytes": 2 * GIB,
        },
    }[version]  # fmt: skip
    for name, content in {**files, "memory.stat": "cache 1"}.items():
        top = cpu if name.startswith("cpu") else memory
        (tmp_path / f"{top}{place}{name}").write_text(f"{content}\n")
    assert (cores(), all_memory(), free_memory()) == (3, 8 * GIB, 5 * GIB)


@pytest.mark.parametrize("groups", ["0::/../outside\n", ""])
def test_a_container_s_own_limits_hold_whatever_its_group_is_called(
    groups: str, group: Group, tmp_path: Path
) -> None:
    (tmp_path / "groups").write_text(groups)
    group(cpu_dot_max="200000 100000", memory_dot_max=8 * GIB)
    assert (cores(), all_memory()) == (2, 8 * GIB)


# -- kills ---------------------------------------------------------------------------------------

EVENTS = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 0"


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/user.slice/a\\x2db.scope", "user.slice/a\\x2db.scope/memory.events", EVENTS),
        ("0::/", "memory.events", EVENTS),
        ("5:cpu:/\n4:hugetlb,memory:/x:y\n0::/", "memory/x:y/memory.oom_control", CONTROL),
    ],
)
def test_kills_are_counted_in_the_group_of_this_process(
    groups: str, file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text(f"{groups}\n")
    assert machine.counter_of_kills() == Path("/proc/vmstat"), "there is no file yet"
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(f"{text}\n")
    assert machine.counter_of_kills() == tmp_path / file


@pytest.mark.parametrize("text", ["oom 0\n", "oom_kill_disable 0\nunder_oom 0\n"])
def test_a_group_that_counts_no_kills(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels before 4.13."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text("4:memory:/\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text(text)
    assert machine.counter_of_kills() == Path("/proc/vmstat")


@pytest.mark.parametrize("groups", ["0::/../other\n", "nonsense\n", ""])
def test_groups_that_cannot_be_looked_into(
    groups: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "here")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text(groups)
    for folder in ("here", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.events").write_text(EVENTS)
    assert machine.counter_of_kills() == Path("/proc/vmstat")


# -- here --------------------------------------------------------------------------------------


def test_this_machine_counts_kills() -> None:
    assert re.search(r"^oom_kill \d+$", machine.counter_of_kills().read_text(), re.MULTILINE)


def test_this_machine_has_something_to_give() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert GIB // 2 <= free_memory() < psutil.virtual_memory().total
