"""What is checked: an installed package or a wheel, as far as loaders and Python see it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ..errors import FormatError
from ..fatbin.binary import (
    HEAD,
    AskedSymbol,
    Binary,
    Loading,
    asked_of,
    exports_of,
    is_loadable,
    loading_of,
    read_binary,
)
from ..storage.files import readable
from ..storage.mapped import map_file
from ..wheels.archive import open_wheel
from ..wheels.metadata import (
    expand_tags,
    local_cuda,
    local_torch,
    minor,
    required_torch,
    top_modules,
)
from ..wheels.metadata import field as field_of
from ..wheels.name import parse_wheel_name
from .cures import WARNING, Symptom
from .environment import CheckedPython, Distribution, read_text

# As loaders know them, whatever else a package holds.
_LIBRARY = re.compile(r".+\.(?:so(?:\.[0-9.]+)?|pyd|dll)", re.IGNORECASE | re.DOTALL)
_EXTENSION = re.compile(r"([^\W\d]\w*)\.(?:[\w-]+\.)?(?:so|pyd)")
_MOST_LIBRARIES = 5000
_RECORD = "fatwheel.json"

Open = Callable[[], AbstractContextManager[memoryview]]


@dataclass(frozen=True)
class Library:
    """One library: its name in the package and its place, where it lies or will lie.

    exported: the names that it offers. module: the Python module that it is, `flash_attn_2_cuda`,
    or ''. binary: its device code.
    """

    name: str
    place: Path
    loading: Loading
    asked: tuple[AskedSymbol, ...]
    exported: frozenset[str]
    module: str
    binary: Binary

    @property
    def basename(self) -> str:
        return self.place.name

    def is_for(self, target: CheckedPython) -> bool:
        """Whether it is for such a system and processor."""
        windows = target.system == "Windows"
        return (self.loading.format, self.loading.machine) == (
            "pe" if windows else "elf",
            target.machine,
        )


@dataclass(frozen=True)
class CheckedPackage:
    """A package. kind: 'installed' or 'wheel'. title: what the user knows it by.

    tags: single ones. built: the CUDA and the torch that it says it was built for, '' where it does
    not. absent: files that it should have and that are not there. findings: what could not be read.
    """

    kind: str
    title: str
    name: str
    version: str
    metadata: bytes
    tags: tuple[str, ...]
    built: tuple[str, str]
    site: Path
    files: tuple[str, ...]
    modules: tuple[str, ...]
    libraries: tuple[Library, ...]
    absent: tuple[str, ...] = ()
    findings: tuple[Symptom, ...] = ()

    @property
    def shipped(self) -> frozenset[str]:
        """The names of its files without their folders, in lower case."""
        return frozenset(name.rpartition("/")[2].lower() for name in self.files)


def read_installed(found: Distribution) -> CheckedPackage:
    """An installed package; what of it cannot be read is among its findings."""
    files = found.files or ()
    absent = tuple(name for name in files if not _is_bytecode(name) and not _there(found, name))
    inside: dict[str, Open] = {
        name: partial(_mapped, found.place(name))
        for name in files
        if _LIBRARY.fullmatch(name) and name not in absent
    }
    libraries, findings = _read_all(inside, found.place)
    metadata = found.metadata or b""
    return CheckedPackage(
        kind="installed",
        title=f"{found.name} {found.version}",
        name=found.name,
        version=found.version,
        metadata=metadata,
        tags=_tags(found.tags),
        built=_built_for(metadata, found.version, read_text(found.info / _RECORD)),
        site=found.site,
        files=files,
        modules=_modules(files, found.listed) or _editable(found),
        libraries=libraries,
        absent=absent,
        findings=findings,
    )


def read_wheel(path: Path, site: Path) -> CheckedPackage:
    """A wheel, as it would be installed into `site`.

    UsageError where there is no such file; FormatError where it is no wheel.
    """
    with readable(path, "a wheel"), open_wheel(path) as wheel:
        name = parse_wheel_name(path.name)
        files = tuple(member.name for member in wheel.members)
        inside = {
            member: partial(wheel.mapped, member) for member in files if _LIBRARY.fullmatch(member)
        }
        libraries, findings = _read_all(inside, lambda member: site / _installed_as(member))
        metadata = wheel.read(f"{wheel.dist_info}/METADATA")
        record = f"{wheel.dist_info}/{_RECORD}"
        listed = f"{wheel.dist_info}/top_level.txt"
        return CheckedPackage(
            kind="wheel",
            title=path.name,
            name=field_of(metadata, "Name", "METADATA"),
            version=wheel.version,
            metadata=metadata,
            tags=tuple(sorted(name.tags)),
            built=_built_for(
                metadata, wheel.version, wheel.read(record) if record in files else None
            ),
            site=site,
            files=files,
            modules=_modules(
                files, wheel.read(listed).decode("utf-8", "replace") if listed in files else ""
            ),
            libraries=libraries,
            findings=findings,
        )


def _installed_as(member: str) -> PurePosixPath:
    """What lies in NAME.data/platlib of a wheel is installed beside all else."""
    parts = PurePosixPath(member).parts
    inner = len(parts) > 2 and parts[0].endswith(".data") and parts[1] in ("platlib", "purelib")
    return PurePosixPath(*parts[2:]) if inner else PurePosixPath(member)


def _there(found: Distribution, name: str) -> bool:
    try:
        return os.path.exists(found.place(name))
    except ValueError:  # a name with a zero in it
        return False


def _is_bytecode(name: str) -> bool:
    return name.endswith((".pyc", ".pyo"))


def _tags(lines: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(sorted(set(expand_tags(lines))))
    except FormatError:
        return ()


def _modules(files: tuple[str, ...], listed: str) -> tuple[str, ...]:
    """What users import. A package without such files, as an editable one, says it itself."""
    found = top_modules(files, listed)
    return found or tuple(name for name in listed.split() if name.isidentifier())


def _editable(found: Distribution) -> tuple[str, ...]:
    """Of a package that was installed from a folder or URL, whose files may lie there (PEP 610):
    the module of its name, if that can be one."""
    name = found.name.replace("-", "_")
    there = read_text(found.info / "direct_url.json") is not None
    return (name,) if there and name.isidentifier() else ()


@contextmanager
def _mapped(place: Path) -> Iterator[memoryview]:
    with place.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            yield memoryview(b"")
        else:
            yield map_file(stream)


def _read_all(
    opened: Mapping[str, Open], placed: Callable[[str], Path | PurePosixPath]
) -> tuple[tuple[Library, ...], tuple[Symptom, ...]]:
    libraries: list[Library] = []
    findings: list[Symptom] = []
    for name in sorted(opened)[:_MOST_LIBRARIES]:
        try:
            with opened[name]() as data:
                if is_loadable(bytes(data[:HEAD])):
                    libraries.append(read_library(name, Path(placed(name)), data))
        except FormatError as error:
            what = f"this library is damaged: {error.what}"
            findings.append(Symptom("installed", WARNING, what, name, names=(Path(name).name,)))
        except OSError as error:
            what = f"this library cannot be read: {error.strerror or error}"
            findings.append(Symptom("installed", WARNING, what, name, names=(Path(name).name,)))
    return tuple(libraries), tuple(findings)


def read_library(name: str, place: Path, data: memoryview) -> Library:
    """Raises FormatError."""
    match = _EXTENSION.fullmatch(place.name)
    module, exported = "", frozenset(exports_of(data))
    if match and f"PyInit_{match[1]}" in exported:
        module = ".".join([*PurePosixPath(name).parts[:-1], match[1]])
        module = module if all(part.isidentifier() for part in module.split(".")) else ""
    return Library(
        name, place, loading_of(data), asked_of(data), exported, module, read_binary(data)
    )


def _built_for(metadata: bytes, version: str, record: bytes | None) -> tuple[str, str]:
    """CUDA and torch to the minor number: what a record of the build says, and else the version's
    label and the requirements."""
    recorded = _recorded(record) if record else ("", "")
    local = version.partition("+")[2].lower()
    try:
        required = required_torch(metadata)
    except FormatError:
        required = ""
    cuda = recorded[0] or local_cuda(local)
    return cuda, recorded[1] or local_torch(local) or required


def _recorded(record: bytes) -> tuple[str, str]:
    from ..provenance.record import record_of  # which takes a while to import

    try:
        content = record_of(record).content()
    except FormatError:
        return "", ""
    return minor(content.get("toolchain", {}).get("cuda")), minor(content.get("torch"))
