"""Runs all checks of a machine and summarizes them: `invoke doctor`.

The result's shape is fixed by `schemas/doctor.schema.json`.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..config.model import Download, Package, Toolchain
from ..engines.base import Engine
from ..engines.registry import ENGINES, engine_for, engine_named
from ..errors import ToolchainError
from ..pipeline.resolve import ToolchainRequest, choose_cells
from ..shipped import default_toolchain
from . import check_engine, check_machine, check_toolchain, machine, network
from . import engine as engines
from .facts import (
    NOT_APPLICABLE,
    OK,
    WARNING,
    WINDOWS,
    WRONG,
    EngineTrouble,
    EngineView,
    Facts,
    Finding,
    IndexFacts,
    Silence,
    Trouble,
    files_for,
)
from .network import Question

T = TypeVar("T")

STATUSES = (WRONG, WARNING, OK, NOT_APPLICABLE)


@dataclass(frozen=True)
class Report:
    """A workstation, for one toolchain and engine."""

    host: str
    toolchain: str
    engine: str
    python: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings may be there."""
        return all(finding.status != WRONG for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "toolchain": self.toolchain,
            "engine": self.engine,
            "python": self.python,
            "ok": self.ok,
            "summary": {
                status: sum(finding.status == status for finding in self.findings)
                for status in STATUSES
            },
            "checks": [finding.to_json() for finding in self.findings],
        }


def diagnose(asked: ToolchainRequest, engine: str | None) -> Report:
    """Check this workstation; what is left open is chosen as `invoke build` does.

    Changes nothing. Raises UsageError or ConfigError for a toolchain or an engine that cannot
    be; all else is a finding.
    """
    return report_on(gather(asked, engine))


def report_on(facts: Facts) -> Report:
    """Every check, in the order in which they are shown."""
    return Report(
        host=facts.host.name,
        toolchain=facts.toolchain.name,
        engine=facts.engine,
        python=facts.python,
        findings=(
            *check_machine.machine_findings(facts),
            *network.findings(facts),
            *check_toolchain.toolchain_findings(facts),
            *check_engine.findings(facts),
        ),
    )


def refusal(report: Report) -> ToolchainError:
    """What to end with where something is wrong, whatever it is; the report tells the rest."""
    wrong = [finding.title for finding in report.findings if finding.status == WRONG]
    return ToolchainError(
        f"{report.toolchain} cannot be used here yet: {', '.join(wrong)}",
        hint="see above for what to do; `invoke setup` does what needs no administrator",
    )


# -- all facts -------------------------------------------------------------------------------------

# They are gathered at once, and none is waited for longer than its time.


# Seconds that an answer may take.
_LOCAL, _PROGRAMS, _ENGINE, _NETWORK = 10.0, 20.0, 15.0, 30.0


def gather(asked: ToolchainRequest, engine: str | None) -> Facts:
    """All facts for a toolchain and an engine; what is left open is chosen as by `invoke build`.

    Raises UsageError or ConfigError for a toolchain or an engine that cannot be. Nothing else
    is an error here: it is a fact.
    """
    question = Question(engines.ask_engine, _ENGINE)
    if asked.toolchain is None:
        asked = replace(asked, default=_default_toolchain(engine, question))
    toolchain = choose_cells(asked)[0].toolchain
    return _gather(toolchain, engine_for(toolchain, engine), question)


def _default_toolchain(engine: str | None, asked: Question[EngineView | EngineTrouble]) -> str:
    """As `toolchain_for`, but that no engine is waited for longer than its time."""
    system = platform.system().lower()
    in_images = engine in ENGINES and engine_named(engine).uses_images
    answer = asked.answer() if in_images else None
    if isinstance(answer, EngineView):
        system = answer.facts.os
    return default_toolchain(system)


def python_for(toolchain: Toolchain) -> str:
    """The default Python of a build: the running one, or else the newest."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    return toolchain.usual_python(running)


def _gather(
    toolchain: Toolchain,
    engine: Engine,
    asked: Question[EngineView | EngineTrouble],
) -> Facts:
    python = python_for(toolchain)
    name, in_images = engine.name, engine.uses_images
    on_windows = platform.system() == WINDOWS
    cache = Question(machine.ask_cache, _LOCAL)
    stock = Question(lambda: machine.ask_stock(toolchain, python, name), _LOCAL)
    windows = Question(machine.ask_windows, _LOCAL) if on_windows else None
    proxies = Question(network.ask_proxies, _PROGRAMS)
    index = Question(lambda: _ask_index(toolchain, python), _NETWORK)
    brings_all = in_images or toolchain.brings_all
    of_machine = not brings_all or toolchain.of_a_machine
    compiler = Question(lambda: machine.ask_compiler(toolchain), _PROGRAMS) if of_machine else None
    pythons = None if brings_all else Question(lambda: machine.ask_pythons(toolchain), _PROGRAMS)
    gpus = Question(machine.ask_gpu, _LOCAL)
    places = network.ask_places(_missing(toolchain, python, name))
    view = asked.answer() if in_images else None
    seen = view if isinstance(view, EngineView) else None
    return Facts(
        toolchain=toolchain,
        engine=name,
        python=python,
        host=machine.ask_host(),
        windows=windows.answer() if windows else None,
        cache=cache.answer(),
        stock=stock.answer(),
        loads=machine.ask_loads(),
        container_engine=view,
        daemon_file=engines.daemon_file(seen) if seen else "",
        images=_soon(lambda: engines.ask_images(toolchain, python, seen)) if seen else None,
        proxies=proxies.answer(),
        index=index.answer(),
        places=network.places_of(places),
        compiler=compiler.answer() if compiler else None,
        pythons=pythons.answer() if pythons else None,
        gpu=gpus.answer(),
        own_bases=engines.own_bases(),
    )


def _missing(toolchain: Toolchain, python: str, engine: str) -> tuple[Package | Download, ...]:
    """Files to ask other hosts for; none where the cache's disk does not answer."""
    missing = _soon(lambda: machine.missing_files(toolchain, python, engine))
    return () if isinstance(missing, Silence) else missing


def _ask_index(toolchain: Toolchain, python: str) -> IndexFacts | Trouble:
    """Look for the smallest file that comes from an index: its listing is likely small, too."""
    files = files_for(toolchain, python)
    packages = [file for file in files if isinstance(file, Package) and not file.url]
    if not packages:
        return IndexFacts("", (), 0.0, None)
    return network.ask_index(min(packages, key=lambda package: package.size))


def _soon(ask: Callable[[], T]) -> T | Silence:
    return Question(ask, _LOCAL).answer()
