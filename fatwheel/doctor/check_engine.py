"""Checks of the container engine: reached, of the right kind, with room, limits and images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from .. import text
from ..containers.layouts import HYPERV, ISOLATION_VARIABLE, LINUX, PROCESS_ISOLATION, isolation
from ..errors import FatwheelError
from ..machine import processor_of
from ..shipped import DEFAULT_TOOLCHAINS
from .checks import setup_command
from .facts import (
    WINDOWS,
    Answer,
    CacheFacts,
    EngineTrouble,
    EngineView,
    Facts,
    Fix,
    ImageFacts,
    Silence,
    Topic,
    Trouble,
    WindowsHost,
    base_size,
    image_size,
    wine_image_size,
)
from .network import restart_command

ENGINE = Topic("engine", "container engine")
KIND = Topic("engine-os", "kind of containers")
ISOLATION = Topic("isolation", "isolation")
IMAGE_DISK = Topic("image-disk", "disk for images")
LIMITS = Topic("limits", "limits that hold")
MOUNTS = Topic("mounts", "folders in containers")
IMAGES = Topic("images", "images")

_AFTER_ENGINE = (KIND, ISOLATION, IMAGE_DISK, LIMITS, MOUNTS, IMAGES)
_HOME_EDITIONS = ("Core", "CoreN", "CoreSingleLanguage", "CoreCountrySpecific", "Education")


def check_engine(facts: Facts) -> Answer:
    engine = facts.container_engine
    if engine is None:
        return ENGINE.skipped(f"{facts.toolchain.name} runs in processes here")
    why = "every step of a build runs in a container"
    if isinstance(engine, Silence):
        return ENGINE.wrong(engine.reason, why, *_start(facts))
    if isinstance(engine, EngineTrouble):
        trouble = engine.trouble
        found = f"{trouble.what} ({trouble.where})" if trouble.where else trouble.what
        by_kind = {"permission": _allow, "absent": _start}.get(engine.kind)
        # A hint that sends here leads nowhere.
        useful = trouble.hint and not by_kind and "invoke doctor" not in trouble.hint
        hint = (Fix(trouble.hint),) if useful else ()
        by_kind = by_kind or (None if hint else _start)
        return ENGINE.wrong(found, why, *(by_kind(facts) if by_kind else ()), *hint)
    found = f"{engine.facts.version} at {engine.endpoint}"
    if engine.facts.system:
        found += f" on {engine.facts.system}"
    return ENGINE.ok(found)


def _start(facts: Facts) -> tuple[Fix, ...]:
    if facts.host.system == WINDOWS:
        return (
            Fix("start Docker Desktop, or the engine's service:", "sc.exe start docker", True),
            Fix("if none is installed: see docs/windows.md"),
        )
    return (
        Fix("start it", "sudo systemctl start docker", administrator=True),
        Fix("if none is installed (Debian, Ubuntu)", "sudo apt-get install docker.io", True),
        Fix("if it is elsewhere", "export DOCKER_HOST=unix:///path/to/docker.sock"),
    )


def _allow(facts: Facts) -> tuple[Fix, ...]:
    if facts.host.system == WINDOWS:
        return (
            Fix(
                "join the engine's group (docker-users with Docker Desktop), then sign in again",
                "net localgroup docker-users %USERNAME% /add",
                administrator=True,
            ),
        )
    return (
        Fix(
            "join the engine's group, whose members are as good as root, then sign in again",
            'sudo usermod -aG docker "$USER"',
            administrator=True,
        ),
    )


def check_kind(facts: Facts, engine: EngineView) -> Answer:
    """OSType and processor, against the toolchain's."""
    images = facts.toolchain.containers
    wanted = LINUX.os if facts.by_wine else images and images.os
    if not wanted:
        return KIND.wrong(
            f"{facts.toolchain.name} has no [containers]",
            "no images can be made of it",
            Fix("use another toolchain, or processes", "invoke doctor --engine process"),
        )
    found = f"{engine.facts.os} containers on {engine.architecture or 'an unknown processor'}"
    processor = facts.toolchain.platform.partition("-")[2]
    its = engine.architecture or processor  # some do not say
    if engine.facts.os == wanted and processor_of(its) != processor_of(processor):
        return KIND.warning(
            found,
            f"{facts.toolchain.name} is for {processor}: its containers run only if the engine "
            "emulates that, as Docker Desktop does, and about ten times slower",
            Fix(f"use an engine on an {processor} machine"),
        )
    if engine.facts.os == wanted:
        return KIND.ok(f"{found}, with Wine" if facts.by_wine else found)
    why = f"{facts.toolchain.name} needs {wanted} containers"
    return KIND.wrong(found, why, *_switch(facts, wanted))


