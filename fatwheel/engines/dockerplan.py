"""What the docker engine makes and starts for a build: images and containers, by what is in them.

No Docker here: a plan shows the same specifications that the engine gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..config.recipe import Target
from ..config.toolchain import Containers, Toolchain
from ..config.toolchains import find_toolchain
from ..containers.commandlines import build_line, run_line
from ..containers.contexts import WINE, BuildContext, contexts_on, named_bases
from ..containers.imagebuild import labels_of
from ..containers.layouts import (
    ContainerSpec,
    EngineFacts,
    Mount,
    build_arguments,
    create_arguments,
    isolation,
    layout_of,
)
from ..errors import FatwheelError
from ..model import Shard
from ..shipped import PACKAGE, toolchain_folders
from ..storage.cache import chosen_folder
from ..toolchain.windows import windows_tools
from ..worker.inside import ASSEMBLE, CAPTURE
from ..worker.preprocess import HOST_PASS
from .base import (
    DEVICE_CODE,
    HOST_CODE,
    Allotment,
    Footprint,
    Limits,
    PlannedContainer,
    PlannedImage,
    log_name,
    name_of,
    shard_purpose,
)
from .winestation import IN_WINE, WineStation

_ENGINE_KEEPS = 1 << 30  # bytes of the engine's memory that are not for builds


def within(limits: Limits, engine: EngineFacts) -> Limits:
    """As much of some limits as an engine has, which is 0 where it says nothing."""
    memory = max(engine.memory - _ENGINE_KEEPS, engine.memory // 2)
    return Limits(
        min(limits.cpus, engine.cpus or limits.cpus), min(limits.memory, memory or limits.memory)
    )


@dataclass(frozen=True)
class Station:
    """What all containers of one target have in common.

    image:   the image of its Python and torch; os and os_build are the image's (see Containers).
    python:  as in '3.11'.
    code:    the folder of the package `fatwheel`.
    sources: the folder with the project, and with what capture found in it.
    store:   the store's folder. trunk: of one more store that is read besides.
    """

    image: str
    os: str
    os_build: int
    python: str
    code: Path
    sources: Path
    store: Path
    trunk: Path | None = None

    def container(self, purpose: str, incoming: Path, limits: Limits) -> ContainerSpec:
        """The container for a purpose, which may write to `incoming` and nowhere else."""
        layout = layout_of(self.os)
        start = (
            f"import sys; sys.path.insert(0, {layout.code!r}); "
            "from fatwheel.worker.inside import main; main()"
        )
        return ContainerSpec(
            purpose=purpose,
            image=self.image,
            command=(layout.python_of(self.python), "-I", "-B", "-c", start),
            mounts=(
                Mount(str(self.code), layout.package, writable=False),
                Mount(str(self.sources), layout.sources, writable=False),
                Mount(str(self.store), layout.store, writable=False),
                *self._trunk(layout.trunk),
                Mount(str(incoming), layout.incoming, writable=True),
            ),
            cpus=limits.cpus,
            memory=limits.memory,
            os=self.os,
            os_build=self.os_build,
        )

    def _trunk(self, place: str) -> tuple[Mount, ...]:
        return (Mount(str(self.trunk), place, writable=False),) if self.trunk else ()


# -- the footprint of a build ----------------------------------------------------------------------

# Processors and memory are this machine's, as the engine is not asked.


def footprint_of(
    targets: Sequence[Target], shards: Sequence[Shard], allotment: Allotment, in_wine: bool
) -> Footprint:
    """The images and containers for the targets of one recipe; in_wine: of those for Windows."""
    return _Planner(tuple(targets), tuple(shards), allotment, in_wine).footprint()


def containers_of(toolchain: Toolchain) -> Containers:
    """How a toolchain becomes images."""
    assert toolchain.containers is not None, "the engine was found to have no obstacle"
    return toolchain.containers


@dataclass(frozen=True)
class _Planner:
    """The images and containers of a build; in_wine: whether those with Wine."""

    targets: tuple[Target, ...]
    shards: tuple[Shard, ...]
    allotment: Allotment
    in_wine: bool

    def footprint(self) -> Footprint:
        return Footprint(
            images=tuple(self._images()),
            containers=tuple(self._containers()),
            image_of=tuple(layers[-1].tag for layers in self._layers),
            isolation=self._isolation(),
            render=" && ".join(self._renders()),
            final_tags=self._has_final_tags(),
        )

    def _where(self, target: Target) -> Containers:
        return IN_WINE if self.in_wine else containers_of(target.toolchain)

    def _isolation(self) -> str:
        where = self._where(self.targets[0])
        return isolation(0, where.os_build, "") if where.os == "windows" else ""

    def _renders(self) -> Iterator[str]:
        """A command for each toolchain and torch, with its Pythons."""
        pythons: dict[tuple[str, str], list[str]] = {}
        for target in self.targets:
            pythons.setdefault((target.toolchain.name, target.torch), []).append(target.python)
        for (toolchain, torch), of_these in pythons.items():
            words = ["invoke", "render", "--fetch", "--toolchain", toolchain]
            words += ["--wine"] if self.in_wine else []
            words += ["--python", ",".join(of_these), "--torch", torch]
            yield " ".join(words)

    @cached_property
    def _layers(self) -> list[tuple[BuildContext, ...]]:
        """The layers of each target's image, the last of which containers are made from."""
        os_name = self._where(self.targets[0]).os
        return [
            contexts_on(os_name, one.toolchain, one.python, one.torch, self._bases)
            for one in self.targets
        ]

    @cached_property
    def _bases(self) -> dict[str, str]:
        """Images of the user's own, by name; a build uses their ids."""
        return named_bases()

    def _has_final_tags(self) -> bool:
        unlocked = any(layer.unlocked for both in self._layers for layer in both)
        own = {WINE} if self.in_wine else {target.python for target in self.targets}
        return not unlocked and not set(self._bases) & own

    def _images(self) -> Iterator[PlannedImage]:
        """Every layer once, in an order in which they can be made."""
        layers = [layer for both in zip(*self._layers, strict=True) for layer in both]
        for layer in {layer.tag: layer for layer in layers}.values():
            of_it = [
                one for one, both in zip(self.targets, self._layers, strict=True) if layer in both
            ]
            pythons = tuple(dict.fromkeys(one.python for one in of_it))
            yield _planned(layer, pythons, self._where(of_it[0]))

    def _containers(self) -> Iterator[PlannedContainer]:
        whole = self.allotment.whole
        made = set()  # of which toolchain and torch there was a target before
        for wheel, target in enumerate(self.targets):
            device_code = (target.toolchain.name, target.torch)
            yield self._one(wheel, CAPTURE, "", whole)
            if device_code in made:
                yield from self._later_shards(wheel)
            else:
                yield from self._first_shards(wheel)
            yield self._one(wheel, ASSEMBLE, "", whole)
            made.add(device_code)

    def _first_shards(self, wheel: int) -> Iterator[PlannedContainer]:
        """Those of the first Python compile everything."""
        for shard in self.shards:
            yield self._one(wheel, shard_purpose(shard.name), DEVICE_CODE, self.allotment.each)

    def _later_shards(self, wheel: int) -> Iterator[PlannedContainer]:
        """Another Python's find all device code in the store, whose keys know no Python."""
        host = self._one(wheel, shard_purpose(f"1:{HOST_PASS}"), HOST_CODE, self.allotment.each)
        host = replace(host, purpose="shards", most=len(self.shards))
        yield replace(host, compiles=DEVICE_CODE, most=0, command="")
        yield host

    def _one(self, wheel: int, purpose: str, compiles: str, limits: Limits) -> PlannedContainer:
        # Folders that a build makes; its own has a random name.
        cache = chosen_folder()
        work = cache / "work" / "build"
        target, where = self.targets[wheel], self._where(self.targets[wheel])
        image, sources = self._layers[wheel][-1].tag, work / "sources"
        station: Station | WineStation
        if self.in_wine:
            tools = windows_tools(target.toolchain, target.python, target.torch, cache)
            name = name_of(target.recipe)
            station = WineStation(image, name, tools, PACKAGE, sources, cache / "store")
        else:
            station = Station(
                image=image, os=where.os, os_build=where.os_build,
                python=target.python, code=PACKAGE, sources=sources, store=cache / "store",
            )  # fmt: skip
        incoming = work / "incoming" / log_name(purpose).removesuffix(".log")
        spec = station.container(purpose, incoming, limits)
        body = create_arguments(spec, EngineFacts(os=where.os), {"fatwheel": "build"})
        return PlannedContainer(
            wheel, target.python, purpose, compiles, 1, limits.cpus, limits.memory, station.image,
            run_line(body, where.os),
        )  # fmt: skip


