"""The facts about a machine, what a toolchain needs there, and the result of a check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.pinned import Download, Package
from ..config.toolchain import Toolchain
from ..containers.contexts import uses_wine
from ..containers.layouts import EngineFacts
from ..engines.registry import engine_named

OK, WARNING, WRONG, NOT_APPLICABLE = "ok", "warning", "wrong", "not applicable"


@dataclass(frozen=True)
class Fix:
    """One thing to do: words, a command line where there is one, and who may do it.

    command is for the system's own shell: sh, or cmd on Windows; never PowerShell.
    """

    say: str
    command: str = ""
    administrator: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "say": self.say,
            "command": self.command or None,
            "administrator": self.administrator,
        }


@dataclass(frozen=True)
class Answer:
    """The answer of one check.

    name is for programs, title for people. found has the figures; why is '' where all is well.
    """

    name: str
    title: str
    status: str
    found: str
    why: str = ""
    fixes: tuple[Fix, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "status": self.status,
            "found": self.found,
            "why": self.why or None,
            "fixes": [fix.to_json() for fix in self.fixes],
        }


@dataclass(frozen=True)
class Topic:
    """The name and title of one question; its methods make the answers."""

    name: str
    title: str

    def ok(self, found: str) -> Answer:
        return Answer(self.name, self.title, OK, found)

    def warning(self, found: str, why: str, *fixes: Fix) -> Answer:
        return Answer(self.name, self.title, WARNING, found, why, fixes)

    def wrong(self, found: str, why: str, *fixes: Fix) -> Answer:
        return Answer(self.name, self.title, WRONG, found, why, fixes)

    def skipped(self, found: str) -> Answer:
        """Not applicable, and why not."""
        return Answer(self.name, self.title, NOT_APPLICABLE, found)


# -- facts -----------------------------------------------------------------------------------------

# What is known about a workstation: gathered first, so that every check is a pure function of it.
#
# Sizes are bytes, times are seconds. Where a question got no answer there is a Silence in the
# answer's place.


LINUX, WINDOWS = "Linux", "Windows"  # as platform.system() says them


@dataclass(frozen=True)
class Silence:
    """No answer: it took too long, or the question itself failed; reason is a sentence's end."""

    reason: str


@dataclass(frozen=True)
class Trouble:
    """An expected failure: what failed, where, and what to do."""

    what: str
    where: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Machine:
    """This machine.

    system is LINUX, WINDOWS or what else platform.system() says; name as people call it; build
    is Windows' build number, else 0. wheel_platforms are the platform tags of wheels that run
    here. memory is all there is, within the control group's limit.
    """

    system: str
    name: str
    machine: str
    build: int
    python: str
    cores: int
    memory: int
    free_memory: int
    wheel_platforms: frozenset[str]
    now: float


@dataclass(frozen=True)
class WindowsHost:
    """What only Windows has; None where it could not be read.

    long_paths: the registry's LongPathsEnabled. hyperv: whether the feature is installed.
    virtualization: whether the firmware lets a hypervisor run. edition: as the registry
    names it (`Professional`, `Core` for Home, `ServerStandard`), '' where unknown. revision: what
    updates have brought its build to, as in 2340 of 20348.2340.
    """

    long_paths: bool | None
    hyperv: bool | None
    virtualization: bool | None
    edition: str = ""
    revision: int | None = None


@dataclass(frozen=True)
class CacheFacts:
    """The folder that the cache is in or would be in. mistake: why it cannot be used, or ''.

    filesystem is what it lies on (`ext4`, `nfs4`; '' unknown); runs_programs: it is not mounted
    noexec. in_home: it is within the user's own folder. accepted: Microsoft's terms for MSVC are.
    """

    folder: str
    exists: bool
    mistake: str
    free: int
    filesystem: str
    runs_programs: bool
    in_home: bool
    accepted: bool


@dataclass(frozen=True)
class EngineView:
    """What the container engine says about itself, and how it looks from here.

    free: bytes free where it keeps images, None where that cannot be seen from here. local:
    whether it sees this machine's files. clock: its time less ours. images: for each tag and id
    that it has, the id.
    """

    facts: EngineFacts
    endpoint: str
    architecture: str
    free: int | None
    local: bool
    proxies: tuple[str, ...]
    clock: float | None
    images: Mapping[str, str]

    @property
    def desktop(self) -> bool:
        return self.facts.system.startswith("Docker Desktop")


@dataclass(frozen=True)
class EngineTrouble:
    """Why the engine cannot be reached. kind: 'permission', 'absent' or 'other'."""

    kind: str
    trouble: Trouble


@dataclass(frozen=True)
class ProxyFacts:
    """Proxies, without passwords: of the variables, of pip, and of the docker command."""

    variables: tuple[tuple[str, str], ...]
    pip: str
    docker: tuple[str, ...]


@dataclass(frozen=True)
class IndexFacts:
    """How the places that pip is configured with answered.

    asked: the file that was looked for. sources: each place and its trouble, '' where it has the
    file. clock: the index's time less ours, None where none said it.
    """

    asked: str
    sources: tuple[tuple[str, str], ...]
    seconds: float
    clock: float | None


