"""One run of `invoke lock`: what all parts are locked with.

These are the indexes, the files that packages have there, and a resolver: uv. pip evaluates markers
for the machine that it runs on only; uv resolves for any Python and platform. It asks the same
indexes that pip is configured with: everything is told through its environment, where no password
is seen by others. Versions that are pinned already are preferred to newer ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.markers import Marker
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version
from unearth import Link

from ..config.fields import Pin
from ..config.parts import PackageFiles, Parts, PinnedFile, best_file, fits, release
from ..errors import FetchError, ToolchainError
from ..events import Emit
from ..toolchain.access import LISTED
from ..toolchain.index import Index
from ..toolchain.pipconfig import PipConfig, RefusedError, redacted
from .compare import FILLED, OPEN, UNREACHABLE, PinState, compare_listed
from .listings import Asker, Links, Listings, RemoteWheels
from .published import Values, sha256_of

UV_CACHE = "resolver"


class Session:
    """One run of `invoke lock`: what is asked is asked once for all parts.

    write: False to look only. cache: fatwheel's own folder of caches. downloads: where files are
    kept that had to be fetched.
    """

    def __init__(
        self, index: Index, cache: Path, downloads: Path, emit: Emit, *, write: bool
    ) -> None:
        self.index = index
        self.downloads = downloads
        self.emit = emit
        self.write = write
        self.asker = Asker(index)
        self.listings = Listings(index, self.asker)
        self.wheels = RemoteWheels(index, self.asker)
        self._cache = cache / UV_CACHE

    @cached_property
    def resolver(self) -> Resolver:
        """Raises ToolchainError where uv is missing."""
        return Resolver(self.index.config, self._cache)

    @property
    def new(self) -> str:
        """The state of what was not known before."""
        return FILLED if self.write else OPEN


class Work:
    """One part that is being locked."""

    def __init__(self, session: Session, parts: Parts) -> None:
        self.session = session
        self.parts = parts
        self.pins = PackagePins(parts, session.listings, write=session.write)
        self._checked: set[tuple[str, str]] = set()

    @property
    def pythons(self) -> tuple[str, ...]:
        """Those that images of any platform have."""
        images = self.parts.all_images.values()
        found = {one for image in images for base in image.bases for one in base.pythons}
        found |= {one.python for image in images for one in image.interpreters}
        return tuple(sorted(found, key=release))

    def need(self, pins: Iterable[str], pythons: Iterable[str], platforms: Iterable[str]) -> None:
        """Pin the files of pins for some Pythons and platforms; compare those that are pinned.

        Raises RefusedError.
        """
        platforms = tuple(platforms)
        for python in pythons:
            for name, version in versions(pins, python).items():
                if (name, version) not in self._checked:
                    self._checked.add((name, version))
                    self.pins.check(name, version)
                for platform in platforms:
                    self.pins.need(name, version, python, platform)


@dataclass(frozen=True)
class Outcome:
    """A part that was looked at: its file's name below parts/, its text, or None where it stays as
    it is, and what was found out."""

    name: str
    text: str | None
    findings: tuple[PinState, ...]


# -- pins ------------------------------------------------------------------------------------------


def versions(pins: Iterable[Pin], python: str) -> dict[str, str]:
    """The versions by name that pins with markers name for a Python."""
    found = {}
    for pin in pins:
        words, _, marker = pin.partition(";")
        if not marker or Marker(marker.strip()).evaluate({"python_version": python}):
            name, _, version = words.strip().partition("==")
            found[name] = version
    return found


def with_markers(by_python: Mapping[str, Mapping[str, str]]) -> tuple[Pin, ...]:
    """Pins that name these versions for each Python, with markers where they differ."""
    pythons = sorted(by_python, key=release)
    pairs = sorted({pair for each in by_python.values() for pair in each.items()})
    return tuple(
        f"{name}=={version}" + marker
        for name, version in pairs
        for marker in _markers([by_python[one].get(name) == version for one in pythons], pythons)
    )


def _markers(holds: Sequence[bool], pythons: Sequence[str]) -> Iterator[str]:
    """A marker for each run of neighbouring Pythons for which something holds; '' for all."""
    start = None
    for place, here in enumerate([*holds, False]):
        if here and start is None:
            start = place
        elif not here and start is not None:
            bounds = [f"python_version >= '{pythons[start]}'"] if start else []
            bounds += [f"python_version < '{pythons[place]}'"] if place < len(pythons) else []
            yield "; " + " and ".join(bounds) if bounds else ""
            start = None


# -- files of packages -----------------------------------------------------------------------------

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
        self.findings: dict[str, list[PinState]] = {}

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
        found = sha256_of(links[file], "")
        size = self._listings.length(_first(links[file]), LISTED)
        if not size or "sha256" not in found:
            raise RefusedError(f"the index does not say size and sha256 of {file}")
        found["size"] = size
        self._new.setdefault(name, []).append(
            PinnedFile(file=file, size=size, sha256=str(found["sha256"]), url="")
        )
        self._note(name, PinState(("files",), file, self._new_state, {}, found, "new"))

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

    def _compared(self, name: str, number: int, one: PinnedFile) -> PinState:
        pinned: Values = {"size": one.size, "sha256": one.sha256}
        key = ("files", number)
        try:
            links = self._listings.own(name).get(one.file, ())
        except RefusedError as error:
            return PinState(key, one.file, UNREACHABLE, pinned, {}, str(error))
        return compare_listed(key, one.file, pinned, links, "no index lists it any more")

    def _note(self, name: str, finding: PinState) -> None:
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


# -- resolving -------------------------------------------------------------------------------------

# uv's words for a platform: its oldest glibc is the one that torch's wheels ask for.
_PLATFORMS = {
    "linux-x86_64": "x86_64-manylinux_2_28",
    "linux-aarch64": "aarch64-manylinux_2_28",
    "win-amd64": "x86_64-pc-windows-msvc",
}
_SHOWN = 20  # lines of what uv says
_PATIENCE = 900  # seconds
_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)")

Pins = Mapping[str, str]  # version by name


class Resolver:
    """Asks uv, with the indexes and the network that pip is configured with.

    Raises ToolchainError where there is no uv.
    """

    def __init__(self, config: PipConfig, cache: Path) -> None:
        self._command = [
            *(_uv(), "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"),
            *("--no-python-downloads", "--python", sys.executable),
            *("--only-binary", ":all:", "--index-strategy", "unsafe-best-match"),
            *("--cache-dir", str(cache)),
        ]
        self._environment = {**_without_uv(os.environ), **_settings(config)}

    def resolve(
        self,
        requirements: Iterable[str],
        python: str,
        platform: str,
        preferred: Iterable[str],
    ) -> dict[str, str]:
        """The version of every package that is needed, by name, for CPython of a version.

        requirements: as pip takes them, with markers and URLs. preferred: pins `NAME==VERSION`, of
        which a package may have several. Raises FetchError where nothing satisfies them, or an
        index cannot be reached.
        """
        with TemporaryDirectory(prefix="fatwheel-") as folder:
            asked, pinned = Path(folder, "requirements.in"), Path(folder, "pins.txt")
            asked.write_text("".join(f"{one}\n" for one in requirements))
            pinned.write_text("".join(f"{one}\n" for one in sorted(set(preferred))))
            try:
                run = subprocess.run(
                    [
                        *(*self._command, str(asked), "--output-file", str(pinned)),
                        *("--python-version", python, "--python-platform", _PLATFORMS[platform]),
                    ],
                    env=self._environment,
                    capture_output=True,
                    text=True,
                    timeout=_PATIENCE,
                )
            except subprocess.TimeoutExpired as error:
                raise FetchError(
                    f"uv found no set of packages within {_PATIENCE // 60} minutes",
                    hint="check the network, or name a torch: --torch VERSION",
                ) from error
            if run.returncode:
                raise FetchError(
                    f"no set of packages satisfies what is required for Python {python} on "
                    f"{platform}",
                    details=_said(run.stderr),
                    hint="check the network, and what pip is configured with: python -m pip "
                    "config list",
                )
            return _pins_in(pinned.read_text().splitlines())


def platforms() -> Sequence[str]:
    """Those that it resolves for, in Python's words."""
    return tuple(_PLATFORMS)


