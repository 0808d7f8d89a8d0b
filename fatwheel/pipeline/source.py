"""Unpacks a recipe's source into a folder that the upstream build may write to."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path, PurePosixPath

from ..config.model import Recipe
from ..config.sourcetree import opened, tree_files
from ..errors import UpstreamError, UsageError
from ..events import Emit
from ..storage.documents import TomlError, read_toml
from ..toolchain.fetch import fetch
from ..worker.upstream import Project
from .sdist import LAST_TIME, unpack_sdist

# What a project without [build-system] gets (PEP 517).
_LEGACY = "setuptools.build_meta:__legacy__"
_EPOCH = "SOURCE_DATE_EPOCH"
# `module` or `module:object`, each with dots: PEP 517.
_BACKEND = re.compile(r"[^\W\d][\w.]{0,200}(?::[^\W\d][\w.]{0,200})?|" + re.escape(_LEGACY))


def unpack(recipe: Recipe, downloads: Path, folder: Path, emit: Emit) -> Project:
    """The recipe's source in folder/NAME-VERSION, fetched first where it is an sdist.

    Raises FetchError, HashMismatchError, FormatError for a hostile or broken archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / f"{recipe.project}-{recipe.version}"
    if recipe.source_folder is not None:
        _copied(recipe.source_folder, root)
    else:
        assert recipe.source.package is not None
        [archive] = fetch([recipe.source.package], downloads, emit)
        unpack_sdist(archive, folder / "unpacked").rename(root)
    root = root / recipe.subdirectory if recipe.subdirectory else root
    backend, backend_paths = build_system(root)
    return Project(
        root=root,
        backend=backend,
        backend_paths=backend_paths,
        variables=tuple(sorted(recipe.environment.items())),
        epoch=recipe.epoch,
        stub_commands=recipe.stub_commands,
        subdirectory=recipe.subdirectory,
    )


def epoch_of(recipe: Recipe) -> int:
    """Seconds since 1970 for every time in the wheel: SOURCE_DATE_EPOCH, or the recipe's.

    Raises UsageError where the variable is not such a number.
    """
    named = os.environ.get(_EPOCH)
    if not named:
        return recipe.epoch
    if not re.fullmatch("[0-9]{1,10}", named) or int(named) > LAST_TIME:
        raise UsageError(
            f"{named!r} is not a number of seconds since 1970 that a wheel can hold",
            where=_EPOCH,
            hint=f"valid: 0 to {LAST_TIME}",
        )
    return int(named)


def _copied(source: Path, root: Path) -> None:
    """Copy the files of a source folder that lies beside a recipe."""
    for relative in tree_files(source):
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened(source / relative) as content, target.open("xb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
            status = os.fstat(content.fileno())
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def build_system(root: Path) -> tuple[str, tuple[str, ...]]:
    """The back end and its paths, as [build-system] has them: PEP 517 and PEP 518."""
    file = root / "pyproject.toml"
    where = f"{root.name}/pyproject.toml"
    if not file.is_file():
        if not (root / "setup.py").is_file():
            raise UpstreamError(
                "no pyproject.toml or setup.py: cannot tell how to build this project",
                where=root.name,
                hint="is the recipe's 'subdirectory' right?",
            )
        return _LEGACY, ()
    try:
        table = read_toml(file)[1].get("build-system", {})
    except (TomlError, OSError) as error:
        raise UpstreamError(f"unreadable: {error}", where=where) from error
    if not isinstance(table, dict):
        raise UpstreamError("build-system is not a table", where=where)
    backend = table.get("build-backend", _LEGACY)
    if not isinstance(backend, str) or not _BACKEND.fullmatch(backend):
        raise UpstreamError(
            f"build-backend is {_shortened(backend)}",
            where=where,
            hint="valid: a module, or a module and what is in it, as in flit_core.buildapi",
        )
    return backend, _backend_paths(table.get("backend-path", []), root, where)


def _backend_paths(paths: object, root: Path, where: str) -> tuple[str, ...]:
    if not isinstance(paths, list) or not all(_is_inside(path, root) for path in paths):
        raise UpstreamError(
            f"backend-path is {_shortened(paths)}",
            where=where,
            hint="valid: a list of folders of the project, as in ['tools', '.']",
        )
    return tuple(paths)


def _is_inside(path: object, root: Path) -> bool:
    if not isinstance(path, str) or not path.isprintable() or os.pathsep in path:
        return False
    # Where it leads to is looked at, too: on Windows a name can mean many things.
    return ".." not in PurePosixPath(path).parts and (root / path).resolve().is_relative_to(
        root.resolve()
    )


def _shortened(value: object) -> str:
    """A value from anywhere, as Python writes it, no longer than a line."""
    try:
        text = ascii(value)
    except ValueError:  # of sys.set_int_max_str_digits
        return "a number with too many digits, or contains one"
    return text if len(text) <= 80 else f"{text[:80]}..."
