"""What of a system decides the text of a C++ source, and the code that is made of it: the compiler,
and all headers that it finds by itself.

By this the machines of a cluster, and the containers on them, show that they make the same.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from ..provision.tools import run
from .context import digest
from .processes import bare_variables

# In what `g++ -v` says, the folders of headers that every text may use.
_SEARCHED = re.compile(r"^#include <\.\.\.> .*\n((?: .*\n)*)", re.MULTILINE)
# What C++ has of the system: where this text is the same, its headers are the same.
_PROBE = "bits/stdc++.h"


def surroundings_of(compiler: str, cxx: Path, python: str, include: Path) -> dict[str, str]:
    """What there is, each by its name.

    compiler: what the C++ compiler is called, with the digest of what it is made of. python: the
    whole version of the Python that is built for. include: the folder of its headers. Raises
    ToolchainError, OSError.
    """
    return {
        "C++ compiler": compiler,
        "Python": python,
        "headers of Python": headers_below(include),
        "headers of the system": headers_of(cxx),
        "names of the system's headers": digest(names_of_headers(cxx)),
    }


def headers_below(folder: Path) -> str:
    """A digest of all headers below a folder. Raises OSError."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.h")
        if path.is_file()
    }
    return digest("headers", sorted(found.items()))


def headers_of(cxx: Path) -> str:
    """A digest of the system's headers, as C++ sees them. Raises ToolchainError."""
    text = run([str(cxx), "-E", "-x", "c++", "-include", _PROBE, "/dev/null"])
    return digest("headers", text)


def names_of_headers(cxx: Path) -> list[str]:
    """All files that a compiler finds by itself: one that is not there can decide a text, too
    (`__has_include`)."""
    folders = _SEARCHED.search(_search_of(cxx))
    return sorted(
        os.path.join(place, name)
        for folder in (folders[1].splitlines() if folders else ())
        for place, _, files in os.walk(os.path.normpath(folder.strip()))
        for name in files
    )


def _search_of(cxx: Path) -> str:
    """What a compiler says of where it looks for headers."""
    command = [str(cxx), "-E", "-v", "-x", "c++", os.devnull]
    found = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=bare_variables(),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return found.stderr
