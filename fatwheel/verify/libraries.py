"""Where the libraries come from that the binaries of a wheel ask the system for.

A listing by name (libraries.toml); nothing is looked for on this machine.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from .evidence import Evidence, Examined
from .findings import Finding, note, warning, wrong
from .platforms import tags_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_UNKNOWN = "unknown"
_TITLES = {
    "wheel": "in the wheel", "system": "system", "python": "Python", "torch": "torch",
    "cuda": "CUDA", "driver": "GPU driver", _UNKNOWN: "unknown, must be there already",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One library that a binary needs.

    origin:  'wheel', 'system', 'python', 'torch', 'cuda', 'driver' or 'unknown'.
    version: CUDA's major version or Python's, where the name says it: `12`, `3.11`; or ''.
    """

    name: str
    origin: str
    version: str = ""

    @property
    def title(self) -> str:
        return " ".join(filter(None, [_TITLES[self.origin], self.version]))


def imports_of(binary: Examined, shipped: Collection[str]) -> tuple[Import, ...]:
    """What a binary needs, in its order; shipped is `Evidence.shipped` of its wheel."""
    return tuple(_import(name, shipped) for name in binary.imports)


def import_findings(evidence: Evidence) -> Iterator[Finding]:
    """What each binary needs, and what cannot be together."""
    pythons = {tag.python for tag in tags_of(evidence) if tag.python.startswith("cp")}
    for binary in evidence.binaries:
        found = imports_of(binary, evidence.shipped)
        if found:
            what = "it needs 1 library" if len(found) == 1 else f"it needs {len(found)} libraries"
            yield note(what, binary.contents.path, _listing(found))
        yield from _python_findings(binary.contents.path, found, pythons)
    runtimes = sorted(cuda_versions(evidence))
    if len(runtimes) > 1:
        yield warning(f"its binaries need CUDA {' and CUDA '.join(runtimes)}")


def cuda_versions(evidence: Evidence) -> frozenset[str]:
    """The major versions of the CUDA runtimes that the wheel's binaries need."""
    return frozenset(
        library.version
        for binary in evidence.binaries
        for library in imports_of(binary, evidence.shipped)
        if library.origin == "cuda" and library.version
    )


def _python_findings(
    path: str, libraries: Collection[Import], allowed: Collection[str]
) -> Iterator[Finding]:
    """It must be the Python that loads the binary, or the stable part of any (python3.dll)."""
    for library in libraries:
        tag = f"cp{library.version.replace('.', '')}"
        if library.origin == "python" and allowed and tag not in {*allowed, "cp3"}:
            what = f"it needs {library.name}, the wheel is for {', '.join(sorted(allowed))}"
            yield wrong(what, path)


def _import(name: str, shipped: Collection[str]) -> Import:
    if name.rpartition("/")[2].lower() in shipped:
        return Import(name, "wheel")
    for origin, pattern in _patterns():
        match = pattern.fullmatch(name)
        if match:
            return Import(name, origin, _version(origin, match.groupdict().get("version") or ""))
    return Import(name, _UNKNOWN)


def _version(origin: str, text: str) -> str:
    """`311` of a DLL's name is Python 3.11."""
    if origin == "python" and len(text) > 1 and "." not in text:
        return f"{text[0]}.{text[1:]}"
    return text


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    with Path(__file__).with_name("libraries.toml").open("rb") as stream:
        groups = tomllib.load(stream)["library"]
    return tuple(
        (group["from"], re.compile(pattern, re.IGNORECASE))
        for group in groups
        for pattern in group["patterns"]
    )


def _listing(libraries: Collection[Import]) -> Iterator[str]:
    """A line per origin: `CUDA 12: cudart64_12.dll`."""
    for title in dict.fromkeys(library.title for library in libraries):
        names = (library.name for library in libraries if library.title == title)
        yield f"{title}: {', '.join(names)}"