def _pins_in(lines: Iterable[str]) -> dict[str, str]:
    """A package that was asked for by URL stays out: the URL says which version it is."""
    matches = (_PINNED.match(line) for line in lines)
    return {str(canonicalize_name(match[1])): match[2] for match in matches if match}


def _said(text: str) -> list[str]:
    lines = [redacted(line.rstrip()) for line in text.splitlines() if line.strip()]
    return lines[-_SHOWN:]


def _uv() -> str:
    """uv beside this Python, or else on PATH."""
    folders = (sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    found = shutil.which("uv", path=os.pathsep.join(folders))
    if found is None:
        raise ToolchainError(
            "uv is not installed; it resolves the packages of other Pythons and platforms",
            hint="python -m pip install 'fatwheel[lock]', or: python -m pip install uv",
        )
    return found


def _without_uv(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's configuration decides, not what is set for uv."""
    return {name: value for name, value in environment.items() if not name.startswith("UV_")}


def _settings(config: PipConfig) -> dict[str, str]:
    """pip's configuration as variables that uv reads."""
    settings = {
        "UV_FIND_LINKS": ",".join(config.find_links),
        "UV_INSECURE_HOST": " ".join(config.trusted_hosts),
        "UV_HTTP_TIMEOUT": f"{max(config.timeout, 1):.0f}",
        "UV_HTTP_RETRIES": str(config.retries),
        "SSL_CERT_FILE": config.cert or "",
        "SSL_CLIENT_CERT": config.client_cert or "",
        "HTTP_PROXY": config.proxy or "",
        "HTTPS_PROXY": config.proxy or "",
    }
    # uv looks for a preferred version in the first index only that has it, and asks the default one
    # last. So those that have few files, as folders of this machine, come last.
    indexes = sorted(config.indexes, key=lambda url: url.startswith("file:"))
    if indexes:
        settings["UV_EXTRA_INDEX_URL"] = " ".join(indexes[:-1])
        settings["UV_INDEX_URL"] = indexes[-1]
    else:
        settings["UV_NO_INDEX"] = "1"
    return {name: value for name, value in settings.items() if value}
