"""The findings of checks, and the evidence that they look at, read in one pass over the wheel."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import text
from ..errors import FatwheelError, FormatError
from ..fatbin.binary import (
    HEAD,
    AskedSymbol,
    asked_of,
    exports_of,
    imports_of,
    is_binary,
    read_binary,
)
from ..fatbin.embedded import Bound, find_embedded
from ..fatbin.images import disagreements, in_part
from ..provenance.beside import LOCK, STATEMENT
from ..provenance.lock import FILE as LOCK_FILE
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.record import plans_of
from ..provenance.statement import FILE as STATEMENT_FILE
from ..provenance.statement import Statement, read_statement
from ..storage.files import readable
from ..wheels.archive import Wheel, open_wheel
from ..wheels.metadata import Digester, RecordFile, read_record
from ..wheels.name import VARIANT
from .contents import Container, Contents, layouts_of, read_containers, sum_up
from .papers import (
    NO_PAPERS,
    BinarySlices,
    Papers,
    differing,
    read_beside,
    read_inside,
    shown,
    slices_of_binary,
    with_plans,
)

NOTE, OK, WARNING, WRONG = "note", "ok", "warning", "wrong"
_RANKS = (NOTE, OK, WARNING, WRONG)


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    severity: 'note' for what is only said, 'warning' for what may be a problem on some machines,
              'wrong' for what must not be.
    where:    the file, and the part of it, in the wheel; '' for the wheel itself.
    """

    severity: str
    what: str
    where: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One question asked of a wheel, and all that was found."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def result(self) -> str:
        """'ok', 'warning' or 'wrong': the worst of its findings."""
        severities = (finding.severity for finding in self.findings)
        return max((OK, *severities), key=_RANKS.index)


