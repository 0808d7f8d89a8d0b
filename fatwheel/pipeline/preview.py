"""Plans a build without starting anything: `invoke build --plan`.

Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ..config.model import Containers, Recipe, Target, Toolchain
from ..containers.commandlines import build_line, run_line
from ..containers.contexts import BuildContext, contexts_of, named_bases
from ..containers.imagebuild import build_options, labels_of
from ..containers.layouts import EngineFacts, create_arguments
from ..engines.base import Allotment, Limits, allot, log_name, shard_purpose
from ..engines.docker import Station
from ..machine import cores, free_memory
from ..model import Front, Job, Shard, Unit
from ..shipped import PACKAGE
from ..storage.cache import chosen_folder
from ..toolchain.interpreters import build_of, compiler_id
from ..wheels.name import WheelName, version_label, with_local
from ..worker.preprocess import HOST_PASS
from .build import BuildRequest, asked_for, check_front, fronts_for
from .plan import make_shards
from .resolve import Asked
from .workplaces import DOCKER, engine_for

# What a container of compilers may have to do.
DEVICE_CODE, HOST_CODE = "device code", "host code"


@dataclass(frozen=True)
class PlannedFront:
    """One run of nvcc's front end for each CUDA unit, and the images that are made from it."""

    front: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedWheel:
    """A wheel by the name that it will have."""

    file: str
    python: str
    image: str  # that its containers are made from; '' where there are none


@dataclass(frozen=True)
class PlannedImage:
    """A layer of the images that a build needs, and what goes into it.

    pythons:  those that need it.
    files, size: what is fetched and copied in, as far as sizes are known.
    unlocked: names of files, and the base, whose size or digest is not known yet.
    command:  what amounts to the same, to be pasted where the document's `render` has run.
    """

    kind: str
    tag: str
    base: str
    pythons: tuple[str, ...]
    files: int
    size: int
    unlocked: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class PlannedShard:
    """A worker's share: the fronts that it runs for all units, or its part of them."""

    name: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedContainer:
    """Containers of one purpose, for the wheel of one Python.

    compiles: DEVICE_CODE, HOST_CODE or '' for those that start no compilers but upstream's own.
    most:     how many there are at most. What the store holds is compiled by none.
    cpus, memory: the limits of each.
    """

    python: str
    purpose: str
    compiles: str
    most: int
    cpus: int
    memory: int
    image: str
    command: str


@dataclass(frozen=True)
class PlanDocument:
    """Everything that is known about a build before it starts.

    compiler: of the host code. jobs: compiler calls at a time; memory: for all of them.
    at_once:  workers or containers of shards that are open at a time.
    fetched:  the file of the package index with the project's source; '' if it lies here.
    render:   the command that makes the folders of which the images' commands make images.
    final_tags: whether images will be called as here. Not before all is locked, nor where own bases
    are named (FATWHEEL_BASES), whose ids only the engine knows.
    """

    kernel: str
    project: str
    version: str
    fetched: str
    toolchain: str
    platform: str
    cuda: str
    nvcc: str
    compiler: str
    torch: str
    archs: tuple[str, ...]
    engine: str
    front: str
    fronts: tuple[PlannedFront, ...]
    shards: tuple[PlannedShard, ...]
    jobs: int
    memory: int
    at_once: int
    wheels: tuple[PlannedWheel, ...]
    images: tuple[PlannedImage, ...] = ()
    containers: tuple[PlannedContainer, ...] = ()
    render: str = ""
    final_tags: bool = True

    @property
    def unlocked(self) -> tuple[str, ...]:
        """What `invoke lock` has to fill in before any of this can start."""
        return tuple(dict.fromkeys(name for image in self.images for name in image.unlocked))

    def device_containers(self, python: str) -> int:
        """How many containers compile device code for the wheel of a Python."""
        return sum(
            group.most
            for group in self.containers
            if group.python == python and group.compiles == DEVICE_CODE
        )

    def to_json(self) -> dict[str, Any]:
        """As `invoke build --plan --json` prints it (plan.schema.json)."""
        return {**asdict(self), "unlocked": self.unlocked}


