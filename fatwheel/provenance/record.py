"""fatwheel.json in edited wheels: what of the record still holds after thin and stitch.

    {"schema": 1, "recipe": {...}, ..., "archs": ["80", "89+ptx"],
     "fronts": [{"virtual": "compute_80", "codes": ["sm_80"]}, ...],
     "units": [{"name": "a.o", "slices": {"sm_80": SHA256, ...}}, ...]}

A thin wheel's record tells only of the images that it still has. A wheel that was stitched from
wheels of one and the same build, but for the architectures, has one record that tells of all of
them; else all their records, as {"schema": 1, "stitched": [record, ...]}.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..arch import Arch, parse_arch
from ..errors import FatwheelError, FormatError, StitchError
from ..storage.documents import read_object

SCHEMA = 1
FILE = "fatwheel.json"

Record = dict[str, Any]
# A slice by its unit and image, and its sha256 (None where that is not known).
_Slices = dict[tuple[str, str], str | None]


def record_bytes(record: Record) -> bytes:
    """A record as it lies in a wheel: the same record gives the same bytes."""
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def record_of(data: bytes) -> Record:
    """The record of a wheel of one build. FormatError if damaged, or of several builds."""
    records = _records(data)
    if len(records) != 1:
        raise FormatError(
            f"the wheel was stitched from {len(records)} builds with different inputs",
            where=FILE,
            hint="rebuild those wheels, and stitch them again",
        )
    return records[0]


def thinned(data: bytes, held: Collection[str]) -> bytes:
    """The record of a wheel that holds only these images (`sm_80`, `compute_80`) any more."""
    return _joined(_only_held(record, held) for record in _records(data))


def unlocked(data: bytes) -> bytes:
    """The record of a wheel that does not name its lock any more."""
    return _joined(
        {key: value for key, value in record.items() if key != "lock"} for record in _records(data)
    )


def merged(datas: Sequence[bytes]) -> bytes:
    """The record of a wheel made of the wheels with these. StitchError where they contradict."""
    return _joined(record for data in datas for record in _records(data))


def _records(data: bytes) -> list[Record]:
    """The records of all builds in a fatwheel.json, checked as far as is needed here."""
    try:
        content = read_object(data, FILE)
    except FormatError as error:
        raise _damaged(error.what) from error
    try:
        schema = content["schema"]
        if schema != SCHEMA:
            raise FormatError(
                f"schema {schema!r} of {FILE} is not supported",
                where=FILE,
                hint=f"supported: {SCHEMA}; was the wheel made by a newer fatwheel?",
            )
        records: list[Record] = content.get("stitched", [content])
        for record in records:
            _check(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(error)) from error
    return records


def _check(record: Record) -> None:
    """Raises one of the errors that `_records` turns into its own, unless all parts are there."""
    for front in record["fronts"]:
        _place(front["virtual"])
        for code in front["codes"]:
            _place(code)
    for unit in record["units"]:
        if not isinstance(unit["name"], str):
            raise TypeError("the name of a unit is not text")
        for code, digest in unit["slices"].items():
            _place(code)
            if not isinstance(digest, str | None):
                raise TypeError("the digest of a slice is not text")


def _damaged(reason: str) -> FormatError:
    return FormatError(
        f"{FILE} is damaged: {reason}",
        where=FILE,
        hint="wheels without that file can be edited, too",
    )


def _only_held(record: Record, held: Collection[str]) -> Record:
    fronts = [
        {"virtual": front["virtual"], "codes": [code for code in front["codes"] if code in held]}
        for front in record["fronts"]
    ]
    units = [
        {
            "name": unit["name"],
            "slices": {code: digest for code, digest in unit["slices"].items() if code in held},
        }
        for unit in record["units"]
    ]
    return {**record, "fronts": fronts, "units": units}


def _joined(records: Iterable[Record]) -> bytes:
    """One record per build, in an order that does not depend on how they came."""
    builds: dict[str, list[Record]] = {}
    for record in records:
        if any(front["codes"] for front in record["fronts"]):
            builds.setdefault(_identity(record), []).append(record)
    joined = [_union(builds[identity]) for identity in sorted(builds)]
    if len(joined) == 1:
        return record_bytes({**joined[0], "schema": SCHEMA})
    return record_bytes({"schema": SCHEMA, "stitched": joined})


def _identity(record: Record) -> str:
    """Everything that does not depend on the architectures."""
    same = {key: value for key, value in record.items() if key not in ("archs", "fronts", "schema")}
    return json.dumps({**same, "units": _unit_names(record)}, sort_keys=True)


def _unit_names(record: Record) -> list[str]:
    return [unit["name"] for unit in record["units"]]


def _union(records: Sequence[Record]) -> Record:
    """One record for several of the same identity."""
    codes: dict[str, set[str]] = {}
    names = _unit_names(records[0])  # the same in all; one name may stand there twice
    slices: list[dict[str, str | None]] = [{} for _ in names]
    for record in records:
        for front in record["fronts"]:
            codes.setdefault(front["virtual"], set()).update(front["codes"])
        for found, unit in zip(slices, record["units"], strict=True):
            _add_slices(unit["name"], found, unit["slices"])
    result = {key: value for key, value in records[0].items() if key != "schema"}
    return {
        **result,
        "archs": _archs({code for some in codes.values() for code in some}),
        "fronts": [
            {"virtual": virtual, "codes": sorted(codes[virtual], key=_place)}
            for virtual in sorted(codes, key=_place)
            if codes[virtual]
        ],
        "units": [
            {"name": name, "slices": found} for name, found in zip(names, slices, strict=True)
        ],
    }


def _add_slices(unit: str, known: dict[str, str | None], more: dict[str, str | None]) -> None:
    for code, digest in more.items():
        if known.setdefault(code, digest) != digest:
            raise StitchError(
                f"the wheels' {FILE} files name different slices for {code}", where=unit
            )


def _archs(codes: Collection[str]) -> list[str]:
    """As `--arch` names them; `ptx80` where there is PTX and no cubin."""
    found = sorted({_place(code)[0] for code in codes})
    return [_arch_name(arch, codes) for arch in found]


def _arch_name(arch: Arch, codes: Collection[str]) -> str:
    if arch.sm not in codes:
        return f"ptx{arch.name}"
    return f"{arch.name}+ptx" if arch.compute in codes else arch.name


def _place(code: str) -> tuple[Arch, str]:
    """Where an image stands among others: by architecture, cubins before PTX."""
    try:
        return parse_arch(code), "" if code.startswith("sm_") else code
    except FatwheelError as error:
        raise ValueError(error.what) from None
