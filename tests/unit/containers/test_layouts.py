"""What Linux and Windows containers are asked to be."""

from __future__ import annotations

import os
from typing import Any

import pytest

from fatwheel.containers import layouts
from fatwheel.containers.layouts import (
    LINUX,
    WINDOWS,
    ContainerSpec,
    EngineFacts,
    Mount,
    create_arguments,
    ended_for_memory,
)

GIB = 1 << 30
SERVER_2022 = 20348


def spec(os_name: str = "linux", **more: Any) -> ContainerSpec:
    values: dict[str, Any] = {
        "purpose": "shard 1:compute_80",
        "image": "fatwheel/x:y",
        "command": ("python", "-I"),
        "mounts": (Mount("/here", "/there", writable=False),),
        "cpus": 4,
        "memory": 8 * GIB,
        "os": os_name,
        "os_build": SERVER_2022 if os_name == "windows" else 0,
    }
    return ContainerSpec(**{**values, **more})


def asked(made: ContainerSpec, **facts: Any) -> dict[str, Any]:
    return create_arguments(made, EngineFacts(os=made.os, **facts), {"fatwheel": "id"})


@pytest.fixture(params=[0, 1000], ids=["root", "user"])
def caller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Who runs fatwheel; root only where a test asks for it."""
    user: int = request.param
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(os, "getgid", lambda: user)
    return user


# -- paths ---------------------------------------------------------------------------------------


def test_layouts_by_the_engine_s_word() -> None:
    assert layouts.layout_of("linux") is LINUX
    assert layouts.layout_of("windows") is WINDOWS


def test_interpreters() -> None:
    assert LINUX.python_of("3.11") == "/opt/fatwheel/env/bin/python"
    assert WINDOWS.python_of("3.11") == r"C:\Python311\python.exe"
    assert WINDOWS.python_of("3.10") == r"C:\Python310\python.exe"


def test_windows_roots_are_short() -> None:
    """Sources and objects below them must stay within 260 characters."""
    for path in (WINDOWS.sources, WINDOWS.incoming, WINDOWS.store, WINDOWS.code, WINDOWS.work):
        assert len(path) <= 14, path


def test_windows_works_on_its_own_disk_and_linux_where_it_may_write() -> None:
    assert not WINDOWS.work.startswith((WINDOWS.incoming, r"C:\fw"))
    assert LINUX.work.startswith(LINUX.incoming + "/")


# -- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("os_name", ["linux", "windows"])
def test_what_every_container_is(os_name: str) -> None:
    body = asked(spec(os_name, variables=(("A", "1"), ("B", "x=y"))))
    assert body["Image"] == "fatwheel/x:y"
    assert body["Entrypoint"] == []
    assert body["Cmd"] == ["python", "-I"]
    assert body["Labels"] == {"fatwheel": "id", "fatwheel.purpose": "shard 1:compute_80"}
    assert body["OpenStdin"] is body["StdinOnce"] is body["AttachStdin"] is True
    assert body["Tty"] is False, "it would merge the streams"
    assert body["Env"][-2:] == ["A=1", "B=x=y"]
    host = body["HostConfig"]
    assert host["AutoRemove"] is True
    assert host["NetworkMode"] == "none"
    assert host["Memory"] == 8 * GIB
    assert host["LogConfig"]["Type"] == "none"
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/here", "Target": "/there", "ReadOnly": True}
    ]


def test_variables_of_the_spec_count_more() -> None:
    assert asked(spec(variables=(("HOME", "/elsewhere"),)))["Env"] == ["HOME=/elsewhere"]
    assert asked(spec())["Env"] == ["HOME=/tmp"]
    assert asked(spec("windows"))["Env"] == []


def test_no_more_processors_than_there_are() -> None:
    assert asked(spec(cpus=64), cpus=16)["HostConfig"]["NanoCpus"] == 16 * 10**9
    assert asked(spec("windows", cpus=64), cpus=16)["HostConfig"]["CpuCount"] == 16
    assert asked(spec(cpus=64))["HostConfig"]["NanoCpus"] == 64 * 10**9, "unknown"


# -- Linux ---------------------------------------------------------------------------------------


def test_linux_is_locked_down() -> None:
    host = asked(spec())["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Init"] is True
    assert host["MemorySwap"] == host["Memory"], "no swap"
    assert 256 <= host["PidsLimit"] <= 32768
    assert "noexec" not in host["Tmpfs"]["/tmp"]
    [limit] = host["Ulimits"]
    assert limit["Name"] == "fsize"
    assert 4 << 30 <= limit["Soft"] == limit["Hard"] <= 64 << 30, "the largest wheels fit"


def test_linux_is_never_root(caller: int) -> None:
    user = asked(spec())["User"]
    assert user == (f"{caller}:{caller}" if caller else "65534:65534")


def test_who_must_own_what_a_container_writes(caller: int) -> None:
    owner = layouts.owner(EngineFacts(os="linux"))
    assert owner == (None if caller else (65534, 65534))
    assert layouts.owner(EngineFacts(os="linux", rootless=True)) is None
    assert layouts.owner(EngineFacts(os="windows")) is None


def test_root_of_a_rootless_engine_is_the_caller(caller: int) -> None:
    assert asked(spec(), rootless=True)["User"] == "0:0"


def test_remapped_users_are_not_remapped_here() -> None:
    assert asked(spec(), remapped=True)["HostConfig"]["UsernsMode"] == "host"
    assert "UsernsMode" not in asked(spec())["HostConfig"]


def test_selinux_lets_it_read_what_is_mounted() -> None:
    assert "label=disable" in asked(spec(), selinux=True)["HostConfig"]["SecurityOpt"]
    assert "no-new-privileges" in asked(spec(), selinux=True)["HostConfig"]["SecurityOpt"]


def test_limits_that_a_kernel_cannot_hold_are_not_asked_for() -> None:
    host = asked(spec(), limits=frozenset())["HostConfig"]
    assert {"NanoCpus", "PidsLimit", "MemorySwap"}.isdisjoint(host)


# -- Windows -------------------------------------------------------------------------------------


def test_windows_always_says_what_it_needs() -> None:
    for facts in ({"isolation": "process"}, {"os_build": SERVER_2022, "isolation": "hyperv"}):
        host = asked(spec("windows"), cpus=8, **facts)["HostConfig"]
        assert host["Isolation"] == facts["isolation"]
        assert host["CpuCount"] == 4
        assert host["Memory"] == 8 * GIB


def test_windows_gets_a_larger_disk_where_that_can_be() -> None:
    size = {"size": "127GB"}
    assert asked(spec("windows"))["HostConfig"]["StorageOpt"] == size
    known = asked(spec("windows"), storage_driver="windowsfilter")["HostConfig"]
    assert known["StorageOpt"] == size
    assert "StorageOpt" not in asked(spec("windows"), storage_driver="lcow")["HostConfig"]
    assert "StorageOpt" not in asked(spec())["HostConfig"]


# -- endings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("os_name", "code", "killed", "memory"),
    [
        ("linux", 137, True, True),
        ("linux", 137, False, False),
        ("linux", 1, True, False),
        ("windows", 0xC0000017, False, True),
        ("windows", 0xC0000017 - (1 << 32), False, True),
        ("windows", 0xC000012D, False, True),
        ("windows", 0xC0000005, False, False),
        ("windows", 137, False, False),
    ],
)
def test_endings_for_memory(os_name: str, code: int, killed: bool, memory: bool) -> None:
    assert ended_for_memory(os_name, code, killed) is memory
