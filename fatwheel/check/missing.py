"""What a package needs and does not find: torch, libraries, versions and names of symbols; why, and
who brings them. And libraries of CUDA that its process would have twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

from .. import text
from ..errors import FormatError
from ..fatbin.binary import AskedSymbol
from ..verify.libraries import (
    imports_of,
    is_of_torch,
    is_redistributable,
    package_of,
    torch_index,
    torch_use,
)
from ..wheels.metadata import named, requirements_of
from . import cures
from .cures import NOTE, WARNING, WRONG, Cure, Symptom
from .loader import Linking, Missing, read_exports, uses_torch
from .subject import Library

_CUDA_OF_TORCH = re.compile(r"(lib)?(c10|torch)_cuda\w*\.(so|dll)", re.IGNORECASE)


def torch_findings(linking: Linking, *, said: bool) -> Iterator[Symptom]:
    """Whether there is a torch, and one that METADATA takes. said: its symbols have told that."""
    subject, torch = linking.subject, linking.torch
    wanted = required_torch(linking)
    if torch is None and (linking.uses_torch or wanted):
        severity = WRONG if linking.uses_torch else WARNING
        what = "it needs torch, which is not installed here"
        yield Symptom("torch", severity, what, cure=_get_torch(linking), names=("torch",))
    for one in wanted:
        if torch and not said and not torch.meets(one):
            what = f"{subject.name} {subject.version} requires {one}; here is {torch.title}"
            yield Symptom("torch", WARNING, what, cure=other_torch(linking), names=("torch",))


def required_torch(linking: Linking) -> tuple[Requirement, ...]:
    try:
        return named(requirements_of(linking.subject.metadata, linking.target.python), "torch")
    except FormatError:
        return ()


def _get_torch(linking: Linking) -> Cure:
    release = linking.subject.built[1]
    what = f"torch=={release}.*" if release else "torch"
    if release:
        say = f"install the torch that it was built for, {release}"
    else:
        say = "install torch; which one it was built for, it does not say"
    return Cure(say, cures.install(linking.target, what, *_from_index(linking.subject.built[0])))


def _from_index(cuda: str) -> tuple[str, ...]:
    return ("--index-url", torch_index(cuda)) if cuda else ()


def other_torch(linking: Linking) -> Cure:
    """For a package that was built for another torch than the one that is there."""
    subject, torch = linking.subject, linking.torch
    release = subject.built[1]
    here = torch.public if torch else ""
    exact = any(spec.operator == "==" for one in required_torch(linking) for spec in one.specifier)
    if exact and cures.is_version(here) and cures.is_name(subject.name):
        say = f"get the {subject.name} that requires the torch that is here"
        words = ("--upgrade", cures.requirement(subject.name), f"torch=={here}")
        return Cure(say, cures.install(linking.target, *words))
    if release and torch and release != torch.release:
        say = (
            f"install torch {release}, for which it was built; or keep this torch, and install a "
            f"build of {subject.name} for {torch.release}"
        )
        index = _from_index(subject.built[0])
        return Cure(say, cures.install(linking.target, f"torch=={release}.*", *index))
    release_here = torch.release if torch else "this torch"
    return Cure(
        f"no command is known: nothing says which torch it was built for. Install a build of "
        f"{subject.name} for torch {release_here}, or build it here"
    )


# -- libraries -------------------------------------------------------------------------------------


def library_findings(linking: Linking) -> Iterator[Symptom]:
    of_torch = {m.name: m for loaded in linking.torch_loaded for m in loaded.missing}
    for missing in of_torch.values():
        if missing.elsewhere is None:  # torch loads what it finds among NVIDIA's packages itself
            yield _missing(linking, missing, [missing.asked_by], WRONG, "torch does not load")
    asked: dict[str, list[tuple[Missing, Library]]] = {}
    for library, loaded in linking.loaded:
        for missing in loaded.missing:
            if missing.name not in of_torch:
                asked.setdefault(missing.name, []).append((missing, library))
    for name, found in asked.items():
        if is_of_torch(name) and linking.torch is None:
            continue  # said already
        by = list(dict.fromkeys(missing.asked_by for missing, _ in found))
        used = not linking.in_use.isdisjoint(by)
        elsewhere = found[0][0].elsewhere
        severity = WRONG if used and not elsewhere else WARNING
        if elsewhere and linking.subject.site in elsewhere.parents:
            severity = NOTE  # whoever brings a library where the loader does not look, loads it
        yield _missing(linking, found[0][0], by, severity, "")


def _missing(
    linking: Linking, missing: Missing, asked_by: Iterable[Path], severity: str, before: str
) -> Symptom:
    subject, name = linking.subject, missing.name
    [library] = imports_of([name], subject.shipped)
    if library.origin == "unknown":
        severity = WARNING if severity == WRONG and not before else severity
    if (library.origin == "driver" and severity != WRONG) or (
        before and library.origin == "driver"
    ):
        severity = NOTE
    cause, what, cure = _why(linking, missing, library.origin, library.version)
    if before:
        what = f"{before}: {what}"
    details = [f"needed by {_shown(linking, place)}" for place in asked_by]
    if missing.elsewhere:
        what += "; the system's loader does not look where it lies"
        details.append(f"it lies at {missing.elsewhere}")
    return Symptom(
        cause,
        severity,
        what,
        details=tuple(details),
        cure=cure,
        names=(f"{name}: cannot open shared object file",),
    )  # as ld.so says it


def _why(
    linking: Linking, missing: Missing, origin: str, version: str
) -> tuple[str, str, Cure | None]:
    """The cause, what is said of it, and what cures it."""
    name, torch, target = missing.name, linking.torch, linking.target
    gone = f"{name} is missing"
    if torch and _CUDA_OF_TORCH.fullmatch(name) and not torch.cuda:
        return (
            "torch",
            f"it needs a torch with CUDA; here is {torch.title}",
            _torch_with_cuda(linking),
        )
    if origin == "driver":
        say = "install NVIDIA's driver, on the machine itself and not in the environment"
        return "driver", f"{gone}: it comes with NVIDIA's driver", Cure(say)
    if origin == "python":
        where = f"{gone}: the library of {'another' if version != target.python else 'this'} Python"
        say = f"install a build of {linking.subject.name} for {target.title}"
        return ("python" if version != target.python else "libraries"), where, Cure(say)
    owner = linking.packages.owner_of(name)
    if owner and not owner[0].place(owner[1]).exists():
        found = owner[0]
        say = f"{found.name} {found.version} should have it: install that once more"
        return "libraries", gone, Cure(say, cures.reinstall(target, found.name, found.version))
    if name.rpartition("/")[2].lower() in linking.subject.shipped and not missing.elsewhere:
        subject = linking.subject
        say = f"{subject.name} should have it: install it once more"
        return "libraries", gone, Cure(say, cures.reinstall(target, subject.name, subject.version))
    cuda = torch.cuda.partition(".")[0] if torch else ""
    if origin == "cuda" and version and cuda and version != cuda and linking.uses_torch:
        what = f"it was built for CUDA {version} ({name}); here is {torch.title if torch else ''}"
        return "torch", what, _other_cuda(linking, version)
    package = package_of(name, cuda)
    if package and _looks_at_packages(linking, missing):
        say = f"{package} has it"
        return "libraries", gone, Cure(say, cures.install(target, package))
    if is_redistributable(name):
        say = "install Microsoft's Visual C++ runtime"
        return "libraries", gone, Cure(say, cures.VC_RUNTIME)
    if origin == "cuda":
        say = f"no command is known: it is a library of CUDA{' ' + version if version else ''}, "
        say += "and must lie where the system's loader looks"
        return "libraries", gone, Cure(say)
    if origin == "system":
        say = "no command is known: it is the system's, and its package manager installs it"
        return "libraries", gone, Cure(say)
    return "libraries", gone, None


def _looks_at_packages(linking: Linking, missing: Missing) -> bool:
    """Whether a library of NVIDIA's packages would be found: by an RPATH, or because torch loads it
    from there."""
    loading = linking.loader.loading_of(missing.asked_by)
    folders = (*loading.rpath, *loading.runpath) if loading else ()
    of_torch = linking.torch is not None and linking.torch.folder in missing.asked_by.parents
    return of_torch or any("nvidia" in folder for folder in folders)


def _torch_with_cuda(linking: Linking) -> Cure:
    torch, cuda = linking.torch, linking.subject.built[0]
    version = torch.public if torch else ""
    words = ("--force-reinstall", f"torch=={version}", *_from_index(cuda))
    if not cuda or not cures.is_version(version):
        return Cure("install a torch with CUDA: pytorch.org says how, for each CUDA")
    return Cure(f"install torch for CUDA {cuda}", cures.install(linking.target, *words))


def _other_cuda(linking: Linking, major: str) -> Cure:
    """For a package whose CUDA is not torch's."""
    torch, built = linking.torch, linking.subject.built[0]
    here = torch.cuda.partition(".")[0] if torch else ""
    say = f"install a build of {linking.subject.name} for CUDA {here}, or torch for CUDA {major}"
    if torch and built.partition(".")[0] == major and cures.is_version(torch.public):
        words = ("--force-reinstall", f"torch=={torch.public}", *_from_index(built))
        return Cure(say, cures.install(linking.target, *words))
    return Cure(f"no command is known: {say}")