def _switch(facts: Facts, wanted: str) -> tuple[Fix, ...]:
    if facts.host.system != WINDOWS:
        if wanted == "linux":
            return (Fix("use an engine with Linux containers", "docker context ls"),)
        return (
            Fix(
                "only a Windows host runs Windows containers: use one, or a toolchain for Linux",
                f"invoke doctor --toolchain {DEFAULT_TOOLCHAINS['linux']} --engine docker",
            ),
        )
    which = wanted.capitalize()
    return (
        Fix(
            f"Docker Desktop: right-click its icon, Switch to {which} containers…",
            rf'"C:\Program Files\Docker\Docker\DockerCli.exe" -Switch{which}Engine',
        ),
    )


def check_isolation(facts: Facts, engine: EngineView) -> Answer:
    wanted = facts.toolchain.containers
    if engine.facts.os != "windows" or wanted is None or wanted.os != "windows":
        return ISOLATION.skipped("only Windows containers have it")
    host = engine.facts.os_build
    found = f"host build {host or 'unknown'}, image build {wanted.os_build}"
    try:
        way = isolation(host, wanted.os_build, engine.facts.isolation)
    except FatwheelError as error:
        return ISOLATION.wrong(found, error.what, *([Fix(error.hint)] if error.hint else []))
    found += f": {way} isolation"
    windows = facts.windows if isinstance(facts.windows, WindowsHost) else None
    if windows and engine.local and windows.edition in _HOME_EDITIONS:
        return ISOLATION.wrong(
            f"{found}; Windows edition {windows.edition}",
            "this edition runs no Windows containers",
            Fix("Settings, System, Activation: upgrade to Windows Pro", "slui.exe 3", True),
        )
    if way == PROCESS_ISOLATION:
        return _check_revisions(found, facts, engine)
    if windows is None or not engine.local:
        return ISOLATION.ok(found)
    return _check_hyperv(found, windows)


def _check_revisions(found: str, facts: Facts, engine: EngineView) -> Answer:
    """Process isolation fails where updates have not brought the host as far as the image."""
    host = engine.facts.os_revision
    if engine.local and isinstance(facts.windows, WindowsHost):
        host = facts.windows.revision or host
    image = facts.images.revision if isinstance(facts.images, ImageFacts) else 0
    assert facts.toolchain.containers is not None
    same_build = engine.facts.os_build == facts.toolchain.containers.os_build
    if not (host and image and same_build):
        return ISOLATION.ok(found)
    found += f"; revision of the host {host}, of the image {image}"
    if image <= host:
        return ISOLATION.ok(found)
    return ISOLATION.warning(
        found,
        "a container of an image that is newer than the host may end at its start (0xc0370106)",
        Fix(
            "install the host's updates (Settings, Windows Update; Server Core: sconfig), then "
            "start Windows again",
            administrator=True,
        ),
        Fix(
            "or isolate containers as virtual machines",
            f"setx {ISOLATION_VARIABLE} {HYPERV}",
        ),
        Fix(
            "or remove the base image's digest from the toolchain's file, and take the one for "
            "this host",
            f"invoke lock --toolchain {facts.toolchain.name} "
            f"--host-build {engine.facts.os_build}.{host}",
        ),
    )


def _check_hyperv(found: str, windows: WindowsHost) -> Answer:
    why = "a container of that kind is a small virtual machine"
    if windows.hyperv is False:
        feature = Fix(
            "install Hyper-V, then start Windows again",
            "dism.exe /Online /Enable-Feature /FeatureName:Microsoft-Hyper-V /All /NoRestart",
            administrator=True,
        )
        firmware = Fix(
            "switch virtualization on in the firmware's setup (Intel VT-x, AMD-V); in a virtual "
            "machine, nested virtualization",
            administrator=True,
        )
        fixes = (feature, firmware) if windows.virtualization is False else (feature,)
        return ISOLATION.wrong(f"{found}, and Hyper-V is not installed", why, *fixes)
    return ISOLATION.ok(f"{found}, Hyper-V is installed")


def check_image_disk(facts: Facts, engine: EngineView) -> Answer:
    needed = _image_need(facts)
    where = f"where the engine keeps images ({engine.facts.root})"
    need = f"about {text.size(needed)} for the images" if needed else "the images are there"
    if engine.free is None:
        if not needed:
            return IMAGE_DISK.ok(need)
        return IMAGE_DISK.warning(
            f"{need}; what is free {where} cannot be seen from here",
            "if an image does not fit, building it fails halfway",
            Fix("look there", "docker system df"),
        )
    found = f"{text.size(engine.free)} free {where}; {need}"
    if engine.free < needed:
        return IMAGE_DISK.wrong(
            found,
            "if an image does not fit, building it fails halfway",
            Fix("see what takes up the space", "docker system df"),
            Fix("remove unused images", "docker image prune"),
            Fix('or set "data-root": "FOLDER" in daemon.json', restart_command(facts), True),
        )
    return IMAGE_DISK.ok(found)


