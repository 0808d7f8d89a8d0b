"""What an edited wheel says of the build that it is from.

A build's lock does not depend on architectures. So where all wheels that go in have the same lock,
what comes out keeps it, and has an SBOM and a statement of its own. These do not name the wheels
that went in: thinning twice is thinning once, and parts stitched in any order give the same bytes.
Else there is only a record, which then names no lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError
from ..jsonfile import read_object
from ..provenance.buildlock import BuildLock
from ..provenance.lockfile import FILE as LOCK_FILE
from ..provenance.lockfile import read_lock
from ..provenance.sbom import FILE as SBOM_FILE
from ..provenance.sbom import sbom_bytes
from ..provenance.statement import EDIT, predicate_of, statement_bytes
from ..provenance.statement import FILE as STATEMENT_FILE
from ..wheels.archive import Wheel
from ..wheels.name import WheelName
from ..wheels.pack import Closing, File, nothing_else, plain_file
from .record import FILE as RECORD_FILE
from .record import record_of, unlocked

# The files of a dist-info folder that tell of a wheel's build.
FILES = (RECORD_FILE, LOCK_FILE, SBOM_FILE, STATEMENT_FILE)


@dataclass(frozen=True)
class Origin:
    """record: the bytes of fatwheel.json. lock: those of fatwheel.lock.json, or None where the
    record is all there is; if there is one, the record is of one build and names it."""

    record: bytes
    lock: bytes | None


def read_origin(wheel: Wheel) -> tuple[Origin | None, str]:
    """What a wheel has, and why its lock is not kept, if it has one that cannot be; else ''."""
    names = {member.name for member in wheel.members}
    there = [name for name in FILES if f"{wheel.dist_info}/{name}" in names]
    if RECORD_FILE not in there:
        return None, ", ".join(there) and f"there is no {RECORD_FILE}"
    record = wheel.read(f"{wheel.dist_info}/{RECORD_FILE}")
    if there == [RECORD_FILE]:
        return Origin(record, None), ""
    try:
        if len(there) < len(FILES):
            missing = ", ".join(name for name in FILES if name not in there)
            raise FormatError(f"there is no {missing}")
        lock = wheel.read(f"{wheel.dist_info}/{LOCK_FILE}")
        _check(record, lock)
        return Origin(record, lock), ""
    except FormatError as error:
        return Origin(record, None), ": ".join(filter(None, (error.where, error.what)))


def edited_origin(
    origins: Sequence[Origin | None], edit: Callable[[Sequence[bytes]], bytes]
) -> Origin | None:
    """The origin of what is made of wheels with these, in whatever order they come.

    edit makes one record of theirs. Raises what it raises.
    """
    records = [origin.record for origin in origins if origin]
    if not records:
        return None
    locks = {origin.lock if origin else None for origin in origins}
    [lock] = locks if len(locks) == 1 else [None]
    if lock is not None:
        record = edit(records)
        if _is_of_one_build(record):
            return Origin(record, lock)
    return Origin(edit([unlocked(record) for record in records]), None)


def contents_of(origin: Origin | None, name: WheelName) -> tuple[Mapping[str, bytes], Closing]:
    """The files that tell of it in a wheel of this name, and the one that closes the wheel.

    Raises FormatError where the record lacks what these must tell.
    """
    if origin is None:
        return {}, nothing_else
    if origin.lock is None:
        return {RECORD_FILE: origin.record}, nothing_else
    lock, record = _lock(origin.lock), record_of(origin.record)
    sbom = sbom_bytes(lock, record, name.project, name.version)
    predicate = predicate_of(lock, record, build_type=EDIT)

    def closing(written: Mapping[str, str]) -> list[File]:
        statement = statement_bytes(list(written.items()), predicate)
        return [plain_file(f"{name.dist_info}/{STATEMENT_FILE}", statement)]

    return {RECORD_FILE: origin.record, LOCK_FILE: origin.lock, SBOM_FILE: sbom}, closing


def _check(record: bytes, lock: bytes) -> None:
    """FormatError unless a new SBOM and statement can be made of these."""
    sha256 = hashlib.sha256(lock).hexdigest()
    if read_object(record, RECORD_FILE).get("lock") != sha256:
        raise FormatError("it is not the lock of the build", where=LOCK_FILE)
    predicate_of(_lock(lock), record_of(record))


def _lock(data: bytes) -> BuildLock:
    # No source is looked for, so where recipes are makes no difference.
    return read_lock(data, LOCK_FILE, Path())


def _is_of_one_build(record: bytes) -> bool:
    return "stitched" not in json.loads(record)
