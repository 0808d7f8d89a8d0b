"""What testing a wheel needs: its modules, a Python, a torch and its requirements."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..config.pinned import Package
from ..config.toolchain import Toolchain, TorchBuild
from ..errors import ToolchainError, UsageError
from ..machine import this_platform
from ..provenance.lock import BuildLock
from ..toolchain.interpreters import is_interpreter_here
from ..verify.claims import cuda_versions, tags_of
from ..verify.evidence import Evidence
from ..verify.libraries import lowest_torch, package_of, torch_use
from ..wheels.metadata import allows, named, requirements_of

# -- requirements ----------------------------------------------------------------------------------

# What a wheel's METADATA wants to have installed besides it.


def unmet(
    requirements: Iterable[Requirement], packages: Iterable[Package | Neighbour]
) -> tuple[str, ...]:
    """The requirements that no package meets, as METADATA has them."""
    versions = {canonicalize_name(package.name): package.version for package in packages}

    def is_met(one: Requirement) -> bool:
        version = versions.get(canonicalize_name(one.name))
        return version is not None and allows(one, version)

    return tuple(str(one) for one in requirements if not is_met(one))


# -- subjects --------------------------------------------------------------------------------------

# A wheel that holds its build's lock is tried with exactly what that lists. Any other is tried with
# a toolchain's build whose torch it accepts.


_TORCH = "torch"


@dataclass(frozen=True)
class Neighbour:
    """Another wheel that the user has installed with one that needs it: its file, its project and
    version."""

    wheel: Path
    name: str
    version: str


@dataclass(frozen=True)
class TriedWheel:
    """One wheel to be tried, and with what.

    python: `3.11`. torch: `2.11.0`. packages: all that is installed besides the wheel, and besides
    its neighbours. requirements: what its METADATA wants. origin: where the choice comes from, in
    words.
    """

    wheel: Path
    python: str
    torch: str
    packages: tuple[Package, ...]
    requirements: tuple[Requirement, ...]
    origin: str
    neighbours: tuple[Neighbour, ...] = ()


def subject_of_lock(wheel: Path, evidence: Evidence, lock: BuildLock) -> TriedWheel:
    """What a wheel's lock names. ToolchainError if it is for another platform."""
    check_platform(evidence)
    _check_here(lock.toolchain)
    requirements = requirements_of(evidence.metadata, lock.python)
    packages = _needed(lock.toolchain, lock.toolchain.builds[0], requirements)
    own = {canonicalize_name(package.name): package for package in packages}
    own |= {canonicalize_name(package.name): package for package in lock.recipe.runtime}
    return TriedWheel(
        wheel, lock.python, lock.torch, tuple(own.values()), requirements, "its own lock"
    )


def subject_of_toolchains(
    wheel: Path, evidence: Evidence, toolchains: Sequence[Toolchain]
) -> TriedWheel:
    """The build with the newest torch that fits the wheel; of several, this Python's or the newest.

    Raises ToolchainError that says what the wheel wants and what there is.
    """
    check_platform(evidence)
    served = [
        (toolchain, build)
        for toolchain in toolchains
        if _is_here(toolchain)
        for build in toolchain.builds
    ]
    fitting = [pair for pair in served if _fits(evidence, *pair)]
    if not fitting:
        raise _nothing_fits(evidence, served)
    toolchain, build = max(fitting, key=lambda pair: _preference(pair[1]))
    return _subject_of(wheel, evidence, toolchain, build)


def other_subjects(
    subject: TriedWheel,
    evidence: Evidence,
    toolchains: Sequence[Toolchain],
    extra: Sequence[Package],
) -> tuple[TriedWheel, ...]:
    """What else a wheel of stable ABIs promises to work with, the oldest torch and Python first.

    Of the toolchains' builds that fit, with other Pythons (abi3) and torches (its stable ABI), the
    oldest and the newest whose Python is here; none where the wheel is bound to one of each.
    extra: packages that it needs besides.
    """
    lowest = lowest_torch(torch_use(one.imports, one.asked) for one in evidence.binaries)
    abi3 = any(tag.abi == "abi3" for tag in tags_of(evidence))
    fitting = [
        (toolchain, build)
        for toolchain in toolchains
        if _is_here(toolchain) and (abi3 or lowest)
        for build in toolchain.builds
        if _fits(evidence, toolchain, build)
        and (build.python, build.torch) != (subject.python, subject.torch)
        and (abi3 or build.python == subject.python)
        and (Version(build.torch) >= Version(lowest) if lowest else build.torch == subject.torch)
        and is_interpreter_here(build.python)
    ]
    fitting.sort(key=lambda pair: (Version(pair[1].torch), _minor_of_version(pair[1].python)))
    chosen = [*fitting[:1], *fitting[1:][-1:]]
    return tuple(
        _subject_of(subject.wheel, evidence, toolchain, build, extra) for toolchain, build in chosen
    )


def _subject_of(
    wheel: Path,
    evidence: Evidence,
    toolchain: Toolchain,
    build: TorchBuild,
    extra: Sequence[Package] = (),
) -> TriedWheel:
    requirements = requirements_of(evidence.metadata, build.python)
    packages = _needed(toolchain, build, requirements)
    own = {canonicalize_name(package.name): package for package in (*packages, *extra)}
    origin = f"toolchain {toolchain.name}"
    return TriedWheel(wheel, build.python, build.torch, tuple(own.values()), requirements, origin)


def subject_of_installed(
    wheel: Path, evidence: Evidence, lock: BuildLock, toolchains: Sequence[Toolchain]
) -> TriedWheel:
    """As above, with the torch that a wheel was built with where nothing pinned that torch."""
    same = [
        replace(one, builds=tuple(build for build in one.builds if build.torch == lock.torch))
        for one in toolchains
    ]
    subject = subject_of_toolchains(wheel, evidence, same)
    packages = (*subject.packages, *lock.recipe.runtime)
    own = {canonicalize_name(package.name): package for package in packages}
    return replace(subject, packages=tuple(own.values()))


