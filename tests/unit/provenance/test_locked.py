"""Builds that may use nothing but what a lock lists."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fatwheel.errors import FormatError, LockError, ToolchainError, UsageError
from fatwheel.model import Host
from fatwheel.provenance.checks import (
    check_host,
    check_locked,
    check_pinned,
    host_changes,
    read_lock_file,
)
from fatwheel.provenance.lock import lock_bytes

from ...helpers.somelocks import GXX, ROOT, WINDOWS, installed_lock, installed_msvc_lock, some_lock

KERNELS = ROOT / "kernels"
LOCK = some_lock()
FILE = Path("demo.whl.lock.json")


def test_a_lock_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.whl.lock.json"
    path.write_bytes(lock_bytes(LOCK))
    assert lock_bytes(read_lock_file(path, KERNELS)) == lock_bytes(LOCK)


def test_files_that_are_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_lock_file(tmp_path / "none.json", KERNELS)
    with pytest.raises(UsageError, match="how to install a wheel"):
        read_lock_file(tmp_path / "pylock.demo.toml", KERNELS)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(FormatError, match="damaged"):
        read_lock_file(tmp_path / "x.json", KERNELS)


def test_what_is_locked_may_be_used() -> None:
    check_locked(LOCK, dataclasses.replace(LOCK), FILE)


def test_nothing_is_rebuilt_with_what_one_machine_had_installed() -> None:
    check_pinned(LOCK, FILE)
    with pytest.raises(ToolchainError) as caught:
        check_pinned(installed_lock(), FILE)
    assert caught.value.exit_code == 6
    said = "compilers that one machine had installed (nvcc 13.0.88, torch 2.11.0+cu130, g++ 12.2.0)"
    assert said in caught.value.what
    assert caught.value.what.endswith("it cannot be rebuilt elsewhere")
    with pytest.raises(ToolchainError) as caught:
        check_pinned(installed_msvc_lock(), FILE)
    assert "(MSVC of Visual Studio 17.14.5, Windows SDK 10.0.26100.0, cl " in caught.value.what
    assert "--msvc installed" in str(caught.value.hint)


def test_a_lock_of_an_older_fatwheel_still_holds() -> None:
    check_locked(dataclasses.replace(LOCK, fatwheel="0.0.9"), LOCK, FILE)


def test_everything_else_is_named() -> None:
    recipe = dataclasses.replace(LOCK.recipe, epoch=5, imports=())
    with pytest.raises(LockError) as caught:
        check_locked(LOCK, dataclasses.replace(LOCK, recipe=recipe), FILE)
    assert caught.value.exit_code == 16
    assert [line.partition(":")[0] for line in caught.value.details] == [
        "recipe.epoch", "recipe.imports",
    ]  # fmt: skip
    assert str(FILE) in str(caught.value)


def test_no_more_is_named_than_fits() -> None:
    with pytest.raises(LockError) as caught:
        check_locked(LOCK, some_lock(WINDOWS), FILE)
    assert len(caught.value.details) == 21
    assert caught.value.details[-1].startswith("... and ")


def test_another_host() -> None:
    check_host(GXX, dataclasses.replace(GXX))
    with pytest.raises(LockError) as caught:
        check_host(GXX, Host("g++ 14.2.0", "d" * 64, "3.13.1"))
    assert caught.value.details == (
        "C++ compiler: g++ 12.2.0 became g++ 14.2.0", "Python: 3.11.7 became 3.13.1",
    )  # fmt: skip
    assert "CXX=" in str(caught.value)


def test_the_same_version_made_of_other_files() -> None:
    [line] = host_changes(GXX, dataclasses.replace(GXX, compiler_id="d" * 64))
    assert "its files differ" in line
    assert "d" * 16 in line
