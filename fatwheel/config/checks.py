"""Finds contradictions between the keys of a file, in the raw TOML values.

They are looked for even where `schema` found mistakes, so that all come at once: any value may
be missing or of a wrong type here, and is then left to `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from ..arch import parse_arch
from ..errors import UsageError
from ..machine import system_of
from ..provision.msvc import KINDS
from .mistakes import Key, keys_of
from .pinned import Package
from .schema import SourceTable, filename_of

Raw = dict[str, Any]
Mistakes = Iterator[tuple[Key, str]]


def recipe_mistakes(raw: Raw) -> Mistakes:
    """Mistakes between the keys of a recipe."""
    yield from _list_mistakes(raw, "archs", least=1)
    yield from _list_mistakes(raw, "imports", least=1)
    yield from _list_mistakes(raw, "stub_commands", least=0)
    project = raw.get("project")
    own: list[str] = [canonicalize_name(project)] if isinstance(project, str) else []
    yield from _package_mistakes(tables(raw, "runtime"), ("runtime",), taken=own, several=True)
    yield from _package_mistakes(tables(raw, "build"), ("build",), taken=own, several=True)
    yield from _list_mistakes(raw, "requires", least=1)
    source = raw.get("source")
    if isinstance(source, dict):
        yield from _source_mistakes(source, raw)


def toolchain_mistakes(raw: Raw, stem: str) -> Mistakes:
    """Mistakes between the keys of a toolchain whose file is `stem`.toml."""
    if isinstance(raw.get("name"), str) and raw["name"] != stem:
        yield ("name",), f"{raw['name']!r} is not the file's name, {stem!r}"
    yield from _list_mistakes(raw, "archs", least=1)
    shared = tables(raw, "packages")
    yield from _package_mistakes(shared, ("packages",), taken=[])
    seen: list[tuple[object, object]] = []
    for index, build in tables(raw, "builds"):
        key = ("builds", index)
        yield from _package_mistakes(
            tables(build, "packages"),
            (*key, "packages"),
            taken=[canonicalize_name(str(package.get("name"))) for _, package in shared],
        )
        yield from _build_mistakes(build, key, seen)
        seen.append((build.get("python"), build.get("torch")))
    if raw.get("builds") == []:
        yield ("builds",), "empty; at least one is needed"
    yield from _default_torch_mistakes(raw)


# What each kind of source must have, and may have.
_FILE = ("size", "sha256")
_SOURCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sdist": (_FILE, ("patches",)),
    "archive": (_FILE, ("patches",)),
    "git": (("commit", "tree"), ("submodules", "patches")),
    "folder": ((), ()),
    "checkout": ((), ()),
}


def _source_mistakes(source: Raw, recipe: Raw) -> Mistakes:
    kinds = [kind for kind in _SOURCES if kind in source]
    if not kinds:
        yield ("source",), f"none of {', '.join(_SOURCES)} is given"
        return
    for other in kinds[1:]:
        yield ("source", other), f"beside {kinds[0]}; a source is one of {', '.join(_SOURCES)}"
    if len(kinds) > 1:
        return
    needed, allowed = _SOURCES[kinds[0]]
    for key in needed:
        if key not in source:
            yield ("source", key), f"missing: {keys_of(SourceTable)[key].description}"
    for key in source:
        if key in keys_of(SourceTable) and key not in (*_SOURCES, *needed, *allowed):
            owners = [kind for kind, both in _SOURCES.items() if key in (*both[0], *both[1])]
            yield ("source", key), f"belongs to {' or '.join(owners)}; {kinds[0]} has none"
    yield from _sdist_mistakes(source.get("sdist"), recipe)
    yield from _list_mistakes(source, "patches", least=1, place=("source",))
    yield from _submodule_mistakes(source)


def _submodule_mistakes(source: Raw) -> Mistakes:
    seen: set[str] = set()
    for index, table in tables(source, "submodules"):
        path = table.get("path")
        if isinstance(path, str):
            if path.lower() in seen:  # not every disk tells capitals
                yield ("source", "submodules", index, "path"), f"a second submodule {path!r}"
            seen.add(path.lower())


def _sdist_mistakes(sdist: object, recipe: Raw) -> Mistakes:
    if not isinstance(sdist, str):
        return
    try:
        name, version = parse_sdist_filename(sdist)
    except ValueError:  # InvalidSdistFilename, or a number in it that is too long
        return  # which `schema` says
    for contradiction in _contradictions(name, version, recipe.get("project"), recipe):
        yield ("source", "sdist"), f"{sdist!r} is a file of {contradiction}"


def _contradictions(name: str, version: Version, wanted: object, table: Raw) -> Iterator[str]:
    """How a file's name and version disagree with the keys beside it."""
    if isinstance(wanted, str) and canonicalize_name(wanted) != name:
        yield f"{name}, not of {wanted}"
    try:
        differs = Version(table.get("version", "")) != version
    except (ValueError, TypeError):
        return
    if differs:
        yield f"version {version}, not {table['version']}"


