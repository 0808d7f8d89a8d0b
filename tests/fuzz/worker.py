"""A process that gives inputs to targets within limits, and says what came out.

It reads one JSON document, a `Work`, from stdin. To stdout it writes the number of an input before
it tries it, and an `Outcome` as JSON after it, each on a line. Where it dies in between, the
input was its end.

Limits, per input:

- CPU time of the process. A timer interrupts Python code, so that a problem shows where the time
  went; a second one kills calls into libraries, which Python cannot interrupt; and a third kills
  what waits without taking CPU time.
- Memory: RLIMIT_DATA lets the process have only so much more private memory than it had after
  trying all sound seeds, so that asking for more ends in MemoryError, touched or not. Besides, its
  highest resident memory (VmHWM) may not rise by more; that counts mapped files, too.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from fatwheel.errors import FatwheelError

from .mutators import Seed, mutate
from .seeds import read_seeds

_SETTLES_IN = 120.0  # seconds of wall time
_KILL_AFTER = 2  # CPU seconds beyond the limit
_STACK = 512 << 10  # of threads, in bytes: stacks count as memory
_LARGE = 16_384  # bytes from which on a seed is used less often
_LONGEST = 20_000  # characters of a traceback


@dataclass(frozen=True)
class Target:
    """Something that gets untrusted input, made from these kinds of seeds.

    Each step gets the input and ends by itself or in a FatwheelError, or there is a bug.
    weight: how many inputs it gets, compared with other targets.
    """

    kinds: tuple[str, ...]
    steps: tuple[Callable[[bytes], None], ...]
    weight: int = 1


@dataclass(frozen=True)
class Work:
    """What one worker does: inputs first, first + step, … below runs; or one file.

    module names the targets' module; seeds is the folder that `seeds.make_seeds` filled. cpu
    and wall (time waited included) are seconds and memory is bytes: what one input may take.
    """

    module: str
    targets: tuple[str, ...]
    seed: int
    seeds: str
    first: int
    step: int
    runs: int
    cpu: float
    wall: float
    memory: int
    file: str | None = None


@dataclass(frozen=True)
class Case:
    """One input, and the target that gets it."""

    target: str
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """What an input came to; CPU seconds, and how far memory had risen by then in bytes.

    kind: '' if all is well, else the class of the error, with its place and its traceback. said:
    one line per step that refused the input, or what is wrong.
    """

    target: str
    seconds: float
    memory: int
    accepted: bool
    said: tuple[str, ...]
    kind: str = ""
    place: str = ""
    trace: str = ""


class TooSlow(BaseException):
    """The timer ran out. No Exception, so that nothing but the worker catches it."""


class Cases:
    """All inputs of a campaign by number; the same number gives the same input."""

    def __init__(self, work: Work, targets: Mapping[str, Target]) -> None:
        self._seed = work.seed
        corpus = {
            kind: [Seed(name, data) for name, data in files.items()]
            for kind, files in read_seeds(Path(work.seeds)).items()
        }
        found = {
            name: [seed for kind in targets[name].kinds for seed in corpus.get(kind, [])]
            for name in work.targets
        }
        self._seeds = {name: seeds for name, seeds in found.items() if seeds}
        self._weights = [targets[name].weight for name in self._seeds]
        self._others = [seed for seeds in corpus.values() for seed in seeds]

    def at(self, number: int) -> Case:
        source = random.Random(f"{self._seed}/{number}")
        [target] = source.choices(list(self._seeds), self._weights)
        seeds = self._seeds[target]
        [seed] = source.choices(seeds, [min(1, _LARGE / len(seed.data)) for seed in seeds])
        return Case(target, mutate(source, seed, self._others))

    def sound(self) -> Iterator[Case]:
        """Every seed as it is, for every target that gets it."""
        for target, seeds in self._seeds.items():
            yield from (Case(target, seed.data) for seed in seeds)


class Guard:
    """Tries inputs within the limits."""

    def __init__(self, work: Work, targets: Mapping[str, Target]) -> None:
        self._work, self._targets = work, targets
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._floor = self._most = 0

    def settle(self, cases: Cases) -> None:
        """Try the seeds, so that everything is imported, and set the limits from there."""
        signal.setitimer(signal.ITIMER_REAL, _SETTLES_IN)
        for case in cases.sound():
            for step in self._targets[case.target].steps:
                try:
                    step(case.data)
                except Exception:  # such an input is tried soon enough, and then reported
                    continue
        self._floor = self._memory("VmHWM")
        self._most = self._memory("VmData") + self._work.memory
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, _too_slow)

    def attempt(self, case: Case) -> Outcome:
        start = time.process_time()
        error: BaseException | None = None
        refusals: list[str] = []
        try:
            _limit(resource.RLIMIT_DATA, self._most)
            signal.setitimer(signal.ITIMER_REAL, self._work.wall)
            signal.setitimer(signal.ITIMER_VIRTUAL, self._work.cpu + _KILL_AFTER)
            signal.setitimer(signal.ITIMER_PROF, self._work.cpu)
            for step in self._targets[case.target].steps:
                refusals += _refusal(step, case.data)
        except BaseException as caught:
            error = caught
        finally:
            for timer in (signal.ITIMER_PROF, signal.ITIMER_VIRTUAL, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
            _limit(resource.RLIMIT_DATA, resource.RLIM_INFINITY)  # telling takes memory, too
        seconds = time.process_time() - start
        return self._outcome(case, seconds, refusals, error)

    def _outcome(
        self, case: Case, seconds: float, refusals: list[str], error: BaseException | None
    ) -> Outcome:
        memory = self._memory("VmHWM") - self._floor
        steps = len(self._targets[case.target].steps)
        kind, said, place, trace = "", refusals, "", ""
        if error is not None:
            kind, said = type(error).__name__, [str(error)[:500] or "no message"]
            place, trace = _where(error)
        elif seconds > self._work.cpu:
            kind, said = TooSlow.__name__, [f"it took {seconds:.1f} s"]
        elif memory > self._work.memory:
            kind, said = MemoryError.__name__, [f"memory rose by {memory >> 20} MiB"]
        accepted = not error and len(refusals) < steps
        return Outcome(case.target, seconds, memory, accepted, tuple(said), kind, place, trace)

    def _memory(self, name: str) -> int:
        """A line of the process's status, in bytes."""
        text = os.pread(self._status, 4096, 0).decode()
        return int(text.partition(f"{name}:")[2].split(maxsplit=1)[0]) << 10


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.RLIM_INFINITY))


