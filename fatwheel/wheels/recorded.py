"""RECORD: lists every file of a wheel once, with its size and a strong hash.

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

from ..errors import FormatError

SIGNATURES = ("RECORD.jws", "RECORD.p7s")

_DEFAULT = "sha256"
_STRONG = (_DEFAULT, "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b")


# More lines than a wheel can have files, and more mistakes than anybody reads.
MAX_ROWS, MAX_MISTAKES = 110_000, 1000
# As many mistakes as a message names.
_DETAILS_SHOWN = 12


@dataclass(frozen=True)
class Mistake:
    """Something about a file that is not as it should be.

    grave: whether the file may be another one than its wheel's author meant, or pip may refuse
    it; else only something that should be there is missing.
    """

    where: str
    what: str
    details: tuple[str, ...] = ()
    grave: bool = True


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
    mistakes: tuple[Mistake, ...]

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
        self._sha256 = self._hash if algorithm == _DEFAULT else hashlib.sha256()

    def update(self, piece: bytes) -> None:
        self.size += len(piece)
        self._hash.update(piece)
        if self._sha256 is not self._hash:
            self._sha256.update(piece)

    @property
    def sha256(self) -> str:
        """In hex, whatever RECORD has."""
        return self._sha256.hexdigest()

    @property
    def digest(self) -> str:
        """As RECORD has it: base64 for URLs, without padding."""
        return base64.urlsafe_b64encode(self._hash.digest()).decode().rstrip("=")


def read_record(path: str, data: bytes) -> Record:
    """RECORD at `path`; what cannot be understood is among its mistakes."""
    rows: dict[str, Row] = {}
    mistakes: list[Mistake] = []
    try:
        text = io.StringIO(data.decode("utf-8"), newline="")
        for number, line in enumerate(csv.reader(text, strict=True)):
            mistakes += _take(line, rows)
            if number >= MAX_ROWS or len(mistakes) >= MAX_MISTAKES:
                mistakes.append(Mistake(path, f"it is read up to line {number + 1} only"))
                break
    except UnicodeDecodeError as error:
        mistakes.append(Mistake(path, f"it is not UTF-8: byte {error.start}"))
    except csv.Error as error:
        mistakes.append(Mistake(path, f"it cannot be read: {error}"))
    return Record(path, rows, tuple(mistakes))


def check_record(record: Record, files: Mapping[str, Watched]) -> None:
    """FormatError, with all grave mistakes, unless RECORD agrees with the files."""
    grave = [mistake for mistake in mistakes_of(record, files) if mistake.grave]
    if grave:
        more = len(grave) - _DETAILS_SHOWN
        raise FormatError(
            "the wheel's files are not those that its RECORD lists",
            where=record.path,
            details=[
                *(f"{mistake.where}: {mistake.what}" for mistake in grave[:_DETAILS_SHOWN]),
                *([f"... and {more} more"] if more > 0 else []),
            ],
            hint="it may have been changed after it was built: get it again from its source",
        )


def mistakes_of(record: Record, files: Mapping[str, Watched]) -> Iterator[Mistake]:
    """Whether RECORD agrees with the files that are really there."""
    yield from record.mistakes
    folder = record.path.rpartition("/")[0]
    unlisted = {record.path, *(f"{folder}/{name}" for name in SIGNATURES)}
    for name in sorted(record.rows.keys() - files.keys()):
        yield Mistake(name, "RECORD lists it, but it is not in the wheel")
    for name in sorted(files.keys() - record.rows.keys() - unlisted):
        yield Mistake(name, "it is not in RECORD")
    if record.path not in record.rows:
        yield Mistake(record.path, "RECORD does not list itself", grave=False)
    for name, row in record.rows.items():
        if name == record.path:
            yield from _own_row(name, row)
        elif name in files:
            yield from _row_findings(name, row, files[name])


def _take(line: list[str], rows: dict[str, Row]) -> Iterator[Mistake]:
    if not line:
        return
    if len(line) != 3:
        yield Mistake(line[0], f"a line of RECORD has {len(line)} parts, not three")
    elif line[0] in rows:
        yield Mistake(line[0], "RECORD lists it twice")
    else:
        rows[line[0]] = Row(line[1], line[2])


def _own_row(name: str, row: Row) -> Iterator[Mistake]:
    if row.hash or row.size:
        yield Mistake(name, "RECORD cannot hold its own hash or size")


def _row_findings(name: str, row: Row, found: Watched) -> Iterator[Mistake]:
    if not row.hash:
        yield Mistake(name, "RECORD has no hash of it")
    elif row.algorithm not in _STRONG:
        hint = f"RECORD has {row.algorithm!r} of it; valid: {', '.join(_STRONG)}"
        yield Mistake(name, f"its hash algorithm is too weak: {hint}")
    elif row.digest != found.digest:
        details = (f"RECORD says {row.digest}", f"it is {found.digest}")
        yield Mistake(name, f"its {row.algorithm} is not the one in RECORD", details)
    if not row.size:
        yield Mistake(name, "RECORD has no size of it", grave=False)
    elif row.size != str(found.size):
        yield Mistake(name, f"it has {found.size} bytes, RECORD says {row.size}")