def _planned(layer: BuildContext, pythons: tuple[str, ...], where: Containers) -> PlannedImage:
    options = build_arguments(EngineFacts(os=where.os), where.os_build)
    path = PureWindowsPath if where.os == "windows" else PurePosixPath
    folder = path("contexts", *layer.tag.partition("/")[2].split(":"))  # as `invoke render` has it
    return PlannedImage(
        kind=layer.kind,
        tag=layer.tag,
        base=layer.base.partition("@")[0] if layer.unlocked else layer.base,
        pythons=pythons,
        files=len(layer.files),
        size=sum(file.size for file in layer.files),
        unlocked=layer.unlocked,
        command=build_line(layer.tag, labels_of(layer), options, str(folder), where.os),
    )


# -- the scope of what is made in images -----------------------------------------------------------


def scope_of(target: Target, own: Toolchain | None, bases: Mapping[str, str]) -> tuple[Any, ...]:
    """What images of a target's toolchain are made of, whatever Python or torch it is for.

    own: what this checkout has under the toolchain's name. bases: for a Python, the image on which
    FATWHEEL_BASES has it built.

    A lock has no more of its toolchain than one build needs. Where that is just what this
    checkout pins, it is the same place; where it is anything else, all of it counts.
    """
    if own and is_pinned(target, own):
        return "containers", _compiling(own), dict(bases)
    return "containers", _all_of(target.toolchain), dict(bases)


