"""The real import, in a process of its own that its Python runs, and what its errors are about."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..text import clean, count, duration
from ..trial.children import SCRIPT, Trial, results_of, run_to_end, trial_of
from ..wheels.name import canonical_project
from . import cures
from .causes import NOTE, WARNING, WRONG, Cure, Finding, note
from .environment import Target
from .subject import Subject

_LINES = 8
# Lines of a traceback that are not an error's own words.
_FRAMES = ("  ", "Traceback (", "During handling", "The above exception")
_LONGEST = 600  # characters of one line
_MOST_MODULES = 40  # of a package's own extension modules
_OF_LOADER = re.compile(
    r"cannot open shared object file|undefined symbol|DLL load failed|version .* not found|ELF"
)
_NO_MODULE = re.compile(r"No module named '([\w.]{1,200})'")
_POLICY = re.compile(r"WinError 4551|Application Control policy", re.IGNORECASE)


@dataclass(frozen=True)
class Imported:
    """How the import went. modules: those that users import; extensions: the package's own."""

    package: str
    trial: Trial
    modules: tuple[str, ...]
    extensions: tuple[str, ...]

    @property
    def main(self) -> str:
        """The module to name to people: that of the package's own name, if there is one."""
        named = (one for one in self.modules if one.replace("_", "-") == self.package)
        return next(named, self.modules[-1] if self.modules else "")

    @property
    def succeeded(self) -> bool:
        """Whether all that users import could be imported."""
        return bool(self.modules) and set(self.modules) <= self.trial.seconds.keys()

    @property
    def loads(self) -> bool:
        """Whether no loader has refused any of its extension modules."""
        said = "\n".join(line for lines in self.trial.failed.values() for line in lines)
        return not self.trial.unfinished and _OF_LOADER.search(said) is None

    def to_json(self) -> dict[str, Any]:
        trial = self.trial
        return {
            "modules": [
                {"name": name, "seconds": round(trial.seconds[name], 3), "error": None}
                for name in trial.seconds
            ]
            + [
                {"name": name, "seconds": None, "error": shown(lines)}
                for name, lines in trial.failed.items()
            ],
            "unfinished": trial.unfinished or None,
            "ended": trial.ended.how,
        }


def import_all(target: Target, subject: Subject, *, torch: bool, limit: float) -> Imported:
    """Import a package's modules as `python -c` in this folder would, torch first where it is used.

    limit: seconds for all.
    """
    extensions = tuple(dict.fromkeys(one.module for one in subject.libraries if one.module))
    extensions = tuple(one for one in extensions if one not in subject.modules)[:_MOST_MODULES]
    first = ("torch",) if torch and "torch" not in subject.modules else ()
    with tempfile.TemporaryDirectory(prefix="fatwheel-check-") as folder:
        results, output = Path(folder, "results"), Path(folder, "output")
        words = [str(results), "none", *first, *subject.modules, *extensions]
        command = [str(target.executable), "-B", "-X", "faulthandler", str(SCRIPT), *words]
        ended = run_to_end(command, Path.cwd(), os.environ, output, limit)
        try:
            trial = trial_of(ended, results_of(results))
        except FormatError:
            trial = trial_of(ended, [])
    name = canonical_project(subject.name)
    return Imported(name, trial, (*first, *subject.modules), extensions)


def import_findings(target: Target, subject: Subject, imported: Imported) -> Iterator[Finding]:
    """What failed, in the loader's own words."""
    trial = imported.trial
    for name in imported.modules:
        if name in trial.seconds:
            took = duration(trial.seconds[name])
            yield note("import", f"`import {name}` works ({took})")
    for name in imported.modules:
        if name in trial.failed:
            text = shown(trial.failed[name]) or ["it does not say why"]
            what = f"`import {name}` fails: {text[-1]}"
            cure = _requirements(target, subject, text)
            yield Finding("import", WRONG, what, details=tuple(text[:-1]), cure=cure)
    inner = {
        name: shown(lines) for name, lines in trial.failed.items() if name not in imported.modules
    }
    if inner:
        what = f"{count(len(inner), 'extension module')} of it cannot be imported alone"
        lines = tuple(f"{name}: {(said or [''])[-1]}" for name, said in inner.items())
        severity = WARNING if any(map(_OF_LOADER.search, lines)) else NOTE
        yield Finding("import", severity, what, details=lines)
    if trial.unfinished:
        doing, ended = trial.unfinished, trial.ended
        slow = ended.code is None
        what = f"`import {doing}` " + ("does not end" if slow else "makes Python crash")
        severity = WRONG if doing in imported.modules else WARNING
        cure = Cure("give it more time: --seconds") if slow else None
        last = tuple(shown(ended.last))
        yield Finding("import", severity, f"{what}: {ended.how}", details=last, cure=cure)


def _requirements(target: Target, subject: Subject, text: list[str]) -> Cure | None:
    """For a module of another package that is not found."""
    found = [match[1] for line in text if (match := _NO_MODULE.search(line))]
    if not found or found[-1].partition(".")[0] in subject.modules:
        return None
    if not (cures.is_name(subject.name) and cures.is_version(subject.version)):
        return None
    say = "install it together with all that it requires"
    return Cure(say, cures.install(target, cures.pinned(subject.name, subject.version)))


def shown(lines: Iterable[str]) -> list[str]:
    """An error's words, bounded, and without what steers a terminal."""
    said = [line for line in lines if not line.startswith(_FRAMES)]
    return [clean(line)[:_LONGEST] for line in said[-_LINES:]]


# -- what an error is about ------------------------------------------------------------------------


def explained(findings: Iterable[Finding], imported: Imported) -> tuple[Finding, ...]:
    """The findings with the severity that the import gives them.

    What an error names is wrong. Where everything could be imported, libraries and symbols that
    are missing are missed by parts that nobody imports. What torch lacks stays wrong: libraries of
    operators are loaded later, and packages may catch that they are not.
    """
    failed = imported.trial.failed
    errors = "\n".join(line for name in imported.modules for line in failed.get(name, ()))
    return tuple(_weighed(found, errors, imported) for found in findings)


def _weighed(found: Finding, errors: str, imported: Imported) -> Finding:
    if found.cause == "import":
        return found
    if any(_names(errors, name) for name in found.names):
        return found.as_severe_as(WRONG)
    if found.severity == NOTE:
        return found
    if found.cause == "policy" and _POLICY.search(errors):
        return found.as_severe_as(WRONG)
    if imported.succeeded and found.cause in ("libraries", "symbols"):
        return found.as_severe_as(NOTE if imported.loads else WARNING)
    if imported.succeeded and found.severity == WRONG and found.cause in ("python", "installed"):
        return found.as_severe_as(WARNING)
    return found


def _names(errors: str, name: str) -> bool:
    """Whether errors name it, and not something that it is a part of."""
    return bool(name) and re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", errors) is not None
