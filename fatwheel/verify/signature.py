"""Checks the signature of a wheel: the envelope beside it, with a public key.

A good signature proves that the key's owner signed a statement about a file of this name and
sha256. What the statement says of the build is as true as its signer is honest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import FatwheelError, FormatError
from ..provenance.beside import ENVELOPE, STATEMENT, beside, content_of, files_for_installers
from ..provenance.signing import check_signed, load_key, name_of, read_envelope
from ..provenance.statement import Statement, read_statement
from ..storage.files import digest_of, readable
from ..text import count
from .evidence import Finding, note, warning, wrong

_SHOWN = 5


def signature_findings(wheel: Path, key: Path) -> tuple[Finding, ...]:
    """What is wrong with the signature of a wheel, or whose it is.

    key: a public key in a PEM file. UsageError where that, or the wheel, cannot be read.
    """
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
        return (_refused(error, place.name),)
    others = len(envelope.signatures) - 1
    besides = f"; {count(others, 'other signature')} in it" if others else ""
    return (
        note(f"signed with the {name_of(public)}{besides}", place.name),
        *_subject_findings(wheel, statement, place.name),
        *_copy_findings(wheel, envelope.payload),
        *_installer_findings(wheel),
    )


def _refused(error: FatwheelError, place: str) -> Finding:
    return wrong(error.what, error.where or place, [*error.details, *filter(None, [error.hint])])


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
        yield _refused(error, place.name)
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
        yield _refused(error, wheel.name)
        return
    for place, right in contents.items():
        try:
            found = content_of(place)
        except FormatError as error:
            yield _refused(error, place.name)
            continue
        if found not in (None, right):
            what = "it differs from what fatwheel writes for this wheel"
            yield wrong(what, place.name, ["do not install from it, or build the wheel again"])
