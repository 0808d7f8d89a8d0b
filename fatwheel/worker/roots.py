"""The folders in which compilers see a project and its environment, on Linux and Windows.

On Linux the environment may lie anywhere, and is seen through links in a job's folder; builds of
one project share its sources. On Windows everything has a fixed place already, which is one
build's alone: in its container, or in a folder that `engines.windows` holds for it. Standard
library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError
from ..model import Environment
from ..storage.permissions import gap_of, open_lock, private_folder

# Where Windows' compilers see sources: short, since many programs end at 260 characters of a path.
SHORT_ROOT = "C:\\b"

if sys.platform == "win32":
    import subprocess

    from ..compilers.msvc import join_words
    from ..storage.files import patiently

    NVCC = "nvcc.exe"
    _LONGEST = 32_000  # characters of a command line
    VIEW_ROOT = Path(SHORT_ROOT)
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

    def programs_of(environment: Environment) -> list[Path]:
        """Where an environment's programs are: its Python, and those that packages bring."""
        return [environment.python.parent, environment.root / "Scripts"]

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
            patiently(lambda: remove(path))

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
        """Where the folders of all projects are. Raises OSError, also where it is another user's,
        who could exchange what compilers read and what is run there."""
        if not private_folder(VIEW_ROOT):
            raise PermissionError(errno.EACCES, "it is another user's", str(VIEW_ROOT))
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

    def programs_of(environment: Environment) -> list[Path]:
        """Where an environment's programs are: its Python, and those that packages bring."""
        return [environment.python.parent]

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
        import tempfile

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


# -- where sources lie -----------------------------------------------------------------------------

# `/tmp/fatwheel` is used as it is where it is the user's alone. Elsewhere sources lie in a private
# folder, which compilers are shown in the place of all of /tmp: a mount over /tmp/fatwheel alone
# would move away with a folder that its owner renames. In a container the fixed path is always
# free.


# $0: the private folder, $1: the one in whose place it is shown; then names that both have, up to
# an empty one. The shell becomes the command in the end, so signals and limits are that one's.
# It is one line: failed commands are printed for the user to repeat.
_SHOW = (
    'private=$0 tmp=$1; shift; while [ "$1" ]; do mount --rbind "$tmp/$1" "$private/$1" || exit; '
    'shift; done; shift; mount --rbind "$private" "$tmp" && exec "$@"'
)


@dataclass(frozen=True)
class Cover:
    """A private folder that compilers are shown in the place of /tmp.

    entries: names of what else they need of the real /tmp; it is shown there too.
    """

    folder: str
    entries: tuple[str, ...]

    def shown(self, command: Sequence[str]) -> list[str]:
        """A command as it is started in a namespace of its own, in which it sees all this."""
        unshared = ["unshare", "--user", "--map-root-user", "--mount"]
        tmp = str(VIEW_ROOT.parent)
        return [*unshared, "sh", "-c", _SHOW, self.folder, tmp, *self.entries, "", *command]

    def real(self, path: str) -> str:
        """The real file behind a path that compilers see."""
        fixed = f"{VIEW_ROOT}/"
        if not path.startswith(fixed):
            return path
        return os.path.join(self.folder, VIEW_ROOT.name, path.removeprefix(fixed))


@dataclass(frozen=True)
class Root:
    """Where the folders of projects are.

    folder: the real one, which nobody else can open. cover: how compilers see it at the fixed
    path, where it is another one. note: '' or what the user must know of wheels made from here.
    """

    folder: Path
    cover: Cover | None = None
    note: str = ""

    def seen(self, source: Path) -> str:
        """The path at which compilers see a folder below `folder`."""
        if self.cover is None:
            return str(source)
        return str(VIEW_ROOT / source.relative_to(self.folder))


if sys.platform == "win32":

    def choose_root(refuge: Path, needed: Iterable[str]) -> Root:
        """The fixed root. Raises OSError."""
        return Root(view_root())

else:

    def choose_root(refuge: Path, needed: Iterable[str]) -> Root:
        """The fixed root where it is the user's alone, or else one in `refuge`.

        needed: what compilers must find at its own path. Raises StoreError where nothing is safe.
        """
        fixed = VIEW_ROOT
        obstacle = _obstacle(fixed)
        if not obstacle:
            return Root(fixed)
        folder = refuge / fixed.name
        refuge.parent.mkdir(parents=True, exist_ok=True)
        if not (private_folder(refuge) and private_folder(folder)):
            raise StoreError(
                f"no safe folder for the project's sources: {fixed} {obstacle}, and "
                f"others could write into {refuge}",
                hint=f"remove {refuge}",
            )
        cover = _cover(refuge, sorted({path for path in needed if os.path.exists(path)}))
        if cover is not None:
            return Root(folder, cover)
        return Root(
            folder,
            note=f"the wheel will differ from one made elsewhere: {fixed} {obstacle}, "
            f"and no namespace can be made here (unshare --user --mount), so compilers see the "
            f"sources below {folder}. Remove {fixed}, or build in containers (--engine docker)",
        )

    def _obstacle(fixed: Path) -> str:
        """Why the fixed root is not the user's alone, or ''."""
        try:
            if not private_folder(fixed):
                return "belongs to somebody else, or others could write into it"
            gap = gap_of(fixed)
        except OSError as error:
            return f"cannot be used ({error.strerror})"
        return f"could be replaced by {gap.who}" if gap else ""

    def _cover(refuge: Path, needed: Sequence[str]) -> Cover | None:
        """How compilers are shown a refuge at the fixed root, or None where they cannot be.

        Many systems let every user make a namespace. Some do, and then forbid to mount in it.
        """
        import subprocess

        fixed = VIEW_ROOT
        entries = sorted({name for path in needed for name in _entries(path)})
        if fixed.name in entries:
            return None  # it would have to be theirs and ours
        cover = Cover(str(refuge), tuple(entries))
        try:
            for name in entries:
                _make_place(fixed.parent / name, refuge / name)
            done = subprocess.run(
                cover.shown(["ls", "-dL", "--", str(fixed), *needed]), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except OSError:
            return None
        return cover if done.returncode == 0 else None

    def _entries(path: str) -> Iterator[str]:
        """The names in /tmp under which a path is found, if it is there."""
        for found in (os.path.abspath(path), os.path.realpath(path)):
            with suppress(ValueError):
                yield Path(found).relative_to(VIEW_ROOT.parent).parts[0]

    def _make_place(shown: Path, place: Path) -> None:
        """Make what something is mounted over: a folder over a folder, a file over a file."""
        if shown.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