# -- the preview -----------------------------------------------------------------------------------

# The same recipe, toolchain, fronts, image contexts and container specifications that a build uses.
# What only capturing tells, a project's units and what the store answers of them, is left open; and
# where there are containers, processors and memory are this machine's, as the engine is not asked.


def plan_document(request: BuildRequest) -> PlanDocument:
    """Describe what `pipeline.build` would do for this request.

    Raises UsageError, or ConfigError, for what cannot be built.
    """
    check_front(request.front)
    asked, _ = asked_for(request)
    engine = engine_for(asked.toolchain, request.engine)
    fronts = _fronts(asked, request.front)
    shards = _shards(asked.recipe, fronts, request.shards or len(asked.archs))
    jobs, memory = request.jobs or cores(), request.memory or free_memory()
    allotment = allot(len(shards), min(_largest(asked.recipe), memory), jobs, memory)
    site = _Site(asked, shards, allotment) if engine == DOCKER else None
    return PlanDocument(
        **_about(asked),
        engine=engine,
        front=request.front,
        fronts=tuple(PlannedFront(front.virtual.compute, front.codes) for front in fronts),
        shards=tuple(PlannedShard(shard.name, _codes(shard)) for shard in shards),
        jobs=jobs,
        memory=memory,
        at_once=allotment.at_once if site else len(shards),
        wheels=tuple(
            PlannedWheel(
                _wheel_name(target), target.python, site.image(target.python) if site else ""
            )
            for target in asked.targets
        ),
        images=tuple(site.images()) if site else (),
        containers=tuple(site.containers()) if site else (),
        render=_render_line(asked) if site else "",
        final_tags=not site or site.has_final_tags,
    )


def _fronts(asked: Asked, mode: str) -> tuple[Front, ...]:
    """Those of the first target; the others have the same, as they have the same compilers."""
    build = build_of(asked.toolchain, asked.pythons[0], asked.torch)
    return fronts_for(asked.targets[0], mode, compiler_id(asked.toolchain, build))


def _about(asked: Asked) -> dict[str, Any]:
    """What is asked for, in the document's words."""
    recipe, toolchain = asked.recipe, asked.toolchain
    return {
        "kernel": recipe.name,
        "project": recipe.project,
        "version": recipe.version,
        "fetched": recipe.source.package.filename if recipe.source.package else "",
        "toolchain": toolchain.name,
        "platform": toolchain.platform,
        "cuda": toolchain.cuda,
        "nvcc": toolchain.nvcc,
        "compiler": _host_compiler(toolchain),
        "torch": asked.torch,
        "archs": tuple(map(str, asked.archs)),
    }


def _host_compiler(toolchain: Toolchain) -> str:
    if toolchain.msvc:
        return f"cl {toolchain.msvc.cl} (Visual Studio {toolchain.msvc.visual_studio})"
    return "g++ {} to {}".format(*toolchain.gcc) if toolchain.gcc else "g++"


def _wheel_name(target: Target) -> str:
    """The name of a wheel whose extension modules are built for one Python, as upstream's are."""
    recipe, toolchain = target.recipe, target.toolchain
    label = version_label(toolchain.cuda, target.torch, target.archs)
    tag = f"cp{target.python.replace('.', '')}"
    name = WheelName("", "", "", tag, tag, toolchain.platform.replace("-", "_"))
    return name.renamed(recipe.project, with_local(recipe.version, label)).filename


# -- shards --------------------------------------------------------------------------------------


def _shards(recipe: Recipe, fronts: Iterable[Front], count: int) -> tuple[Shard, ...]:
    """How the fronts are divided if each has as many units, all of one size, as there are shards.

    How many units there are, and what each costs, is known when they were captured.
    """
    units = [Unit(f"unit {number}", "cuda", "", (), ()) for number in range(count)]
    jobs = [
        Job(unit, front, host=False, memory=recipe.memory, seconds=len(front.codes))
        for front in fronts
        for unit in units
    ]
    return make_shards(jobs, count)


