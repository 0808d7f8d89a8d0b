"""Unpacks a recipe's source into a folder that upstream's build may write into."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from .build.upstream import Project
from .errors import FormatError, UpstreamError, UsageError
from .events import Emit
from .files import OF_THE_DISK
from .model import Recipe
from .sourcetree import tree_files
from .toolchain.fetch import fetch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a project without [build-system] gets (PEP 517).
_LEGACY = "setuptools.build_meta:__legacy__"
_EPOCH = "SOURCE_DATE_EPOCH"
_LAST_EPOCH = 4354819198  # seconds: the end of 2107, and of what a zip archive can say
_FIRST_TIME = 315619200  # seconds: 1980-01-02, a time that a zip archive can say in any zone
_EXPANSION = 4 << 30  # bytes: no sdist that anyone builds unpacks to more


def unpack(recipe: Recipe, downloads: Path, folder: Path, emit: Emit) -> Project:
    """The recipe's source in folder/NAME-VERSION, fetched first where it is an sdist.

    Raises FetchError, HashMismatchError, FormatError for a hostile or broken archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / f"{recipe.project}-{recipe.version}"
    if recipe.source.folder is not None:
        for relative in tree_files(recipe.source.folder):
            target = root / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(recipe.source.folder / relative, target)
    else:
        assert recipe.source.package is not None
        [archive] = fetch([recipe.source.package], downloads, emit)
        _extract(archive, folder / "unpacked").rename(root)
    root = root / recipe.subdirectory if recipe.subdirectory else root
    system = _build_system(root)
    return Project(
        root=root,
        backend=system.get("build-backend", _LEGACY),
        backend_paths=tuple(system.get("backend-path", ())),
        variables=tuple(sorted(recipe.environment.items())),
        epoch=recipe.epoch,
        stub_commands=recipe.stub_commands,
    )


def epoch_of(recipe: Recipe) -> int:
    """Seconds since 1970 for every time in the wheel: SOURCE_DATE_EPOCH, or the recipe's.

    Raises UsageError where the variable is not such a number.
    """
    named = os.environ.get(_EPOCH)
    if not named:
        return recipe.epoch
    if not re.fullmatch("[0-9]{1,10}", named) or int(named) > _LAST_EPOCH:
        raise UsageError(
            f"{named!r} is not a number of seconds since 1970 that a wheel can hold",
            where=_EPOCH,
            hint=f"valid: 0 to {_LAST_EPOCH}",
        )
    return int(named)


def _extract(archive: Path, folder: Path) -> Path:
    """Unpack an sdist; returns the one folder that it holds."""
    try:
        with tarfile.open(archive) as tar:
            members = list(_safe_members(tar, archive.name))
            tar.extractall(folder, members=members)
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise
        raise FormatError(f"not a readable sdist: {error}", where=archive.name) from error
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise FormatError(f"not a readable sdist: {error}", where=archive.name) from error
    tops = list(folder.iterdir())
    if len(tops) != 1 or not tops[0].is_dir():
        raise FormatError(
            "an sdist holds exactly one folder, this one holds "
            + (", ".join(sorted(top.name for top in tops)) or "nothing"),
            where=archive.name,
        )
    return tops[0]


def _safe_members(tar: tarfile.TarFile, name: str) -> list[tarfile.TarInfo]:
    """Files and folders that stay below the target (tarfile's own filter needs 3.12)."""
    members: list[tarfile.TarInfo] = []
    total = 0
    for member in tar:
        if not _stays_below(member):
            raise FormatError(
                f"the sdist has a member that could leave its folder: {member.name!r}", where=name
            )
        total += member.size
        if total > _EXPANSION:
            raise FormatError("the sdist unpacks to more than 4 GiB", where=name)
        # Counts for root alone, who unpacks for itself.
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if not _FIRST_TIME <= member.mtime <= _LAST_EPOCH:
            member.mtime = _FIRST_TIME
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        members.append(member)
    return members


def _stays_below(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return False
    return member.isdir() or (member.isfile() and bool(path.parts))


def _build_system(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    if not file.is_file():
        if not (root / "setup.py").is_file():
            raise UpstreamError(
                "neither pyproject.toml nor setup.py: nothing says how to build this project",
                where=root.name,
                hint="is the recipe's 'subdirectory' right?",
            )
        return {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("build-system", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UpstreamError(f"unreadable: {error}", where=f"{root.name}/pyproject.toml") from error
    return dict(table) if isinstance(table, dict) else {}
