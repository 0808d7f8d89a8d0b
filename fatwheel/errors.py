"""Every way fatwheel can fail, one class each, with its exit code.

A message says what is wrong, where, and what would be valid. `cli` turns any of these into
one readable block on stderr and the class's exit code; anything else that escapes is a bug.

Standard library only: this module is imported inside build containers.
"""

from __future__ import annotations

from collections.abc import Sequence


class FatwheelError(Exception):
    """Base of all expected failures.

    what:    one sentence, the mistake itself.
    where:   the file, line, unit or option it was found in.
    hint:    what would be valid, or what to do next.
    details: further lines (a compiler's output, a list of mismatches), shown as they are.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.details = tuple(details)

    def within(self, place: str) -> FatwheelError:
        """The same error, with the file or part in which its place lies in front of it."""
        where = f"{place}: {self.where}" if self.where else place
        return type(self)(self.what, where=where, hint=self.hint, details=self.details)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        lines += [f"  {line}" for line in self.details]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class UsageError(FatwheelError):
    """An invalid option or argument, such as an unknown kernel, architecture or Python."""

    exit_code = 2


class ConfigError(FatwheelError):
    """A recipe or toolchain file has mistakes; all of them are listed."""

    exit_code = 3


class FetchError(FatwheelError):
    """A pinned file could not be fetched: there is no network, or the index does not have it."""

    exit_code = 4


class HashMismatchError(FatwheelError):
    """A file differs from the one that was pinned."""

    exit_code = 5


class ToolchainError(FatwheelError):
    """The toolchain cannot be set up or used here (no C++ compiler or no such Python, for example),
    or `doctor` found something wrong."""

    exit_code = 6


class UpstreamError(FatwheelError):
    """The project's own build failed, or compiled no CUDA code."""

    exit_code = 7


class CompileError(FatwheelError):
    """A source file does not compile. The compiler's output and the command to repeat it are shown;
    what compiled is kept."""

    exit_code = 8


class OutOfMemoryError(FatwheelError):
    """A compiler call ran out of memory although it ran alone."""

    exit_code = 9


class StoreError(FatwheelError):
    """The cache cannot be read or written: the disk is full, or access is denied."""

    exit_code = 10


class FormatError(FatwheelError):
    """A wheel, library, object file or fatbin is malformed, or of an unsupported kind."""

    exit_code = 11


class StitchError(FatwheelError):
    """Device code does not fit together (other sources, or other parameters of a kernel), or a file
    has no code for the GPUs named."""

    exit_code = 12


class VerifyError(FatwheelError):
    """A wheel failed its checks, or `check` found why something does not work."""

    exit_code = 13


class EngineError(FatwheelError):
    """The container engine or a Dask cluster cannot be reached or used, or an image cannot be built
    there."""

    exit_code = 14


class RebuildError(FatwheelError):
    """Two wheels differ: the rebuilt one and the original, or those that `compare` was given."""

    exit_code = 15


class LockError(FatwheelError):
    """With `--locked`: the build would use something that the lock does not list. Or a lock pins no
    source, so that the wheel cannot be rebuilt."""

    exit_code = 16


class StoppedError(FatwheelError):
    """With `--stop-after`: the time is up, and jobs are left. Finished work is kept."""

    exit_code = 17


class InterruptedBuildError(FatwheelError):
    """Ctrl-C. The workers were stopped; finished work is kept."""

    exit_code = 130
