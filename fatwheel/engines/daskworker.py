"""What a Dask worker does for builds elsewhere: it gets their toolchain and sources ready, and runs
their jobs.

The engine (`engines.dask`) calls the functions below by their names, with text and bytes, and gets
the same back:

1. `facts`:   which fatwheel, Python and Dask this is;
2. `ready`:   makes the toolchain of a lock, as a build here would, from this machine's own package
              index, and says what decides what it makes: the build's machine compares that;
3. `settle`:  takes a build's sources and lays them out where compilers see them on every machine;
4. `bring`:   takes what a front left on another machine, for the stages that follow it;
5. `compile_job`: runs one job in a process like those of the `process` engine (for Windows in a
              program of Wine or of Windows, like theirs), or in a container like those of `docker`,
              and sends back what that put into a store of the build's own;
6. `leave`:   the build is over: ends its compilers, and forgets it.

All state is this process's: a worker that is started again knows nothing, and is told all anew.
"""

from __future__ import annotations

import json
import platform
import secrets
import shutil
import sys
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from .. import __version__
from ..errors import EngineError
from ..events import silent
from ..machine import cores, free_memory
from ..provenance.lock import read_lock, target_of
from ..shipped import code_digest, recipe_folders
from ..storage.cache import work_folder
from ..storage.files import replacing
from ..worker.context import digest, job_from_wire
from ..worker.inside import CAPTURED
from ..worker.shard import outcome_of
from . import bundle
from .base import Limits
from .daskbench import LEFT, Bench, Equipment, Outcome, ProcessEquipment, read_settlement
from .daskwindows import WindowsEquipment
from .incoming import LIMITS
from .local import ready_tools

CORES, MEMORY = "fatwheel-cores", "fatwheel-memory"  # what Dask calls a worker's resources

MOST_SOURCES = 4 << 30  # bytes of a project's sources
MOST_LEFT = sum(LIMITS[kind] for kind in LEFT)  # bytes of what a front left
_KEPT = 4  # builds without a job that are remembered
_KILLS = "oom_kill"


# As it is when it is first asked for: a worker may run on while its files are replaced.
_code = cache(code_digest)


def facts() -> str:
    """What must be the same on all machines of a build, and what this one is called."""
    from importlib.metadata import version

    return json.dumps(
        {
            "fatwheel": __version__,
            "code": _code(),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "distributed": version("distributed"),
            "machine": platform.node(),
        }
    )


# -- the toolchain ---------------------------------------------------------------------------------


_EQUIPMENT: dict[str, Equipment] = {}  # by the digest of their lock
# What the compilers of a build may have here, and whether they run in containers.
_LENT: list[tuple[Limits, bool]] = []


def lend(limits: Limits, *, containers: bool) -> None:
    """From now on, the compilers of each build may have as much, in a container or not."""
    _LENT[:] = [(limits, containers)]


def killed() -> Path:
    """The file in which is counted what was killed here for using too much memory, as Linux counts
    it (see `processes.KILLS_VARIABLE`)."""
    with _LOCK:
        counted = home() / "killed"
        if not counted.exists():
            counted.write_text(f"{_KILLS} 0\n", encoding="ascii")
    return counted


def count_kill() -> None:
    """Tell compilers here that one of them is killed, before it is. Raises OSError."""
    with _LOCK:
        counted = killed()
        number = int(counted.read_text(encoding="ascii").split()[1])
        with replacing(counted) as out:  # who reads it meanwhile reads all of it
            out.write(f"{_KILLS} {number + 1}\n".encode())


def ready(lock: str) -> str:
    """Make a lock's toolchain; the outcome says what of it decides what it makes."""

    def task() -> Outcome:
        read = read_lock(lock.encode(), "the build's lock", *recipe_folders())
        target = target_of(read, ())
        limits, containers = _LENT[0] if _LENT else (Limits(cores(), free_memory()), False)
        equipment: Equipment
        if containers:
            from .daskcontainer import ContainerEquipment  # only here Docker is needed

            equipment = ContainerEquipment.ready(target, home(), limits)
        elif target.toolchain.brings_all:
            equipment = WindowsEquipment.ready(target, limits, killed())
        else:
            equipment = ProcessEquipment(ready_tools(target, silent))
        identity = equipment.identity()
        _EQUIPMENT[digest(lock)] = equipment
        return {"outcome": "ready", "identity": identity}

    return json.dumps(outcome_of(task, "the toolchain"))


