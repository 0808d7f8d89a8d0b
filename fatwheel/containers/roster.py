"""Records the containers of each build, and removes those of builds that are gone.

    <cache>/containers/<random id>      of one build; deleted with the last of its containers

Everybody who can talk to an engine can read the labels and names of its containers and make others
with the same ones, so these do not prove whose a container is. Its id does: only the engine chooses
it. A container belongs to a build if its id is in the build's roster, where it is written before
the container starts. A build may be killed after the engine has made a container and before its id
is written. Therefore the container's name, which nobody can guess, is written before it is made,
and identifies it until the id follows. A roster outlives the work folder of its build, which any
build may remove.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import errors as docker_errors

from ..storage.cache import VARIABLE, cache_folder, is_abandoned
from ..storage.files import STALE, disk_error
from .client import FAILURES, DockerEngine, engine_errors

FOLDER = "containers"
BUILD = "fatwheel"
CACHE = "fatwheel.cache"
HOST = "fatwheel.host"

_LONGEST = 4 << 20  # bytes of a roster: some ten thousand containers
_ROSTER = re.compile("[0-9a-f]{32}")
_WORK = re.compile(r"build-\w+", re.ASCII)
_LINE = re.compile("(fatwheel-[0-9a-f]{32})(?: ([0-9a-f]{64}))?")


class Roster:
    """The containers of one build that lives; threads may share it.

    labels: put on every container, for people who look at the engine; nothing depends on them.
    """

    def __init__(self, path: Path, labels: Mapping[str, str]) -> None:
        self.labels = dict(labels)
        self._path = path
        self._left: set[str] = set()
        self._writing = threading.Lock()

    def announce(self) -> str:
        """Record and return a name for a container about to be made. Raises OSError."""
        name = f"fatwheel-{secrets.token_hex(16)}"
        self._left.add(name)
        self._write(name)
        return name

    def made(self, name: str, container: str) -> None:
        """Record the id that the engine gave to a container. Raises OSError."""
        self._write(f"{name} {container}")

    def ended(self, name: str) -> None:
        """Record that the container is gone."""
        self._left.discard(name)

    def close(self) -> None:
        """The build ends. Where a container is left, the roster stays, for `reap`."""
        if not self._left:
            with suppress(OSError):
                self._path.unlink()

    def _write(self, line: str) -> None:
        with self._writing, self._path.open("a", encoding="ascii") as stream:
            stream.write(f"{line}\n")


@contextmanager
def enrolled(build: str, work: Path, endpoint: str) -> Iterator[Roster]:
    """A roster for a build's containers on an engine; work is its work folder, held meanwhile.

    Raises StoreError.
    """
    folder = cache_folder() / FOLDER
    head = {"work": work.name, "engine": endpoint, "host": this_host()}
    path = folder / secrets.token_hex(16)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as stream:
            stream.write(json.dumps(head) + "\n")
    except OSError as error:
        doing = "record which containers belong to this build"
        raise disk_error(error, doing, folder, f"{VARIABLE}=FOLDER") from error
    roster = Roster(path, {BUILD: build, CACHE: str(cache_folder()), HOST: this_host()})
    try:
        yield roster
    finally:
        roster.close()


@dataclass(frozen=True)
class Enrolled:
    """A roster that was found. ids are the engine's; names those of containers without one.

    gone: its build does not live any more.
    """

    path: Path
    gone: bool
    ids: frozenset[str]
    names: frozenset[str]

    def has(self, container: Mapping[str, Any]) -> bool:
        """Whether a container, as an engine lists it, is in the roster."""
        names = {str(name).lstrip("/") for name in container.get("Names") or ()}
        return container["Id"] in self.ids or not self.names.isdisjoint(names)

    def drop(self) -> None:
        """Remove it, now that its containers are removed.

        Not where the engine may be about to make one that the killed build asked for.
        """
        with suppress(OSError):
            if not self.names or time.time() - self.path.stat().st_mtime > STALE:
                self.path.unlink()


def read_rosters(cache: Path, endpoint: str) -> list[Enrolled]:
    """The rosters of this machine's and this cache's builds on an engine."""
    found = (_read(path, cache, endpoint) for path in sorted((cache / FOLDER).glob("*")))
    return [roster for roster in found if roster is not None]


def _read(path: Path, cache: Path, endpoint: str) -> Enrolled | None:
    """Read a roster; None if it is invalid, or belongs to builds elsewhere."""
    if not _ROSTER.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            first, *lines = stream.read(_LONGEST).decode("ascii").splitlines()
        head = json.loads(first)
        work = str(head["work"])
        here = (head["engine"], head["host"]) == (endpoint, this_host())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not here or not _WORK.fullmatch(work):
        return None
    found = {match[1]: match[2] for match in map(_LINE.fullmatch, lines) if match}
    names = frozenset(name for name, container in found.items() if not container)
    return Enrolled(
        path, _is_gone(cache / "work" / work), frozenset(found.values()) - {None}, names
    )


def _is_gone(work: Path) -> bool:
    """Whether no running build holds the folder; False if that cannot be determined."""
    try:
        return not work.is_symlink() and is_abandoned(work)
    except OSError:
        return False


def this_host() -> str:
    """Identifies this machine, even among others of the same name."""
    return hashlib.sha256(f"{socket.gethostname()} {_machine()}".encode()).hexdigest()[:16]


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


# -- removing leftovers ----------------------------------------------------------------------------

# Containers end by themselves when their build does. This removes the others: those that were made
# but not started when the build was killed, and those whose engine was stopped meanwhile.
#
# Anybody can set labels. They only help to find containers that may be ours; those that are in no
# roster are left alone, and reported.


_SHOWN = 20  # ids in a command


@dataclass(frozen=True)
class Leftovers:
    """removed: how many containers. unknown: ids of those whose labels name this cache, but which
    are in no roster."""

    removed: int
    unknown: tuple[str, ...]

    @property
    def note(self) -> str:
        """What to tell the user; '' where there is nothing."""
        if not self.unknown:
            return ""
        ids = " ".join(name[:12] for name in self.unknown[:_SHOWN])
        count = len(self.unknown)
        said = "1 container claims to be" if count == 1 else f"{count} containers claim to be"
        it, it_is = ("it", "it was") if count == 1 else ("them", "they were")
        return (
            f"{said} part of a build that uses this cache, but no build recorded {it}, so "
            f"{it_is} left alone; if nobody needs {it}: docker rm --force --volumes {ids}"
        )


def reap(engine: DockerEngine, cache: Path) -> Leftovers:
    """Remove the containers of this machine's and this cache's builds that are gone.

    Those of living builds, and of machines whose builds cannot be seen from here, are left alone.
    Raises EngineError where the engine does not answer.
    """
    before = read_rosters(cache, engine.endpoint)
    with engine_errors("look for containers of builds that are gone", engine.endpoint):
        found = engine.api.containers(all=True, filters={"label": [BUILD]})
    removed = 0
    for roster in before:
        if roster.gone:
            outcomes = [_remove(engine, one["Id"]) for one in found if roster.has(one)]
            removed += sum(outcomes)
            if all(outcomes):
                roster.drop()
    # A build may have begun after the first look, and its container be among those found.
    known = [*before, *read_rosters(cache, engine.endpoint)]
    claims = [one for one in found if _claims(one.get("Labels") or {}, cache)]
    unknown = [one["Id"] for one in claims if not any(roster.has(one) for roster in known)]
    return Leftovers(removed, tuple(unknown))


def _claims(labels: Mapping[str, Any], cache: Path) -> bool:
    """Whether a container's labels name this machine and cache."""
    return labels.get(CACHE) == str(cache) and labels.get(HOST) == this_host()


def _remove(engine: DockerEngine, container: str) -> bool:
    """Remove a container; True if it is gone."""
    try:
        engine.api.remove_container(container, force=True, v=True)
    except docker_errors.NotFound:
        return True
    except FAILURES:  # it may be ending in this moment: the next build will see
        return False
    return True
