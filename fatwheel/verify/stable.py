"""The stable ABIs of Python and torch: whether binaries keep to them, and which versions these are.

Python: a wheel whose ABI tag is `abi3` promises that it runs under its Python and all newer ones.
So its binaries may use the limited API alone, as far as its Python has it (PEP 384; the names are
those of CPython's Misc/stable_abi.toml, by the library abi3info).

torch: functions in C (`aoti_torch_…`, `torch_…`) stay as they are, those in C++ fit only the torch
that a library was compiled with (PyTorch, "LibTorch Stable ABI"). A library with the former alone
works with the first torch that has them all (torch_abi.toml), and newer ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from packaging.version import Version

from .. import text
from ..wheels.metadata import requirements
from .claims import OF_PYTHON, python_of_module, tags_of
from .evidence import Evidence, Examined, Finding, note, warning, wrong
from .libraries import lowest_torch, torch_functions, torch_use

_PYTHON_DLL = re.compile(r"python3[0-9]*\.dll", re.IGNORECASE)
_LABEL = re.compile(r"torch([0-9]+\.[0-9]+)")
_ABI3 = "abi3"


# -- torch -----------------------------------------------------------------------------------------


def _torch_findings(evidence: Evidence) -> Iterator[Finding]:
    said = _LABEL.search(evidence.version.partition("+")[2])
    allowed = _allowed_torches(evidence.metadata)
    for binary in evidence.binaries:
        use = torch_use(binary.imports, binary.asked)
        if use is None:
            continue
        path = binary.contents.path
        if use.bound:
            count = text.count(len(use.bound), "name")
            what = f"it fits only the torch that it was built with: it uses {count} of its C++ API"
            yield note(what, path, use.bound)
        elif use.lowest:
            yield note(f"of torch it uses the stable ABI alone: torch {use.lowest} or newer", path)
            if said and Version(said[1]) < Version(use.lowest):
                what = f"the version says torch {said[1]}, it uses functions of {use.lowest}"
                yield wrong(what, path, use.newest)
            older = [one for one in allowed if Version(one) < Version(use.lowest)]
            if older:
                takes = ", ".join(older)
                what = f"METADATA allows torch {takes}, it uses functions of {use.lowest}"
                yield warning(what, path, use.newest)
        elif unknown := [name for name in use.functions if name not in torch_functions()]:
            what = "of torch it uses the stable ABI alone, with functions that are not known here"
            yield note(what, path, unknown)
    lowest = lowest_torch(torch_use(one.imports, one.asked) for one in evidence.binaries)
    if said and lowest and Version(said[1]) > Version(lowest):
        yield note(f"the version says torch {said[1]}, though it works with {lowest} already")


def _allowed_torches(metadata: bytes) -> list[str]:
    """The torches known here that METADATA takes where it asks for certain ones, the oldest first.

    Each line may be for other machines: what one of them takes counts.
    """
    known = sorted(set(torch_functions().values()), key=Version)
    allowed: set[str] = set()
    for requirement in requirements(metadata):
        if requirement.name.lower() == "torch" and requirement.specifier:
            with suppress(ValueError):  # a number of 5000 digits is no version
                allowed |= {one for one in known if requirement.specifier.contains(f"{one}.0")}
    return [one for one in known if one in allowed]


# -- Python ----------------------------------------------------------------------------------------


def abi_findings(evidence: Evidence) -> Iterator[Finding]:
    """What binaries use of Python beyond an abi3 tag's promise, and of torch."""
    pythons = [tag.python for tag in tags_of(evidence) if tag.abi == _ABI3]
    lowest = min(filter(None, map(_python_of, pythons)), default=None)
    if lowest:
        for binary in evidence.binaries:
            yield from _python_findings(binary, lowest)
    yield from _torch_findings(evidence)


def _python_findings(binary: Examined, lowest: tuple[int, int]) -> Iterator[Finding]:
    """A module that is named for one Python is another check's matter."""
    path = binary.contents.path
    if python_of_module(path):
        return
    names = [
        one.name for one in binary.asked
        if OF_PYTHON.fullmatch(one.name) and (not one.library or _PYTHON_DLL.fullmatch(one.library))
    ]  # fmt: skip
    outside = [name for name in names if name not in limited_api()]
    newer = [name for name in names if limited_api().get(name, lowest) > lowest]
    said = _dotted(lowest)
    if outside:
        count = text.count(len(outside), "name")
        what = f"the wheel's tag promises Python's limited API, but it uses {count} outside that"
        yield wrong(what, path, outside)
    if newer:
        needed = _dotted(max(limited_api()[name] for name in newer))
        lines = (f"{name}: Python {_dotted(limited_api()[name])}" for name in newer)
        what = f"the wheel's tag says Python {said} or newer, but it needs {needed}"
        yield wrong(what, path, lines)
    if names and not outside and not newer:
        yield note(f"it keeps to the limited API of Python {said}", path)


@functools.cache
def limited_api() -> Mapping[str, tuple[int, int]]:
    """The functions and variables of Python's stable ABI, with the first Python that has them."""
    import abi3info  # here, because it takes long, and few wheels keep to the stable ABI

    every = (*abi3info.FUNCTIONS.values(), *abi3info.DATAS.values())
    return {one.symbol.name: (one.added.major, one.added.minor) for one in every}


def _python_of(tag: str) -> tuple[int, int] | None:
    """(3, 10) for cp310."""
    match = re.fullmatch(r"cp3([0-9]{1,3})", tag)
    return (3, int(match[1])) if match else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
