"""Whether a package's libraries load where it is: each library that they need, and each name and
version of a symbol that they ask for, is looked up in what the process would have loaded.

torch comes first where a package uses it, as everybody imports it first: extensions find its
libraries because they are loaded already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from .. import text
from ..errors import FormatError
from ..fatbin.asked import Asked
from ..verify.libraries import imports_of, is_of_torch
from ..verify.torch_use import torch_use
from ..wheels.needs import allows, named, requirements_of
from . import cures
from .causes import WARNING, WRONG, Cure, Finding
from .environment import Target
from .installed import Packages
from .libraries import Loaded, Loader, Missing, read_exports
from .providers import is_redistributable, package_of, torch_index
from .subject import Library, Subject
from .torch import Torch

_CXX11 = "__cxx11"
_OLD_STRING = re.compile(r"RKSs|(?<![A-Za-z0-9])Ss")
_CUDA_OF_TORCH = re.compile(r"(lib)?(c10|torch)_cuda\w*\.(so|dll)", re.IGNORECASE)
_FAMILY = re.compile(r"(lib[A-Za-z_+-]+?|[A-Za-z]+?)(?:64)?(?:\.so\.|_)([0-9]+)[\w.]*", re.ASCII)
_SYSTEM_SUFFIXES = (".drv", ".sys")


@dataclass(frozen=True)
class Linking:
    """A package in its environment, and what the loader makes of its libraries."""

    target: Target
    packages: Packages
    torch: Torch | None
    subject: Subject
    loader: Loader
    torch_loaded: tuple[Loaded, ...]
    loaded: tuple[tuple[Library, Loaded], ...]

    @property
    def needed_by_modules(self) -> frozenset[Path]:
        """The package's modules, and what is loaded with them."""
        modules = [(one, loaded) for one, loaded in self.loaded if one.module]
        return frozenset(
            place for one, loaded in modules for place in (one.place, *loaded.found.values())
        )

    @property
    def uses_torch(self) -> bool:
        return any(uses_torch(library) for library, _ in self.loaded)


def uses_torch(library: Library) -> bool:
    return any(map(is_of_torch, library.loading.needed))


def link(target: Target, packages: Packages, torch: Torch | None, subject: Subject) -> Linking:
    """Load everything, as far as files tell."""
    windows = target.system == "Windows"
    held = {one.place: one.loading for one in subject.libraries}
    own_folders = dict.fromkeys(one.place.parent for one in subject.libraries)
    added = [*([torch.folder / "lib"] if torch else []), *own_folders]
    loader = Loader(target, held, added if windows else ())
    if target.base:
        loader.load(target.base)
    wants_torch = subject.name == "torch" or any(map(uses_torch, subject.libraries))
    roots = torch.roots(windows) if torch and wants_torch else ()
    of_torch = tuple(loader.load(root) for root in roots)
    loaded = tuple((one, loader.load(one.place)) for one in subject.libraries)
    return Linking(target, packages, torch, subject, loader, of_torch, loaded)


def linking_findings(linking: Linking) -> Iterator[Finding]:
    """All that would keep the libraries from loading."""
    yield from _torch_findings(linking)
    yield from _library_findings(linking)
    yield from _version_findings(linking)
    yield from _symbol_findings(linking)
    yield from _twice_findings(linking)


# -- torch -----------------------------------------------------------------------------------------


def _torch_findings(linking: Linking) -> Iterator[Finding]:
    subject, torch = linking.subject, linking.torch
    wanted = _required_torch(linking)
    if torch is None and (linking.uses_torch or wanted):
        severity = WRONG if linking.uses_torch else WARNING
        what = "it needs torch, which is not installed here"
        yield Finding("torch", severity, what, cure=_get_torch(linking), names=("torch",))
    for one in wanted if torch and torch.version else ():
        assert torch is not None
        try:
            met = allows(one, torch.version)
        except ValueError:  # a version that is none
            continue
        if not met:
            what = f"{subject.name} {subject.version} requires {one}; here is {torch.title}"
            yield Finding("torch", WARNING, what, cure=other_torch(linking), names=("torch",))


def _required_torch(linking: Linking) -> tuple[Requirement, ...]:
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
    exact = any(spec.operator == "==" for one in _required_torch(linking) for spec in one.specifier)
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


def _library_findings(linking: Linking) -> Iterator[Finding]:
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
        in_modules = not linking.needed_by_modules.isdisjoint(by)
        elsewhere = found[0][0].elsewhere is not None
        severity = WRONG if in_modules and not elsewhere else WARNING
        yield _missing(linking, found[0][0], by, severity, "")


