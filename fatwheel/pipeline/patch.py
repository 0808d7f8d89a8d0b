"""Applies a recipe's patches to a project's source: unified diffs, as `git diff` and `diff -ur`
write them.

A hunk applies where its context and what it removes stand, line for line: where its header says, or
else at the only other place in the file. Nothing is guessed: there is no fuzz, and what other
programs would pass over is an error. A patch changes plain files within the source, and nothing
else.

Formats: POSIX.1-2017 `diff` ("Diff Unified Output Format"), git-diff ("Generating patch text with
-p").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..config.sourcetree import opened
from ..errors import ConfigError, FormatError
from ..text import clean
from .sdist import FIRST_TIME

MAX_FILE = 64 << 20  # bytes of a file that is patched
_NOWHERE = "/dev/null"
_FORM = "%Y-%m-%d %H:%M:%S %z"
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_MODE = re.compile(rb"(?:new file mode|new mode) (\d{6})")
# The time that `diff -N` gives a file that is not there: the first second of 1970, in any zone.
_TIME = re.compile(rb"\t(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.0+)? ([+-]\d{4})\r?\n?")
# What `diff -r` says of files that it shows no lines of.
_WITHOUT_LINES = re.compile(rb"Binary files .+ and .+ differ\r?\n?|Only in [^:]+: .+\n?")
_PLAIN, _PROGRAM = b"100644", b"100755"
# What a patch may say of a file and this cannot do.
_UNSUPPORTED = (
    (b"rename ", "it renames a file; make it with `git diff --no-renames`"),
    (b"copy ", "it copies a file; make it with `git diff --no-renames`"),
    (b"GIT binary patch", "it changes a binary file"),
    (b"Binary files ", "it changes a binary file"),
)


@dataclass(frozen=True)
class Hunk:
    """start: the first line that it is for, counted from 0. old, new: whole lines with their ends.

    line: of the patch, counted from 1. number: of the hunk in its file's part.
    """

    start: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]
    line: int
    number: int
    header: str


@dataclass
class FilePatch:
    """What happens to one file. is_new, is_gone: where it is made or deleted. mode: b'' to keep."""

    path: PurePosixPath
    is_new: bool = False
    is_gone: bool = False
    mode: bytes = b""
    hunks: list[Hunk] = field(default_factory=list)


def apply_patch(data: bytes, where: str, root: Path) -> None:
    """Change the files below `root`, which nobody else writes to. where: what the patch is called.

    Raises FormatError for a patch that cannot be read, ConfigError, naming file and hunk, for one
    that does not apply. Then some of its files may be changed.
    """
    for change in read_patch_text(data, where):
        _apply(change, where, root)


# -- reading ---------------------------------------------------------------------------------------


def read_patch_text(data: bytes, where: str) -> list[FilePatch]:
    """Raises FormatError, with the line, for what is no unified diff or does more than change
    plain files."""
    changes = list(_Reader(_lines(data), where).changes())
    if not changes:
        raise FormatError("no file is changed in it; is it a unified diff?", where=where)
    return changes


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends."""
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


