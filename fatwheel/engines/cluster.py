"""The way to a Dask cluster: its address, whether it answers, a cluster of this machine's own, and
what a worker is started with.

`distributed` is an extra (`fatwheel[dask]`), and is loaded when it is used. Whoever can connect to
a Dask scheduler can run code on its workers and on its clients, so what keeps strangers out is
Dask's own TLS (docs/cluster.md). A cluster of this machine's own has no address at all: its
scheduler and worker live in this process, and only compilers are processes.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import platform
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..config.toolchain import Toolchain
from ..errors import EngineError, StoreError, ToolchainError, UsageError
from ..machine import WINDOWS, in_words, this_platform
from ..storage.cache import VARIABLE as CACHE
from ..storage.cache import cache_folder
from ..storage.files import disk_error
from ..text import clean
from .base import Limits, new_logs
from .daskworker import CORES, MEMORY, clear, count_kill, end, facts, home, lend, memory

if TYPE_CHECKING:
    from distributed import Client, Worker

VARIABLE = "FATWHEEL_SCHEDULER"
PROCESSES, CONTAINERS = WORKERS = "process", "docker"  # in what a worker runs its compilers
_ADDRESS = re.compile(r"(?:(tcp|tls)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_REACH = 5.0  # seconds until a scheduler must have taken a connection
_GREET = 15.0  # seconds until it must have answered
_SPARE_THREADS = 2  # of a worker, for what is no job
_GUARDED = 0.5  # seconds between two looks at a worker's memory
_BIT = 1.1
_LOGS = Path("logs", "workers")  # in the cache: the last ones
_KEPT = 1000  # of them; more workers than may share a cache at a time
_LOGGERS = ("distributed", "tornado", "bokeh", "asyncio")


def check_installed() -> None:
    """Raises ToolchainError where Dask is not here, or cannot be loaded."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolchainError(
            "Dask is not installed",
            where="--engine dask",
            hint="python -m pip install 'fatwheel[dask]'",
        )
    try:
        importlib.import_module("distributed.security").Security()
    except Exception as error:  # of its settings, which it reads then, or of what it needs
        raise ToolchainError(
            "Dask cannot be loaded",
            where="--engine dask",
            details=[clean(line) for line in str(error).splitlines() if line.strip()],
            hint="its settings are in ~/.config/dask, or where DASK_CONFIG says",
        ) from error


def address_of(text: str, option: str) -> str:
    """A scheduler's address as Dask writes it. Raises UsageError."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[3]) < 1 << 16:
        raise UsageError(
            f"{text!r} is not the address of a scheduler",
            where=option,
            hint="valid: tcp://HOST:PORT, or tls://HOST:PORT where it uses certificates",
        )
    return f"{found[1] or 'tcp'}://{found[2]}:{found[3]}"


def reach(address: str) -> None:
    """Raise EngineError unless something listens at a scheduler's address."""
    host, _, port = address.partition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except (OSError, UnicodeError) as error:  # the latter where the name can be no host's
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise EngineError(
            f"there is no scheduler at {address}: {why}",
            hint="start one with `dask scheduler`, or give another address",
        ) from error


def check_certificates(address: str, role: str) -> None:
    """Raise EngineError where Dask's settings have no certificates for an address that needs some.

    role: of this machine: `client` or `worker`.
    """
    from distributed.security import Security

    if not address.startswith("tls://"):
        return
    names = {"ca_file": "ca-file", "cert": f"{role}.cert", "key": f"{role}.key"}
    settings = Security().get_tls_config_for_role(role)
    for name, setting in names.items():
        where = f"distributed.comm.tls.{setting}"
        place = settings[name] or ""
        if not place:
            raise _no_certificate(f"{where} is not set", address)
        if not isinstance(place, str):  # variables may be any literal of Python
            raise _no_certificate(f"{where} names no file: {place!r:.100}", address)
        if "\n" not in place and not os.access(place, os.R_OK):  # else it is the certificate itself
            raise _no_certificate(f"{where}: cannot read {place}", address)
    try:
        Security().get_connection_args(role)
    except (OSError, ValueError) as error:  # ssl's own is an OSError
        raise _no_certificate(" ".join(str(error).split())[:300], address) from error


def _no_certificate(why: str, address: str) -> EngineError:
    return EngineError(
        f"this machine has no certificates with which to go to {address}",
        details=[clean(why)],
        hint="Dask's settings name the files: ~/.config/dask/fatwheel.yaml or variables, see "
        "docs/cluster.md#certificates; a scheduler without certificates is at tcp://",
    )


