"""Checks that a wheel's provenance is complete and agrees with itself and the wheel, and that the
envelope beside it is signed.

What provenance says cannot be proven from the wheel alone: `invoke rebuild` does that. But every
part of it must fit every other part and the bytes, so that none of them can be changed alone.

A good signature proves that the key's owner signed a statement about a file of this name and
sha256. What the statement says of the build is as true as its signer is honest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import FatwheelError, FormatError
from ..provenance.beside import ENVELOPE, STATEMENT, beside, content_of, files_for_installers
from ..provenance.lock import FILE as LOCK_FILE
from ..provenance.lock import BuildLock, materials_of, read_lock
from ..provenance.record import (
    FAST,
    BuildRecord,
    RecordedRecipe,
    RecordedToolchain,
    built_how,
    record_of,
    unproven,
    whole,
)
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.sbom import FILE as SBOM_FILE
from ..provenance.sbom import materials_in, sbom_bytes
from ..provenance.statement import FILE as STATEMENT_FILE
from ..provenance.statement import Statement, predicate_of, read_statement
from ..storage.documents import read_object
from ..storage.files import digest_of, readable
from ..text import count
from ..wheels.name import canonical_project, canonical_version
from .device import slice_findings
from .evidence import Evidence, Finding, beside_findings, note, refused, warning, wrong
from .papers import INSIDE, asked_codes, differing, shown


@dataclass(frozen=True)
class _Documents:
    """The documents that say how the wheel was made, each readable by itself."""

    record: BuildRecord
    lock: BuildLock
    statement: Statement


def provenance_findings(evidence: Evidence) -> Iterator[Finding]:
    """The record, lock, statement and SBOM of a wheel; nothing for wheels that have none."""
    inside = evidence.papers.inside
    findings: list[Finding] = []
    documents = None
    if inside and not _is_older(inside):
        findings, documents = _read(inside)
    elif inside:
        yield note(f"{RECORD_FILE} names no lock: what it was built from is unknown")
        yield from _unproven_findings(inside[RECORD_FILE])
    yield from findings
    if documents:
        yield from _agreement(documents, evidence)
    yield from beside_findings(evidence, documents.statement if documents else None)


def _is_older(inside: Mapping[str, bytes]) -> bool:
    """Whether a wheel has nothing but a record that names no lock: older fatwheels wrote such
    ones, and so do edits of wheels with different locks."""
    if set(inside) != {RECORD_FILE}:
        return False
    try:
        record = read_object(inside[RECORD_FILE], RECORD_FILE)
    except FormatError:
        return False
    stitched = record.get("stitched")
    parts = stitched if isinstance(stitched, list) else [record]
    return not any(isinstance(part, dict) and "lock" in part for part in (record, *parts))


def _read(inside: Mapping[str, bytes]) -> tuple[list[Finding], _Documents | None]:
    """Read every document; findings for those that are damaged."""
    missing = [name for name in INSIDE if name not in inside]
    if missing:
        there = ", ".join(name for name in INSIDE if name in inside)
        what = f"it is not in the wheel, which has {there}"
        return [wrong(what, name) for name in missing], None
    findings: list[Finding] = []
    record = lock = statement = None
    with _refused(findings):
        read_object(inside[RECORD_FILE], RECORD_FILE)
        record = whole(record_of(inside[RECORD_FILE]))
    with _refused(findings):
        lock = read_lock(inside[LOCK_FILE], LOCK_FILE, Path())
    with _refused(findings):
        statement = read_statement(inside[STATEMENT_FILE], STATEMENT_FILE)
    with _refused(findings):
        materials_in(inside[SBOM_FILE], SBOM_FILE)
    if findings or record is None or lock is None or statement is None:
        return findings, None
    return [], _Documents(record, lock, statement)


@contextmanager
def _refused(findings: list[Finding]) -> Iterator[None]:
    """Turn a FormatError of the block into a finding."""
    try:
        yield
    except FormatError as error:
        findings.append(refused(error))


def _agreement(documents: _Documents, evidence: Evidence) -> Iterator[Finding]:
    if own := documents.lock.toolchain.of_a_machine:
        what = f"built with compilers that one machine had installed ({own})"
        yield note(f"{what}: it cannot be rebuilt elsewhere")
    if documents.lock.recipe.source.checkout:
        yield note("built from a folder that only one machine has: it cannot be rebuilt")
    yield from _unproven_findings(evidence.papers.inside[RECORD_FILE])
    yield from _front_findings(documents.record)
    yield from _lock_findings(documents, evidence)
    yield from _wheel_findings(documents.record, evidence)
    yield from _statement_findings(documents, evidence)
    of_sbom = list(_sbom_findings(documents.lock, evidence))
    yield from of_sbom or _sbom_bytes_findings(documents, evidence)
    for finding in slice_findings(documents.record.units, evidence.papers.slices):
        yield replace(finding, where=RECORD_FILE)


def _unproven_findings(record: bytes) -> Iterator[Finding]:
    """How the builds of a record chose their fronts, where that was without proof."""
    for word in unproven(record):
        kind = warning if word == FAST else note
        yield kind(built_how(word), RECORD_FILE)


def _front_findings(record: BuildRecord) -> Iterator[Finding]:
    """How fronts were chosen, against the fronts."""
    split = [front.virtual for front in record.fronts if front.split]
    shared = [front.virtual for front in record.fronts if set(front.codes) - front.own]
    for what, found, others in (
        ("split", split, ("exact", "shared")),
        ("shared", shared, ("exact", "split")),
    ):
        if found and record.front in others:
            names = ", ".join(found)
            yield wrong(f"its front is {record.front}, but {what} are {names}", RECORD_FILE)


def _lock_findings(documents: _Documents, evidence: Evidence) -> Iterator[Finding]:
    """The lock against the record that names it."""
    record, lock = documents.record, documents.lock
    sha256 = hashlib.sha256(evidence.papers.inside[LOCK_FILE]).hexdigest()
    if record.lock != sha256:
        details = (f"{RECORD_FILE} says {shown(record.lock)}", f"it is {sha256}")
        yield wrong(f"its sha256 is not the one that {RECORD_FILE} names", LOCK_FILE, details)
    contradictions = list(differing(_of_lock(lock), _of_record(record)))
    if contradictions:
        yield wrong(f"it contradicts {LOCK_FILE}", RECORD_FILE, contradictions)


def _of_lock(lock: BuildLock) -> dict[str, Any]:
    """What a lock and a record both say."""
    return {
        "fatwheel": lock.fatwheel,
        "recipe": RecordedRecipe.of(lock.recipe).model_dump(),
        "toolchain": RecordedToolchain.of(lock.toolchain).model_dump(),
        "python": lock.python,
        "torch": lock.torch,
    }


def _of_record(record: BuildRecord) -> dict[str, Any]:
    return record.model_dump(include={"fatwheel", "recipe", "toolchain", "python", "torch"})


def _wheel_findings(record: BuildRecord, evidence: Evidence) -> Iterator[Finding]:
    """The record against METADATA, and against the images that are inside."""
    recipe = record.recipe
    for what, said, found in (
        ("project", canonical_project(recipe.project), canonical_project(evidence.name)),
        ("version", _normal(recipe.version), _normal(evidence.version.partition("+")[0])),
    ):
        if said != found:
            details = (f"{RECORD_FILE} says {shown(said)}", f"METADATA says {shown(found)}")
            yield wrong(f"its {what} differs from that in METADATA", RECORD_FILE, details)
    try:
        asked = asked_codes(record.archs)
    except FormatError as error:
        yield wrong(error.what, RECORD_FILE)
        return
    contents = [binary.contents for binary in evidence.binaries]
    held = frozenset(image.name for one in contents for image in one.images)
    held |= frozenset().union(*(one.linkable for one in contents))
    for what, others in (("its archs", asked), ("the images inside", held)):
        if record.codes - others:
            missing = ", ".join(map(shown, sorted(record.codes - others)))
            yield wrong(f"its fronts name images that are not among {what}: {missing}", RECORD_FILE)
    if asked - record.codes:
        missing = ", ".join(sorted(asked - record.codes))
        yield wrong(f"its archs ask for images that its fronts do not name: {missing}", RECORD_FILE)


def _normal(version: str) -> str:
    """In the one spelling, where it is a version."""
    try:
        return canonical_version(version)
    except FormatError:
        return version


def _statement_findings(documents: _Documents, evidence: Evidence) -> Iterator[Finding]:
    """The statement against the files, and against record and lock."""
    folder = evidence.dist_info
    untold = (f"{folder}/RECORD", f"{folder}/{STATEMENT_FILE}")
    files = {name: file.sha256 for name, file in evidence.files.items() if name not in untold}
    statement = documents.statement
    if statement.subjects != files:
        lines = list(differing(files, dict(statement.subjects), "subject"))
        yield wrong("its subjects are not the files of the wheel", STATEMENT_FILE, lines)
    try:
        record = documents.record.content()
        right = predicate_of(documents.lock, record, build_type=statement.build_type)
    except FormatError as error:
        yield refused(error)
        return
    contradictions = list(differing(right, dict(statement.predicate)))
    if contradictions:
        what = f"it contradicts {LOCK_FILE} or {RECORD_FILE}"
        yield wrong(what, STATEMENT_FILE, contradictions)


def _sbom_findings(lock: BuildLock, evidence: Evidence) -> Iterator[Finding]:
    """The SBOM's components against the lock's materials, its subject against METADATA."""
    data = evidence.papers.inside[SBOM_FILE]
    found = Counter(materials_in(data, SBOM_FILE))
    right = Counter((one.name, one.version, one.sha256) for one in materials_of(lock))
    lines = [
        *(f"only in {LOCK_FILE}: {' '.join(one)}" for one in sorted(right - found)),
        *(f"only in the SBOM: {' '.join(one)}"[:200] for one in sorted(found - right)),
    ]
    if lines:
        yield wrong(f"its components are not what {LOCK_FILE} lists", SBOM_FILE, lines)
    about = read_object(data, SBOM_FILE).get("metadata")
    component = about.get("component") if isinstance(about, dict) else None
    subject = component if isinstance(component, dict) else {}
    said = canonical_project(str(subject.get("name"))), _normal(str(subject.get("version")))
    right_subject = canonical_project(evidence.name), _normal(evidence.version)
    if said != right_subject:
        details = (f"the SBOM says {' '.join(said)}", f"METADATA says {' '.join(right_subject)}")
        yield wrong("it is about another wheel", SBOM_FILE, details)


def _sbom_bytes_findings(documents: _Documents, evidence: Evidence) -> Iterator[Finding]:
    """The rest of the SBOM: names and addresses by which others look things up.

    Only a warning, for the library that writes SBOMs may be another one.
    """
    lock = documents.lock
    if lock.fatwheel != __version__:
        return
    project, _, version = evidence.dist_info.removesuffix(".dist-info").partition("-")
    try:
        right = sbom_bytes(lock, documents.record.content(), project, version)
    except FormatError as error:
        yield refused(error)
        return
    found = evidence.papers.inside[SBOM_FILE]
    if found != right:
        lines = differing(read_object(right, SBOM_FILE), read_object(found, SBOM_FILE))
        what = f"it differs from what fatwheel writes for this {LOCK_FILE}"
        yield warning(what, SBOM_FILE, lines)


# -- signature -------------------------------------------------------------------------------------

_SHOWN = 5


def signature_findings(wheel: Path, key: Path) -> tuple[Finding, ...]:
    """What is wrong with the signature of a wheel, or whose it is.

    key: a public key in a PEM file. UsageError where that, or the wheel, cannot be read.
    """
    # What it imports takes longer than most checks.
    from ..provenance.signing import check_signed, load_key, name_of, read_envelope

    public = load_key(key)
    place = beside(wheel, ENVELOPE)
    try:
        data = content_of(place)
        if data is None:
            what = f"it is not signed: there is no {place.name} beside it"
            return (wrong(what, details=["`invoke build --sign KEY` and `invoke sign` write one"]),)
        envelope = read_envelope(data, place.name)
        check_signed(envelope, public, place.name)
        statement = read_statement(envelope.payload, place.name)
    except FatwheelError as error:
        return (refused(error, place.name),)
    others = len(envelope.signatures) - 1
    besides = f"; {count(others, 'other signature')} in it" if others else ""
    return (
        note(f"signed with the {name_of(public)}{besides}", place.name),
        *_subject_findings(wheel, statement, place.name),
        *_copy_findings(wheel, envelope.payload),
        *_installer_findings(wheel),
    )


def _subject_findings(wheel: Path, statement: Statement, place: str) -> Iterator[Finding]:
    """What was signed must be this very file, by name and content, and nothing else."""
    subjects = dict(statement.subjects)
    if len(subjects) != 1:
        names = [repr(name[:200]) for name in list(subjects)[:_SHOWN]]
        what = f"the signed statement is about {count(len(subjects), 'file')}, not this one alone"
        yield wrong(what, place, names)
        return
    [(name, signed)] = subjects.items()
    if name != wheel.name:
        details = (f"signed: {name[:200]!r}", f"this is: {wheel.name!r}")
        yield wrong("another file was signed, or this one was renamed", place, details)
    with readable(wheel, "a wheel"):
        found = digest_of(wheel)
    if signed != found:
        details = (f"signed: sha256 {signed[:64]!r}", f"it has: sha256 {found!r}")
        yield wrong("the wheel is not the one that was signed", details=details)


def _copy_findings(wheel: Path, payload: bytes) -> Iterator[Finding]:
    """The statement that lies open beside the wheel must be the signed one."""
    place = beside(wheel, STATEMENT)
    try:
        data = content_of(place)
    except FormatError as error:
        yield refused(error, place.name)
        return
    if data is None:
        yield warning("it is missing; the signed statement contains all of it", place.name)
    elif data != payload:
        yield wrong("it differs from the signed statement", place.name)


def _installer_findings(wheel: Path) -> Iterator[Finding]:
    """No signature is over the files that tell installers what to install, so they must be what
    the wheel itself says."""
    try:
        contents = files_for_installers(wheel)
    except FormatError as error:
        yield refused(error, wheel.name)
        return
    for place, right in contents.items():
        try:
            found = content_of(place)
        except FormatError as error:
            yield refused(error, place.name)
            continue
        if found not in (None, right):
            what = "it differs from what fatwheel writes for this wheel"
            yield wrong(what, place.name, ["do not install from it, or build the wheel again"])
