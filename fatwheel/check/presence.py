"""Whether a package is for this Python, is installed whole, and is what an import finds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

from .. import text
from ..errors import FormatError
from ..wheels.metadata import fields
from ..wheels.needs import allows, requirements_of
from . import cures
from .causes import WARNING, WRONG, Cure, Finding, note
from .environment import Target
from .installed import Distribution, Packages
from .subject import Subject

_LONGEST = 259  # characters of a path, unless long paths are enabled ("Maximum Path Length")
_SUFFIXES = (".py", ".so", ".pyd")
_ENFORCED, _EVALUATED = 1, 2  # VerifiedAndReputablePolicyState


def python_findings(target: Target, subject: Subject) -> Iterator[Finding]:
    """Tags and Requires-Python against this Python."""
    if subject.tags and not takes(target, subject.tags):
        shown = ", ".join(subject.tags[:4]) + (" …" if len(subject.tags) > 4 else "")
        what = f"it is for {shown}; this is {target.title}, tag {next(iter(target.tags))}"
        yield Finding("python", WRONG, what, cure=_for_this_python(target, subject))
    for said in _fields(subject.metadata, "Requires-Python"):
        version = ".".join(map(str, target.version))
        try:
            met = SpecifierSet(said).contains(version, prereleases=True)
        except InvalidSpecifier:
            continue
        if not met:
            what = f"it requires Python {said}; this is {version}"
            yield Finding("python", WRONG, what, cure=_for_this_python(target, subject))


def takes(target: Target, tags: Iterable[str]) -> bool:
    """Whether this Python's installers take a wheel with one of these tags."""
    own = frozenset(target.tags)
    return any(not own.isdisjoint(parse_tag(tag)) for tag in tags if tag.count("-") == 2)


def _for_this_python(target: Target, subject: Subject) -> Cure:
    name, version = subject.name, subject.version
    if not (cures.is_name(name) and cures.is_version(version)):
        return Cure(f"install a wheel for {target.title}")
    say = f"install the wheel of {name} for this Python, if its index has one"
    return Cure(say, cures.reinstall(target, name, version))


# -- what is installed -----------------------------------------------------------------------------


def absent(target: Target, packages: Packages, name: str) -> Finding:
    """That a package is not installed."""
    near = packages.near(name)
    details = [f"installed is {other}" for other in near]
    details += [f"{folder} cannot be read: {why}" for folder, why in packages.unreadable.items()]
    if near:
        cure = Cure(f"check {near[0]}, if that was meant: fatwheel check {near[0]}")
    elif packages.unreadable:
        cure = Cure("make the folders of this environment readable for you")
    elif cures.is_name(name):
        command = cures.install(target, cures.requirement(name))
        cure = Cure("install it: its index may have no wheel for this machine", command)
    else:
        cure = Cure("this is no name of a package")
    what = f"{name} is not installed in {target.prefix}"
    return Finding("installed", WRONG, what, details=tuple(details), cure=cure)


def installed_findings(
    target: Target, packages: Packages, found: Distribution, subject: Subject
) -> Iterator[Finding]:
    """A dist-info folder that is damaged, files that are missing, second copies."""
    again = _once_more(target, subject)
    where = found.info.name
    if found.metadata is None:
        what = "its METADATA is missing or cannot be read"
        yield Finding("installed", WRONG, what, where, cure=again)
    if found.files is None:
        what = "it has no RECORD: which files belong to it is not known"
        yield Finding("installed", WARNING, what, where, cure=again)
    gone = [name for name in subject.absent if not name.startswith(f"{where}/")]
    if gone:
        what = f"{text.count(len(gone), 'file')} of it {'is' if len(gone) == 1 else 'are'} missing"
        basenames = tuple(name.rpartition("/")[2] for name in gone)
        severity = WRONG if any(map(_matters, gone)) else WARNING
        yield Finding("installed", severity, what, "", tuple(gone), again, basenames)
    copies = packages.copies(found.name)
    if len(copies) > 1:
        what = f"it is installed {len(copies)} times; Python takes the first"
        details = [f"{one.version} in {one.site}" for one in copies]
        yield Finding("installed", WARNING, what, details=tuple(details), cure=again)
    yield from _shared_files(packages, found)


def _matters(name: str) -> bool:
    """Whether an import may need the file."""
    return name.endswith(_SUFFIXES) or ".so." in name or name.endswith(".dll")


def _once_more(target: Target, subject: Subject) -> Cure:
    name, version = subject.name, subject.version
    if not (cures.is_name(name) and cures.is_version(version)):
        return Cure("install it once more")
    return Cure("install it once more", cures.reinstall(target, name, version))


