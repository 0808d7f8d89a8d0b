"""The cache on this machine: the one store that all builds share, and what else lies there."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cache import cache_folder
from .store import Damage, Store, Usage

STORE_LIMIT = 50 * 2**30  # bytes: some hundred builds of a large project
_STORE = "store"


@dataclass(frozen=True)
class CacheReport:
    """What the cache holds: a Usage per kind of the store and per other folder of the cache.

    damaged: entries that a check found damaged, and deleted.
    """

    folder: Path
    usage: tuple[Usage, ...]
    damaged: tuple[Damage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `invoke cache --json` prints it (cache.schema.json)."""
        return {
            "folder": str(self.folder),
            "kinds": [asdict(usage) for usage in self.usage],
            "damaged": [asdict(damage) for damage in self.damaged],
        }


def open_store() -> Store:
    """The store in the cache folder. Raises StoreError."""
    return Store(cache_folder() / _STORE, STORE_LIMIT)


def tend_cache(*, check: bool, limit: int | None, clean: bool) -> CacheReport:
    """Do what was asked for, in this order, and say what is left. Raises StoreError.

    check: read every entry of the store and delete damaged ones. limit: delete what was used
    least recently, down to so many bytes. clean: empty the store. Downloads and environments
    are only counted: a running build may be using them.
    """
    store = open_store()
    damaged = tuple(store.check()) if check else ()
    if limit is not None:
        store.evict(limit)
    if clean:
        store.clear()
    folder = cache_folder()
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != _STORE)
    usage = (*store.usage(), *(_folder_usage(path) for path in others))
    return CacheReport(folder, usage, damaged)


def _folder_usage(folder: Path) -> Usage:
    """A folder counted as one kind; its entries are what lies directly in it."""
    files = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    size = sum(found.st_size for found in map(_stat, files) if found)
    entries = [found.st_mtime for found in map(_stat, folder.iterdir()) if found]
    now = time.time()
    return Usage(
        folder.name, len(entries), size, min(entries, default=now), max(entries, default=now)
    )


def _stat(path: Path | str) -> os.stat_result | None:
    """None where it was deleted since it was listed."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
