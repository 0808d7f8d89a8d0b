"""Whether a wheel's modules can be imported where it is installed, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..verify.findings import Finding, note, warning, wrong
from . import trial as trial_script
from .children import Ended, results_of, run_python
from .clean import Clean
from .needs import unmet
from .subject import Subject

_LIMIT = 900.0  # seconds


@dataclass(frozen=True)
class Trial:
    """Modules imported one after another, and perhaps the GPU used once.

    seconds: of each module that could be imported. failed: Python's last words for each other.
    first_use: seconds that the GPU's first use took after that; None where it came to none.
    unfinished: what was being done when the process ended, or ''.
    """

    ended: Ended
    torch: str
    seconds: Mapping[str, float]
    failed: Mapping[str, tuple[str, ...]]
    first_use: float | None
    unfinished: str


def try_modules(
    clean: Clean, modules: Sequence[str], *, gpu: str = "none", mode: str = ""
) -> Trial:
    """Import modules in a process of their own.

    gpu: 'gpu' to use it once, afterwards. mode: CUDA_MODULE_LOADING, or ''.
    """
    results = clean.root / "trial.json"
    results.unlink(missing_ok=True)
    variables = {"CUDA_MODULE_LOADING": mode} if mode else {}
    script = str(Path(trial_script.__file__).resolve())
    ended = run_python(clean, [script, str(results), gpu, *modules], variables, _LIMIT)
    return _read(ended, results_of(results))


def _read(ended: Ended, said: Sequence[Mapping[str, Any]]) -> Trial:
    seconds = {str(one["module"]): float(one["seconds"]) for one in said if "module" in one}
    failed = {str(one["failed"]): tuple(one["lines"]) for one in said if "failed" in one}
    begun = [str(one["start"]) for one in said if "start" in one]
    first_use = next((float(one["first_use"]) for one in said if "first_use" in one), None)
    done = {*seconds, *failed} | ({"the GPU"} if first_use is not None else set())
    return Trial(
        ended=ended,
        torch=next((str(one["torch"]) for one in said if "torch" in one), ""),
        seconds=seconds,
        failed=failed,
        first_use=first_use,
        unfinished=next((name for name in begun if name not in done), ""),
    )


def import_findings(subject: Subject, clean: Clean, trial: Trial) -> Iterator[Finding]:
    """What was tried with what, how long it took, and all that went wrong."""
    torch = f", torch {trial.torch}" if trial.torch else ""
    yield note(f"with Python {clean.version}{torch}: those of {subject.origin}")
    lacking = unmet(subject.requirements, subject.packages)
    if lacking:
        yield warning("what it requires and nothing pins is not installed", details=lacking)
    if not (trial.seconds or trial.failed or trial.unfinished):
        yield warning("there is no module in it to import")
    for name, seconds in trial.seconds.items():
        yield note(f"import {name}: {seconds:.1f} s")
    for name, lines in trial.failed.items():
        yield wrong(f"import {name} fails", details=lines)
    if trial.unfinished:
        doing = trial.unfinished
        what = f"using {doing}" if doing == "the GPU" else f"import {doing}"
        yield wrong(
            f"{what}: Python does not survive it: {trial.ended.how}", details=trial.ended.last
        )
    elif trial.ended.code not in (0, 1):
        what = f"Python does not end well after the import: {trial.ended.how}"
        yield wrong(what, details=trial.ended.last)


def figures_of(trial: Trial) -> list[dict[str, Any]]:
    """For the report: each module and the seconds that its import took; None where it failed."""
    names = (*trial.seconds, *trial.failed)
    return [{"module": name, "seconds": trial.seconds.get(name)} for name in names]
