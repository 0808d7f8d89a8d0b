"""Windows command lines: one text, that each program takes apart for itself.

Rules: Microsoft, "Parsing C command-line arguments". cl, link and nvcc.exe read their response
files by the same ones. A backslash is itself, unless it stands before a quotation mark; so paths
need no care. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Backslashes before a quotation mark, a pair of them inside quotes, a mark, space, anything else.
_PART = re.compile(r'(?P<slashes>\\+)(?=")|(?P<quote>"+)|(?P<space>\s+)|(?P<text>\\+|[^\\"\s]+)')


def split_words(text: str) -> list[str]:
    """The words of a command line, less the program's own name, or of a response file."""
    words: list[str] = []
    word: str | None = None
    quoted = False
    literal = False  # whether a quotation mark that follows is escaped
    for part in _PART.finditer(text):
        found = part[0]
        if part["slashes"]:
            literal = len(found) % 2 == 1
            word = (word or "") + "\\" * (len(found) // 2)
            continue
        if part["quote"]:
            marks = len(found)
            if literal:
                word, marks = (word or "") + '"', marks - 1
            word, quoted = _marks(word or "", quoted, marks)
        elif part["space"] and not quoted:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + found
        literal = False
    return words if word is None else [*words, word]


def _marks(word: str, quoted: bool, marks: int) -> tuple[str, bool]:
    """What a row of quotation marks does: inside quotes, two of them are one of the text."""
    while marks:
        if quoted and marks >= 2:
            word, marks = word + '"', marks - 2
        else:
            quoted, marks = not quoted, marks - 1
    return word, quoted


def join_words(words: Iterable[str]) -> str:
    """The inverse of `split_words`, with quotes that nvcc's options files allow too."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word and not re.search(r'[\s"]', word):
        return word
    # Backslashes before a quotation mark, the closing one too, count twice.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", inside) + '"'
