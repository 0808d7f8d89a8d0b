"""Mistakes between the keys of a toolchain that becomes container images, in the raw TOML values.

As `crosschecks`: any value may be missing or of a wrong type here, and is then left to `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from .crosschecks import Mistakes, Raw, tables
from .places import Key

_SHA256 = re.compile("[0-9a-f]{64}")
_NVCC = {"cuda_files": "cuda_nvcc", "packages": "nvidia-cuda-nvcc"}  # where nvcc comes from


def image_mistakes(raw: Raw) -> Mistakes:
    """Mistakes in compilers, CUDA files, interpreters and container images of a toolchain."""
    yield from _compiler_mistakes(raw)
    yield from _nvcc_mistakes(raw)
    yield from _download_mistakes(raw)
    yield from _interpreter_mistakes(raw)
    containers = raw.get("containers")
    if isinstance(containers, dict):
        yield from _container_mistakes(containers, raw)
        yield from _python_mistakes(containers, raw)
    else:
        yield from _needless_mistakes(raw)


def filename_of(url: str) -> str:
    """What a file is called, by the end of its URL."""
    return unquote(url.rpartition("/")[2])


def _compiler_mistakes(raw: Raw) -> Mistakes:
    platform = raw.get("platform")
    if not isinstance(platform, str):
        return
    wanted, other = ("msvc", "gcc") if platform.startswith("win-") else ("gcc", "msvc")
    if wanted not in raw:
        yield (wanted,), f"missing: the C++ compiler for {platform}"
    if other in raw:
        yield (other,), f"is no compiler for {platform}"


def _nvcc_mistakes(raw: Raw) -> Mistakes:
    wanted = raw.get("nvcc")
    for place, name in _NVCC.items():
        for index, table in tables(raw, place):
            found = table.get("version")
            if table.get("name") == name and isinstance(found, str) and found != wanted:
                yield (place, index, "version"), f"{found!r} is not nvcc's, {wanted!r}"


def _downloads(raw: Raw) -> Iterator[tuple[Key, Raw]]:
    """Every table of a file that is no wheel, with its place."""
    for place in ("cuda_files", "interpreters"):
        for index, table in tables(raw, place):
            yield (place, index), table
    msvc = raw.get("msvc")
    bootstrapper = msvc.get("bootstrapper") if isinstance(msvc, dict) else None
    if isinstance(bootstrapper, dict):
        yield ("msvc", "bootstrapper"), bootstrapper


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
        if key[0] != "msvc" and isinstance(version, str) and version not in file:
            yield (*key, "version"), f"{version!r} is not in the file's name, {file!r}"
        yield from _hash_mistakes(url, table.get("sha256"), key)


def _hash_mistakes(url: str, pinned: object, key: Key) -> Mistakes:
    """Microsoft's URLs have the file's sha256 in them."""
    said = [part for part in url.split("/") if _SHA256.fullmatch(part)]
    if said and isinstance(pinned, str) and _SHA256.fullmatch(pinned) and pinned not in said:
        yield (*key, "sha256"), f"the URL says {said[-1]}"


def _interpreter_mistakes(raw: Raw) -> Mistakes:
    seen: set[str] = set()
    for index, table in tables(raw, "interpreters"):
        python, version = table.get("python"), table.get("version")
        if not isinstance(python, str):
            continue
        if python in seen:
            yield ("interpreters", index, "python"), f"a second Python {python}"
        seen.add(python)
        if isinstance(version, str) and not version.startswith(f"{python}."):
            yield ("interpreters", index, "version"), f"{version!r} is no Python {python}"


def _container_mistakes(containers: Raw, raw: Raw) -> Mistakes:
    platform, system = raw.get("platform"), containers.get("os")
    if isinstance(platform, str) and system in ("linux", "windows"):
        wanted = "windows" if platform.startswith("win-") else "linux"
        if system != wanted:
            yield ("containers", "os"), f"{system!r} does not make wheels for {platform}"
    build = containers.get("os_build")
    if system == "windows" and build is None:
        yield ("containers", "os_build"), "missing: the Windows build of the base, as in 20348"
    if type(build) is int and (system == "linux" or build <= 0):
        yield ("containers", "os_build"), f"{build} is no build of Windows"
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
    for key in ("cuda_files", "interpreters", "msvc"):
        if raw.get(key):
            yield ("containers",), f"missing: {key} can only be used in images"
