"""A Dask cluster for tests: its scheduler and its workers are processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .conftest import ROOT, Workbench
from .slim import Slim

SOON = 120.0  # seconds, on a machine that does much else


def until(
    there: Callable[[], object], what: str, build: subprocess.Popen[str] | None = None
) -> None:
    """Wait until something is so; not for a build that has ended."""
    end = time.monotonic() + SOON
    while not there():
        if build and build.poll() is not None:
            out, err = build.communicate()
            raise AssertionError(f"the build ended before {what}:\n{out}{err}")
        assert time.monotonic() < end, f"not within {SOON} s: {what}"
        time.sleep(0.1)


def certificates(folder: Path) -> dict[str, str]:
    """An authority and a certificate of its own, made in a new folder; Dask's settings for all that
    have it, as variables."""
    folder.mkdir()
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    for command in (
        f"{made} -subj /CN=authority -keyout ca.key -out ca.pem",
        f"{made} -subj /CN=machine -CA ca.pem -CAkey ca.key -keyout own.key -out own.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    prefix = "DASK_DISTRIBUTED__COMM__TLS"
    found = {f"{prefix}__CA_FILE": str(folder / "ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        found[f"{prefix}__{role}__CERT"] = str(folder / "own.pem")
        found[f"{prefix}__{role}__KEY"] = str(folder / "own.key")
    return found


class Cluster:
    """A scheduler and workers, as processes. host: where the scheduler listens. settings: Dask's,
    as variables, for those who use certificates."""

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", settings: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings or {}
        scheme = "tls" if settings else "tcp"
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        with socket.create_server((host, 0)) as found:
            port = found.getsockname()[1]
        self.address = f"{scheme}://{host}:{port}"
        folder.mkdir()
        quick = {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
        }
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
        self._start(
            "scheduler",
            [*command, "--host", host, "--port", str(port), "--protocol", scheme],
            quick,
        )
        until(lambda: self._answers(host, port), "the scheduler answers")

    def _answers(self, host: str, port: int) -> bool:
        with suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return True
        return False

    def _start(self, name: str, command: Sequence[str], variables: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.started[name] = subprocess.Popen(
                command, env={**os.environ, **self.settings, **variables}, cwd=ROOT,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def worker(
        self, name: str, compiler: str = "", prefix: Sequence[str] = (), jobs: int = 1,
        engine: str = "process", slim: Slim | None = None, tools: Path | None = None,
        **variables: str,
    ) -> Path:  # fmt: skip
        """Start `fatwheel worker` with a cache of its own; its folder. compiler: a script for its
        g++. prefix: of its command, where it runs elsewhere. slim: as for `Workbench`. tools: a
        cache whose toolchains it has, in the place of the user's."""
        folder = Workbench(self.folder / name, slim=slim, tools=tools).cache.parent
        if compiler:
            script = folder / "g++"
            script.write_text(compiler.format(folder=folder))
            script.chmod(0o755)
            variables["CXX"] = str(script)
        variables["FATWHEEL_CACHE"] = str(folder / "cache")
        program = [*prefix, sys.executable, "-m", "fatwheel", "worker", self.address]
        options = ["--unchecked", "--jobs", str(jobs), "--memory", "4GiB", "--name", name]
        options += ["--engine", engine]
        self._start(name, [*program, *options], variables)
        until(lambda: f"worker {name} at" in self.said(name), f"{name} works")
        return folder

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.started[name].pid, number)

    def close(self) -> None:
        for process in self.started.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
