"""Locks written and read back; those from elsewhere may hold anything."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import FormatError
from fatwheel.provenance.lock import MOST, lock_bytes, lock_fields, materials_of, read_lock

from ...helpers.somelocks import (
    LINUX,
    ROOT,
    TOOLCHAINS,
    WINDOWS,
    device_from_linux_lock,
    installed_lock,
    installed_msvc_lock,
    some_lock,
)

KERNELS = ROOT / "kernels"
WHERE = "demo.whl, fatwheel.lock.json"


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("kernel", ["causal-conv1d", "selftest", "flash-attn"])
def test_what_is_written_is_read_back(toolchain: str, kernel: str) -> None:
    lock = some_lock(toolchain, kernel)
    data = lock_bytes(lock)
    found = read_lock(data, WHERE, KERNELS)
    assert lock_bytes(found) == data
    assert found.toolchain == lock.toolchain
    assert found.host == lock.host
    for name in ("project", "version", "source", "environment", "imports", "epoch", "runtime"):
        assert getattr(found.recipe, name) == getattr(lock.recipe, name), name


def test_what_was_installed_is_in_it_and_where_it_was_is_not() -> None:
    lock = installed_lock()
    found = read_lock(lock_bytes(lock), WHERE, KERNELS)
    assert found.toolchain == lock.toolchain
    said = json.loads(lock_bytes(lock))["toolchain"]["installed"]
    assert set(said) == {"files", "torch", "torch_cuda"}
    assert said["files"][1] == {"name": "cudafe++", "sha256": "2" * 64}


def test_so_is_an_installed_msvc(tmp_path: Path) -> None:
    lock = installed_msvc_lock()
    assert lock.toolchain.msvc
    assert lock.toolchain.msvc.installed
    here = replace(lock.toolchain.msvc.installed, folder=tmp_path, links=(("VC", tmp_path),))
    placed = replace(lock.toolchain, msvc=replace(lock.toolchain.msvc, installed=here))
    data = lock_bytes(replace(lock, toolchain=placed))
    assert data == lock_bytes(lock), "it depends on where that was"
    found = read_lock(data, WHERE, KERNELS)
    assert found.toolchain == lock.toolchain
    listed = [(one.name, one.version) for one in materials_of(found) if one.role == "msvc"]
    assert listed == [("cl.exe", "19.44.35207"), ("link.exe", "19.44.35207")]
    content = json.loads(data)
    package = {"name": "a", "version": "1", "url": "", "filename": "a.vsix", "size": 1}
    content["toolchain"]["msvc"]["payloads"] = [{**package, "sha256": "1" * 64}]
    with pytest.raises(FormatError) as caught:
        read_lock(json.dumps(content).encode(), WHERE, KERNELS)
    assert "toolchain.msvc.installed: beside it there can be no packages" in caught.value.details


def test_so_are_compilers_for_another_system() -> None:
    lock = device_from_linux_lock()
    found = read_lock(lock_bytes(lock), WHERE, KERNELS)
    assert found.toolchain == lock.toolchain
    assert lock.toolchain.device_packages[0] in found.files
    assert ("compiler", "nvidia-nvvm") in [(one.role, one.name) for one in materials_of(found)]


def test_only_those_of_windows_have_them() -> None:
    content = json.loads(lock_bytes(some_lock()))
    theirs = json.loads(lock_bytes(device_from_linux_lock()))["toolchain"]["device_packages"]
    content["toolchain"]["device_packages"] = theirs
    with pytest.raises(FormatError) as caught:
        read_lock(json.dumps(content).encode(), WHERE, KERNELS)
    said = "toolchain.device_packages: only a toolchain for Windows has them"
    assert said in caught.value.details


def test_other_locks_say_nothing_of_it() -> None:
    """Those that were written before it was known are read as they are."""
    assert "installed" not in json.loads(lock_bytes(some_lock()))["toolchain"]
    assert "device_packages" not in json.loads(lock_bytes(some_lock(WINDOWS)))["toolchain"]
    assert "installed" not in json.loads(lock_bytes(some_lock(WINDOWS)))["toolchain"]["msvc"]


def test_there_are_no_pins_beside_what_is_installed() -> None:
    content = json.loads(lock_bytes(some_lock()))
    installed = json.loads(lock_bytes(installed_lock()))["toolchain"]["installed"]
    content["toolchain"]["installed"] = installed
    with pytest.raises(FormatError) as caught:
        read_lock(json.dumps(content).encode(), WHERE, KERNELS)
    assert "toolchain.installed: beside it there can be no pins" in caught.value.details


def test_the_bytes_are_json_that_any_reader_takes() -> None:
    content = json.loads(lock_bytes(some_lock()))
    assert content["schema"] == 1
    assert content["recipe"]["source"]["package"]["filename"] == "causal_conv1d-1.5.2.tar.gz"
    assert content["host"]["compiler"] == "g++ 12.2.0"


def test_nothing_of_this_machine_is_in_it() -> None:
    text = lock_bytes(some_lock(LINUX, "selftest")).decode()
    assert str(ROOT) not in text
    assert json.loads(text)["recipe"]["source"]["folder"] == "src"


def test_costs_are_not_locked() -> None:
    lock = some_lock()
    dearer = dataclasses.replace(lock.recipe, memory=1, seconds=1.0, costs=())
    assert lock_bytes(dataclasses.replace(lock, recipe=dearer)) == lock_bytes(lock)


def _folder(name: str) -> dict[str, Any]:
    return {"package": None, "folder": name, "sha256": "a" * 64}


Change = Callable[[dict[str, Any]], object]
DAMAGES: dict[str, tuple[Change, str]] = {
    "no recipe": (lambda lock: lock.pop("recipe"), "recipe"),
    "a number for a name": (lambda lock: lock["recipe"].update(name=5), "recipe.name"),
    "text for a number": (lambda lock: lock["recipe"].update(epoch="1"), "recipe.epoch"),
    "a key too many": (lambda lock: lock.update(more=1), "more: Extra inputs"),
    "a key too many, deep inside": (
        lambda lock: lock["toolchain"]["packages"][0].update(more=1),
        "toolchain.packages.0.more: Extra inputs",
    ),
    "a sha256 of another kind": (
        lambda lock: lock["toolchain"]["packages"][0].update(sha256="../../x"),
        "toolchain.packages.0.sha256: '../../x' is not a sha256",
    ),
    "a file name that leads elsewhere": (
        lambda lock: lock["toolchain"]["packages"][0].update(filename="../../x.whl"),
        "is not a file's name",
    ),
    "a hidden file": (
        lambda lock: lock["recipe"]["source"]["package"].update(filename=".bashrc"),
        "is not a file's name",
    ),
    "a file of this machine as URL": (
        lambda lock: lock["toolchain"]["packages"][0].update(url="file:///etc/passwd"),
        "must begin with https://",
    ),
    "a size below zero": (
        lambda lock: lock["toolchain"]["packages"][0].update(size=-1),
        "toolchain.packages.0.size: -1 is not a size",
    ),
    "a recipe elsewhere": (lambda lock: lock["recipe"].update(name="../x"), "valid folder name"),
    "a project elsewhere": (lambda lock: lock["recipe"].update(project="/x"), "is not a name"),
    "a folder elsewhere": (
        lambda lock: lock["recipe"].update(source=_folder("/")),
        "is not a folder below this one",
    ),
    "a part of a folder elsewhere": (
        lambda lock: lock["recipe"].update(subdirectory="a/../../b"),
        "is not a folder below this one",
    ),
    "no source": (
        lambda lock: lock["recipe"]["source"].update(package=None), "one of package, archive, git",
    ),
    "an architecture that is none": (
        lambda lock: lock["toolchain"].update(archs=["eighty"]), "toolchain.archs",
    ),
    "a compiler without a digest": (
        lambda lock: lock["host"].update(compiler_id=""), "host.compiler_id",
    ),
    "three bounds": (lambda lock: lock["toolchain"].update(gcc=[1, 2, 3]), "toolchain.gcc"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_with_its_place(name: str) -> None:
    change, said = DAMAGES[name]
    content = json.loads(lock_bytes(some_lock()))
    change(content)
    with pytest.raises(FormatError) as caught:
        read_lock(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n", WHERE, KERNELS)
    assert caught.value.where == WHERE
    assert said in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"1", b"null", b'"text"', b"{}", b"{", b"[" * 100_000, b'{"schema": 1}',
     b'{"schema": 1, "fatwheel": "0.1.0"}', lock_bytes(some_lock())[:-200]],
)  # fmt: skip
def test_what_is_no_lock_at_all(data: bytes) -> None:
    with pytest.raises(FormatError, match="damaged"):
        read_lock(data, WHERE, KERNELS)


def test_a_lock_without_end_is_not_read() -> None:
    with pytest.raises(FormatError, match="are the most"):
        read_lock(b" " * (MOST + 1), WHERE, KERNELS)


def test_one_that_is_written_otherwise_is_refused() -> None:
    content = json.loads(lock_bytes(some_lock()))
    with pytest.raises(FormatError, match="damaged"):
        read_lock(json.dumps(content).encode(), WHERE, KERNELS)


def test_a_lock_of_a_newer_fatwheel() -> None:
    content = {"schema": 2, "fatwheel": "7.0", "unknown": True}
    with pytest.raises(FormatError) as caught:
        read_lock(json.dumps(content).encode(), WHERE, KERNELS)
    assert "fatwheel 7.0 wrote it" in str(caught.value)
    assert "schema 2" in str(caught.value)


def test_fields_are_those_of_the_file() -> None:
    lock = some_lock()
    assert json.loads(json.dumps(lock_fields(lock))) == json.loads(lock_bytes(lock))
