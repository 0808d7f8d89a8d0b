"""The cache folder, and folders of builds in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import cast

import pytest

from fatwheel.errors import StoreError
from fatwheel.storage.cache import (
    cache_folder,
    chosen_folder,
    is_abandoned,
    mistake_in,
    others_in,
    remove_tree,
    work_folder,
)


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


HOLDS = """
import sys
from fatwheel.storage.cache import work_folder
with work_folder() as work:
    (work / "file").write_text("x")
    print(work.name, flush=True)
    sys.stdin.read()
"""

Holder = tuple["subprocess.Popen[str]", Path]


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the work folders lie."""
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "work"


@pytest.fixture
def holder(parent: Path) -> Iterator[Callable[[], Holder]]:
    """Starts another build that holds a work folder."""
    started: list[subprocess.Popen[str]] = []

    def start() -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        return process, parent / process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def left(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()} - {"lock"}


def test_a_folder_is_there_while_its_build_is(parent: Path) -> None:
    with work_folder() as work:
        assert work.parent == parent
        (work / "file").write_text("x")
        assert left(parent) == {work.name}
        assert not is_abandoned(work)
    assert left(parent) == set()
    assert is_abandoned(work), "what is not there belongs to nobody"


def test_a_folder_goes_when_its_build_fails(parent: Path) -> None:
    with pytest.raises(RuntimeError), work_folder():
        raise RuntimeError
    assert left(parent) == set()


def test_builds_have_folders_of_their_own(parent: Path) -> None:
    with work_folder() as one, work_folder() as other:
        assert left(parent) == {one.name, other.name}
        assert len({one, other}) == 2


def test_the_folder_of_a_build_that_was_killed_is_removed_by_the_next(
    parent: Path, holder: Callable[[], Holder]
) -> None:
    process, folder = holder()
    assert not is_abandoned(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert is_abandoned(folder)
    with work_folder() as work:
        assert left(parent) == {work.name}


def test_the_folder_of_a_build_that_runs_is_left_alone(
    parent: Path, holder: Callable[[], Holder]
) -> None:
    """Whatever its process id says: it may be another machine's, or another container's."""
    process, folder = holder()
    disguised = folder.rename(parent / "build-4194305")
    with work_folder():
        assert (disguised / "file").exists()
    process.communicate("")
    assert process.returncode == 0
    assert disguised.exists()


def test_what_is_not_a_build_s_is_left_alone(parent: Path) -> None:
    parent.mkdir(parents=True)
    (parent / "4242-bench").mkdir()
    with work_folder():
        assert (parent / "4242-bench").is_dir()


def test_no_child_keeps_the_folder(parent: Path) -> None:
    """A child that inherited the lock would keep the folder of a killed build for ever."""
    with work_folder() as work:
        held = [
            int(number) for number in os.listdir("/proc/self/fd")
            if os.path.realpath(f"/proc/self/fd/{number}") == str(work)
        ]  # fmt: skip
        assert len(held) == 1
        assert not os.get_inheritable(held[0])


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError) as caught, work_folder():
        pass
    assert "FATWHEEL_CACHE" in (caught.value.hint or "")


# -- whatever lies in it -------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What links lead to, and what must still be there afterwards."""
    root = tmp_path / "outside"
    root.mkdir()
    (root / "file").write_text("mine")
    yield root
    assert (root / "file").read_text() == "mine"
    assert os.listdir(root) == ["file"]


def test_links_are_deleted_and_not_what_they_lead_to(tmp_path: Path, outside: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "store").symlink_to(outside)
    (tree / "deep" / "file").symlink_to(outside / "file")
    (tree / "deep" / "dangling").symlink_to("nowhere")
    (tree / "deep" / "loop").symlink_to(tree)
    os.mkfifo(tree / "deep" / "pipe")
    os.link(outside / "file", tree / "deep" / "hard")
    remove_tree(tree)
    assert not tree.exists()


def test_a_tree_that_is_a_link_is_left_alone(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "tree").symlink_to(outside)
    remove_tree(tmp_path / "tree")


LOCKED = """
import os, sys
from pathlib import Path
from fatwheel.storage.cache import remove_tree
root = Path(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
tree = root / "tree"
for number in range(4):
    (tree / f"{number}" / "inner" / "most").mkdir(parents=True)
    (tree / f"{number}" / "inner" / "file").write_text("")
for folder in [*tree.glob("*/inner/most"), *tree.glob("*/inner"), *tree.glob("*"), tree]:
    folder.chmod(0)
remove_tree(tree)
print(tree.exists())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_folders_that_nobody_may_enter_are_removed(tmp_path: Path) -> None:
    """By their owner, who is not root: root may enter everything."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", LOCKED, str(tmp_path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr


def test_folders_in_folders_in_folders_are_removed(tmp_path: Path) -> None:
    """Deeper than Python calls, than a path is long, and than files may be open."""
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()


def test_many_files_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20_000):
        os.close(os.open(tree / f"{number}", os.O_CREAT))
    remove_tree(tree)
    assert not tree.exists()


def test_what_is_not_there_is_removed(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
