"""Parses the arguments of tasks, asks for consent, and turns errors into messages and exit
codes.

As for several files: invoke's positional arguments take one value each, and what follows it
is the name of another task to invoke. How many values belong to an argument must be known before
they are read; so it is counted beforehand, on the command line itself.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.parser.argument import Argument
from invoke.tasks import Task

from ..compilers.msvc import split_words
from ..errors import FatwheelError, InterruptedBuildError, StoreError, UsageError
from ..storage.files import OF_THE_DISK
from ..text import parse_size
from .kernelnames import names_shown

if TYPE_CHECKING:
    from ..pipeline.consent import Agree, Stranger
import io
import select


def count_of(option: str, text: str | None) -> int | None:
    """A whole number of at most six digits, from 1 on."""
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) == 0:
        raise UsageError(
            f"{text!r} is not a whole number from 1 to 999999", where=option, hint="valid: 1, 2, 3"
        )
    return int(text)


def size_of(option: str, text: str | None) -> int | None:
    """Bytes, of `48GiB`."""
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


def seconds_of(option: str, text: str | None) -> float | None:
    """Seconds, of `5h30m`, `90m`, `45s` or `5ms`."""
    if text is None:
        return None
    parts = "(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?(?:([0-9]{1,6})ms)?"
    found = re.fullmatch(parts, text)
    hours, minutes, seconds, thousandths = (
        (int(one or 0) for one in found.groups()) if found else [0] * 4
    )
    if not (hours or minutes or seconds or thousandths):
        raise UsageError(f"{text!r} is no time", where=option, hint="valid: 5h30m, 90m, 45s")
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def command_of(option: str, line: str | None) -> list[str]:
    """The words of a command line, as this system splits them. UsageError where there are none."""
    try:
        words = split_words(line or "") if sys.platform == "win32" else shlex.split(line or "")
    except ValueError as error:
        raise UsageError(f"cannot be read as a command: {error}", where=option) from error
    if not words:
        raise UsageError(f"which command? {option} COMMAND")
    return words


def folder_of(option: str, text: str) -> Path:
    """A folder, which need not exist yet."""
    path = Path(text)
    places = (path, *path.parents)
    if not text or any(os.path.exists(place) and not os.path.isdir(place) for place in places):
        raise UsageError(f"{text!r} is not a folder", where=option, hint="valid: dist")
    return path


def file_of(text: str) -> Path:
    """A file, which may turn out not to be there."""
    # invoke takes any word for a task's missing argument, `--help` too.
    if text.startswith("--"):
        raise UsageError(
            f"{text} stands where a file should be",
            hint="name the file first; for help, put it before the command: `invoke --help thin`",
        )
    return Path(text)


def page_of(option: str, text: str, endings: Collection[str]) -> Path:
    """A file that can be written, and may be: there is none yet, or one of fatwheel's own.

    endings: what its name may end with.
    """
    from ..pages import check_place

    path = file_of(text)
    check_place(path, option, endings)
    return path


def files_of(words: Sequence[str]) -> list[Path]:
    """The files that words name, each once. `*`, `?` and `[...]` are for shells that leave them to
    programs, as Windows' does. UsageError where such a pattern matches nothing."""
    paths: dict[Path, None] = {}
    for word in words:
        path = file_of(word)
        if glob.has_magic(word) and not path.exists():
            found = sorted(glob.glob(word))
            if not found:
                raise UsageError("no file matches this pattern", where=word)
            paths.update(dict.fromkeys(map(Path, found)))
        else:
            paths[path] = None
    return list(paths)


class FilesTask(Task[Any]):
    """A task whose positional argument becomes the list of all words that are given to it.

    It is the last task of its command line, since nothing can tell another's name from a file's.
    Use it as `@task(klass=FilesTask, positional=[NAME])`.
    """

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """As invoke's own, but that positional ones take several values."""
        arguments = super().get_arguments(ignore_unknown_help)
        count = _count_given(self, arguments)
        return [
            _Files(argument, count) if argument.positional else argument for argument in arguments
        ]


class OptionalTask(Task[Any]):
    """A task whose one positional argument may be left out; its default is then its value.

    It is the last task of its command line, as a FilesTask is.
    """

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """As invoke's own, but that the positional one is there only where a word is given."""
        arguments = super().get_arguments(ignore_unknown_help)
        given = _count_given(self, arguments) > 0
        return [
            Argument(names=one.names, help=one.help, positional=given) if one.positional else one
            for one in arguments
        ]


def _count_given(task: Task[Any], arguments: Iterable[Argument]) -> int:
    """How many words of this command line are a task's positional arguments."""
    valued = {flag for argument in arguments if argument.takes_value for flag in flags(argument)}
    # Commands are typed with dashes: `release-notes` is the function release_notes.
    names = {name.replace("_", "-") for name in (task.name, *task.aliases)}
    return sum(1 for _ in words_of(sys.argv[1:], names, valued))


def words_of(
    line: Iterable[str], names: Collection[str], options: Collection[str]
) -> Iterator[str]:
    """The words of a command line after the name of a task, without options and their values.

    options are those that take a value; `--option=value` is one word.
    """
    words = iter(line)
    if not any(word in names for word in words):
        return
    for word in words:
        if word == "--":
            return
        if word in options:
            next(words, None)
        elif not word.startswith("-"):
            yield word


class _Files(Argument):
    """Has a value, the list of all that were given, only when these are as many as expected."""

    def __init__(self, single: Argument, expected: int) -> None:
        super().__init__(names=single.names, help=single.help, positional=True)
        self._expected = max(expected, 1)
        self._given: list[str] = []

    @property
    def value(self) -> list[str] | None:
        return self._given if len(self._given) >= self._expected else None

    @value.setter
    def value(self, word: str) -> None:
        self.set_value(word)

    def set_value(self, value: Any, cast: bool = True) -> None:
        self.raw_value = value
        self._given = [*self._given, value]