def _shown(linking: Linking, place: Path) -> str:
    """A place below site-packages as its RECORD has it; any other as it is."""
    for site in (linking.subject.site, *linking.target.site):
        if site in place.parents:
            return place.relative_to(site).as_posix()
    return str(place)


_CXX11 = "__cxx11"
_OLD_STRING = re.compile(r"RKSs|(?<![A-Za-z0-9])Ss")
_FAMILY = re.compile(
    r"(lib[A-Za-z_+-]+?|[A-Za-z]+?)(?:64)?(?:\.so\.|_)([0-9]{1,2})(?![0-9])[\w.]*", re.ASCII
)


# -- versions of symbols ---------------------------------------------------------------------------


def version_findings(linking: Linking) -> Iterator[Symptom]:
    """`GLIBC_2.38' not found: of each library the newest that is missing."""
    lacking: dict[str, dict[str, list[str]]] = {}
    for library, _ in linking.loaded:
        for name, version in library.loading.versions:
            place = linking.loader.place_of(name)
            provider = linking.loader.loading_of(place) if place else None
            if provider and provider.offered and version not in provider.offered:
                lacking.setdefault(name, {}).setdefault(version, []).append(library.name)
    for name, versions in lacking.items():
        newest = max(versions, key=_number)
        place = linking.loader.place_of(name)
        what = f"it needs {newest} of {name}, which the one here does not have"
        details = [f"here: {place}", *(f"needed by {one}" for one in versions[newest])]
        cure = Cure(
            f"no command is known: it was built on a newer system. Install a build of "
            f"{linking.subject.name} for older ones (a manylinux wheel), or update this system"
        )
        yield Symptom(
            "libraries", WRONG, what, details=tuple(details), cure=cure, names=tuple(versions)
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version))


