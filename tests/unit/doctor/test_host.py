"""What this machine is asked, and that asking changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fatwheel.doctor import machine
from fatwheel.doctor.facts import WindowsHost


def test_this_machine() -> None:
    found = machine.ask_host()
    assert found.system == platform.system()
    assert found.cores >= 1
    assert 0 < found.free_memory <= found.memory <= psutil.virtual_memory().total
    assert abs(found.now - time.time()) < 300
    assert found.wheel_platforms


def test_the_name_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Some 12"})
    assert machine.ask_host().name == "Some 12"

    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert machine.ask_host().name.startswith("Linux ")


def test_windows_by_name_and_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "release", lambda: "11")
    monkeypatch.setattr(platform, "version", lambda: "10.0.22631")
    found = machine.ask_host()
    assert (found.name, found.build) == ("Windows 11", 22631)


def test_the_cache_is_not_made_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "a" / "b"))
    found = machine.ask_cache()
    assert (found.folder, found.exists, found.mistake) == (str(tmp_path / "a" / "b"), False, "")
    assert found.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert machine.ask_cache().exists


def test_caches_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "my cache"))
    assert "space" in machine.ask_cache().mistake
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "file"))
    assert machine.ask_cache().mistake == "it is not a folder"
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "file" / "below"))
    assert "is not a folder" in machine.ask_cache().mistake
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "closed"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission" in machine.ask_cache().mistake


def test_the_file_system_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount nearest to the folder counts, not the one whose name is alike."""
    mounts = [
        ("/", "ext4", "rw"),
        (str(tmp_path), "nfs4", "rw,noexec"),
        (f"{tmp_path}x", "xfs", "rw"),
    ]
    parts = [
        SimpleNamespace(mountpoint=point, fstype=kind, opts=options)
        for point, kind, options in mounts
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "c"))
    found = machine.ask_cache()
    assert (found.filesystem, found.runs_programs) == ("nfs4", False)
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    assert (machine.ask_cache().filesystem, machine.ask_cache().runs_programs) == ("", True)


def test_whether_it_is_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "c"))
    assert machine.ask_cache().in_home
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert not machine.ask_cache().in_home


def test_what_only_windows_has_is_unknown_elsewhere() -> None:
    assert machine.ask_windows() == WindowsHost(None, None, None, "")


def test_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long paths are allowed by the number 1; features are there with their services."""
    asked: list[str] = []

    def value(key: str, name: str) -> object:
        asked.append(rf"{key}\{name}")
        return 2340 if name == "UBR" else 1

    monkeypatch.setattr(machine, "_value", value)
    monkeypatch.setattr(machine, "_there", lambda key: key.endswith("another"))
    monkeypatch.setattr(machine, "_firmware", lambda: True)
    assert machine.ask_windows() == WindowsHost(True, False, True, "", 2340)
    assert asked == [
        r"SYSTEM\CurrentControlSet\Control\FileSystem\LongPathsEnabled",
        r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\UBR",
    ]
    monkeypatch.setattr(machine, "_value", lambda key, name: None)
    assert machine.ask_windows().long_paths is False
    assert machine.ask_windows().revision is None
