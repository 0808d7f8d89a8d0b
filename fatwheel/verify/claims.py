"""Whether a wheel is what it says of itself: RECORD, project, version, tags, the version's label,
the names of its modules, and the libraries that it needs.

Tags: PyPA specification "Platform compatibility tags". Names of modules: PEP 3149 (Linux), PEP
489 (`PyInit_`), and what CPython writes on Windows (`_C.cp311-win_amd64.pyd`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from ..errors import FormatError
from ..fatbin.embedded import Images
from ..storage.documents import read_object
from ..wheels.metadata import (
    expand_tags,
    fields,
    mistakes_of,
    name_disagreement,
    requirements,
    tag_disagreement,
)
from ..wheels.name import VARIANT, parse_any_name, split_variant
from .contents import DEVICE_ONLY, Image
from .evidence import WARNING, WRONG, Evidence, Examined, Finding, note, warning, wrong
from .libraries import Import, brings_runtime, imports_of, is_of_torch, package_of, runtimes_of

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
    linkable = frozenset[str]().union(*(one.contents.linkable for one in evidence.binaries))
    is_variant = bool(split_variant(evidence.filename)[1])
    missing = set[str]() if is_variant else named - found - embedded - linkable
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
            found |= _images_named(contents.images)
        elif contents.is_data:
            embedded |= _images_named(contents.images)
        for place in contents.embedded:
            embedded |= _images_named(place.images)
    return found, embedded


def _images_named(images: Iterable[Image | Images]) -> set[str]:
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


# -- platforms and modules -------------------------------------------------------------------------

_WINDOWS = {"win_amd64": "x86_64", "win32": "x86", "win_arm64": "aarch64"}
_LINUX = re.compile(r"(?:many|musl)?linux(?:_[0-9]+_[0-9]+|[0-9]+)?_(?P<machine>[a-z].*)")
_MACHINES = {
    "i686": "x86", "i386": "x86", "ppc64le": "ppc64", "armv6l": "arm", "armv7l": "arm",
    "riscv64": "riscv",
}  # fmt: skip
# Programs for these may stand beside those for 64 bits: tools that attach to either kind have both.
_WIDER = {"x86": "x86_64", "arm": "aarch64"}
_FORMATS = {"pe": "Windows", "coff": "Windows", "elf": "Linux"}
# Apple, mach-o/loader.h and mach-o/fat.h, in both byte orders.
_MACH_O = tuple(map(bytes.fromhex, ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe")))
_LFS = b"version https://git-lfs.github.com/spec/"

_MODULE = re.compile(
    r"(?P<name>[^./]+?)(?P<debug>_d)?(?:\.(?P<tag>[a-z][A-Za-z0-9_-]*))?\.(?P<suffix>so|pyd)"
)
# Functions and variables of Python's C API: PyObject_Call, Py_BuildValue, _Py_Dealloc.
OF_PYTHON = re.compile(r"_?Py[A-Z]?[A-Za-z]*_\w+")
_CPYTHON = re.compile(r"(?:cpython-|cp)(?P<abi>[0-9]{2,}[a-z]*)(?:-(?P<platform>.+))?")


@dataclass(frozen=True)
class Tag:
    """One tag of a wheel, taken apart."""

    python: str
    abi: str
    platform: str

    @property
    def system(self) -> tuple[str, str] | None:
        """The system and machine that the platform stands for; None where it is not known."""
        if self.platform in _WINDOWS:
            return "Windows", _WINDOWS[self.platform]
        match = _LINUX.fullmatch(self.platform)
        if not match:
            return None
        return "Linux", _MACHINES.get(match["machine"], match["machine"])


def tags_of(evidence: Evidence) -> tuple[Tag, ...]:
    """The single tags that the file's name stands for, in order: installers go by these. Where it
    is not a wheel's name, those of WHEEL."""
    try:
        tags: Iterable[str] = parse_any_name(evidence.filename).tags
    except FormatError:
        tags = expand_tags(evidence.tags)
    parts = (tag.split("-") for tag in tags)
    return tuple(sorted((Tag(*three) for three in parts if len(three) == 3), key=str))


def platform_findings(evidence: Evidence) -> Iterator[Finding]:
    """Every binary's format and machine against every platform that the wheel is for."""
    platforms = {tag.platform: tag.system for tag in tags_of(evidence)}
    for platform, system in platforms.items():
        if platform == "any" or system:
            continue
        yield warning(f"the platform {platform} is not known here")
    with_host = [b for b in evidence.binaries if b.contents.machine != DEVICE_ONLY]
    systems = {_system_of(binary) for binary in with_host}
    for binary in with_host:
        contents = binary.contents
        made_for = _system_of(binary)
        for platform, system in platforms.items():
            if platform == "any":
                what = f"it is for {' '.join(made_for)}, the wheel says it runs on any system"
                yield wrong(what, contents.path)
            elif system and system != made_for:
                what = f"it is for {' '.join(made_for)}, the wheel for {platform}"
                wider = (made_for[0], _WIDER.get(made_for[1]))
                aside = wider == system and system in systems and not _is_module(binary)
                yield (note if aside else wrong)(what, contents.path)