# -- names of symbols ------------------------------------------------------------------------------


def symbol_findings(linking: Linking) -> Iterator[Symptom]:
    windows = linking.target.system == "Windows"
    ours = frozenset().union(*(one.exported for one in linking.subject.libraries))
    of_torch: dict[Library, list[str]] = {}
    for library, loaded in linking.loaded:
        wanted = [one for one in library.asked if not one.optional]
        if windows:
            absent = list(_absent_of_windows(linking, wanted))
        else:
            absent = list(_absent(linking, wanted, ours))
        use = torch_use(library.loading.needed, absent) if linking.torch else None
        names = [] if use is None else [*use.bound, *use.functions]
        if names:
            of_torch[library] = names
        others = [one.name for one in absent if one.name not in names]
        # What a library that is missing would have, is not missing besides.
        if others and not loaded.missing and (linking.torch or not uses_torch(library)):
            yield _other_symbols(linking, library, others)
    if of_torch:
        yield _torch_symbols(linking, of_torch)


def _absent(
    linking: Linking, wanted: list[AskedSymbol], ours: frozenset[str]
) -> Iterator[AskedSymbol]:
    """Of ELF, where any library of the process may have a name."""
    left = {one.name for one in wanted} - ours
    for place in linking.loader.places:
        if not left:
            return
        left -= read_exports(place)
    yield from (one for one in wanted if one.name in left)


