"""What a binary asks of others, by names alone: where the libraries come from that it asks the
system for (libraries.toml), and which packages bring them (providers.toml); and what it uses of
torch, functions of its stable ABI, which stay as they are (torch_abi.toml), or what fits only the
torch that it was compiled with. Nothing is looked for on this machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from ..errors import FormatError
from ..fatbin.binary import HEAD, AskedSymbol, asked_of, is_binary
from ..fatbin.binary import imports_of as needed_by
from ..storage.documents import read_toml
from ..wheels.archive import open_wheel

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
    groups = read_toml(Path(__file__).with_name("libraries.toml"))[1]["library"]
    return tuple(
        (group["from"], re.compile(pattern, re.IGNORECASE))
        for group in groups
        for pattern in group["patterns"]
    )


# -- packages --------------------------------------------------------------------------------------


def package_of(library: str, cuda: str) -> str:
    """The package on the index that brings a library; '' where none is known.

    cuda: the major version of torch's CUDA, for libraries whose names do not tell theirs; or ''.
    """
    for provider in _providers()["provider"]:
        for pattern in provider["patterns"]:
            match = re.fullmatch(pattern, library)
            if not match:
                continue
            groups = match.groupdict()
            version = groups.get("version") or ""
            major = groups.get("cuda") or provider.get("cudas", {}).get(version) or cuda
            return _named(provider, str(major))
    return ""


def brings_runtime(package: str) -> bool:
    """Whether CUDA's runtime comes with a package: its name as PEP 503 normalises it."""
    return any(re.fullmatch(pattern, package) for pattern in _providers()["bring_runtime"])


def _named(provider: dict[str, Any], major: str) -> str:
    name = str(provider["package"])
    if provider.get("named"):
        return name
    if not major:
        return ""
    if "{cuda}" in name:
        return name.replace("{cuda}", major)
    return name if int(major) >= int(_providers()["plain_from"]) else f"{name}-cu{major}"


def is_redistributable(library: str) -> bool:
    """Whether Visual C++'s runtime brings it."""
    return re.fullmatch(_providers()["redistributable"], library, re.IGNORECASE) is not None


def torch_index(cuda: str) -> str:
    """The index of torch for a CUDA, `12.8`."""
    return str(_providers()["torch_index"]).replace("{cuda}", cuda.replace(".", ""))


@functools.cache
def _providers() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("providers.toml"))[1]


# -- what a library uses of torch ------------------------------------------------------------------

_C_OF_TORCH = re.compile(r"(?:aoti|torch)_\w+")
# Names that C++ compilers make, with a part of torch's namespaces; and its Python binding in C.
# Only how they begin: a name may have a megabyte, and is to be read once.
_CPP_OF_TORCH = re.compile(
    r"_Z.*?(?<![0-9])(?:2at|3c10|5torch|6caffe2)|THP\w|\?.*?@(?:at|c10|torch|caffe2)@@", re.DOTALL
)


@dataclass(frozen=True)
class TorchUse:
    """What a library uses of torch.

    functions: those of the stable ABI. bound: what fits only the torch that it was compiled with.
    """

    functions: tuple[str, ...]
    bound: tuple[str, ...]

    @property
    def lowest(self) -> str | None:
        """The first torch that has all that it uses, `2.10`; None where that is not known, or no
        other torch than one has it."""
        if self.bound or not self.functions or not set(self.functions) <= torch_functions().keys():
            return None
        return max((torch_functions()[name] for name in self.functions), key=Version)

    @property
    def newest(self) -> tuple[str, ...]:
        """The functions that an older torch than `lowest` does not have."""
        return tuple(name for name in self.functions if torch_functions()[name] == self.lowest)


def torch_use(imports: Collection[str], asked: Iterable[AskedSymbol]) -> TorchUse | None:
    """What a binary that asks for these libraries and names uses of torch; None if nothing."""
    if not any(map(is_of_torch, imports)):
        return None
    names = [one.name for one in asked if not one.library or is_of_torch(one.library)]
    functions = tuple(name for name in names if _C_OF_TORCH.fullmatch(name))
    bound = tuple(name for name in names if _CPP_OF_TORCH.match(name))
    return TorchUse(functions, bound)


def lowest_torch(uses: Iterable[TorchUse | None]) -> str | None:
    """The first torch that all binaries of a wheel work with; None where that is not known."""
    found = [use.lowest for use in uses if use is not None]
    known = [lowest for lowest in found if lowest]
    return max(known, key=Version) if found and len(known) == len(found) else None


def lowest_torch_of(path: Path) -> str | None:
    """The same for the wheel at a path, of which only the binaries' tables are read."""
    with open_wheel(path) as wheel:
        uses = []
        for member in wheel.members:
            if is_binary(wheel.start(member.name, HEAD)):
                with wheel.mapped(member.name) as data:
                    try:
                        uses.append(torch_use(needed_by(data), asked_of(data)))
                    except FormatError as error:
                        raise error.within(member.name) from error
    return lowest_torch(uses)


@functools.cache
def torch_functions() -> Mapping[str, str]:
    """The functions of torch's stable ABI, with the first torch that has them."""
    releases = read_toml(Path(__file__).with_name("torch_abi.toml"))[1]["release"]
    return {name: one["torch"] for one in releases for name in one["functions"]}
