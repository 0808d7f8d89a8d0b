"""What toolchains there are: those with a name, and what can be composed of parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..arch import Arch
from ..config.compose import combinations, compose
from ..config.parts import NVIDIA_PLATFORMS, Parts, release
from ..config.toolchain import Toolchain
from ..config.toolchains import list_toolchains, load_toolchain
from ..engines.registry import ENGINES, engine_named


@dataclass(frozen=True)
class TorchOffer:
    """A torch, and the Pythons that it goes with."""

    torch: str
    pythons: tuple[str, ...]


@dataclass(frozen=True)
class ToolchainOffer:
    """A toolchain with a name, or a CUDA of which toolchains are composed for a platform.

    name: '' of what is composed. archs: what its nvcc knows. engines: what can build with it.
    unlocked: files whose sha256 is not known yet, for some of the Pythons.
    """

    name: str
    platform: str
    cuda: str
    nvcc: str
    builds: tuple[TorchOffer, ...]
    archs: tuple[str, ...]
    engines: tuple[str, ...]
    unlocked: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """All that there are."""

    named: tuple[ToolchainOffer, ...]
    composed: tuple[ToolchainOffer, ...]

    def to_json(self) -> dict[str, Any]:
        """As `invoke toolchains --json` prints it (toolchains.schema.json)."""
        return asdict(self)


def overview(folders: Sequence[Path], platform: str | None = None) -> Overview:
    """The toolchains of some folders, for one platform or for all.

    Raises ConfigError where a file of them has mistakes.
    """
    parts = Parts(*folders)
    named = (load_toolchain(name, *folders) for name in list_toolchains(*folders))
    platforms = NVIDIA_PLATFORMS if platform is None else (platform,)
    return Overview(
        named=tuple(_named(one) for one in named if one.platform in platforms),
        composed=tuple(offer for one in platforms for offer in _composed(parts, one)),
    )


def _named(toolchain: Toolchain) -> ToolchainOffer:
    return ToolchainOffer(
        name=toolchain.name,
        platform=toolchain.platform,
        cuda=toolchain.cuda,
        nvcc=toolchain.nvcc,
        builds=_builds((one.torch, one.python) for one in toolchain.builds),
        archs=_names(toolchain.archs),
        engines=_engines(toolchain),
        unlocked=_unlocked([toolchain]),
    )


def _composed(parts: Parts, platform: str) -> Iterator[ToolchainOffer]:
    """One for each CUDA, the newest first."""
    by_cuda = groupby(combinations(parts, platform), key=lambda one: one.cuda.version)
    for cuda, of_cuda in by_cuda:
        found = list(of_cuda)
        # What is not locked does not depend on torch, but for its own wheels.
        of_pythons = {one.python: one for one in found}
        toolchains = [compose(parts, one) for one in of_pythons.values()]
        yield ToolchainOffer(
            name="",
            platform=platform,
            cuda=cuda,
            nvcc=found[0].cuda.nvcc,
            builds=_builds((one.torch.version, one.python) for one in found),
            archs=_names(found[0].cuda.archs),
            engines=_engines(toolchains[0]),
            unlocked=tuple(
                dict.fromkeys(
                    [
                        *_unlocked(toolchains),
                        *(one.wheel.file for one in found if not one.wheel.sha256),
                    ]
                )
            ),
        )


def _engines(toolchain: Toolchain) -> tuple[str, ...]:
    return tuple(name for name in ENGINES if not engine_named(name).obstacle(toolchain))


def _unlocked(toolchains: Iterable[Toolchain]) -> tuple[str, ...]:
    """Files only: an image is used as it is found until it is locked."""
    files = (file for toolchain in toolchains for file in toolchain.files)
    return tuple(dict.fromkeys(file.filename for file in files if not file.locked))


def _names(archs: Iterable[Arch]) -> tuple[str, ...]:
    return tuple(arch.name for arch in sorted(archs))


def _builds(pairs: Iterable[tuple[str, str]]) -> tuple[TorchOffer, ...]:
    """By torch, the oldest first. pairs: each a torch and a Python."""
    pythons: dict[str, set[str]] = {}
    for torch, python in pairs:
        pythons.setdefault(torch, set()).add(python)
    return tuple(
        TorchOffer(torch, tuple(sorted(pythons[torch], key=release)))
        for torch in sorted(pythons, key=release)
    )
