"""Whether a wheel is what it says of itself: RECORD, project, version, tags, and the version's own
label.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from ..errors import FormatError
from ..fatbin.embedded import Images
from ..storage.documents import read_object
from ..wheels.metadata import fields, name_disagreement, tag_disagreement
from ..wheels.name import VARIANT, parse_any_name, split_variant
from ..wheels.recorded import mistakes_of
from .contents import DEVICE_ONLY, Image
from .evidence import WARNING, WRONG, Evidence, Finding, note, warning, wrong
from .platforms import cuda_versions

_ARCH = re.compile(r"(sm|ptx)_?([0-9]{2,3}[af]?)")
_WITH_PTX = "ptx"
_CUDA = re.compile(r"cu(1[0-9])[0-9]?(?![0-9])")


def record_findings(evidence: Evidence) -> Iterator[Finding]:
    """RECORD against the files."""
    for mistake in mistakes_of(evidence.record, evidence.files):
        severity = WRONG if mistake.grave else WARNING
        yield Finding(severity, mistake.what, mistake.where, mistake.details)


def name_findings(evidence: Evidence) -> Iterator[Finding]:
    """File name, dist-info folder, METADATA and WHEEL against each other."""
    for severity, error in _disagreements(evidence):
        yield Finding(severity, error.what, details=error.details)
    versions = fields(evidence.wheel, "Wheel-Version")
    if len(versions) != 1 or not versions[0].startswith("1."):
        said = ", ".join(versions) or "none"
        yield wrong(f"the wheel's format is {said}; installers support 1.x", "WHEEL")
    if len(fields(evidence.metadata, "Metadata-Version")) != 1:
        yield wrong("there must be exactly one Metadata-Version", "METADATA")
    host_code = any(binary.contents.machine != DEVICE_ONLY for binary in evidence.binaries)
    if host_code and fields(evidence.wheel, "Root-Is-Purelib") == ["true"]:
        yield warning("Root-Is-Purelib is true, although there are binaries", "WHEEL")


def _disagreements(evidence: Evidence) -> Iterator[tuple[str, FormatError]]:
    try:
        name = parse_any_name(evidence.filename)
        for severity, error in (
            (WRONG, name_disagreement(name, evidence.dist_info, evidence.metadata)),
            (WARNING, tag_disagreement(name, evidence.wheel)),
        ):
            if error:
                yield severity, error
    except FormatError as error:
        yield WRONG, error
        return
    yield from _variant_disagreements(name.variant, evidence.variant)
    build = "".join(fields(evidence.wheel, "Build"))
    if build != name.build:
        details = [f"the file name says {name.build or 'none'}", f"WHEEL says {build or 'none'}"]
        yield WARNING, FormatError("the wheel's build tags do not agree", details=details)


def _variant_disagreements(label: str, document: bytes | None) -> Iterator[tuple[str, FormatError]]:
    """The label of a variant wheel against its variant.json, which must tell of it alone."""
    if document is None:
        if label:
            what = f"the file name has the label {label!r} of a variant, and there is no {VARIANT}"
            yield WRONG, FormatError(what)
        return
    try:
        told = read_object(document, VARIANT).get("variants")
    except FormatError as error:
        yield WRONG, error
        return
    labels = list(told) if isinstance(told, dict) else []
    if not label:
        yield WARNING, FormatError(f"it has a {VARIANT}, and its file name no label of a variant")
    elif labels != [label]:
        found = ", ".join(map(repr, labels)) or "none"
        details = [f"the file name says {label!r}", f"{VARIANT} says {found:.200}"]
        yield WRONG, FormatError("the wheel's labels of a variant do not agree", details=details)


def label_findings(evidence: Evidence) -> Iterator[Finding]:
    """The version's local part, such as `cu130torch2.11.sm80.sm89.ptx`, against the bytes.

    A variant wheel has the version of the wheel that it was made from, and some of its images.
    """
    local = evidence.version.partition("+")[2]
    yield from _cuda_findings(local, cuda_versions(evidence))
    named = _named_images(local)
    if not named:
        yield note("the version names no architectures")
        return
    found, embedded = _images_inside(evidence)
    is_variant = bool(split_variant(evidence.filename)[1])
    missing = set[str]() if is_variant else named - found - embedded
    if found - named or missing:
        yield wrong(
            f"the version {evidence.version} does not name the architectures that are inside",
            details=[
                *(f"only in the version: {name}" for name in sorted(missing)),
                *(f"only inside: {name}" for name in sorted(found - named)),
            ],
        )
    untold = sorted(embedded - found - named)
    if untold:
        yield note(
            "it holds device code of more architectures, which libraries load themselves",
            details=untold,
        )


def _images_inside(evidence: Evidence) -> tuple[set[str], set[str]]:
    """The names of images that wrappers lead to, and of those that libraries load themselves.

    A build's version need not name the latter: which of them are there, its `--arch` did not say.
    """
    found: set[str] = set()
    embedded: set[str] = set()
    for contents in (binary.contents for binary in evidence.binaries):
        if contents.containers:
            found |= _read(contents.images)
        elif contents.is_data:
            embedded |= _read(contents.images)
        for place in contents.embedded:
            embedded |= _read(place.images)
    return found, embedded


def _read(images: Iterable[Image | Images]) -> set[str]:
    return {image.name for image in images if image.kind in ("elf", "ptx")}


def _cuda_findings(local: str, versions: Collection[str]) -> Iterator[Finding]:
    said = _CUDA.match(local)
    if said and versions and said[1] not in versions:
        found = " and ".join(f"CUDA {version}" for version in sorted(versions))
        yield wrong(f"the version says CUDA {said[1]}, its binaries need {found}")


def _named_images(local: str) -> set[str]:
    """`sm_80` and `compute_80` for each architecture that a label names.

    `sm89.ptx` is for cubins and PTX, `ptx80` for PTX alone.
    """
    named: set[str] = set()
    last = ""
    for part in re.split(r"[-_.]", local.lower()):
        match = _ARCH.fullmatch(part)
        if match:
            last = match[2]
            named.add(f"sm_{last}" if match[1] == "sm" else f"compute_{last}")
        elif part == _WITH_PTX and last:
            named.add(f"compute_{last}")
    return named
