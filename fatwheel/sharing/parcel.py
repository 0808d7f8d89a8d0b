"""A parcel: entries of a store on their way to another machine, in one file.

    fatwheel parcel 1
    {"about": {…}, "entries": [[kind, key, sha256, size], …], "name": "slice/ab…", "scope": "cd…"}
    the entries' bytes, one after the other, compressed with Zstandard

The second line says what is inside and for whom; the keys are those of the store within the scope
(`pipeline.scope`). Where a team signs, it is a DSSE envelope of that JSON. So a signature covers
the bytes of every entry, by their digests, and what they answer: a signed parcel under another's
name is refused.

What a parcel proves by itself is that nobody damaged it. Whether its entries are what compilers
make, no digest can tell: whoever could write where it lay could have made it up, digests and all.
That takes the signature of somebody who is trusted.

Parcels come from strangers. Nothing of one is used before its digest was found right, and reading
ends at the sizes that are allowed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard

from ..engines import incoming
from ..errors import FormatError, VerifyError
from ..storage.documents import read_object
from ..storage.files import Readable, copy
from ..text import clean

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

    from ..provenance.signing import Signer

FORMAT = 1  # of parcels; names on a remote have it, too
PAYLOAD_TYPE = "application/vnd.fatwheel.parcel+json"

# Bytes of one entry, by its kind; no other kind is taken.
LIMITS = {**incoming.LIMITS, "cost": 1024, "built": 1 << 20, "wheel": incoming.LARGEST_WHEEL}
MOST_HEAD = 16 << 20  # bytes of the line that says what is inside
_FIRST = f"fatwheel parcel {FORMAT}\n".encode()
_ANY_FIRST = re.compile(rb"fatwheel parcel ([0-9]{1,4})\n")
_LEVEL = 3
_WINDOW_LOG = 27  # 128 MiB: records of texts name the same files again and again
_CHUNK = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[a-z]{1,20}/[0-9a-f]{64}")
_MOST_ABOUT = 100  # facts


@dataclass(frozen=True)
class Item:
    """One entry: what the store calls it, and its bytes' sha256 and number."""

    kind: str
    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Parcel:
    """What a parcel says is inside. name: `slice/` and a key; about: facts, by name."""

    name: str
    scope: str
    items: tuple[Item, ...]
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(item.size for item in self.items)


@dataclass(frozen=True)
class Piece:
    """An entry to be sent: its bytes, or the file that has them."""

    kind: str
    key: str
    data: bytes | Path


@dataclass(frozen=True)
class Trust:
    """Who is believed. signer: signs what is sent. keys: who must have signed what comes; where
    there are none, anybody is believed."""

    signer: Signer | None = None
    keys: tuple[SSlibKey, ...] = ()


# -- writing ---------------------------------------------------------------------------------------


def write_parcel(
    out: BinaryIO, name: str, scope: str, pieces: Sequence[Piece], trust: Trust,
    about: Mapping[str, str] | None = None,
) -> Parcel:  # fmt: skip
    """Write a parcel to a stream. Raises OSError."""
    items = []
    for piece in pieces:
        with _opened(piece) as source:
            items.append(Item(piece.kind, piece.key, *copy(source, None)))
    parcel = Parcel(name, scope, tuple(items), about or {})
    out.write(_FIRST + _sealed(_head(parcel), trust) + b"\n")
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=_WINDOW_LOG, enable_ldm=True
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    with compressor.stream_writer(out, closefd=False) as body:
        for piece in pieces:
            with _opened(piece) as source:
                while chunk := source.read(_CHUNK):
                    body.write(chunk)
    return parcel


def _opened(piece: Piece) -> BinaryIO:
    return piece.data.open("rb") if isinstance(piece.data, Path) else io.BytesIO(piece.data)


