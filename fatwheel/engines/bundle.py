"""Files in one piece, as they go to a worker on another machine and come back from it.

    bytes 0 to 7   the length of the listing, big-endian
    the listing    JSON, in UTF-8: [[name, size in bytes, sha256], …], sorted by name
    the rest       the files' bytes in this order, compressed with zlib

There is nothing in it but plain files under relative names: no links, no modes, no times. Who opens
one gets exactly what its listing says, or an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import FormatError
from ..storage.documents import read_value
from ..worker.context import digest

_HEAD = 8  # bytes
_LONGEST_LISTING = 32 << 20  # bytes
_MOST_FILES = 200_000
_LEVEL = 1  # device code shrinks to a third; higher levels cost more than most networks gain
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED = re.compile(r"[\x00\\:]" if os.name == "nt" else r"\x00")  # what no name of a file has


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files by their names, in one piece."""
    names = sorted(files)
    listing = [[name, len(files[name]), _sha256(files[name])] for name in names]
    head = json.dumps(listing, separators=(",", ":")).encode()
    packed = zlib.compressobj(_LEVEL)
    pieces = [packed.compress(files[name]) for name in names]
    return b"".join([len(head).to_bytes(_HEAD, "big"), head, *pieces, packed.flush()])


def unpack(bundle: bytes, most: int) -> dict[str, bytes]:
    """The files in a bundle, by their names; together they may have `most` bytes.

    Raises FormatError where it is anything else than `pack` makes of files.
    """
    length = int.from_bytes(bundle[:_HEAD], "big")
    if not len(bundle) >= _HEAD or length > min(_LONGEST_LISTING, len(bundle) - _HEAD):
        raise _damaged("it has no listing")
    listing = _listing(bundle[_HEAD : _HEAD + length])
    total = sum(size for _, size, _ in listing)
    if total > most:
        raise _damaged(f"its files have {total} bytes, more than {most}")
    data = memoryview(_inflated(bundle[_HEAD + length :], total))
    found: dict[str, bytes] = {}
    start = 0
    for name, size, sha256 in listing:
        found[name] = bytes(data[start : start + size])
        start += size
        if _sha256(found[name]) != sha256:
            raise _damaged(f"{name!r} is not what its listing says")
    return found


def identity(shas: Mapping[str, str]) -> str:
    """The hash of files, given the sha256 of each by its name."""
    return digest("files", sorted(shas.items()))


def shas_of(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: _sha256(data) for name, data in files.items()}


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files from a bundle into a new folder. Raises OSError."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(data)


def _listing(data: bytes) -> list[tuple[str, int, str]]:
    try:
        found = read_value(data, "", _LONGEST_LISTING, 4 * _MOST_FILES)
    except FormatError as error:
        raise _damaged(f"its listing is none: {error.what}") from error
    if not isinstance(found, list) or len(found) > _MOST_FILES:
        raise _damaged("its listing is none")
    files: list[tuple[str, int, str]] = []
    for one in found:
        match one:
            case [str(name), int(size), str(sha256)] if (
                type(size) is int and size >= 0 and _SHA256.fullmatch(sha256) and is_inside(name)
            ):
                files.append((name, size, sha256))
            case _:
                raise _damaged("its listing has a file that cannot be")
    names = [name for name, _, _ in files]
    if names != sorted(set(names)):
        raise _damaged("its listing names a file twice, or in another order")
    return files


def is_inside(name: str) -> bool:
    """Whether a name is that of a file below a folder."""
    parts = name.split("/")
    return not _RESERVED.search(name) and all(part not in ("", ".", "..") for part in parts)


def _inflated(data: bytes, total: int) -> bytes:
    """What was compressed, which must have `total` bytes."""
    stream = zlib.decompressobj()
    try:
        # One byte more than there may be: a bomb is not unpacked further.
        found = stream.decompress(data, total + 1)
    except zlib.error as error:
        raise _damaged("its content is damaged") from error
    if len(found) != total or not stream.eof or stream.unused_data:
        raise _damaged("its content has another size than its listing says")
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(why: str) -> FormatError:
    return FormatError(f"what came over the network cannot be used: {why}")
