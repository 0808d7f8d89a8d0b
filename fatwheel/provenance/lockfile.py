"""fatwheel.lock.json: a build's lock as it lies in its wheel, and beside it.

It is all that is needed to do a build again, so it is checked like any other file from anywhere:
its names become parts of paths.

    {"schema": 1, "fatwheel": "0.1.0", "python": "3.11", "torch": "2.11.0",
     "recipe": {"name": ..., "source": {"package": {...}, "folder": "", "sha256": ...}, ...},
     "toolchain": {"name": ..., "packages": [...], "torch_packages": [...], ...},
     "host": {"compiler": "g++ 12.2.0", "compiler_id": SHA256, "python": "3.11.7"}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .. import __version__
from ..arch import parse_arch
from ..errors import FatwheelError, FormatError
from ..model import (
    Containers,
    Download,
    Host,
    Interpreter,
    Msvc,
    Package,
    Recipe,
    Source,
    Toolchain,
    TorchBuild,
)
from .buildlock import BuildLock
from .lockchecks import digest_mistakes, mistakes_in, name_mistakes

FILE = "fatwheel.lock.json"
SCHEMA = 1
MOST = 16 << 20  # bytes; the largest toolchain's has 40 KiB

_MISTAKES_SHOWN = 8
# What a recipe says of memory (bytes) and time (seconds) decides nothing about a wheel, so it is
# not locked; this stands in for it.
_MEMORY = 4 << 30
_SECONDS = 60.0


@dataclass(frozen=True)
class _Source:
    package: Package | None
    folder: str
    sha256: str


@dataclass(frozen=True)
class _Recipe:
    name: str
    project: str
    version: str
    digest: str
    source: _Source
    subdirectory: str
    environment: dict[str, str]
    stub_commands: tuple[str, ...]
    imports: tuple[str, ...]
    runtime: tuple[Package, ...]
    epoch: int


@dataclass(frozen=True)
class _Toolchain:
    name: str
    platform: str
    cuda: str
    nvcc: str
    archs: tuple[str, ...]
    gcc: tuple[int, int] | None
    digest: str
    packages: tuple[Package, ...]
    torch_packages: tuple[Package, ...]
    cuda_files: tuple[Download, ...]
    interpreters: tuple[Interpreter, ...]
    msvc: Msvc | None
    containers: Containers | None


@dataclass(frozen=True)
class _File:
    schema: int
    fatwheel: str
    python: str
    torch: str
    recipe: _Recipe
    toolchain: _Toolchain
    host: Host


_READER = TypeAdapter(_File)


def lock_bytes(lock: BuildLock) -> bytes:
    """A lock as it lies in a wheel: the same lock gives the same bytes."""
    return (json.dumps(lock_fields(lock), indent=1, sort_keys=True) + "\n").encode()


def lock_fields(lock: BuildLock) -> dict[str, Any]:
    """A lock as nested dicts, for comparing."""
    return asdict(_to_file(lock), dict_factory=_fields)


def _fields(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Without the hosts of pins: they say what this machine thinks of a lock, not what it says."""
    return {name: value for name, value in items if name != "hosts"}


def read_lock(data: bytes, where: str, kernels: Path) -> BuildLock:
    """A lock from anywhere. kernels: the folder in which source folders are looked for.

    Raises FormatError where it is damaged, or was written by a newer fatwheel.
    """
    _check_schema(data, where)
    try:
        file = _READER.validate_json(data, strict=True)
    except ValidationError as error:
        raise _damaged(where, [_said(one) for one in error.errors()]) from error
    mistakes = list(_mistakes(file))
    if mistakes:
        raise _damaged(where, mistakes)
    lock = _from_file(file, kernels)
    mistakes = list(mistakes_in(lock))
    if mistakes:
        raise _damaged(where, mistakes)
    if lock_bytes(lock) != data:
        raise _damaged(where, ["it is not written as fatwheel writes it: something was added"])
    return lock