def note(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(NOTE, what, where, tuple(details))


def warning(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(WARNING, what, where, tuple(details))


def wrong(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(WRONG, what, where, tuple(details))


def refused(error: FatwheelError, where: str = "") -> Finding:
    """What cannot be read, as a finding; where: for an error that does not say."""
    return wrong(error.what, error.where or where, [*error.details, *filter(None, [error.hint])])


# -- files beside a wheel --------------------------------------------------------------------------

# The files beside a wheel that `invoke build` wrote with it, against the wheel.


def beside_findings(evidence: Evidence, inside: Statement | None) -> Iterator[Finding]:
    """What contradicts the wheel, or `inside`, the statement in it, where it can be read."""
    beside = evidence.papers.beside
    # An index shows the one in the wheel beside it.
    own = evidence.papers.inside.get(STATEMENT_FILE)
    if STATEMENT in beside and beside[STATEMENT] != own:
        yield from _statement_findings(evidence, inside)
    if LOCK in beside and evidence.papers.inside.get(LOCK_FILE) != beside[LOCK]:
        yield wrong("the lock beside the wheel is not the one in it", _name(evidence, LOCK))


def _statement_findings(evidence: Evidence, inside: Statement | None) -> Iterator[Finding]:
    where = _name(evidence, STATEMENT)
    try:
        statement = read_statement(evidence.papers.beside[STATEMENT], where)
    except FormatError as error:
        if evidence.papers.inside:
            yield refused(error)
        else:
            yield note(f"it was not checked: {error.what}", where)
        return
    right = {evidence.filename: evidence.papers.sha256}
    if statement.subjects != right:
        lines = list(differing(right, dict(statement.subjects), "subject"))
        yield wrong("it is not about this file", where, lines)
    if inside is None:
        yield wrong("the wheel has no statement that matches it", where)
        return
    contradictions = list(_contradictions(inside.predicate, statement.predicate))
    if contradictions:
        yield wrong("it contradicts the statement in the wheel", where, contradictions)


def _contradictions(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> Iterator[str]:
    """Where the predicate beside the wheel says something else, or more than what the engine
    adds: its own parameters, and as materials images and what they are made of."""
    known, definition = inner["buildDefinition"], outer["buildDefinition"]
    parameters = {
        name: value
        for name, value in definition["internalParameters"].items()
        if name in known["internalParameters"]
    }
    count = len(known["resolvedDependencies"])
    materials, added = (
        definition["resolvedDependencies"][:count],
        definition["resolvedDependencies"][count:],
    )
    in_common = {
        **definition,
        "internalParameters": parameters,
        "resolvedDependencies": materials,
    }
    yield from differing(dict(inner), {**outer, "buildDefinition": in_common})
    for material in added:
        if not _is_of_engine(material) or material.get("name") in _names(materials):
            yield f"resolvedDependencies: {shown(material)} does not belong there"


def _is_of_engine(material: Any) -> bool:
    annotations = material.get("annotations") if isinstance(material, dict) else None
    return isinstance(annotations, dict) and annotations.get("role") in ("image", "wine")


def _names(materials: Iterable[Any]) -> list[Any]:
    return [material.get("name") for material in materials if isinstance(material, dict)]


def _name(evidence: Evidence, suffix: str) -> str:
    return evidence.filename + suffix


# -- evidence --------------------------------------------------------------------------------------

# All that the checks of a wheel look at, read in one pass over the archive.


_MODULE = "PyInit"  # and an underscore, or U_ for names beyond ASCII
# std::locale::classic(), as g++ names it: a library that defines it holds libstdc++.
_OF_LIBSTDCXX = "_ZNSt6locale7classicEv"
_LIBRARY = re.compile(r"\.(?:so(?:\.[0-9.]+)?|pyd|dll)\Z", re.ASCII)
_HEAD_KEPT = 64  # bytes: enough to say what a file is instead


@dataclass(frozen=True)
class Examined:
    """One binary of a wheel.

    linked:       whether it is a library or program, and not an object.
    imports:      the libraries it asks the system for.
    initialisers: the functions it exports that initialise a Python module: `PyInit__C`.
    disparities:  where images of one container define other kernels or take other parameters.
    asked:        the functions and variables that it asks other libraries for.
    in_part:      by container, the kernels that only some of its images define, with their names.
    offers_libstdcxx: whether it exports what libstdc++ defines.
    """

    contents: Contents
    linked: bool
    imports: tuple[str, ...]
    initialisers: frozenset[str]
    disparities: tuple[Finding, ...]
    in_part: Mapping[int | None, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    asked: tuple[AskedSymbol, ...] = ()
    offers_libstdcxx: bool = False


@dataclass(frozen=True)
class Evidence:
    """What the checks look at: a wheel's documents, files and binaries, and damaged binaries.

    papers: what it says of its build, and what is needed to check that.
    impostors: how files begin that are named like libraries and are none.
    variant: its variant.json, None where there is none.
    """

    filename: str
    name: str
    version: str
    tags: tuple[str, ...]
    dist_info: str
    metadata: bytes
    wheel: bytes
    record: RecordFile
    files: Mapping[str, Digester]
    binaries: tuple[Examined, ...]
    unreadable: tuple[Finding, ...]
    papers: Papers = NO_PAPERS
    impostors: Mapping[str, bytes] = field(default_factory=dict)
    variant: bytes | None = None

    @functools.cached_property
    def shipped(self) -> frozenset[str]:
        """The names of its files without their folders, in lower case."""
        return frozenset(name.rpartition("/")[2].lower() for name in self.files)


def gather(path: Path) -> Evidence:
    """Read a wheel from its first to its last file.

    UsageError where there is no such file, FormatError where its archive is not sound: nothing
    in it can be believed then.
    """
    with readable(path, "a wheel"), open_wheel(path) as wheel:
        return _gather(wheel, path)


def _gather(wheel: Wheel, path: Path) -> Evidence:
    folder = wheel.dist_info
    inside, beside = read_inside(wheel), read_beside(path)
    record = read_record(f"{folder}/RECORD", wheel.read(f"{folder}/RECORD"))
    plans = plans_of(inside.get(RECORD_FILE))
    files: dict[str, Digester] = {}
    binaries: list[Examined] = []
    unreadable: list[Finding] = []
    slices: list[BinarySlices] = []
    impostors: dict[str, bytes] = {}
    bound = Bound()
    for member in wheel.members:
        watched = files[member.name] = record.watch(member.name)
        head = wheel.start(member.name, HEAD)
        if not is_binary(head):
            if _LIBRARY.search(member.name):
                impostors[member.name] = head[:_HEAD_KEPT]
            for piece in wheel.pieces(member.name):
                watched.update(piece)
            continue
        with wheel.mapped(member.name, watched.update) as data:
            try:
                examined = examine(member.name, data, bound)
                if inside:
                    slices.append(slices_of_binary(member.name, data))
                    contents = with_plans(examined.contents, slices[-1], plans)
                    examined = replace(examined, contents=contents)
                binaries.append(examined)
            except FormatError as error:
                where = ": ".join(part for part in (member.name, error.where) if part)
                unreadable.append(wrong(error.what, where, error.details))
    return Evidence(
        filename=wheel.path.name,
        name=wheel.name,
        version=wheel.version,
        tags=wheel.tags,
        dist_info=folder,
        metadata=wheel.read(f"{folder}/METADATA"),
        wheel=wheel.read(f"{folder}/WHEEL"),
        record=record,
        files=files,
        binaries=tuple(binaries),
        unreadable=tuple(unreadable),
        papers=Papers(inside, beside, wheel.digest()[0] if beside else "", tuple(slices)),
        impostors=impostors,
        variant=wheel.read(variant) if (variant := f"{folder}/{VARIANT}") in files else None,
    )


def examine(path: str, data: memoryview, bound: Bound) -> Examined:
    """One binary; FormatError where it cannot be read. bound: of the search among its data."""
    binary = read_binary(data)
    disparities: dict[str, list[str]] = {}
    in_some: dict[int | None, Mapping[str, tuple[str, ...]]] = {}

    def compared() -> Iterator[Container]:
        for number, found in read_containers(data, binary, layouts_of):
            images = [read.kernels for read in found if read.image.kind in ("elf", "ptx")]
            for one in disagreements(images):
                disparities.setdefault(one.what, []).extend(one.lines)
            if differing := in_part(images):
                in_some[number] = differing
            yield number, found

    contents = sum_up(path, binary, compared(), find_embedded(data, binary.format, bound))
    imported, exported = (imports_of(data), exports_of(data)) if binary.linked else ((), ())
    initialisers = frozenset(name for name in exported if name.startswith(_MODULE))
    findings = [wrong(what, path, lines) for what, lines in disparities.items()]
    lines = [
        f"only in {', '.join(titles)}: {name}"
        for kernels in in_some.values()
        for name, titles in kernels.items()
    ]
    if lines:
        kernels = text.count(len(lines), "kernel")
        what = f"{kernels} only in some images: sources can leave kernels out for an architecture"
        findings.append(note(what, path, lines))
    return Examined(
        contents,
        binary.linked,
        imported,
        initialisers,
        tuple(findings),
        in_some,
        asked_of(data),
        binary.format == "elf" and _OF_LIBSTDCXX in exported,
    )