def _head(parcel: Parcel) -> bytes:
    content = {
        "name": parcel.name,
        "scope": parcel.scope,
        "about": dict(parcel.about),
        "entries": [[one.kind, one.key, one.sha256, one.size] for one in parcel.items],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _sealed(head: bytes, trust: Trust) -> bytes:
    if trust.signer is None:
        return head
    from ..provenance.signing import envelope_bytes

    return envelope_bytes(head, trust.signer, PAYLOAD_TYPE).rstrip(b"\n")


# -- reading ---------------------------------------------------------------------------------------


def read_head(stream: BinaryIO, where: str, trust: Trust) -> Parcel:
    """What a parcel says is inside, up to where its entries begin.

    FormatError where it is no parcel, or one of another format; VerifyError where it is not signed
    by one of the keys that are trusted.
    """
    first = stream.readline(len(_FIRST) + 8)
    if first != _FIRST:
        found = _ANY_FIRST.fullmatch(first)
        if found:
            raise FormatError(
                f"it has the format {int(found[1])}, and this fatwheel reads {FORMAT}", where=where
            )
        raise FormatError("this is not a parcel of fatwheel's", where=where)
    line = stream.readline(MOST_HEAD + 1)
    if not line.endswith(b"\n"):
        raise FormatError("what is inside is not said to its end", where=where)
    return _parsed(read_object(_unsealed(line[:-1], where, trust), where), where)


def _unsealed(line: bytes, where: str, trust: Trust) -> bytes:
    """What a head says, after its signature was checked, if one is wanted."""
    is_envelope = line.startswith(b'{"payload"')
    if not trust.keys and not is_envelope:
        return line
    from ..provenance.signing import is_signed, name_of, read_envelope

    if not is_envelope:
        raise VerifyError("it is not signed", where=where)
    envelope = read_envelope(line, where, PAYLOAD_TYPE)
    if trust.keys and not any(is_signed(envelope, key, PAYLOAD_TYPE) for key in trust.keys):
        raise VerifyError(
            "it is not signed with a key that is trusted, or was changed after it was signed",
            where=where,
            details=[f"trusted: {name_of(key)}" for key in trust.keys],
        )
    return envelope.payload


def _parsed(content: Mapping[str, Any], where: str) -> Parcel:
    match content:
        case {"name": str(name), "scope": str(scope), "about": dict(about), "entries": list(rows)}:
            items = tuple(map(_item, rows))
            whole = [item for item in items if item is not None]
            if (
                _NAME.fullmatch(name)
                and (not scope or _SHA256.fullmatch(scope))
                and len(whole) == len(items)
                and len({(one.kind, one.key) for one in whole}) == len(whole)
                and len(about) <= _MOST_ABOUT
                and all(isinstance(word, str) and len(word) < 1000 for word in about.values())
            ):
                facts = {clean(key[:100]): clean(word) for key, word in about.items()}
                return Parcel(name, scope, tuple(whole), facts)
    raise FormatError("what is inside is not said as fatwheel says it", where=where)


def _item(row: Any) -> Item | None:
    match row:
        case [str(kind), str(key), str(sha256), int(size)] if (
            _SHA256.fullmatch(key)
            and _SHA256.fullmatch(sha256)
            and not isinstance(size, bool)
            and 0 <= size <= LIMITS.get(kind, -1)
        ):
            return Item(kind, key, sha256, size)
    return None


def contents(stream: BinaryIO, parcel: Parcel, where: str) -> Iterator[tuple[Item, Readable]]:
    """Each entry with a stream of its bytes, which is to be read to its end before the next.

    That end is only reached where the bytes have the digest that was said; else FormatError, as
    where anything follows the last entry.
    """
    reader = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).stream_reader(stream)
    body = _Body(reader, where)
    for item in parcel.items:
        entry = _Entry(body, item, where)
        yield item, entry
        if not entry.ended:
            copy(entry, None)
    if body.read(1):
        raise FormatError("more follows its last entry", where=where)


class _Body:
    """The entries' bytes. FormatError where they cannot be unpacked."""

    def __init__(self, reader: Readable, where: str) -> None:
        self._reader = reader
        self._where = where

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise FormatError(f"it cannot be unpacked: {error}", where=self._where) from error


class _Entry:
    """The bytes of one entry, with the digest that was said of them."""

    def __init__(self, body: _Body, item: Item, where: str) -> None:
        self.ended = False
        self._body = body
        self._item = item
        self._where = where
        self._left = item.size
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._body.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        self._digest.update(data)
        if data:
            return data
        item = self._item
        if self._left or self._digest.hexdigest() != item.sha256:
            raise FormatError(
                f"the bytes of {item.kind}/{item.key[:16]} are not those that it names",
                where=self._where,
            )
        self.ended = True
        return b""
