"""What a compile step needs besides the unit: tools, folders, the list of architectures.

A Context crosses process boundaries as JSON (`to_wire`, `context_from_wire`), so that a worker,
the shim and the planner all compute the same keys. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arch import Arch
from ..model import Front, Job, Unit
from .roots import job_variables
from .view import Places, places_from_wire

# Imported where it is needed: a stand-in that only captures does without.
if TYPE_CHECKING:
    from ..storage.store import Store


@dataclass(frozen=True)
class Context:
    """One build's compilers and places.

    nvcc:        path as in a job's folder (placeholders), so that its own folders are seen
                 through the view.
    cxx:         the host compiler.
    device_id:   digest of the CUDA compilers; host_id: of the host compiler.
    seeded:      whether this nvcc has -frandom-seed (CUDA 12.9 and later).
    fronts:      those of the build; they decide __CUDA_ARCH_LIST__.
    environment: every variable that compilers see, but for those that a job adds.
    scratch:     folder for the jobs' own folders.
    store_scope: that of the build's entries in the store.
    store_trunks: folders of stores that may only be read, beside store_root's.
    audit:       one in how many takings over of code by its device program is compiled all the
                 same; 0 for none, `secondkey.OFF` where nothing is taken over.
    """

    nvcc: str
    cxx: str
    device_id: str
    host_id: str
    seeded: bool
    fronts: tuple[Front, ...]
    places: Places
    environment: tuple[tuple[str, str], ...]
    scratch: str
    store_root: str
    store_limit: int
    store_scope: str = ""
    store_trunks: tuple[str, ...] = ()
    audit: int = -1

    def store(self) -> Store:
        from ..storage.store import Branch, Store

        root = Path(self.store_root)
        if self.store_trunks:
            return Branch(root, [Path(trunk) for trunk in self.store_trunks], self.store_scope)
        return Store(root, self.store_limit, self.store_scope)

    def archlist(self, unit: Unit) -> tuple[int, ...]:
        """__CUDA_ARCH_LIST__ as one nvcc call for all of a unit would define it: 800, 860."""
        from .archs import fronts_of

        return tuple(sorted({front.virtual.number * 10 for front in fronts_of(unit, self.fronts)}))

    def variables(self, folder: Path) -> dict[str, str]:
        """What a compiler's environment is in a job's folder."""
        return {**dict(self.environment), **job_variables(folder)}

    def to_wire(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def context_from_wire(data: dict[str, Any]) -> Context:
    return Context(
        **{
            **data,
            "places": places_from_wire(data["places"]),
            "fronts": fronts_from_wire(data["fronts"]),
            "environment": tuple((name, value) for name, value in data["environment"]),
            "store_trunks": tuple(data["store_trunks"]),
        }
    )


def fronts_from_wire(data: list[dict[str, Any]]) -> tuple[Front, ...]:
    return tuple(
        Front(Arch(**front["virtual"]), tuple(front["codes"]), front["split"]) for front in data
    )


def job_from_wire(data: dict[str, Any]) -> Job:
    front = data["front"]
    return Job(
        unit=unit_from_wire(data["unit"]),
        front=fronts_from_wire([front])[0] if front else None,
        host=data["host"],
        memory=data["memory"],
        seconds=data["seconds"],
        stage=data["stage"],
    )


def unit_from_wire(data: dict[str, Any]) -> Unit:
    return Unit(
        name=data["name"],
        kind=data["kind"],
        source=data["source"],
        codegen=tuple(data["codegen"]),
        preprocessor=tuple(data["preprocessor"]),
        own=tuple(data["own"]),
        images=None if data["images"] is None else tuple(data["images"]),
    )


def digest(*parts: Any) -> str:
    """sha256 over the canonical JSON of parts: what every key in the store is."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(unit: Unit) -> str:
    """A unit's identity: its command with placeholders, wherever it was captured, whatever it is to
    be compiled for."""
    command = dataclasses.asdict(unit)
    return digest("unit", {key: command[key] for key in command.keys() - {"own", "images"}})
