"""Names of wheels: the file name's parts, versions in their one normal spelling, and the label
that tells CUDA, torch and architectures apart.

Formats: PyPA specifications "Binary distribution format" (PEP 427, PEP 491) for file names and
"Version specifiers" (PEP 440) for versions; PEP 825, a draft, for names of variant wheels.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import Version

from ..arch import Arch, ArchRequest
from ..errors import FormatError

# What tells of a variant wheel, in its dist-info folder.
VARIANT = "variant.json"

_PROJECT = re.compile(r"[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)*")
_BUILD = re.compile(r"[0-9][A-Za-z0-9_.]*")
_TAGS = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_PYTHON = re.compile(r"[a-z]{2,10}[0-9][0-9_]*(?:\.[a-z0-9_]+)*")
_VARIANT = re.compile(r"[0-9a-z_.]+")
_ARCH_PART = re.compile(r"(?:sm|ptx)[0-9]{2,3}[af]?|ptx")  # of a local version


@dataclass(frozen=True)
class WheelName:
    """The parts of a wheel's file name, as they stand there; build is '' where there is none, and
    variant where it is the name of a plain wheel."""

    project: str
    version: str
    build: str
    python: str
    abi: str
    platform: str
    variant: str = ""

    @property
    def filename(self) -> str:
        tags = [self.python, self.abi, self.platform]
        parts = [self.project, self.version, self.build, *tags, self.variant]
        return "-".join(part for part in parts if part) + ".whl"

    @property
    def dist_info(self) -> str:
        """The folder of the wheel's own files."""
        return f"{self.project}-{self.version}.dist-info"

    @property
    def data(self) -> str:
        """The folder of files that are installed elsewhere than in site-packages."""
        return f"{self.project}-{self.version}.data"

    @property
    def tags(self) -> frozenset[str]:
        """Every single tag that the compressed ones stand for: `cp310-cp310-win_amd64`."""
        sets = (part.split(".") for part in (self.python, self.abi, self.platform))
        return frozenset("-".join(tag) for tag in itertools.product(*sets))

    def serves(self, python: str) -> bool:
        """Whether its tags promise that it runs under every CPython from one up to this (`3.11`)
        and beyond: `cp310-abi3`."""
        oldest = [
            int(match[1])
            for part in self.python.split(".")
            if (match := re.fullmatch(r"cp3([0-9]{1,3})", part))
        ]
        abi3 = "abi3" in self.abi.split(".")
        return abi3 and bool(oldest) and min(oldest) <= int(python.partition(".")[2])

    def renamed(self, project: str, version: str) -> WheelName:
        """The name of the same wheel with this project and version, both made normal."""
        return dataclasses.replace(
            self, project=escape_project(project), version=canonical_version(version)
        )

    def labelled(self, label: str) -> WheelName:
        """The name of the same wheel with this local version."""
        return self.renamed(self.project, with_local(self.version, label))


def parse_wheel_name(filename: str) -> WheelName:
    """Take a wheel's file name (no folder) apart; FormatError where it is none, or that of a
    variant wheel."""
    if split_variant(filename)[1]:
        raise FormatError(
            "it is a variant wheel: it has a part of another wheel's device code",
            where=filename,
            hint="name the wheel that it was made from; `invoke verify` and `invoke inspect` also "
            "read this one",
        )
    stem, dot, suffix = filename.rpartition(".")
    parts = stem.split("-")
    if not dot or suffix != "whl" or len(parts) not in (5, 6):
        raise _bad_name(filename, "it needs five or six parts")
    project, version, *build, python, abi, platform = parts
    if not _PROJECT.fullmatch(project):
        raise _bad_name(filename, f"{project!r} is not a project")
    try:
        canonical_version(version)
    except FormatError as error:
        raise _bad_name(filename, error.what) from error
    if version != version.strip():
        raise _bad_name(filename, f"{version!r} is not a version")
    if build and not _BUILD.fullmatch(build[0]):
        raise _bad_name(filename, f"the build tag {build[0]!r} does not begin with a digit")
    for tag in (python, abi, platform):
        if not _TAGS.fullmatch(tag):
            raise _bad_name(filename, f"{tag!r} is not a tag")
    return WheelName(project, version, "".join(build), python, abi, platform)


def parse_any_name(filename: str) -> WheelName:
    """The same, and also for the name of a variant wheel, which has a label at its end."""
    plain, label = split_variant(filename)
    return dataclasses.replace(parse_wheel_name(plain), variant=label)


def split_variant(filename: str) -> tuple[str, str]:
    """The name without the label of a variant, and that; '' where there is none.

    A plain name with a build tag has as many parts, but that begins with a digit, and the tag of
    a Python does not.
    """
    plain, _, label = filename.removesuffix(".whl").rpartition("-")
    parts = plain.split("-")
    is_variant = len(parts) in (5, 6) and _PYTHON.fullmatch(parts[-3]) and _VARIANT.fullmatch(label)
    if is_variant and filename.endswith(".whl"):
        return f"{plain}.whl", label
    return filename, ""


def _bad_name(filename: str, why: str) -> FormatError:
    return FormatError(
        f"not the name of a wheel: {why}",
        where=filename,
        hint="valid: PROJECT-VERSION-PYTHON-ABI-PLATFORM.whl, such as "
        "flash_attn-2.3.6-cp311-cp311-linux_x86_64.whl",
    )


def canonical_project(name: str) -> str:
    """A project's name as indexes compare it: `flash-attn`."""
    return str(canonicalize_name(name))


def escape_project(name: str) -> str:
    """A project's name as it stands in file names: `flash_attn`."""
    return canonical_project(name).replace("-", "_")


