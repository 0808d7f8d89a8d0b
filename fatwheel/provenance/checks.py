"""Checks of locks: what two of them differ in, whether a build has what one says (`--locked`), and
where one from elsewhere may have files fetched from.

A wheel from anywhere says where its toolchain lies. Its word makes this machine ask no host that
the files of this checkout do not name, or the user's own pip configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..config.load import list_recipes, load_recipe
from ..config.parts import Parts
from ..config.pinned import Download, Package
from ..config.recipe import Commit, Recipe
from ..config.toolchain import Base, Toolchain
from ..config.toolchains import list_toolchains, load_toolchain
from ..errors import FatwheelError, FetchError, LockError, ToolchainError, UsageError
from ..model import Host
from ..storage.files import readable
from ..text import clean
from .lock import MOST, BuildLock, Material, lock_fields, materials_of, read_lock
from .origin import read_held


def differences(one: BuildLock, other: BuildLock) -> tuple[str, ...]:
    """What is another in the second lock, a line each; nothing where both are the same."""
    return (*_differing_fields(one, other), *_differing_materials(one, other))


def _differing_fields(one: BuildLock, other: BuildLock) -> Iterator[str]:
    before, after = _flat(lock_fields(one)), _flat(lock_fields(other))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {_shown(before.get(name))} became {_shown(after.get(name))}"


_OF_MATERIALS = (
    "package",
    "packages",
    "torch_packages",
    "device_packages",
    "cuda_files",
    "interpreters",
    "portable",
    "payloads",
    "runtime",
    "build",
    "files",
)


def _flat(part: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Every field by its dotted name, but those that are told of as materials."""
    found: dict[str, Any] = {}
    for name, value in part.items():
        if name in (*_OF_MATERIALS, "digest", "compiler_id", "bases"):
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


# -- --locked --------------------------------------------------------------------------------------

# `--locked`: a build that may use nothing but what a lock lists.


OPTION = "--locked"
_MOST_SHOWN = 20


def read_lock_file(path: Path, *kernels: Path) -> BuildLock:
    """The lock in a file, or in a wheel. kernels: where source folders are looked for.

    UsageError where there is no such file, FormatError where it holds no lock.
    """
    if path.suffix == ".whl":
        return read_held(path, *kernels).lock
    if path.suffix == ".toml":
        raise UsageError(
            "a pylock.toml describes how to install a wheel, not how to build one",
            where=f"{OPTION} {path}",
            hint="name a wheel, or the W.whl.lock.json beside it",
        )
    with readable(path, "a lock", streamed=True), path.open("rb") as stream:
        return read_lock(stream.read(MOST + 1), path.name, *kernels)


def check_pinned(lock: BuildLock, where: Path) -> None:
    """Raise LockError where a wheel's source is pinned nowhere, ToolchainError where what it was
    built with is not."""
    toolchain = lock.toolchain
    if lock.recipe.source.checkout:
        raise LockError(
            "it was built from a checkout, a folder that only one machine has, so it cannot be "
            "rebuilt",
            where=str(where),
            hint="commit what was changed, pin the commit in the recipe (`git`, `commit` and "
            "`tree`), and build it again",
        )
    if toolchain.of_a_machine:
        option = "--cuda-home" if toolchain.installed else "--msvc installed"
        raise ToolchainError(
            f"it was built with compilers that one machine had installed ({toolchain.of_a_machine},"
            f" {lock.host.compiler}): it cannot be rebuilt elsewhere",
            where=str(where),
            hint=f"on that machine, build it again with {option}, and compare: `invoke compare`",
        )


def check_locked(lock: BuildLock, mine: BuildLock, where: Path) -> None:
    """Raise LockError, with everything that is another, unless a build uses what is locked.

    mine: the build's own lock.
    """
    found = differences(replace(lock, fatwheel=mine.fatwheel), mine)
    if found:
        more = len(found) - _MOST_SHOWN
        raise LockError(
            "the recipe or the toolchain differs from the lock",
            where=f"{OPTION} {where}",
            details=[*found[:_MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])],
            hint="build without --locked to make a new lock; or `invoke rebuild`, which takes "
            "everything from the lock",
        )


