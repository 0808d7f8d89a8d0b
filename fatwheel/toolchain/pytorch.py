"""Finds the wheels of a release of torch, and what each is built for and needs.

The package index has one torch for each platform: METADATA tells which CUDA it needs, if any.
PyTorch's own index has the others, `torch-2.8.0+cu128-…`, whose version tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from unearth import Link

from ..config.parts import fits
from ..wheels.metadata import fields
from .errands import LISTED, PINNED, Way
from .listings import Links
from .pipconfig import RefusedError
from .remotewheel import RemoteWheels

# What markers are evaluated with for another platform (PEP 508).
_SYSTEMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_system": "Linux", "machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "platform_system": "Linux", "machine": "aarch64"},
    "win-amd64": {"sys_platform": "win32", "platform_system": "Windows", "machine": "AMD64"},
}
_LOCAL = re.compile(r"cu(\d+)(\d)")  # cu128
# The packages whose versions tell the CUDA: the release, or its runtime library.
_TELLING = re.compile(r"cuda-toolkit|nvidia-cuda-runtime(-cu\d+)?")
_EXACT = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}(?=\.|$)")
_GCC = re.compile(r"gcc ([0-9]{1,3})(\.[0-9]+)* or newer is required")


@dataclass(frozen=True)
class Found:
    """A wheel that an index lists. cuda: '' where only its METADATA can tell. url: where it lies,
    '' for the user's own index."""

    file: str
    python: str
    platform: str
    cuda: str
    links: tuple[Link, ...]
    url: str

    @property
    def way(self) -> Way:
        return PINNED if self.url else LISTED


def newest(word: str, *listings: Links) -> str | None:
    """The newest release that there is of `2.13` or `2.13.0`."""
    known = {version for links in listings for file in links if (version := _version(file))}
    fitting = [one for one in known if f"{one}.".startswith(f"{word}.") and not one.is_prerelease]
    return str(max(fitting)) if fitting else None


def _version(file: str) -> Version | None:
    """A wheel's version without its local part."""
    with suppress(InvalidWheelFilename, InvalidVersion):
        return Version(parse_wheel_filename(file)[1].public)
    return None


def found_in(
    links: Links, version: str, pythons: Sequence[str], platforms: Sequence[str], *, own: bool
) -> Iterator[Found]:
    """The wheels of a release for CPython, not free-threaded; the newest build of each.

    own: whether it is the user's index, not PyTorch's, which has torch for CPUs, too.
    """
    best: dict[tuple[str, str, str], tuple[tuple[object, ...], Found]] = {}
    for file, listed in links.items():
        if _version(file) != Version(version):
            continue
        _, full, build, _ = parse_wheel_filename(file)
        match = _LOCAL.fullmatch(full.local or "")
        if own != (match is None) or (own and full.local):
            continue
        cuda = f"{match[1]}.{match[2]}" if match else ""
        for python in pythons:
            for platform in platforms:
                if not fits(file, python, platform):
                    continue
                url = "" if own else listed[0].url_without_fragment
                one = Found(file, python, platform, cuda, tuple(listed), url)
                key, rank = (python, platform, cuda), (build, file)
                if key not in best or best[key][0] < rank:
                    best[key] = (rank, one)
    yield from (one for _, one in best.values())


# -- METADATA --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needs:
    """What a wheel of torch requires, by its METADATA. gcc: the oldest g++ that it names, or 0."""

    requirements: tuple[str, ...]
    gcc: int


def needs_of(found: Found, wheels: RemoteWheels) -> Needs:
    """Raises RefusedError."""
    text = wheels.metadata(found.links[0], found.way)
    said = _GCC.search(text.decode("utf-8", "replace"))
    return Needs(tuple(_requirements(text, found)), int(said[1]) if said else 0)


def _requirements(text: bytes, found: Found) -> Iterator[str]:
    """Those that hold for the wheel's Python and platform, without markers."""
    environment = environment_of(found.python, found.platform)
    for line in fields(text, "Requires-Dist"):
        try:
            one = Requirement(line)
            holds = one.marker is None or one.marker.evaluate({**environment, "extra": ""})
        except (ValueError, RecursionError) as error:
            raise RefusedError(
                f"{found.file} has a requirement that cannot be read: {error}"
            ) from None
        if one.url:
            raise RefusedError(f"{found.file} requires {one.name} from a place of its own")
        if holds:
            one.marker = None
            yield str(one)


def environment_of(python: str, platform: str) -> Mapping[str, str]:
    """What markers are evaluated with."""
    system = _SYSTEMS[platform]
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": system["sys_platform"],
        "platform_system": system["platform_system"],
        "platform_machine": system["machine"],
        "os_name": "nt" if platform.startswith("win") else "posix",
    }


def with_cuda(found: Found, needs: Needs) -> Found | None:
    """The wheel with the CUDA that it requires; None where it requires none."""
    if found.cuda:
        return found
    for line in needs.requirements:
        one = Requirement(line)
        if _TELLING.fullmatch(one.name):
            exact = [spec.version for spec in one.specifier if spec.operator in ("==", "~=")]
            if match := _EXACT.match(exact[0] if exact else ""):
                return replace(found, cuda=match[0])
    return None