def _system_of(binary: Examined) -> tuple[str, str]:
    return _FORMATS[binary.contents.format], binary.contents.machine


def _is_module(binary: Examined) -> bool:
    """Whether its name says that it is a Python module, and for which Python."""
    match = _MODULE.fullmatch(binary.contents.path.rpartition("/")[2])
    return match is not None and match["tag"] is not None


def python_of_module(path: str) -> str:
    """The CPython that alone loads a module of this name, `cp311`; '' for any other file."""
    match = _MODULE.fullmatch(path.rpartition("/")[2])
    abi = match and match["tag"] and _CPYTHON.fullmatch(match["tag"])
    return f"cp{abi['abi']}" if abi else ""


def module_findings(evidence: Evidence) -> Iterator[Finding]:
    """Libraries that are named as Python modules are named, and what only has such a name."""
    tags = tags_of(evidence)
    yield from _impostor_findings(evidence.impostors, tags)
    for binary in evidence.binaries:
        match = _MODULE.fullmatch(binary.contents.path.rpartition("/")[2])
        if match and match["tag"] and not binary.linked:
            what = "it cannot be imported: it is not a library, but an object or device code"
            yield wrong(what, binary.contents.path)
        elif match and binary.linked:
            yield from _initialiser_findings(binary, match)
            yield from _abi_findings(binary, match, tags)


def _impostor_findings(heads: Mapping[str, bytes], tags: tuple[Tag, ...]) -> Iterator[Finding]:
    """Files that are named like libraries and that no loader takes.

    Without a module's tag in its name nobody may load it: linker scripts are called libX.so.
    """
    for path, head in heads.items():
        mac = head[:4] in _MACH_O
        if mac and any(tag.platform.startswith("macosx") for tag in tags):
            continue
        match = _MODULE.fullmatch(path.rpartition("/")[2])
        module = match and (match["tag"] or match["suffix"] == "pyd")
        yield Finding(
            WRONG if module else WARNING,
            f"named like a {'Python module' if module else 'library'}, but it is "
            + ("a library for macOS" if mac else _kind(head)),
            path,
        )


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    if head.startswith(_LFS):
        return "a Git LFS pointer: the file itself was not fetched"
    return "neither an ELF file nor a Windows one"


def _initialiser_findings(binary: Examined, match: re.Match[str]) -> Iterator[Finding]:
    path = binary.contents.path
    wanted = _initialiser(match["name"])
    there = sorted(binary.initialisers)
    if wanted in there:
        return
    if there:
        # Packages load such ones by their paths, under the name that they are for.
        what = f"Python cannot import it under this name: it exports {', '.join(there)}"
        yield warning(what, path)
    elif match["tag"]:
        loader = _other_loader(binary, match)
        yield Finding(
            WARNING if loader else WRONG,
            f"it cannot be imported: it does not export {wanted}"
            + (f" ({loader} can load it)" if loader else ""),
            path,
        )
    elif not match["name"].startswith("lib"):
        yield note(f"not a Python module: it does not export {wanted}", path)


def _other_loader(binary: Examined, name: re.Match[str]) -> str:
    """What may load a library that no Python can import, '' if nothing: both take any library,
    whatever its name, and setuptools gives each library a module's. One that calls Python's C API
    and initialises no module is for nobody."""
    if _initialiser(name["name"]) in binary.initialisers:
        return ""
    if any(map(is_of_torch, binary.imports)):
        return "torch.ops.load_library"
    return "" if any(OF_PYTHON.fullmatch(one.name) for one in binary.asked) else "ctypes"


def _initialiser(module: str) -> str:
    if module.isascii():
        return f"PyInit_{module}"
    return "PyInitU_" + module.encode("punycode").decode("ascii").replace("-", "_")