def _absent_of_windows(linking: Linking, wanted: list[AskedSymbol]) -> Iterator[AskedSymbol]:
    """Of PE, where one certain library must have it."""
    for one in wanted:
        place = linking.loader.place_of(one.library)
        if place is None or _of_windows(linking, place):
            continue
        held = next((lib for lib in linking.subject.libraries if lib.place == place), None)
        if one.name not in (held.exported if held else read_exports(place)):
            yield one


def _of_windows(linking: Linking, place: Path) -> bool:
    """Windows' own libraries have what Windows' loader says."""
    windows = linking.target.windows
    return windows is not None and windows.system_folder in place.parents


def _torch_symbols(linking: Linking, lacking: dict[Library, list[str]]) -> Symptom:
    torch, built = linking.torch, linking.subject.built[1]
    assert torch is not None
    names = list(dict.fromkeys(name for found in lacking.values() for name in found))
    lacks = f"lacks {text.count(len(names), 'name')} that it uses"
    if built and built != torch.release:
        what = f"it was built for torch {built}; {torch.title} {lacks}"
    elif _other_strings(linking, names):
        what = "it was built for torch with the other C++ ABI (_GLIBCXX_USE_CXX11_ABI): "
        what += f"{torch.title} {lacks}"
    else:
        what = f"it was built for another torch: {torch.title} {lacks}"
    places = f"in {', '.join(library.name for library in lacking)}"
    required = [f"it requires {one}" for one in required_torch(linking) if one.specifier]
    files = (library.basename for library in lacking)
    return Symptom(
        "torch", WRONG, what, details=(*required, places, *names), cure=other_torch(linking),
        names=(*names, *files),
    )  # fmt: skip


def _other_strings(linking: Linking, names: list[str]) -> bool:
    """Whether torch's strings are of the other of GNU's two ABIs than those that are missing."""
    assert linking.torch is not None
    own = read_exports(linking.torch.folder / "lib" / "libc10.so")
    old_here = any(_OLD_STRING.search(name) for name in own if "c10" in name)
    new_here = any(_CXX11 in name for name in own)
    new_wanted = any(_CXX11 in name for name in names)
    old_wanted = any(_OLD_STRING.search(name) for name in names)
    return (new_wanted and not new_here) or (old_wanted and new_here and not old_here)


def _other_symbols(linking: Linking, library: Library, names: list[str]) -> Symptom:
    count = text.count(len(names), "name")
    verb = "is" if len(names) == 1 else "are"
    what = f"{count} that it needs {verb} in no library that it loads"
    severity = WRONG if library.place in linking.in_use else WARNING
    subject = linking.subject
    cure = Cure(
        f"no command is known: it was linked with other libraries than are here. Install another "
        f"build of {subject.name}"
    )
    return Symptom("symbols", severity, what, library.name, tuple(names), cure,
        (*names, library.basename))  # fmt: skip


# -- one library twice -----------------------------------------------------------------------------


def twice_findings(linking: Linking) -> Iterator[Symptom]:
    """CUDA's libraries in two versions: each has a state of its own."""
    found: dict[str, dict[str, Path]] = {}
    of_torch = (place for loaded in linking.torch_loaded for place in loaded.found.values())
    for place in sorted({*of_torch, *linking.in_use}):
        match = _FAMILY.fullmatch(place.name)
        if match and imports_of([place.name], ())[0].origin == "cuda":
            found.setdefault(match[1].lower(), {}).setdefault(match[2], place)
    for places in found.values():
        if len(places) > 1:
            names = [place.name for place in places.values()]
            what = f"one process loads {' and '.join(names)}"
            yield Symptom("libraries", WARNING, what, details=tuple(map(str, places.values())))
