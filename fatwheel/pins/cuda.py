"""Locks a release of CUDA: its compilers as packages of the index, and its archives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from ..config.fields import Pin
from ..config.parts import NVIDIA_PLATFORMS, Archive, CudaRelease, release
from ..config.pinned import Download, Package
from ..config.schema import filename_of
from ..errors import FetchError, UsageError
from ..toolchain.access import LISTED
from ..toolchain.fetch import Pinned, fetch
from ..toolchain.pipconfig import NotListedError, RefusedError
from .compare import MOVED, OPEN, RIGHT, UNREACHABLE, PinState
from .lock import cuda_text
from .nvidia import NvccLimits, archives_in, limits_in, manifest_url, newest_release
from .published import Values
from .session import Outcome, Work, choose, versions

# NVIDIA's package without files, whose extras name the packages of a release.
_RELEASES = "cuda-toolkit"
_COMPILERS, _TOOLS = ("nvcc", "cccl", "crt", "cudart", "nvvm"), ("cuobjdump", "nvdisasm")
# What has the headers that torch's headers ask for. On Windows torch needs no such package, so
# there CUDA comes as packages only together with these.
_LIBRARIES = {
    "cublas": "nvidia-cublas",
    "curand": "nvidia-curand",
    "cusolver": "nvidia-cusolver",
    "cusparse": "nvidia-cusparse",
    "nvml": "nvidia-nvml-dev",
    "nvrtc": "nvidia-cuda-nvrtc",
    "nvtx": "nvidia-nvtx",
    "profiler": "nvidia-cuda-profiler-api",
}
_PACKAGED = ("linux-x86_64", "linux-aarch64")
_WINDOWS = "win-amd64"
_HERE = "linux-x86_64"  # whose compilers are asked what they accept
_NVCC = re.compile(r"nvidia-cuda-nvcc(-cu\d+)?")
_READ = re.compile(r"nvidia-cuda-(nvcc|crt)|cuda_(nvcc|crt)")  # with the header and ptxas

T = TypeVar("T")
Pins = tuple[Pin, ...]


def lock_cuda(word: str, platforms: Sequence[str], work: Work) -> Outcome:
    """Look up the newest release of `13.2`, or `13.2.1` itself.

    Raises UsageError where there is none; FetchError, ConfigError, ToolchainError.
    """
    return _Locking(word, platforms, work).outcome()


def archive_findings(
    old: Sequence[Archive], found: Sequence[Archive], new: str
) -> Iterator[tuple[Archive, PinState]]:
    """Each archive as it is to be pinned, and what was found. new: the state of one that is."""
    published = {(one.name, one.platform): one for one in found}
    for number, one in enumerate(old):
        other = published.pop((one.name, one.platform), None)
        key = ("archives", number)
        file = filename_of(one.path)
        if other is None:
            note = "the manifest does not have it"
            yield one, PinState(key, file, UNREACHABLE, _values(one), {}, note)
        elif not _same(one, other):
            yield one, PinState(key, file, MOVED, _values(one), _values(other))
        else:
            state = RIGHT if one.size == other.size else new
            yield other, PinState(key, file, state, _values(one), _values(other))
    for one in published.values():
        yield one, PinState(("archives",), filename_of(one.path), new, {}, _values(one), "new")


def _same(pinned: Archive, found: Archive) -> bool:
    """Whether what is published is what is pinned, as far as that is known."""
    versions_agree = (pinned.version, pinned.sha256) == (found.version, found.sha256)
    return versions_agree and pinned.size in (0, found.size)


def _values(one: Archive) -> Values:
    size: Values = {"size": one.size} if one.size else {}
    return {**size, "sha256": one.sha256}


class _Locking:
    """One release, while it is looked up; findings so far."""

    def __init__(self, word: str, platforms: Sequence[str], work: Work) -> None:
        self.word = word
        self.platforms = platforms
        self.work = work
        self.session = work.session
        self.folder = work.parts.publishers.cuda
        self.findings: list[PinState] = []
        self.published: tuple[Archive, ...] = ()  # for all platforms

    def outcome(self) -> Outcome:
        manifest = self._unless_refused(f"CUDA {self.word}: manifest", self._newest_manifest)
        packaged = self._unless_refused(f"CUDA {self.word}: packages", self._newest_packages)
        known = [_three(one) for one in (manifest, packaged) if one is not None]
        if not known:
            return self._nothing()
        version = max(known, key=release)
        old = next((one for one in self.work.parts.cudas if one.version == version), None)
        archives = old.archives if old else ()
        if manifest == version:
            archives = self._archives(version, old)
        packages, tools = (old.packages, old.tools) if old else ((), ())
        if packaged is not None and _three(packaged) == version:
            found = self._unless_refused(packaged, partial(self._packages, packaged, old))
            packages, tools = found or (packages, tools)
        libraries = old.libraries if old else ()
        windows = NVIDIA_PLATFORMS[_WINDOWS]
        if (
            packages
            and packaged is not None
            and not any(one.platform == windows for one in archives)
        ):
            # Refused as a whole: some of them would be of no use.
            action = partial(self._libraries, packaged, old, (*packages, *tools))
            found_libraries = self._unless_refused(f"{packaged} for Windows", action)
            libraries = libraries if found_libraries is None else found_libraries
        new = self._release(version, old, packages, tools, libraries, archives)
        text = cuda_text(new) if new and self.session.write else None
        return Outcome(f"cuda/{version}", text, tuple(self.findings))

    def _unless_refused(self, name: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except RefusedError as error:
            self._find(name, UNREACHABLE, note=str(error))
            return None

    def _find(self, name: str, state: str, found: Values | None = None, note: str = "") -> None:
        self.findings.append(PinState((), name, state, {}, found or {}, note))

    def _nothing(self) -> Outcome:
        if not self.findings:
            raise UsageError(
                f"neither NVIDIA nor the package index has a CUDA {self.word}",
                where="--cuda",
                hint="as in 13.2, or 13.2.1",
            )
        return Outcome(f"cuda/{self.word}", None, tuple(self.findings))

    # -- archives

    def _newest_manifest(self) -> str | None:
        web = self.session.index
        return self.session.asker.ask(
            self.folder, partial(newest_release, self.word, self.folder, web)
        )

    def _archives(self, version: str, old: CudaRelease | None) -> tuple[Archive, ...]:
        url = manifest_url(version, self.folder)
        pinned = old.archives if old else ()
        try:
            found = self.session.asker.ask(url, partial(archives_in, url, self.session.index))
        except RefusedError as error:
            self._find(filename_of(url), UNREACHABLE, note=str(error))
            return pinned
        self.published = found
        theirs = {NVIDIA_PLATFORMS[platform] for platform in self.platforms}
        asked = [one for one in found if one.platform in theirs]
        there = [one for one in pinned if one.platform in theirs]
        kept = [one for one in pinned if one.platform not in theirs]
        for one, finding in archive_findings(there, asked, self.session.new):
            kept.append(one)
            self.findings.append(finding)
        return tuple(kept)

    # -- packages

    def _newest_packages(self) -> str | None:
        """The version of the package without files: `13.1.2.0` for CUDA 13.1.2."""
        known = set()
        try:
            links = self.session.listings.own(_RELEASES)
        except NotListedError:
            return None
        for file in links:
            with suppress(InvalidWheelFilename):
                known.add(parse_wheel_filename(file)[1])
        fitting = [one for one in known if f"{one}.".startswith(f"{self.word}.")]
        stable = [one for one in fitting if not one.is_prerelease]
        return str(max(stable)) if stable else None

    def _packages(self, packaged: str, old: CudaRelease | None) -> tuple[Pins, Pins]:
        """The compilers and the tools; none where no package has nvcc itself."""
        platforms = [one for one in self.platforms if one in _PACKAGED]
        if not platforms:
            return (old.packages, old.tools) if old else ((), ())
        if old and old.packages:
            compilers, tools = old.packages, old.tools
        else:
            compilers = self._resolved(f"{_RELEASES}[{','.join(_COMPILERS)}]=={packaged}")
            if not self._has_nvcc(compilers):
                return (), ()
            tools = self._tools(packaged)
            for pin in (*compilers, *tools):
                self._find(pin, self.session.new, note="new")
        self.work.need((*compilers, *tools), self.work.pythons, platforms)
        return compilers, tools

    def _libraries(self, packaged: str, old: CudaRelease | None, others: Pins) -> Pins:
        """Those that Windows needs beside the others, which are pinned for it, too."""
        libraries = old.libraries if old else ()
        if _WINDOWS not in self.platforms:
            return libraries
        if not libraries:
            asked = f"{_RELEASES}[{','.join(_LIBRARIES)}]=={packaged}"
            try:
                found = self._resolved(asked, platform=_WINDOWS)
            except FetchError as error:
                raise RefusedError("; ".join((error.what, *error.details[:1]))) from None
            names = set(_LIBRARIES.values())
            libraries = tuple(pin for pin in found if pin.partition("==")[0] in names)
            if not libraries:
                return ()
        self.work.need((*others, *libraries), self.work.pythons, [_WINDOWS])
        if not old or not old.libraries:
            for pin in libraries:
                self._find(pin, self.session.new, note="new, for Windows")
        return libraries

    def _tools(self, packaged: str) -> Pins:
        """Those of the release; where the index has none, the newest: they read older code."""
        own = self._resolved(f"{_RELEASES}[{','.join(_TOOLS)}]=={packaged}")
        return own or self._resolved(*(f"nvidia-cuda-{name}" for name in _TOOLS))

    def _resolved(self, *requirements: str, platform: str = _HERE) -> Pins:
        found = self.session.resolver.resolve(requirements, self.work.pythons[0], platform, ())
        return tuple(f"{name}=={version}" for name, version in found.items() if name != _RELEASES)

    def _has_nvcc(self, pins: Pins) -> bool:
        """NVIDIA's packages of older releases have all but nvcc itself."""
        for name, version in versions(pins, self.work.pythons[0]).items():
            if _NVCC.fullmatch(name):
                links = self.session.listings.own(name)
                file = choose(links, version, self.work.pythons[0], _HERE)
                members = self.session.wheels.names(links[file][0], LISTED) if file else ()
                return any(member.endswith("/bin/nvcc") for member in members)
        return False

    # -- all together

    def _release(
        self,
        version: str,
        old: CudaRelease | None,
        packages: Pins,
        tools: Pins,
        libraries: Pins,
        archives: tuple[Archive, ...],
    ) -> CudaRelease | None:
        url = manifest_url(version, self.folder) if archives else ""
        if old:
            return replace(
                old,
                packages=packages,
                tools=tools,
                libraries=libraries,
                archives=archives,
                manifest=old.manifest or url,
            )
        nvcc = self._nvcc(packages, archives)
        if not nvcc:
            self._find(f"CUDA {version}", UNREACHABLE, note="nobody says where its nvcc is")
            return None
        limits = self._limits(version, packages)
        if limits is None:
            return None
        return CudaRelease(
            version=version,
            nvcc=nvcc,
            archs=limits.archs,
            gcc=limits.gcc,
            msvc=limits.msvc,
            packages=packages,
            tools=tools,
            libraries=libraries,
            manifest=url,
            archives=archives,
        )

    def _nvcc(self, packages: Pins, archives: Iterable[Archive]) -> str:
        found = [one.version for one in archives if one.name == "cuda_nvcc"]
        pinned = versions(packages, self.work.pythons[0]).items()
        found += [version for name, version in pinned if _NVCC.fullmatch(name)]
        return found[-1] if found else ""

    def _limits(self, version: str, packages: Pins) -> NvccLimits | None:
        """What its nvcc accepts, from its files, which are fetched."""
        wanted: list[Pinned] = []
        for name, number in versions(packages, self.work.pythons[0]).items():
            if _READ.fullmatch(name):
                one = self.work.pins.file(name, number, self.work.pythons[0], _HERE)
                wanted.append(Package(name, number, one.file, one.size, one.sha256, "compiler"))
        if not wanted:
            wanted = [
                Download(
                    one.name,
                    one.version,
                    f"{self.folder}/{one.path}",
                    filename_of(one.path),
                    one.size,
                    one.sha256,
                )
                for one in self.published
                if _READ.fullmatch(one.name) and one.platform == NVIDIA_PLATFORMS[_HERE]
            ]
        if not self.session.write:
            note = "without --check, its compilers are fetched to see what they accept"
            self._find(f"CUDA {version}", OPEN, note=note)
            return None
        return limits_in(fetch(wanted, self.session.downloads, self.session.emit), version)


def _three(version: str) -> str:
    """`13.1.2` for 13.1.2.0."""
    return ".".join(str(number) for number in Version(version).release[:3])
