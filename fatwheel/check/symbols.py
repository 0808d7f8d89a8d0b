"""Names and versions of symbols that a package's libraries ask for, looked up in all that the
process would have loaded; and libraries of CUDA that it would have twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .. import text
from ..fatbin.asked import Asked
from ..verify.libraries import imports_of
from ..verify.torch_use import torch_use
from .causes import WARNING, WRONG, Cure, Finding
from .libraries import read_exports
from .linking import Linking, uses_torch
from .missing import other_torch, required_torch
from .subject import Library

_CXX11 = "__cxx11"
_OLD_STRING = re.compile(r"RKSs|(?<![A-Za-z0-9])Ss")
_FAMILY = re.compile(
    r"(lib[A-Za-z_+-]+?|[A-Za-z]+?)(?:64)?(?:\.so\.|_)([0-9]{1,2})(?![0-9])[\w.]*", re.ASCII
)


# -- versions of symbols ---------------------------------------------------------------------------


def version_findings(linking: Linking) -> Iterator[Finding]:
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


def symbol_findings(linking: Linking) -> Iterator[Finding]:
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
        if place is None or _of_windows(linking, place):
            continue
        held = next((lib for lib in linking.subject.libraries if lib.place == place), None)
        if one.name not in (held.exported if held else read_exports(place)):
            yield one


def _of_windows(linking: Linking, place: Path) -> bool:
    """Windows' own libraries have what Windows' loader says."""
    windows = linking.target.windows
    return windows is not None and windows.system_folder in place.parents


def _torch_symbols(linking: Linking, lacking: dict[Library, list[str]]) -> Finding:
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
    return Finding(
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


def _other_symbols(linking: Linking, library: Library, names: list[str]) -> Finding:
    count = text.count(len(names), "name")
    verb = "is" if len(names) == 1 else "are"
    what = f"{count} that it needs {verb} in no library that it loads"
    severity = WRONG if library.place in linking.in_use else WARNING
    subject = linking.subject
    cure = Cure(
        f"no command is known: it was linked with other libraries than are here. Install another "
        f"build of {subject.name}"
    )
    return Finding("symbols", severity, what, library.name, tuple(names), cure,
        (*names, library.basename))  # fmt: skip


# -- one library twice -----------------------------------------------------------------------------


def twice_findings(linking: Linking) -> Iterator[Finding]:
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
            yield Finding("libraries", WARNING, what, details=tuple(map(str, places.values())))
