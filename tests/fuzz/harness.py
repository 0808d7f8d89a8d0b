"""`invoke fuzz`: damaged files given to everything that reads files from anywhere.

Worker processes (`worker`) make inputs from sound files (`seeds`, `mutators`) and give them to
`targets`; each is driven by a thread here, which starts it again where an input was its end. Only
errors of `fatwheel.errors` may come out, within the limits that `worker` describes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TextIO

from .seeds import make_seeds
from .worker import Cases, Outcome, Target, Work

ROOT = Path(__file__).parents[2]
CPU, WALL = 2.0, 60.0  # seconds
MEMORY = 256 << 20
TARGETS = "tests.fuzz.targets"
# Beyond this a campaign has shown enough, and ends.
_MOST_PROBLEMS = 500
_SPEAK_EVERY = 10.0  # seconds

Problem = tuple[str, str, str]  # target, kind and place: problems alike in these are one


@dataclass(frozen=True)
class Campaign:
    """What to try. What one input may take: cpu and wall in seconds, memory in bytes."""

    runs: int
    targets: tuple[str, ...]
    seed: int
    jobs: int
    module: str = TARGETS
    cpu: float = CPU
    wall: float = WALL
    memory: int = MEMORY


@dataclass
class Report:
    """What came of it.

    slowest (CPU seconds) and largest (bytes) each with the number of their input. problems: the
    first input of each, with its outcome; times: how often each came. A number is -1 where a
    file was tried.
    """

    seconds: float = 0.0
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    took: Counter[str] = field(default_factory=Counter)  # CPU seconds
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    problems: dict[Problem, tuple[int, Outcome]] = field(default_factory=dict)
    times: Counter[Problem] = field(default_factory=Counter)
    last: Outcome | None = None

    @property
    def inputs(self) -> int:
        return self.tried.total()

    def add(self, number: int, outcome: Outcome) -> None:
        self.tried[outcome.target] += 1
        self.accepted[outcome.target] += outcome.accepted
        self.took[outcome.target] += outcome.seconds  # type: ignore[assignment]
        self.slowest = max(self.slowest, (outcome.seconds, number))
        self.largest = max(self.largest, (outcome.memory, number))
        self.last = outcome
        if outcome.kind:
            problem = (outcome.target, outcome.kind, outcome.place)
            self.times[problem] += 1
            self.problems.setdefault(problem, (number, outcome))


class Run:
    """A campaign that goes on: its report, and the processes to be ended with it."""

    def __init__(self, campaign: Campaign, seeds: Path) -> None:
        self.campaign = campaign
        self.report = Report()
        self._seeds = seeds
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def work(self, first: int) -> Work:
        campaign = self.campaign
        return Work(
            module=campaign.module, targets=campaign.targets, seed=campaign.seed,
            seeds=str(self._seeds), first=first, step=campaign.jobs, runs=campaign.runs,
            cpu=campaign.cpu, wall=campaign.wall, memory=campaign.memory,
        )  # fmt: skip

    def cases(self) -> Cases:
        return Cases(self.work(0), targets_of(self.campaign.module))

    def drive(self, work: Work) -> None:
        """Run workers until all inputs of this work are tried, or the campaign is stopped."""
        while not self._stopped and work.first < work.runs:
            number, code = self._run_worker(work)
            if code == 0 or work.file:
                return
            work = replace(work, first=number + work.step)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()

    def _run_worker(self, work: Work) -> tuple[int, int]:
        """Run one worker to its end; the number of its last input, and its exit code."""
        number, outcome = -1, ""
        with tempfile.TemporaryFile("w+") as errors, self._start(errors) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(asdict(work)))
            process.stdin.close()
            for line in process.stdout:
                number, outcome = int(line), next(process.stdout, "")
                if outcome:
                    self._add(number, Outcome(**json.loads(outcome)))
            process.wait()
            errors.seek(0)
            words = errors.read()
        with self._lock:
            self._processes.discard(process)
        if self._stopped:
            return number, 0
        if number < 0:
            raise RuntimeError(f"a worker of the fuzzer did not start:\n{words}")
        if not outcome:
            target = work.targets[0] if work.file else self.cases().at(number).target
            self._add(number, _death(target, process.returncode, words, work))
        return number, process.returncode

    def _start(self, errors: TextIO) -> subprocess.Popen[str]:
        with self._lock:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
            self._processes.add(process)
            if self._stopped:
                process.kill()
        return process

    def _add(self, number: int, outcome: Outcome) -> None:
        with self._lock:
            self.report.add(number, outcome)
        if self.report.times.total() >= _MOST_PROBLEMS:
            self.stop()


def _death(target: str, code: int, words: str, work: Work) -> Outcome:
    """What is known about an input that ended its worker."""
    kind, said = {
        -signal.SIGVTALRM: ("TooSlow", "it took too long in a call that Python cannot interrupt"),
        -signal.SIGALRM: ("Hangs", "it waited for something that did not come"),
    }.get(code, ("Died", f"the process ended with {code}"))
    return Outcome(target, work.cpu, 0, False, (said,), kind, "", words)


def targets_of(module: str) -> dict[str, Target]:
    found: dict[str, Target] = importlib.import_module(module).TARGETS
    return found


def run_campaign(
    campaign: Campaign, seeds: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Report, dict[Problem, bytes]]:
    """Try all inputs; also the input of each problem. make_seeds filled the folder `seeds`."""
    run = Run(campaign, seeds)
    works = [run.work(first) for first in range(campaign.jobs)]
    report = _drive(run, works, say)
    cases = run.cases()
    return report, {same: cases.at(number).data for same, (number, _) in report.problems.items()}


def run_file(file: Path, campaign: Campaign, seeds: Path) -> Report:
    """Give one file to the campaign's first target."""
    run = Run(campaign, seeds)
    return _drive(run, [replace(run.work(0), file=str(file.resolve()))], lambda line: None)