def _list_mistakes(raw: Raw, key: str, *, least: int, place: Key = ()) -> Mistakes:
    items = raw.get(key)
    if not isinstance(items, list):
        return
    if len(items) < least:
        yield (*place, key), "empty; at least one is needed"
    seen = set()
    for index, item in enumerate(items):
        if not isinstance(item, str):
            continue
        name = _arch_name(item) if key == "archs" else item
        if name in seen:
            yield (*place, key, index), f"{item!r} stands there a second time"
        seen.add(name)


def _arch_name(text: str) -> str:
    """`80` for `80`, `sm_80` and `80+ptx`, which all ask for the same slices."""
    try:
        return parse_arch(text.partition("+")[0]).name
    except UsageError:
        return text


def _build_mistakes(build: Raw, key: Key, seen: list[tuple[object, object]]) -> Mistakes:
    python, torch = build.get("python"), build.get("torch")
    if (python, torch) in seen and None not in (python, torch):
        yield key, f"a second build for Python {python} and torch {torch}"
    packages = [package for _, package in tables(build, "packages")]
    named = [package.get("version") for package in packages if package.get("name") == "torch"]
    public = [version.partition("+")[0] for version in named if isinstance(version, str)]
    if isinstance(build.get("packages"), list) and public != [torch]:
        yield key, f"its packages do not include torch {torch}"


def _default_torch_mistakes(raw: Raw) -> Mistakes:
    torches = [build.get("torch") for _, build in tables(raw, "builds")]
    known = list(dict.fromkeys(torch for torch in torches if isinstance(torch, str)))
    default = raw.get("default_torch")
    if default is None and len(known) > 1:
        yield ("default_torch",), "missing: the torch to build against unless asked otherwise"
    if isinstance(default, str) and known and default not in known:
        yield ("default_torch",), f"no build has torch {default}; valid: {', '.join(known)}"


def _package_mistakes(
    packages: Iterable[tuple[int, Raw]], place: Key, *, taken: list[str], several: bool = False
) -> Mistakes:
    """Mistakes of an array of packages; `taken` are names that the environment has already.

    several: whether a package may have a file for each Python and platform.
    """
    known = set(taken)
    files: set[str] = set()
    for index, package in packages:
        key = (*place, index)
        name = package.get("name")
        if isinstance(name, str):
            if canonicalize_name(name) in known:
                yield (*key, "name"), f"a second package {name!r}"
            if not several:
                known.add(canonicalize_name(name))
        if several and isinstance(file := package.get("file"), str):
            if file.lower() in files:
                yield (*key, "file"), f"{file!r} stands there a second time"
            files.add(file.lower())
        yield from _file_mistakes(package, key)
        if "url" not in package:
            # Nobody but the index can say what these are, and it is asked by them.
            for pin in ("size", "sha256"):
                if pin not in package:
                    yield (*key, pin), f"missing: {keys_of(Package)[pin].description}"


