"""The part of the benchmark that works on a finished wheel: inspect, thin and stitch.

Each is run as a user runs it, in a process of its own, and so is Python's zipfile, which does the
same work on the archive and none on what is in it. Targets are those of docs/performance.md.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fatwheel.errors import FatwheelError
from fatwheel.events import Emit, step
from fatwheel.wheels.zipwriter import LEVEL

from .measure import Run, Sampled, run_child
from .parts import median_of, take_turns
from .report import BYTES, RATIO, Figure, Findings
from .subjects import fetch_subject
from .workbench import CHECKOUT

PART = "wheels"
SUBJECT = "xformers-linux"
MOST_MEMORY = 300_000_000  # bytes above the interpreter
MOST_TIME = 1.5  # of zipfile's
_TAIL = 20  # lines of a failed command's output that are shown


def measure_wheels(folder: Path, rounds: int, emit: Emit) -> Findings:
    """Inspect the subject, thin it, and stitch it again from what it was thinned to."""
    subject = fetch_subject(SUBJECT, emit)
    bench = _Bench(folder)
    inspect = {
        "inspect": lambda: bench.invoke("inspect", subject, "--json"),
        "zipfile: read": lambda: bench.zipfile("read", subject),
    }
    thin = {
        "thin": lambda: bench.thin(subject, "80", "--keep-ptx"),
        "zipfile: the same as thin": lambda: bench.repack(bench.thinned("80"), subject),
    }
    findings = [
        _compare(take_turns(inspect, rounds, emit), None, MOST_MEMORY),
        _compare(take_turns(thin, rounds, emit), MOST_TIME, None),
    ]
    with step(emit, "thin", "the other part, for stitch"):
        bench.thin(subject, "90")
    parts = bench.thinned("80"), bench.thinned("90")
    stitch = {
        "stitch": lambda: bench.stitch(*parts),
        "zipfile: the same as stitch": lambda: bench.repack(bench.stitched(), *parts),
    }
    findings.append(_compare(take_turns(stitch, rounds, emit), MOST_TIME, None))
    return Findings(
        tuple(item for found in findings for item in found.measurements),
        tuple(item for found in findings for item in found.figures),
    )


def _compare(
    runs: Mapping[str, list[Run]], most_time: float | None, most_memory: float | None
) -> Findings:
    """The first way against the second; most_time: of the other's wall time."""
    own, plain = (
        dataclasses.replace(
            median_of(PART, what, some), memory=max(run.sampled.peak for run in some)
        )
        for what, some in runs.items()
    )
    ratio = own.wall / plain.wall
    return Findings(
        (own, plain),
        (
            Figure(PART, f"{own.what}: wall, of zipfile's", ratio, RATIO, most_time),
            Figure(PART, f"{own.what}: memory", own.memory, BYTES, most_memory),
        ),
    )


class _Bench:
    """Runs commands below a folder that does not exist yet."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder

    def thin(self, wheel: Path, arch: str, *options: str) -> Run:
        out = self._folder / f"thin-{arch}"
        return self.invoke("thin", wheel, "--arch", arch, *options, "--out", out)

    def stitch(self, *wheels: Path) -> Run:
        return self.invoke("stitch", *wheels, "--out", self._folder / "stitched")

    def thinned(self, arch: str) -> Path:
        return _only_wheel(self._folder / f"thin-{arch}")

    def stitched(self) -> Path:
        return _only_wheel(self._folder / "stitched")

    def invoke(self, *arguments: str | Path) -> Run:
        return self._run("invoke", arguments)

    def zipfile(self, *arguments: str | Path) -> Run:
        return self._run("bench.plainzip", arguments)

    def repack(self, like: Path, *wheels: Path) -> Run:
        """Unpack wheels, and pack what `like` holds, which lies unpacked beforehand."""
        content, scratch = self._folder / "content" / like.stem, self._folder / "scratch"
        if not content.exists():
            with zipfile.ZipFile(like) as archive:
                archive.extractall(content)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        return self.zipfile("repack", str(LEVEL), content, scratch / "new.whl", *wheels)

    def _run(self, module: str, arguments: tuple[str | Path, ...]) -> Run:
        """Run a module to its end; its `peak` is memory above that of the interpreter."""
        memory = self._folder / "memory"
        words = [module, *map(str, arguments)]
        command = [sys.executable, "-m", "bench.peak", str(memory), *words]
        variables = {**os.environ, "CI": "true"}  # which asks for plain lines
        run = run_child(command, CHECKOUT, variables, self._folder / "log")
        if run.returncode != 0:
            raise FatwheelError(
                f"a command that was to be measured failed (exit code {run.returncode})",
                where=" ".join(words),
                details=run.output.splitlines()[-_TAIL:],
            )
        before, after = map(int, memory.read_text().split())
        return dataclasses.replace(run, sampled=Sampled(after - before))


def _only_wheel(folder: Path) -> Path:
    [wheel] = folder.glob("*.whl")
    return wheel
