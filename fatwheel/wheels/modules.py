"""The modules that a wheel brings, by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# What `import` makes of a file's name: `x.py`, `x.so`, `x.abi3.so`, `x.cpython-….so`; on Windows
# `x.pyd`, `x.cp311-win_amd64.pyd`.
_MODULE = re.compile(
    r"([^\W\d]\w*)\.(?:py|so|abi3\.so|cpython-[\w-]+\.so|pyd|(?:cp|pp)[0-9]+\w*-\w+\.pyd)"
)
# Folders that projects ship by mistake; importing one would want their tests' own tools.
_NO_MODULES = ("test", "tests", "benchmark", "benchmarks", "docs", "example", "examples")


def top_modules(files: Collection[str], listed: str = "") -> tuple[str, ...]:
    """A wheel's own modules: packages first, then single files, each in alphabetical order.

    files: all names in the wheel. listed: its top_level.txt, or ''; where that names some of
    the modules that are there, it decides.
    """
    packages = sorted(set(_packages(files)))
    singles = sorted({match[1] for match in map(_MODULE.fullmatch, files) if match} - {*packages})
    found = [name for name in (*packages, *singles) if name not in _NO_MODULES]
    chosen = [name for name in found if name in listed.split()]
    return tuple(chosen or found)


def _packages(files: Collection[str]) -> Iterator[str]:
    for name in files:
        folder, slash, rest = name.partition("/")
        if slash and rest == "__init__.py" and folder.isidentifier():
            yield folder