def _missing(
    linking: Linking, missing: Missing, asked_by: Iterable[Path], severity: str, before: str
) -> Finding:
    subject, name = linking.subject, missing.name
    [library] = imports_of([name], subject.shipped)
    if library.origin == "unknown":
        severity = WARNING if severity == WRONG and not before else severity
    cause, what, cure = _why(linking, missing, library.origin, library.version)
    if before:
        what = f"{before}: {what}"
    details = [f"needed by {_shown(linking, place)}" for place in asked_by]
    if missing.elsewhere:
        what += "; the system's loader does not look where it lies"
        details.append(f"it lies at {missing.elsewhere}")
    return Finding(cause, severity, what, details=tuple(details), cure=cure, names=(name,))


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
        say += "which is to be where the loader looks"
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


# -- versions of symbols ---------------------------------------------------------------------------


def _version_findings(linking: Linking) -> Iterator[Finding]:
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
        yield Finding(
            "libraries", WRONG, what, details=tuple(details), cure=cure, names=tuple(versions)
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version))


# -- symbols ---------------------------------------------------------------------------------------


def _symbol_findings(linking: Linking) -> Iterator[Finding]:
    windows = linking.target.system == "Windows"
    ours = frozenset().union(*(one.exported for one in linking.subject.libraries))
    for library, loaded in linking.loaded:
        wanted = [one for one in library.asked if not one.optional]
        if windows:
            absent = list(_absent_of_windows(linking, wanted))
        else:
            absent = list(_absent(linking, wanted, ours))
        use = torch_use(library.loading.needed, absent)
        of_torch = [] if use is None else [*use.bound, *use.functions]
        if of_torch and linking.torch:
            yield _torch_symbols(linking, library, of_torch)
        others = [one.name for one in absent if one.name not in of_torch]
        # What a library that is missing would have, is not missing besides.
        if others and not loaded.missing and (linking.torch or not uses_torch(library)):
            yield _other_symbols(linking, library, others)


def _absent(linking: Linking, wanted: list[Asked], ours: frozenset[str]) -> Iterator[Asked]:
    """Of ELF, where any library of the process may have a name."""
    left = {one.name for one in wanted} - ours
    for place in linking.loader.places:
        if not left:
            return
        left -= read_exports(place)
    yield from (one for one in wanted if one.name in left)


def _absent_of_windows(linking: Linking, wanted: list[Asked]) -> Iterator[Asked]:
    """Of PE, where one certain library must have it."""
    for one in wanted:
        place = linking.loader.place_of(one.library)
        if place is None or place.suffix.lower() in _SYSTEM_SUFFIXES or _of_windows(linking, place):
            continue
        held = next((lib for lib in linking.subject.libraries if lib.place == place), None)
        if one.name not in (held.exported if held else read_exports(place)):
            yield one


def _of_windows(linking: Linking, place: Path) -> bool:
    """Windows' own libraries have what Windows' loader says."""
    windows = linking.target.windows
    return windows is not None and windows.system_folder in place.parents


def _torch_symbols(linking: Linking, library: Library, names: list[str]) -> Finding:
    torch, built = linking.torch, linking.subject.built[1]
    assert torch is not None
    count = text.count(len(names), "name")
    if built and built != torch.release:
        what = f"it was built for torch {built}; {torch.title} lacks {count} that it uses"
    elif _other_strings(linking, names):
        what = f"it was built for torch with the other C++ ABI (_GLIBCXX_USE_CXX11_ABI): {count} "
        what += f"that it uses are not in {torch.title}"
    else:
        what = f"it was built for another torch: {torch.title} lacks {count} that it uses"
    return Finding(
        "torch", WRONG, what, library.name, tuple(names), other_torch(linking),
        (*names, library.basename, library.module),
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


def _other_symbols(linking: Linking, library: Library, names: list[str]) -> Finding:
    count = text.count(len(names), "name")
    verb = "is" if len(names) == 1 else "are"
    what = f"{count} that it needs {verb} in no library that it loads"
    severity = WRONG if library.place in linking.needed_by_modules else WARNING
    subject = linking.subject
    cure = Cure(
        f"no command is known: it was linked with other libraries than are here. Install another "
        f"build of {subject.name}"
    )
    return Finding("symbols", severity, what, library.name, tuple(names), cure,
        (*names, library.basename))  # fmt: skip


# -- one library twice -----------------------------------------------------------------------------


def _twice_findings(linking: Linking) -> Iterator[Finding]:
    """CUDA's libraries in two versions: each has a state of its own."""
    found: dict[str, dict[str, Path]] = {}
    for place in linking.loader.places:
        match = _FAMILY.fullmatch(place.name)
        if match and imports_of([place.name], ())[0].origin == "cuda":
            found.setdefault(match[1].lower(), {}).setdefault(match[2], place)
    for places in found.values():
        if len(places) > 1:
            names = [place.name for place in places.values()]
            what = f"one process loads {' and '.join(names)}"
            yield Finding("libraries", WARNING, what, details=tuple(map(str, places.values())))
