"""Proofs that other ways to run nvcc's front end make the same machine code.

A proof is data beside the recipe, `proofs/TOOLCHAIN-ARCHS.json`: for a sample of units, compiled
as nvcc by itself does and in other ways, the digest of every kernel's machine code (its .text
section in the cubin), and the kernels of which each way makes another. All else that decides what
a cubin does is compared, too: functions, initial values, registers. The ways are

    shared: one front for several architectures;
    split:  a front for each, of which nvcc's optimisers divide the code among threads;
    both:   one front for several, split.

`--front auto` goes a way only where a proof of this project's version and sources, these compilers,
these architectures and, of split code, this number of parts says that all code is the same; if that
is so of some of its units, it goes that way with these alone. No proof covers PTX of a split front:
drivers are told to split it, too.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..arch import Arch, parse_arch
from ..config.recipe import Recipe
from ..config.sourcetree import digest_over
from ..config.toolchain import Toolchain
from ..decoders import payload
from ..errors import ConfigError, FatwheelError, FormatError, UpstreamError
from ..fatbin.binary import HEAD, asked_of, exports_of, is_binary
from ..fatbin.container import Entry
from ..fatbin.cubin import kernel_names_of_cubin, read_cubin
from ..fatbin.elf import SHT_SYMTAB, SYMBOL, Elf, ElfSection, Names
from ..fatbin.images import shorten
from ..model import Front, Unit
from ..provenance.record import MOST_PARTS
from ..storage.documents import MOST, read_object
from ..storage.files import disk_error, read_plain, replacing
from ..wheels.archive import open_wheel
from .checkout import read_checkout

SCHEMA: Literal[2] = 2
FOLDER = "proofs"
ELSEWHERE = "--recipes FOLDER"  # how a user names another folder, that of a copy of the recipe
Way = Literal["shared", "split", "both"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class UnitProof:
    """One unit compiled in several ways.

    sass: architecture → sha256 over all kernels' machine code with an exact front of its own.
    different: by each way that was tried, `sm_86 KERNEL` for each kernel that it makes another
    code for; of a cubin with other data alone, `sm_86 .nv.global.init`, by its sections.
    """

    name: str
    kernels: int
    sass: Mapping[str, str]
    different: Mapping[Way, tuple[str, ...]]


@dataclass(frozen=True)
class Proof:
    """What compiling a sample of units in several ways showed. source: by `source_id`. front: the
    one that was shared. parts: those into which code was split; 0 where that was not tried."""

    project: str
    version: str
    source: str
    toolchain: str
    compiler_id: str
    front: Arch
    archs: tuple[Arch, ...]
    parts: int
    units: tuple[UnitProof, ...]
    path: Path

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those that were tried with all units."""
        return tuple(
            way for way in WAYS if self.units and all(way in u.different for u in self.units)
        )

    @property
    def same(self) -> tuple[Way, ...]:
        """The ways that make the same code; none where nothing was compared."""
        return tuple(way for way in self.ways if self.kernels and not self.different(way))

    @property
    def kernels(self) -> int:
        """How many kernels were compared, each once per unit."""
        return sum(unit.kernels for unit in self.units)

    def different(self, way: Way) -> list[str]:
        return [f"{unit.name}: {one}" for unit in self.units for one in unit.different.get(way, ())]

    def shown(self, front: Front) -> frozenset[str] | None:
        """For which units this shows that a front, which is shared or split, makes the same machine
        code as exact ones of its architectures: their names; None for all, the sample being one of
        the whole project."""
        way = self._way_of(front)
        return None if way and way in self.same else self.alike(front)

    def alike(self, front: Front) -> frozenset[str]:
        """The names of the units for which it was compared, and is so."""
        way = self._way_of(front)
        return self.same_units(way) if way else frozenset()

    def same_units(self, way: Way) -> frozenset[str]:
        """The names of those of the sample for which a way makes the same code."""
        # Two units may have one name: what is shown of it is shown of both.
        differ = {unit.name for unit in self.units if unit.different.get(way) != ()}
        return frozenset({unit.name for unit in self.units if unit.kernels} - differ)

    def unlike(self, front: Front) -> frozenset[str]:
        """The names of the units for which it was compared, and is not so."""
        way = self._way_of(front)
        return frozenset(
            unit.name
            for unit in self.units
            for one in (unit.different.get(way, ()) if way else ())
            if one.partition(" ")[0] in front.codes
        )

    def _way_of(self, front: Front) -> Way | None:
        """The way that a front goes, if this is about such ones."""
        cubins = {code for code in front.codes if code.startswith("sm_")}
        known = {arch.sm for arch in self.archs}
        shared = cubins != {front.virtual.sm}
        if front.split and (len(cubins) < len(front.codes) or front.split != self.parts):
            return None
        if not cubins or not cubins <= known or (shared and front.virtual != self.front):
            return None
        return "both" if shared and front.split else "shared" if shared else "split"


