"""Where the cache is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.cache import cache_folder
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
