"""Symptoms, the causes that they are signs of, and what cures them.

The verdict is the first cause that there is. Cures are whole lines that can be pasted into the
shell of the system. Names and versions in them come from strangers' files: only what is plainly one
goes into a command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from .environment import CheckedPython

# In the order in which one brings about the next: who cures a later one first has cured nothing.
CAUSES = {
    "python": "another Python or system",
    "installed": "what is installed",
    "torch": "torch",
    "libraries": "libraries",
    "symbols": "symbols",
    "policy": "Windows' policies",
    "driver": "NVIDIA driver",
    "gpu": "code for this GPU",
    "import": "import",
}
NOTE, WARNING, WRONG = "note", "warning", "wrong"
SEVERITIES = (WRONG, WARNING, NOTE)


@dataclass(frozen=True)
class Cure:
    """What to do: a sentence, and the one command for it, or '' where there is none."""

    say: str
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"say": self.say, "command": self.command or None}


@dataclass(frozen=True)
class Symptom:
    """One thing that was seen.

    where: the file that it is about, or ''. names: of libraries, symbols or modules; an error of
    the import that says one of them is about this.
    """

    cause: str
    severity: str
    what: str
    where: str = ""
    details: tuple[str, ...] = ()
    cure: Cure | None = None
    names: tuple[str, ...] = ()

    def as_severe_as(self, severity: str) -> Symptom:
        return replace(self, severity=severity)

    def to_json(self) -> dict[str, Any]:
        return {
            "cause": self.cause,
            "severity": self.severity,
            "what": self.what,
            "where": self.where or None,
            "details": list(self.details),
            "cure": self.cure.to_json() if self.cure else None,
        }


def note(cause: str, what: str, where: str = "", details: Iterable[str] = ()) -> Symptom:
    return Symptom(cause, NOTE, what, where, tuple(details))


def in_order(findings: Iterable[Symptom]) -> tuple[Symptom, ...]:
    """By severity, and then by cause; of one cause as they were found."""
    places = list(CAUSES)
    return tuple(
        sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), places.index(f.cause)))
    )


def decisive(findings: Iterable[Symptom]) -> Symptom | None:
    """The finding that the verdict goes by: the first cause of what is wrong."""
    return next((found for found in in_order(findings) if found.severity == WRONG), None)


# -- commands --------------------------------------------------------------------------------------

_BARE = re.compile(r"[A-Za-z0-9_.:=/\\+@,~-]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+!]{1,80}(?:\.\*)?", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]{1,2000}", re.ASCII)
# Of Visual C++'s redistributable, whichever year's: vcruntime140, msvcp140, vcomp140.
VC_RUNTIME = "winget install --exact --id Microsoft.VCRedist.2015+.x64"


def install(target: CheckedPython, *arguments: str) -> str:
    """`python -m pip install ARGUMENTS`, for the environment that was checked."""
    python = _python(target)
    if target.pip:
        return join(target, (*python, "-m", "pip", "install", *arguments))
    uv = ("uv", "pip", "install", "--python", str(target.executable))
    return join(target, (*uv, *_as_uv_says(arguments)))


def _as_uv_says(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("--reinstall" if word == "--force-reinstall" else word for word in arguments)


def reinstall(target: CheckedPython, name: str, version: str) -> str:
    """The same version once more, without touching what it needs."""
    return install(target, "--force-reinstall", "--no-deps", pinned(name, version))


def pinned(name: str, version: str) -> str:
    """`name==version`; the local part of a version is left out: indexes have other labels."""
    return f"{requirement(name)}=={version.partition('+')[0]}" if is_version(version) else name


def requirement(name: str) -> str:
    return str(canonicalize_name(name))


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None


def is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def join(target: CheckedPython, words: tuple[str, ...]) -> str:
    """A line for sh; on Windows for PowerShell and cmd alike, unless its first word needs quotes:
    such a program PowerShell runs behind `&` alone."""
    if target.system != "Windows":
        return shlex.join(words)
    line = " ".join(word if _BARE.fullmatch(word) else f'"{word}"' for word in words)
    return line if _BARE.fullmatch(words[0]) else f"& {line}"


def _python(target: CheckedPython) -> tuple[str, ...]:
    """`python` where that is the Python that was checked; else its path."""
    found = shutil.which("python")
    if found and _same(Path(found), target.executable):
        return ("python",)
    return (str(target.executable),)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths start the same environment: the file that links lead to is not enough."""
    return os.path.normcase(os.path.abspath(one)) == os.path.normcase(os.path.abspath(other))
