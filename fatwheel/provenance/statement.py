"""fatwheel.provenance.json: what a wheel was made from, as an in-toto statement.

Format: in-toto Attestation Framework, "Statement" v1, with SLSA's "Build: Provenance" v1 as its
predicate. Parameters, and how the build types may change, are told in docs/reproducible.md. There
are no times and no machines in it: the same build gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packageurl import PackageURL

from .. import __version__
from ..errors import FormatError
from ..storage.documents import json_bytes, read_object
from .lock import FILE as LOCK_FILE
from .lock import BuildLock, Material, lock_bytes, materials_of
from .record import FILE as RECORD_FILE

FILE = "fatwheel.provenance.json"
TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:fatwheel"
# How the wheel was made: by compilers, or from other wheels. A change of what parameters there
# are, or of what they mean, changes the number: `invoke verify` holds every part against the lock.
BUILD = "urn:fatwheel:build:1"
EDIT = "urn:fatwheel:edit:1"

Predicate = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """subjects: sha256 in hex by name. predicate: as in the file, its required parts checked."""

    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]

    @property
    def build_type(self) -> str:
        return str(self.predicate["buildDefinition"]["buildType"])


def predicate_of(
    lock: BuildLock,
    record: Mapping[str, Any],
    extra: Sequence[Material] = (),
    internal: Mapping[str, Any] | None = None,
    *,
    build_type: str = BUILD,
) -> Predicate:
    """SLSA's provenance of the wheel whose fatwheel.json is `record`.

    extra and internal: further materials and internal parameters. FormatError where the record
    lacks what a statement tells, or the lock has a name that no package can have.
    """
    predicate: Predicate = {
        "buildDefinition": {
            "buildType": build_type,
            "externalParameters": _external(lock, record),
            "internalParameters": _internal(lock, record),
            "resolvedDependencies": [
                _lock_descriptor(lock_bytes(lock)),
                *map(_descriptor, materials_of(lock)),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"fatwheel": _part(record, "fatwheel")}},
        },
    }
    return extended(predicate, extra, internal or {})


def extended(
    predicate: Mapping[str, Any], extra: Iterable[Material], internal: Mapping[str, Any]
) -> Predicate:
    """A predicate with further materials and internal parameters."""
    definition = predicate["buildDefinition"]
    return {
        **predicate,
        "buildDefinition": {
            **definition,
            "internalParameters": {**definition["internalParameters"], **internal},
            "resolvedDependencies": [
                *definition["resolvedDependencies"],
                *map(_descriptor, extra),
            ],
        },
    }


def statement_bytes(subjects: Sequence[tuple[str, str]], predicate: Mapping[str, Any]) -> bytes:
    """The statement that these files, by name and sha256 in hex, were made so."""
    return json_bytes(
        {
            "_type": TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(subjects)
            ],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )


def read_statement(data: bytes, where: str) -> Statement:
    """A statement of fatwheel's, from anywhere.

    Raises FormatError where it is damaged, is about something else, or was written by a newer
    fatwheel.
    """
    content = read_object(data, where)
    _check_kind("the statement's type", content.get("_type"), (TYPE,), where)
    _check_kind("its predicate", content.get("predicateType"), (PREDICATE,), where)
    try:
        predicate = content["predicate"]
        definition = predicate["buildDefinition"]
        build_type = definition["buildType"]
        shapes = [
            (definition["externalParameters"], dict), (definition["internalParameters"], dict),
            (definition["resolvedDependencies"], list), (predicate["runDetails"]["builder"], dict),
        ]  # fmt: skip
        subjects = [(one["name"], one["digest"]["sha256"]) for one in content["subject"]]
        # Readers may go by any digest of a subject (in-toto, DigestSet): by that of another file.
        exact = all(len(one) == 2 and len(one["digest"]) == 1 for one in content["subject"])
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"a required part is missing: {error}", where) from error
    _check_kind("its subject", build_type, (BUILD, EDIT), where)
    if not all(isinstance(part, kind) for part, kind in shapes):
        raise _damaged("a part of its predicate is of the wrong kind", where)
    if not exact:
        raise _damaged("a subject has more than a name and a sha256", where)
    return Statement(_by_name(subjects, where), predicate)


def _check_kind(what: str, found: Any, known: Sequence[str], where: str) -> None:
    """The types that all parts have: other statements, or those of a newer fatwheel."""
    if found not in known:
        raise FormatError(
            f"{what} is {str(found)[:80]!r}, which this version of fatwheel does not support",
            where=where,
            hint=f"known: {', '.join(known)}; this is fatwheel {__version__}: "
            "was it written by a newer one, or by another tool?",
        )


def _by_name(subjects: Sequence[tuple[Any, Any]], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, sha256 in subjects:
        if not isinstance(name, str) or not isinstance(sha256, str):
            raise _damaged("a subject's name or digest is not text", where)
        if name in found:
            raise _damaged(f"{name[:80]!r} is listed as a subject twice", where)
        found[name] = sha256
    if not found:
        raise _damaged("it has no subject", where)
    return found


def _damaged(reason: str, where: str) -> FormatError:
    return FormatError(f"the statement is damaged: {reason}", where=where)


def _external(lock: BuildLock, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the user asked for."""
    recipe = lock.recipe
    return {
        "recipe": {"name": recipe.name, "project": recipe.project, "version": recipe.version},
        "archs": _part(record, "archs"),
        "front": _part(record, "front"),
        "python": lock.python,
        "torch": lock.torch,
        "toolchain": lock.toolchain.name,
    }


def _internal(lock: BuildLock, record: Mapping[str, Any]) -> dict[str, Any]:
    """What followed from it."""
    toolchain = lock.toolchain
    return {
        "epoch": lock.recipe.epoch,
        "fronts": _part(record, "fronts"),
        **({"front_units": record["front_units"]} if "front_units" in record else {}),
        "host": {"compiler": lock.host.compiler, "python": lock.host.python},
        "recipe": lock.recipe.digest,
        "toolchain": {
            "platform": toolchain.platform,
            "cuda": toolchain.cuda,
            "nvcc": toolchain.nvcc,
            "digest": toolchain.digest,
        },
    }


def _part(record: Mapping[str, Any], name: str) -> Any:
    if name not in record:
        raise FormatError(f"it has no {name!r}", where=RECORD_FILE)
    return record[name]


def _lock_descriptor(data: bytes) -> dict[str, Any]:
    return {
        "name": LOCK_FILE,
        "digest": {"sha256": hashlib.sha256(data).hexdigest()},
        "mediaType": "application/json",
        "annotations": {"role": "lock", "size": len(data)},
    }


def _descriptor(material: Material) -> dict[str, Any]:
    """A ResourceDescriptor; only what is known is in it."""
    annotations = {"role": material.role, "version": material.version, "size": material.size}
    found = {
        "name": material.filename or material.name,
        "uri": _uri(material),
        "digest": {"sha256": material.sha256},
        "annotations": {name: value for name, value in annotations.items() if value},
    }
    return {name: value for name, value in found.items() if value}


def _uri(material: Material) -> str:
    """Where a file lies, or what an index of packages knows it by (a package URL); else ''."""
    if material.url or not material.filename:
        return material.url
    if material.role == "wine":
        arch = material.filename.removesuffix(".deb").rpartition("_")[2]
        debian = PackageURL("deb", "debian", material.name, material.version, {"arch": arch})
        return debian.to_string()
    try:
        return PackageURL("pypi", None, material.name, material.version).to_string()
    except ValueError as error:
        raise FormatError(
            f"no package can be called {material.name!r:.80}: {error}", where=LOCK_FILE
        ) from error
