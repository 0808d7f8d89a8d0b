"""Whether an environment can import a package: by its files, whether it is for this Python, is
installed whole, and is what an import finds; then by the real import, in a process of its own that
its Python runs, and what its errors are about.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

from .. import text
from ..errors import FormatError
from ..text import clean, count, duration
from ..trial.children import SCRIPT, Trial, results_of, run_to_end, trial_of
from ..wheels.metadata import allows, fields, requirements_of
from ..wheels.name import canonical_project
from . import cures
from .cures import NOTE, WARNING, WRONG, Cure, Symptom, note
from .environment import CheckedPython, Distribution, Packages
from .subject import CheckedPackage

_LONGEST = 259  # characters of a path, unless long paths are enabled ("Maximum Path Length")
_SUFFIXES = (".py", ".so", ".pyd")
_ENFORCED, _EVALUATED = 1, 2  # VerifiedAndReputablePolicyState


def python_findings(target: CheckedPython, subject: CheckedPackage) -> Iterator[Symptom]:
    """Tags and Requires-Python against this Python."""
    if subject.tags and not takes(target, subject.tags):
        shown = ", ".join(subject.tags[:4]) + (" …" if len(subject.tags) > 4 else "")
        what = f"it is for {shown}; this is {target.title}, tag {next(iter(target.tags))}"
        yield Symptom("python", WRONG, what, cure=_for_this_python(target, subject))
    for said in _fields(subject.metadata, "Requires-Python"):
        version = ".".join(map(str, target.version))
        try:
            met = SpecifierSet(said).contains(version, prereleases=True)
        except InvalidSpecifier:
            continue
        if not met:
            what = f"it requires Python {said}; this is {version}"
            yield Symptom("python", WRONG, what, cure=_for_this_python(target, subject))


def takes(target: CheckedPython, tags: Iterable[str]) -> bool:
    """Whether this Python's installers take a wheel with one of these tags."""
    own = frozenset(target.tags)
    return any(not own.isdisjoint(parse_tag(tag)) for tag in tags if tag.count("-") == 2)


def _for_this_python(target: CheckedPython, subject: CheckedPackage) -> Cure:
    name, version = subject.name, subject.version
    if not (cures.is_name(name) and cures.is_version(version)):
        return Cure(f"install a wheel for {target.title}")
    say = f"install the wheel of {name} for this Python, if its index has one"
    return Cure(say, cures.reinstall(target, name, version))


# -- what is installed -----------------------------------------------------------------------------


def absent(target: CheckedPython, packages: Packages, name: str) -> Symptom:
    """That a package is not installed."""
    near = packages.near(name)
    details = [f"installed is {other}" for other in near]
    details += [f"{folder} cannot be read: {why}" for folder, why in packages.unreadable.items()]
    if near:
        cure = Cure(f"check {near[0]}, if that was meant: fatwheel check {near[0]}")
    elif packages.unreadable:
        cure = Cure("make the folders of this environment readable for you")
    elif name in sys.stdlib_module_names:
        cure = Cure("name another: this is a module of Python itself, and no package")
    elif cures.is_name(name):
        command = cures.install(target, cures.requirement(name))
        cure = Cure("install it (there may be no wheel for this machine)", command)
    else:
        cure = Cure("this is no name of a package")
    what = f"{name} is not installed in {target.prefix}"
    return Symptom("installed", WRONG, what, details=tuple(details), cure=cure)


def installed_findings(
    target: CheckedPython, packages: Packages, found: Distribution, subject: CheckedPackage
) -> Iterator[Symptom]:
    """A dist-info folder that is damaged, files that are missing, second copies."""
    again = _once_more(target, subject)
    where = found.info.name
    if found.metadata is None:
        what = "its METADATA is missing or cannot be read"
        yield Symptom("installed", WRONG, what, where, cure=again)
    if found.files is None:
        what = "it has no RECORD: which files belong to it is not known"
        yield Symptom("installed", WARNING, what, where, cure=again)
    gone = [name for name in subject.absent if not name.startswith(f"{where}/")]
    if gone:
        what = f"{text.count(len(gone), 'file')} of it {'is' if len(gone) == 1 else 'are'} missing"
        basenames = tuple(name.rpartition("/")[2] for name in gone)
        severity = WRONG if any(map(_matters, gone)) else WARNING
        yield Symptom("installed", severity, what, "", tuple(gone), again, basenames)
    copies = packages.copies(found.name)
    if len(copies) > 1:
        what = f"it is installed {len(copies)} times; Python takes the first"
        details = [f"{one.version} in {one.site}" for one in copies]
        yield Symptom("installed", WARNING, what, details=tuple(details), cure=again)
    yield from _shared_files(packages, found)


def _matters(name: str) -> bool:
    """Whether an import may need the file."""
    return name.endswith(_SUFFIXES) or ".so." in name or name.endswith(".dll")


