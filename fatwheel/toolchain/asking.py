"""Asks publishers: as often as pip's retries say, and a silent host only once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from .pipconfig import RefusedError
from .web import Web

T = TypeVar("T")


class Asker:
    """Remembers which hosts did not answer."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._never = threading.Event()  # Ctrl-C reaches this thread by itself
        self._silent: dict[str, str] = {}  # hosts that do not answer, and what happened

    def ask(self, url: str, action: Callable[[], T]) -> T:
        """The action's result; a host that was silent before is not waited for again.

        Raises RefusedError.
        """
        host = urlsplit(url).netloc
        if host in self._silent:
            raise _passing(self._silent[host])
        try:
            return self._web.patiently(action, self._never)
        except RefusedError as error:
            if not error.unreachable:
                raise
            self._silent[host] = f"{host}: {error}"
            raise _passing(self._silent[host]) from error


def _passing(said: str) -> RefusedError:
    error = RefusedError(said)
    error.passing = True
    return error
