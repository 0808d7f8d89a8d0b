"""Containers of builds that are gone: found by their labels, and removed.

Containers end by themselves when their build does. What is left for this are those that were made
and not started when the build was killed, and those whose engine was stopped in between.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..cache import cache_folder
from ..workfolder import is_abandoned
from .client import FAILURES, DockerEngine, engine_errors

BUILD = "fatwheel"
HOLD = "fatwheel.hold"
CACHE = "fatwheel.cache"
HOST = "fatwheel.host"


def build_labels(build: str, hold: Path) -> dict[str, str]:
    """The labels of a build's containers; hold is its work folder, held as long as it lives."""
    return {BUILD: build, HOLD: str(hold), CACHE: str(cache_folder()), HOST: this_host()}


def reap(engine: DockerEngine, cache: Path) -> int:
    """Remove the containers of this machine's and this cache's builds that are gone; how many.

    Those of living builds, and of machines whose builds cannot be seen from here, are left alone.
    Raises EngineError where the engine does not answer.
    """
    ours = [BUILD, f"{CACHE}={cache}", f"{HOST}={this_host()}"]
    with engine_errors("look for containers of builds that are gone", engine.endpoint):
        found = engine.api.containers(all=True, filters={"label": ours})
    gone = [container["Id"] for container in found if _is_gone(container.get("Labels") or {})]
    return sum(_remove(engine, container) for container in gone)


def this_host() -> str:
    """What tells this machine from others, whatever their names."""
    return hashlib.sha256(f"{socket.gethostname()} {_machine()}".encode()).hexdigest()[:16]


def _is_gone(labels: Mapping[str, str]) -> bool:
    """Whether no living build holds the container's folder; what cannot be known is not gone."""
    hold = Path(labels.get(HOLD, ""))
    try:
        return hold.is_absolute() and is_abandoned(hold)
    except OSError:
        return False


def _remove(engine: DockerEngine, container: str) -> bool:
    # One that ends in this moment, or that somebody else removes, is not our business any more.
    with suppress(*FAILURES):
        engine.api.remove_container(container, force=True, v=True)
        return True
    return False


if sys.platform == "win32":
    import winreg

    def _machine() -> str:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])

else:

    def _machine() -> str:
        with suppress(OSError):
            return Path("/etc/machine-id").read_text(encoding="ascii").strip()
        return ""