def _once_more(target: CheckedPython, subject: CheckedPackage) -> Cure:
    name, version = subject.name, subject.version
    if not (cures.is_name(name) and cures.is_version(version)):
        return Cure("install it once more")
    return Cure("install it once more", cures.reinstall(target, name, version))


def _shared_files(packages: Packages, found: Distribution) -> Iterator[Symptom]:
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
            yield Symptom("installed", WARNING, what, details=tuple(shared), cure=Cure(command))


def requirement_findings(
    target: CheckedPython, packages: Packages, subject: CheckedPackage
) -> Iterator[Symptom]:
    """What METADATA requires and is not there; torch is another check's matter."""
    try:
        wanted = requirements_of(subject.metadata, target.python)
    except FormatError as error:
        yield Symptom("installed", WARNING, f"its requirements cannot be read: {error.what}")
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
        yield Symptom("installed", WARNING, what, cure=cure, names=modules)
    if other:
        yield Symptom("installed", WARNING, "it requires other versions", details=tuple(other))


def _allowed(requirement: Requirement, version: str) -> bool:
    try:
        return allows(requirement, version)
    except ValueError:
        return True  # a version that none can be compared with


# -- what an import finds --------------------------------------------------------------------------


def shadow_findings(target: CheckedPython, subject: CheckedPackage) -> Iterator[Symptom]:
    """Modules of the same names in front of the package's own on Python's path."""
    for module in subject.modules:
        first = _first(target.path, module)
        if first is None or first.parent == subject.site or not _is_own(subject, module):
            continue
        where = f"{first.parent}, which comes before {subject.site}"
        here = " (the current folder)" if first.parent == Path.cwd() else ""
        what = f"`import {module}` takes {first}{here}, and not what is installed"
        say = f"rename or move {first}" + (", or work in another folder" if here else "")
        yield Symptom("installed", WRONG, what, details=(where,), cure=Cure(say), names=(module,))


def _is_own(subject: CheckedPackage, module: str) -> bool:
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


def windows_findings(target: CheckedPython, subject: CheckedPackage) -> Iterator[Symptom]:
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
        yield Symptom(
            "policy", WARNING, what, details=tuple(one.name for one in unsigned), cure=cure,
            names=("4551",),
        )  # fmt: skip
    elif windows.app_control == _EVALUATED:
        yield note("policy", "Smart App Control evaluates this machine: it blocks nothing yet")
    long = [name for name in subject.files if len(str(subject.site / name)) > _LONGEST]
    if long and windows.long_paths is False:
        what = f"{text.count(len(long), 'path')} longer than {_LONGEST} characters, and long paths "
        cure = Cure("move the environment to a shorter path, such as C:\\venv")
        yield Symptom(
            "installed", WARNING, what + "are not enabled", details=tuple(long), cure=cure
        )


def _fields(metadata: bytes, name: str) -> list[str]:
    try:
        return fields(metadata, name)
    except FormatError:
        return []


# -- the real import -------------------------------------------------------------------------------

_LINES = 8
# Lines of a traceback that are not an error's own words.
_FRAMES = ("  ", "Traceback (", "During handling", "The above exception")
_LONGEST_LINE = 600  # characters of one line
_MOST_MODULES = 40  # of a package's own extension modules
_OF_LOADER = re.compile(
    r"cannot open shared object file|undefined symbol|DLL load failed|version .* not found|ELF"
)
_NO_MODULE = re.compile(r"No module named '([\w.]{1,200})'")
_POLICY = re.compile(r"WinError 4551|Application Control policy", re.IGNORECASE)


@dataclass(frozen=True)
class Imported:
    """How the import went. modules: those that users import; extensions: the package's own."""

    package: str
    trial: Trial
    modules: tuple[str, ...]
    extensions: tuple[str, ...]

    @property
    def main(self) -> str:
        """The module to name to people: that of the package's own name, if there is one."""
        named = (one for one in self.modules if one.replace("_", "-") == self.package)
        return next(named, self.modules[-1] if self.modules else "")

    @property
    def succeeded(self) -> bool:
        """Whether all that users import could be imported."""
        return bool(self.modules) and set(self.modules) <= self.trial.seconds.keys()

    @property
    def loads(self) -> bool:
        """Whether no loader has refused any of its extension modules."""
        said = "\n".join(line for lines in self.trial.failed.values() for line in lines)
        return not self.trial.unfinished and _OF_LOADER.search(said) is None

    def to_json(self) -> dict[str, Any]:
        trial = self.trial
        return {
            "modules": [
                {"name": name, "seconds": round(trial.seconds[name], 3), "error": None}
                for name in trial.seconds
            ]
            + [
                {"name": name, "seconds": None, "error": shown(lines)}
                for name, lines in trial.failed.items()
            ],
            "unfinished": trial.unfinished or None,
            "ended": trial.ended.how,
        }


