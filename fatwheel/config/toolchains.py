"""Toolchains by their names: files of toolchains/, and those that are composed by their names.

A file either names the parts that it is made of (`PartsFile`), or pins every file by itself
(`schema.ToolchainFile`). docs/toolchains.md explains the keys of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from packaging.utils import canonicalize_name
from pydantic import Field

from ..errors import UsageError
from . import fields
from .checks import image_mistakes, tables, toolchain_mistakes
from .compose import (
    COMPOSED,
    Combination,
    assemble,
    choose,
    compose,
    cuda_obstacle,
    images_for,
    msvc_for,
    shared_packages,
    variant_for,
)
from .load import Mistake, load_table, read_table_of, unknown
from .mistakes import Key
from .parts import NVIDIA_PLATFORMS, Archive, CudaRelease, Parts, Pins, TorchRelease
from .pinned import Package, Table
from .schema import ToolchainFile
from .toolchain import Toolchain, TorchBuild

_HINT = "docs/toolchains.md explains every key"


@dataclass(frozen=True, kw_only=True)
class TorchChoice(Table):
    """A torch, the Pythons that it is for, and what its builds have beside what it needs.

    order: names of the packages of its builds that come first; the others are sorted. It is part of
    a toolchain's digest.
    """

    version: Annotated[fields.Torch, Field(description="a torch of the parts, as in '2.11.0'")]
    pythons: Annotated[
        tuple[fields.Python, ...], fields.Few, Field(description="Pythons, as in ['3.11']")
    ]
    packages: Pins = ()
    order: Annotated[tuple[fields.Project, ...], fields.Few] = ()


@dataclass(frozen=True, kw_only=True)
class PartsTable(Table):
    """The parts of a toolchain.

    What is left out is what is composed without a file. msvc, images: which of the parts. archives:
    names of CUDA's archives, in the order in which they are pinned. tools: all that builds are made
    with, in order, instead of what CUDA's and torch's parts name. packages: what every build has
    beside what torch needs.
    """

    cuda: Annotated[fields.Release, Field(description="a CUDA of the parts, as in '13.0.2'")]
    torch: Annotated[
        tuple[TorchChoice, ...], fields.Few, Field(description="one table for each torch")
    ]
    msvc: fields.OrEmpty[fields.Toolset] = ""
    images: fields.OrEmpty[fields.PartName] = ""
    archives: Annotated[tuple[fields.PartName, ...], fields.Few] = ()
    tools: Pins = ()
    packages: Pins = ()


@dataclass(frozen=True, kw_only=True)
class PartsFile(Table):
    """toolchains/NAME.toml that names parts."""

    name: Annotated[fields.Label, Field(description="the file's name without .toml")]
    platform: Annotated[fields.Platform, Field(description="the target, as in 'linux-x86_64'")]
    parts: Annotated[PartsTable, Field(description="a table that names parts")]
    default_torch: fields.OrEmpty[fields.Torch] = ""


# -- by name ---------------------------------------------------------------------------------------


def list_toolchains(*folders: Path) -> tuple[str, ...]:
    """The names of the toolchains in some folders, sorted."""
    return tuple(sorted({file.stem for folder in folders for file in folder.glob("*.toml")}))


def toolchain_file(name: str, *folders: Path) -> Path:
    """NAME.toml in the first of these folders that has it; UsageError where none has it."""
    if name not in list_toolchains(*folders):
        raise unknown("toolchain", name, list_toolchains(*folders), folders)
    return next(file for folder in folders if (file := folder / f"{name}.toml").exists())


def load_toolchain(name: str, *folders: Path) -> Toolchain:
    """The toolchain NAME.toml of the first of these folders that has it.

    The parts that it names are those of all folders. Raises UsageError where none has it,
    ConfigError listing every mistake in it.
    """
    file = toolchain_file(name, *folders)
    if names_parts(file):
        parts = Parts(*folders)
        return made_of(load_parts_file(file, parts), parts).toolchain()

    def mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
        yield from toolchain_mistakes(raw, file.stem)
        yield from image_mistakes(raw)

    return load_table(ToolchainFile, file, mistakes, _HINT).toolchain()


def names_parts(file: Path) -> bool:
    """Whether a toolchain's file names parts. Raises ConfigError where it is no TOML."""
    return "parts" in read_table_of(file)


def load_parts_file(file: Path, parts: Parts) -> PartsFile:
    """A file that names parts. Raises ConfigError listing every mistake in it, or in a part."""
    return load_table(PartsFile, file, partial(_mistakes, parts, file.stem), _HINT)


def named(name: str, *folders: Path) -> tuple[str, str] | None:
    """The CUDA and the platform of a composed toolchain, by its name; None for that of a file of
    these folders, and for any other."""
    match = None if name in list_toolchains(*folders) else COMPOSED.fullmatch(name)
    return (match[1], match[2]) if match else None