def wine_scope_of(target: Target, own: Toolchain | None, image: str) -> tuple[Any, ...]:
    """The same for containers with Wine. image: its tag. Keys say which compilers made an entry;
    a lock from elsewhere could have those of this checkout run by a Python of its own."""
    scope = "containers", "wine", image
    return scope if is_pinned(target, own) else (*scope, _all_of(target.toolchain))


def is_pinned(target: Target, own: Toolchain | None) -> bool:
    """Whether a target's tools are what this checkout pins (see `pinned_here`), and so no worse
    than that."""
    return own is not None and target.tools == replace(target, toolchain=own).tools


def _all_of(toolchain: Toolchain) -> dict[str, Any]:
    """A toolchain, but for the hosts from which a lock's files may come: they decide nothing."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name != "hosts"}

    return asdict(toolchain, dict_factory=table)


def _compiling(toolchain: Toolchain) -> dict[str, Any]:
    """A toolchain without Pythons' own packages and torch."""
    payloads = toolchain.msvc.payloads if toolchain.msvc else ()
    return {
        "bases": [asdict(base) for base in containers_of(toolchain).bases],
        "cuda_files": [[one.name, one.version, one.sha256] for one in toolchain.cuda_files],
        "interpreters": [[one.python, one.download.sha256] for one in toolchain.interpreters],
        "msvc": [[one.name, one.version, one.sha256] for one in payloads],
        "packages": sorted(
            [one.name, one.version, one.sha256, one.role] for one in toolchain.packages
        ),
    }


def pinned_here(target: Target) -> Toolchain | None:
    """What this checkout has under the name of a target's toolchain, if that is sound."""
    name, torch, python = target.toolchain.name, target.torch, target.python
    with suppress(FatwheelError):
        return find_toolchain(name, torch, python, *toolchain_folders())
    return None
