"""Atomic files, locks and clean-up after dead writers."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fatwheel.errors import UsageError
from fatwheel.storage import files


def test_replacing_makes_the_file_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with files.replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old", "the file must not change before the block ends"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "nothing else may be left behind"


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_replacing_leaves_everything_as_it_was_when_the_block_raises(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write_half() -> None:
        with files.replacing(path) as stream:
            stream.write(b"half")
            raise problem

    with pytest.raises(problem):
        write_half()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with files.replacing(tmp_path / "out") as stream:
            stream.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def hold() -> None:
        for _ in range(20):
            with files.locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1, f"{max(most)} threads held the lock at once"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from fatwheel.storage.files import locked\n"
        "with locked(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        child.kill()
    began = time.monotonic()
    with files.locked(lock):
        pass
    assert time.monotonic() - began < 5, "a dead process must not hold the lock"


def test_incoming_deletes_what_was_not_renamed(tmp_path: Path) -> None:
    incoming = files.Incoming(tmp_path / "incoming")
    with incoming.file() as part:
        part.write_bytes(b"half")
    assert list(incoming.folder.iterdir()) == []


def test_sweep_deletes_files_of_dead_and_of_old_writers_only(tmp_path: Path) -> None:
    incoming = files.Incoming(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with incoming.file() as part:
        part.write_bytes(b"being written")
        machine, pid, token = part.name.split("-")
        assert pid == str(os.getpid())
        dead = tmp_path / f"{machine}-{child.pid}-{token}"
        elsewhere = tmp_path / f"{'0' * len(machine)}-{child.pid}-{token}"
        old = tmp_path / f"{'0' * len(machine)}-{pid}-{'f' * len(token)}"
        stopped = tmp_path / f"{machine}-{pid}-{'f' * len(token)}"
        nonsense = tmp_path / f"{machine}-{'9' * 30}-{token}"
        for path in (dead, elsewhere, old, stopped, nonsense):
            path.write_bytes(b"")
        for path in (old, stopped):
            os.utime(path, (time.time() - files.STALE - 60,) * 2)
        incoming.sweep()
        left = set(tmp_path.iterdir())
    kept_dead = {dead, nonsense} if sys.platform == "win32" else set()
    assert left == {part, elsewhere, stopped} | kept_dead


def test_leaves_finds_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").touch()
    (tmp_path / "y").touch()
    assert sorted(files.leaves(tmp_path)) == [tmp_path / "a" / "b" / "x", tmp_path / "y"]
    assert list(files.leaves(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("kind", "words"), [("folder", "it is a folder"), ("pipe", "it is a pipe"),
                        ("socket", "it is a socket"), ("/dev/zero", "it is a device"),
                        ("link", "it is a pipe"), ("missing", "No such file or directory")],
)  # fmt: skip
def test_what_is_no_file_is_refused_before_it_is_opened(
    kind: str, words: str, tmp_path: Path
) -> None:
    """A pipe that nobody writes to would keep its reader waiting for ever."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "link").symlink_to("pipe")
    with (
        pytest.raises(UsageError, match=f"cannot read this file: {words}") as caught,
        files.readable(tmp_path / kind, "a wheel"),
    ):
        (tmp_path / kind).read_bytes()
    assert (caught.value.where, caught.value.hint) == (str(tmp_path / kind), "valid: a wheel")


def test_a_pipe_may_be_read_where_that_is_meant(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with files.readable(tmp_path / "pipe", "a lock", streamed=True):
        pass


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.digest_of(tmp_path / "abc") == known
    assert files.digest_of(tmp_path / "none") is None


def test_windows_says_of_a_long_path_that_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_free", lambda where: "1 GiB")  # pathlib looks at the name, too
    monkeypatch.setattr("os.name", "nt")
    error = OSError(errno.ENOENT, "No such file or directory", "C:\\" + 297 * "a")
    found = files.disk_error(error, "unpack", "C:\\cache", "FATWHEEL_CACHE=FOLDER")  # type: ignore[arg-type]
    assert "its path has 300 characters, and Windows takes 259" in found.what
    assert found.hint is not None
    assert "a shorter path: FATWHEEL_CACHE=FOLDER" in found.hint
    short = OSError(errno.ENOENT, "No such file or directory", "C:\\a")
    assert "characters" not in files.disk_error(short, "unpack", "C:\\", "").what  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "that you can write to"),
        (errno.EACCES, "that you can write to"),
        (errno.ENOTDIR, "not a file"),
        (errno.ENAMETOOLONG, "a shorter path"),
    ],
)
def test_a_disk_error_says_where_and_what_to_do(tmp_path: Path, number: int, advice: str) -> None:
    where = tmp_path / "not" / "there"
    error = files.disk_error(OSError(number, os.strerror(number)), "write", where, "--out FOLDER")
    text = str(error)
    for expected in (str(where), os.strerror(number), "iB free", advice, "--out FOLDER"):
        assert expected in text, f"{expected!r} is missing from: {text}"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_a_disk_error_names_what_is_not_there_or_in_the_way(tmp_path: Path, number: int) -> None:
    there, new = str(tmp_path / "there"), str(tmp_path / "new")
    one = files.disk_error(OSError(number, "words", there), "write", tmp_path, "--out FOLDER")
    assert one.what.startswith(f"cannot write: words: {there} (")
    two = OSError(number, "words", there, None, new)
    assert f"words: {there} -> {new} (" in files.disk_error(two, "write", tmp_path, "").what


class _Held:
    """A file that a virus scanner has open for so many tries."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def replace(self) -> str:
        if self.left:
            self.left -= 1
            error = PermissionError(errno.EACCES, "it is being used by another process")
            error.winerror = 32  # type: ignore[attr-defined, unused-ignore]
            raise error
        return "done"


def test_a_file_that_is_held_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", (0.0, 0.0))
    assert files.patiently(_Held(2).replace) == "done"


def test_a_file_that_is_held_for_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "_PATIENCE", (0.0, 0.0))
    with pytest.raises(PermissionError) as caught:
        files.patiently(_Held(3).replace)
    error = files.disk_error(caught.value, "write the wheel", tmp_path, "--out FOLDER")
    assert "it is being used by another process" in error.what
    assert "exclude the folder from the virus scanner" in (error.hint or "")
