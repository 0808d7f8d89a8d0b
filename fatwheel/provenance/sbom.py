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

from cyclonedx.exception import CycloneDxException
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from ..errors import FormatError
from ..storage.documents import json_bytes, read_object
from .buildlock import BuildLock, Material, materials_of

FILE = "sboms/fatwheel.cdx.json"

_REQUIRED = ("source", "runtime")
_ON_AN_INDEX = ("source", "compiler", "build", "runtime", "installer")
_TYPES = {
    "compiler": ComponentType.APPLICATION,
    "build": ComponentType.APPLICATION,
    "installer": ComponentType.APPLICATION,
    "interpreter": ComponentType.APPLICATION,
    "msvc": ComponentType.APPLICATION,
    "host": ComponentType.APPLICATION,
    "image": ComponentType.CONTAINER,
}
_SPEC = "1.6"
_SERIAL = uuid.uuid5(uuid.NAMESPACE_OID, "fatwheel:sbom")


def sbom_bytes(lock: BuildLock, record: Mapping[str, Any], name: str, version: str) -> bytes:
    """The SBOM of a wheel with this record, name and version.

    Raises FormatError where the lock has a name or URL that no SBOM can hold.
    """
    try:
        document = _document(lock, record, name, version)
    except (ValueError, CycloneDxException) as error:
        raise FormatError(f"no SBOM can be made of the lock: {error}", where=FILE) from error
    del document["metadata"]["timestamp"]
    del document["serialNumber"]
    document = _in_order(document)
    document["serialNumber"] = uuid.uuid5(_SERIAL, json.dumps(document, sort_keys=True)).urn
    return json_bytes(document)


def _document(
    lock: BuildLock, record: Mapping[str, Any], name: str, version: str
) -> dict[str, Any]:
    wheel = _wheel(lock, record, name, version)
    components = {_reference(one): _component(one) for one in materials_of(lock)}
    tool = Component(name="fatwheel", version=lock.fatwheel, type=ComponentType.APPLICATION)
    bom = Bom(
        components=components.values(),
        metadata=BomMetaData(
            component=wheel,
            tools=ToolRepository(components=[tool]),
            lifecycles=[PredefinedLifecycle(LifecyclePhase.BUILD)],
        ),
    )
    needed = (one for one in components.values() if one.scope is ComponentScope.REQUIRED)
    bom.register_dependency(wheel, needed)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    document: dict[str, Any] = json.loads(text)
    # Without an entry, what a component depends on is not known; an empty one would mean nothing.
    document["dependencies"] = [one for one in document["dependencies"] if "dependsOn" in one]
    return document


def _wheel(lock: BuildLock, record: Mapping[str, Any], name: str, version: str) -> Component:
    archs = record.get("archs")
    told = {
        "archs": " ".join(map(str, archs)) if isinstance(archs, list) else "",
        "cuda": lock.toolchain.cuda,
        "lock": str(record.get("lock", "")),
        "python": lock.python,
        "recipe": lock.recipe.name,
        "toolchain": lock.toolchain.name,
        "torch": lock.torch,
    }
    purl = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        properties=_properties(told),
    )


def _component(one: Material) -> Component:
    digest = HashType(alg=HashAlgorithm.SHA_256, content=one.sha256)
    told = {"role": one.role, "filename": one.filename, "size": str(one.size or "")}
    return Component(
        name=one.name,
        version=one.version or None,
        type=_TYPES.get(one.role, ComponentType.LIBRARY),
        bom_ref=_reference(one),
        scope=ComponentScope.REQUIRED if one.role in _REQUIRED else ComponentScope.EXCLUDED,
        hashes=[digest],
        purl=_purl(one),
        external_references=_distribution(one, digest),
        properties=_properties(told),
    )


def _reference(one: Material) -> str:
    """What a material is called within the document; the same only for the same one."""
    return ":".join([one.role, one.name, one.version, one.filename, one.sha256])


def _properties(told: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"fatwheel:{key}", value=value) for key, value in told.items() if value]


def _distribution(one: Material, digest: HashType) -> list[ExternalReference]:
    if not one.url:
        return []
    kind = ExternalReferenceType.DISTRIBUTION
    return [ExternalReference(type=kind, url=XsUri(one.url), hashes=[digest])]


def _purl(one: Material) -> PackageURL | None:
    """The name by which others know a material; None for what only this machine has."""
    if one.role == "image":
        return _image_purl(one.name, f"sha256:{one.sha256}")
    if not one.filename:
        return None
    if one.role in _ON_AN_INDEX:
        told = {"file_name": one.filename, "download_url": one.url}
        return PackageURL("pypi", None, one.name, one.version, told)
    told = {"download_url": one.url}
    return PackageURL("generic", None, one.name, one.version, told)


def _image_purl(reference: str, digest: str) -> PackageURL:
    """Of an image by its reference, as `docker pull` takes it: HOST/PATH:TAG."""
    place, _, tag = reference.rpartition(":")
    if not place or "/" in tag:  # a port
        place, tag = reference, ""
    told = {"repository_url": place if "/" in place else "", "tag": tag}
    return PackageURL("oci", None, place.rpartition("/")[2], digest, told)


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