def import_all(
    target: CheckedPython, subject: CheckedPackage, *, torch: bool, limit: float
) -> Imported:
    """Import a package's modules as `python -c` in this folder would, torch first where it is used.

    limit: seconds for all.
    """
    extensions = tuple(dict.fromkeys(one.module for one in subject.libraries if one.module))
    extensions = tuple(one for one in extensions if one not in subject.modules)[:_MOST_MODULES]
    first = ("torch",) if torch and "torch" not in subject.modules else ()
    with tempfile.TemporaryDirectory(prefix="fatwheel-check-") as folder:
        results, output = Path(folder, "results"), Path(folder, "output")
        words = [str(results), "none", *first, *subject.modules, *extensions]
        command = [str(target.executable), "-B", "-X", "faulthandler", str(SCRIPT), *words]
        ended = run_to_end(command, Path.cwd(), os.environ, output, limit)
        try:
            trial = trial_of(ended, results_of(results))
        except FormatError:
            trial = trial_of(ended, [])
    name = canonical_project(subject.name)
    return Imported(name, trial, (*first, *subject.modules), extensions)


def import_findings(
    target: CheckedPython, subject: CheckedPackage, imported: Imported
) -> Iterator[Symptom]:
    """What failed, in the loader's own words."""
    trial = imported.trial
    for name in imported.modules:
        if name in trial.seconds:
            took = duration(trial.seconds[name])
            yield note("import", f"`import {name}` works ({took})")
    for name in imported.modules:
        if name in trial.failed:
            text = shown(trial.failed[name]) or ["it does not say why"]
            what = f"`import {name}` fails: {text[-1]}"
            cure = _requirements(target, subject, text)
            yield Symptom("import", WRONG, what, details=tuple(text[:-1]), cure=cure)
    inner = {
        name: shown(lines) for name, lines in trial.failed.items() if name not in imported.modules
    }
    if inner:
        what = f"{count(len(inner), 'extension module')} of it cannot be imported alone"
        lines = tuple(f"{name}: {(said or [''])[-1]}" for name, said in inner.items())
        severity = WARNING if any(map(_OF_LOADER.search, lines)) else NOTE
        yield Symptom("import", severity, what, details=lines)
    if trial.unfinished:
        doing, ended = trial.unfinished, trial.ended
        slow = ended.code is None
        what = f"`import {doing}` " + ("does not end" if slow else "makes Python crash")
        severity = WRONG if doing in imported.modules else WARNING
        cure = Cure("give it more time: --seconds") if slow else None
        last = tuple(shown(ended.last))
        yield Symptom("import", severity, f"{what}: {ended.how}", details=last, cure=cure)


def _requirements(target: CheckedPython, subject: CheckedPackage, text: list[str]) -> Cure | None:
    """For a module of another package that is not found."""
    found = [match[1] for line in text if (match := _NO_MODULE.search(line))]
    if not found or found[-1].partition(".")[0] in subject.modules:
        return None
    if not (cures.is_name(subject.name) and cures.is_version(subject.version)):
        return None
    say = "install it together with all that it requires"
    return Cure(say, cures.install(target, cures.pinned(subject.name, subject.version)))


def shown(lines: Iterable[str]) -> list[str]:
    """An error's words, bounded, and without what steers a terminal."""
    said = [line for line in lines if not line.startswith(_FRAMES)]
    return [clean(line)[:_LONGEST_LINE] for line in said[-_LINES:]]


# -- what an error is about ------------------------------------------------------------------------


def explained(findings: Iterable[Symptom], imported: Imported) -> tuple[Symptom, ...]:
    """The findings with the severity that the import gives them.

    What an error names is wrong. Where everything could be imported, libraries and symbols that
    are missing are missed by parts that nobody imports. What torch lacks stays wrong: libraries of
    operators are loaded later, and packages may catch that they are not.
    """
    failed = imported.trial.failed
    errors = "\n".join(line for name in imported.modules for line in failed.get(name, ()))
    return tuple(_weighed(found, errors, imported) for found in findings)


def _weighed(found: Symptom, errors: str, imported: Imported) -> Symptom:
    if found.cause == "import":
        return found
    if any(_names(errors, name) for name in found.names):
        return found.as_severe_as(WRONG)
    if found.severity == NOTE:
        return found
    if found.cause == "policy" and _POLICY.search(errors):
        return found.as_severe_as(WRONG)
    if imported.succeeded and found.cause in ("libraries", "symbols"):
        return found.as_severe_as(NOTE if imported.loads else WARNING)
    if imported.succeeded and found.severity == WRONG and found.cause in ("python", "installed"):
        return found.as_severe_as(WARNING)
    return found


def _names(errors: str, name: str) -> bool:
    """Whether errors name it, and not something that it is a part of."""
    return bool(name) and re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", errors) is not None
