"""fatwheel.json: what a wheel was built from, and which slices it has.

    {"schema": 1, "recipe": {...}, ..., "archs": ["80", "89+ptx"],
     "fronts": [{"virtual": "compute_80", "codes": ["sm_80"]}, ...],
     "units": [{"name": "a.o", "slices": {"sm_80": SHA256, ...}}, ...]}

Where device code was linked (nvcc -rdc=true), what was linked is a unit, too, named after the
object that it is in; it never has PTX.

A thin wheel's record tells only of the images that it still has. A wheel that was stitched from
wheels of one and the same build, but for the architectures, has one record that tells of all of
them; else all their records, as {"schema": 1, "stitched": [record, ...]}.

Where units were built for different images, the record says for which; which container is of which
unit, the slices in it say.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
)

from ..arch import NONE, Arch, coverage, parse_arch
from ..config.recipe import Recipe
from ..config.toolchain import Toolchain
from ..errors import FatwheelError, FormatError, StitchError
from ..fatbin.container import Entry, container_pieces
from ..fatbin.stitch import image_name
from ..storage.documents import read_object
from ..storage.mapped import digest_of_pieces

SCHEMA: Literal[1] = 1
FILE = "fatwheel.json"
# How a build chooses its fronts: so it is asked (`build --front`), or by `build --fast`.
FRONTS = ("auto", "exact", "shared", "split")
FAST = "fast"
# Of these, those that do so without proof that the code is what nvcc by itself makes.
UNPROVEN = ("shared", "split", FAST)

MOST_PARTS = 64  # into which nvcc may be told to divide code

_MISTAKES_SHOWN = 8
# A slice by its unit and image, and its sha256 (None where that is not known).
_Slices = dict[str, str | None]


def _place(code: str) -> tuple[Arch, str]:
    """Where an image stands among others: by architecture, cubins before PTX."""
    try:
        return parse_arch(code), "" if code.startswith("sm_") else code
    except FatwheelError as error:
        raise ValueError(error.what) from None


def _image(code: str) -> str:
    _place(code)
    return code


def _checked_slices(slices: Any) -> Any:
    """Here, for of a dictionary pydantic names every mistake: there may be a million."""
    for code, digest in slices.items() if isinstance(slices, dict) else ():
        _place(code)
        if not isinstance(digest, str | None):
            raise ValueError("the digest of a slice is not text")
    return slices


ImageName = Annotated[str, AfterValidator(_image)]  # `sm_80`, `compute_80`


class RecordTable(BaseModel):
    model_config = ConfigDict(frozen=True)


class RecordedFront(RecordTable):
    """split: in how many parts nvcc's optimisers divided the code; 0, which is not written, where
    they did not."""

    virtual: ImageName
    codes: Annotated[tuple[ImageName, ...], FailFast()]
    split: Annotated[int, Field(strict=True, ge=0, le=MOST_PARTS, exclude_if=operator.not_)] = 0

    @property
    def own(self) -> frozenset[str]:
        """The images of its own architecture."""
        return frozenset((self.virtual, self.virtual.replace("compute_", "sm_")))


class RecordedUnit(RecordTable):
    """slices: sha256 in hex by image; None, which is wrong, where none is named."""

    name: str
    slices: Annotated[_Slices, BeforeValidator(_checked_slices)]


class RecordedRecipe(RecordTable):
    """source: the sha256 in hex of the one file that has it, if there is one."""

    name: str
    project: str
    version: str
    source: str | None
    digest: str

    @classmethod
    def of(cls, recipe: Recipe) -> RecordedRecipe:
        file = recipe.source.file
        source = file.sha256 if file else None
        return cls.model_validate({**vars(recipe), "source": source})


class RecordedToolchain(RecordTable):
    """digest is over the whole toolchain file's meaning."""

    name: str
    platform: str
    cuda: str
    nvcc: str
    digest: str

    @classmethod
    def of(cls, toolchain: Toolchain) -> RecordedToolchain:
        return cls.model_validate(vars(toolchain))


