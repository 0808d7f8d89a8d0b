"""What `invoke build --plan` says: wheels, images, containers with their limits, and commands.

Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    """All that can be said of a build before anything of it was started.

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