@dataclass(frozen=True)
class FileHost:
    """A host that files of the toolchain come from, other than the index.

    missing: bytes of its files that are not here yet. trouble: why it does not answer, or ''.
    """

    host: str
    missing: int
    trouble: str


@dataclass(frozen=True)
class Stock:
    """What of the toolchain is in the cache, as bytes of files, for the Python built for."""

    present: int
    missing: int


@dataclass(frozen=True)
class ImageFacts:
    """The images of the toolchain for one Python: their names, and those that are there.

    revision: of the Windows in what the engine has of them, as in 2340 of 20348.2340; 0 is unknown.
    """

    wanted: tuple[str, ...]
    present: tuple[str, ...]
    revision: int = 0


@dataclass(frozen=True)
class Gpu:
    """capability is (major, minor)."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class GpuFacts:
    """NVIDIA's driver, its newest CUDA as (major, minor), and the GPUs it sees.

    driver is '' where there is none; cards counts NVIDIA GPUs on the bus, None if unknown.
    """

    driver: str = ""
    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""
    cards: int | None = None


@dataclass(frozen=True)
class Load:
    """What one compiler call of a recipe takes: its largest."""

    recipe: str
    memory: int


@dataclass(frozen=True)
class Facts:
    """All that the checks look at. engine is that of builds, by name, python the one built for.

    daemon_file: the container engine's configuration on this machine, '' where it has none here.
    own_bases: Pythons whose base image the user named, in place of the toolchain's.
    """

    toolchain: Toolchain
    engine: str
    python: str
    host: Machine
    windows: WindowsHost | Silence | None
    cache: CacheFacts | Silence
    stock: Stock | Silence
    loads: tuple[Load, ...]
    container_engine: EngineView | EngineTrouble | Silence | None
    daemon_file: str
    images: ImageFacts | Trouble | Silence | None
    proxies: ProxyFacts | Silence
    index: IndexFacts | Trouble | Silence
    places: tuple[FileHost, ...]
    compiler: str | Trouble | Silence | None
    pythons: tuple[tuple[str, str | Trouble], ...] | Silence | None
    gpu: GpuFacts | Silence
    own_bases: frozenset[str] = frozenset()

    @property
    def uses_images(self) -> bool:
        """Whether builds run in container images."""
        return engine_named(self.engine).uses_images

    @property
    def by_wine(self) -> bool:
        """Whether builds for Windows run in an image of Linux with Wine. Their tools are on this
        machine then, as those of processes are."""
        engine = self.container_engine
        return isinstance(engine, EngineView) and uses_wine(self.toolchain, engine.facts.os)

    @property
    def images_made(self) -> bool:
        """Whether the engine has all images, so that none of their files is needed any more."""
        images = self.images
        return isinstance(images, ImageFacts) and set(images.wanted) == set(images.present)


# -- what a toolchain needs ------------------------------------------------------------------------

# Files to download, and disk for environments and images, in bytes. Those of images are estimates
# on the safe side: what an installer makes is known only once it ran.


UNPACKED = 1.9  # bytes on disk per byte of an archive (measured on wheels: 1.7)
# In an image the archives lie in one layer and what was installed from them in the next (measured:
# 2.8 bytes per byte in both); and the engine takes a copy of the whole context first.
IN_IMAGE = 2 + UNPACKED

GB = 10**9
_BASES = {"linux": GB, "windows": 6 * GB}
_WINE = 8 * GB // 10  # the image with Wine, nearly all of it what Debian's packages unpack to
_MSVC = 3 * GB  # with a Windows SDK: its packages unpack to more than other files do


def files_for(toolchain: Toolchain, python: str) -> tuple[Package | Download, ...]:
    """All files that it takes to build for one Python and its torch in containers, once each."""
    return toolchain.only(python, toolchain.usual_torch(python)).image_files


def environment_files(toolchain: Toolchain, python: str) -> tuple[Package | Download, ...]:
    """Those of an environment on this machine."""
    return toolchain.only(python, toolchain.usual_torch(python)).process_files


def size_of(files: tuple[Package | Download, ...]) -> int:
    return sum(file.size for file in files)


def image_size(toolchain: Toolchain, python: str) -> int:
    """Disk that the images for one Python take at most, while they are being built."""
    files = size_of(files_for(toolchain, python))
    return base_size(toolchain) + int(files * IN_IMAGE)


def wine_image_size(toolchain: Toolchain) -> int:
    """The same of the image with Wine, which is copied from one in which packages are unpacked."""
    return 2 * _WINE + size_of(toolchain.wine.files if toolchain.wine else ())


def base_size(toolchain: Toolchain) -> int:
    """What of that is no pinned file: the system, and what MSVC unpacks to."""
    os = toolchain.containers.os if toolchain.containers else "linux"
    return _BASES[os] + (_MSVC if toolchain.msvc else 0)
