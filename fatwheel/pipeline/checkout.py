"""The files of a checkout: a folder anywhere on this machine, with what was changed in it.

Where it is a git repository, what git tracks counts, and what it does not ignore; else everything
but what builds and virtual environments leave behind. Links within the folder stand for what they
name, those that lead out of it are left out.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from ..config.recipe import Recipe
from ..config.sourcetree import MAX_BYTES, MAX_DEPTH, MAX_FILES, digest_over, is_leftover
from ..errors import ConfigError, FormatError
from ..text import clean
from .git import listed

_VENV = "pyvenv.cfg"  # PEP 405


@dataclass(frozen=True)
class Checkout:
    """files: the names in the project, sorted, and where each file is. left_out: links that lead
    elsewhere, and what is neither file nor folder."""

    files: tuple[tuple[PurePosixPath, Path], ...]
    left_out: tuple[PurePosixPath, ...]


def with_checkout(recipe: Recipe) -> Recipe:
    """The recipe with the digest of its checkout's files, where it has one. Raises ConfigError."""
    source = recipe.source
    if source.path is None:
        return recipe
    return replace(
        recipe, source=replace(source, sha256=digest_over(read_checkout(source.path).files))
    )


def read_checkout(folder: Path) -> Checkout:
    """What of a folder is the project's. Raises ConfigError where it cannot be read or is too
    large, FormatError where git cannot list it."""
    root = folder.resolve()
    found = _Found(root, folder)
    plain: dict[PurePosixPath, bool] = {PurePosixPath(): True}

    def is_plain(name: PurePosixPath) -> bool:
        if name not in plain:
            plain[name] = is_plain(name.parent) and not (root / name).is_symlink()
        return plain[name]

    other: list[PurePosixPath] = []
    for name in _names(root, root):
        try:
            status = (root / name).lstat()
        except OSError:
            continue  # tracked, and deleted since
        if not is_plain(name.parent):
            continue  # tracked, and its folder was replaced with a link since
        if stat.S_ISLNK(status.st_mode):
            found.add_link(name)
        elif stat.S_ISREG(status.st_mode):
            found.add(name, root / name)
        else:
            other.append(name)
    other += found.follow_links()
    files = sorted(found.files.items(), key=lambda one: str(one[0]))
    return Checkout(tuple(files), tuple(other))


class _Found:
    """The files of a checkout, and its links. below: the names of both in each folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.files: dict[PurePosixPath, Path] = {}
        self._root, self._folder, self._size = root, folder, 0
        self._links: dict[PurePosixPath, None] = {}
        self._below: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)

    def add(self, name: PurePosixPath, path: Path) -> None:
        """Raises ConfigError where that makes the checkout too large."""
        self.files[name] = path
        self._size += path.lstat().st_size
        self._enter(name)

    def add_link(self, name: PurePosixPath) -> None:
        """Raises ConfigError as `add`."""
        self._links[name] = None
        self._enter(name)

    def _enter(self, name: PurePosixPath) -> None:
        count = len(self.files) + len(self._links)
        if count > MAX_FILES or self._size > MAX_BYTES or len(name.parts) > MAX_DEPTH:
            raise ConfigError(
                f"a checkout may hold {MAX_FILES} files of 4 GiB in all, {MAX_DEPTH} folders deep",
                where=str(self._folder),
            )
        for parent in name.parents:
            self._below[parent].append(name)

    def follow_links(self) -> list[PurePosixPath]:
        """Add the files that links stand for; the links that stand for none, or for themselves."""
        left_out: list[PurePosixPath] = []
        done: set[PurePosixPath] = set()
        for link in sorted(self._links):  # so that the order of folders on the disk means nothing
            self._follow(link, (), done, left_out)
        return sorted(set(left_out))

    def _follow(
        self,
        link: PurePosixPath,
        outer: tuple[PurePosixPath, ...],
        done: set[PurePosixPath],
        left_out: list[PurePosixPath],
    ) -> None:
        """A link to a folder stands for what the links in there stand for, too."""
        if link in done:
            if link in outer:
                left_out.append(link)
            return
        done.add(link)
        target = Path(os.path.realpath(self._root / link))
        if not target.is_relative_to(self._root):
            left_out.append(link)
            return
        name = PurePosixPath(target.relative_to(self._root).as_posix())
        if name in self.files:
            self.add(link, self.files[name])
            return
        below = [] if name in (link, *link.parents) else self._below[name]
        for one in sorted(one for one in below if one in self._links and len(outer) < MAX_DEPTH):
            self._follow(one, (*outer, link), done, left_out)
        files = [one for one in below if one in self.files]
        for one in files:
            self.add(link / one.relative_to(name), self.files[one])
        if not files:
            left_out.append(link)


def _names(root: Path, folder: Path) -> Iterator[PurePosixPath]:
    """The names below a folder, relative to root, of all that is no folder."""
    venvs: dict[PurePosixPath, bool] = {}

    def in_venv(name: PurePosixPath) -> bool:
        if name not in venvs:
            here = (folder / name / _VENV).exists()
            venvs[name] = here or (bool(name.parts) and in_venv(name.parent))
        return venvs[name]

    for name in _listing(folder):
        path = folder / name
        if in_venv(name.parent):
            continue
        if path.is_dir() and not path.is_symlink():  # another repository
            if (path / ".git").exists():
                yield from _names(root, path)
        else:
            yield PurePosixPath(path.relative_to(root).as_posix())


def _listing(folder: Path) -> Iterator[PurePosixPath]:
    """As git has it, or all there is where the folder is no repository, or one ignores it."""
    if _is_in_repository(folder):
        tracked = listed(folder, "--cached")
        others = [one for one in listed(folder, "--others") if not _left_behind(PurePosixPath(one))]
        if tracked or others:
            yield from _checked(dict.fromkeys([*tracked, *others]))
            return
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        linked = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (inside / name for name in [*names, *linked])
        folders[:] = [
            name
            for name in folders
            if name not in linked and not is_leftover(name, inside == PurePosixPath())
        ]


def _is_in_repository(folder: Path) -> bool:
    """Another account's repository further up, such as one in /tmp, has no say."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            same = (place / ".git").lstat().st_uid == folder.stat().st_uid
            return place == folder or same
    return False


def _checked(names: Iterable[str]) -> Iterator[PurePosixPath]:
    """An index is a file that anybody may have written, and git lists what is in it."""
    for name in names:
        if PurePath(name).anchor or ".." in PurePath(name).parts:
            raise FormatError(f"the checkout's index has a file outside of it: {clean(name)[:200]}")
        yield PurePosixPath(name)


def _left_behind(name: PurePosixPath) -> bool:
    return any(is_leftover(part, place == 0) for place, part in enumerate(name.parts[:-1]))


def _unreadable(error: OSError) -> None:
    raise ConfigError(
        f"cannot read the checkout: {error.strerror}", where=str(error.filename)
    ) from error