# -- sources ---------------------------------------------------------------------------------------


def settle(settlement: str, sources: bytes) -> str:
    """Take a build in. The outcome is "lacks" where its sources are not here and do not come with
    it, else "ready"."""

    def task() -> Outcome:
        what = read_settlement(settlement)
        equipment = _EQUIPMENT.get(digest(what.lock))
        if equipment is None:
            raise EngineError("this worker was started again")
        origin = home() / "sources" / what.sources / CAPTURED
        if not origin.is_dir():
            if not sources:
                return {"outcome": "lacks"}
            _take_sources(sources, what.sources, origin)
        bench = Bench(what, equipment, origin, home() / "builds" / what.build)
        with _LOCK:
            _forget_idle()
            _BENCHES[what.build] = bench
        bench.open()
        return {"outcome": "ready"}

    return json.dumps(outcome_of(task, "the sources"))


def _take_sources(data: bytes, wanted: str, origin: Path) -> None:
    """Unpack sources to `origin`, whole or not at all."""
    files = bundle.unpack(data, MOST_SOURCES)
    if bundle.identity(bundle.shas_of(files)) != wanted:
        raise EngineError("other sources came than the build has")
    # With the rights of any new folder: a container may be another user.
    part = home() / "parts" / secrets.token_hex(8)
    try:
        (part / origin.name).mkdir(parents=True)
        bundle.write(files, part / origin.name)
        origin.parent.parent.mkdir(exist_ok=True)
        part.rename(origin.parent)
    except OSError:
        if not origin.is_dir():  # else another build brought the same
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def home() -> Path:
    """A folder of this process's own."""
    with _LOCK:
        if not _HOMES:
            _HOMES.append(_HELD.enter_context(work_folder()))
    return _HOMES[0]


_LOCK = threading.RLock()
_HELD = ExitStack()
_HOMES: list[Path] = []


# -- jobs ------------------------------------------------------------------------------------------


_BENCHES: dict[str, Bench] = {}


def _forget_idle() -> None:
    """Those of builds that were killed are never told to leave."""
    idle = [name for name, bench in _BENCHES.items() if bench.idle]
    for name in idle[: max(0, len(idle) - _KEPT)]:
        threading.Thread(target=_BENCHES.pop(name).close, daemon=True).start()


def bring(build: str, left: bytes) -> str:
    """Take what a front left on another machine, as a bundle of `KIND/KEY`."""

    def task() -> Outcome:
        _bench(build).bring(bundle.unpack(left, MOST_LEFT))
        return {"outcome": "ready"}

    return json.dumps(outcome_of(task, "what a front left"))


def compile_job(build: str, job: str, brought: str | None = None) -> tuple[str, bytes]:
    """Run a job of a build that has settled here. Returns its outcome, and what it made as a
    bundle of `KIND/KEY`.

    brought: what `bring` returned, where the job was to wait for that. What did not come is made
    here once more.
    """
    made = b""

    def task() -> Outcome:
        nonlocal made
        outcome, made = _bench(build).made(job_from_wire(json.loads(job)))
        return outcome

    outcome = outcome_of(task, "a job")
    return json.dumps(outcome), made


def _bench(build: str) -> Bench:
    bench = _BENCHES.get(build)
    if bench is None:
        raise EngineError("this worker does not know the build")
    return bench


def memory() -> int:
    """Bytes in use now by the compilers of all builds."""
    return sum(bench.memory() for bench in list(_BENCHES.values()))


def leave(build: str) -> None:
    """Forget a build and end what it runs here; at once, and without waiting for that."""
    bench = _BENCHES.pop(build, None)
    if bench is not None:
        threading.Thread(target=bench.close, daemon=True).start()


def end() -> None:
    """Forget all builds, and end what they run."""
    for build in list(_BENCHES):
        bench = _BENCHES.pop(build, None)
        if bench is not None:
            bench.close()


def clear() -> None:
    """Remove this process's folder, at its end."""
    with _LOCK:
        _HELD.close()
        _HOMES.clear()