def check_host(locked: Host, host: Host) -> None:
    """Raise LockError unless the compilers are those that are locked."""
    if host != locked:
        raise LockError(
            "this machine, or the container image, differs from the lock",
            where=OPTION,
            details=host_changes(locked, host),
            hint=(
                "use another g++: CXX=/path/to/g++; or build in containers with the same base "
                "image: --engine docker"
            ),
        )


def host_changes(before: Host, after: Host) -> list[str]:
    """What is another on this host, a line each."""
    pairs = {
        "C++ compiler": (before.compiler, after.compiler),
        "Python": (before.python, after.python),
    }
    found = [f"{name}: {old} became {new}" for name, (old, new) in pairs.items() if old != new]
    if before.compiler == after.compiler and before.compiler_id != after.compiler_id:
        ids = f"{before.compiler_id[:16]} became {after.compiler_id[:16]}"
        found.append(f"C++ compiler: {after.compiler}, but its files differ: {ids}")
    return found


def publishers(kernels: Sequence[Path], toolchains: Sequence[Path]) -> frozenset[str]:
    """The hosts that the recipes and toolchains in these folders fetch from, over https, and where
    their repositories are.

    Those of a file with mistakes in it do not count.
    """
    recipes = tuple(_own_recipes(kernels))
    places = [pin.url for one in _own_toolchains(toolchains) for pin in one.files]
    places += [url for one in recipes for url in one.urls]
    with suppress(FatwheelError):
        places += Parts(*toolchains).urls()
    found = {host_of(place) for place in places if urlsplit(place).scheme == "https"}
    pins = [one.source.git for one in recipes if one.source.git]
    return frozenset(found | {host_of(commit.url) for git in pins for commit in git.commits})


def host_of(url: str) -> str:
    """With its port, if that is not https' own."""
    return urlsplit(url).netloc.lower().removesuffix(":443")


def _own_toolchains(toolchains: Sequence[Path]) -> Iterator[Toolchain]:
    for name in list_toolchains(*toolchains):
        with suppress(FatwheelError):
            yield load_toolchain(name, *toolchains)


def _own_recipes(kernels: Sequence[Path]) -> Iterator[Recipe]:
    for name in list_recipes(*kernels):
        with suppress(FatwheelError):
            yield load_recipe(name, *kernels)


def foreign(lock: BuildLock, hosts: frozenset[str]) -> BuildLock:
    """A lock from elsewhere: its pins with a URL may be fetched only from these hosts."""
    made = _within(lock, hosts)
    assert isinstance(made, BuildLock)
    return made


def check_registries(lock: BuildLock, toolchains: Sequence[Path]) -> None:
    """Refuse a lock whose images begin at a registry that no toolchain of this checkout names: the
    engine would ask it, with the user's login if there is one.

    Raises FetchError.
    """
    known = {registry_of(base) for one in _own_toolchains(toolchains) for base in one.bases}
    bases = lock.toolchain.bases
    strange = [base.reference for base in bases if registry_of(base) not in known]
    if strange:
        raise FetchError(
            "the lock names base images from registries that no toolchain here uses",
            details=[clean(reference) for reference in strange],
            hint="if you trust such a registry, put a toolchain with its image into toolchains/",
        )


def registry_of(base: Base) -> str:
    """The host from which an engine pulls an image (distribution/reference: the part before the
    first slash is one if it has a dot or a colon, or is localhost); '' is the engine's own."""
    first, slash, _ = base.reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named else ""


def _within(value: Any, hosts: frozenset[str]) -> Any:
    """A value whose pins, wherever in it they are, may come from these hosts."""
    if isinstance(value, Package | Download | Commit):
        value = replace(value, hosts=hosts)
    if isinstance(value, tuple):
        return tuple(_within(item, hosts) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: _within(getattr(value, one.name), hosts) for one in fields(value)}
        )
    return value
