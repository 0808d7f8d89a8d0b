"""Proofs that one front for several architectures makes the same machine code.

A proof is data beside the recipe, `proofs/TOOLCHAIN-ARCHS.json`: for a sample of units,
compiled both ways, the digest of every kernel's machine code (its .text section in the cubin).
`--front auto` shares a front only where a proof of this project's version, these compilers,
this front and these architectures says 'same'.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arch import Arch, parse_arch
from ..config.model import Recipe, Toolchain
from ..decoders import payload
from ..errors import ConfigError, FatwheelError
from ..fatbin.container import Entry
from ..fatbin.cubin import kernel_names_of_cubin, read_cubin
from ..model import Unit
from ..storage.documents import MOST, read_object
from ..storage.files import replacing

SCHEMA = 1
FOLDER = "proofs"


@dataclass(frozen=True)
class UnitProof:
    """One unit compiled both ways.

    sass: architecture → sha256 over all kernels' machine code with a front of its own.
    different: `sm_86 KERNEL` for each kernel that the shared front makes another code for.
    """

    name: str
    kernels: int
    sass: dict[str, str]
    different: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What compiling a sample of units both ways showed."""

    project: str
    version: str
    toolchain: str
    compiler_id: str
    front: Arch
    archs: tuple[Arch, ...]
    units: tuple[UnitProof, ...]
    path: Path

    @property
    def same(self) -> bool:
        return not self.different

    @property
    def kernels(self) -> int:
        """How many kernels were compared, each once per unit."""
        return sum(unit.kernels for unit in self.units)

    @property
    def different(self) -> list[str]:
        return [f"{unit.name}: {item}" for unit in self.units for item in unit.different]

    def covers(self, front: Arch, archs: frozenset[Arch]) -> bool:
        """Whether this proof allows `front` to serve all of `archs`; one over nothing does not."""
        return self.kernels > 0 and self.same and front == self.front and archs <= set(self.archs)


def find_proofs(recipe: Recipe, compiler_id: str) -> list[Proof]:
    """The proofs beside a recipe that speak of its version and these compilers."""
    found = [read_proof(path) for path in sorted((recipe.folder / FOLDER).glob("*.json"))]
    return [
        proof
        for proof in found
        if (proof.project, proof.version, proof.compiler_id)
        == (recipe.project, recipe.version, compiler_id)
    ]


def proof_path(recipe: Recipe, toolchain: Toolchain, archs: tuple[Arch, ...]) -> Path:
    label = ".".join(arch.sm.replace("_", "") for arch in archs)
    return recipe.folder / FOLDER / f"{toolchain.name}-{label}.json"


def read_proof(path: Path) -> Proof:
    """Raises ConfigError for a file that is no proof."""
    try:
        with path.open("rb") as stream:
            data = read_object(stream.read(MOST + 1), path.name)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}, not {SCHEMA}")
        return Proof(
            project=data["project"],
            version=data["version"],
            toolchain=data["toolchain"],
            compiler_id=data["compiler_id"],
            front=parse_arch(data["front"]),
            archs=tuple(parse_arch(arch) for arch in data["archs"]),
            units=tuple(_read_unit(unit) for unit in data["units"]),
            path=path,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FatwheelError) as error:
        raise ConfigError(
            f"not a proof: {error!r}",
            where=str(path),
            hint="invoke prove writes it; remove it to build with --front exact",
        ) from error


def write_proof(proof: Proof) -> None:
    """Write it to proof.path; the same proof gives the same bytes."""
    data = {
        "schema": SCHEMA,
        "project": proof.project,
        "version": proof.version,
        "toolchain": proof.toolchain,
        "compiler_id": proof.compiler_id,
        "front": proof.front.name,
        "archs": [arch.name for arch in proof.archs],
        "same": proof.same,
        "units": [
            {
                "name": unit.name,
                "kernels": unit.kernels,
                "sass": unit.sass,
                "different": list(unit.different),
            }
            for unit in proof.units
        ],
    }
    proof.path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(proof.path) as stream:
        stream.write((json.dumps(data, indent=1) + "\n").encode())


def select_units(units: tuple[Unit, ...], pattern: str | None) -> tuple[Unit, ...]:
    """The CUDA units whose name, or its last part, matches one of the comma-separated globs."""
    cuda = [unit for unit in units if unit.kind == "cuda"]
    if pattern is None:
        return tuple(cuda)
    globs = [part.strip() for part in pattern.split(",")]
    return tuple(unit for unit in cuda if any(_matches(unit.name, glob) for glob in globs))


def compare(unit: str, images: dict[str, tuple[Entry, Entry]]) -> UnitProof:
    """Compare a unit's cubins: architecture → (entry of its own front, of the shared front)."""
    sass: dict[str, str] = {}
    different: list[str] = []
    names: set[str] = set()
    for code, (own, shared) in images.items():
        mine, other = dict(_machine_code(own)), dict(_machine_code(shared))
        names |= mine.keys()
        total = hashlib.sha256()
        for name, content in sorted(mine.items()):
            total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        sass[code] = total.hexdigest()
        different += [
            f"{code} {name}"
            for name in sorted(mine.keys() | other.keys())
            if mine.get(name) != other.get(name)
        ]
    return UnitProof(unit, len(names), sass, tuple(different))


def _machine_code(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """Kernel name → the content of its .text section."""
    cubin = payload(entry)
    elf = read_cubin(cubin)
    for name in kernel_names_of_cubin(cubin):
        for section in elf.named(f".text.{name}"):
            yield name, bytes(elf.content(section))


def _matches(name: str, glob: str) -> bool:
    return fnmatch.fnmatch(name, glob) or fnmatch.fnmatch(name.rpartition("/")[2], glob)


def _read_unit(data: dict[str, Any]) -> UnitProof:
    return UnitProof(data["name"], data["kernels"], data["sass"], tuple(data["different"]))
