"""Restricts where locks from elsewhere may have files fetched from.

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

from ..config.load import list_recipes, list_toolchains, load_recipe, load_toolchain
from ..config.model import Base, Commit, Download, Package, Recipe, Toolchain
from ..config.parts import Parts
from ..errors import FatwheelError, FetchError
from ..text import clean
from .buildlock import BuildLock


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