def canonical_version(text: str) -> str:
    """A version in PEP 440's one normal spelling; FormatError where it is none."""
    try:
        return str(Version(text.encode("ascii").decode()))
    except ValueError as error:  # InvalidVersion; and numbers too long for Python to convert
        raise FormatError(
            f"{text!r} is not a version", hint="valid: 2.3.6, 1.0rc1, 2.3.6+cu130"
        ) from error


def with_local(version: str, local: str) -> str:
    """A version with this local part, in place of the one it may have."""
    return canonical_version(f"{version.partition('+')[0].strip()}+{local}")


def version_label(cuda: str, torch: str, archs: Sequence[ArchRequest]) -> str:
    """The local version that says what a wheel was built for: `cu130torch2.11.sm80.sm86`.

    Of cuda and torch the major and minor number count: no wheel depends on more of them.
    """
    cuda_major, cuda_minor = cuda.split(".")[:2]
    torch_release = ".".join(torch.split(".")[:2])
    labels = [f"cu{cuda_major}{cuda_minor}torch{torch_release}", *(arch.label for arch in archs)]
    return ".".join(labels)


def arch_labels(cubins: Collection[Arch], ptx: Collection[Arch]) -> tuple[str, ...]:
    """What a version says of these architectures, in ascending order."""
    return tuple(_arch_label(arch, cubins, ptx) for arch in sorted({*cubins, *ptx}))


def without_archs(version: str) -> str:
    """A version whose local part names no architectures any more; CUDA, torch and others stay."""
    public, _, local = canonical_version(version).partition("+")
    kept = [part for part in local.split(".") if part and not _ARCH_PART.fullmatch(part)]
    return with_local(public, ".".join(kept)) if kept else public


def with_archs(version: str, labels: Collection[str]) -> str:
    """The version with these architectures in place of those it may name."""
    base = without_archs(version)
    public, _, local = base.partition("+")
    parts = ".".join(part for part in (local, *labels) if part)
    return with_local(public, parts) if parts else base


def _arch_label(arch: Arch, cubins: Collection[Arch], ptx: Collection[Arch]) -> str:
    if arch not in cubins:
        return f"ptx{arch.name}"
    return f"sm{arch.name}.ptx" if arch in ptx else f"sm{arch.name}"


def stem_of(name: str, dist_info: str) -> str:
    """The name of a file in a wheel without the version that its folder may carry."""
    top, slash, rest = name.partition("/")
    project_version = dist_info.removesuffix(".dist-info")
    stems = {f"{project_version}.{kind}": f".{kind}" for kind in ("dist-info", "data")}
    return stems.get(top, top) + slash + rest


# -- names of modules ------------------------------------------------------------------------------

# Which libraries of a wheel are modules, before they are compiled.
#
# A library is a module if it exports `PyInit_NAME`. Until then its file's name and its sources
# tell: `_C.cpython-….so` is named for Python alone, and `_C.so` may be anything.


_LIBRARY = re.compile(
    r"((?:[^\W\d]\w*/)*)([^\W\d]\w*)\.(?:so|pyd|(abi3\.so|cpython-[\w-]+\.so|(?:cp|pp)[0-9]+\w*-\w+\.pyd))"
)
_INIT = re.compile(r"\bPyInit_(\w*)|\b(?:PYBIND11|NB|BOOST_PYTHON)_MODULE\w*\s*\(\s*(\w+)")
_CONDITION = re.compile(r"\s*#\s*(if|el|endif)")
_ON_WINDOWS = re.compile(r"\s*#\s*if(?:def\s+|\s+defined\b[\s(]*)_(?:WIN32|MSC_VER)\b")
_EXTENSION_NAME = re.compile(r"TORCH_EXTENSION_NAME=(\w+)")  # as torch's BuildExtension defines it


@dataclass(frozen=True)
class Source:
    """A source's text, and the options that it is compiled with."""

    text: str
    options: Sequence[str]


def library_modules(files: Iterable[str], sources: Iterable[Source]) -> tuple[str, ...]:
    """The modules of a wheel for this system that are libraries, as `import` calls them, in
    alphabetical order.

    files: all names in the wheel. sources: what its libraries are compiled of, as far as it is
    known.
    """
    modules, others = _told_by(sources)
    found = {
        f"{match[1].replace('/', '.')}{match[2]}"
        for match in map(_LIBRARY.fullmatch, files)
        if match and (match[2] in modules or (match[3] and match[2] not in others))
    }
    return tuple(sorted(found))


def _told_by(sources: Iterable[Source]) -> tuple[set[str], set[str]]:
    """The names of libraries that sources make modules, and of those that they make for torch
    alone."""
    modules: set[str] = set()
    named: set[str] = set()
    for source in sources:
        inits = list(_INIT.finditer("\n".join(_for_linux(source.text))))
        own = {match[1] for match in map(_EXTENSION_NAME.fullmatch, source.options) if match}
        named |= own
        modules |= {init[1] or init[2] or "" for init in inits} | (own if inits else set())
    return modules, named - modules


def _for_linux(text: str) -> Iterator[str]:
    """A source's lines without those for Windows alone, where any library that Python loads must be
    a module."""
    left_out: list[bool] = []  # for each condition around a line
    for line in text.splitlines():
        condition = _CONDITION.match(line)
        if condition and condition[1] == "if":
            left_out.append(bool(_ON_WINDOWS.match(line)))
        elif condition and left_out:
            left_out.pop()
            if condition[1] == "el":
                left_out.append(False)
        elif not any(left_out):
            yield line
