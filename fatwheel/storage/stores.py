"""Which stores a build uses: the user's, or one of its own that reads the user's besides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_folder
from .store import Branch, Store

VARIABLE = "FATWHEEL_STORE"  # names another folder for the store
LIMIT = 30 << 30  # bytes; `invoke cache --limit` shrinks it for once


@dataclass(frozen=True)
class Stores:
    """own: the folder of the store that a build writes to. trunk: that of one which it reads
    besides, or None."""

    own: Path
    trunk: Path | None = None

    @property
    def trunks(self) -> tuple[Path, ...]:
        return (self.trunk,) if self.trunk else ()

    def open(self, scope: str = "") -> Store:
        """What belongs to a scope (see `pipeline.scope`), or, without one, finished wheels."""
        if self.trunk:
            return Branch(self.own, self.trunks, scope)
        return Store(self.own, LIMIT, scope)


def users_stores() -> Stores:
    """What builds use: the store of this user alone."""
    return Stores(store_folder())


def open_store() -> Store:
    """The user's store of finished wheels; what belongs to a scope is not seen through it."""
    return users_stores().open()


def store_folder() -> Path:
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else cache_folder() / "store"