def _refusal(step: Callable[[bytes], None], data: bytes) -> list[str]:
    try:
        step(data)
    except FatwheelError as error:
        return [f"{step.__name__}: {type(error).__name__}: {error}"[:300]]
    return []


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow("it took more CPU time than it may")


def _where(error: BaseException) -> tuple[str, str]:
    """The innermost place of the code under test, and the traceback."""
    here = Path(__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) != here and here.parents[2] in Path(frame.filename).parents
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return place, "".join(traceback.format_exception(error))[-_LONGEST:]


def main() -> int:
    # What targets print would spoil the protocol; so would zipfile's warnings.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    threading.stack_size(_STACK)
    work = Work(**json.loads(sys.stdin.read()))
    targets: dict[str, Target] = importlib.import_module(work.module).TARGETS
    guard, cases = Guard(work, targets), Cases(work, targets)
    guard.settle(cases)
    if work.file:
        case = Case(work.targets[0], Path(work.file).read_bytes())
        _try(guard, case, 0, out)
        return 0
    for number in range(work.first, work.runs, work.step):
        if _try(guard, cases.at(number), number, out).kind == MemoryError.__name__:
            return 1  # what is left of it would count against the next input
    return 0


def _try(guard: Guard, case: Case, number: int, out: TextIO) -> Outcome:
    out.write(f"{number}\n")
    outcome = guard.attempt(case)
    out.write(json.dumps(asdict(outcome)) + "\n")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
