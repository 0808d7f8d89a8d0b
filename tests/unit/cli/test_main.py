"""The installed command: its names, its help, and what it costs to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fatwheel import __version__
from fatwheel.cli.main import COMMANDS, commands, help_first


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fatwheel", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_it_has_a_version() -> None:
    assert run("--version").stdout == f"fatwheel {__version__}\n"


def test_every_command_is_listed() -> None:
    listing = run("--help").stdout
    missing = [name for name in commands().task_names if f"\n  {name} " not in listing]
    assert not missing, listing
    assert len(commands().task_names) == len(COMMANDS)


@pytest.mark.parametrize("line", [("--help", "inspect"), ("inspect", "--help"), ("inspect", "-h")])
def test_help_of_a_command_comes_wherever_it_is_asked_for(line: tuple[str, ...]) -> None:
    done = run(*line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: fatwheel [--core-opts] inspect")


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("fatwheel thin a.whl --help", "fatwheel --help thin"),
        ("fatwheel --help", "fatwheel --help"),
        ("fatwheel -f thin build --arch 80 -h", "fatwheel --help build"),
        ("fatwheel --config=x -e build --help", "fatwheel --help build"),
        ("fatwheel thin a.whl", "fatwheel thin a.whl"),
    ],
)
def test_where_help_is_put(line: str, given: str) -> None:
    assert help_first(line.split(), frozenset({"-f", "--config"})) == given.split()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("cli.main", ("docker", "pydantic", "rich", "cyclonedx", "unearth")),
        ("cli.wheels, fatwheel.pipeline.build", ("docker", "securesystemslib")),
        # Of the standard library, as it starts once for each command of a project's build.
        ("worker.shim", ("socket", "subprocess", "tempfile", "zipfile")),
    ],
    ids=["help", "what signs nothing", "stand-in"],
)
def test_what_takes_long_to_import_is_imported_only_where_it_is_needed(
    module: str, unwanted: tuple[str, ...]
) -> None:
    script = (
        f"import sys, fatwheel.{module}\n"
        f"sys.exit(', '.join(sorted({set(unwanted)} & set(sys.modules))) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"imported though nothing needs it: {done.stderr}"
