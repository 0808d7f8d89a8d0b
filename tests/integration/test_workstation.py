"""The doctor on this machine: with a real engine, with none, and setup where all is there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.model import Environment

from ..helpers.preloaded import run_command
from ..helpers.schemas import schema_of
from .engine import LentEngine

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Run a task with --json; its exit code and document, held against its schema."""
    command = [sys.executable, "-m", "invoke", *arguments, "--json"]
    done = run_command(command, ROOT, {**os.environ, **variables})
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    schema = schema_of(arguments[0])
    jsonschema.validate(document, schema)
    return done.returncode, document


def checks(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document["checks"]}


def test_a_real_engine(docker_engine: LentEngine) -> None:
    """What the doctor says of it is what the engine's own client says."""
    said = docker_engine.client().info()
    _, document = run("doctor", "--engine", "docker", **docker_engine.variables)
    found = checks(document)
    assert found["engine"]["status"] == "ok"
    assert said["ServerVersion"].partition("+")[0] in found["engine"]["found"]
    assert found["engine-os"]["status"] == "ok"
    assert found["mounts"]["status"] == "ok"
    assert said["DockerRootDir"] in found["image-disk"]["found"]
    assert found["limits"]["status"] == ("ok" if said["SwapLimit"] else "warning")
    assert "container engine" in found["clock"]["found"], "its clock is this machine's"
    assert found["compiler"]["status"] == "not applicable"


def test_a_real_engine_asked_for_windows_wheels(docker_engine: LentEngine, tmp_path: Path) -> None:
    """It runs no Windows containers, and needs none: Wine is in Linux containers, too."""
    code, document = run(
        "doctor", "--toolchain", "windows-msvc17.8-cuda12.3",
        **docker_engine.variables, PIP_NO_INDEX="1", HTTPS_PROXY="http://127.0.0.1:1",
    )  # fmt: skip
    found = checks(document)
    assert (code, document["engine"]) == (6, "docker")
    assert found["engine-os"]["status"] == "ok"
    assert "linux" in found["engine-os"]["found"].lower()
    assert found["images"]["status"] == "warning", "the image with Wine is not made yet"
    assert found["isolation"]["status"] == "not applicable"


def test_no_engine(tmp_path: Path) -> None:
    code, document = run("doctor", "--engine", "docker", DOCKER_HOST=f"unix://{tmp_path}/x.sock")
    assert code == 6
    found = checks(document)
    assert found["engine"]["status"] == "wrong"
    assert found["engine"]["fixes"][0]["command"] == "sudo systemctl start docker"
    assert found["images"]["status"] == "not applicable"


ODD = [
    ("process", {"PATH": "/nowhere", "HOME": "/nowhere"}),
    ("process", {"PIP_TIMEOUT": "soon", "https_proxy": "http://[::1", "HTTP_PROXY": "nonsense"}),
    ("process", {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:1/x", "PIP_RETRIES": "9"}),
    ("process", {"CXX": "/bin/false", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    ("process", {"FATWHEEL_CACHE": "/proc/nowhere"}),
    ("docker", {"DOCKER_CONFIG": "/dev/null", "FATWHEEL_BASES": "nonsense"}),
    ("docker", {"DOCKER_HOST": "nonsense://"}),
    ("docker", {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1"}),
    ("docker", {"DOCKER_HOST": "", "DOCKER_CONTEXT": "no-such-context"}),
]


@pytest.mark.parametrize(("engine", "variables"), ODD, ids=str)
def test_whatever_the_environment_there_is_a_report(
    engine: str, variables: dict[str, str], tmp_path: Path
) -> None:
    quiet = {"DOCKER_HOST": f"unix://{tmp_path}/x.sock", "PIP_NO_INDEX": "1"}
    code, document = run("doctor", "--engine", engine, **{**quiet, **variables})
    assert code in (0, 6)
    assert document["ok"] is (code == 0)


def test_setup_where_all_is_there(environment: Environment) -> None:
    """The environment that other tests use: nothing is made again."""
    _, document = run("setup", "--engine", "process")
    steps = {step["name"]: step for step in document["steps"]}
    assert {step["status"] for step in steps.values()} == {"there"}
    assert str(environment.root) in steps["environment"]["what"]
