"""Where the libraries come from that a binary asks the system for, by their names alone
(libraries.toml); nothing is looked for on this machine."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TORCH = re.compile(r"(?:lib)?(?:torch|c10)(?:_|\.)")
_UNKNOWN = "unknown"
_TITLES = {
    "wheel": "in the wheel", "system": "system", "python": "Python", "torch": "torch",
    "cuda": "CUDA", "driver": "GPU driver", _UNKNOWN: "unknown, must be installed already",
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


def imports_of(names: Iterable[str], shipped: Collection[str]) -> tuple[Import, ...]:
    """What a binary needs, in its order; shipped are the names of its wheel's files without their
    folders, in lower case."""
    return tuple(_import(name, shipped) for name in names)


def runtimes_of(imports: Collection[str], shipped: Collection[str]) -> frozenset[str]:
    """The major versions of the CUDA runtimes among the libraries that a binary needs."""
    libraries = (_import(name, shipped) for name in imports)
    return frozenset(
        library.version for library in libraries if library.origin == "cuda" and library.version
    )


def is_of_torch(library: str) -> bool:
    """Whether a library is one of torch's own, by its name."""
    return _TORCH.match(library.lower()) is not None


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