class Record(RecordTable):
    """What of a build's record edits look at; what else is in it stays as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    fronts: Annotated[tuple[RecordedFront, ...], FailFast()]
    units: Annotated[tuple[RecordedUnit, ...], FailFast()]

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def codes(self) -> frozenset[str]:
        """The images that all units were made for: `sm_80`, `compute_80`."""
        return frozenset(code for front in self.fronts for code in front.codes)

    @property
    def is_exact(self) -> bool:
        """Whether each front is that of one architecture alone, and not split."""
        return not any(front.split or set(front.codes) - front.own for front in self.fronts)


class BuildRecord(Record):
    """All that a build writes. lock: the sha256 of fatwheel.lock.json, in hex. front_units: the
    names of the units that fronts are for, as a proof has them, others having exact ones; (), which
    is not written, where they are for all. A proof may name units that this build does not have:
    projects choose their sources by architectures, Python and torch."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    fatwheel: str
    lock: str
    recipe: RecordedRecipe
    toolchain: RecordedToolchain
    python: str
    torch: str
    archs: Annotated[tuple[str, ...], FailFast()]
    front: str
    front_units: Annotated[tuple[str, ...], FailFast(), Field(exclude_if=operator.not_)] = ()


def whole(record: Record, where: str = FILE) -> BuildRecord:
    """A record in which nothing is missing; FormatError with all that is, or is of another kind."""
    try:
        return BuildRecord.model_validate(record.content())
    except ValidationError as error:
        raise FormatError(
            "it is damaged", where=where, details=_mistakes(error)[:_MISTAKES_SHOWN]
        ) from error


def _mistakes(error: ValidationError) -> list[str]:
    found = error.errors(include_url=False)
    return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}"[:200] for one in found]


def record_bytes(record: Mapping[str, Any]) -> bytes:
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


def unproven(data: bytes | None) -> tuple[str, ...]:
    """The words of UNPROVEN by which the builds in a wheel's record chose their fronts; none where
    there is no record, or it is damaged."""
    try:
        records = _records(data) if data is not None else []
    except FormatError:
        return ()
    said = [record.content().get("front") for record in records]  # anything, if damaged
    return tuple(word for word in UNPROVEN if word in said)


def built_how(word: str) -> str:
    """A word of UNPROVEN for people, as the beginning of a sentence."""
    option = "--fast" if word == FAST else f"--front {word}"
    return f"built with {option}: its machine code may differ from what nvcc by itself makes"


def thinned(data: bytes, held: Collection[str]) -> bytes:
    """The record of a wheel that holds only these images (`sm_80`, `compute_80`) any more."""
    return _joined(_only_held(record, held) for record in _records(data))


