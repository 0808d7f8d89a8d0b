"""The `docker run` lines of a plan, held against what the engine gets: the same containers."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers.client import FAILURES, DockerEngine
from fatwheel.containers.commandlines import run_line
from fatwheel.containers.layouts import ContainerSpec, Mount, create_arguments

from .engine import LentEngine

# What an engine counts as equal, and notes as it came.
EQUAL: list[Any] = [None, False, "", [], {}]
# Differs by nature: a container's own name, and what has no meaning with `--network none`.
OWN = {"Hostname", "NetworkDisabled"}


@pytest.fixture
def engine(docker_engine: LentEngine) -> DockerEngine:
    return docker_engine.connect()


@pytest.fixture
def image(docker_engine: LentEngine) -> str:
    return docker_engine.bases["3.11"]


@pytest.fixture
def made(engine: DockerEngine) -> Iterator[list[str]]:
    """Containers to be removed."""
    ids: list[str] = []
    yield ids
    for container in ids:
        with suppress(*FAILURES):
            engine.api.remove_container(container, force=True)


def settings(engine: DockerEngine, container: str) -> dict[str, Any]:
    """What the engine keeps of a container, without what is as good as nothing."""
    found = engine.api.inspect_container(container)
    both = {**found["Config"], **found["HostConfig"]}
    both["Env"] = sorted(both["Env"])
    both["RestartPolicy"] = "no" if both["RestartPolicy"]["Name"] in ("", "no") else "another"
    return {name: value for name, value in both.items() if value not in EQUAL and name not in OWN}


def test_the_line_gives_the_container_that_the_engine_is_asked_for(
    engine: DockerEngine,
    image: str,
    made: list[str],
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    with_comma = tmp_path / "a,b c"
    with_comma.mkdir()
    spec = ContainerSpec(
        purpose="shard 1:compute_80",
        image=image,
        command=("python3", "-c", "import sys; print('it works'); sys.exit()"),
        mounts=(
            Mount(str(with_comma), "/fatwheel/code", writable=False),
            Mount(str(tmp_path), "/fatwheel/incoming", writable=True),
        ),
        cpus=1,
        memory=256 << 20,
        os="linux",
        variables=(("NAME", "with 'marks' and spaces"),),
    )
    body = create_arguments(spec, engine, {"fatwheel": "test"})
    asked: Any = engine.api
    made.append(asked.create_container_from_config(body)["Id"])
    # The same options make a container of `docker create` instead of running it.
    words = shlex.split(run_line(body, "linux"))
    assert words[:2] == ["docker", "run"]
    debians = Path("/usr/bin/docker")  # it fits the tests' engine
    client = str(debians) if debians.exists() else tool("docker")
    created = subprocess.run(
        [client, "create", *words[2:]],
        env={**os.environ, "DOCKER_HOST": engine.endpoint},
        capture_output=True,
        text=True,
    )
    assert created.returncode == 0, created.stderr
    made.append(created.stdout.strip())
    assert settings(engine, made[1]) == settings(engine, made[0])
