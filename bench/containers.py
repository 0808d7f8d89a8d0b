"""The part of the benchmark that builds in containers beside building in processes.

Targets are those of docs/performance.md.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from fatwheel.containers.client import connect
from fatwheel.containers.imagebuild import ensure_images
from fatwheel.errors import FatwheelError
from fatwheel.events import step
from fatwheel.storage.cache import cache_folder

from .measure import Run
from .parts import Session, Way, median_of, take_turns
from .report import RATIO, SECONDS, Figure, Findings, Measurement
from .workbench import Built, Workbench

PART = "containers"
PROCESS, DOCKER = "process", "docker"  # the engines that are compared
OVERHEAD = 1.10  # the longest wall time, of that in processes
START = 10.0  # seconds from the command to the first compiler, where the images are there
_NOTE = "CPU: without that of the containers"
_IMAGES = ("images, as they were before", "images, all there")


def measure_containers(session: Session) -> Findings:
    """A wheel from nothing with both engines, in turn; before that, the images."""
    images = tuple(_ready(session, what) for what in _IMAGES)
    builds: dict[str, list[Built]] = {way_of(PROCESS): [], way_of(DOCKER): []}
    ways = {way_of(engine): _way(session, engine, builds) for engine in (DOCKER, PROCESS)}
    take_turns(ways, session.rounds, session.emit)
    found = compare(builds[way_of(PROCESS)], builds[way_of(DOCKER)])
    return replace(found, measurements=(*images, *found.measurements))


def way_of(engine: str) -> str:
    """How a build with this engine is called."""
    return f"build --engine {engine}"


def compare(processes: list[Built], containers: list[Built]) -> Findings:
    """What both engines' builds took. Raises FatwheelError where a build compiled nothing."""
    base = median_of(PART, way_of(PROCESS), [built.run for built in processes])
    own = median_of(PART, way_of(DOCKER), [built.run for built in containers])
    return Findings(
        (base, replace(own, note=_NOTE)),
        (
            Figure(PART, f"{own.what}: wall, of {base.what}'s", own.wall / base.wall, RATIO,
                   OVERHEAD),
            Figure(PART, f"{own.what}: until the first compiler starts", _start(containers),
                   SECONDS, START),
            Figure(PART, f"{base.what}: until the first compiler starts", _start(processes),
                   SECONDS),
        ),
    )  # fmt: skip


def _ready(session: Session, what: str) -> Measurement:
    """Have those images made that are not there. Raises what connect and ensure_images raise."""
    target, started = session.target, time.monotonic()
    with step(session.emit, what):
        images = ensure_images(
            connect(), target.toolchain, target.python, target.torch, cache_folder(), session.emit
        )
    wall = time.monotonic() - started
    built = ", ".join(image.kind for image in images if image.built)
    return Measurement(PART, what, wall, 0.0, note=f"built: {built}" if built else "none built")


def _way(session: Session, engine: str, builds: dict[str, list[Built]]) -> Way:
    def build() -> Run:
        bench = Workbench(session.new_folder())
        built = bench.build(session.target, "exact", ["--engine", engine])
        builds[way_of(engine)].append(built)
        return built.run

    return build


def _start(builds: list[Built]) -> float:
    starts = [built.first_compiler for built in builds]
    known = [start for start in starts if start is not None]
    if len(known) < len(starts):
        raise FatwheelError("a build that was to be measured reported no job, so nothing compiled")
    return median(known)