def greet(address: str, role: str) -> None:
    """Raise EngineError unless a Dask scheduler of this machine's version answers at an address.

    role: as for `check_certificates`. Dask's own client would wait for ever where something takes
    the connection and says nothing.
    """
    reach(address)
    check_certificates(address, role)
    try:
        found = asyncio.run(_versions(address, role))
        theirs = {name: str(found["packages"][name]) for name in ("distributed", "python")}
    except Exception as error:  # of sockets, TLS, messages and versions, each its own
        raise _no_answer(address, error) from error
    ours = {"distributed": version("distributed"), "python": platform.python_version()}
    for name, part in (("distributed", 3), ("python", 2)):
        if theirs[name].split(".")[:part] != ours[name].split(".")[:part]:
            raise EngineError(
                f"the scheduler at {address} runs {name} {clean(theirs[name][:40])}, and this "
                f"machine {ours[name]}",
                hint="Dask needs the same on all machines of a cluster",
            )


async def _versions(address: str, role: str) -> Any:
    from distributed.comm.core import connect
    from distributed.security import Security

    async def ask() -> Any:
        arguments = Security().get_connection_args(role)
        comm = await connect(address, timeout=_GREET, **arguments)
        try:
            await comm.write({"op": "versions", "reply": True, "packages": []})
            return await comm.read()
        finally:
            comm.abort()

    return await asyncio.wait_for(ask(), _GREET)


@contextmanager
def connected(address: str, limits: Limits) -> Iterator[Client]:
    """A client of the scheduler at an address; where that is '', of a cluster of this machine's
    own, whose worker may use `limits`. Raises EngineError."""
    check_installed()
    quiet()
    if not address:
        with _own_cluster(limits) as cluster, _client(cluster, "this machine") as client:
            yield client
        return
    greet(address, "client")
    with _client(address, address) as client:
        yield client


@contextmanager
def _client(cluster: Any, name: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(cluster, timeout=_GREET, set_as_default=False, name="fatwheel")
    except Exception as error:  # as above
        raise _no_answer(name, error) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_REACH)


def _no_answer(address: str, error: BaseException) -> EngineError:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    hint = "is the program there a Dask scheduler, and of this version?"
    if address.startswith("tls://"):
        hint = (
            "both sides need certificates of one authority: Dask finds yours by its settings "
            "distributed.comm.tls (DASK_DISTRIBUTED__COMM__TLS__CA_FILE …); a scheduler without "
            "certificates is at tcp://"
        )
    elif address.startswith("tcp://"):
        hint += " One with certificates is at tls://"
    return EngineError(f"the scheduler at {address} does not answer as one: {words}", hint=hint)


@contextmanager
def _own_cluster(limits: Limits) -> Iterator[Any]:
    """A scheduler and a worker in this process, which nobody else can reach."""
    from distributed import LocalCluster

    here = "127.0.0.1:0"
    cluster = LocalCluster(
        n_workers=1,
        processes=False,
        threads_per_worker=limits.cpus + _SPARE_THREADS,
        resources={CORES: limits.cpus, MEMORY: limits.memory},
        memory_limit=0,
        dashboard_address=here,
        worker_dashboard_address=here,
        local_directory=str(home()),
    )
    try:
        yield cluster
    finally:
        end()
        with suppress(Exception):
            cluster.close(timeout=_REACH)
        clear()


def quiet(log: Path | None = None) -> None:
    """Send what Dask says to a file, or to nobody: this program's own words tell what matters.

    Raises StoreError where there can be no such file.
    """
    import distributed  # which begins by sending it to the terminal

    assert distributed.__name__
    warnings.filterwarnings("ignore", module=r"distributed(\.|$)")
    warnings.filterwarnings("ignore", message="Sending large graph")
    try:
        handler = logging.FileHandler(log, "w", "utf-8") if log else logging.NullHandler()
    except OSError as error:
        raise StoreError(f"cannot write Dask's log: {error.strerror}", where=str(log)) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
    for name in {*names, *_LOGGERS}:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.propagate = name not in _LOGGERS
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)


# -- a worker --------------------------------------------------------------------------------------


def check_worker(engine: str) -> None:
    """Raise UsageError where no worker runs compilers in that way, or none does on this system."""
    here = this_platform()
    if not (here.startswith("linux-") or here == WINDOWS):
        raise UsageError(
            f"workers compile on Linux and Windows, and this machine is {in_words(here)}",
            where="worker",
        )
    if engine not in WORKERS:
        raise UsageError(
            f"{engine!r} is not a valid choice",
            where="--engine",
            hint=f"valid for a worker: {', '.join(WORKERS)}",
        )


