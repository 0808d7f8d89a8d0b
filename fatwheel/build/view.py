"""The view: the fixed paths under which every compiler sees a project and its environment.

nvcc derives internal names from the real path of a source, and -lineinfo, __FILE__ and
anonymous namespaces embed paths. So a project's sources are compiled from one real folder,
`/tmp/fatwheel/PROJECT-VERSION/src`, whoever builds, wherever the cache lies; and everything of
the environment is named through `/proc/self/cwd`, the job's own folder, which holds links to
it. Captured commands carry placeholders instead of either (`@src@`, `@site@` …).

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError

VIEW_ROOT = Path("/tmp/fatwheel")
# What sources include: files with these suffixes or, as in Eigen, headers without any.
SOURCE_SUFFIXES = frozenset(
    [
        "", ".cu", ".cuh", ".c", ".cc", ".cp", ".cpp", ".cxx", ".c++", ".C",
        ".h", ".hh", ".hp", ".hpp", ".hxx", ".h++", ".H", ".tcc", ".tpp", ".txx", ".icc", ".ixx",
        ".ipp", ".inl", ".inc", ".impl", ".imp", ".def", ".x", ".gen", ".jit", ".ptx",
    ]
)  # fmt: skip
CWD = "/proc/self/cwd"
_LOOK_AGAIN = 0.3  # seconds, while builds of other sources hold the view
_BEGIN = r"(?:^|(?<=[^\w./~+@-])|(?<=-[A-Za-z]))"
_END = r"(?![\w.+~-])"


@dataclass(frozen=True)
class Places:
    """Where the things that placeholders stand for really are.

    source:  the folder that `@src@` stands for.
    links:   name in a job's folder → real folder: site, env, cuda, python.
    listing: digest of the names of the files below source: a file that is added there can
             change a text without any file that the text came from being another.
    """

    source: str
    links: tuple[tuple[str, str], ...]
    listing: str

    def in_view(self, text: str) -> str:
        """Replace placeholders by the paths that the compilers see."""
        for name, _ in self.links:
            text = text.replace(f"@{name}@", f"{CWD}/{name}")
        return text.replace("@src@", self.source)

    def real(self, path: str) -> str:
        """The real file behind a path that a compiler printed."""
        for name, folder in self.links:
            prefix = f"{CWD}/{name}/"
            if path.startswith(prefix):
                return os.path.join(folder, path[len(prefix) :])
        return path

    def link_into(self, folder: Path) -> None:
        """Make a job's folder: the links through which the environment is seen."""
        for name, real in self.links:
            (folder / name).symlink_to(real)


Marks = tuple[tuple[str, str], ...]  # real folder, name of its placeholder


def abstract(text: str, marks: Marks) -> str:
    """Replace real folders in an argument by placeholders, the longest folder first.

    A folder counts where a path may begin (after an option's letter too: `-Xcompiler -I/dir`)
    and where its last name ends: in `-fdebug-prefix-map=/dir=.`, not in `/dir2`, not in `/a/dir`.
    """
    for real, name in sorted(marks, key=lambda mark: -len(mark[0])):
        text = re.sub(rf"{_BEGIN}{re.escape(real)}{_END}", f"@{name}@", text)
    return text


def compiler_files(root: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below root that a compiler might read."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_of_tools(name))
        if Path(folder) == root / "build":
            # setuptools' copies of what goes into the wheel, in a folder named after the Python.
            folders[:] = [name for name in folders if not name.startswith("lib")]
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in SOURCE_SUFFIXES and not _is_of_tools(name) and path.is_file():
                found[path.relative_to(root).as_posix()] = _sha256(path)
    return found


def _is_of_tools(name: str) -> bool:
    """What build tools keep for themselves (.git, .ninja_log, NAME.egg-info), often with times."""
    return name.startswith(".") or name.endswith(".egg-info")


@contextlib.contextmanager
def shared_sources(name: str, origin: Path, files: dict[str, str]) -> Iterator[Path]:
    """The view's real source folder of project `name`, holding exactly `files` of origin.

    Builds of the same content share it; one that needs other content waits until the others
    are done. Raises StoreError where the folder cannot be made.
    """
    base = _view_root() / name
    try:
        base.mkdir(parents=True, exist_ok=True)
        lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(base, error) from error
    try:
        _share_filled(lock, base / "src", origin, files)
        yield base / "src"
    finally:
        os.close(lock)


def _share_filled(lock: int, target: Path, origin: Path, files: dict[str, str]) -> None:
    """Share the lock of a target that holds `files`, filling it while nobody else looks.

    A build never waits for the lock alone: one that shares it may have just what is needed, and
    flock has no way to go from alone to shared at once. So it is tried again and again.
    """
    while True:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if compiler_files(target) == files:
            return
        fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_AGAIN)
            continue
        try:
            if compiler_files(target) != files:
                _copy(target, origin, files)
        except OSError as error:
            raise _unusable(target, error) from error
        fcntl.flock(lock, fcntl.LOCK_UN)


def _copy(target: Path, origin: Path, files: Iterable[str]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for relative in files:
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin / relative, path)
        # Line tables may record a source's time: give every file the same one.
        os.utime(path, (0, 0))


def _view_root() -> Path:
    """The fixed root, or one of the user's own where another user made that first."""
    for root in (VIEW_ROOT, Path(f"{VIEW_ROOT}-{os.getuid()}")):
        try:
            with contextlib.suppress(FileExistsError):
                root.mkdir(mode=0o755)
            found = root.lstat()
        except OSError as error:
            raise _unusable(root, error) from error
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return root
    raise StoreError(
        f"{VIEW_ROOT} and {VIEW_ROOT}-{os.getuid()} both belong to somebody else",
        hint="remove one of them: compilers must see the sources at a fixed path",
    )


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the sources cannot be laid out for compiling: {error.strerror}",
        where=str(path),
        hint=f"{VIEW_ROOT} must be writable and have room for the project's sources",
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
