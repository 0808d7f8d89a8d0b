"""One run of `invoke bench`: which parts, on what, on which machine."""

from __future__ import annotations

import os
import platform
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import psutil

from fatwheel.config.recipe import Target
from fatwheel.engines.local import Tools, ready_tools
from fatwheel.errors import UsageError
from fatwheel.events import Emit
from fatwheel.machine import cores
from fatwheel.pipeline.plan import mode_of
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.storage.cache import cache_folder

from .containers import measure_containers
from .machine import PART as MACHINE
from .machine import check_place, measure_machine, result_of
from .parts import Session, measure_added_arch, measure_again, measure_builds, measure_memory
from .report import BenchReport, Findings, Machine
from .results import keep
from .units import measure_units
from .wheels import measure_wheels

WHEELS = "wheels"
PARTS = ("builds", "again", "arch", "memory", "units", "containers", MACHINE, WHEELS)
# One backward unit of flash-attn, one split, two forward.
UNITS = (
    "flash_bwd_hdim96_fp16*,flash_fwd_split_hdim32_fp16*,"
    "flash_fwd_hdim64_fp16*,flash_fwd_hdim32_bf16*"
)


@dataclass(frozen=True)
class BenchRequest:
    """What to measure; python None: the default.

    kernel is for the parts that build whole wheels, unit_kernel and units (globs, separated by
    commas) for the part 'units'. archs: of whole wheels. cuda_home, torch_from: an installed CUDA
    and torch in place of the toolchain. find: a folder with pinned files. keep: a file for what
    the part 'machine' found.
    """

    parts: str
    rounds: int
    kernel: str
    unit_kernel: str
    units: str
    toolchain: str
    python: str | None
    archs: str
    cuda_home: Path | None = None
    torch_from: Path | None = None
    find: Path | None = None
    keep: Path | None = None
    front: str = "auto"


def bench(request: BenchRequest, emit: Emit) -> BenchReport:
    """Measure. Raises a FatwheelError; whatever was started is ended however this returns."""
    parts = _chosen(request.parts)
    builds = [part for part in parts if part != WHEELS]
    mode_of(request.front, fast=False)
    if request.keep:
        check_place(request.keep, parts)
    load = os.getloadavg()[0]
    programs = {"Python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    findings: list[Findings] = []
    with _folder() as name:
        if builds:
            target = _target(request, request.kernel)
            unit_target = _target(request, request.unit_kernel)
            tools = ready_tools(target, emit)
            programs |= _programs(target, tools)
            session = Session(target, tools, Path(name), request.rounds, emit)
            findings += _measure_builds(builds, session, request, unit_target)
        if WHEELS in parts:
            findings.append(measure_wheels(Path(name) / WHEELS, request.rounds, emit))
    report = BenchReport(
        machine=_machine(load, programs),
        rounds=request.rounds,
        measurements=tuple(item for found in findings for item in found.measurements),
        figures=tuple(item for found in findings for item in found.figures),
    )
    if request.keep:
        keep(request.keep, result_of(report, target, request.front, date.today()))
    return report


def _measure_builds(
    parts: Sequence[str], session: Session, request: BenchRequest, unit_target: Target
) -> list[Findings]:
    measures: dict[str, Callable[[], Findings]] = {
        "builds": partial(measure_builds, session),
        "again": partial(measure_again, session),
        "arch": partial(measure_added_arch, session),
        "memory": partial(measure_memory, session),
        "units": lambda: measure_units(
            unit_target, session.tools, request.units, session.new_folder(), session.emit
        ),
        "containers": partial(measure_containers, session),
        MACHINE: partial(measure_machine, session, request.find, request.front),
    }
    return [measures[part]() for part in parts]


def _chosen(text: str) -> list[str]:
    """The parts to measure, in the order in which they build on each other."""
    wanted = set(PARTS) if text == "all" else {item.strip() for item in text.split(",")}
    unknown = sorted(wanted - set(PARTS))
    if unknown:
        raise UsageError(
            f"{', '.join(map(repr, unknown))}: no such part of the benchmark",
            where=f"--part {text}",
            hint=f"valid: all, or some of {', '.join(PARTS)}",
        )
    return [part for part in PARTS if part in wanted]


def _target(request: BenchRequest, kernel: str) -> Target:
    if request.cuda_home or request.torch_from:
        asked = ToolchainRequest(cuda_home=request.cuda_home, torch_from=request.torch_from)
    else:
        asked = ToolchainRequest(request.toolchain, request.toolchain, pythons=request.python)
    return resolve(kernel, asked, request.archs)[0]


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder beside those of builds, named like them: what is left of a bench that was killed
    is removed by the next build."""
    parent = cache_folder() / "work"
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(
        prefix=f"{os.getpid()}-", dir=parent, ignore_cleanup_errors=True
    )


def _machine(load: float, programs: Mapping[str, str]) -> Machine:
    return Machine(
        cpu=_cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=cores(),
        memory=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()}",
        load=load,
        programs=programs,
    )


def _programs(target: Target, tools: Tools) -> dict[str, str]:
    return {
        "nvcc": target.toolchain.nvcc,
        "g++": tools.compiler.version,
        "torch": target.torch,
        "Python": target.python,
    }


def _cpu_model(cpuinfo: str) -> str:
    """The processor's name, as /proc/cpuinfo has it."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