def check_toolchain(toolchain: Toolchain, engine: str) -> None:
    """Raise UsageError where no worker compiles with a toolchain in that way."""
    if toolchain.brings_all and engine == CONTAINERS:
        raise UsageError(
            f"toolchain {toolchain.name} is for Windows, for which workers compile in processes",
            where="--engine docker",
            hint="leave --engine out",
        )


def serve(
    address: str, name: str | None, limits: Limits, engine: str, tell: Callable[[str], None]
) -> None:
    """Work for builds that use a scheduler until that goes away (an EngineError), or this process
    is asked to end.

    engine: one of WORKERS. tell: gets a sentence when the worker is there.
    """
    check_installed()
    if engine == CONTAINERS:
        from ..containers.client import connect
        from .dockerplan import within

        limits = within(limits, connect())
    lend(limits, containers=engine == CONTAINERS)
    quiet(_log_of_worker())
    greet(address, "worker")
    facts()  # it is this program from now on
    try:
        with guarded(limits.memory, count_kill):
            asyncio.run(_serve(address, name, limits, tell))
    finally:
        end()
        clear()


def _log_of_worker() -> Path:
    """A new file for what Dask says: workers may share a cache. Raises StoreError."""
    parent = cache_folder() / _LOGS
    try:
        return new_logs(parent, platform.node(), _KEPT) / "worker.log"
    except OSError as error:
        raise disk_error(error, "keep logs", parent, f"{CACHE}=FOLDER") from error


async def _serve(
    address: str, name: str | None, limits: Limits, tell: Callable[[str], None]
) -> None:
    from distributed import Worker

    worker = Worker(
        address,
        name=name,
        nthreads=limits.cpus + _SPARE_THREADS,
        resources={CORES: limits.cpus, MEMORY: limits.memory},
        memory_limit=0,
        local_directory=str(home()),
        dashboard_address="127.0.0.1:0",
        death_timeout=_GREET,
        metrics={"fatwheel": _compilers},
    )
    try:
        await worker
    except Exception as error:
        cause = error.__cause__ or error  # Dask's own words are "Worker failed to start."
        if "name taken" in str(cause):
            raise EngineError(
                f"the scheduler at {address} has a worker {name} already",
                hint="give this one another --name; one that crashed is forgotten after a while",
            ) from error
        raise _no_answer(address, cause) from error
    tell(f"worker {worker.name} at {worker.address}")
    asked = asyncio.Event()
    _tell_of_signals(asked)
    ends = [asyncio.ensure_future(one) for one in (worker.finished(), asked.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not asked.is_set():
        raise EngineError(
            f"the scheduler at {address} went away, or sent this worker away",
            hint="start the worker again when it is back",
        )
    await worker.close(executor_wait=False, reason="asked to end")


def _tell_of_signals(asked: asyncio.Event) -> None:
    """Set an event of the running loop when this process is asked to end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, asked.set)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked.set))


@contextmanager
def guarded(limit: int, count: Callable[[], None]) -> Iterator[None]:
    """In the block, kill the largest compiler whenever all that this process started use more than
    `limit` bytes, and a bit: this is somebody's machine, whatever builds expect of their jobs.
    Containers have a limit of their own. count: is called before each."""
    ended = threading.Event()
    thread = threading.Thread(target=_guard, args=(limit, ended, count), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _guard(limit: int, ended: threading.Event, count: Callable[[], None]) -> None:
    while not ended.wait(_GUARDED):
        sizes = _sizes_below(os.getpid())
        if sum(size for size, _ in sizes) > limit * _BIT:
            with suppress(psutil.Error, OSError):
                count()
                max(sizes, key=lambda one: one[0])[1].kill()


def _sizes_below(pid: int) -> list[tuple[int, psutil.Process]]:
    """The processes that one has started, with the bytes that they use."""
    found = []
    for process in _below(pid):
        with suppress(psutil.Error):
            found.append((process.memory_info().rss, process))
    return found


def _below(pid: int) -> Iterator[psutil.Process]:
    """The processes that one has started, also those of Wine: they have no parent, but are of the
    session of the program by which they were started."""
    children = psutil.Process(pid).children(recursive=True)
    yield from children
    if sys.platform == "win32":
        return
    known = {child.pid for child in children}
    for other in psutil.pids():
        with suppress(psutil.Error, OSError):
            if other not in known and os.getsid(other) in known:
                yield psutil.Process(other)


async def _compilers(worker: Worker) -> dict[str, int]:
    """Bytes that the jobs of a worker use now."""
    return {"memory": await asyncio.to_thread(memory)}
