"""The files beside a finished wheel, all made from what is in it.

    W.whl.provenance.json     the statement in the wheel, of the wheel file itself, with what the
                              engine adds
    W.whl.intoto.jsonl        the same, signed; only where there is a key
    W.whl.lock.json           the lock in the wheel
    W.whl.requirements.txt    for `pip install --require-hashes -r`
    pylock.NAME.toml          the same for installers that know PEP 751

Nothing of this machine is in them, and no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, HashMismatchError
from ..files import disk_error, remove, replacing
from ..mapped import readable
from ..model import Material
from ..wheels.archive import Wheel, open_wheel
from .buildlock import BuildLock
from .lockfile import FILE as LOCK_FILE
from .lockfile import read_lock
from .pylock import pylock_bytes, pylock_name, requirements_name, requirements_text
from .signing import Signer, envelope_bytes
from .statement import FILE as STATEMENT_FILE
from .statement import extended, read_statement, statement_bytes

# What follows the wheel's name.
STATEMENT = ".provenance.json"
ENVELOPE = ".intoto.jsonl"
LOCK = ".lock.json"


@dataclass(frozen=True)
class _Inside:
    """What of a wheel the files beside it are made of. size is in bytes."""

    sha256: str
    size: int
    lock: BuildLock
    lock_data: bytes
    predicate: Mapping[str, Any]


def beside(wheel: Path, suffix: str) -> Path:
    """A file beside a wheel, by what follows the wheel's name."""
    return wheel.with_name(wheel.name + suffix)


def write_beside(
    wheel: Path,
    extra: Sequence[Material],
    internal: Mapping[str, Any],
    signer: Signer | None,
    sha256: str = "",
) -> tuple[Path, ...]:
    """Write all files beside a finished wheel; their paths.

    sha256: what the wheel must be, where that is known: others may write to its folder.

    extra and internal: further materials and internal parameters, of what the wheel does not
    know: the engine. Without a signer, an envelope that is there is of an older wheel, and goes.

    Raises UsageError where the wheel cannot be read, FormatError where there is no sound
    provenance in it, HashMismatchError where it is another wheel, StoreError where the disk does
    not take the files.
    """
    inside = _read(wheel)
    if sha256 not in ("", inside.sha256):
        raise HashMismatchError(
            "the wheel is not the one that was made: somebody changed it since",
            where=str(wheel),
            details=[f"made:  sha256 {sha256}", f"found: sha256 {inside.sha256}"],
            hint="name a folder into which nobody else can write: --out FOLDER",
        )
    predicate = extended(inside.predicate, extra, internal)
    statement = statement_bytes([(wheel.name, inside.sha256)], predicate)
    contents = {beside(wheel, STATEMENT): statement, **_for_installers(wheel, inside)}
    contents[beside(wheel, LOCK)] = inside.lock_data
    if signer:
        contents[beside(wheel, ENVELOPE)] = envelope_bytes(statement, signer)
    _write(wheel, contents)
    return tuple(contents)


def files_for_installers(wheel: Path) -> dict[Path, bytes]:
    """What must be in the files beside a wheel from which others install it.

    Raises UsageError and FormatError as `write_beside`.
    """
    return _for_installers(wheel, _read(wheel))


def _for_installers(wheel: Path, inside: _Inside) -> dict[Path, bytes]:
    sha256, lock = inside.sha256, inside.lock
    return {
        wheel.with_name(pylock_name(wheel)): pylock_bytes(wheel, sha256, inside.size, lock),
        wheel.with_name(requirements_name(wheel)): requirements_text(wheel, sha256, lock).encode(),
    }


def _read(wheel: Path) -> _Inside:
    with readable(wheel, "a wheel"), open_wheel(wheel) as opened:
        lock_data = _member(opened, LOCK_FILE)
        statement = read_statement(_member(opened, STATEMENT_FILE), STATEMENT_FILE)
        # No source is looked for, so where recipes are makes no difference.
        lock = read_lock(lock_data, LOCK_FILE, Path())
        sha256, size = opened.digest()
    return _Inside(sha256, size, lock, lock_data, statement.predicate)


def _member(wheel: Wheel, name: str) -> bytes:
    place = f"{wheel.dist_info}/{name}"
    if place not in {member.name for member in wheel.members}:
        raise FormatError(
            "nothing in the wheel says how it was built",
            where=place,
            hint="wheels that `invoke build` makes have a lock and a statement in them",
        )
    return wheel.read(place)


def _write(wheel: Path, contents: Mapping[Path, bytes]) -> None:
    try:
        # First, so that no signature is ever beside a statement that it does not cover.
        remove(beside(wheel, ENVELOPE))
        for path, data in contents.items():
            with replacing(path) as stream:
                stream.write(data)
    except OSError as error:
        raise disk_error(
            error, f"write the files beside {wheel.name}", wheel.parent, "--out FOLDER"
        ) from error
