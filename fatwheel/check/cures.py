"""Commands that cure: whole lines that can be pasted into the shell of the system.

Names and versions come from strangers' files: only what is plainly one goes into a command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from packaging.utils import canonicalize_name

from .environment import Target

_BARE = re.compile(r"[A-Za-z0-9_.:=/\\+@,~-]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+!]{1,80}(?:\.\*)?", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]{1,2000}", re.ASCII)
# Of Visual C++'s redistributable, whichever year's: vcruntime140, msvcp140, vcomp140.
VC_RUNTIME = "winget install --exact --id Microsoft.VCRedist.2015+.x64"


def install(target: Target, *arguments: str) -> str:
    """`python -m pip install ARGUMENTS`, for the environment that was checked."""
    python = _python(target)
    if target.pip:
        return join(target, (*python, "-m", "pip", "install", *arguments))
    uv = ("uv", "pip", "install", "--python", str(target.executable))
    return join(target, (*uv, *_as_uv_says(arguments)))


def _as_uv_says(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("--reinstall" if word == "--force-reinstall" else word for word in arguments)


def reinstall(target: Target, name: str, version: str) -> str:
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


def join(target: Target, words: tuple[str, ...]) -> str:
    """A line for sh; on Windows for PowerShell and cmd alike, unless its first word needs quotes:
    such a program PowerShell runs behind `&` alone."""
    if target.system != "Windows":
        return shlex.join(words)
    line = " ".join(word if _BARE.fullmatch(word) else f'"{word}"' for word in words)
    return line if _BARE.fullmatch(words[0]) else f"& {line}"


def _python(target: Target) -> tuple[str, ...]:
    """`python` where that is the Python that was checked; else its path."""
    found = shutil.which("python")
    if found and _same(Path(found), target.executable):
        return ("python",)
    return (str(target.executable),)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths start the same environment: the file that links lead to is not enough."""
    return os.path.normcase(os.path.abspath(one)) == os.path.normcase(os.path.abspath(other))
