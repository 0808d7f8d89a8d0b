"""The GPU code of a package against the GPUs and the driver of this machine.

Which images there are is read from the containers; images are unpacked only as far as it takes to
learn which CUDA made them. What a library loads from among its data is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..arch import JIT, NATIVE, NONE, Arch, coverage, parse_capability
from ..decoders import kernels_of, payload
from ..errors import FormatError
from ..fatbin.container import Container, Entry
from ..fatbin.cubin import Version, cuda_of_cubin, version_of_ptx
from ..verify.contents import PART, Contents, Image, KernelContainer, Served, archs_of, units_served
from ..verify.drivers import LINUX, WINDOWS, Need, needs_of, tables
from ..verify.libraries import runtimes_of
from .cures import WARNING, WRONG, Cure, Symptom, note
from .environment import CheckedPython, FoundDriver, FoundGpu, Torch
from .subject import CheckedPackage, Library

_SAMPLED = 4  # images of a kind and library that are unpacked, the first and the last ones
_UPDATE = "update NVIDIA's driver, on the machine itself: nvidia.com/drivers"


def contents_of(library: Library) -> Contents:
    """What it holds, as `verify` and `inspect` have it, without the names of its kernels."""
    binary = library.binary
    containers = binary.containers
    entries = [entry for container in containers for entry in container.entries]
    versions = {kind: _version(kind, [e for e in entries if e.kind == kind]) for kind in _READ}
    units = tuple(
        _unit(number, one, versions) for number, one in enumerate(containers) if one.entries
    )
    images = tuple(image for unit in units for image in unit.images)
    return Contents(library.name, binary.format, binary.machine, len(containers), images, units)


_READ = {"elf": cuda_of_cubin, "ptx": version_of_ptx}


def _version(kind: str, entries: list[Entry]) -> Version | None:
    """The newest that made the images of a kind: those of a library are nearly always alike."""
    found = []
    for entry in (*entries[:_SAMPLED], *entries[_SAMPLED:][-_SAMPLED:]):
        try:
            version = _READ[kind](payload(entry))
        except FormatError:
            continue
        if version:
            found.append(version)
    return max(found, default=None)


def _unit(
    number: int, container: Container, versions: dict[str, Version | None]
) -> KernelContainer:
    images = tuple(
        Image(one.kind, one.arch, one.stored, one.compression, versions.get(one.kind))
        for one in container.entries
    )
    return KernelContainer(number, ("",), images)


def device_findings(
    target: CheckedPython, subject: CheckedPackage, torch: Torch | None
) -> Iterator[Symptom]:
    """Each GPU against the libraries that have code, and the driver against all."""
    driver = target.driver
    with_code = [one for one in subject.libraries if one.binary.containers]
    needs_cuda = bool(with_code) or bool(_runtimes(subject))
    if driver.trouble and needs_cuda:
        yield _unasked(driver)
    if not driver.trouble and needs_cuda and not driver.gpus:
        yield Symptom("driver", WARNING, "the driver knows no GPU of this machine")
    yield from _runtime_findings(target, subject, torch)
    if not with_code or not driver.gpus:
        return
    contents = {one.name: contents_of(one) for one in with_code}
    runtimes = {one.name: runtimes_of(one.loading.needed, subject.shipped) for one in with_code}
    for gpu in dict.fromkeys(driver.gpus):
        yield from _gpu_findings(subject, gpu, with_code)
    for capability in dict.fromkeys(gpu.capability for gpu in driver.gpus):
        older: dict[Need, list[str]] = {}
        for name, content in contents.items():
            need = needs_of(content, runtimes[name]).get(capability)
            if need and is_older(target, need):
                older.setdefault(need, []).append(name)
        for need, names in older.items():
            yield _too_old(target, need, names)


def _unasked(driver: FoundDriver) -> Symptom:
    what = f"NVIDIA's driver cannot be asked: {driver.trouble}"
    return note("driver", what, details=["the GPU code was not compared with any GPU"])


def _gpu_findings(
    subject: CheckedPackage, gpu: FoundGpu, libraries: list[Library]
) -> Iterator[Symptom]:
    served = {one.name: _served(one, gpu) for one in libraries}
    title = f"{gpu.name} ({gpu.capability})"
    serves_any = any(how != NONE for how, _ in served.values())
    for name, (how, share) in served.items():
        if how == NATIVE:
            yield note("gpu", f"it has machine code for {title}", name)
        elif how == JIT:
            what = (
                f"for {title} it has PTX alone, which the driver compiles at the first use (JIT): "
            )
            yield Symptom("gpu", WARNING, f"{what}that takes minutes in large projects", name)
        elif how == PART:
            what = f"for {title} only {share} have code: what needs the others fails"
            yield Symptom("gpu", WARNING, what, name, cure=_build(subject, gpu))
        else:
            what = f"it has no code for {title}: no kernel image is available for execution on it"
            severity = WARNING if serves_any else WRONG
            yield Symptom("gpu", severity, what, name, _held(libraries, name), _build(subject, gpu))


def _held(libraries: list[Library], name: str) -> tuple[str, ...]:
    contents = next(contents_of(one) for one in libraries if one.name == name)
    images = dict.fromkeys(image.name for image in sorted(contents.images, key=_order))
    return (f"it has {', '.join(images)}",) if images else ()


def _order(image: Image) -> tuple[str, Arch]:
    return image.kind, image.arch


def _served(library: Library, gpu: FoundGpu) -> tuple[str, str]:
    """How its containers serve a GPU, and `24 of 30 units`. A driver links linked code anew, at
    worst, from relocatable PTX."""
    arch = parse_capability(gpu.capability)
    found = [(one, _coverage(one, arch)) for one in library.binary.containers if one.entries]
    if any(how != NONE for _, how in found):  # nvcc also makes containers without kernels
        found = [(one, how) for one, how in found if how != NONE or _has_kernels(one)]
    count = Counter(how for _, how in found)
    relocatable = {_coverage(one, arch) for one in library.binary.relocatable}
    if count[NONE] and relocatable == {JIT}:
        count[JIT] += count.pop(NONE)
    served = Served(count[NATIVE], count[JIT], count[NONE])
    return served.how, units_served(served)


def _has_kernels(container: Container) -> bool:
    try:
        return bool(kernels_of(container.entries))
    except FormatError:
        return True


def _coverage(container: Container, gpu: Arch) -> str:
    archs = archs_of(Image(one.kind, one.arch, 0, "") for one in container.entries)
    return coverage(archs.cubins, archs.ptx, gpu)


def _build(subject: CheckedPackage, gpu: FoundGpu) -> Cure:
    arch = parse_capability(gpu.capability)
    return Cure(
        f"no command is known: install a build of {subject.name} with code for {arch.sm}, or make "
        f"one: fatwheel build --kernel RECIPE --arch {arch.name}"
    )


def _runtimes(subject: CheckedPackage) -> frozenset[str]:
    found = (runtimes_of(one.loading.needed, subject.shipped) for one in subject.libraries)
    return frozenset().union(*found)


def _runtime_findings(
    target: CheckedPython, subject: CheckedPackage, torch: Torch | None
) -> Iterator[Symptom]:
    """Whether the driver is new enough for the CUDA of the package, whatever the GPU."""
    of_torch = torch.cuda.partition(".")[0] if torch and subject.name == "torch" else ""
    majors = sorted({*_runtimes(subject), *filter(None, [of_torch])}, key=int)
    for major in majors:
        need = tables().for_cuda(int(major), _system(target))
        if need and is_older(target, need):
            yield _too_old(target, need, [])


def _too_old(target: CheckedPython, need: Need, names: list[str]) -> Symptom:
    driver = target.driver
    known = f" (CUDA {driver.cuda[0]}.{driver.cuda[1]})" if driver.cuda else ""
    title = f"the driver {driver.version or 'here'}{known}"
    what = f"{title} is too old: {need.reason} needs {need.driver}"
    return Symptom("driver", WRONG, what, details=tuple(names), cure=Cure(_UPDATE))


def is_older(target: CheckedPython, need: Need) -> bool:
    """Whether the driver is surely older. One that says only the CUDA that it knows is so if it
    would be older, were it the last before the next CUDA's."""
    driver, system = target.driver, _system(target)
    wanted = _parts(need.driver)
    if own := _parts(driver.version):
        return own < wanted
    if driver.cuda is None:
        return False
    later = [one.drivers[system] for one in tables().releases if one.cuda > driver.cuda]
    return bool(later) and _parts(later[0]) <= wanted


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdigit())


def _system(target: CheckedPython) -> str:
    return WINDOWS if target.system == "Windows" else LINUX