def _check_schema(data: bytes, where: str) -> None:
    if len(data) > MOST:
        raise _damaged(where, [f"it has {len(data)} bytes; {MOST} are the most"])
    try:
        content = json.loads(data)
        schema, written = content["schema"], content["fatwheel"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(where, [f"{type(error).__name__}: {error}"]) from error
    if schema != SCHEMA:
        raise FormatError(
            f"fatwheel {str(written)[:40]} wrote it, in a form that this one does not know: "
            f"schema {str(schema)[:40]}, known is {SCHEMA}",
            where=where,
            hint=f"this is fatwheel {__version__}: use that one, or a newer one",
        )


def _damaged(where: str, mistakes: list[str]) -> FormatError:
    return FormatError(
        "the lock is damaged, or was changed by hand",
        where=where,
        details=mistakes[:_MISTAKES_SHOWN],
        hint="take it again from where it came from",
    )


def _said(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _to_file(lock: BuildLock) -> _File:
    recipe, toolchain = lock.recipe, lock.toolchain
    folder = recipe.source.folder
    below = folder.relative_to(recipe.folder).as_posix() if folder else ""
    return _File(
        schema=SCHEMA,
        fatwheel=lock.fatwheel,
        python=lock.python,
        torch=lock.torch,
        recipe=_Recipe(
            name=recipe.name,
            project=recipe.project,
            version=recipe.version,
            digest=recipe.digest,
            source=_Source(recipe.source.package, below, lock.source_digest),
            subdirectory=recipe.subdirectory,
            environment=recipe.environment,
            stub_commands=recipe.stub_commands,
            imports=recipe.imports,
            runtime=recipe.runtime,
            epoch=recipe.epoch,
        ),
        toolchain=_Toolchain(
            name=toolchain.name,
            platform=toolchain.platform,
            cuda=toolchain.cuda,
            nvcc=toolchain.nvcc,
            archs=tuple(arch.name for arch in toolchain.archs),
            gcc=toolchain.gcc,
            digest=toolchain.digest,
            packages=toolchain.packages,
            torch_packages=toolchain.builds[0].packages,
            cuda_files=toolchain.cuda_files,
            interpreters=toolchain.interpreters,
            msvc=toolchain.msvc,
            containers=toolchain.containers,
        ),
        host=lock.host,
    )


def _from_file(file: _File, kernels: Path) -> BuildLock:
    return BuildLock(
        recipe=_recipe(file.recipe, kernels / file.recipe.name),
        source_digest=file.recipe.source.sha256,
        toolchain=_toolchain(file),
        python=file.python,
        torch=file.torch,
        host=file.host,
        fatwheel=file.fatwheel,
    )


def _recipe(part: _Recipe, folder: Path) -> Recipe:
    place = folder / part.source.folder if part.source.folder else None
    return Recipe(
        name=part.name,
        project=part.project,
        version=part.version,
        source=Source(part.source.package, place),
        archs=(),
        environment=part.environment,
        imports=part.imports,
        memory=_MEMORY,
        seconds=_SECONDS,
        costs=(),
        epoch=part.epoch,
        folder=folder,
        digest=part.digest,
        subdirectory=part.subdirectory,
        stub_commands=part.stub_commands,
        runtime=part.runtime,
    )


def _toolchain(file: _File) -> Toolchain:
    part = file.toolchain
    return Toolchain(
        name=part.name,
        platform=part.platform,
        cuda=part.cuda,
        nvcc=part.nvcc,
        archs=tuple(map(parse_arch, part.archs)),
        gcc=part.gcc,
        packages=part.packages,
        builds=(TorchBuild(file.torch, file.python, part.torch_packages),),
        digest=part.digest,
        default_torch=file.torch,
        cuda_files=part.cuda_files,
        interpreters=part.interpreters,
        msvc=part.msvc,
        containers=part.containers,
    )


def _mistakes(file: _File) -> Iterator[str]:
    """What types cannot tell. Names become parts of paths, and digests do."""
    recipe, toolchain = file.recipe, file.toolchain
    for name in (recipe.name, recipe.project, recipe.version, toolchain.name, file.python):
        yield from name_mistakes(name)
    yield from digest_mistakes("recipe.source", recipe.source.sha256)
    yield from digest_mistakes("host.compiler_id", file.host.compiler_id)
    if (recipe.source.package is None) == (recipe.source.folder == ""):
        yield "recipe.source: it must have either a package or a folder"
    for below in (recipe.source.folder, recipe.subdirectory):
        path = PurePosixPath(below)
        if path.is_absolute() or ".." in path.parts or "\0" in below:
            yield f"{below!r:.60} leads out of the recipe's folder"
    for arch in toolchain.archs:
        yield from _arch_mistakes(arch)


def _arch_mistakes(text: str) -> Iterator[str]:
    try:
        parse_arch(text)
    except FatwheelError as error:
        yield f"toolchain.archs: {error.what:.80}"
