"""The view: the fixed paths under which every compiler sees a project and its environment.

nvcc derives internal names from the real path of a source, and -lineinfo, __FILE__ and
anonymous namespaces embed paths. So a project's sources are compiled from one real folder,
`/tmp/fatwheel/PROJECT-VERSION/src`, whoever builds, wherever the cache lies; and everything of
the environment is named through `/proc/self/cwd`, the job's own folder, which holds links to
it. On Windows the environment has its place already, and sources lie below `C:\\b` (`roots`).
Captured commands carry placeholders instead of either (`@src@`, `@site@` …).

Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..storage.permissions import private_folder
from . import roots
from .roots import Cover

# What sources include: files with these suffixes or, as in Eigen, headers without any.
SOURCE_SUFFIXES = frozenset(
    [
        "", ".cu", ".cuh", ".c", ".cc", ".cp", ".cpp", ".cxx", ".c++", ".C",
        ".h", ".hh", ".hp", ".hpp", ".hu", ".hxx", ".h++", ".H", ".tcc", ".tpp", ".txx", ".icc",
        ".ixx", ".ipp", ".inl", ".inc", ".impl", ".imp", ".def", ".x", ".gen", ".jit", ".ptx",
    ]
)  # fmt: skip
_BEGIN = r"(?:^|(?<=[^\w./~+@-])|(?<=-[A-Za-z]))"
_BEGIN_WINDOWS = r"(?:^|(?<=\W)|(?<=[-/][A-Za-z]))"
_END = r"(?![\w.+~-])"
_ON_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_SEPARATOR = r"[\\/]"


@dataclass(frozen=True)
class Places:
    """Where the things that placeholders stand for really are.

    source:  the folder that `@src@` stands for.
    links:   name in a job's folder → real folder: site, env, cuda, python.
    listing: digest of the names of the files below source: a file that is added there can
             change a text without any file that the text came from being another.
    files:   relative path and sha256 of each file that was laid out below source; None where
             whatever lies there is right.
    cover:   how compilers are shown source, where it does not really lie there.
    """

    source: str
    links: tuple[tuple[str, str], ...]
    listing: str
    files: tuple[tuple[str, str], ...] | None = None
    cover: Cover | None = None

    def in_view(self, text: str) -> str:
        """Replace placeholders by the paths that the compilers see."""
        for name, folder in self.links:
            text = text.replace(f"@{name}@", roots.seen(name, folder))
        return text.replace("@src@", self.source)

    def real(self, path: str) -> str:
        """The real file behind a path that a compiler printed."""
        found = roots.real_path(path, self.links)
        return self.cover.real(found) if self.cover else found

    def relative(self, path: str) -> str | None:
        """A path that a compiler printed, from `source` on; None where it leads elsewhere."""
        inside = os.path.relpath(path, self.source) if _begins(path, self.source) else os.pardir
        return None if inside.split(os.sep, 1)[0] == os.pardir else os.path.normcase(inside)

    def laid_out(self) -> dict[str, str] | None:
        """`files` by what `relative` says of them."""
        if self.files is None:
            return None
        return {os.path.normcase(name): sha for name, sha in self.files}

    def shown(self, command: Sequence[str]) -> list[str]:
        """A compiler's command as it is started, so that it sees all this."""
        return self.cover.shown(command) if self.cover else list(command)

    def mapped(self) -> tuple[tuple[str, str], ...]:
        """Folders as compilers see them, and what finished files call them instead: `site`,
        `flash_attn-2.3.6`. An inner folder comes after the one around it."""
        seen = [(roots.seen(name, folder), name) for name, folder in self.links]
        return (*roots.OWN, *outer_first(seen), (self.source, Path(self.source).parent.name))

    def link_into(self, folder: Path) -> None:
        """Make a job's folder: what is needed in it to see the environment."""
        roots.show(self.links, folder)


def outer_first(seen: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Folders as compilers see them, with their names; an inner one after the one around it."""
    return sorted(seen, key=lambda pair: (len(pair[0]), pair))


def _begins(path: str, folder: str) -> bool:
    return os.path.normcase(path).startswith(os.path.normcase(folder) + os.sep)


def places_from_wire(data: dict[str, Any]) -> Places:
    """Places that came as JSON."""
    files, cover = data["files"], data["cover"]
    return Places(
        source=data["source"],
        links=tuple((name, folder) for name, folder in data["links"]),
        listing=data["listing"],
        files=None if files is None else tuple((name, sha) for name, sha in files),
        cover=cover and Cover(cover["folder"], tuple(cover["entries"])),
    )


Marks = tuple[tuple[str, str], ...]  # real folder, name of its placeholder


def abstract(text: str, marks: Marks) -> str:
    """Replace real folders in an argument by placeholders, the longest folder first.

    A folder counts where a path may begin (after an option's letter too: `-Xcompiler -I/dir`)
    and where its last name ends: in `-fdebug-prefix-map=/dir=.`, not in `/dir2`, not in `/a/dir`.
    """
    for real, name in sorted(marks, key=lambda mark: -len(mark[0])):
        text = re.sub(f"{_pattern(real)}{_END}", f"@{name}@", text)
    return text


def _pattern(folder: str) -> str:
    """Finds a folder's path where one may begin; Windows knows no case, and two separators."""
    if not _ON_WINDOWS.match(folder):
        return _BEGIN + re.escape(folder)
    parts = re.split(_SEPARATOR, folder)
    return f"{_BEGIN_WINDOWS}(?i:{_SEPARATOR.join(map(re.escape, parts))})"


def compiler_files(root: Path, subdirectory: str = "") -> dict[str, str]:
    """Relative path → sha256 of every file below root that a compiler might read.

    subdirectory: from where in it the project is built.
    """
    build = root / subdirectory / "build"
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_of_tools(name))
        if Path(folder) == build:
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
def shared_sources(
    root: Path, name: str, origin: Path, files: dict[str, str], subdirectory: str = ""
) -> Iterator[Path]:
    """The real source folder of project `name` below `root`, holding exactly `files` of origin.

    Builds of the same content share it; one that needs other content waits until the others
    are done. Raises StoreError where the folder cannot be made.
    """
    base = root / name
    target = base / "src"

    def is_right() -> bool:
        return private_folder(base) and compiler_files(target, subdirectory) == files

    def fill() -> None:
        if not private_folder(base):
            shutil.rmtree(base)
            base.mkdir(mode=0o700)
        _copy(target, origin, files)

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(roots.shared(base, is_right, fill))
        except OSError as error:
            raise _unusable(base, error) from error
        yield target


def _copy(target: Path, origin: Path, files: Iterable[str]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for relative in files:
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin / relative, path)
        # Line tables may record a source's time: give every file the same one.
        os.utime(path, (0, 0))


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the sources cannot be laid out for compiling: {error.strerror}",
        where=str(path),
        hint="free some space for the project's sources",
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
