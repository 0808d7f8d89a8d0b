"""What a real compiler is called with where upstream calls it itself: to link, or to compile C.

Such a command is passed on as it is, but for what would tell the result where it was made. A
Python that was configured with --enable-shared puts `-Wl,-rpath,PREFIX/lib` on every link line,
and torch's folder gets there too: a wheel is used where those folders are not. Sources: gcc's
manual, "Options for Linking"; ld's manual, "-rpath" and "-R".

Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

# An option of ld that names folders to look in when the library is loaded; ld takes one dash or
# two. -R with a file that exists is another option, but only folders of builds are looked for.
_RPATH = re.compile(r"--?rpath(?:=(?P<value>.*))?|-R(?P<short>.+)?")
_PASSED_ON = "-Wl,"
_PASSED_ON_ALONE = "-Xlinker"


def without_rpaths(arguments: Sequence[str], folders: Sequence[str]) -> list[str]:
    """A command of gcc without run-time search paths into `folders`, or into any below them."""
    kept: list[str] = []
    for group in _groups(arguments):
        words = _words_of_ld(group)
        if words is None:
            kept += group
            continue
        left = list(_kept_words(words, folders))
        if left == words:
            kept += group
        else:
            kept += [word for option in left for word in (_PASSED_ON_ALONE, option)]
    return kept


def _groups(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Single arguments, and neighbours that speak to ld: an option and its value may be apart."""
    group: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == _PASSED_ON_ALONE:
            group += [argument, *_next_of(pending)]
        elif argument.startswith(_PASSED_ON):
            group.append(argument)
        else:
            if group:
                yield group
            group = []
            yield [argument]
    if group:
        yield group


def _next_of(pending: Iterator[str]) -> list[str]:
    return [word for word in [next(pending, None)] if word is not None]


def _words_of_ld(group: Sequence[str]) -> list[str] | None:
    """What ld gets of a group; None where nothing of it goes to ld."""
    if group[0] != _PASSED_ON_ALONE and not group[0].startswith(_PASSED_ON):
        return None
    words: list[str] = []
    pending = iter(group)
    for argument in pending:
        if argument == _PASSED_ON_ALONE:
            words += _next_of(pending)
        else:
            words += argument.removeprefix(_PASSED_ON).split(",")
    return words


def _kept_words(words: Sequence[str], folders: Sequence[str]) -> Iterator[str]:
    pending = iter(words)
    for word in pending:
        found = _RPATH.fullmatch(word)
        if found is None:
            yield word
            continue
        together = found["value"] if found["value"] is not None else found["short"]
        apart = _next_of(pending) if together is None else []
        paths = "".join([together or "", *apart]).split(":")
        left = [path for path in paths if not _is_below(path, folders)]
        if left == paths:
            yield from (word, *apart)
        elif left:
            yield f"-rpath={':'.join(left)}"


def _is_below(path: str, folders: Sequence[str]) -> bool:
    if not os.path.isabs(path):
        return False
    places = {os.path.normpath(path), os.path.realpath(path)}
    return any(
        place == folder or place.startswith(folder.rstrip("/") + "/")
        for place in places
        for folder in folders
    )