def _codes(shard: Shard) -> tuple[str, ...]:
    """The images that a shard makes, each once."""
    return tuple(dict.fromkeys(code for job in shard.jobs if job.front for code in job.front.codes))


def _largest(recipe: Recipe) -> int:
    """Bytes that the largest job may need, by the recipe."""
    return max([recipe.memory, *(cost.memory for cost in recipe.costs)])


# -- containers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Site:
    """The images and containers of what was asked for."""

    asked: Asked
    shards: tuple[Shard, ...]
    allotment: Allotment

    @property
    def _where(self) -> Containers:
        containers = self.asked.toolchain.containers
        assert containers is not None, "engine_for saw to it"
        return containers

    @cached_property
    def _layers(self) -> dict[str, tuple[BuildContext, BuildContext]]:
        """Both layers of each Python's image."""
        return {
            python: contexts_of(self.asked.toolchain, python, self.asked.torch, self._bases)
            for python in self.asked.pythons
        }

    @cached_property
    def _bases(self) -> dict[str, str]:
        """Images of the user's own, by name; a build uses their ids."""
        return named_bases()

    @property
    def has_final_tags(self) -> bool:
        unlocked = any(layer.unlocked for both in self._layers.values() for layer in both)
        return not unlocked and not set(self._bases) & set(self.asked.pythons)

    def image(self, python: str) -> str:
        """The tag of the image that a Python's containers are made from."""
        return self._layers[python][1].tag

    def images(self) -> Iterator[PlannedImage]:
        """Every layer once, in an order in which they can be made."""
        layers = [layer for both in zip(*self._layers.values(), strict=True) for layer in both]
        for layer in {layer.tag: layer for layer in layers}.values():
            pythons = tuple(python for python, both in self._layers.items() if layer in both)
            yield _image(layer, pythons, self._where)

    def containers(self) -> Iterator[PlannedContainer]:
        whole = self.allotment.whole
        for number, python in enumerate(self.asked.pythons):
            yield self._one(python, "capture", "", whole)
            yield from self._later_shards(python) if number else self._first_shards(python)
            yield self._one(python, "assemble", "", whole)

    def _first_shards(self, python: str) -> Iterator[PlannedContainer]:
        """Those of the first Python compile everything."""
        for shard in self.shards:
            yield self._one(python, shard_purpose(shard.name), DEVICE_CODE, self.allotment.each)

    def _later_shards(self, python: str) -> Iterator[PlannedContainer]:
        """Another Python's find all device code in the store, whose keys know no Python."""
        host = self._one(python, shard_purpose(f"1:{HOST_PASS}"), HOST_CODE, self.allotment.each)
        host = replace(host, purpose="shards", most=len(self.shards))
        yield replace(host, compiles=DEVICE_CODE, most=0, command="")
        yield host

    def _one(self, python: str, purpose: str, compiles: str, limits: Limits) -> PlannedContainer:
        # Folders that a build makes; its own has a random name.
        cache = chosen_folder()
        work = cache / "work" / "build"
        station = Station(
            image=self.image(python), os=self._where.os, os_build=self._where.os_build,
            python=python, code=PACKAGE, sources=work / "sources", store=cache / "store",
        )  # fmt: skip
        incoming = work / "incoming" / log_name(purpose).removesuffix(".log")
        spec = station.container(purpose, incoming, limits)
        body = create_arguments(spec, EngineFacts(os=station.os), {"fatwheel": "build"})
        return PlannedContainer(
            python, purpose, compiles, 1, limits.cpus, limits.memory, station.image,
            run_line(body, station.os),
        )  # fmt: skip


def _render_line(asked: Asked) -> str:
    """The command that makes the folders which the images' commands build."""
    words = ["invoke", "render", "--fetch", "--toolchain", asked.toolchain.name]
    words += ["--python", ",".join(asked.pythons), "--torch", asked.torch]
    return " ".join(words)


def _image(layer: BuildContext, pythons: tuple[str, ...], where: Containers) -> PlannedImage:
    options = build_options(EngineFacts(os=where.os), layer, where)
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
