"""The files of a checkout: a folder anywhere on this machine, with what was changed in it.

Where it is a git repository, what git tracks counts, and what it does not ignore; else everything
but what builds and virtual environments leave behind. Links within the folder stand for what they
name, those that lead out of it are left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..config.model import Recipe
from ..config.sourcetree import MAX_BYTES, MAX_DEPTH, MAX_FILES, digest_over, is_leftover
from ..errors import ConfigError
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
    found: dict[PurePosixPath, Path] = {}
    links: list[PurePosixPath] = []
    other: list[PurePosixPath] = []
    size = 0
    for name in _names(root, root):
        path = root / name
        try:
            status = path.lstat()
        except OSError:
            continue  # tracked, and deleted since
        if stat.S_ISLNK(status.st_mode):
            links.append(name)
        elif stat.S_ISREG(status.st_mode):
            found[name] = path
            size += status.st_size
        else:
            other.append(name)
        if len(found) > MAX_FILES or size > MAX_BYTES or len(name.parts) > MAX_DEPTH:
            raise ConfigError(
                f"a checkout may hold {MAX_FILES} files of 4 GiB in all, {MAX_DEPTH} folders deep",
                where=str(folder),
            )
    for link in links:
        seen = _behind(root, link, found)
        other += [] if seen else [link]
        found |= seen
    return Checkout(tuple(sorted(found.items(), key=lambda one: str(one[0]))), tuple(other))


def _behind(
    root: Path, link: PurePosixPath, found: dict[PurePosixPath, Path]
) -> dict[PurePosixPath, Path]:
    """The files that a link stands for: one, or those of a folder."""
    target = Path(os.path.realpath(root / link))
    if not target.is_relative_to(root):
        return {}
    name = PurePosixPath(target.relative_to(root).as_posix())
    if name in found:
        return {link: found[name]}
    if name in (link, *link.parents):
        return {}
    return {
        link / one.relative_to(name): path for one, path in found.items() if name in one.parents
    }


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
    if any((place / ".git").exists() for place in (folder, *folder.parents)):
        tracked = listed(folder, "--cached")
        others = [one for one in listed(folder, "--others") if not _left_behind(PurePosixPath(one))]
        if tracked or others:
            yield from map(PurePosixPath, dict.fromkeys([*tracked, *others]))
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


def _left_behind(name: PurePosixPath) -> bool:
    return any(is_leftover(part, place == 0) for place, part in enumerate(name.parts[:-1]))


def _unreadable(error: OSError) -> None:
    raise ConfigError(
        f"cannot read the checkout: {error.strerror}", where=str(error.filename)
    ) from error
