"""The commands of `fatwheel`, which a checkout's tasks.py has too."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.collection import Collection
from invoke.program import Program

from .. import __version__
from .arguments import flags, reported, words_of
from .build import build, capture, prove, rebuild, recipe
from .machine import cache, check, doctor, setup, worker
from .publish import index, release_notes
from .simulation import simulate
from .toolchains import image, lock, render, toolchains
from .wheels import codesign, compare, inspect, sign, stitch, thin, verify

COMMANDS = (
    build, cache, capture, check, codesign, compare, doctor, image, index, inspect, lock, prove,
    rebuild, recipe, release_notes, render, setup, sign, simulate, stitch, thin, toolchains, verify,
    worker,
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
    valued = frozenset(
        flag
        for argument in program.core_args()
        if argument.takes_value and not argument.optional
        for flag in flags(argument)
    )
    with reported():  # help, too, may go to a disk that is full
        program.run(help_first(line, valued))


def help_first(line: Sequence[str], options: frozenset[str] = frozenset()) -> list[str]:
    """A command line with a `--help` that follows a command put before it: after a command that
    takes files, invoke would take it for a file. options: those that take a value, which is no
    command."""
    program, *words = line
    asks = [word for word in words if word in ("--help", "-h")]
    command = next(words_of(line, {program}, options), None)
    return [program, "--help", command] if asks and command else list(line)
