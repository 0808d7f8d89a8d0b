"""Checkouts: what of a folder with a history, links and leftovers is the project's."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.load import load_recipe
from fatwheel.errors import ConfigError, FetchError, FormatError, UsageError
from fatwheel.events import Event, Note, silent
from fatwheel.pipeline import checkout as module
from fatwheel.pipeline.checkout import read_checkout, with_checkout
from fatwheel.pipeline.source import unpack

RECIPE = """\
project = "demo"
version = "1.0"
archs = ["80"]
imports = ["demo"]

[source]
checkout = "../../next door"
"""


@pytest.fixture(autouse=True)
def _git(tool: Callable[[str], str]) -> None:
    tool("git")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with all that lies around in one."""
    made = tmp_path / "next door"
    for name in ("setup.py", "csrc/a.cu", ".venv/pyvenv.cfg", ".venv/lib/x.py", "build/old.o",
                 "demo.egg-info/PKG-INFO", "csrc/__pycache__/x.pyc"):  # fmt: skip
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    (made / "headers").symlink_to("csrc")
    (made / "a.link").symlink_to("csrc/a.cu")
    (made / "out").symlink_to("/etc")
    (made / ".venv" / "python").symlink_to("/usr/bin/python3")
    return made


WANTED = ["a.link", "csrc/a.cu", "headers/a.cu", "setup.py"]


def names(folder: Path) -> list[str]:
    return [str(name) for name, _ in read_checkout(folder).files]


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True,
        capture_output=True,
    )  # fmt: skip


def test_a_folder_without_history(folder: Path) -> None:
    assert names(folder) == WANTED
    assert [str(name) for name in read_checkout(folder).left_out] == ["out"]


def test_a_repository_has_what_it_tracks_and_does_not_ignore(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.o\nsecret\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "setup.py", ".gitignore", "csrc/a.cu")
    git(folder, "commit", "--quiet", "-m", "x")
    (folder / "secret").write_text("ignored")
    (folder / "setup.py").write_text("changed")
    (folder / "csrc" / "new.cu").write_text("not added yet")
    (folder / "gone").write_text("")
    git(folder, "add", "gone")
    (folder / "gone").unlink()
    inner = folder / "third" / "lib"
    inner.mkdir(parents=True)
    (inner / "x.h").write_text("of a repository of its own")
    git(inner, "init", "--quiet")
    assert names(folder) == sorted(
        [*WANTED, ".gitignore", "csrc/new.cu", "headers/new.cu", "third/lib/x.h"]
    )


def test_a_repository_starts_none_of_its_programs(folder: Path, tmp_path: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "config", "core.fsmonitor", f"touch {tmp_path}/started")
    git(folder, "config", "core.hooksPath", str(tmp_path))
    assert names(folder) == WANTED
    assert not (tmp_path / "started").exists()


def test_a_folder_that_a_repository_around_it_ignores(folder: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("*\n")
    assert names(folder) == WANTED


def recipe_at(tmp_path: Path) -> Path:
    file = tmp_path / "kernels" / "demo" / "recipe.toml"
    file.parent.mkdir(parents=True)
    file.write_text(RECIPE)
    return file


def test_a_recipe_of_a_checkout(folder: Path, tmp_path: Path) -> None:
    recipe = with_checkout(load_recipe(recipe_at(tmp_path)))
    said: list[Event] = []
    project = unpack(recipe, tmp_path / "cache", tmp_path / "work", said.append)
    found = [path.relative_to(project.root) for path in project.root.rglob("*") if path.is_file()]
    assert sorted(map(str, found)) == WANTED
    assert not any(path.is_symlink() for path in project.root.rglob("*"))
    [note] = [one.text for one in said if isinstance(one, Note)]
    assert note == "left out of the checkout, for it leads elsewhere: out"
    (folder / "csrc" / "a.cu").write_text("changed")
    assert with_checkout(recipe).source.sha256 != recipe.source.sha256
    with pytest.raises(UsageError, match="was changed while the build began"):
        unpack(recipe, tmp_path / "cache", tmp_path / "again", silent)


def test_a_checkout_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_at(tmp_path))
    assert "source.checkout: '../../next door': no such folder" in str(caught.value)


def test_a_checkout_has_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 1)
    with pytest.raises(ConfigError, match="a checkout may hold 1 files"):
        read_checkout(folder)


def test_the_folder_can_be_moved(folder: Path, tmp_path: Path) -> None:
    recipe = with_checkout(load_recipe(recipe_at(tmp_path)))
    folder.rename(tmp_path / "moved")
    source = dataclasses.replace(recipe.source, path=tmp_path / "moved")
    moved = with_checkout(dataclasses.replace(recipe, source=source))
    assert moved.source.sha256 == recipe.source.sha256


def test_links_in_a_folder_that_a_link_names_count_too(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f.cu").write_text("f")
    (tmp_path / "d" / "x.cu").symlink_to("../f.cu")
    for name in ("a", "z"):  # before and after what is in the folder
        (tmp_path / name).symlink_to("d")
    assert names(tmp_path) == ["a/x.cu", "d/x.cu", "f.cu", "z/x.cu"]


def test_links_that_lead_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    for one, other in ("ab", "ba"):
        (tmp_path / one).mkdir()
        (tmp_path / one / "file").write_text(one)
        (tmp_path / one / other).symlink_to(f"../{other}")
    found = read_checkout(tmp_path)
    assert {"a/file", "a/b/file", "b/file", "b/a/file"} <= {str(name) for name, _ in found.files}
    assert [str(name) for name in found.left_out] == ["a/b"]


def test_links_do_not_multiply_without_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 1000)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "file").write_text("x")
    for number in range(1, 30):
        (tmp_path / f"{number}").mkdir()
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number - 1}")
    with pytest.raises(ConfigError, match="may hold 1000 files"):
        read_checkout(tmp_path)


def test_a_tracked_file_behind_a_link_is_not_read(tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "folder"
    for place in (other, folder / "a"):
        place.mkdir(parents=True)
        (place / "secret").write_text("x")
    (folder / "setup.py").touch()
    git(folder, "init", "-q")
    git(folder, "add", ".")
    (folder / "a" / "secret").unlink()
    (folder / "a").rmdir()
    (folder / "a").symlink_to(other)
    assert names(folder) == ["setup.py"]


def test_an_index_names_no_file_outside_of_the_checkout(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "aa" / "bb").mkdir(parents=True)
    (folder / "aa" / "bb" / "secret").touch()
    git(folder, "init", "-q")
    git(folder, "add", ".")
    index = folder / ".git" / "index"
    data = index.read_bytes()[:-20].replace(b"aa/bb/secret", b"../../secret")
    index.write_bytes(data + hashlib.sha1(data).digest())
    (tmp_path.parent / "secret").write_text("x")
    with pytest.raises(FormatError, match="index has a file outside of it"):
        read_checkout(folder)


def test_a_repository_of_another_account_further_up_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "setup.py").touch()
    (folder / "mine.cu").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "folder/setup.py")
    (tmp_path / ".git" / "info" / "exclude").write_text("*.cu")
    assert names(folder) == ["setup.py"]
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] += path.name == ".git"
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    assert names(folder) == ["mine.cu", "setup.py"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders")
def test_a_git_that_waits_for_something_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    os.mkfifo(tmp_path / "pipe")
    git(tmp_path, "config", "core.excludesFile", str(tmp_path / "pipe"))
    monkeypatch.setattr("fatwheel.pipeline.git.PATIENCE", 1)
    with pytest.raises(FetchError, match="git did not end"):
        read_checkout(tmp_path)