def _image_need(facts: Facts) -> int:
    """Bytes for what is missing: the base is there as soon as one of the images is."""
    if facts.images_made:
        return 0
    if facts.by_wine:
        return wine_image_size(facts.toolchain)
    needed = image_size(facts.toolchain, facts.python)
    some = isinstance(facts.images, ImageFacts) and facts.images.present
    return needed - base_size(facts.toolchain) if some else needed


def check_limits(facts: Facts, engine: EngineView) -> Answer:
    """What the engine's kernel can hold containers to."""
    if engine.facts.os == "windows":
        return LIMITS.ok("memory and processors, as always on Windows")
    limits = engine.facts.limits
    missing = sorted({"memory", "swap", "cpus", "pids"} - limits)
    if not missing:
        return LIMITS.ok("memory, swap, processors and processes")
    found = f"not for {', '.join(missing)}"
    kernel = Fix(
        "add cgroup_enable=memory swapaccount=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, then "
        "start the machine again",
        "sudo update-grub",
        administrator=True,
    )
    newer = Fix("or use a system with cgroups version 2, as all since 2022 have")
    if "memory" in missing:
        return LIMITS.wrong(
            found,
            "a compiler that uses too much memory could bring down the machine",
            kernel,
            newer,
        )
    return LIMITS.warning(
        found, "a build that uses too much may slow everything else down", kernel, newer
    )


def check_mounts(facts: Facts, engine: EngineView) -> Answer:
    """Whether the engine sees the cache's folder, and may let containers use it."""
    cache = facts.cache
    if not engine.local:
        return MOUNTS.warning(
            f"the engine is on another machine: {engine.endpoint}",
            "it must see this machine's folders under the same paths",
            Fix("use an engine of this machine", "docker context use default"),
        )
    if not isinstance(cache, CacheFacts):
        return MOUNTS.skipped("the cache folder does not respond")
    if engine.facts.selinux:
        return MOUNTS.warning(
            "SELinux is enforcing",
            "containers cannot access folders that are not labelled for them",
            Fix(
                "label the cache's folder",
                f"sudo chcon -Rt container_file_t '{cache.folder}'",
                administrator=True,
            ),
        )
    if engine.desktop and facts.host.system != WINDOWS and not cache.in_home:
        return MOUNTS.warning(
            f"{cache.folder} is outside of your home",
            "Docker Desktop shares only folders listed in its settings",
            Fix(f"Docker Desktop: Settings, Resources, File sharing: add {cache.folder}"),
        )
    if facts.host.system == WINDOWS and engine.facts.os == "windows" and cache.in_home:
        return _check_profile(cache)
    return MOUNTS.ok(f"the engine sees {cache.folder}")


def _check_profile(cache: CacheFacts) -> Answer:
    """Under process isolation, accounts in a container have no access to the user's profile."""
    short = PurePath(cache.folder).drive or "C:"
    return MOUNTS.warning(
        f"{cache.folder} is in your profile",
        "accounts in containers have no access there",
        Fix("make a folder for it", rf"mkdir {short}\fw"),
        Fix("let containers in", rf'icacls.exe {short}\fw /grant "*S-1-5-11:(OI)(CI)M"'),
        Fix("set it as the cache, then open a new prompt", rf"setx FATWHEEL_CACHE {short}\fw"),
    )


def check_images(facts: Facts, engine: EngineView) -> Answer:
    images = facts.images
    if images is None:
        return IMAGES.skipped("no image can be made of this toolchain here")
    why = "the first build makes them, and waits for it"
    make = Fix("make them now", setup_command(facts))
    if isinstance(images, Silence):
        return IMAGES.warning(images.reason, why, make)
    if isinstance(images, Trouble):
        hint = (Fix(images.hint),) if images.hint else ()
        return IMAGES.warning(images.what, why, *hint)
    missing = [name for name in images.wanted if name not in images.present]
    if not missing:
        return IMAGES.ok(", ".join(images.wanted))
    return IMAGES.warning(f"not made yet: {', '.join(missing)}", why, make)


def findings(facts: Facts) -> Iterable[Answer]:
    """All of them, in the order in which they are shown; none applies where no engine answers."""
    yield check_engine(facts)
    engine = facts.container_engine
    if not isinstance(engine, EngineView):
        reason = "no container engine is used" if engine is None else "the engine must answer first"
        yield from (check.skipped(reason) for check in _AFTER_ENGINE)
        return
    yield check_kind(facts, engine)
    yield check_isolation(facts, engine)
    yield check_image_disk(facts, engine)
    yield check_limits(facts, engine)
    yield check_mounts(facts, engine)
    yield check_images(facts, engine)
