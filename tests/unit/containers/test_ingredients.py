"""The files of images on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fatwheel.containers.contexts import contexts_of
from fatwheel.containers.render import alone, check_locked
from fatwheel.containers.render import fetched as fetch_files
from fatwheel.errors import StoreError, ToolchainError
from fatwheel.events import silent

from ...helpers.toolchains import shipped_toolchain
from .test_render import fetched, small

__all__ = ["fetched"]  # a fixture


def test_every_file_of_a_context_has_its_path(tmp_path: Path, fetched: list[str]) -> None:
    context = contexts_of(small(), "3.11", "2.11.0", {})[0]
    places = fetch_files(context, tmp_path, silent)
    assert places.keys() == {file.filename for file in context.files}
    assert all(path.read_bytes() == b"abc" for path in places.values())
    assert {path.parts[-3] for path in places.values()} == {"image-files"}


def test_what_is_not_locked_is_named_once() -> None:
    toolchain = shipped_toolchain("windows-msvc17.8-cuda12.3")
    contexts = contexts_of(toolchain, "3.11", "2.1.1", {})
    unlocked = [
        dataclasses.replace(context, base="x@sha256:" + "0" * 64, files=()) for context in contexts
    ]
    with pytest.raises(ToolchainError) as caught:
        check_locked(unlocked, toolchain)
    assert caught.value.details == ("x",)
    check_locked([dataclasses.replace(one, base="x@sha256:1") for one in unlocked], toolchain)


def test_one_at_a_time(tmp_path: Path) -> None:
    notes: list[object] = []
    with alone(tmp_path, notes.append):
        assert notes == []
    with alone(tmp_path, notes.append):
        assert notes == [], "the lock was not given back"


def test_trouble_with_the_disk_while_it_is_held(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left"), alone(tmp_path, silent):
        raise OSError(28, "No space left on device")
