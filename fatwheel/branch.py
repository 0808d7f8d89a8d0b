"""A branch of the store: what a container may write, beside a store that it may only read.

Reading looks into the branch first, then into the store it belongs to. What was written is taken
into that store by `Harvest`, from outside, each entry checked against its own digest.

Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import stat
import sys
from contextlib import suppress
from pathlib import Path

from .files import files_below
from .store import Store


class Branch(Store):
    """A store of its own under `root` that also answers what `trunk` holds."""

    def __init__(self, root: Path, trunk: Path) -> None:
        super().__init__(root, sys.maxsize)
        self._trunk = Store(trunk, sys.maxsize)

    def get(self, kind: str, key: str) -> bytes | None:
        own = super().get(kind, key)
        return self._trunk.get(kind, key) if own is None else own

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        return super().copy_out(kind, key, path) or self._trunk.copy_out(kind, key, path)

    def digest(self, kind: str, key: str) -> str | None:
        return super().digest(kind, key) or self._trunk.digest(kind, key)


class Harvest:
    """Takes what a branch under `root` holds into a store, as often as it is asked.

    The branch may be written meanwhile: an entry is there when its ref is.
    """

    def __init__(self, root: Path, store: Store) -> None:
        self._root = root
        self._branch = Store(root, sys.maxsize)
        self._store = store
        self._taken: dict[tuple[str, str], str] = {}  # (kind, key) → sha256

    def gather(self) -> int:
        """Take every entry that is new or has changed; their number. Raises StoreError.

        What is damaged stays where it is: it is made again when it is missed.
        """
        count = 0
        for path in files_below(self._root):
            # Builds of strangers write here. What is no file could keep its reader waiting.
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
        for path in files_below(self._root / "refs"):
            kind, key = path.parent.parent.name, path.name
            try:
                sha256 = self._branch.digest(kind, key)
            except ValueError:
                continue  # not of a store's making
            if sha256 is None or self._taken.get((kind, key)) == sha256:
                continue
            data = self._branch.get(kind, key)
            if data is not None:
                self._taken[kind, key] = self._store.put(kind, key, data)
                count += 1
        return count