class _Reader:
    def __init__(self, lines: Sequence[bytes], where: str) -> None:
        self._lines = lines
        self._is_of_diff = not any(line.startswith(b"diff --git ") for line in lines)
        self._where = where
        self._at = 0

    def changes(self) -> Iterator[FilePatch]:
        """Text between the files' parts, such as a mail's, is passed over."""
        headers: list[bytes] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith(b"--- ") and self._peek(1).startswith(b"+++ "):
                yield self._file(headers)
                headers = []
                continue
            if line.startswith(b"diff --git "):
                if headers:
                    yield self._without_hunks(headers)
                headers = [line]
            elif headers:
                headers.append(line)
            elif _HUNK.match(line):
                raise self._trouble("a hunk without a file")
            elif self._is_of_diff and _WITHOUT_LINES.fullmatch(line):
                raise self._trouble("a file differs, and its lines are not here: `diff -urN`")
            self._at += 1
        if headers:
            yield self._without_hunks(headers)

    def _peek(self, ahead: int) -> bytes:
        place = self._at + ahead
        return self._lines[place] if place < len(self._lines) else b""

    def _file(self, headers: Sequence[bytes]) -> FilePatch:
        old, new = (self._name(self._peek(ahead)) for ahead in (0, 1))
        if _NOWHERE not in (old, new) and self._path(old) == self._path(new):
            old, new = (
                _NOWHERE if _is_of_no_file(self._peek(ahead)) else name
                for ahead, name in enumerate((old, new))
            )
        path = self._path(old if new == _NOWHERE else new)
        if _NOWHERE not in (old, new) and self._path(old) != path:
            raise self._trouble(f"it renames {clean(old)}; make it with `git diff --no-renames`")
        change = FilePatch(path, is_new=old == _NOWHERE, is_gone=new == _NOWHERE)
        change.mode = self._mode(headers)
        self._at += 2
        while match := _HUNK.match(self._peek(0)):
            change.hunks.append(self._hunk(match, len(change.hunks) + 1))
        if not change.hunks:
            raise self._trouble("a file without a hunk")
        return change

    def _without_hunks(self, headers: Sequence[bytes]) -> FilePatch:
        """An empty file that is made or deleted, or a mode that changes."""
        mode = self._mode(headers)
        match = re.fullmatch(rb"diff --git (\S+) (\S+)\n?", headers[0])
        if match is None:
            raise self._trouble("a file's name has spaces, and no line --- says it")
        new = any(line.startswith(b"new file mode ") for line in headers)
        gone = any(line.startswith(b"deleted file mode ") for line in headers)
        if not (mode or gone):
            raise self._trouble(f"nothing is said of {clean(match[2].decode(errors='replace'))}")
        name = match[2].decode("utf-8", "replace")
        return FilePatch(self._path(name), is_new=new, is_gone=gone, mode=mode)

    def _mode(self, headers: Sequence[bytes]) -> bytes:
        for line in headers:
            for words, trouble in _UNSUPPORTED:
                if line.startswith(words):
                    raise self._trouble(trouble)
            if match := _MODE.match(line):
                if match[1] not in (_PLAIN, _PROGRAM):
                    raise self._trouble(f"mode {match[1].decode()}: only plain files are patched")
                return match[1]
        return b""

    def _hunk(self, match: re.Match[bytes], number: int) -> Hunk:
        start, old_count, _, new_count = (
            int(one) if one is not None else 1 for one in match.groups()
        )
        header, line = clean(match[0].decode()), self._at + 1
        old: list[bytes] = []
        new: list[bytes] = []
        self._at += 1
        while len(old) < old_count or len(new) < new_count:
            self._take(old, new)
        if self._peek(0).startswith(b"\\"):
            self._take_end(old, new)
        if self._goes_on():
            raise self._trouble(f"{header} has more lines than it says")
        if len(old) > old_count or len(new) > new_count:
            raise self._trouble(f"{header} has other lines than it says")
        # With no line of the old file, it is behind the one that is named.
        first = start - 1 if old_count else start
        return Hunk(max(first, 0), tuple(old), tuple(new), line, number, header)

    def _take(self, old: list[bytes], new: list[bytes]) -> None:
        line = self._peek(0)
        tag, text = line[:1], line[1:]
        if tag == b"\\":
            self._take_end(old, new)
            return
        if line == b"\n":  # of a blank line of context, which some editors shorten
            tag, text = b" ", line
        if tag not in (b" ", b"+", b"-"):
            raise self._trouble("a hunk ends before it has all its lines")
        if tag != b"+":
            old.append(text)
        if tag != b"-":
            new.append(text)
        self._last = tag
        self._at += 1

    def _take_end(self, old: list[bytes], new: list[bytes]) -> None:
        """`\\ No newline at end of file`: the line before it has no end."""
        for lines, tags in ((old, b" -"), (new, b" +")):
            if lines and self._last in tags:
                lines[-1] = lines[-1].removesuffix(b"\n")
        self._at += 1

    def _goes_on(self) -> bool:
        line = self._peek(0)
        is_other = line in (b"-- \n", b"-- ") or line.startswith(b"--- ")
        return line[:1] in (b"+", b"-", b" ") and not is_other

    def _name(self, line: bytes) -> str:
        """Behind `--- ` or `+++ `; diff adds a time behind a tab."""
        name = line[4:].rstrip(b"\r\n").partition(b"\t")[0]
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._trouble("a file's name is not UTF-8") from error

    def _path(self, name: str) -> PurePosixPath:
        """A name without its first part, `a/` or `b/`; FormatError if it is not in the project."""
        if name.startswith('"'):
            raise self._trouble(f"a file's name in quotation marks: {clean(name)[:80]}")
        path = PurePosixPath(*PurePosixPath(name).parts[1:])
        outside = name.startswith("/") or ".." in path.parts or PureWindowsPath(str(path)).drive
        strange = re.search(r"[\\\x00-\x1f\x7f]", name) or ".git" in map(str.lower, path.parts)
        if outside or strange or not path.parts:
            raise self._trouble(f"it would write outside of the project: {clean(name)[:80]}")
        return path

    def _trouble(self, what: str) -> FormatError:
        return FormatError(what, where=f"{self._where}:{min(self._at + 1, len(self._lines))}")


