"""The commands of `fatwheel`, which a checkout's tasks.py has too."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.collection import Collection
from invoke.program import Program

from .. import __version__
from .build import build, prove, rebuild
from .machine import cache, doctor, setup
from .toolchains import image, lock, render
from .wheels import compare, inspect, stitch, thin, verify

COMMANDS = (
    build, cache, compare, doctor, image, inspect, lock, prove, rebuild, render, setup, stitch,
    thin, verify,
)  # fmt: skip


def commands() -> Collection:
    """The commands that users have."""
    return Collection(*COMMANDS)


def run(line: Sequence[str]) -> None:
    """Run a command line, whose first word is the program's name."""
    program = Program(
        name="fatwheel",
        binary="fatwheel",
        binary_names=["fatwheel"],
        namespace=commands(),
        version=__version__,
    )
    program.run(help_first(line))


def help_first(line: Sequence[str]) -> list[str]:
    """A command line with a `--help` that follows a command put before it: after a command that
    takes files, invoke would take it for a file."""
    program, *words = line
    asks = [word for word in words if word in ("--help", "-h")]
    names = [word for word in words if not word.startswith("-")]
    return [program, "--help", names[0]] if asks and names else list(line)
