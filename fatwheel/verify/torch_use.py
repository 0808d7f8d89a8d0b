"""What a library uses of torch: functions of its stable ABI, which stay as they are, or what fits
only the torch that it was compiled with."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from ..errors import FormatError
from ..fatbin.asked import Asked, asked_of
from ..fatbin.binary import HEAD, imports_of, is_binary
from ..wheels.archive import open_wheel
from .libraries import is_of_torch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


def torch_use(imports: Collection[str], asked: Iterable[Asked]) -> TorchUse | None:
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
                        uses.append(torch_use(imports_of(data), asked_of(data)))
                    except FormatError as error:
                        raise error.within(member.name) from error
    return lowest_torch(uses)


@functools.cache
def torch_functions() -> Mapping[str, str]:
    """The functions of torch's stable ABI, with the first torch that has them."""
    with Path(__file__).with_name("torch_abi.toml").open("rb") as stream:
        releases = tomllib.load(stream)["release"]
    return {name: one["torch"] for one in releases for name in one["functions"]}
