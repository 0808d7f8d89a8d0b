"""Pins the files of packages: one for each Python and platform that needs the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version
from unearth import Link

from ..config.parts import PackageFiles, Parts, PinnedFile, best_file, fits
from ..toolchain.errands import LISTED
from ..toolchain.pipconfig import RefusedError
from .compare import FILLED, MOVED, OPEN, RIGHT, UNREACHABLE, Finding
from .listings import Links, Listings, published
from .published import Values

_NEWEST_GLIBC = 28  # as in manylinux_2_28, what torch's wheels ask for
_OLDER_GLIBCS = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # PEP 600


class PackagePins:
    """The pinned files of all packages, those that are new among them. write: False to only look.

    findings: what was found out, by package.
    """

    def __init__(self, parts: Parts, listings: Listings, *, write: bool) -> None:
        self._parts = parts
        self._listings = listings
        self._new_state = FILLED if write else OPEN
        self._new: dict[str, list[PinnedFile]] = {}
        self.findings: dict[str, list[Finding]] = {}

    def need(self, name: str, version: str, python: str, platform: str) -> None:
        """Pin the file of a package that a Python on a platform takes, unless one is.

        Raises RefusedError where there is none.
        """
        if self._known(name, version, python, platform):
            return
        links = self._listings.own(name)
        file = choose(links, version, python, platform)
        if file is None:
            raise RefusedError(f"no wheel of {name} {version} fits Python {python} on {platform}")
        found = published(links[file], "")
        size = self._listings.length(_first(links[file]), LISTED)
        if not size or "sha256" not in found:
            raise RefusedError(f"the index does not say size and sha256 of {file}")
        found["size"] = size
        self._new.setdefault(name, []).append(
            PinnedFile(file=file, size=size, sha256=str(found["sha256"]), url="")
        )
        self._note(name, Finding(("files",), file, self._new_state, {}, found, "new"))

    def file(self, name: str, version: str, python: str, platform: str) -> PinnedFile:
        """The file of a pin that was needed."""
        found = self._known(name, version, python, platform)
        assert found, "it is pinned now"
        return found

    def _known(self, name: str, version: str, python: str, platform: str) -> PinnedFile | None:
        known = (*self._parts.package_files(name), *self._new.get(name, ()))
        return best_file(known, version, python, platform)

    def check(self, name: str, version: str = "") -> None:
        """Compare the pinned files of a package, or of one version, with what is published."""
        for number, one in enumerate(self._parts.package_files(name)):
            if not version or parse_wheel_filename(one.file)[1] == Version(version):
                self._note(name, self._compared(name, number, one))

    def _compared(self, name: str, number: int, one: PinnedFile) -> Finding:
        pinned: Values = {"size": one.size, "sha256": one.sha256}
        key = ("files", number)
        try:
            links = self._listings.own(name).get(one.file, ())
        except RefusedError as error:
            return Finding(key, one.file, UNREACHABLE, pinned, {}, str(error))
        if not links:
            return Finding(key, one.file, UNREACHABLE, pinned, {}, "no index lists it any more")
        found = published(links, one.sha256)
        state = MOVED if found.get("sha256", one.sha256) != one.sha256 else RIGHT
        return Finding(key, one.file, state, pinned, found)

    def _note(self, name: str, finding: Finding) -> None:
        self.findings.setdefault(name, []).append(finding)

    def changed(self) -> Iterator[tuple[str, PackageFiles]]:
        """The tables that have new files, with all their files."""
        for name, new in sorted(self._new.items()):
            yield name, PackageFiles(files=(*self._parts.package_files(name), *new))


def _first(links: list[Link]) -> Link:
    """The one to ask for the size: on this machine, if there is one."""
    return min(links, key=lambda link: not link.is_file)


def choose(links: Links, version: str, python: str, platform: str) -> str | None:
    """The file that pip would take there: a Python's own before one for several, the newest build,
    that for the newest glibc that torch itself asks for."""
    wanted = Version(version)
    ranked = []
    for file in links:
        with suppress(InvalidWheelFilename):
            _, has, build, _ = parse_wheel_filename(file)
            if has == wanted and fits(file, python, platform) and _glibc(file) <= _NEWEST_GLIBC:
                shared = bool(re.search("-(py[23]|cp[0-9]+-abi3)", file))
                ranked.append((not shared, build, _glibc(file), file))
    return max(ranked)[-1] if ranked else None


def _glibc(file: str) -> int:
    """The oldest glibc 2.x that a wheel works with, by its name; 0 for any."""
    found = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", file)]
    found += [minor for tag, minor in _OLDER_GLIBCS.items() if f"{tag}_" in file]
    return min(found, default=0)