def _abi_findings(
    binary: Examined, name: re.Match[str], tags: tuple[Tag, ...]
) -> Iterator[Finding]:
    """`cpython-311-x86_64-linux-gnu` or `cp311-win_amd64` against the wheel's tags."""
    path = binary.contents.path
    match = _CPYTHON.fullmatch(name["tag"] or "")
    if not match:
        return
    abi, platform = f"cp{match['abi']}", match["platform"] or ""
    abis = {tag.abi for tag in tags}
    if abi not in abis and not _other_loader(binary, name):
        severity = "warning" if abis == {"none"} else "wrong"
        meant = ", ".join(sorted({f"{tag.python}-{tag.abi}" for tag in tags}))
        yield Finding(severity, f"only {abi} loads it, the wheel is for {meant}", path)
    machines = {tag.system[1] for tag in tags if tag.system}
    if not platform or not machines:
        return
    wanted = _WINDOWS.get(platform, _MACHINES.get(_machine(platform), _machine(platform)))
    if wanted not in machines:
        yield wrong(
            f"its name says {platform}, the wheel is for {', '.join(sorted(machines))}", path
        )


def _machine(triple: str) -> str:
    """`x86_64` of `x86_64-linux-gnu`."""
    return triple.partition("-")[0]


# -- libraries -------------------------------------------------------------------------------------


_ANY_PYTHON = "cp3"


def import_findings(evidence: Evidence) -> Iterator[Finding]:
    """What each binary needs, and what cannot be together."""
    tags = [tag for tag in tags_of(evidence) if tag.python.startswith("cp")]
    # Any Python has python3.dll; each has one more of its own, which a stable ABI must not need.
    pythons = {_ANY_PYTHON if tag.abi == "abi3" else tag.python for tag in tags}
    meant = ", ".join(sorted({f"{tag.python}-{tag.abi}" for tag in tags}))
    for binary in evidence.binaries:
        found = imports_of(binary.imports, evidence.shipped)
        if found:
            what = "it needs 1 library" if len(found) == 1 else f"it needs {len(found)} libraries"
            yield note(what, binary.contents.path, _listing(found))
        yield from _python_findings(binary.contents.path, found, pythons, meant)
    yield from libstdcxx_findings(evidence)
    runtimes = sorted(cuda_versions(evidence))
    if len(runtimes) > 1:
        yield warning(f"its binaries need CUDA {' and CUDA '.join(runtimes)}")
    required = [canonicalize_name(one.name) for one in requirements(evidence.metadata)]
    if runtimes and not any(map(brings_runtime, required)):
        package = package_of(f"libcudart.so.{runtimes[-1]}", runtimes[-1])
        yield warning(
            f"it needs CUDA {runtimes[-1]}'s runtime, and requires nothing known to bring it",
            details=[f"Right would be Requires-Dist: {package}, or torch if it uses that"],
        )


# What auditwheel makes of it too: libstdc++-a1b2c3d4.so.6.0.30.
_LIBSTDCXX = re.compile(r"libstdc\+\+[-.0-9a-f]*\.so(?:\.[0-9.]+)?")


def libstdcxx_findings(evidence: Evidence) -> Iterator[Finding]:
    """Libraries that were linked with libstdc++.a and export what is in it.

    Such a copy is not alone in a process that has loaded libstdc++.so.6 before. The ids of most
    facets are unique symbols (STB_GNU_UNIQUE), so the copy takes those that are there, with the
    numbers that they have. The counter that numbers the others (std::locale::id::_S_refcount) is
    its own, and begins at 0: two facets get one number, and a stream takes one for the other.
    """
    for binary in evidence.binaries:
        path = binary.contents.path
        if binary.offers_libstdcxx and not _LIBSTDCXX.fullmatch(path.rpartition("/")[2]):
            yield warning(
                "it holds libstdc++ and exports it: beside another one (numpy and torch load one) "
                "its C++ streams write nothing, or crash",
                path,
                [
                    "Right would be to link libstdc++.so, which g++ does where it finds one (g++ "
                    "-print-file-name=libstdc++.so), or -Wl,--exclude-libs,libstdc++.a"
                ],
            )


def cuda_versions(evidence: Evidence) -> frozenset[str]:
    """The major versions of the CUDA runtimes that the wheel's binaries need."""
    needed = (runtimes_of(binary.imports, evidence.shipped) for binary in evidence.binaries)
    return frozenset().union(*needed)


def _python_findings(
    path: str, libraries: Collection[Import], allowed: Collection[str], meant: str
) -> Iterator[Finding]:
    """It must be the Python that loads the binary, or the stable part of any (python3.dll)."""
    for library in libraries:
        tag = f"cp{library.version.replace('.', '')}"
        if library.origin == "python" and allowed and tag not in {*allowed, _ANY_PYTHON}:
            yield wrong(f"it needs {library.name}, the wheel is for {meant}", path)


def _listing(libraries: Collection[Import]) -> Iterator[str]:
    """A line per origin: `CUDA 12: cudart64_12.dll`."""
    for title in dict.fromkeys(library.title for library in libraries):
        names = (library.name for library in libraries if library.title == title)
        yield f"{title}: {', '.join(names)}"
