"""A branch of the store: what a container may write, beside a store that it may only read.

Reading looks into the branch first, then into the store it belongs to. What was written is taken
into that store by `Harvest`, from outside, each entry checked against its own digest.

Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .files import files_below
from .store import Store
from .vault import Ref


class Branch(Store):
    """A store of its own under `root` that also answers what `trunks` hold, which it never
    changes."""

    def __init__(self, root: Path, trunks: Sequence[Path]) -> None:
        super().__init__(root, sys.maxsize)
        self._trunks = [_Trunk(trunk, sys.maxsize) for trunk in trunks]
        self._removed: set[tuple[str, str]] = set()

    def get(self, kind: str, key: str) -> bytes | None:
        found = super().get(kind, key)
        for trunk in self._behind(kind, key) if found is None else ():
            found = trunk.get(kind, key)
            if found is not None:
                break
        return found

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        return super().copy_out(kind, key, path) or any(
            trunk.copy_out(kind, key, path) for trunk in self._behind(kind, key)
        )

    def digest(self, kind: str, key: str) -> str | None:
        found = super().digest(kind, key)
        for trunk in self._behind(kind, key) if found is None else ():
            found = found or trunk.digest(kind, key)
        return found

    def remove(self, kind: str, key: str) -> None:
        self._removed.add((kind, key))
        super().remove(kind, key)

    def _behind(self, kind: str, key: str) -> list[_Trunk]:
        """The trunks that may answer for a key: none for one that was removed here."""
        return [] if (kind, key) in self._removed else self._trunks


class _Trunk(Store):
    """A store that is read and left as it is: what is damaged stays, and no use is noted."""

    def _drop(self, ref_path: Path) -> None:
        pass

    def _touch(self, ref: Ref) -> None:
        pass


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
