"""Reads the record and the lock from the dist-info folder of a wheel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from .. import __version__
from ..arch import ArchRequest, parse_arch_list
from ..errors import FatwheelError, FormatError
from ..model import Front
from ..storage.documents import MOST, read_object
from ..storage.files import readable
from ..wheels.archive import Wheel, open_wheel
from ..wheels.name import WheelName
from ..wheels.pack import Closing, NewFile, nothing_else, plain_file
from .lock import FILE as LOCK_FILE
from .lock import BuildLock, read_lock
from .record import FAST, FRONTS, BuildRecord, record_of, unlocked, whole
from .record import FILE as RECORD_FILE
from .sbom import FILE as SBOM_FILE
from .sbom import sbom_bytes
from .statement import EDIT, Statement, predicate_of, read_statement, statement_bytes
from .statement import FILE as STATEMENT_FILE


@dataclass(frozen=True)
class Held:
    """A wheel's own provenance: what it was made of, and how.

    name: the wheel's file name. archs, front, fronts, front_units: as the build was asked
    for.
    """

    name: str
    record: BuildRecord
    lock: BuildLock
    lock_data: bytes
    archs: tuple[ArchRequest, ...]
    front: str
    fronts: tuple[Front, ...]
    front_units: tuple[str, ...]


def read_held(path: Path, *kernels: Path) -> Held:
    """The provenance in a wheel. kernels: where source folders are looked for.

    UsageError where there is no such file; FormatError where it is no wheel, where nothing in it
    says how it was built, or where that is damaged or of a newer fatwheel.
    """
    with readable(path, "a wheel"), open_wheel(path) as wheel:
        record_data = _read(wheel, RECORD_FILE)
        lock_data = _read(wheel, LOCK_FILE)
        statement_data = _read(wheel, STATEMENT_FILE)
    if record_data is None:
        raise _without(path, "it was not built by fatwheel")
    record = record_of(record_data)
    content = record.content()
    _check_age(content, path)
    if lock_data is None:
        raise _without(path, f"fatwheel {content['fatwheel']} did not include one")
    if statement_data is not None:
        _check_built(read_statement(statement_data, f"{path.name}, {STATEMENT_FILE}"), path)
    lock = read_lock(lock_data, f"{path.name}, {LOCK_FILE}", *kernels)
    written = whole(record, f"{path.name}, {RECORD_FILE}")
    archs, fronts = _architectures(written, lock, path)
    return Held(
        path.name, written, lock, lock_data, archs, written.front, fronts, written.front_units
    )


def _read(wheel: Wheel, name: str) -> bytes | None:
    place = f"{wheel.dist_info}/{name}"
    sizes = {member.name: member.size for member in wheel.members}
    if place not in sizes:
        return None
    if sizes[place] > MOST:
        raise FormatError(f"it has {sizes[place]} bytes; at most {MOST} are read", where=place)
    return wheel.read(place)


def _without(path: Path, why: str) -> FormatError:
    return FormatError(
        f"nothing in the wheel says how to build it again: {why}",
        where=path.name,
        hint="wheels that `invoke build` makes have a lock (fatwheel.lock.json)",
    )


def _check_built(statement: Statement, path: Path) -> None:
    if statement.build_type == EDIT:
        raise FormatError(
            "this wheel was not built: `invoke thin`, `invoke stitch` or `invoke codesign` made it "
            "from others",
            where=path.name,
            hint="rebuild those, and edit the results in the same way",
        )


def _check_age(record: Mapping[str, Any], path: Path) -> None:
    try:
        newer = Version(str(record["fatwheel"])[:60]) > Version(__version__)
    except (KeyError, InvalidVersion) as error:
        raise FormatError(f"{RECORD_FILE} is damaged: {error}", where=path.name) from error
    if newer:
        raise FormatError(
            f"fatwheel {record['fatwheel']} made it, and this is fatwheel {__version__}, which "
            "may build differently",
            where=path.name,
            hint=f"use fatwheel {record['fatwheel']}",
        )


def _architectures(
    record: BuildRecord, lock: BuildLock, path: Path
) -> tuple[tuple[ArchRequest, ...], tuple[Front, ...]]:
    """What was asked for, and the fronts that made it."""
    try:
        archs = parse_arch_list(",".join(record.archs), lock.toolchain.archs)
        known = {arch.compute: arch for arch in lock.toolchain.archs}
        codes = {code for arch in lock.toolchain.archs for code in (arch.sm, arch.compute)}
        fronts = tuple(
            Front(known[front.virtual], front.codes, front.split) for front in record.fronts
        )
        asked = [code for front in fronts for code in front.codes]
        if not codes.issuperset(asked) or len(set(asked)) != len(asked):
            raise ValueError("its fronts list images that nvcc cannot make, or list one twice")
        if record.front not in (*FRONTS, FAST):
            raise ValueError(f"front {record.front!r:.40}")
        for name in ("python", "torch"):
            said = getattr(record, name)
            if said != getattr(lock, name):
                raise ValueError(f"its {name} is {said!r:.40}, the lock has a different one")
    except (KeyError, ValueError, FatwheelError) as error:
        raise FormatError(f"{RECORD_FILE} is damaged: {error}", where=path.name) from error
    return archs, fronts


# -- edited wheels ---------------------------------------------------------------------------------

# A build's lock does not depend on architectures. So where all wheels that go in have the same
# lock, what comes out keeps it, and has an SBOM and a statement of its own. These do not name the
# wheels that went in: thinning twice is thinning once, and parts stitched in any order give the
# same bytes. Else there is only a record, which then names no lock.


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
        _check_origin(record, lock)
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
    """The files that describe it in a wheel of this name, and the one written last.

    Raises FormatError where the record lacks what these must tell.
    """
    if origin is None:
        return {}, nothing_else
    if origin.lock is None:
        return {RECORD_FILE: origin.record}, nothing_else
    lock, record = _lock(origin.lock), record_of(origin.record).content()
    sbom = sbom_bytes(lock, record, name.project, name.version)
    predicate = predicate_of(lock, record, build_type=EDIT)

    def closing(written: Mapping[str, str]) -> list[NewFile]:
        statement = statement_bytes(list(written.items()), predicate)
        return [plain_file(f"{name.dist_info}/{STATEMENT_FILE}", statement)]

    return {RECORD_FILE: origin.record, LOCK_FILE: origin.lock, SBOM_FILE: sbom}, closing


def _check_origin(record: bytes, lock: bytes) -> None:
    """FormatError unless a new SBOM and statement can be made of these."""
    sha256 = hashlib.sha256(lock).hexdigest()
    if read_object(record, RECORD_FILE).get("lock") != sha256:
        raise FormatError("it is not the lock of the build", where=LOCK_FILE)
    predicate_of(_lock(lock), record_of(record).content())


def _lock(data: bytes) -> BuildLock:
    # No source is looked for, so where recipes are makes no difference.
    return read_lock(data, LOCK_FILE, Path())


def _is_of_one_build(record: bytes) -> bool:
    return "stitched" not in json.loads(record)