def flags(argument: Argument) -> tuple[str, ...]:
    return tuple(("-" if len(name) == 1 else "--") + name for name in argument.names)


# -- how a command ends ----------------------------------------------------------------------------

# How a command ends: what went wrong becomes a message and an exit code.


# The help of what composes a toolchain, which every command that uses one has.
CUDA = (
    "compose a toolchain of this CUDA instead, such as 12.8: `invoke toolchains` lists what can be "
    "combined"
)
PLATFORM = (
    "compose a toolchain for linux-x86_64, linux-aarch64 or windows-x86_64 (default: this system)"
)
MSVC = (
    "on Windows, `installed`: use the MSVC and the Windows SDK that Visual Studio has installed, "
    "the newest that the CUDA takes; nobody else can rebuild the wheel (default: the pinned one is "
    "fetched)"
)
REMOTE = (
    "take what other machines compiled from here, and leave here what this one compiles: a folder, "
    "https://HOST/PATH (WebDAV), s3://BUCKET/PATH, gs:// or az:// (default: FATWHEEL_REMOTE)"
)

# The help of --mangled, which every command that shows names of kernels has.
MANGLED = (
    "show kernels' names in full, as compilers write them: _Z5scalePfi, not scale(float*, int)"
)


@contextmanager
def reported(mangled: bool = False) -> Iterator[None]:
    """Turn what can go wrong into a message and an exit code; see fatwheel.errors.

    mangled: show the names of kernels as compilers write them.
    """
    with names_shown(mangled), _ending():
        yield


class _EndedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what a Ctrl-C cleans up, they do too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number  # as shells have it


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Let the signals that ask a process to end raise _EndedBySignal, once.

    Those that it was started to ignore, as by nohup, stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def take(number: int, frame: object) -> None:
        # One that comes while the first is obeyed must not break into that: a terminal that is
        # closed sends SIGHUP twice.
        came.append(number)
        if len(came) == 1:
            raise _EndedBySignal(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, take)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


@contextmanager
def _ending() -> Iterator[None]:
    outlive_readers()
    try:
        with _signals_raised():
            yield
    except FatwheelError as error:
        from .console import show_error

        show_error(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        from .console import show_note

        with suppress(OSError):  # the terminal may be gone
            show_note("interrupted; what was finished is kept")
        code = getattr(interrupt, "exit_code", InterruptedBuildError.exit_code)
        raise SystemExit(code) from None
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        from .console import show_error

        trouble = StoreError(
            f"cannot continue: {error.strerror}",
            where=_place(error),
            hint="check the disks that hold the cache (FATWHEEL_CACHE), --out and TMPDIR",
        )
        show_error(trouble)
        raise SystemExit(trouble.exit_code) from None


def _place(error: OSError) -> str | None:
    """The file's name; a file that is open already may have none, only a number."""
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    return os.fsdecode(error.filename) if named else None


# -- Microsoft's terms -----------------------------------------------------------------------------

LICENSE = "accept Microsoft's terms for MSVC, which toolchains for Windows fetch; once is enough"


def accept_license(accepted: bool) -> None:
    """Remember that the user accepts them, if so."""
    if accepted:
        from ..storage.cache import cache_folder
        from ..toolchain.homes import accept

        accept(cache_folder())


# -- a cluster -------------------------------------------------------------------------------------


def engine_on(scheduler: str | None, engine: str | None) -> str | None:
    """The engine that is asked for; a scheduler asks for Dask, which finds it by a variable."""
    if scheduler is None:
        return engine
    from ..engines.cluster import VARIABLE, address_of

    os.environ[VARIABLE] = address_of(scheduler, "--scheduler")
    if engine not in (None, "dask"):
        raise UsageError(
            "only Dask has a scheduler", where=f"--engine {engine}", hint="use --engine dask"
        )
    return "dask"


# -- consent ---------------------------------------------------------------------------------------

# The one question that is asked: whether the code of a stranger may run.


def consent(yes: bool) -> Agree:
    """Shows what would run, and asks; with `yes` it only shows, and where nobody is there to be
    asked it refuses."""

    from .console import answer_to, err, is_anybody_there, write

    def agree(stranger: Stranger) -> None:
        if not yes and not is_anybody_there():
            from ..pipeline.consent import refuse

            refuse(stranger)
        for line in stranger.lines:
            write(err(), line)
        if not yes and answer_to("Run it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was run: you declined", where=stranger.origin)

    return agree


# -- streams ---------------------------------------------------------------------------------------

# Standard output and error that outlive who reads them (`fatwheel inspect W | head -1`), and the
# disk that they are written to.


class _Outliving(io.FileIO):
    """A stream that drops what is written once nobody reads it any more, and waits for a reader
    who is slow, even where it is set not to. That a disk is full is told once, as OSError, unless
    messages go to that disk themselves."""

    def __init__(self, number: int, messages: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._messages = messages

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not (self._messages or isinstance(error, BrokenPipeError)):
                raise
            return super().write(data) or 0
        return written


def outlive_readers() -> None:
    """Let a command end as it would have, with the exit code that says what it found, although
    nobody reads its results any more."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when the command began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue  # somebody else's, or ours already
        stream.flush()
        raw = _Outliving(stream.fileno(), messages=name == "stderr")
        setattr(
            sys, name,
            io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors,
                line_buffering=stream.line_buffering or stream.write_through,
            ),
        )  # fmt: skip
