"""A real Docker Engine for tests, with base images that were made here.

It is the one that DOCKER_HOST and FATWHEEL_BASES name, where both are set, or that
scripts/start-test-engine starts: one for all runs of pytest on this machine. The last one to use
it ends it, if a run of pytest started it.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from fatwheel.containers.client import DockerEngine, connect

from ..conftest import missing

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "scripts" / "start-test-engine"
STOP = ROOT / "scripts" / "stop-test-engine"
RUN = Path("/run/fatwheel-test-engine")
PID = RUN / "dockerd.pid"
OURS = RUN / "started-by-tests"  # the process id of an engine that a run of pytest started
PATIENCE = 900  # seconds: a slow mirror, the first time


@dataclass(frozen=True)
class LentEngine:
    """An engine that tests may use.

    host: as DOCKER_HOST names it. bases: for a Python ('3.11'), the image that brings it.
    """

    host: str
    bases: dict[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """What a program needs to use it, to be added to the environment."""
        bases = ",".join(f"{python}={image}" for python, image in self.bases.items())
        return {"DOCKER_HOST": self.host, "FATWHEEL_BASES": bases}

    def connect(self) -> DockerEngine:
        """Find it as fatwheel does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.host)
            return connect()

    def build(self, name: str, context: bytes) -> str:
        """An image of a context, as a tar; its tag."""
        tag = f"fatwheel-test/{name}:latest"
        client: Any = self.client()
        answers = list(
            client.build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, decode=True, rm=True
            )
        )
        assert not any("error" in answer for answer in answers), answers
        return tag

    def client(self) -> docker.APIClient:
        """The SDK's own client: what tests look at the engine with."""
        return docker.APIClient(self.host, version="auto")


@pytest.fixture(scope="session")
def docker_engine(tool: Callable[[str], str]) -> Iterator[LentEngine]:
    """An engine with a base image for each of two Pythons."""
    named = (os.environ.get("DOCKER_HOST"), os.environ.get("FATWHEEL_BASES"))
    if all(named):
        yield _lent(*named)
        return
    tool("dockerd")
    tool("mmdebstrap")
    if os.geteuid():
        missing("a Docker Engine of the tests' own needs root")
    with _used():
        running = _runs()
        done = subprocess.run(
            [START], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if not running and PID.exists():
            OURS.write_text(PID.read_text())
        if done.returncode != 0:
            missing(f"scripts/start-test-engine failed:\n{done.stderr}")
        found = dict(re.findall(r"^export (\w+)=(.*)$", done.stdout, re.MULTILINE))
        yield _lent(found["DOCKER_HOST"], found["FATWHEEL_BASES"])


def _lent(host: str | None, bases: str | None) -> LentEngine:
    pairs = (pair.partition("=") for pair in str(bases).split(","))
    return LentEngine(str(host), {python: image for python, _, image in pairs})


@contextmanager
def _used() -> Iterator[None]:
    """Keep the engine from being ended by another run or worker of pytest; end it afterwards if one
    of them started it, and nobody else uses it."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                if _runs() and OURS.exists() and OURS.read_text() == PID.read_text():
                    subprocess.run([STOP], check=True, timeout=PATIENCE)


def _runs() -> bool:
    return PID.exists() and Path("/proc", PID.read_text().strip()).exists()
