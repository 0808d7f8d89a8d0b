"""What a wheel's METADATA wants to have installed besides it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..errors import FormatError
from .metadata import fields

_MOST = 1000  # lines; more is no METADATA of a project


def requirements_of(metadata: bytes, python: str) -> tuple[Requirement, ...]:
    """What must be there under a Python (`3.11`), without what only extras want.

    Raises FormatError where METADATA has what is not a valid requirement.
    """
    lines = fields(metadata, "Requires-Dist")
    if len(lines) > _MOST:
        raise FormatError(f"{len(lines)} requirements are too many", where="METADATA")
    return tuple(one for one in map(_parse, lines) if _applies(one, python))


def requirements(metadata: bytes) -> Iterator[Requirement]:
    """What METADATA says in Requires-Dist, without what is no requirement."""
    for text in fields(metadata, "Requires-Dist"):
        with suppress(ValueError, RecursionError):
            yield Requirement(text)


def named(requirements: Iterable[Requirement], name: str) -> tuple[Requirement, ...]:
    """Those for one project."""
    wanted = canonicalize_name(name)
    return tuple(one for one in requirements if canonicalize_name(one.name) == wanted)


def allows(requirement: Requirement, version: str) -> bool:
    """Whether a version is one of those that a requirement takes."""
    return requirement.specifier.contains(version, prereleases=True)


def _parse(line: str) -> Requirement:
    try:
        return Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        raise FormatError(f"{line!r:.200} is not a valid requirement", where="METADATA") from error


def _applies(requirement: Requirement, python: str) -> bool:
    if requirement.marker is None:
        return True
    here = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    return requirement.marker.evaluate(here)
