"""Where the cache is."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import cast

import pytest

from fatwheel.cache import cache_folder, chosen_folder, mistake_in
from fatwheel.errors import StoreError


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


@pytest.mark.parametrize("name", ["my cache", "a:b", "a\tb"])
def test_a_path_that_upstreams_build_would_stumble_over_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / name))
    with pytest.raises(StoreError, match="a space or a colon in its path"):
        cache_folder()
    assert not (tmp_path / name).exists()


def test_choosing_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "later"))
    assert chosen_folder() == tmp_path / "later"
    assert not chosen_folder().exists()


@pytest.mark.parametrize(
    ("path", "usable"),
    [(r"C:\fw", True), (r"D:\cache\fw", True), (r"C:\my cache", False), (r"C:\a:b", False)],
)
def test_the_colon_of_a_windows_drive_is_no_mistake(path: str, usable: bool) -> None:
    class Resolved(PureWindowsPath):
        def resolve(self) -> PureWindowsPath:
            return self

    assert (mistake_in(cast(Path, Resolved(path))) == "") is usable
