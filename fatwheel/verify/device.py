"""The device code of a wheel: which GPUs it serves, whether it fits together, what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from ..arch import CAPABILITIES
from ..fatbin.parity import shorten
from .contents import Contents
from .evidence import Evidence
from .findings import Finding, note, warning
from .inspect import coverage_of

# NVIDIA, nvcc documentation, --compress-mode: what it makes is "not compatible with drivers
# released before CUDA Toolkit's 12.4 Release"; that came with driver 550.54.14 for Linux.
_ZSTD_DRIVER = "a driver of CUDA 12.4 or newer (on Linux 550.54.14)"
# NVIDIA, CUDA compatibility, "Minor version compatibility": CUDA 13 needs a driver from 580 on.
_NEWER_CUDA = 13


def coverage_findings(evidence: Evidence) -> Iterator[Finding]:
    """Which GPUs each binary serves, and images that only some of its containers have."""
    with_units = [b.contents for b in evidence.binaries if b.contents.units]
    if not with_units:
        yield warning("there is no device code in this wheel")
    for contents in with_units:
        yield note(_served(contents), contents.path)
        yield from _partial_findings(contents)
        yield from _unread_findings(contents)


def parity_findings(evidence: Evidence) -> Iterator[Finding]:
    """Kernels or parameter layouts that differ between the images of one container."""
    for binary in evidence.binaries:
        yield from binary.disparities


def compression_findings(evidence: Evidence, cuda: Collection[str]) -> Iterator[Finding]:
    """Images that older drivers cannot read; cuda: major versions of the runtimes needed."""
    needed_anyway = bool(cuda) and all(int(version) >= _NEWER_CUDA for version in cuda)
    for binary in evidence.binaries:
        images = binary.contents.images
        path = binary.contents.path
        zstd = [image.name for image in images if image.compression == "zstd"]
        if zstd:
            what = f"{_count(zstd)} compressed with zstd: needs {_ZSTD_DRIVER}"
            if needed_anyway:
                yield note(f"{what}; CUDA {min(cuda)} needs a newer one anyway", path)
            else:
                yield warning(what, path)
        unknown = [image.name for image in images if image.compression == "unknown"]
        if unknown:
            yield warning(f"{_count(unknown)} compressed in a way that is not known here", path)


def _served(contents: Contents) -> str:
    """`native on 8.0, 8.6; by JIT on 9.0; nothing on 7.5`."""
    words = {"native": "native on", "jit": "by JIT on", "none": "nothing on"}
    found = coverage_of([contents])
    lists = {how: [gpu for gpu in CAPABILITIES if found[gpu] == how] for how in words}
    return "; ".join(f"{words[how]} {', '.join(gpus)}" for how, gpus in lists.items() if gpus)


def _partial_findings(contents: Contents) -> Iterator[Finding]:
    units = [(unit, {image.name for image in unit.images}) for unit in contents.units]
    count = Counter(name for _, names in units for name in names)
    for name in dict.fromkeys(image.name for image in contents.images):
        if 0 < count[name] < len(units):
            missing = (
                f"not in container {unit.container}, that of kernel {unit.kernels[0]}"
                for unit, names in units
                if name not in names
            )
            what = f"partial coverage: {name} in {count[name]} of {len(units)} units"
            yield warning(what, contents.path, shorten(missing))


def _unread_findings(contents: Contents) -> Iterator[Finding]:
    other = [image.name for image in contents.images if image.kind not in ("elf", "ptx")]
    if other:
        yield note(f"{_count(other)} of a kind whose kernels are not read", contents.path)


def _count(names: Collection[str]) -> str:
    noun = "image is" if len(names) == 1 else "images are"
    return f"{len(names)} {noun}"
