"""Reads what a wheel says of itself in its dist-info folder: METADATA and WHEEL, which have names
and tags, what must be installed besides, and what it was built for; and RECORD, which lists every
file once, with its size and a strong hash. And which modules it brings, by the names of its files.

METADATA and WHEEL are lines of `Name: value` up to the first empty line (PyPA specifications "Core
metadata" and "Binary distribution format"; a line that begins with white space continues the one
before). RECORD has lines of path, hash and size as CSV ("Recording installed projects"): the hash
is sha256 or better, md5 and sha1 are not permitted, and signatures of RECORD are not in it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import FormatError
from .name import WheelName, canonical_project, canonical_version

# Single tags of one wheel; real ones have a few dozen. Three lists of tags multiply.
MAX_TAGS = 1000
# Of one file; those of the largest projects have 2000.
MAX_FIELDS = 20_000
# A lone carriage return ends a line, too, for Python's mail parser, which installers read with.
_EOL = rb"(?:\r?\n|\r(?!\n))"
_END_OF_FIELDS = re.compile(rb"(?:\A|%b)%b|\Z" % (_EOL, _EOL))
# A repeated group would cost memory for each line of a value; two searches do not.
_START = re.compile(rb"(?:\A|(?<=[\r\n]))([!-9;-~]+):")
_STOP = re.compile(rb"%b(?![ \t])|\Z" % _EOL)


class _Line(NamedTuple):
    """A field: its name in lower case, and where its value starts and ends, with the lines that
    continue it."""

    name: bytes
    start: int
    end: int


def fields(text: bytes, name: str) -> list[str]:
    """The values of a field, in the file's order; upper and lower case are the same."""
    return [
        text[line.start : line.end].decode("utf-8", "replace").strip()
        for line in _named(text, name)
    ]


def field(text: bytes, name: str, where: str) -> str:
    """The value of a field that must be there once; FormatError, with `where`, if it is not."""
    return _only(fields(text, name), name, where)


def set_version(metadata: bytes, version: str, where: str = "METADATA") -> bytes:
    """METADATA with another Version and every other byte as it was."""
    found = _named(metadata, "Version")
    _only([str(line) for line in found], "Version", where)
    [(_, start, end)] = found
    return metadata[:start] + b" " + version.encode("ascii") + metadata[end:]


def name_disagreement(name: WheelName, dist_info: str, metadata: bytes) -> FormatError | None:
    """Whether file name, dist-info folder and METADATA speak of different projects or versions.

    pip refuses such a wheel, or installs it under a wrong name.
    """
    said = {
        "the file name": (name.project, name.version),
        "the folder": _split_folder(dist_info),
        "METADATA": (field(metadata, "Name", "METADATA"), field(metadata, "Version", "METADATA")),
    }
    meant = {(canonical_project(project), _comparable(v)) for project, v in said.values()}
    if len(meant) == 1:
        return None
    return FormatError(
        "the wheel's names do not agree",
        where=name.filename,
        details=[f"{place} says {project} {v}" for place, (project, v) in said.items()],
        hint="build it again: an installer would refuse this wheel",
    )


def _comparable(version: str) -> str:
    """The same for versions that are equal: 1.0 is 1.0.0 (PEP 440, "Version matching")."""
    return canonicalize_version(canonical_version(version))


def tag_disagreement(name: WheelName, wheel: bytes) -> FormatError | None:
    """Whether file name and WHEEL name different tags. Installers go by the file name; published
    wheels whose file was renamed, and nothing else, disagree."""
    tags = frozenset(expand_tags(fields(wheel, "Tag")))
    if tags == name.tags:
        return None
    return FormatError(
        "the wheel's tags do not agree",
        where=name.filename,
        details=[
            f"the file name says {', '.join(sorted(name.tags))}",
            f"WHEEL says {', '.join(sorted(tags)) or 'none'}",
        ],
    )