def find_toolchain(name: str, torch: str, python: str, *folders: Path) -> Toolchain:
    """A toolchain by its name: the file NAME.toml of these folders, or composed by its name.

    Raises UsageError where there is none, or none for the torch and Python; ConfigError.
    """
    found = named(name, *folders)
    if found is None:
        return load_toolchain(name, *folders)
    cuda, platform = found
    parts = Parts(*folders)
    return compose(parts, choose(parts, platform, cuda, torch, python, python))


def lock_command(name: str) -> str:
    """What finds out what is not known yet of a toolchain: of its file, or of all parts."""
    return "invoke lock" if COMPOSED.fullmatch(name) else f"invoke lock --toolchain {name}"


def check_msvc(parts: Parts, toolchain: Toolchain) -> None:
    """Raise UsageError where the CUDA of a toolchain's file refuses the file's C++ compiler."""
    cudas = [one for one in parts.cudas if one.minor == toolchain.cuda]
    if toolchain.msvc is None or not cudas:
        return
    refusal = cudas[-1].refusal_of(toolchain.msvc)
    if refusal:
        takers = [one.minor for one in parts.cudas if not one.refusal_of(toolchain.msvc)]
        fitting = msvc_for(parts, cudas[-1])
        nearest = [f"MSVC {fitting.toolset} with this CUDA"] if fitting else []
        nearest += [f"this compiler with CUDA {takers[0]}"] if takers else []
        raise UsageError(
            f"its nvcc refuses MSVC {toolchain.msvc.toolset}",
            where=f"toolchain {toolchain.name}",
            details=[refusal],
            hint=f"nearest: {'; '.join(nearest)}" if nearest else None,
        )


# -- made of parts ---------------------------------------------------------------------------------


def made_of(file: PartsFile, parts: Parts) -> ToolchainFile:
    """All pins of a file that names parts. Raises ConfigError where a pin has no file.

    What all builds have alike is pinned once, but not a torch, and not what a torch's table adds.
    """
    table = file.parts
    cuda = parts.cuda(table.cuda)
    assert cuda is not None, "else there is a mistake"
    chosen = [
        (one, choice)
        for choice in table.torch
        for python in choice.pythons
        for one in [_combination(parts, cuda, file.platform, choice.version, python)]
    ]
    every = [_packages(parts, table, one, file.platform) for one, _ in chosen]
    shared = tuple(
        package
        for package in every[0]
        if package.name != "torch" and all(package in others for others in every)
    )
    builds = tuple(
        TorchBuild(one.torch.version, one.python, _own(parts, one, packages, choice, shared))
        for (one, choice), packages in zip(chosen, every, strict=True)
    )
    return assemble(
        parts,
        [one for one, _ in chosen],
        name=file.name,
        packages=shared,
        builds=builds,
        images=parts.images(table.images) if table.images else None,
        msvc=parts.msvc(table.msvc) if table.msvc else None,
        archives=_archives(cuda, file.platform, table.archives),
        default_torch=file.default_torch,
    )


def _combination(
    parts: Parts, cuda: CudaRelease, platform: str, torch: str, python: str
) -> Combination:
    release = parts.torch(torch)
    assert release is not None, "else there is a mistake"
    variant = variant_for(cuda, release, platform)
    assert variant is not None, "else there is a mistake"
    wheel = variant.wheel_for(python)
    assert wheel is not None, "else there is a mistake"
    return Combination(platform, cuda, release, variant, wheel)


def _packages(parts: Parts, table: PartsTable, chosen: Combination, platform: str) -> list[Package]:
    """All that a build has, but what its torch's table adds: compilers, tools, torch's needs."""
    images = parts.images(table.images or platform)
    in_images = images_for(images, chosen.cuda, platform)
    usual = list(shared_packages(parts, chosen, in_images))
    where = (chosen.python, platform)
    if table.tools:
        compilers = [package for package in usual if package.role == "compiler"]
        pips = [package for package in usual if package.role == "installer"]
        roles = {package.name: package.role for package in pips}
        tools = [
            package
            for pin in table.tools
            for package in parts.packages([pin], *where, roles.get(_name(pin), "build"))
        ]
        left = [package for package in pips if package.name not in {one.name for one in tools}]
        usual = [*compilers, *tools, *left]
    else:
        usual += parts.packages(chosen.torch.tools, *where, "build")
    pins = [*chosen.variant.requires, *table.packages]
    runtime = [*parts.packages(pins, *where, "runtime"), chosen.wheel.package()]
    there = {package.name for package in usual}
    runtime = [package for package in runtime if package.name not in there]
    return [*usual, *sorted(runtime, key=lambda package: package.name)]


def _own(
    parts: Parts,
    chosen: Combination,
    packages: Sequence[Package],
    choice: TorchChoice,
    shared: Sequence[Package],
) -> tuple[Package, ...]:
    """What only one build has."""
    added = parts.packages(choice.packages, chosen.python, chosen.platform, "runtime")
    own = [*(package for package in packages if package not in shared), *added]
    places = {name: place for place, name in enumerate(choice.order)}
    return tuple(
        sorted(own, key=lambda package: (places.get(package.name, len(places)), package.name))
    )


