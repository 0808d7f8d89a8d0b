"""sboms/fatwheel.cdx.json: the SBOM of a wheel, in CycloneDX format.

A CycloneDX 1.6 document (ECMA-424), at the place that PEP 770 gives it in the dist-info folder. The
wheel is its subject; the components are the materials of the build's lock, each with its sha256. Of
a material without a file that is the lock's digest: of a source folder's files, of what a compiler
is made of. A component's scope says whether it is there when the wheel is used: 'required', or
'excluded' for compilers and tools. Properties that begin with `fatwheel:` say what CycloneDX has no
words for. How libraries depend on one another is not in a lock, so the graph says only what the
wheel is made of or needs.

The same lock gives the same bytes: there is no time in it, the serial number is made from the rest,
and nothing depends on the order in which the library writes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from ..errors import FormatError
from ..storage.documents import json_bytes, read_object
from .lock import BuildLock

FILE = "sboms/fatwheel.cdx.json"
_SPEC = "1.6"
_SERIAL = uuid.uuid5(uuid.NAMESPACE_OID, "fatwheel:sbom")


def sbom_bytes(lock: BuildLock, record: Mapping[str, Any], name: str, version: str) -> bytes:
    """The SBOM of a wheel with this record, name and version.

    Raises FormatError where the lock has a name or URL that no SBOM can hold.
    """
    from .cyclonedx import document_of

    document = document_of(lock, record, name, version, FILE)
    del document["metadata"]["timestamp"]
    del document["serialNumber"]
    document = _in_order(document)
    document["serialNumber"] = uuid.uuid5(_SERIAL, json.dumps(document, sort_keys=True)).urn
    return json_bytes(document)


def _in_order(value: Any) -> Any:
    """The same document with every list in an order of its own, whatever wrote it."""
    if isinstance(value, dict):
        return {key: _in_order(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(map(_in_order, value), key=lambda one: json.dumps(one, sort_keys=True))
    return value


# -- reading -------------------------------------------------------------------------------------


def materials_in(data: bytes, where: str) -> tuple[tuple[str, str, str], ...]:
    """The (name, version, sha256) of every component of an SBOM from anywhere, sorted.

    Version and sha256 are '' where it has none. Raises FormatError where it is damaged, written in
    another way than fatwheel's, or by a newer CycloneDX.
    """
    document = read_object(data, where)
    if document.get("bomFormat") != "CycloneDX":
        raise _damaged(where, "it does not say that it is CycloneDX")
    if document.get("specVersion") != _SPEC:
        raise FormatError(
            f"it is CycloneDX {str(document.get('specVersion'))[:40]}; supported: {_SPEC}",
            where=where,
            hint="was the wheel made by a newer fatwheel?",
        )
    if json_bytes(document) != data:
        raise _damaged(where, "it is not in the form that fatwheel writes: something was added")
    return tuple(sorted(_known(one, where) for one in _list(document, "components", where)))


def _known(component: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(component, dict):
        raise _damaged(where, "a component is not an object")
    hashes = [one for one in _list(component, "hashes", where) if isinstance(one, dict)]
    found = [one.get("content") for one in hashes if one.get("alg") == "SHA-256"] or [""]
    name, version = component.get("name"), component.get("version", "")
    if not (isinstance(name, str) and isinstance(version, str) and isinstance(found[0], str)):
        raise _damaged(where, "a component's name, version or hash is not text")
    if len(found) > 1:
        raise _damaged(where, f"the component {name[:60]!r} has several sha256")
    return name, version, found[0]


def _list(part: dict[str, Any], key: str, where: str) -> list[Any]:
    found = part.get(key, [])
    if not isinstance(found, list):
        raise _damaged(where, f"its {key} are not a list")
    return found


def _damaged(where: str, why: str) -> FormatError:
    return FormatError(f"the SBOM is damaged: {why}", where=where)