def expand_tags(tags: Iterable[str]) -> Iterable[str]:
    """The single tags that a WHEEL file's Tag lines stand for; FormatError if they have no end."""
    left = MAX_TAGS
    for tag in tags:
        parts = tag.split("-")
        left -= math.prod(part.count(".") + 1 for part in parts)
        if left < 0:
            raise FormatError(f"its tags stand for more than {MAX_TAGS}", where="WHEEL")
        if len(parts) == 3:
            yield from WheelName("", "", "", *parts).tags
        else:
            yield tag


def _split_folder(dist_info: str) -> tuple[str, str]:
    project, dash, version = dist_info.removesuffix(".dist-info").partition("-")
    if not dash:
        raise FormatError("not PROJECT-VERSION.dist-info", where=dist_info)
    return project, version


def _lines(text: bytes) -> Iterator[_Line]:
    """All fields; FormatError where there are more than any file has."""
    found = _END_OF_FIELDS.search(text)
    assert found is not None, "\\Z matches every text"
    most, at = found.start(), 0
    for _ in range(MAX_FIELDS):
        start = _START.search(text, at, most)
        if not start:
            return
        stop = _STOP.search(text, start.end(), most)
        assert stop is not None, "\\Z matches every text"
        at = stop.start()
        yield _Line(start[1].lower(), start.end(), at)
    if _START.search(text, at, most):
        raise FormatError(f"METADATA or WHEEL has more than {MAX_FIELDS} fields")


def _named(text: bytes, name: str) -> list[_Line]:
    return [line for line in _lines(text) if line.name == name.lower().encode()]


def _only(values: list[str], name: str, where: str) -> str:
    if len(values) != 1:
        count = "no" if not values else str(len(values))
        raise FormatError(f"{count} {name} fields, where one is needed", where=where)
    return values[0]


# -- what must be installed besides ----------------------------------------------------------------

_MOST_NEEDED = 1000  # lines; more is no METADATA of a project


def requirements_of(metadata: bytes, python: str) -> tuple[Requirement, ...]:
    """What must be there under a Python (`3.11`), without what only extras want.

    Raises FormatError where METADATA has what is not a valid requirement.
    """
    lines = fields(metadata, "Requires-Dist")
    if len(lines) > _MOST_NEEDED:
        raise FormatError(f"{len(lines)} requirements are too many", where="METADATA")
    return tuple(one for one in map(_requirement, lines) if _applies(one, python))


def requirements(metadata: bytes) -> Iterator[Requirement]:
    """What METADATA says in Requires-Dist, without what is no requirement."""
    for text in fields(metadata, "Requires-Dist"):
        with suppress(ValueError, RecursionError):
            yield Requirement(text)


def named(requirements: Iterable[Requirement], name: str) -> tuple[Requirement, ...]:
    """Those for one project."""
    wanted = canonicalize_name(name)
    return tuple(one for one in requirements if canonicalize_name(one.name) == wanted)


def allows(requirement: Requirement, version: str) -> bool:
    """Whether a version is one of those that a requirement takes."""
    return requirement.specifier.contains(version, prereleases=True)


def _requirement(line: str) -> Requirement:
    try:
        return Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        raise FormatError(f"{line!r:.200} is not a valid requirement", where="METADATA") from error


def _applies(requirement: Requirement, python: str) -> bool:
    if requirement.marker is None:
        return True
    here = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    return requirement.marker.evaluate(here)


# -- what it was built for -------------------------------------------------------------------------

# By its version's label, and what it requires.

_LOCAL_CUDA = re.compile(r"cu(1[0-9])([0-9])?(?![0-9])")
_LOCAL_TORCH = re.compile(r"torch_?([0-9]+\.[0-9]+)")


def minor(version: object) -> str:
    """`13.0` of `13.0.2`; '' for anything else."""
    if not isinstance(version, str):
        return ""
    found = re.match(r"[0-9]{1,3}\.[0-9]{1,3}(?![0-9])", version)
    return found[0] if found else ""