def _archives(cuda: CudaRelease, platform: str, names: Sequence[str]) -> tuple[Archive, ...] | None:
    """Those that are named, in this order; None where none are."""
    if not names:
        return None
    there = {one.name: one for one in cuda.archives_for(platform)}
    return tuple(there[name] for name in names)


def _name(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


# -- mistakes --------------------------------------------------------------------------------------


def _mistakes(parts: Parts, stem: str, raw: dict[str, Any]) -> Iterator[Mistake]:
    """What a file says of parts that there are not, or that do not go together."""
    if isinstance(raw.get("name"), str) and raw["name"] != stem:
        yield ("name",), f"{raw['name']!r} is not the file's name, {stem!r}"
    table, platform = raw.get("parts"), raw.get("platform")
    if not isinstance(table, dict):
        return
    for key in ("cuda", "msvc", "images"):
        if isinstance(table.get(key), str) and table[key] not in parts.names(key):
            yield ("parts", key), _unknown(parts, key, table[key])
    found = table.get("cuda")
    cuda = parts.cuda(found) if isinstance(found, str) else None
    if cuda and isinstance(platform, str) and platform in NVIDIA_PLATFORMS:
        if obstacle := cuda_obstacle(parts, cuda, platform):
            yield ("parts", "cuda"), obstacle
        yield from _cuda_mistakes(parts, cuda, platform, table)
    yield from _torch_mistakes(parts, cuda, platform, raw)


def _cuda_mistakes(
    parts: Parts, cuda: CudaRelease, platform: str, table: dict[str, Any]
) -> Iterator[Mistake]:
    there = [one.name for one in cuda.archives_for(platform)]
    names = table.get("archives")
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in there:
            what = f"CUDA {cuda.version} has no archive {name!r} for {platform}"
            yield ("parts", "archives", number), what
        elif name in (names or ())[:number]:
            yield ("parts", "archives", number), f"{name!r} stands there a second time"
    toolset = table.get("msvc")
    msvc = parts.msvc(toolset) if isinstance(toolset, str) else None
    if msvc and not platform.startswith("win-"):
        yield ("parts", "msvc"), f"is not a compiler for {platform}"
    elif msvc and (obstacle := msvc.obstacle(cuda)):
        fitting = msvc_for(parts, cuda)
        nearest = f"; nearest: {fitting.toolset}" if fitting else ""
        yield ("parts", "msvc"), f"{obstacle}{nearest}"


def _torch_mistakes(
    parts: Parts, cuda: CudaRelease | None, platform: object, raw: dict[str, Any]
) -> Iterator[Mistake]:
    seen: list[str] = []
    for number, choice in tables(raw["parts"], "torch"):
        key = ("parts", "torch", number)
        version = choice.get("version")
        if not isinstance(version, str):
            continue
        if version in seen:
            yield (*key, "version"), f"a second table of torch {version}"
        seen.append(version)
        torch = parts.torch(version)
        if torch is None:
            yield (*key, "version"), _unknown(parts, "torch", version)
        elif cuda and isinstance(platform, str) and platform in NVIDIA_PLATFORMS:
            yield from _python_mistakes(cuda, torch, platform, choice, key)
    if raw["parts"].get("torch") == []:
        yield ("parts", "torch"), "empty; at least one is needed"
    default = raw.get("default_torch")
    if default is None and len(seen) > 1:
        yield ("default_torch",), "missing: the torch to build against unless asked otherwise"
    elif isinstance(default, str) and seen and default not in seen:
        yield ("default_torch",), f"no table has torch {default}; valid: {', '.join(seen)}"


def _python_mistakes(
    cuda: CudaRelease, torch: TorchRelease, platform: str, choice: dict[str, Any], key: Key
) -> Iterator[Mistake]:
    variant = variant_for(cuda, torch, platform)
    if variant is None:
        what = f"there is no torch {torch.version} for CUDA {cuda.major} on {platform}"
        yield (*key, "version"), what
        return
    pythons = choice.get("pythons")
    if pythons == []:
        yield (*key, "pythons"), "empty; at least one is needed"
    for number, python in enumerate(pythons if isinstance(pythons, list) else ()):
        if isinstance(python, str) and not variant.wheel_for(python):
            valid = ", ".join(wheel.python for wheel in variant.wheels)
            what = f"torch {torch.version} has no wheel for Python {python!r}; valid: {valid}"
            yield (*key, "pythons", number), what
        elif python in (pythons or ())[:number]:
            yield (*key, "pythons", number), f"{python!r} stands there a second time"


def _unknown(parts: Parts, kind: str, name: str) -> str:
    return f"there is no {kind}/{name}.toml among the parts; valid: {', '.join(parts.names(kind))}"
