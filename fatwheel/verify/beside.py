"""The files beside a wheel that `invoke build` wrote with it, against the wheel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import FormatError
from ..fatbin.parity import shorten
from ..provenance.beside import LOCK, STATEMENT
from ..provenance.lockfile import FILE as LOCK_FILE
from ..provenance.statement import Statement, read_statement
from .evidence import Evidence
from .findings import Finding, note, refused, wrong
from .sameness import differing, shown


def beside_findings(evidence: Evidence, inside: Statement | None) -> Iterator[Finding]:
    """What contradicts the wheel, or `inside`, the statement in it, where it can be read."""
    beside = evidence.papers.beside
    if STATEMENT in beside:
        yield from _statement_findings(evidence, inside)
    if LOCK in beside and evidence.papers.inside.get(LOCK_FILE) != beside[LOCK]:
        yield wrong("the lock beside the wheel is not the one in it", _name(evidence, LOCK))


def _statement_findings(evidence: Evidence, inside: Statement | None) -> Iterator[Finding]:
    where = _name(evidence, STATEMENT)
    try:
        statement = read_statement(evidence.papers.beside[STATEMENT], where)
    except FormatError as error:
        if evidence.papers.inside:
            yield refused(error)
        else:
            yield note(f"it is not looked at: {error.what}", where)
        return
    right = {evidence.filename: evidence.papers.sha256}
    if statement.subjects != right:
        lines = shorten(differing(right, dict(statement.subjects), "subject"))
        yield wrong("it is not about this very file", where, lines)
    if inside is None:
        yield wrong("no statement in the wheel says the same", where)
        return
    contradictions = shorten(_contradictions(inside.predicate, statement.predicate))
    if contradictions:
        yield wrong("it contradicts the statement in the wheel", where, contradictions)


def _contradictions(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> Iterator[str]:
    """Where the predicate beside the wheel says something else, or more than what the engine
    adds: its own parameters, and images as materials."""
    known, definition = inner["buildDefinition"], outer["buildDefinition"]
    parameters = {
        name: value
        for name, value in definition["internalParameters"].items()
        if name in known["internalParameters"]
    }
    count = len(known["resolvedDependencies"])
    materials, added = (
        definition["resolvedDependencies"][:count],
        definition["resolvedDependencies"][count:],
    )
    in_common = {
        **definition,
        "internalParameters": parameters,
        "resolvedDependencies": materials,
    }
    yield from differing(dict(inner), {**outer, "buildDefinition": in_common})
    for material in added:
        if not _is_image(material) or material.get("name") in _names(materials):
            yield f"resolvedDependencies: {shown(material)} does not belong there"


def _is_image(material: Any) -> bool:
    annotations = material.get("annotations") if isinstance(material, dict) else None
    return isinstance(annotations, dict) and annotations.get("role") == "image"


def _names(materials: Iterable[Any]) -> list[Any]:
    return [material.get("name") for material in materials if isinstance(material, dict)]


def _name(evidence: Evidence, suffix: str) -> str:
    return evidence.filename + suffix