def _is_of_no_file(line: bytes) -> bool:
    found = _TIME.search(line)
    if not found:
        return False
    try:
        return not datetime.strptime(b" ".join(found.groups()).decode(), _FORM).timestamp()
    except ValueError:
        return False


# -- changing files --------------------------------------------------------------------------------


def _apply(change: FilePatch, where: str, root: Path) -> None:
    path = root / change.path
    is_there = _is_there(change, where, root)
    if change.is_new and is_there:
        raise _refused(change, where, "is there already")
    if not change.is_new and not is_there:
        raise _refused(change, where, "is not in the source")
    time = path.stat().st_mtime if is_there else FIRST_TIME
    lines = _lines(_read(path, change, where)) if is_there else []
    for offset, hunk in _placed(change, lines, where):
        lines[offset : offset + len(hunk.old)] = hunk.new
    if change.is_gone:
        if lines:
            raise _refused(change, where, "has more lines than the patch deletes")
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    if change.mode or not is_there:
        path.chmod(0o755 if change.mode == _PROGRAM else 0o644)
    os.utime(path, (time, time))


def _is_there(change: FilePatch, where: str, root: Path) -> bool:
    """Whether a plain file is there, in plain folders."""
    for part in reversed(change.path.parents[:-1]):
        place = root / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise _refused(change, where, f"is below {part}, which is no folder")
    path = root / change.path
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise _refused(change, where, "is no plain file")
    return path.exists()


def _read(path: Path, change: FilePatch, where: str) -> bytes:
    with opened(path) as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise _refused(change, where, f"has more than {MAX_FILE >> 20} MiB")
    return data


def _placed(change: FilePatch, lines: list[bytes], where: str) -> Iterator[tuple[int, Hunk]]:
    """Where in the lines each hunk applies, while those before it are applied."""
    shift = least = 0
    for hunk in change.hunks:
        wanted = hunk.start + shift
        offset = wanted if _fits(hunk, lines, wanted) and wanted >= least else -1
        if offset < 0:
            places = _places(hunk, lines, least)
            if len(places) != 1:
                raise _does_not_apply(change, hunk, lines, wanted, len(places), where)
            offset = places[0]
        yield offset, hunk
        least = offset + len(hunk.new)
        shift = offset - hunk.start + len(hunk.new) - len(hunk.old)


def _fits(hunk: Hunk, lines: Sequence[bytes], place: int) -> bool:
    return place <= len(lines) and tuple(lines[place : place + len(hunk.old)]) == hunk.old


def _places(hunk: Hunk, lines: Sequence[bytes], least: int) -> list[int]:
    if not hunk.old:
        return []
    last = len(lines) - len(hunk.old)
    return [place for place in range(least, last + 1) if _fits(hunk, lines, place)]


def _refused(change: FilePatch, where: str, why: str) -> ConfigError:
    return ConfigError(
        f"the patch does not apply: {clean(str(change.path))} {why}",
        where=where,
        hint="make it again from the source that the recipe pins: `git diff`, or `diff -urN a b`",
    )


def _does_not_apply(
    change: FilePatch, hunk: Hunk, lines: Sequence[bytes], place: int, fitting: int, where: str
) -> ConfigError:
    """With the first line that differs from what is there."""
    total, name = len(change.hunks), clean(str(change.path))
    what = f"the patch does not apply: hunk {hunk.number} of {total} of {name}"
    error = _refused(change, where, "")
    if fitting:
        details = [f"{hunk.header} fits at {fitting} places, and not at its own"]
    else:
        there = lines[place : place + len(hunk.old)]
        pairs = enumerate(zip(hunk.old, [*there, *[b""] * len(hunk.old)], strict=False))
        at, (wanted, found) = next(
            ((n, pair) for n, pair in pairs if pair[0] != pair[1]), (0, (b"", b""))
        )
        details = [
            hunk.header,
            f"line {place + at + 1} should be: {_words(wanted)}",
            f"and is: {_words(found) or 'behind the end of the file'}",
        ]
    return ConfigError(what, where=f"{where}:{hunk.line}", details=details, hint=error.hint)


def _words(line: bytes) -> str:
    return clean(line.decode("utf-8", "replace").rstrip("\r\n"))[:120]
