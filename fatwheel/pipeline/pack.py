"""Writes the finished wheel with its record (fatwheel.json), and reads it back.

The same inputs give the same bytes: nothing of the machine, the user or the time is in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import StoreError
from ..fatbin.images import shorten
from ..provenance.lock import FILE as LOCK_FILE
from ..provenance.lock import BuildLock, lock_bytes
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.record import (
    BuildRecord,
    RecordedFront,
    RecordedRecipe,
    RecordedToolchain,
    RecordedUnit,
    record_bytes,
)
from ..provenance.sbom import FILE as SBOM_FILE
from ..provenance.sbom import sbom_bytes
from ..provenance.statement import FILE as STATEMENT_FILE
from ..provenance.statement import predicate_of, statement_bytes
from ..verify.libraries import lowest_torch_of
from ..wheels.archive import open_wheel
from ..wheels.name import WheelName, parse_wheel_name
from ..wheels.pack import Closing, NewFile, plain_file, repack
from ..worker.assemble import SliceDigests
from .plan import PlannedWheel


def build_record(
    wheel: PlannedWheel, lock_digest: str, slices: SliceDigests, front_mode: str
) -> dict[str, Any]:
    """The record of one wheel, ready for JSON. lock_digest: sha256 of its lock's bytes.

    Raises StoreError where a slice is not known: the wheel has it, but the record could not tell.
    """
    _check_known(slices)
    target = wheel.target
    return BuildRecord(
        fatwheel=__version__,
        lock=lock_digest,
        recipe=RecordedRecipe.of(target.recipe),
        toolchain=RecordedToolchain.of(target.toolchain),
        python=target.python,
        torch=target.torch,
        archs=tuple(map(str, target.archs)),
        front=front_mode,
        fronts=tuple(
            RecordedFront(virtual=front.virtual.compute, codes=front.codes, split=front.split)
            for front in wheel.fronts
        ),
        front_units=wheel.front_units,
        units=tuple(RecordedUnit(**unit) for unit in slices),
    ).content()


def _check_known(slices: SliceDigests) -> None:
    """What was stitched into the wheel may have left the store since: another build's eviction, or
    `invoke cache --clean`, or damage."""
    unknown = [
        f"{unit['name']} [{code}]"
        for unit in slices
        for code, digest in unit["slices"].items()
        if not digest
    ]
    if unknown:
        raise StoreError(
            "slices disappeared from the store while the wheel was being made",
            details=shorten(unknown),
            hint="run the same command again: missing slices are compiled again",
        )


# -- packing ---------------------------------------------------------------------------------------

# Upstream's wheel becomes ours: its version says for what it is, and it tells what it is made of.
#
# Beside upstream's files its dist-info folder holds the record, the build's lock, an SBOM, and a
# statement over all of them. Nothing of the machine, the engine or the time is in any of these.


def pack(
    upstream: Path,
    folder: Path,
    wheel: PlannedWheel,
    lock: BuildLock,
    slices: SliceDigests,
    front_mode: str,
) -> Path:
    """The finished wheel in `folder`, made from upstream's.

    lock: the target's. front_mode: how the build was asked for its fronts.

    Raises FormatError where upstream's is no sound wheel, StoreError where nothing can be written.
    """
    lock_data = lock_bytes(lock)
    digest = hashlib.sha256(lock_data).hexdigest()
    record = build_record(wheel, digest, slices, front_mode)
    name = wheel.named(parse_wheel_name(upstream.name), lowest_torch_of(upstream))
    return repack(
        upstream,
        folder,
        name,
        extra_files={
            RECORD_FILE: record_bytes(record),
            LOCK_FILE: lock_data,
            SBOM_FILE: sbom_bytes(lock, record, name.project, name.version),
        },
        epoch=lock.recipe.epoch,
        closing=_stating(name, lock, record),
    )


def _stating(name: WheelName, lock: BuildLock, record: Mapping[str, Any]) -> Closing:
    """Makes the statement over all files that were written before it."""

    def closing(digests: Mapping[str, str]) -> list[NewFile]:
        statement = statement_bytes(list(digests.items()), predicate_of(lock, record))
        return [plain_file(f"{name.dist_info}/{STATEMENT_FILE}", statement)]

    return closing


def folder_notes(wheel: Path, folder: Path) -> Iterator[str]:
    """Which files of a wheel name the folder that it was built in, in a sentence for the user.

    What fatwheel runs is told not to name it. Other compilers may, and a build elsewhere then gives
    other bytes.
    """
    names = {os.fsencode(folder), os.fsencode(folder.resolve())}
    with open_wheel(wheel) as opened:
        found = [one.name for one in opened.members if _holds(opened.pieces(one.name), names)]
    if found:
        files = ", ".join(shorten(found))
        yield (
            "something in the project's build wrote the folder of this build into the wheel, so "
            f"that building it elsewhere gives other bytes: {files}"
        )


def _holds(pieces: Iterable[bytes], names: Collection[bytes]) -> bool:
    """Whether a text of these is in what the pieces are together."""
    longest = max(map(len, names))
    end = b""
    for piece in pieces:
        text = end + piece
        if any(name in text for name in names):
            return True
        end = text[-longest:]
    return False
