"""What this machine's builds had of each remote, in sum: for people, nothing relies on it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..storage.cache import cache_folder
from ..storage.documents import json_bytes, read_object
from ..storage.files import locked, read_plain, replacing

if TYPE_CHECKING:
    from .remote import Remote

_MOST = 1 << 20  # bytes of the file
_KEPT = 20  # remotes


@dataclass
class Count:
    """Parcels by what became of them; bytes of those that came and went."""

    found: int = 0
    absent: int = 0
    refused: int = 0
    written: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass
class Use(Count):
    """The same of all builds. last: when there was one, in seconds since 1970."""

    builds: int = 0
    last: int = 0


@dataclass(frozen=True)
class RemoteReport:
    """A remote as `invoke cache` shows it. in_words: its address, and what may be done there.
    trouble: why it cannot be read, or ''."""

    address: str
    in_words: str
    writes: bool
    signed: bool
    trouble: str
    use: Use

    def to_json(self) -> dict[str, Any]:
        """As `invoke cache --json` prints it (cache.schema.json)."""
        found = asdict(self)
        del found["in_words"]
        return found


def look_at(remote: Remote) -> RemoteReport:
    """Ask a remote whether it can be read."""
    use = all_uses().get(remote.shown, Use())
    signed = bool(remote.trust.keys)
    trouble = remote.probe()
    return RemoteReport(remote.shown, remote.in_words, remote.writes, signed, trouble, use)


def note_use(remote: str, count: Count) -> None:
    """Add what one build had of a remote, by its address as it is shown."""
    file = _file()
    with suppress(OSError), locked(file.with_suffix(".lock")):
        uses = all_uses()
        use = uses.pop(remote, Use())
        for name, number in asdict(count).items():
            setattr(use, name, getattr(use, name) + number)
        use.builds, use.last = use.builds + 1, int(time.time())
        newest = sorted(uses.items(), key=lambda pair: -pair[1].last)[: _KEPT - 1]
        with replacing(file) as out:
            out.write(json_bytes({name: asdict(one) for name, one in [(remote, use), *newest]}))


def all_uses() -> dict[str, Use]:
    """What there was of each remote; nothing where that cannot be read."""
    data = read_plain(_file(), _MOST)
    try:
        found = read_object(data or b"{}", "")
    except FormatError:
        return {}
    return {name: Use(**use) for name, use in found.items() if _is_use(use)}


def _is_use(found: Any) -> bool:
    names = {one.name for one in fields(Use)}
    return (
        isinstance(found, dict)
        and set(found) == names
        and all(type(number) is int and number >= 0 for number in found.values())
    )


def _file() -> Path:
    return cache_folder() / "remotes.json"
