"""A plan, held against the build that it is the plan of, in real containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.cache import cache_folder
from fatwheel.engines.logs import log_name

from ..conftest import ROOT
from .engine import LentEngine

pytestmark = pytest.mark.slow

BUILD = (
    "build",
    "--kernel",
    "selftest",
    "--arch",
    "80,89",
    "--engine",
    "docker",
    "--python",
    "3.11",
)

Invoke = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with an empty store, which shares the files of images with the user's own."""
    files = cache_folder() / "image-files"
    files.mkdir(exist_ok=True)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "image-files").symlink_to(files)
    return cache


@pytest.fixture
def invoke(docker_engine: LentEngine, cache: Path) -> Invoke:
    """Runs a task; what it prints as its result."""
    variables = {**os.environ, **docker_engine.variables, "FATWHEEL_CACHE": str(cache)}

    def run(*arguments: str, **changes: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *arguments],
            cwd=ROOT, env={**variables, **changes}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_build_in_containers_goes_as_planned(invoke: Invoke, cache: Path, tmp_path: Path) -> None:
    # No engine answers there, and none has to.
    nowhere = "tcp://127.0.0.1:1"
    plan: dict[str, Any] = json.loads(invoke(*BUILD, "--plan", "--json", DOCKER_HOST=nowhere))
    assert not (cache / "logs").exists()
    invoke(*BUILD, "--out", str(tmp_path / "dist"))
    assert [wheel["file"] for wheel in plan["wheels"]] == os.listdir(tmp_path / "dist")
    [logs] = [folder for folder in (cache / "logs").iterdir() if folder.name != "images"]
    planned = {log_name(group["purpose"]) for group in plan["containers"]}
    assert planned == {path.name for path in logs.iterdir()}, "a log for each planned container"