def _drive(run: Run, works: Sequence[Work], say: Callable[[str], None]) -> Report:
    started = time.monotonic()
    with ThreadPoolExecutor(len(works)) as pool:
        try:
            drivers = [pool.submit(run.drive, work) for work in works]
            spoken = started
            while not all(driver.done() for driver in drivers):
                time.sleep(0.05)
                if time.monotonic() - spoken > _SPEAK_EVERY:
                    spoken = time.monotonic()
                    say(f"{run.report.inputs} inputs, {run.report.times.total()} with problems")
        finally:
            run.stop()
    for driver in drivers:
        driver.result()
    run.report.seconds = time.monotonic() - started
    return run.report


# -- the command line ----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    targets = targets_of(TARGETS)
    options = _parse(arguments, targets)
    chosen = tuple(targets) if options.target == "all" else tuple(options.target.split(","))
    campaign = Campaign(options.runs, chosen, options.seed, options.jobs, TARGETS)
    with tempfile.TemporaryDirectory(prefix="fatwheel-fuzz-") as folder:
        seeds = Path(folder) / "seeds"
        for line in make_seeds(seeds):
            _say(f"left out: {line}")
        if options.replay:
            return _replay(Path(options.replay), options.target, campaign, seeds)
        _say(f"seed {campaign.seed}, {campaign.runs} inputs for {', '.join(chosen)}")
        report, inputs = run_campaign(campaign, seeds, _say)
    _show(report)
    _save(report, inputs, campaign, Path(options.out))
    return 1 if report.problems else 0


def _parse(arguments: Sequence[str] | None, targets: dict[str, Target]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="invoke fuzz")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--target", default="all")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--replay")
    parser.add_argument("--out", default="fuzz-problems")
    options = parser.parse_args(arguments)
    unknown = set(options.target.split(",")) - {"all", *targets}
    if unknown:
        parser.error(f"--target: valid are all, or some of {', '.join(targets)}")
    return options


def _replay(file: Path, target: str, campaign: Campaign, seeds: Path) -> int:
    """Try a file that a campaign saved, whose name begins with its target's, or any other."""
    if target == "all":
        target = file.name.partition("-")[0]
    report = run_file(file, replace(campaign, targets=(target,)), seeds)
    outcome = report.last
    assert outcome
    _say(f"{outcome.kind or 'no problem'} ({outcome.seconds:.2f} s, {outcome.memory >> 20} MiB)")
    for line in (*outcome.said, outcome.trace):
        _say(line)
    return 1 if outcome.kind else 0


def _show(report: Report) -> None:
    rate = report.inputs / report.seconds
    _say(f"{report.inputs} inputs in {report.seconds:.0f} s, {rate:.0f} a second")
    for target, count in sorted(report.tried.items()):
        speed = 1000 * report.took[target] / count
        _say(f"  {target}: {count} inputs, {speed:.1f} ms each, {report.accepted[target]} accepted")
    (seconds, slow), (memory, large) = report.slowest, report.largest
    _say(f"slowest: {seconds:.2f} s of CPU time (input {slow})")
    _say(f"highest rise of memory: {memory / (1 << 20):.0f} MiB (by input {large})")


def _save(report: Report, inputs: dict[Problem, bytes], campaign: Campaign, folder: Path) -> None:
    if not report.problems:
        _say("no problems")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for problem, (number, outcome) in report.problems.items():
        target, kind, place = problem
        file = folder / f"{target}-{campaign.seed}-{number}.bin"
        file.write_bytes(inputs[problem])
        text = f"{kind} at {place}\n{outcome.said[0]}\n\n{outcome.trace}"
        file.with_suffix(".txt").write_text(text, encoding="utf-8")
        _say(f"{report.times[problem]} × {target}: {kind} at {place}: {outcome.said[0]}")
        _say(f"  invoke fuzz --replay {file}")
    _say(f"inputs and tracebacks are in {folder.resolve()}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
