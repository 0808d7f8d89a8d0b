"""RECORD: every file of a wheel once, with its size and a hash that is worth something.

Format: PyPA specifications "Recording installed projects" (lines of path, hash, size as CSV) and
"Binary distribution format": the hash is sha256 or better, md5 and sha1 are not permitted, and
signatures of RECORD are not in it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .findings import Finding, warning, wrong

SIGNATURES = ("RECORD.jws", "RECORD.p7s")

_DEFAULT = "sha256"
_STRONG = (_DEFAULT, "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b")


@dataclass(frozen=True)
class Row:
    """One line: hash is `sha256=...` or empty, size a number or empty, both as they stand."""

    hash: str
    size: str

    @property
    def algorithm(self) -> str:
        return self.hash.partition("=")[0]

    @property
    def digest(self) -> str:
        return self.hash.partition("=")[2].rstrip("=")


@dataclass(frozen=True)
class Record:
    """RECORD as it was read, by path; mistakes are those that can be seen in it alone."""

    path: str
    rows: Mapping[str, Row]
    mistakes: tuple[Finding, ...]

    def watch(self, name: str) -> Watched:
        """For the content of a file, piece by piece, as it is read."""
        row = self.rows.get(name)
        strong = row is not None and row.algorithm in _STRONG
        return Watched(row.algorithm if row and strong else _DEFAULT)


class Watched:
    """Size and hash of a file that is read in pieces."""

    def __init__(self, algorithm: str) -> None:
        self.size = 0
        self._hash = hashlib.new(algorithm)

    def update(self, piece: bytes) -> None:
        self.size += len(piece)
        self._hash.update(piece)

    @property
    def digest(self) -> str:
        """As RECORD has it: base64 for URLs, without padding."""
        return base64.urlsafe_b64encode(self._hash.digest()).decode().rstrip("=")


def read_record(path: str, data: bytes) -> Record:
    """RECORD at `path`; what cannot be understood is among its mistakes."""
    rows: dict[str, Row] = {}
    mistakes: list[Finding] = []
    try:
        text = io.StringIO(data.decode("utf-8"), newline="")
        for line in csv.reader(text, strict=True):
            mistakes += _take(line, rows)
    except UnicodeDecodeError as error:
        mistakes.append(wrong(f"it is not UTF-8: byte {error.start}", path))
    except csv.Error as error:
        mistakes.append(wrong(f"it cannot be read: {error}", path))
    return Record(path, rows, tuple(mistakes))


def record_findings(record: Record, files: Mapping[str, Watched]) -> Iterator[Finding]:
    """Whether RECORD agrees with the files that are really there."""
    yield from record.mistakes
    folder = record.path.rpartition("/")[0]
    unlisted = {record.path, *(f"{folder}/{name}" for name in SIGNATURES)}
    for name in sorted(record.rows.keys() - files.keys()):
        yield wrong("RECORD lists it, but it is not in the wheel", name)
    for name in sorted(files.keys() - record.rows.keys() - unlisted):
        yield wrong("it is not in RECORD", name)
    if record.path not in record.rows:
        yield warning("RECORD does not list itself", record.path)
    for name, row in record.rows.items():
        if name == record.path:
            yield from _own_row(name, row)
        elif name in files:
            yield from _row_findings(name, row, files[name])


def _take(line: list[str], rows: dict[str, Row]) -> Iterator[Finding]:
    if not line:
        return
    if len(line) != 3:
        yield wrong(f"a line of RECORD has {len(line)} parts, not three", line[0])
    elif line[0] in rows:
        yield wrong("RECORD lists it twice", line[0])
    else:
        rows[line[0]] = Row(line[1], line[2])


def _own_row(name: str, row: Row) -> Iterator[Finding]:
    if row.hash or row.size:
        yield wrong("RECORD cannot hold its own hash or size", name)


def _row_findings(name: str, row: Row, found: Watched) -> Iterator[Finding]:
    if not row.hash:
        yield wrong("RECORD has no hash of it", name)
    elif row.algorithm not in _STRONG:
        hint = f"RECORD has {row.algorithm!r} of it; valid: {', '.join(_STRONG)}"
        yield wrong(f"its hash proves nothing: {hint}", name)
    elif row.digest != found.digest:
        details = [f"RECORD says {row.digest}", f"it is {found.digest}"]
        yield wrong(f"its {row.algorithm} is not the one in RECORD", name, details)
    if not row.size:
        yield warning("RECORD has no size of it", name)
    elif row.size != str(found.size):
        yield wrong(f"it has {found.size} bytes, RECORD says {row.size}", name)
