"""A lock that says more than a lock can: the commands that read locks refuse it before all else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import FormatError
from fatwheel.provenance.lock import BuildLock, lock_bytes

from ..helpers.preloaded import run_command
from ..helpers.somelocks import LINUX, WINDOWS, some_lock
from ..helpers.statedwheels import LOCK, demo_files, state_again, write
from .conftest import ROOT

ADDS = "\nADD http://nowhere.invalid/x /"


def _version(lock: dict[str, Any]) -> str:
    lock["toolchain"]["interpreters"][0]["download"]["version"] = f"3.11.9{ADDS}"
    return "toolchain.interpreters.0.download.version"


def _base(lock: dict[str, Any]) -> str:
    lock["toolchain"]["containers"]["bases"][0]["reference"] = f"python:3.11{ADDS}"
    return "toolchain.containers.bases.0.reference"


def _requirement(lock: dict[str, Any]) -> str:
    lock["toolchain"]["packages"][0]["version"] = "1.0\n--index-url https://nowhere.invalid/"
    return "toolchain.packages.0.version"


def _variable(lock: dict[str, Any]) -> str:
    lock["recipe"]["environment"] = {"LD_PRELOAD": "/tmp/x.so"}
    return "recipe.environment.LD_PRELOAD"


def _archs(lock: dict[str, Any]) -> str:
    lock["toolchain"]["archs"] = ["80"] * 10**6
    return "bytes; "


HOSTILE: dict[str, tuple[BuildLock, Callable[[dict[str, Any]], str]]] = {
    "a version with an instruction": (some_lock(WINDOWS), _version),
    "a base with an instruction": (some_lock(LINUX), _base),
    "a version with an option of pip": (some_lock(LINUX), _requirement),
    "a variable of the loader": (some_lock(LINUX), _variable),
    "a million archs": (some_lock(LINUX), _archs),
}


@pytest.mark.parametrize("command", ["rebuild", "build", "verify"])
@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_before_anything(name: str, command: str, tmp_path: Path) -> None:
    lock, change = HOSTILE[name]
    content = json.loads(lock_bytes(lock))
    place = change(content)
    files = demo_files()
    files[LOCK] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    state_again(files)
    wheel = write(tmp_path, files)
    words = [command, str(wheel)]
    if command == "build":
        beside = tmp_path / "lock.json"
        beside.write_bytes(files[LOCK])
        words = [command, "--kernel", "selftest", "--locked", str(beside)]
    cache = tmp_path / "cache"
    variables = {**os.environ, "FATWHEEL_CACHE": str(cache), "COLUMNS": "400"}
    done = run_command([sys.executable, "-m", "invoke", *words], ROOT, variables)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode == (FormatError.exit_code if command != "verify" else done.returncode)
    assert done.returncode != 0
    assert place in said, said
    assert not list(cache.rglob("*.whl")), "something was fetched"
    assert not (cache / "work").exists() or not list((cache / "work").iterdir())
