"""Asks for consent before code runs from a lock that no build on this machine wrote.

A lock decides what a build fetches and runs. Of each wheel that is built here the lock's sha256 is
kept in the user's store, by the build itself: a lock that is there was this machine's own making.
Every other is a stranger's, whatever it says of itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from .. import text
from ..config.recipe import Recipe
from ..engines.base import Engine
from ..errors import UsageError
from ..provenance.lock import BuildLock, lock_bytes
from ..storage.cache import open_store

_KIND = "lock"
_WIDEST = 200  # characters of anything that a lock says
_CLOSED_OFF = {
    False: "it runs as you, with your files and your network",
    True: "it runs in containers without a network, which see none of your files",
}


@dataclass(frozen=True)
class Stranger:
    """A lock that no build on this machine wrote.

    origin: the file that it came in. lines: what of it would run, and how far that is isolated.
    """

    origin: str
    lines: tuple[str, ...]


Agree = Callable[[Stranger], None]  # raises UsageError unless the user agrees


def refuse(stranger: Stranger) -> NoReturn:
    """Refuse, for use where nobody can be asked."""
    raise UsageError(
        "it was not built on this machine, so its code runs only with your consent",
        where=stranger.origin,
        details=stranger.lines,
        hint="add --yes to consent without being asked; --engine docker isolates most of it",
    )


def remember(lock_data: bytes, wheel: str) -> None:
    """Keep in the user's store that a build here wrote this lock. Raises StoreError."""
    open_store().put_json(_KIND, hashlib.sha256(lock_data).hexdigest(), {"wheel": wheel})


def is_own(lock: BuildLock) -> bool:
    """Whether a build here wrote this lock."""
    return open_store().has(_KIND, hashlib.sha256(lock_bytes(lock)).hexdigest())


def check_consent(lock: BuildLock, origin: Path, engine: Engine, agree: Agree) -> None:
    """Ask for consent to a foreign lock. Raises UsageError unless the user agrees."""
    if not is_own(lock):
        agree(Stranger(origin.name, tuple(_lines(lock, origin, engine))))


def _lines(lock: BuildLock, origin: Path, engine: Engine) -> list[str]:
    recipe = lock.recipe
    return [
        f"{_shown(origin.name)} was not built on this machine. This build would run what it names:",
        f"  project  {_shown(recipe.project)} {_shown(recipe.version)}, with its own build script",
        f"  source   {_shown(_source(recipe))}, sha256 {_shown(recipe.source.sha256)}",
        *(f"  patch    {_shown(one.file)}, sha256 {one.sha256}" for one in recipe.source.patches),
        f"  tools    {_shown(lock.toolchain.name)}, {_files(lock)}",
        *(_images(lock) if engine.uses_images else ()),
        f"  engine   {engine.name}: {_CLOSED_OFF[engine.isolated]}",
    ]


def _source(recipe: Recipe) -> str:
    source = recipe.source
    if source.git:
        others = len(source.git.submodules)
        return source.git.vcs_url + (f" with {text.count(others, 'submodule')}" if others else "")
    if source.file:
        return source.archive.url if source.archive else source.file.filename
    return f"the folder {recipe.source_folder}"


def _images(lock: BuildLock) -> list[str]:
    """The images on which those of the build are built."""
    bases = lock.toolchain.bases
    return [f"  image    {_shown(f'{base.reference}@{base.digest}')}" for base in bases]


def _files(lock: BuildLock) -> str:
    pins = lock.files
    urls = [*lock.recipe.urls, *(pin.url for pin in pins)]
    hosts = sorted({urlsplit(url).hostname or "" for url in urls} - {""})
    places = ", ".join(["your package index", *map(_shown, hosts)])
    return f"{text.count(len(pins), 'file')}, each by its sha256, from {places}"


def _shown(words: str) -> str:
    """Text from a foreign lock, on one line."""
    line = text.one_line(words).replace("\t", "\\t")
    return line if len(line) <= _WIDEST else f"{line[:_WIDEST]}…"
