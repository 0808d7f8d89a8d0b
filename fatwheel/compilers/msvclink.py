"""Command lines of Microsoft's linker, as far as a build's capture must know them.

Their grammar is that of "MSVC linker options" (Visual Studio 2022): an option begins with / or -
and knows no case, its value follows a colon; every other word is a file, and `@file` stands for the
words in a file. Standard library only.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .msvc import response_file

# The first option says that link works as lib, dumpbin or editbin does.
_OTHER_TOOLS = ("lib", "dump", "edit")


@dataclass(frozen=True)
class Link:
    """What a command links: the files that it reads, the one that it makes, and the import library
    that it makes besides where that is a library, else None."""

    inputs: tuple[str, ...]
    output: str
    import_library: str | None


def read_link(args: Sequence[str], cwd: str) -> Link | None:
    """Take a command of link apart; None where it does anything else, or cannot be read."""
    try:
        words = list(_words(args, cwd))
    except (OSError, UnicodeError, RecursionError):  # a response file may name itself
        return None
    options: dict[str, str] = {}
    inputs = []
    for word in words:
        if word.startswith(("/", "-")):
            name, _, value = word[1:].partition(":")
            options[name.lower()] = value
        else:
            inputs.append(ntpath.join(cwd, word))
    if not inputs or any(tool in options for tool in _OTHER_TOOLS):
        return None
    library = "dll" in options
    stem = ntpath.splitext(inputs[0])[0]
    output = ntpath.join(cwd, options.get("out") or stem + (".dll" if library else ".exe"))
    named = options.get("implib") or ntpath.splitext(output)[0] + ".lib"
    return Link(tuple(inputs), output, ntpath.join(cwd, named) if library else None)


def _words(args: Sequence[str], cwd: str) -> Iterator[str]:
    for arg in args:
        if arg.startswith("@"):
            yield from _words(response_file(ntpath.join(cwd, arg[1:])), cwd)
        else:
            yield arg
