"""fatwheel.json as `invoke verify` reads it: every claim in it, of the kind that it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import FailFast, TypeAdapter, ValidationError

from ..arch import Arch, parse_arch
from ..errors import FatwheelError, FormatError

_MISTAKES_SHOWN = 8


@dataclass(frozen=True)
class Recipe:
    """source: the sdist's sha256 in hex, None for a folder's files."""

    name: str
    project: str
    version: str
    source: str | None
    digest: str


@dataclass(frozen=True)
class Toolchain:
    """digest is over the whole toolchain file's meaning."""

    name: str
    platform: str
    cuda: str
    nvcc: str
    digest: str


@dataclass(frozen=True)
class Front:
    """As the model's, in words."""

    virtual: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """slices: sha256 in hex by image; None, which is wrong, where none is named."""

    name: str
    slices: Mapping[str, str | None]


@dataclass(frozen=True)
class Claims:
    """lock: the sha256 of fatwheel.lock.json, in hex."""

    fatwheel: str
    lock: str
    recipe: Recipe
    toolchain: Toolchain
    python: str
    torch: str
    archs: Annotated[tuple[str, ...], FailFast()]
    front: str
    fronts: tuple[Front, ...]
    units: tuple[Unit, ...]

    @property
    def codes(self) -> frozenset[str]:
        """The images that all units were made for: `sm_80`, `compute_80`."""
        return frozenset(code for front in self.fronts for code in front.codes)


_READER = TypeAdapter(Claims)


def read_claims(record: Mapping[str, Any], where: str) -> Claims:
    """The claims of one build's record; FormatError with all that is missing or of another kind."""
    try:
        return _READER.validate_python(record)
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"[:200] for one in error.errors()
        ]
        raise FormatError(
            "it is damaged", where=where, details=mistakes[:_MISTAKES_SHOWN]
        ) from error


def asked_codes(archs: tuple[str, ...]) -> frozenset[str]:
    """The images that `80`, `89+ptx` and `ptx80` ask for. FormatError for what is no such text."""
    return frozenset(code for text in archs for code in _codes(text))


def _codes(text: str) -> tuple[str, ...]:
    if text.startswith("ptx"):
        return (_arch(text.removeprefix("ptx"), text).compute,)
    arch = _arch(text.removesuffix("+ptx"), text)
    return (arch.sm, arch.compute) if text.endswith("+ptx") else (arch.sm,)


def _arch(name: str, text: str) -> Arch:
    try:
        return parse_arch(name)
    except FatwheelError as error:
        raise FormatError(f"{text[:40]!r} is not an architecture") from error
