"""Builds as a user makes them: `invoke build` in a process and a cache of its own.

The cache shares environments, downloads and packages with the user's by links; its store is
empty at first.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fatwheel.config.recipe import Target
from fatwheel.errors import FatwheelError
from fatwheel.storage.cache import VARIABLE, cache_folder

from .measure import Run, run_child

CHECKOUT = Path(__file__).resolve().parents[1]  # where `invoke` finds its commands

_SHARED = ("envs", "downloads", "packages")
_TAIL = 20  # lines of a failed build's output that are shown
# The lines of ui.boards.PlainBoard and of the plan, which names the first few units of a long list.
_JOB = re.compile(r"^\[\d+/\d+\] (.+?)(?: \[([\w,]+)\](?: [a-z]+)?)? \d[^\[\]]*$", re.MULTILINE)
# The end of such a line: how long the job took, in all forms of text.duration, and its memory.
_TOOK = re.compile(
    r"^\[\d+/\d+\] .+? (?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?, [\d.]+ [KMGT]?i?B\n",
    re.MULTILINE,
)
_ARCHLIST = re.compile(
    r"whose code depends on the list of architectures: (.+?)(?: and (\d+) more)?$", re.MULTILINE
)


@dataclass(frozen=True)
class CompiledJob:
    """A compiler call that a build reported, or a stage of one: its unit, and images such as
    `sm_80`; of stages that make no cubin, their front."""

    unit: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A finished build: what it took, and what it reported.

    archlist_units: units that are compiled again because they depend on the list of
    architectures; so do as many more as archlist_more says, which it did not name.
    """

    run: Run
    jobs: tuple[CompiledJob, ...]
    archlist_units: frozenset[str]
    archlist_more: int

    @property
    def first_compiler(self) -> float | None:
        """Seconds from the build's start to that of its first compiler; None without any.

        Exact to a tenth of a second where the first job to end took less than a minute.
        """
        first = _TOOK.search(self.run.output)
        if first is None or self.run.marked is None:
            return None
        hours, minutes, seconds = (float(number or 0) for number in first.groups())
        return self.run.marked - (hours * 3600 + minutes * 60 + seconds)

    @property
    def compiler_calls(self) -> int:
        """The jobs that were reported; or else the CUDA compilers that samples saw."""
        return len(self.jobs) or self.run.sampled.seen


class Workbench:
    """A cache and a folder for wheels, below a folder that does not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache = folder / "cache"
        self._out = folder / "dist"
        self._cache.mkdir(parents=True)
        user = cache_folder()
        for name in _SHARED:
            (user / name).mkdir(exist_ok=True)
            (self._cache / name).symlink_to(user / name)

    def build(
        self, target: Target, front: str, more: Sequence[str] = (), *, sample: bool = False
    ) -> Built:
        """Build a target; more: further options of `invoke build`, which override the target's.

        Raises FatwheelError with the end of its output where the build fails.
        """
        command = [
            sys.executable, "-m", "invoke", "build", "--kernel", str(target.recipe.folder),
            *_tools_of(target), "--arch", ",".join(map(str, target.archs)),
            "--front", front, "--out", str(self._out), *more,
        ]  # fmt: skip
        # CI asks for plain lines.
        variables = {**os.environ, VARIABLE: str(self._cache), "CI": "true"}
        run = run_child(
            command, CHECKOUT, variables, self._folder / "log", sample=sample, mark=_TOOK
        )  # fmt: skip
        if run.returncode != 0:
            raise FatwheelError(
                f"a build that was to be measured failed (exit code {run.returncode})",
                where=" ".join(command[1:]),
                details=run.output.splitlines()[-_TAIL:],
            )
        return read_output(run)

    def forget_wheels(self) -> None:
        """Make the next build assemble again: finished wheels leave the store and the folder."""
        for kind in ("wheel", "built"):
            shutil.rmtree(self._cache / "store" / "refs" / kind, ignore_errors=True)
        shutil.rmtree(self._out, ignore_errors=True)


def _tools_of(target: Target) -> list[str]:
    """The options of `invoke build` for a target's toolchain."""
    installed = target.toolchain.installed
    if installed and installed.environment:
        return [
            "--cuda-home", str(installed.cuda_home),
            "--torch-from", str(installed.environment.python),
        ]  # fmt: skip
    return [
        "--toolchain", target.toolchain.name, "--python", target.python, "--torch", target.torch
    ]  # fmt: skip


def read_output(run: Run) -> Built:
    """What a build's plain lines say."""
    jobs = tuple(
        CompiledJob(match[1], tuple(match[2].split(",")) if match[2] else ())
        for match in _JOB.finditer(run.output)
    )
    again = _ARCHLIST.search(run.output)
    names, more = (again[1].rstrip().split(", "), int(again[2] or 0)) if again else ([], 0)
    return Built(run, jobs, frozenset(names), more)