def _file_mistakes(package: Raw, key: Key) -> Mistakes:
    file = package.get("file")
    if not isinstance(file, str):
        return
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except ValueError:
        return  # which `schema` says
    for contradiction in _contradictions(name, version, package.get("name"), package):
        yield (*key, "file"), f"{file!r} is a file of {contradiction}"
    url = package.get("url")
    if isinstance(url, str) and filename_of(url) != file:
        yield (*key, "url"), f"is the URL of another file than {file}"


def tables(raw: Raw, key: str) -> list[tuple[int, Raw]]:
    """The tables of an array, with their places in it."""
    items = raw.get(key)
    if not isinstance(items, list):
        return []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, dict)]


# -- toolchains that become images -----------------------------------------------------------------

# Mistakes between the keys of a toolchain that becomes container images, in the raw TOML values.
#
# As `checks`: any value may be missing or of a wrong type here, and is then left to `schema`.


_SHA256 = re.compile("[0-9a-f]{64}")
_NVCC = {"cuda_files": "cuda_nvcc", "packages": "nvidia-cuda-nvcc"}  # where nvcc comes from


def image_mistakes(raw: Raw) -> Mistakes:
    """Mistakes in compilers, CUDA files, interpreters and container images of a toolchain."""
    yield from _compiler_mistakes(raw)
    yield from _nvcc_mistakes(raw)
    yield from _download_mistakes(raw)
    yield from _msvc_mistakes(raw)
    yield from _interpreter_mistakes(raw)
    containers = raw.get("containers")
    if isinstance(containers, dict):
        yield from _container_mistakes(containers, raw)
        yield from _python_mistakes(containers, raw)
    else:
        yield from _needless_mistakes(raw)


def _compiler_mistakes(raw: Raw) -> Mistakes:
    platform = raw.get("platform")
    if not isinstance(platform, str):
        return
    wanted, other = ("msvc", "gcc") if platform.startswith("win-") else ("gcc", "msvc")
    if wanted not in raw:
        yield (wanted,), f"missing: the C++ compiler for {platform}"
    if other in raw:
        yield (other,), f"is not a compiler for {platform}"


def _nvcc_mistakes(raw: Raw) -> Mistakes:
    wanted = raw.get("nvcc")
    for place, name in _NVCC.items():
        for index, table in tables(raw, place):
            found = table.get("version")
            if table.get("name") == name and isinstance(found, str) and found != wanted:
                yield (place, index, "version"), f"{found!r} is not nvcc's, {wanted!r}"


def _downloads(raw: Raw) -> Iterator[tuple[Key, Raw]]:
    """Every table of a file that is no wheel, with its place."""
    for place in ("cuda_files", "interpreters", "portable"):
        for index, table in tables(raw, place):
            yield (place, index), table


def _download_mistakes(raw: Raw) -> Mistakes:
    seen: set[str] = set()
    for key, table in _downloads(raw):
        url, version = table.get("url"), table.get("version")
        if not isinstance(url, str):
            continue
        file = filename_of(url)
        if file.lower() in seen:  # not every disk tells capitals
            yield (*key, "url"), f"a second file {file!r}"
        seen.add(file.lower())
        if isinstance(version, str) and version not in file:
            yield (*key, "version"), f"{version!r} is not in the file's name, {file!r}"
        yield from _hash_mistakes(url, table.get("sha256"), key)


def _hash_mistakes(url: str, pinned: object, key: Key) -> Mistakes:
    """Microsoft's URLs have the file's sha256 in them."""
    said = [part for part in url.split("/") if _SHA256.fullmatch(part)]
    if said and isinstance(pinned, str) and _SHA256.fullmatch(pinned) and pinned not in said:
        yield (*key, "sha256"), f"the URL says {said[-1]}"


