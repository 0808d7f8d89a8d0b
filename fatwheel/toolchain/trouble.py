"""How asking over the network fails: for now, or for good. No text of it has a password in it."""

from __future__ import annotations

import re


class TransientError(Exception):
    """A failure that another try may cure; its text says what happened."""


class NoConnectionError(TransientError):
    """Nobody answers there."""


class RefusedError(Exception):
    """A failure that another try will not cure, or did not; its text says what happened.

    passing: the last of all tries failed in a way that may pass. unreachable: nobody answered.
    """

    passing = False
    unreachable = False


def redacted(text: object) -> str:
    """A text without users and passwords in its URLs."""
    return re.sub(r"://[^/?#\s]*@", "://****@", str(text))
