"""How a command ends: what went wrong becomes a message and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FatwheelError, InterruptedBuildError, StoreError
from ..files import OF_THE_DISK
from .console import discard_results
from .messages import show_error, show_note


@contextmanager
def reported() -> Iterator[None]:
    """Turn what can go wrong into a message and an exit code; see fatwheel.errors."""
    try:
        yield
    except FatwheelError as error:
        show_error(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        show_note("interrupted; what was finished is kept")
        raise SystemExit(InterruptedBuildError.exit_code) from None
    except BrokenPipeError:
        discard_results()
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        trouble = StoreError(
            f"cannot go on: {error.strerror}",
            where=_place(error),
            hint="look at the disks of the cache (FATWHEEL_CACHE), of --out and of TMPDIR",
        )
        show_error(trouble)
        raise SystemExit(trouble.exit_code) from None


def _place(error: OSError) -> str | None:
    """The file's name; a file that is open already may have none, only a number."""
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    return os.fsdecode(error.filename) if named else None
