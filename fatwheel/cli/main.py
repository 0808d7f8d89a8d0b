"""The command `fatwheel`, and the commands that it shares with a checkout's tasks.py."""

from __future__ import annotations

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


def main() -> None:
    """What the installed script `fatwheel` runs."""
    Program(name="fatwheel", namespace=commands(), version=__version__).run()
