"""Locks a release of torch: its wheels for every CUDA, and all that each of them needs.

The package index has one torch for each platform: METADATA tells which CUDA it needs, if any.
PyTorch's own index has the others, `torch-2.8.0+cu128-…`, whose version tells it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from unearth import Link

from ..config.fields import Pin
from ..config.parts import TorchRelease, TorchVariant, TorchWheel, fits, release
from ..errors import ConfigError, UsageError
from ..toolchain.access import LISTED, PINNED, Way
from ..toolchain.pipconfig import NotListedError, RefusedError
from ..wheels.metadata import fields
from .compare import FILLED, MOVED, RIGHT, UNREACHABLE, PinState
from .listings import Links, RemoteWheels, way_to
from .lock import torch_text
from .published import Values, sha256_of
from .session import Outcome, Work, versions, with_markers

_PROJECT = "torch"
# What building with it needs, and what torch takes arrays from without requiring it.
TOOLS = ("ninja", "packaging", "setuptools", "wheel")
_ROOTS = ("numpy", *TOOLS)

Place = tuple[str, str]  # CUDA, platform
ByPython = dict[str, dict[str, str]]  # version by name, by Python


@dataclass(frozen=True)
class Listed:
    """What the two indexes have; None for one that has nothing, or cannot be read."""

    own: Links | None
    theirs: Links | None

    def newest(self, word: str) -> str | None:
        return newest(word, *(links for links in (self.own, self.theirs) if links))


def lock_torch(word: str, pythons: Sequence[str], platforms: Sequence[str], work: Work) -> Outcome:
    """Look up the newest release of `2.13`, or `2.13.0` itself.

    pythons: those to add; () for all that images have. Raises UsageError where there is no such
    release; FetchError, ConfigError, ToolchainError.
    """
    findings: list[PinState] = []
    listed = _listed(work, findings)
    version = listed.newest(word)
    if version is None:
        if not findings:
            raise UsageError(
                f"neither the package index nor PyTorch's has a torch {word}",
                where="--torch",
                hint="as in 2.13, or 2.13.0",
            )
        return Outcome(f"torch/{word}", None, tuple(findings))
    old = next((one for one in work.parts.torches if one.version == version), None)
    looked_up = _Release(version, old, work, findings)
    looked_up.look_up(listed, pythons or work.pythons, platforms)
    try:
        new = looked_up.locked()
    except RefusedError as error:
        findings.append(PinState((), f"torch {version}", UNREACHABLE, {}, {}, str(error)))
        new = None
    text = torch_text(new) if new and work.session.write else None
    return Outcome(f"torch/{version}", text, tuple(findings))


def _listed(work: Work, findings: list[PinState]) -> Listed:
    listings, url = work.session.listings, work.parts.publishers.torch
    own = _unless_refused(_PROJECT, partial(listings.own, _PROJECT), findings)
    theirs = _unless_refused(f"{url}/{_PROJECT}", partial(listings.at, url, _PROJECT), findings)
    return Listed(own, theirs)


def _unless_refused(
    name: str, listed: Callable[[], Links], findings: list[PinState]
) -> Links | None:
    try:
        return listed()
    except NotListedError:
        return None
    except RefusedError as error:
        findings.append(PinState((), name, UNREACHABLE, {}, {}, str(error)))
        return None


class _Release:
    """One release, while it is looked up.

    wheels, solved: by CUDA and platform, what is known, and what is new, for each Python.
    """

    def __init__(
        self, version: str, old: TorchRelease | None, work: Work, findings: list[PinState]
    ) -> None:
        self.version = version
        self.old = old
        self.work = work
        self.session = work.session
        self.findings = findings
        self.gcc = old.gcc if old else 0
        self.wheels: dict[Place, dict[str, TorchWheel]] = {}
        self.solved: dict[Place, ByPython] = {}
        self.tools: ByPython = {}
        for variant in old.variants if old else ():
            place = (variant.cuda, variant.platform)
            self.wheels[place] = {one.python: one for one in variant.wheels}
            self.solved[place] = {
                one.python: versions(variant.requires, one.python) for one in variant.wheels
            }
            for one in variant.wheels:
                self.tools[one.python] = versions(old.tools if old else (), one.python)

    def look_up(self, listed: Listed, pythons: Sequence[str], platforms: Sequence[str]) -> None:
        """Compare all wheels, and resolve what each needs."""
        asked = sorted({*pythons, *self.tools}, key=release)
        seen: set[tuple[Place, str]] = set()
        for links, own in ((listed.own, True), (listed.theirs, False)):
            for one in found_in(links or {}, self.version, asked, platforms, own=own):
                self._take(one, links or {}, seen)

    def _take(self, one: ListedTorch, links: Links, seen: set[tuple[Place, str]]) -> None:
        """The user's own index comes first: what it has is not taken from PyTorch's."""
        try:
            needs = needs_of(one, self.session.wheels)
            found = with_cuda(one, needs)
            if found is None:
                return
            place = (found.cuda, found.platform)
            if (place, found.python) in seen:
                return
            seen.add((place, found.python))
            old = self.wheels.get(place, {}).get(found.python)
            if old and old.file in links:  # though there may be a newer build by now
                found = replace(found, file=old.file, links=tuple(links[old.file]), url=old.url)
            if self._compare(place, found) and self.session.write:
                self._resolve(place, found.python, needs)
        except RefusedError as error:
            self.findings.append(PinState((), one.file, UNREACHABLE, {}, {}, str(error)))

    def _compare(self, place: Place, found: ListedTorch) -> bool:
        """Whether the wheel is, or can be, pinned as it is published."""
        wheels = self.wheels.setdefault(place, {})
        old = wheels.get(found.python)
        values = sha256_of(found.links, old.sha256 if old else "")
        if "sha256" not in values:
            raise RefusedError("no sha256 is published")
        size = old.size if old else 0
        if not size:
            size = self.session.listings.length(found.links[0], way_to(found.url)) or 0
        if size:
            values["size"] = size
        pinned = _values(old)
        state = RIGHT if values == pinned else self.session.new
        if old and (old.file, old.sha256) != (found.file, values["sha256"]):
            state = MOVED
        self.findings.append(
            PinState(("wheels",), found.file, state, pinned, values, "" if old else "new")
        )
        if state == MOVED:
            return False
        sha256 = str(values["sha256"])
        wheels[found.python] = TorchWheel(
            python=found.python, file=found.file, size=size, sha256=sha256, url=found.url
        )
        return True

    def _resolve(self, place: Place, python: str, needs: Needs) -> None:
        self.gcc = self.gcc or needs.gcc
        by_python = self.solved.setdefault(place, {})
        before = by_python.get(python)
        known = {**(before or {}), **self.tools.get(python, {})}
        solved = self.session.resolver.resolve(
            [*needs.requirements, *_ROOTS], python, place[1], self._preferred(known)
        )
        tools = {name: solved.pop(name) for name in TOOLS}
        if self.tools.setdefault(python, tools) != tools:
            raise ConfigError(
                f"torch {self.version} for CUDA {place[0]} on {place[1]} needs other tools than "
                f"elsewhere for Python {python}",
                details=[", ".join(f"{name} {version}" for name, version in tools.items())],
                hint="pin in `tools` of its file versions that suit all of them",
            )
        by_python[python] = solved
        if before is not None and before != solved:
            gone, new = (" ".join(_pins(a, b)) or "nothing" for a, b in _both(before, solved))
            note = f"needs {new} instead of {gone}"
            name = f"CUDA {place[0]}, {place[1]}, Python {python}"
            self.findings.append(PinState(("requires",), name, FILLED, {}, {}, note))

    def _preferred(self, known: Mapping[str, str]) -> list[Pin]:
        """What is pinned already: for this very wheel, or else for any other.

        Of several versions the resolver takes the newest that fits.
        """
        preferred = {name: {version} for name, version in known.items()}
        new = (each for by_python in self.solved.values() for each in by_python.values())
        for each in chain(new, self.tools.values(), self._elsewhere()):
            for name, version in each.items():
                if name not in known:
                    preferred.setdefault(name, set()).add(version)
        return [f"{name}=={one}" for name, each in preferred.items() for one in each]

    def _elsewhere(self) -> Iterator[Mapping[str, str]]:
        for one in self.work.parts.torches:
            for python in {wheel.python for each in one.variants for wheel in each.wheels}:
                yield versions(one.tools, python)
                for variant in one.variants:
                    yield versions(variant.requires, python)

    def locked(self) -> TorchRelease | None:
        """The release with what was found; None where nothing was. Raises RefusedError."""
        places = [place for place in self.wheels if self.solved.get(place)]
        variants = tuple(self._variant(place) for place in places)
        if not variants:
            return None
        if not self.gcc:
            raise ConfigError(
                f"METADATA of torch {self.version} does not tell the oldest g++ that it takes",
                hint=f"write toolchains/parts/torch/{self.version}.toml with `gcc` by hand "
                "(docs/toolchains.md), and lock again",
            )
        tools = with_markers(self.tools)
        for variant in variants:
            for wheel in variant.wheels:
                pins = (*tools, *variant.requires)
                self.work.need(pins, (wheel.python,), (variant.platform,))
        return TorchRelease(version=self.version, gcc=self.gcc, tools=tools, variants=variants)

    def _variant(self, place: Place) -> TorchVariant:
        solved = self.solved[place]
        wheels = {python: one for python, one in self.wheels[place].items() if python in solved}
        return TorchVariant(
            cuda=place[0],
            platform=place[1],
            requires=with_markers({python: solved[python] for python in wheels}),
            wheels=tuple(wheels.values()),
        )


def _values(wheel: TorchWheel | None) -> Values:
    if wheel is None:
        return {}
    size: Values = {"size": wheel.size} if wheel.size else {}
    return {**size, "sha256": wheel.sha256}


def _both(
    before: Mapping[str, str], after: Mapping[str, str]
) -> Iterable[tuple[Mapping[str, str], Mapping[str, str]]]:
    return (before, after), (after, before)


def _pins(those: Mapping[str, str], without: Mapping[str, str]) -> list[Pin]:
    """Pins that the one has and the other has not."""
    return [f"{name}=={one}" for name, one in sorted(those.items()) if without.get(name) != one]


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
class ListedTorch:
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
) -> Iterator[ListedTorch]:
    """The wheels of a release for CPython, not free-threaded; the newest build of each.

    own: whether it is the user's index, not PyTorch's, which has torch for CPUs, too.
    """
    best: dict[tuple[str, str, str], tuple[tuple[object, ...], ListedTorch]] = {}
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
                one = ListedTorch(file, python, platform, cuda, tuple(listed), url)
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


def needs_of(found: ListedTorch, wheels: RemoteWheels) -> Needs:
    """Raises RefusedError."""
    text = wheels.metadata(found.links[0], found.way)
    said = _GCC.search(text.decode("utf-8", "replace"))
    return Needs(tuple(_requirements(text, found)), int(said[1]) if said else 0)


def _requirements(text: bytes, found: ListedTorch) -> Iterator[str]:
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


def with_cuda(found: ListedTorch, needs: Needs) -> ListedTorch | None:
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
