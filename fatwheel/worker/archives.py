"""The objects in a static library, as far as it must be known who made them. Standard library only.

Format: ar(5), in the System V and BSD variants: `!<arch>` and a newline, then for each member 60
bytes of header (16 of name, 10 of size at 48, both padded with blanks) and its content, which
begins at an even offset. Longer names stand in a member `//` (System V) or before the content
(BSD). In a thin one (`!<thin>`) there is no content: names are paths of files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

_MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_TABLES = ("/", "//", "/SYM64/")
_BSD_TABLE = "__.SYMDEF"
_LONGEST = 1 << 20  # bytes of names


def unknown_members(archive: Path, known: Collection[str]) -> list[str]:
    """The names of its members whose sha256 is not in `known`.

    ValueError where it is malformed, OSError where it, or a member of a thin one, is not there.
    """
    with archive.open("rb") as stream:
        magic = stream.read(len(_MAGIC))
        if magic == _THIN:
            found = [(name, sha256_of(archive.parent / name)) for name in _thin(stream)]
        elif magic == _MAGIC:
            found = list(_members(stream))
        else:
            raise ValueError("not a static library")
    return [name for name, sha256 in found if sha256 not in known]


def sha256_of(path: Path) -> str:
    """OSError where it is no plain file: a thin archive may name a pipe, on which one waits."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        return hashlib.sha256(stream.read()).hexdigest()


def _members(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Name and sha256 of each member that is no table."""
    names = b""
    while header := stream.read(_HEADER):
        name, size = _read(header)
        content = stream.read(size)
        stream.seek(size % 2, 1)
        if name.startswith("#1/"):
            length = int(name[3:])
            name, content = content[:length].rstrip(b"\0").decode(), content[length:]
        if name == "//":
            names = content[:_LONGEST]
        if name not in _TABLES and not name.startswith(_BSD_TABLE):
            yield _long(name, names), hashlib.sha256(content).hexdigest()


def _thin(stream: IO[bytes]) -> Iterator[str]:
    names = b""
    while header := stream.read(_HEADER):
        name, size = _read(header)
        if name not in _TABLES:
            yield _long(name, names)
            continue
        content = stream.read(size)
        stream.seek(size % 2, 1)
        names = content[:_LONGEST] if name == "//" else names


def _read(header: bytes) -> tuple[str, int]:
    if len(header) != _HEADER or header[58:] != b"`\n":
        raise ValueError("not a header")
    return header[:16].decode("utf-8", "backslashreplace").rstrip(), int(header[48:58])


def _long(name: str, names: bytes) -> str:
    """`/18` stands for what is at 18 among the names; others end with a slash."""
    if name[:1] == "/" and name[1:].isdigit():
        start = int(name[1:])
        return names[start:].partition(b"\n")[0].decode("utf-8", "backslashreplace").rstrip("/")
    return name.rstrip("/")
