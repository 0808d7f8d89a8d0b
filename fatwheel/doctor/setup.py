"""Prepares a machine as far as that needs no administrator, and lists what is left: `invoke
setup`.

What is left is what the doctor finds afterwards: there is no second list. Everything here may be
run again at any time; what is there already stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import text
from ..containers.contexts import contexts_of
from ..containers.render import alone, fetched
from ..engines.windows import ensure_tools
from ..errors import FatwheelError
from ..events import Emit, Event, Progress, StepFinished, StepStarted
from ..pipeline.resolve import ToolchainRequest
from ..storage.cache import cache_folder, chosen_folder
from ..toolchain.environment import ensure_environment
from ..toolchain.msvc import check_accepted
from .facts import WARNING, WRONG, Facts, Finding, Fix, files_for, size_of
from .report import Report, gather, report_on

DONE, THERE, FAILED, LEFT = "done", "there", "failed", "left"
_SETUP = "invoke setup"
# The checks that must not be wrong before a step is of any use.
_BEFORE_FILES = ("cache", "cache-disk", "pins")
_BEFORE_IMAGES = (*_BEFORE_FILES, "engine", "engine-os", "isolation", "image-disk")
_BEFORE_ENVIRONMENT = (*_BEFORE_FILES, "machine", "compiler", "pythons")


@dataclass(frozen=True)
class Step:
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

    steps: tuple[Step, ...]
    report: Report
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

    def left(self) -> Iterator[tuple[Finding, Fix]]:
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

    def __init__(self, facts: Facts, report: Report, emit: Emit) -> None:
        self.facts = facts
        self.report = report
        self.steps: list[Step] = []
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
            self.steps.append(Step(name, LEFT, f"first: {', '.join(blocking)}"))
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
        self.steps.append(Step(name, status, what, seconds))

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
        contexts = contexts_of(toolchain, python, toolchain.usual_torch(python), {})
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
