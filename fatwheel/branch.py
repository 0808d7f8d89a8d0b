"""A branch of the store: what one build writes, beside stores that it may only read.

In a container the branch lies in the folder that comes in, and goes with it: what was made for a
job is taken from there one by one (see `engines.incoming`). Standard library only: this module is
imported inside build containers, Windows too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .store import Store

Entry = tuple[str, str, str]  # of a store: kind, key, sha256


class Branch(Store):
    """A store of its own under `root` that also answers what `trunks` hold, the first one first.

    written: every entry that this object has put.
    """

    def __init__(self, root: Path, trunks: Sequence[Path], scope: str = "") -> None:
        super().__init__(root, sys.maxsize, scope)
        self.written: list[Entry] = []
        self._trunks = tuple(Store(trunk, sys.maxsize, scope) for trunk in trunks)

    def put(self, kind: str, key: str, data: bytes) -> str:
        sha256 = super().put(kind, key, data)
        self.written.append((kind, key, sha256))
        return sha256

    def get(self, kind: str, key: str) -> bytes | None:
        own = super().get(kind, key)
        if own is not None:
            return own
        found = (trunk.get(kind, key) for trunk in self._trunks)
        return next((data for data in found if data is not None), None)

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        own = super().copy_out(kind, key, path)
        return own or any(trunk.copy_out(kind, key, path) for trunk in self._trunks)

    def digest(self, kind: str, key: str) -> str | None:
        own = super().digest(kind, key)
        if own is not None:
            return own
        found = (trunk.digest(kind, key) for trunk in self._trunks)
        return next((sha256 for sha256 in found if sha256 is not None), None)
