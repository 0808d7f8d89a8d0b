"""Locks a release of torch: its wheels for every CUDA, and all that each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from ..config.fields import Pin
from ..config.parts import TorchRelease, TorchVariant, TorchWheel, release
from ..errors import ConfigError, UsageError
from .compare import FILLED, MOVED, RIGHT, UNREACHABLE, Finding
from .listings import Links, published, way_to
from .locking import Outcome, Work, versions, with_markers
from .partfiles import torch_text
from .pipconfig import NotListedError, RefusedError
from .published import Values
from .pytorch import Found, Needs, found_in, needs_of, newest, with_cuda

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
    findings: list[Finding] = []
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
        findings.append(Finding((), f"torch {version}", UNREACHABLE, {}, {}, str(error)))
        new = None
    text = torch_text(new) if new and work.session.write else None
    return Outcome(f"torch/{version}", text, tuple(findings))


def _listed(work: Work, findings: list[Finding]) -> Listed:
    listings, url = work.session.listings, work.parts.publishers.torch
    own = _unless_refused(_PROJECT, partial(listings.own, _PROJECT), findings)
    theirs = _unless_refused(f"{url}/{_PROJECT}", partial(listings.at, url, _PROJECT), findings)
    return Listed(own, theirs)


def _unless_refused(
    name: str, listed: Callable[[], Links], findings: list[Finding]
) -> Links | None:
    try:
        return listed()
    except NotListedError:
        return None
    except RefusedError as error:
        findings.append(Finding((), name, UNREACHABLE, {}, {}, str(error)))
        return None


class _Release:
    """One release, while it is looked up.

    wheels, solved: by CUDA and platform, what is known, and what is new, for each Python.
    """

    def __init__(
        self, version: str, old: TorchRelease | None, work: Work, findings: list[Finding]
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

    def _take(self, one: Found, links: Links, seen: set[tuple[Place, str]]) -> None:
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
            self.findings.append(Finding((), one.file, UNREACHABLE, {}, {}, str(error)))

    def _compare(self, place: Place, found: Found) -> bool:
        """Whether the wheel is, or can be, pinned as it is published."""
        wheels = self.wheels.setdefault(place, {})
        old = wheels.get(found.python)
        values = published(found.links, old.sha256 if old else "")
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
            Finding(("wheels",), found.file, state, pinned, values, "" if old else "new")
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
            self.findings.append(Finding(("requires",), name, FILLED, {}, {}, note))

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
