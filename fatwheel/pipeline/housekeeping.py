"""Shows, checks and cleans the cache on this machine: `invoke cache`."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..storage.cache import cache_folder
from ..storage.store import Damage, Usage
from ..storage.stores import open_store


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
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path != store.root)
    seen: set[tuple[int, int]] = set()
    usage = (*store.usage(), *(_folder_usage(path, seen) for path in others))
    return CacheReport(folder, usage, damaged)


def _folder_usage(folder: Path, seen: set[tuple[int, int]]) -> Usage:
    """A folder counted as one kind; its entries are what lies directly in it.

    A file with several names (environments share theirs) counts where it is seen first.
    """
    size = 0
    for place, _, names in os.walk(folder):
        for found in map(_stat, (os.path.join(place, name) for name in names)):
            if found and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                size += found.st_size
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