def payload_mistakes(msvc: Raw) -> Mistakes:
    """Mistakes in the packages of MSVC, in its part or in the table of a toolchain."""
    names: set[str] = set()
    for index, table in tables(msvc, "payloads"):
        name, url = table.get("name"), table.get("url")
        if isinstance(name, str):
            if name.lower() in names:
                yield ("payloads", index, "name"), f"a second package {name!r}"
            names.add(name.lower())
        if isinstance(url, str):
            if not url.endswith(KINDS):
                valid = ", ".join(KINDS)
                yield ("payloads", index, "url"), f"must end with one of {valid}"
            yield from _hash_mistakes(url, table.get("sha256"), ("payloads", index))


def _msvc_mistakes(raw: Raw) -> Mistakes:
    msvc = raw.get("msvc")
    if isinstance(msvc, dict):
        for key, message in payload_mistakes(msvc):
            yield ("msvc", *key), message


def _interpreter_mistakes(raw: Raw) -> Mistakes:
    for place in ("interpreters", "portable"):
        seen: set[str] = set()
        for index, table in tables(raw, place):
            python, version = table.get("python"), table.get("version")
            if not isinstance(python, str):
                continue
            if python in seen:
                yield (place, index, "python"), f"a second Python {python}"
            seen.add(python)
            if isinstance(version, str) and not version.startswith(f"{python}."):
                yield (place, index, "version"), f"{version!r} is not a Python {python}"
    if raw.get("portable") and "msvc" not in raw:
        yield ("portable",), "only builds for Windows use it"


def _container_mistakes(containers: Raw, raw: Raw) -> Mistakes:
    platform, system = raw.get("platform"), containers.get("os")
    known = system in ("linux", "windows")
    if known and isinstance(platform, str) and system != system_of(platform):
        yield ("containers", "os"), f"{system!r} does not make wheels for {platform}"
    build = containers.get("os_build")
    if system == "windows" and build is None:
        yield ("containers", "os_build"), "missing: the Windows build of the base, as in 20348"
    if type(build) is int and (system == "linux" or build <= 0):
        yield ("containers", "os_build"), f"{build} is not a Windows build"
    if containers.get("bases") == []:
        yield ("containers", "bases"), "empty; at least one is needed"
    yield from _base_mistakes(containers)


def _base_mistakes(containers: Raw) -> Mistakes:
    seen: set[object] = set()
    for index, base in tables(containers, "bases"):
        pythons = base.get("pythons", [])
        if not isinstance(pythons, list):
            continue
        # None stands for those that have no Python of their own.
        for python in pythons or [None]:
            if not isinstance(python, (str, type(None))):
                continue
            if python in seen:
                what = f"for Python {python}" if python else "for the interpreters"
                yield ("containers", "bases", index), f"a second image {what}"
            seen.add(python)


def _python_mistakes(containers: Raw, raw: Raw) -> Mistakes:
    """Whether every build has a Python in some image."""
    bases = [base for _, base in tables(containers, "bases")]
    brought = [base.get("pythons", []) for base in bases]
    known = {
        python
        for pythons in brought
        if isinstance(pythons, list)
        for python in pythons
        if isinstance(python, str)
    }
    if [] in brought:
        interpreters = (table.get("python") for _, table in tables(raw, "interpreters"))
        known |= {python for python in interpreters if isinstance(python, str)}
    missing: set[str] = set()
    for index, build in tables(raw, "builds"):
        python = build.get("python")
        if bases and isinstance(python, str) and python not in known | missing:
            missing.add(python)
            yield (
                ("builds", index, "python"),
                f"no image has Python {python}: it is neither in interpreters nor in the pythons "
                "of a base",
            )


def _needless_mistakes(raw: Raw) -> Mistakes:
    """What belongs into images, where none are made."""
    if raw.get("interpreters"):
        yield ("containers",), "missing: interpreters can only be used in images"