def local_cuda(local: str) -> str:
    """Of `cu128`; a label that names the major version alone, `cu12`, tells too little."""
    found = _LOCAL_CUDA.match(local)
    return f"{found[1]}.{found[2]}" if found and found[2] else ""


def local_torch(local: str) -> str:
    found = _LOCAL_TORCH.search(local)
    return found[1] if found else ""


def required_torch(metadata: bytes) -> str:
    """`2.11` where METADATA requires `torch==2.11.*` or `torch==2.11.0`; else ''."""
    for wanted in requirements(metadata):
        exact = [one.version for one in wanted.specifier if one.operator in ("==", "~=")]
        if canonicalize_name(wanted.name) == "torch" and exact:
            return minor(exact[0].removesuffix(".*") + ".0")
    return ""


# What `import` makes of a file's name: `x.py`, `x.so`, `x.abi3.so`, `x.cpython-….so`; on Windows
# `x.pyd`, `x.cp311-win_amd64.pyd`.
_MODULE = re.compile(
    r"([^\W\d]\w*)\.(?:py|so|abi3\.so|cpython-[\w-]+\.so|pyd|(?:cp|pp)[0-9]+\w*-\w+\.pyd)"
)
# Folders that projects ship by mistake; importing one would want their tests' own tools.
_NO_MODULES = ("test", "tests", "benchmark", "benchmarks", "docs", "example", "examples")


def top_modules(files: Collection[str], listed: str = "") -> tuple[str, ...]:
    """A wheel's own modules: packages first, then single files, each in alphabetical order.

    files: all names in the wheel. listed: its top_level.txt, or ''; where that names some of
    the modules that are there, it decides.
    """
    packages = sorted(set(_packages(files)))
    singles = sorted({match[1] for match in map(_MODULE.fullmatch, files) if match} - {*packages})
    found = [name for name in (*packages, *singles) if name not in _NO_MODULES]
    chosen = [name for name in found if name in listed.split()]
    return tuple(chosen or found)


def _packages(files: Collection[str]) -> Iterator[str]:
    for name in files:
        folder, slash, rest = name.partition("/")
        if slash and rest == "__init__.py" and folder.isidentifier():
            yield folder


# -- RECORD ----------------------------------------------------------------------------------------

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
class RecordRow:
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
class RecordFile:
    """RECORD as it was read, by path; mistakes are those that can be seen in it alone."""

    path: str
    rows: Mapping[str, RecordRow]
    mistakes: tuple[Mistake, ...]

    def watch(self, name: str) -> Digester:
        """For the content of a file, piece by piece, as it is read."""
        row = self.rows.get(name)
        strong = row is not None and row.algorithm in _STRONG
        return Digester(row.algorithm if row and strong else _DEFAULT)


class Digester:
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


def read_record(path: str, data: bytes) -> RecordFile:
    """RECORD at `path`; what cannot be understood is among its mistakes."""
    rows: dict[str, RecordRow] = {}
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
    return RecordFile(path, rows, tuple(mistakes))


def check_record(record: RecordFile, files: Mapping[str, Digester]) -> None:
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


def mistakes_of(record: RecordFile, files: Mapping[str, Digester]) -> Iterator[Mistake]:
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


def _take(line: list[str], rows: dict[str, RecordRow]) -> Iterator[Mistake]:
    if not line:
        return
    if len(line) != 3:
        yield Mistake(line[0], f"a line of RECORD has {len(line)} parts, not three")
    elif line[0] in rows:
        yield Mistake(line[0], "RECORD lists it twice")
    else:
        rows[line[0]] = RecordRow(line[1], line[2])


def _own_row(name: str, row: RecordRow) -> Iterator[Mistake]:
    if row.hash or row.size:
        yield Mistake(name, "RECORD cannot hold its own hash or size")


def _row_findings(name: str, row: RecordRow, found: Digester) -> Iterator[Mistake]:
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
