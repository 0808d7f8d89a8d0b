"""The one question that is asked: whether the code of a stranger may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from .console import answer_to, err, is_anybody_there, write

if TYPE_CHECKING:  # what builds need not be there for what only reads
    from ..consent import Agree, Stranger


def consent(yes: bool) -> Agree:
    """Shows what would run, and asks; with `yes` it only shows, and where nobody is there to be
    asked it refuses."""

    def agree(stranger: Stranger) -> None:
        if not yes and not is_anybody_there():
            from ..consent import refuse

            refuse(stranger)
        for line in stranger.lines:
            write(err(), line)
        if not yes and answer_to("Run it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was run: you did not agree", where=stranger.origin)

    return agree
