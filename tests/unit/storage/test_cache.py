"""Where the cache is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import cast

import pytest

from fatwheel.errors import StoreError
from fatwheel.storage.cache import cache_folder, chosen_folder, mistake_in, others_in


def test_the_variable_names_the_folder_which_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_otherwise_it_follows_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FATWHEEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fatwheel"


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match=r"file/cache.*Not a directory") as caught:
        cache_folder()
    assert "FATWHEEL_CACHE" in str(caught.value)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: root, as whom tests may run, may write anywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    with pytest.raises(StoreError, match="no permission"):
        cache_folder()


@pytest.mark.parametrize("umask", [0, 0o002, 0o022])
def test_nobody_else_can_open_a_cache_that_was_made_here(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        assert cache_folder().stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    (tmp_path / "cache").chmod(0o755)
    assert cache_folder().stat().st_mode & 0o777 == 0o755, "what was opened on purpose stays so"


@pytest.fixture
def shown() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_cache_that_everybody_can_write_into_is_refused(
    shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = shown / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    monkeypatch.setenv("FATWHEEL_CACHE", str(cache))
    with pytest.raises(StoreError, match="run code as you") as caught:
        cache_folder()
    assert f"chmod o-w {cache}" in str(caught.value)
    cache.chmod(0o775)
    assert cache_folder() == cache, "a group may share it on purpose"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_who_else_can_write_is_told_with_what_to_do(shown: Path) -> None:
    cache = shown / "cache"
    cache.mkdir()
    assert others_in(cache) == ""
    os.chown(cache, 0, 12345)
    cache.chmod(0o2775)
    assert others_in(cache) == (
        f"the group 12345 can write to {cache}, and so could change what you build. To prevent "
        f"this: chmod g-w {cache}"
    )
    os.chown(cache, 12345, 12345)
    assert "the user 12345" in others_in(cache)
    assert "FATWHEEL_CACHE=" in others_in(cache)


@pytest.mark.parametrize("name", ["my cache", "a:b", "a\tb"])
def test_a_path_that_upstreams_build_would_stumble_over_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / name))
    with pytest.raises(StoreError, match="contain a space or a colon"):
        cache_folder()
    assert not (tmp_path / name).exists()


def test_choosing_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "later"))
    assert chosen_folder() == tmp_path / "later"
    assert not chosen_folder().exists()


@pytest.mark.parametrize("path", [r"C:\fw", r"D:\my cache", "C:\\Users\\J\u00f6rg M\u00fcller\\fw"])
def test_every_path_of_windows_will_do(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.name", "nt")
    assert mistake_in(cast(Path, PureWindowsPath(path))) == ""
