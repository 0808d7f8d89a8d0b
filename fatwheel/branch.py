"""A branch of the store: what one build writes, beside stores that it may only read.

In a container the branch lies in the folder that comes in, and goes with it: what was made for a
job is taken from there one by one (see `engines.incoming`). A rebuild has a branch of its own, too.
Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .store import Store
from .vault import Ref

Entry = tuple[str, str, str]  # of a store: kind, key, sha256


class Branch(Store):
    """A store of its own under `root` that also answers what `trunks` hold, the first one first.
    It never changes those.

    written: every entry that this object has put.
    """

    def __init__(self, root: Path, trunks: Sequence[Path], scope: str = "") -> None:
        super().__init__(root, sys.maxsize, scope)
        self.written: list[Entry] = []
        self._trunks = [_Trunk(trunk, sys.maxsize, scope) for trunk in trunks]
        self._removed: set[tuple[str, str]] = set()

    def put(self, kind: str, key: str, data: bytes) -> str:
        sha256 = super().put(kind, key, data)
        self.written.append((kind, key, sha256))
        return sha256

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