def _shared_files(packages: Packages, found: Distribution) -> Iterator[Finding]:
    """Files that another package has, too: one has overwritten the other's."""
    own = {name for name in found.files or () if _matters(name)}
    for other in packages:
        if other.name == found.name or not own:
            continue
        shared = sorted(own.intersection(other.files or ()))
        if shared and other.site == found.site:
            what = f"{other.name} {other.version} has installed the same files"
            command = (
                f"remove one of {found.name} and {other.name}, and install the other once more"
            )
            yield Finding("installed", WARNING, what, details=tuple(shared), cure=Cure(command))


def requirement_findings(target: Target, packages: Packages, subject: Subject) -> Iterator[Finding]:
    """What METADATA requires and is not there; torch is another check's matter."""
    try:
        wanted = requirements_of(subject.metadata, target.python)
    except FormatError as error:
        yield Finding("installed", WARNING, f"its requirements cannot be read: {error.what}")
        return
    lacking, other = [], []
    for one in wanted:
        name = str(canonicalize_name(one.name))
        found = packages.find(name)
        if name == "torch":
            continue
        if found is None:
            lacking.append(name)
        elif not _allowed(one, found.version):
            other.append(f"{one}: installed is {found.version}")
    if lacking:
        names = [name for name in lacking if cures.is_name(name)]
        cure = Cure("install what it requires", cures.install(target, *names)) if names else None
        what = f"it requires {', '.join(lacking)}, not installed here"
        modules = tuple(name.replace("-", "_") for name in lacking)
        yield Finding("installed", WARNING, what, cure=cure, names=modules)
    if other:
        yield Finding("installed", WARNING, "it requires other versions", details=tuple(other))


def _allowed(requirement: Requirement, version: str) -> bool:
    try:
        return allows(requirement, version)
    except ValueError:
        return True  # a version that none can be compared with


# -- what an import finds --------------------------------------------------------------------------


def shadow_findings(target: Target, subject: Subject) -> Iterator[Finding]:
    """Modules of the same names in front of the package's own on Python's path."""
    for module in subject.modules:
        first = _first(target.path, module)
        if first is None or first.parent == subject.site or not _is_own(subject, module):
            continue
        where = f"{first.parent}, which comes before {subject.site}"
        here = " (the current folder)" if first.parent == Path.cwd() else ""
        what = f"`import {module}` takes {first}{here}, and not what is installed"
        say = f"rename or move {first}" + (", or work in another folder" if here else "")
        yield Finding("installed", WRONG, what, details=(where,), cure=Cure(say), names=(module,))


def _is_own(subject: Subject, module: str) -> bool:
    """Whether the module is there, in site-packages: of an editable package it is elsewhere."""
    starts = (f"{module}/", f"{module}.")
    return any(name.startswith(starts) for name in subject.files)


def _first(path: Iterable[Path], module: str) -> Path | None:
    """What Python finds: a package or a file of a folder; one without __init__.py comes last."""
    for folder in path:
        if (folder / module / "__init__.py").is_file():
            return folder / module
        for entry in _named(folder, module):
            return entry
    return None


def _named(folder: Path, module: str) -> list[Path]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    fit = [name for name in names if name.startswith(f"{module}.") and name.endswith(_SUFFIXES)]
    return [folder / name for name in sorted(fit) if (folder / name).is_file()]


# -- Windows ---------------------------------------------------------------------------------------


def windows_findings(target: Target, subject: Subject) -> Iterator[Finding]:
    """Smart App Control, and paths that are too long."""
    windows = target.windows
    if windows is None:
        return
    unsigned = [
        one for one in subject.libraries if one.loading.format == "pe" and not one.loading.signed
    ]
    if windows.app_control == _ENFORCED and unsigned:
        what = f"Smart App Control is on; of it {text.count(len(unsigned), 'file')} "
        what += "with code have no signature"
        cure = Cure(
            "ask for signed libraries, or sign them: fatwheel codesign. Smart App Control takes no "
            "exceptions, and once off it stays off"
        )
        yield Finding(
            "policy", WARNING, what, details=tuple(one.name for one in unsigned), cure=cure,
            names=("4551",),
        )  # fmt: skip
    elif windows.app_control == _EVALUATED:
        yield note("policy", "Smart App Control evaluates this machine: it blocks nothing yet")
    long = [name for name in subject.files if len(str(subject.site / name)) > _LONGEST]
    if long and windows.long_paths is False:
        what = f"{text.count(len(long), 'path')} longer than {_LONGEST} characters, and long paths "
        cure = Cure("move the environment to a shorter path, such as C:\\venv")
        yield Finding(
            "installed", WARNING, what + "are not enabled", details=tuple(long), cure=cure
        )


def _fields(metadata: bytes, name: str) -> list[str]:
    try:
        return fields(metadata, name)
    except FormatError:
        return []
