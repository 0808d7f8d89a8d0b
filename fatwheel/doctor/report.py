"""Can this machine build, and what to do if not: `invoke doctor` and `invoke setup`.

The shapes of the results are fixed by `doctor.schema.json` and `setup.schema.json` in `schemas/`.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .. import text
from ..config.pinned import Download, Package
from ..config.toolchain import Toolchain
from ..containers.contexts import contexts_on
from ..containers.render import alone, fetched
from ..engines.base import Engine
from ..engines.registry import ENGINES, engine_for, engine_named
from ..engines.windows import ensure_tools
from ..errors import FatwheelError, ToolchainError
from ..events import Emit, Event, Progress, StepFinished, StepStarted
from ..pipeline.resolve import ToolchainRequest, choose_cells
from ..shipped import default_toolchain
from ..storage.cache import cache_folder, chosen_folder
from ..toolchain.environment import ensure_environment
from ..toolchain.homes import check_accepted
from . import check_engine, checks, machine, network
from . import engine as engines
from .facts import (
    NOT_APPLICABLE,
    OK,
    WARNING,
    WINDOWS,
    WRONG,
    Answer,
    EngineTrouble,
    EngineView,
    Facts,
    Fix,
    IndexFacts,
    Silence,
    Trouble,
    files_for,
    size_of,
)
from .network import Question

T = TypeVar("T")

STATUSES = (WRONG, WARNING, OK, NOT_APPLICABLE)


@dataclass(frozen=True)
class Workstation:
    """A workstation, for one toolchain and engine."""

    host: str
    toolchain: str
    engine: str
    python: str
    findings: tuple[Answer, ...]

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


def diagnose(asked: ToolchainRequest, engine: str | None) -> Workstation:
    """Check this workstation; what is left open is chosen as `invoke build` does.

    Changes nothing. Raises UsageError or ConfigError for a toolchain or an engine that cannot
    be; all else is a finding.
    """
    return report_on(gather(asked, engine))


def report_on(facts: Facts) -> Workstation:
    """Every check, in the order in which they are shown."""
    return Workstation(
        host=facts.host.name,
        toolchain=facts.toolchain.name,
        engine=facts.engine,
        python=facts.python,
        findings=(
            *checks.machine_findings(facts),
            *network.findings(facts),
            *checks.toolchain_findings(facts),
            *check_engine.findings(facts),
        ),
    )


def refusal(report: Workstation) -> ToolchainError:
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


# -- `invoke setup` --------------------------------------------------------------------------------

# Prepares a machine as far as that needs no administrator, and lists what is left. That is what the
# doctor finds afterwards: there is no second list. Everything here may be run again at any time;
# what is there already stays.


DONE, THERE, FAILED, LEFT = "done", "there", "failed", "left"
_SETUP = "invoke setup"
# The checks that must not be wrong before a step is of any use.
_BEFORE_FILES = ("cache", "cache-disk", "pins")
_BEFORE_IMAGES = (*_BEFORE_FILES, "engine", "engine-os", "isolation", "image-disk")
_BEFORE_ENVIRONMENT = (*_BEFORE_FILES, "machine", "compiler", "pythons")


@dataclass(frozen=True)
class SetupStep:
    """Something to prepare, and how that went; seconds that it took.

    status: DONE, THERE (it was there before), FAILED, or LEFT (the checks named in what must be
    put right first).
    """

    name: str
    status: str
    what: str
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "what": self.what,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Preparation:
    """What was done, what the doctor says after it, and the first failure, if there was one."""

    steps: tuple[SetupStep, ...]
    report: Workstation
    failure: FatwheelError | None = None

    def to_json(self) -> dict[str, Any]:
        left = [
            {"check": finding.name, "title": finding.title, "status": finding.status}
            | {"found": finding.found, **fix.to_json()}
            for finding, fix in self.left()
        ]
        return {
            "toolchain": self.report.toolchain,
            "engine": self.report.engine,
            "python": self.report.python,
            "ok": self.report.ok and self.failure is None,
            "steps": [step.to_json() for step in self.steps],
            "left": left,
        }

    def left(self) -> Iterator[tuple[Answer, Fix]]:
        """What remains to be done by hand: first what is wrong, then what is a warning."""
        for status in (WRONG, WARNING):
            for finding in self.report.findings:
                if finding.status == status:
                    yield from (
                        (finding, fix)
                        for fix in finding.fixes
                        if not fix.command.startswith(_SETUP)
                    )


def prepare_workstation(asked: ToolchainRequest, engine: str | None, emit: Emit) -> Preparation:
    """Do what can be done; what is left open is chosen as by `invoke build`.

    Raises UsageError or ConfigError for a toolchain or an engine that cannot be. Any other
    failure ends its step, is kept in the result, and the next step is tried.
    """
    facts = gather(asked, engine)
    work = _Work(facts, report_on(facts), emit)
    work.run()
    report = work.report
    if any(step.status == DONE for step in work.steps):
        report = report_on(gather(asked, facts.engine))
    return Preparation(tuple(work.steps), report, work.failure)


class _Work:
    """One run: the steps so far, and the first failure."""

    def __init__(self, facts: Facts, report: Workstation, emit: Emit) -> None:
        self.facts = facts
        self.report = report
        self.steps: list[SetupStep] = []
        self.failure: FatwheelError | None = None
        self._emit = emit
        self._moved = False  # whether the step that runs had anything to do

    def run(self) -> None:
        self._step("cache folder", ("cache",), self._cache)
        if self.facts.uses_images:
            self._step("files", _BEFORE_FILES, self._files)
            self._step("images", _BEFORE_IMAGES, self._images)
        else:
            self._step("environment", _BEFORE_ENVIRONMENT, self._environment)

    def _step(self, name: str, before: tuple[str, ...], do: Callable[[], str]) -> None:
        """Run one step unless a check that it relies on says that it cannot work."""
        blocking = [
            finding.title
            for finding in self.report.findings
            if finding.name in before and finding.status == WRONG
        ]
        if blocking:
            self.steps.append(SetupStep(name, LEFT, f"first: {', '.join(blocking)}"))
            return
        started = time.monotonic()
        self._moved = False
        self._emit(StepStarted(name))
        try:
            what = do()
            status = DONE if self._moved else THERE
        except FatwheelError as error:
            self.failure = self.failure or error
            what, status = error.what, FAILED
        seconds = time.monotonic() - started
        self._emit(StepFinished(name, seconds, status))
        self.steps.append(SetupStep(name, status, what, seconds))

    def _watch(self, event: Event) -> None:
        """What downloads or installs says that it does so."""
        self._moved = self._moved or isinstance(event, Progress)
        self._emit(event)

    def _cache(self) -> str:
        self._moved = not chosen_folder().is_dir()
        return str(cache_folder())

    def _files(self) -> str:
        """What images are made of; they need not be made now."""
        toolchain, python = self.facts.toolchain, self.facts.python
        if self.facts.images_made:
            return "in the images"
        check_accepted(toolchain.msvc, cache_folder())
        engine = self.facts.container_engine
        os_name = engine.facts.os if isinstance(engine, EngineView) else ""
        torch = toolchain.usual_torch(python)
        contexts = contexts_on(os_name, toolchain, python, torch, {})
        with alone(cache_folder(), self._watch):
            for context in contexts:
                fetched(context, cache_folder(), self._watch)
        return f"{text.size(size_of(files_for(toolchain, python)))} for Python {python}"

    def _images(self) -> str:
        from ..containers.client import connect
        from ..containers.imagebuild import ensure_images

        toolchain, python = self.facts.toolchain, self.facts.python
        torch = toolchain.usual_torch(python)
        images = ensure_images(connect(), toolchain, python, torch, cache_folder(), self._emit)
        self._moved = any(image.built for image in images)
        return ", ".join(f"{image.tag} ({text.size(image.size)})" for image in images)

    def _environment(self) -> str:
        toolchain, python = self.facts.toolchain, self.facts.python
        torch = toolchain.usual_torch(python)
        if toolchain.brings_all:
            check_accepted(toolchain.msvc, cache_folder())
            tools = ensure_tools(toolchain, python, torch, self._watch)
            made = tools.environment(tools.root)
        else:
            made = ensure_environment(toolchain, python, torch, cache_folder(), self._watch)
        return f"Python {made.python_version}, torch {torch}: {made.root}"
