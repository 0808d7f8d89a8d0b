"""The installed command: its names, its help, and what it costs to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fatwheel import __version__
from fatwheel.cli.main import COMMANDS, commands, help_first


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fatwheel", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


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


def test_help_loads_neither_docker_nor_pydantic_nor_rich() -> None:
    script = (
        "import sys, fatwheel.cli.main\n"
        "found = {'docker', 'pydantic', 'rich', 'cyclonedx', 'unearth'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(found)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"imported to print help: {done.stderr}"
