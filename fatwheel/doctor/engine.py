"""Queries the container engine, also for images. Changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from ..config.toolchain import Toolchain
from ..containers.client import DockerEngine, connect
from ..containers.contexts import VARIABLE, WINE, contexts_on, named_bases, uses_wine
from ..containers.imagebuild import inspect
from ..errors import EngineError, FatwheelError
from .facts import (
    WINDOWS,
    EngineTrouble,
    EngineView,
    ImageFacts,
    Trouble,
)
from .machine import nearest
from .network import without_password

_FILE_NOT_FOUND, _ACCESS_DENIED = 2, 5  # of Windows' errors
_LOCAL = ("unix://", "npipe://", "http+unix://", "http+docker://localhost")


def ask_engine() -> EngineView | EngineTrouble:
    """The engine's facts, or why it cannot be reached."""
    try:
        engine = connect()
        with_images = _view(engine, engine.api.info(), engine.api.images())
    except EngineError as error:
        trouble = Trouble(error.what, error.where or "", error.hint or "")
        return EngineTrouble(_kind(error), trouble)
    return with_images


def _view(engine: Any, info: Mapping[str, Any], images: list[Mapping[str, Any]]) -> EngineView:
    local = engine.endpoint.startswith(_LOCAL)
    names = {
        str(name): str(image.get("Id"))
        for image in images
        for name in (image.get("Id"), *(image.get("RepoTags") or ()))
    }
    proxies = (
        f"{name}={without_password(str(info[field]))}"
        for name, field in (("http", "HttpProxy"), ("https", "HttpsProxy"))
        if info.get(field)
    )
    return EngineView(
        facts=engine,
        endpoint=engine.endpoint,
        architecture=str(info.get("Architecture") or ""),
        free=_free(engine.root) if local else None,
        local=local,
        proxies=tuple(proxies),
        clock=_clock(str(info.get("SystemTime") or "")),
        images=names,
    )


def _free(root: str) -> int | None:
    """Free bytes where the engine keeps images; None where this machine has no such folder.

    That is so with Docker Desktop, whose engine is in a virtual machine.
    """
    folder = Path(root)
    try:
        # The folder itself may be closed to users; the file system it lies on is not.
        there = nearest(folder)
        if not root or there == Path(folder.anchor) or not folder.is_absolute():
            return None
        return shutil.disk_usage(there).free
    except OSError:
        return None


def _clock(said: str) -> float | None:
    """Seconds that the engine's clock is ahead of ours: `2026-01-02T03:04:05.678901234Z`."""
    try:
        moment = datetime.fromisoformat(said[:19] + "+00:00")
    except ValueError:
        return None
    if not said.endswith("Z"):
        return None
    return moment.timestamp() - time.time()


def _kind(error: BaseException) -> str:
    """'permission', 'absent' or 'other', by what lies at the bottom of an error."""
    seen: set[int] = set()
    reason: BaseException | None = error
    while reason is not None and id(reason) not in seen:
        seen.add(id(reason))
        for inner in (reason, *(arg for arg in reason.args if isinstance(arg, BaseException))):
            code = getattr(inner, "winerror", None)  # of a Windows pipe; pywin32's is no OSError
            if isinstance(inner, PermissionError) or code == _ACCESS_DENIED:
                return "permission"
            absent = isinstance(inner, (FileNotFoundError, ConnectionRefusedError))
            if absent or code == _FILE_NOT_FOUND:
                return "absent"
        reason = _below(reason)
    return "other"


def _below(error: BaseException) -> BaseException | None:
    """What an error was raised from; libraries of HTTP keep it among their arguments."""
    inner = [arg for arg in error.args if isinstance(arg, BaseException)]
    return error.__cause__ or error.__context__ or (inner[0] if inner else None)


# -- its configuration file ----------------------------------------------------------------------


def daemon_file(engine: EngineView) -> str:
    """Where an engine of this machine has its configuration; '' for one elsewhere.

    The places are those of Docker's documentation of dockerd.
    """
    same_system = (platform.system() == WINDOWS) == (engine.facts.os == "windows")
    if not engine.local or not same_system:
        return ""
    if engine.facts.os == "windows":
        base = os.environ.get("PROGRAMDATA", r"C:\ProgramData")
        return str(PureWindowsPath(base) / "docker" / "config" / "daemon.json")
    if engine.facts.rootless:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return f"{home}/docker/daemon.json"
    return "/etc/docker/daemon.json"


# -- images that the engine has --------------------------------------------------------------------


def ask_images(
    toolchain: Toolchain, python: str, engine: EngineView
) -> ImageFacts | Trouble | None:
    """The images for one Python by their tags; None where the engine cannot have them."""
    wine = uses_wine(toolchain, engine.facts.os)
    made = toolchain.containers is not None and toolchain.containers.os == engine.facts.os
    if not (wine or made):
        return None
    torch = toolchain.usual_torch(python)
    try:
        bases = _bases(WINE if wine else python, engine)
        contexts = contexts_on(engine.facts.os, toolchain, python, torch, bases)
    except FatwheelError as error:
        return Trouble(error.what, error.where or "", error.hint or "")
    wanted = tuple(context.tag for context in contexts)
    present = tuple(tag for tag in wanted if tag in engine.images)
    revision = 0
    if engine.facts.os == "windows" and isinstance(engine.facts, DockerEngine):
        revision = _revision(engine.facts, (*present, contexts[0].base))
    return ImageFacts(wanted, present, revision)


def _revision(engine: DockerEngine, names: Iterable[str]) -> int:
    """That of the Windows in the first image that the engine has; 0 where it has none."""
    for name in names:
        found = inspect(engine, name) or {}
        version = re.fullmatch(r"10\.0\.[0-9]{5}\.([0-9]{1,6})", str(found.get("OsVersion") or ""))
        if version:
            return int(version[1])
    return 0


def _bases(python: str, engine: EngineView) -> dict[str, str]:
    """The base that the user named for a Python, by the engine's id of it."""
    named = named_bases().get(python)
    if named is None:
        return {}
    found = engine.images.get(named) or engine.images.get(f"{named}:latest")
    if found is None:
        raise EngineError(
            f"image not found: {named}, which {VARIABLE} names",
            hint="`docker image ls` lists the available images",
        )
    return {python: found}


def own_bases() -> frozenset[str]:
    """Pythons for which the user named a base image; none where they cannot be read."""
    try:
        return frozenset(named_bases())
    except FatwheelError:
        return frozenset()  # what is wrong there, asking for the images says
