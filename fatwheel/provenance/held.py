"""What a wheel says of its own build: its record and its lock, read from its dist-info folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from .. import __version__
from ..arch import ArchRequest, parse_arch_list
from ..errors import FatwheelError, FormatError
from ..jsonfile import MOST
from ..mapped import readable
from ..model import Front
from ..postlink.record import FILE as RECORD_FILE
from ..postlink.record import Record, record_of
from ..wheels.archive import Wheel, open_wheel
from .buildlock import BuildLock
from .lockfile import FILE as LOCK_FILE
from .lockfile import read_lock
from .statement import EDIT, Statement, read_statement
from .statement import FILE as STATEMENT_FILE


@dataclass(frozen=True)
class Held:
    """A wheel's own provenance: what it was made of, and how.

    name: the wheel's file name. archs, front, fronts: as the build was asked for.
    """

    name: str
    record: Record
    lock: BuildLock
    lock_data: bytes
    archs: tuple[ArchRequest, ...]
    front: str
    fronts: tuple[Front, ...]


def read_held(path: Path, kernels: Path) -> Held:
    """The provenance in a wheel. kernels: where source folders are looked for.

    UsageError where there is no such file; FormatError where it is no wheel, where nothing in it
    says how it was built, or where that is damaged or of a newer fatwheel.
    """
    with readable(path, "a wheel"), open_wheel(path) as wheel:
        record_data = _read(wheel, RECORD_FILE)
        lock_data = _read(wheel, LOCK_FILE)
        statement_data = _read(wheel, STATEMENT_FILE)
    if record_data is None:
        raise _without(path, "it is not one of fatwheel's builds")
    record = record_of(record_data)
    _check_age(record, path)
    if lock_data is None:
        raise _without(path, f"fatwheel {record.get('fatwheel')} left none in it")
    if statement_data is not None:
        _check_built(read_statement(statement_data, f"{path.name}, {STATEMENT_FILE}"), path)
    lock = read_lock(lock_data, f"{path.name}, {LOCK_FILE}", kernels)
    archs, fronts = _architectures(record, lock, path)
    return Held(path.name, record, lock, lock_data, archs, str(record["front"]), fronts)


def _read(wheel: Wheel, name: str) -> bytes | None:
    place = f"{wheel.dist_info}/{name}"
    sizes = {member.name: member.size for member in wheel.members}
    if place not in sizes:
        return None
    if sizes[place] > MOST:
        raise FormatError(f"it has {sizes[place]} bytes; {MOST} are the most", where=place)
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
            "no build made this wheel: `invoke thin` or `invoke stitch` made it of others",
            where=path.name,
            hint="rebuild those, and edit the result the same way",
        )


def _check_age(record: Record, path: Path) -> None:
    try:
        newer = Version(str(record["fatwheel"])[:60]) > Version(__version__)
    except (KeyError, InvalidVersion) as error:
        raise FormatError(f"{RECORD_FILE} is damaged: {error}", where=path.name) from error
    if newer:
        raise FormatError(
            f"fatwheel {record['fatwheel']} made it, and this is fatwheel {__version__}, which "
            "may build otherwise",
            where=path.name,
            hint=f"use fatwheel {record['fatwheel']}",
        )


def _architectures(
    record: Record, lock: BuildLock, path: Path
) -> tuple[tuple[ArchRequest, ...], tuple[Front, ...]]:
    """What was asked for, and the fronts that made it."""
    try:
        archs = parse_arch_list(",".join(record["archs"]), lock.toolchain.archs)
        known = {arch.compute: arch for arch in lock.toolchain.archs}
        codes = {code for arch in lock.toolchain.archs for code in (arch.sm, arch.compute)}
        fronts = tuple(
            Front(known[front["virtual"]], tuple(front["codes"])) for front in record["fronts"]
        )
        asked = [code for front in fronts for code in front.codes]
        if not codes.issuperset(asked) or len(set(asked)) != len(asked):
            raise ValueError("its fronts make images that no nvcc makes, or one of them twice")
        if record["front"] not in ("auto", "exact", "shared"):
            raise ValueError(f"front {record['front']!r:.40}")
        for name in ("python", "torch"):
            if record[name] != getattr(lock, name):
                raise ValueError(f"its {name} is {record[name]!r:.40}, the lock's is another")
    except (KeyError, TypeError, ValueError, FatwheelError) as error:
        raise FormatError(f"{RECORD_FILE} is damaged: {error}", where=path.name) from error
    return archs, fronts
