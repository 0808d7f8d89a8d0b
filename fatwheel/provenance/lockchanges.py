"""Two locks compared: what of a build became another, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..model import Material
from .buildlock import BuildLock, materials_of
from .lockfile import lock_fields


def differences(one: BuildLock, other: BuildLock) -> tuple[str, ...]:
    """What is another in the second lock, a line each; nothing where both are the same."""
    return (*_differing_fields(one, other), *_differing_materials(one, other))


def _differing_fields(one: BuildLock, other: BuildLock) -> Iterator[str]:
    before, after = _flat(lock_fields(one)), _flat(lock_fields(other))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {_shown(before.get(name))} became {_shown(after.get(name))}"


_OF_MATERIALS = ("package", "packages", "torch_packages", "cuda_files", "interpreters", "runtime")


def _flat(part: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Every field by its dotted name, but those that are told of as materials."""
    found: dict[str, Any] = {}
    for name, value in part.items():
        if name in (*_OF_MATERIALS, "bootstrapper", "digest", "compiler_id", "bases"):
            continue
        if isinstance(value, dict):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[place + name] = value
    return found


def _shown(value: Any) -> str:
    return "nothing" if value in (None, "", ()) else str(value)


def _differing_materials(one: BuildLock, other: BuildLock) -> Iterator[str]:
    before = {(m.role, m.name): m for m in materials_of(one)}
    after = {(m.role, m.name): m for m in materials_of(other)}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield f"{key[1]} ({key[0]}): {_words(old)} became {_words(new)}"


def _words(material: Material | None) -> str:
    if material is None:
        return "nothing"
    size = f", {material.size} bytes" if material.size else ""
    named = " ".join(part for part in (material.version, material.filename) if part)
    return f"{named or material.name} (sha256 {material.sha256}{size})"
