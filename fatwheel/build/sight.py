"""How compilers see a project and its environment, where Linux and Windows differ.

On Linux the environment may lie anywhere, and is seen through links in a job's folder; builds of
one project share its sources. Windows builds run in containers, one in each, where everything
has a fixed place already. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..permissions import open_lock

if sys.platform == "win32":
    import subprocess

    from .quoting import join_words

    NVCC = "nvcc.exe"
    _LONGEST = 32_000  # characters of a command line
    VIEW_ROOT = Path("C:/b")  # short: many programs end at 260 characters of a path
    # What build tools put before an object's path inside the project.
    OBJECT_FOLDER = re.compile(r"^build/temp[^/]*/(?:(?:Release|Debug)/)?")

    # A job's own folder as compilers name it, and what objects call it instead.
    OWN: tuple[tuple[str, str], ...] = ()  # it is the same in every build

    def seen(name: str, folder: str) -> str:
        """The path at which compilers see a folder of the environment."""
        return folder

    def real_path(path: str, links: Iterable[tuple[str, str]]) -> str:
        """The file behind a path that compilers see."""
        return path

    def show(links: Iterable[tuple[str, str]], folder: Path) -> None:
        """Make what is needed in a job's folder to see the environment."""

    def job_variables(folder: Path) -> dict[str, str]:
        """What a compiler's variables say of the folder that it runs in."""
        return {"TEMP": str(folder), "TMP": str(folder)}

    def fitting(command: Sequence[str], folder: Path) -> list[str]:
        """A compiler's command as it can be started from `folder`: Windows takes 32,767
        characters, so the rest goes to a file there."""
        if len(subprocess.list2cmdline(command)) < _LONGEST:
            return list(command)
        words = folder / "words.rsp"
        words.write_text(join_words(command[1:]), encoding="utf-8")
        if os.path.basename(command[0]) == NVCC:
            return [command[0], "-optf", words.name]
        return [command[0], f"@{words.name}"]

    def to_repeat(command: Sequence[str], folder: Path) -> str:
        """What a user types to run a command once more."""
        return f"cd /d {join_words([str(folder)])} && {join_words(command)}"

    def remove_tree(folder: Path) -> None:
        """Delete a folder, with files that may only be read too. Raises OSError."""

        def retry(remove: Callable[[str], object], path: str, error: object) -> None:
            os.chmod(path, stat.S_IWRITE)
            remove(path)

        shutil.rmtree(folder, onerror=retry)

    @contextlib.contextmanager
    def job_folder(parent: Path, name: str) -> Iterator[Path]:
        """An empty folder for a job, which goes with the block. cl writes its name into objects,
        so a job always has the same."""
        folder = parent / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def shared(
        base: Path, is_right: Callable[[], bool], fill: Callable[[], None]
    ) -> Iterator[None]:
        """Have the right content below `base` while the block runs."""
        if not is_right():
            fill()
        yield

    def view_root() -> Path:
        """Where the folders of all projects are. Raises OSError."""
        VIEW_ROOT.mkdir(exist_ok=True)
        return VIEW_ROOT

else:
    import fcntl
    import shlex

    NVCC = "nvcc"
    VIEW_ROOT = Path("/tmp/fatwheel")
    OBJECT_FOLDER = re.compile(r"^build/temp[^/]*/")
    _CWD = "/proc/self/cwd"
    # A job's own folder as compilers name it, and what objects call it instead.
    OWN: tuple[tuple[str, str], ...] = ((_CWD, "."),)
    _LOOK_AGAIN = 0.3  # seconds, while builds of other sources hold the view

    def seen(name: str, folder: str) -> str:
        """The path at which compilers see a folder of the environment."""
        return f"{_CWD}/{name}"

    def real_path(path: str, links: Iterable[tuple[str, str]]) -> str:
        """The file behind a path that compilers see."""
        for name, folder in links:
            prefix = f"{_CWD}/{name}/"
            if path.startswith(prefix):
                return os.path.join(folder, path[len(prefix) :])
        return path

    def show(links: Iterable[tuple[str, str]], folder: Path) -> None:
        """Make what is needed in a job's folder to see the environment."""
        for name, real in links:
            (folder / name).symlink_to(real)

    def job_variables(folder: Path) -> dict[str, str]:
        """What a compiler's variables say of the folder that it runs in.

        gcc puts its working folder, as PWD calls it, into debug information and texts. What a
        killed compiler leaves in TMPDIR goes with the folder.
        """
        return {"PWD": _CWD, "TMPDIR": _CWD}

    def fitting(command: Sequence[str], folder: Path) -> list[str]:
        """A compiler's command as it can be started from `folder`."""
        return list(command)

    def to_repeat(command: Sequence[str], folder: Path) -> str:
        """What a user types to run a command once more."""
        return f"cd {shlex.quote(str(folder))} && {shlex.join(command)}"

    def remove_tree(folder: Path) -> None:
        """Delete a folder. Raises OSError."""
        shutil.rmtree(folder)

    @contextlib.contextmanager
    def job_folder(parent: Path, name: str) -> Iterator[Path]:
        """An empty folder for a job, which goes with the block."""
        with tempfile.TemporaryDirectory(prefix="job-", dir=parent) as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def shared(
        base: Path, is_right: Callable[[], bool], fill: Callable[[], None]
    ) -> Iterator[None]:
        """Have the right content below `base` while the block runs, with all who want the same.

        A build never waits for the lock alone: one that shares it may have just what is needed,
        and flock has no way to go from alone to shared at once. So it is tried again and again.
        """
        # Beside it: who could ever open the lock could hold it for ever.
        lock = open_lock(base.with_name(f"{base.name}.lock"))
        try:
            _share_filled(lock, is_right, fill)
            yield
        finally:
            os.close(lock)

    def _share_filled(lock: int, is_right: Callable[[], bool], fill: Callable[[], None]) -> None:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if is_right():
                return
            fcntl.flock(lock, fcntl.LOCK_UN)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_AGAIN)
                continue
            if not is_right():
                fill()
            fcntl.flock(lock, fcntl.LOCK_UN)
