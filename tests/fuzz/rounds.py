"""Many damaged files for one use of them, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fatwheel.errors import FormatError, StitchError

SECONDS = 2  # of a processor: no file may take longer


def refused(label: str, cases: Iterable[bytes], use: Callable[[bytes], None]) -> int:
    """How many of the files were refused; AssertionError, by number, for anything else that came
    out, and for what took too long."""
    count = 0
    for number, case in enumerate(cases):
        start = time.process_time()
        try:
            use(case)
        except (FormatError, StitchError):
            count += 1
        except BaseException as error:
            raise AssertionError(f"case {label}/{number}: {error!r} came out") from error
        seconds = time.process_time() - start
        assert seconds < SECONDS, f"case {label}/{number} took {seconds:.1f} seconds"
    return count
