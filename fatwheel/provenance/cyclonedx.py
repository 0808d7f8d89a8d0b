"""What an SBOM says of a wheel and of each material of its lock, with CycloneDX's own library.

That library takes longer to import than most commands take: `sbom` imports this module to write
one.
"""

from __future__ import annotations

import json
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
from .lock import BuildLock, Material, materials_of

_REQUIRED = ("source", "source-archive", "patch", "runtime")
_GIT = "git+"  # as URLs of commits begin
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


def document_of(
    lock: BuildLock, record: Mapping[str, Any], name: str, version: str, where: str
) -> dict[str, Any]:
    """The SBOM as CycloneDX's own library writes it, in no particular order.

    Raises FormatError, at `where`, for a lock with a name or URL that no SBOM can hold.
    """
    try:
        return _document(lock, record, name, version)
    except (ValueError, CycloneDxException) as error:
        raise FormatError(f"no SBOM can be made of the lock: {error}", where=where) from error


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
    if one.url.startswith(_GIT):
        return [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(one.url))]
    kind = ExternalReferenceType.DISTRIBUTION
    return [ExternalReference(type=kind, url=XsUri(one.url), hashes=[digest])]


def _purl(one: Material) -> PackageURL | None:
    """The name by which others know a material; None for what only this machine has."""
    if one.role == "image":
        return _image_purl(one.name, f"sha256:{one.sha256}")
    if one.url.startswith(_GIT):
        return PackageURL("generic", None, one.name, one.version, {"vcs_url": one.url})
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