def with_neighbours(
    subject: TriedWheel, evidence: Evidence, others: Mapping[Path, Evidence]
) -> TriedWheel:
    """The same, with other wheels in the place of packages of their names.

    Raises UsageError for one of the same project, ToolchainError for one that is for another
    platform or Python.
    """
    neighbours = [Neighbour(path, one.name, one.version) for path, one in others.items()]
    names = {canonicalize_name(one.name) for one in neighbours}
    if canonicalize_name(evidence.name) in names or len(names) < len(neighbours):
        raise UsageError(
            "two wheels of one project cannot be installed together",
            where=", ".join([subject.wheel.name, *(path.name for path in others)]),
        )
    for one in others.values():
        check_platform(one)
        if not _runs_under(one, subject.python):
            raise ToolchainError(
                f"the wheel is not for Python {subject.python}, with which {subject.wheel.name} is "
                "tried",
                where=one.filename,
            )
    packages = tuple(one for one in subject.packages if canonicalize_name(one.name) not in names)
    return replace(subject, packages=packages, neighbours=tuple(neighbours))


def check_platform(evidence: Evidence) -> None:
    """Raise ToolchainError unless this machine is one that the wheel's tags name."""
    here = {*platform_tags(), "any"}
    wanted = {tag.platform for tag in tags_of(evidence)}
    if not wanted & here:
        raise ToolchainError(
            f"the wheel is for {', '.join(sorted(wanted))}, and this machine is {this_platform()}",
            where=evidence.filename,
            hint=(
                "try it on such a machine; without --import and --gpu, its contents can be "
                "checked anywhere"
            ),
        )


def _check_here(toolchain: Toolchain) -> None:
    if not _is_here(toolchain):
        raise ToolchainError(
            f"the wheel was built for {toolchain.platform}, and this machine is {this_platform()}"
        )


def _is_here(toolchain: Toolchain) -> bool:
    return toolchain.platform == this_platform()


def _fits(evidence: Evidence, toolchain: Toolchain, build: TorchBuild) -> bool:
    return (
        _runs_under(evidence, build.python)
        and _has_its_cuda(evidence, toolchain)
        and all(allows(one, _torch_of(build)) for one in _torch_wanted(evidence, build.python))
    )


def _runs_under(evidence: Evidence, python: str) -> bool:
    """Whether a Python of this machine's kind installs a wheel with these tags."""
    version = tuple(map(int, python.split(".")))
    places = list(platform_tags())
    known: set[Tag] = {*cpython_tags(version, platforms=places)}
    known |= {*compatible_tags(version, f"cp{python.replace('.', '')}", places)}
    names = {str(tag) for tag in known}
    return any(f"{tag.python}-{tag.abi}-{tag.platform}" in names for tag in tags_of(evidence))


def _has_its_cuda(evidence: Evidence, toolchain: Toolchain) -> bool:
    """A library of another CUDA's major version is not there."""
    wanted = cuda_versions(evidence)
    return not wanted or toolchain.cuda.partition(".")[0] in wanted


def _torch_wanted(evidence: Evidence, python: str) -> tuple[Requirement, ...]:
    return named(requirements_of(evidence.metadata, python), _TORCH)


def _torch_of(build: TorchBuild) -> str:
    """With its local label where it has one: `2.1.1+cu121`."""
    return next((p.version for p in build.packages if p.name == _TORCH), build.torch)


def _needed(
    toolchain: Toolchain, build: TorchBuild, requirements: Sequence[Requirement]
) -> tuple[Package, ...]:
    """torch and what it loads, and of the other pins those that the wheel asks for by name. CUDA's
    runtime library is a compiler's, too, and torch loads it."""
    major = toolchain.cuda.partition(".")[0]
    asked = {canonicalize_name(one.name) for one in requirements}
    asked.add(canonicalize_name(package_of(f"libcudart.so.{major}", major)))
    return tuple(
        package
        for package in (*toolchain.packages, *build.packages)
        if package.role == "runtime" or canonicalize_name(package.name) in asked
    )


def _minor_of_version(python: str) -> int:
    """11 for 3.11."""
    return int(python.partition(".")[2])


def _preference(build: TorchBuild) -> tuple[Version, bool, int]:
    minor = _minor_of_version(build.python)
    return Version(build.torch), minor == sys.version_info.minor, minor


def _nothing_fits(
    evidence: Evidence, served: Sequence[tuple[Toolchain, TorchBuild]]
) -> ToolchainError:
    lines = (
        f"Python {build.python}, torch {build.torch}, CUDA {toolchain.cuda} ({toolchain.name})"
        for toolchain, build in served
    )
    return ToolchainError(
        "no toolchain matches this wheel",
        where=evidence.filename,
        details=["needed:", *(f"  {line}" for line in _wants(evidence)), "available:"]
        + [f"  {line}" for line in dict.fromkeys(lines)],
        hint="add a toolchain that has it to toolchains/: docs/toolchains.md",
    )


def _wants(evidence: Evidence) -> Iterator[str]:
    tags = tags_of(evidence)
    yield "Python " + ", ".join(sorted({tag.python for tag in tags}))
    for version in sorted(cuda_versions(evidence)):
        yield f"CUDA {version}"
    newest = max((_minor_of(tag.python) for tag in tags), default=0)
    yield from map(str, _torch_wanted(evidence, f"3.{newest}"))


def _minor_of(python: str) -> int:
    """11 for cp311."""
    return int(python[3:]) if re.fullmatch(r"cp3\d{1,3}", python, re.ASCII) else 0
