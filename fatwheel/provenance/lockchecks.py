"""What in a lock from anywhere no build could use, or should not.

The values of a recipe and of a toolchain must be what their own files may say; names become parts
of paths, variables those of a process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from pydantic import TypeAdapter, ValidationError

from ..load import fields
from ..model import Containers, Download, Msvc, Package, Recipe, Toolchain
from .buildlock import BuildLock, pins_of

ROLES = ("compiler", "build", "runtime", "installer", "source")
_LONGEST_NAME = 200  # characters: no file system takes many more
_MOST_SAID = 160  # characters of a mistake

_NAME = re.compile(r"[\w+.!~ -]+")
_SHA256 = re.compile("[0-9a-f]{64}")

_Value = tuple[str, Any, Any]  # where it stands, what it must be, and what it is


def mistakes_in(lock: BuildLock) -> Iterator[str]:
    """Every mistake, with where it stands; values are of the right types already."""
    recipe, toolchain = lock.recipe, lock.toolchain
    for place, kind, value in _values(lock):
        try:
            _reader(kind).validate_python(value)
        except ValidationError as error:
            said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            yield f"{place}: {said}"[:_MOST_SAID]
    if not 0 <= recipe.epoch <= fields.LAST_EPOCH:
        yield f"recipe.epoch: {recipe.epoch!r:.40} is no time that a wheel can hold"
    wheels = (*recipe.runtime, *toolchain.packages, *toolchain.builds[0].packages)
    for pin in pins_of(recipe, toolchain):
        yield from _pin_mistakes(pin)
        if pin in wheels:
            yield from _wheel_mistakes(pin.filename)


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _values(lock: BuildLock) -> Iterator[_Value]:
    yield "python", fields.Python, lock.python
    yield "torch", fields.PublicVersion, lock.torch
    yield from _recipe_values(lock.recipe)
    yield from _toolchain_values(lock.toolchain)


def _recipe_values(recipe: Recipe) -> Iterator[_Value]:
    yield "recipe.project", fields.Project, recipe.project
    yield "recipe.version", fields.PublicVersion, recipe.version
    for name, value in recipe.environment.items():
        yield f"recipe.environment: {name!r:.60}", fields.Variable, name
        yield f"recipe.environment: {name!r:.60}", fields.Value, value
    for command in recipe.stub_commands:
        yield "recipe.stub_commands", fields.Command, command
    for module in recipe.imports:
        yield "recipe.imports", fields.Module, module


def _toolchain_values(toolchain: Toolchain) -> Iterator[_Value]:
    yield "toolchain.platform", fields.Platform, toolchain.platform
    yield "toolchain.cuda", fields.Release, toolchain.cuda
    yield "toolchain.nvcc", fields.Release, toolchain.nvcc
    for one in toolchain.interpreters:
        yield "toolchain.interpreters", fields.Python, one.python
    if toolchain.msvc:
        yield from _msvc_values(toolchain.msvc)
    if toolchain.containers:
        yield from _container_values(toolchain.containers)


def _msvc_values(msvc: Msvc) -> Iterator[_Value]:
    yield "toolchain.msvc", fields.Release, msvc.visual_studio
    yield "toolchain.msvc", fields.Release, msvc.cl
    yield "toolchain.msvc", fields.Toolset, msvc.toolset
    for component in msvc.components:
        yield "toolchain.msvc", fields.Component, component


def _container_values(containers: Containers) -> Iterator[_Value]:
    for base in containers.bases:
        yield "toolchain.containers", fields.Reference, base.reference
        if base.digest:
            yield "toolchain.containers", fields.Digest, base.digest
        for python in base.pythons:
            yield "toolchain.containers", fields.Python, python


def _pin_mistakes(pin: Package | Download) -> Iterator[str]:
    for name, kind in ((pin.name, "package's name"), (pin.filename, "file's name")):
        yield from name_mistakes(name, kind)
    if pin.sha256:
        yield from digest_mistakes(pin.filename, pin.sha256)
    if pin.url and not pin.url.startswith(("https://", "http://")):
        yield f"{pin.url!r:.60} is no URL to fetch from"
    if pin.size < 0:
        yield f"{pin.filename}: a size of {pin.size} bytes"
    if isinstance(pin, Package) and pin.role not in ROLES:
        yield f"{pin.filename}: {pin.role!r:.40} is no role of a package"


def name_mistakes(name: str, kind: str = "name") -> Iterator[str]:
    """Whether a name can be a part of a path, one that stays in its folder."""
    if not _NAME.fullmatch(name) or name.startswith("."):
        yield f"{name!r:.60} is no {kind}"
    elif len(name) > _LONGEST_NAME:
        yield f"{name!r:.60} is too long for a {kind}"


def digest_mistakes(where: str, text: str) -> Iterator[str]:
    """Whether a digest is one."""
    if not _SHA256.fullmatch(text):
        yield f"{where}: {text!r:.80} is no sha256"


def _wheel_mistakes(name: str) -> Iterator[str]:
    try:
        parse_wheel_filename(name)
    except InvalidWheelFilename:
        yield f"{name!r:.60} is not a wheel's file name"