def unlocked(data: bytes) -> bytes:
    """The record of a wheel that does not name its lock any more."""
    return _joined(
        Record.model_validate({key: value for key, value in record if key != "lock"})
        for record in _records(data)
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
    if content.get("schema") != SCHEMA:
        if "schema" not in content:
            raise _damaged("it names no schema")
        raise FormatError(
            f"schema {content['schema']!r:.40} of {FILE} is not supported",
            where=FILE,
            hint=f"supported: {SCHEMA}; was the wheel made by a newer fatwheel?",
        )
    records = content.get("stitched", [content])
    if not isinstance(records, list):
        raise _damaged("stitched: it is no list")
    try:
        return [Record.model_validate(record) for record in records]
    except ValidationError as error:
        raise _damaged(_mistakes(error)[0]) from error


def _damaged(reason: str) -> FormatError:
    return FormatError(
        f"{FILE} is damaged: {reason}",
        where=FILE,
        hint="wheels without that file can be edited, too",
    )


def _only_held(record: Record, held: Collection[str]) -> Record:
    fronts = tuple(
        front.model_copy(update={"codes": tuple(code for code in front.codes if code in held)})
        for front in record.fronts
    )
    units = tuple(
        RecordedUnit(
            name=unit.name,
            slices={code: digest for code, digest in unit.slices.items() if code in held},
        )
        for unit in record.units
    )
    return record.model_copy(update={"fronts": fronts, "units": units})


def _joined(records: Iterable[Record]) -> bytes:
    """One record per build, in an order that does not depend on how they came."""
    builds: dict[str, list[Record]] = {}
    for record in _with_units_of_fronts([record for record in records if record.codes]):
        builds.setdefault(_identity(record), []).append(record)
    joined = [_union(builds[identity]) for identity in sorted(builds)]
    if len(joined) == 1:
        return record_bytes({**joined[0], "schema": SCHEMA})
    return record_bytes({"schema": SCHEMA, "stitched": joined})


_UNITS_OF_FRONTS = "front_units"


def _with_units_of_fronts(records: Sequence[Record]) -> Iterator[Record]:
    """Records whose fronts are all exact, as those of all others of their build have it: such
    fronts are the same for all units, whichever share one."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if not record.is_exact:
            units = record.content().get(_UNITS_OF_FRONTS)
            known = found.setdefault(_identity(record, _UNITS_OF_FRONTS), {})
            known[json.dumps(units, sort_keys=True)] = units
    for record in records:
        known = found.get(_identity(record, _UNITS_OF_FRONTS), {"null": None})
        if record.is_exact and len(known) == 1:
            [units] = known.values()
            content = {key: value for key, value in record if key != _UNITS_OF_FRONTS}
            record = Record.model_validate(content | ({_UNITS_OF_FRONTS: units} if units else {}))
        yield record


def _identity(record: Record, *more: str) -> str:
    """Everything that does not depend on the architectures, nor is one of these fields."""
    apart = ("archs", "fronts", "schema", *more)
    same = {key: value for key, value in record.content().items() if key not in apart}
    return json.dumps({**same, "units": [unit.name for unit in record.units]}, sort_keys=True)


def _union(records: Sequence[Record]) -> dict[str, Any]:
    """The content of one record for several of the same identity."""
    codes: dict[tuple[str, int], set[str]] = {}
    units = records[0].units  # their names are the same in all; one may stand there twice
    slices: list[_Slices] = [{} for _ in units]
    for record in records:
        for front in record.fronts:
            codes.setdefault((front.virtual, front.split), set()).update(front.codes)
        for found, unit in zip(slices, record.units, strict=True):
            _add_slices(unit.name, found, unit.slices)
    result = {key: value for key, value in records[0].content().items() if key != "schema"}
    return {
        **result,
        "archs": _archs({code for some in codes.values() for code in some}),
        "fronts": [
            RecordedFront(
                virtual=virtual, codes=tuple(sorted(found, key=_place)), split=split
            ).model_dump(mode="json")
            for (virtual, split), found in sorted(codes.items(), key=_place_of_front)
            if found
        ],
        "units": [
            {"name": unit.name, "slices": found} for unit, found in zip(units, slices, strict=True)
        ],
    }


def _place_of_front(item: tuple[tuple[str, int], set[str]]) -> tuple[tuple[Arch, str], int]:
    (virtual, split), _ = item
    return _place(virtual), split


def _add_slices(unit: str, known: _Slices, more: _Slices) -> None:
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


# -- which images each unit was built for ----------------------------------------------------------

# The sha256 of a container's slices, by image: `sm_80`, `compute_80`.
Slices = Mapping[str, str]


@dataclass(frozen=True)
class Plans:
    """codes: by each slice (its image and sha256), those of its unit. every: those of all units.
    spare: how many units were built for none, whose containers are empty.
    """

    codes: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    every: frozenset[str] = frozenset()
    spare: int = 0

    def of(self, container: Slices) -> frozenset[str] | None:
        """Those of the unit that a container is of, None where that is not known."""
        return next((self.codes[one] for one in container.items() if one in self.codes), None)

    def leave_out(self, container: Slices, gpu: Arch) -> bool:
        """Whether a container is, in all of its images, of a unit that was not to be built for a
        GPU for which others were."""
        known = self.of(container)
        if known is None or known != container.keys():
            return False
        whole = all(self.codes.get(one) == known for one in container.items())
        return whole and _runs(self.every, gpu) and not _runs(known, gpu)


def plans_of(record: bytes | None) -> Plans:
    """What a wheel's record says; nothing where there is none, it is damaged, or all units are for
    the same images."""
    try:
        found = record_of(record) if record is not None else None
    except FormatError:
        return Plans()
    if found is None or all(unit.slices.keys() == found.codes for unit in found.units):
        return Plans()
    codes = {
        (image, sha256): frozenset(unit.slices)
        for unit in found.units
        for image, sha256 in unit.slices.items()
        if sha256
    }
    return Plans(codes, found.codes, sum(not unit.slices for unit in found.units))


def slices_in(entries: Iterable[Entry]) -> Slices:
    """A container's slices, as a record names them: the digest is that of a container of one image
    alone, which is how the store keeps a slice."""
    by_image: dict[str, list[Entry]] = {}
    for entry in entries:
        by_image.setdefault(image_name(entry), []).append(entry)
    return {
        image: digest_of_pieces(container_pieces(entries)) for image, entries in by_image.items()
    }


def _runs(codes: Iterable[str], gpu: Arch) -> bool:
    cubins, ptx = (
        {parse_arch(code) for code in codes if code.startswith(kind)} for kind in ("sm_", "comp")
    )
    return coverage(cubins, ptx, gpu) != NONE
