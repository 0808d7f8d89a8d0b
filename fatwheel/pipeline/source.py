"""Unpacks a recipe's source into a folder that the upstream build may write to."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..config.recipe import Patch, Recipe
from ..config.sourcetree import digest_over, opened, read_patch, tree_files
from ..errors import HashMismatchError, UpstreamError, UsageError
from ..events import Emit, Note
from ..storage.documents import TomlError, read_toml
from ..text import clean
from ..toolchain.fetch import fetch
from ..worker.upstream import Project
from .checkout import read_checkout
from .git import write_repository
from .patch import apply_patch
from .requirements import FOLDER, put_packages
from .sdist import LAST_TIME, unpack_sdist

_SOURCE = "source"  # the folder of the source, where it does not lie alone
# What a project without [build-system] gets (PEP 517).
_LEGACY = "setuptools.build_meta:__legacy__"
_EPOCH = "SOURCE_DATE_EPOCH"
# `module` or `module:object`, each with dots: PEP 517.
_BACKEND = re.compile(r"[^\W\d][\w.]{0,200}(?::[^\W\d][\w.]{0,200})?|" + re.escape(_LEGACY))


def unpack(recipe: Recipe, cache: Path, folder: Path, emit: Emit) -> Project:
    """The recipe's source in folder/NAME-VERSION, fetched first where it is not on this machine,
    and patched. cache: fatwheel's own.

    Raises FetchError, HashMismatchError, FormatError for a hostile or broken source, ConfigError
    for a patch that does not apply.
    """
    folder.mkdir(parents=True, exist_ok=True)
    top = folder / f"{recipe.project}-{recipe.version}"
    # What the build needs lies beside the source, within what its commands can name anywhere.
    inner = _SOURCE if recipe.build else ""
    root = top / inner
    if recipe.build:
        top.mkdir()
        put_packages(recipe.build, cache, top / FOLDER, emit)
    _put_source(recipe, cache, root, emit)
    for patch in recipe.source.patches:
        _apply(patch, recipe, root)
    root = root / recipe.subdirectory if recipe.subdirectory else root
    backend, backend_paths = build_system(root)
    return Project(
        root=root,
        backend=backend,
        backend_paths=backend_paths,
        variables=tuple(sorted(recipe.environment.items())),
        epoch=recipe.epoch,
        stub_commands=recipe.stub_commands,
        subdirectory="/".join(filter(None, (inner, recipe.subdirectory))),
        requirements=FOLDER if recipe.build else "",
        rules=recipe.rules,
        settings=tuple(sorted(recipe.config_settings.items())),
        pretend=recipe.pretend,
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


def _put_source(recipe: Recipe, cache: Path, root: Path, emit: Emit) -> None:
    source, folder = recipe.source, recipe.source_folder
    if folder is not None:
        _copy(((name, folder / name) for name in tree_files(folder)), root)
    elif source.path is not None:
        _copy_checkout(source.path, source.sha256, root, emit)
    elif source.git is not None:
        write_repository(source.git, cache, root, emit)
    else:
        assert source.file is not None, "a source is one of these"
        [archive] = fetch([source.file], cache / "downloads", emit)
        unpack_sdist(archive, root.with_name("unpacked")).rename(root)


def _apply(patch: Patch, recipe: Recipe, root: Path) -> None:
    """Apply a patch that lies beside the recipe, if it is still the one that is meant."""
    path = recipe.folder / patch.file
    where = f"{recipe.name}/{patch.file}"
    data = read_patch(path)
    found = hashlib.sha256(data).hexdigest()
    if found != patch.sha256:
        raise HashMismatchError(
            "this patch is not the one that the wheel was built with, or it changed meanwhile",
            where=where,
            details=[f"locked: sha256 {patch.sha256}", f"here:   sha256 {found}"],
            hint="use the recipe's folder as it was when the wheel was built",
        )
    apply_patch(data, where, root)


def _copy_checkout(folder: Path, sha256: str, root: Path, emit: Emit) -> None:
    found = read_checkout(folder)
    if found.left_out:
        names = ", ".join(map(str, found.left_out))
        emit(Note(f"left out of the checkout, for it leads elsewhere: {clean(names)[:300]}"))
    _copy(found.files, root)
    if digest_over((name, root / name) for name, _ in found.files) != sha256:
        raise UsageError(
            "the checkout was changed while the build began", where=str(folder), hint="build again"
        )


# Whoever else may write to the user's files, or whom they run as, is nobody's business here.
_MODE = 0o755


def _copy(files: Iterable[tuple[PurePosixPath, Path]], root: Path) -> None:
    """Copy files under their names."""
    root.mkdir(exist_ok=True)
    for name, path in files:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened(path) as content, target.open("xb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
            status = os.fstat(content.fileno())
        target.chmod(stat.S_IMODE(status.st_mode) & _MODE)
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
