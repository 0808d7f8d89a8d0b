"""sourcetree: which files belong to a source folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from fatwheel.config import sourcetree
from fatwheel.config.sourcetree import opened, tree_digest, tree_files
from fatwheel.errors import ConfigError


def files_at(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_sorted_and_without_leftovers(tmp_path: Path) -> None:
    wanted = (".hidden", "a.py", "a/b.cu", "a/build/kept.cu", "a/dist/kept", "b.cu")
    files_at(tmp_path, *reversed(wanted))
    files_at(tmp_path, "build/x.o", "dist/x.whl", ".git/HEAD", "__pycache__/x.pyc")
    files_at(tmp_path, "a/__pycache__/x.pyc", "demo.egg-info/PKG-INFO", "a/x.egg-info/PKG-INFO")
    assert tree_files(tmp_path) == tuple(map(PurePosixPath, wanted))


def test_names_and_contents_cannot_be_traded(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    files_at(one, "a", "b")
    files_at(two, "a", "b")
    (two / "a").write_text("b")
    (two / "b").write_text("a")
    assert tree_digest(one) != tree_digest(two)


def test_an_empty_folder_has_a_digest_of_its_own(tmp_path: Path) -> None:
    assert tree_files(tmp_path) == ()
    # printf '' | sha256sum
    assert tree_digest(tmp_path).startswith("e3b0c44298fc1c149afbf4c8996fb924")


@pytest.mark.parametrize("kind", ["file link", "folder link", "dangling link", "pipe"])
def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path, kind: str) -> None:
    files_at(tmp_path, "a/x")
    odd = tmp_path / "a" / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to({"file link": "x", "folder link": "..", "dangling link": "no"}[kind])
    with pytest.raises(ConfigError, match="odd: a source folder may hold only files and folders"):
        tree_files(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the source folder"):
        tree_digest(tmp_path / "none")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_became_something_else_is_not_read(tmp_path: Path, kind: str) -> None:
    """Between the look at a folder and the copy, anybody who may write there can do that."""
    files_at(tmp_path, "secret")
    odd = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to("secret")
    with (
        pytest.raises(ConfigError) as caught,
        opened(Path("/dev/zero") if kind == "device" else odd),
    ):
        pass
    assert caught.value.where


@pytest.mark.parametrize(("limit", "most"), [("MAX_FILES", 2), ("MAX_BYTES", 2), ("MAX_DEPTH", 1)])
def test_a_folder_has_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    files_at(tmp_path, "a", "b/c", "b/d/e")
    monkeypatch.setattr(sourcetree, limit, most)
    with pytest.raises(ConfigError, match=r"folders deep|may hold \d+ files"):
        tree_digest(tmp_path)