def shown_by(proofs: Sequence[Proof], front: Front) -> frozenset[str] | None:
    """What several proofs show together (see `Proof.shown`). A unit that differs in one of them may
    be none of another's sample, or be compiled otherwise with another torch: it is not shown."""
    unlike = frozenset().union(*(proof.unlike(front) for proof in proofs))
    if not unlike and any(proof.shown(front) is None for proof in proofs):
        return None
    return frozenset().union(*(proof.alike(front) for proof in proofs)) - unlike


def find_proofs(recipe: Recipe, compiler_id: str) -> list[Proof]:
    """The proofs beside a recipe that speak of its version and sources, and these compilers. Raises
    ConfigError for a file there that is no proof."""
    found = [read_proof(path) for path in sorted((recipe.folder / FOLDER).glob("*.json"))]
    of_version = [
        proof
        for proof in found
        if (proof.project, proof.version, proof.compiler_id)
        == (recipe.project, recipe.version, compiler_id)
    ]
    source = source_id(recipe) if of_version else ""
    return [proof for proof in of_version if proof.source == source]


def source_id(recipe: Recipe) -> str:
    """The digest of what of a recipe decides the code of its units: sources that are being worked
    on change, and their version does not. Raises ConfigError as `read_checkout`."""
    source = recipe.source
    files = source.sha256
    if source.path is not None:  # a checkout may have the recipe in it, and so its proofs
        proofs = (recipe.folder / FOLDER).resolve()
        found = read_checkout(source.path).files
        files = digest_over(one for one in found if not one[1].is_relative_to(proofs))
    patches = [patch.sha256 for patch in source.patches]
    options = [recipe.environment, recipe.config_settings, recipe.rules, recipe.subdirectory]
    flags = [asdict(one) for one in recipe.flags]
    decides = json.dumps([files, patches, options, *flags], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()


def proof_path(recipe: Recipe, toolchain: Toolchain, archs: tuple[Arch, ...]) -> Path:
    label = ".".join(arch.sm.replace("_", "") for arch in archs)
    return recipe.folder / FOLDER / f"{toolchain.name}-{label}.json"


# -- what several runs show ------------------------------------------------------------------------


def earlier(proof: Proof) -> Proof | None:
    """What a file says already of all that a proof is about, whatever units and ways; None where it
    is of other sources or compilers, or no proof."""
    try:
        found = read_proof(proof.path) if proof.path.exists() else None
    except ConfigError:
        return None
    if found is None or _about(found) != _about(proof):
        return None
    return found if 0 in (found.parts, proof.parts) or found.parts == proof.parts else None


def _about(proof: Proof) -> tuple[object, ...]:
    return (
        proof.project, proof.version, proof.source, proof.toolchain, proof.compiler_id, proof.front,
        proof.archs,
    )  # fmt: skip


def loses_nothing(before: Proof, units: Set[str], ways: Set[Way]) -> bool:
    """Whether a proof that tries these ways with these units can be joined with an earlier one so
    that each way of either was tried with all units."""
    known, tried = {unit.name for unit in before.units}, set(before.ways)
    return (units <= known or tried <= ways) and (known <= units or ways <= tried)


def joined(before: Proof, proof: Proof) -> Proof:
    """What two proofs of the same show together. What both compared counts as it is now."""
    units = _numbered(before.units)
    for key, unit in _numbered(proof.units).items():
        old = units.get(key)
        if old and (old.kernels, old.sass) == (unit.kernels, unit.sass):
            unit = replace(unit, different={**old.different, **unit.different})
        units[key] = unit
    return replace(
        proof,
        parts=max(before.parts, proof.parts),
        units=tuple(units[key] for key in sorted(units)),
    )


def _numbered(units: Iterable[UnitProof]) -> dict[tuple[str, int], UnitProof]:
    """Units by name and number: a source that is compiled in two ways is two units of one name."""
    count: Counter[str] = Counter()
    found = {}
    for unit in units:
        found[unit.name, count[unit.name]] = unit
        count[unit.name] += 1
    return found


# -- files -----------------------------------------------------------------------------------------


_Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _UnitTable(_Table):
    name: str
    kernels: Annotated[int, Field(ge=0)]
    sass: dict[str, _Sha256]
    different: dict[Way, list[str]]


class _ProofTable(_Table):
    """The file. same: what follows from its units, for who reads it. digest: of the rest: what
    was edited by hand was not compiled."""

    schema_: Annotated[Literal[2], Field(alias="schema")]
    project: str
    version: str
    source: _Sha256
    toolchain: str
    compiler_id: str
    front: str
    archs: list[str]
    parts: Annotated[int, Field(ge=0, le=MOST_PARTS)]
    same: list[Way]
    units: list[_UnitTable]
    digest: _Sha256


def read_proof(path: Path) -> Proof:
    """Raises ConfigError for a file that is no proof, or was changed since it was written."""
    try:
        text = read_plain(path, MOST + 1)
        if text is None:
            raise ValueError("it is no file")
        data = read_object(text, path.name)
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema {data.get('schema')!r:.40}, not {SCHEMA}")
        table = _ProofTable.model_validate(data)
        front, archs = parse_arch(table.front), tuple(map(parse_arch, table.archs))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise _no_proof(path, f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error
    except FatwheelError as error:
        raise _no_proof(path, error.what) from error
    except (OSError, ValueError) as error:
        raise _no_proof(path, str(error)) from error
    if _digest(data) != table.digest:
        raise _no_proof(path, "it was changed after `invoke prove` wrote it")
    return Proof(
        project=table.project,
        version=table.version,
        source=table.source,
        toolchain=table.toolchain,
        compiler_id=table.compiler_id,
        front=front,
        archs=archs,
        parts=table.parts,
        units=tuple(map(_unit_of, table.units)),
        path=path,
    )


def _unit_of(table: _UnitTable) -> UnitProof:
    different = {way: tuple(found) for way, found in table.different.items()}
    return UnitProof(table.name, table.kernels, table.sass, different)


def _no_proof(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"not a proof: {reason[:200]}",
        where=str(path),
        hint="remove the file to build without it; invoke prove writes a new one",
    )


def write_proof(proof: Proof) -> None:
    """Write it to proof.path; the same proof gives the same bytes. Raises StoreError."""
    data = {
        "schema": SCHEMA,
        "project": proof.project,
        "version": proof.version,
        "source": proof.source,
        "toolchain": proof.toolchain,
        "compiler_id": proof.compiler_id,
        "front": proof.front.name,
        "archs": [arch.name for arch in proof.archs],
        "parts": proof.parts,
        "same": list(proof.same),
        "units": [
            {
                "name": unit.name,
                "kernels": unit.kernels,
                "sass": dict(unit.sass),
                "different": {way: list(found) for way, found in unit.different.items()},
            }
            for unit in proof.units
        ],
    }
    text = json.dumps({**data, "digest": _digest(data)}, indent=1)
    try:
        proof.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(proof.path) as stream:
            stream.write((text + "\n").encode())
    except OSError as error:
        raise disk_error(error, "write the proof", proof.path, ELSEWHERE) from error


def _digest(data: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# -- comparing -------------------------------------------------------------------------------------

_CODE = ".text."  # what sections with code are called, before their function's name
# Sections for people and debuggers. A note has the command line of ptxas. Symbols have their names.
_TOLD = re.compile(r"\.note|(\.rela?)?\.(nv_)?debug_|\.strtab$")
# Namespaces that name the list of architectures, which is another with a shared front, as they
# stand in symbols' names behind their lengths: `27THRUST_300001_SM_800_860_NS`,
# `17CUB_300001_SM_800`.
_LISTING = re.compile(r"(\d{1,4})((?:THRUST|CUB)_\d+(?:_SM)?)((?:_\d+)+(?:_NS)?)")


def select_units(units: tuple[Unit, ...], pattern: str | None) -> tuple[Unit, ...]:
    """The CUDA units that the comma-separated patterns are for: each the name of a unit, and that
    unit's alone, or else a glob over names and their last parts."""
    cuda = [unit for unit in units if unit.kind == "cuda"]
    if pattern is None:
        return tuple(cuda)
    parts = {part.strip() for part in pattern.split(",")}
    exact = parts & {unit.name for unit in cuda}
    globs = parts - exact
    return tuple(
        unit
        for unit in cuda
        if unit.name in exact or any(_matches(unit.name, glob) for glob in globs)
    )


def compare(
    unit: str, own: Mapping[str, Entry], others: Mapping[Way, Mapping[str, Entry]]
) -> UnitProof:
    """Compare a unit's cubins, by architecture: those of exact fronts with those of each way."""
    codes = {code: dict(_machine_code(read_cubin(payload(one)))) for code, one in own.items()}
    return UnitProof(
        unit,
        kernels=len(set().union(*codes.values())),
        sass={code: _total(kernels) for code, kernels in codes.items()},
        different={way: tuple(_different(own, made)) for way, made in others.items()},
    )


def _different(own: Mapping[str, Entry], made: Mapping[str, Entry]) -> Iterator[str]:
    """The functions whose code differs; where there are none, the sections that do."""
    for code, entry in own.items():
        mine, other = (_sections(read_cubin(payload(one))) for one in (entry, made[code]))
        found = [
            name for name in sorted(mine.keys() | other.keys()) if mine.get(name) != other.get(name)
        ]
        functions = [name.removeprefix(_CODE) for name in found if name.startswith(_CODE)]
        yield from (f"{code} {name}" for name in functions or found)


def _sections(elf: Elf) -> Mapping[str, Sequence[tuple[object, ...]]]:
    """All of a cubin that decides what it does: beside its kernels' code that of functions, initial
    values of variables, the sizes of what has none, registers (which are in a section's info), and
    what refers to where."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for section in elf.sections:
        if not _TOLD.match(section.name):
            content: object = bytes(elf.content(section)) if section.in_file else section.size
            if section.type == SHT_SYMTAB:
                content = tuple(_symbols(elf, section))
            about = (section.type, section.flags, section.info, content)
            found.setdefault(section.name, []).append(about)
    return found


def _symbols(elf: Elf, table: ElfSection) -> Iterator[tuple[object, ...]]:
    """The symbols of a table, by names without lists of architectures: by its name a call finds the
    function of another unit, and the host a variable."""
    entries = elf.content(table)
    if len(entries) % SYMBOL.size or not 0 < table.link < len(elf.sections):
        raise FormatError("malformed symbol table", where=f"ELF section {table.name}")
    names = Names(bytes(elf.content(elf.sections[table.link])))
    for name, *about in SYMBOL.iter_unpack(entries):
        yield _LISTING.sub(_without_list, names.at(name)), *about


def _without_list(space: re.Match[str]) -> str:
    """A namespace without its list; what follows may be a digit of the next one's length."""
    length, whole = int(space[1]), space[2] + space[3]
    return space[2] + whole[length:] if len(space[2]) < length <= len(whole) else space[0]


def check_names(path: Path) -> None:
    """Refuse a wheel in which units with a shared front and others look for each other's functions
    by names with lists of architectures, which differ. No linker of Linux says so; others do.

    Raises UpstreamError.
    """
    asked: set[str] = set()
    offered: set[str] = set()
    with open_wheel(path) as wheel:
        for member in wheel.members:
            if is_binary(wheel.start(member.name, HEAD)):
                with wheel.mapped(member.name) as data:
                    asked.update(one.name for one in asked_of(data) if not one.optional)
                    offered.update(exports_of(data))
    lost = sorted(name for name in asked - offered if _LISTING.search(name))
    if lost:
        raise UpstreamError(
            "units of which a proof shows that they can share a front, and others, need each "
            "other's functions by names that are not the same in both",
            where=path.name,
            details=shorten(lost),
            hint="build it with --front exact",
        )


def _total(kernels: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in sorted(kernels.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def _machine_code(elf: Elf) -> Iterator[tuple[str, bytes]]:
    """Kernel name → the content of its .text section."""
    for name in kernel_names_of_cubin(elf.data):
        for section in elf.named(_CODE + name):
            yield name, bytes(elf.content(section))


def _matches(name: str, glob: str) -> bool:
    return fnmatch.fnmatch(name, glob) or fnmatch.fnmatch(name.rpartition("/")[2], glob)
