"""Whose credentials go where: each to the origin for which the user configured them.

What pip finds is found here too: in an index's URL, in netrc, in the keyring. Unlike pip, this
never uses netrc's `default` entry, which would tell a password to whatever host a URL names; and
where a stranger's lock names the URL, nothing is sent but to the user's own indexes.
"""

from __future__ import annotations

import netrc
import os
import threading
from collections.abc import Generator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx2
from unearth.auth import get_keyring_auth
from unearth.utils import commonprefix, split_auth_from_url

from .errands import LISTED, Border, Errand, Origin, errand_of, origin_of
from .pipconfig import PipConfig

Secret = tuple[str, str]  # user, password


class Credentials(httpx2.Auth):
    """Signs requests; threads may share it. Redirects to other origins lose what is signed."""

    def __init__(self, config: PipConfig, border: Border) -> None:
        self._border = border
        self._places: dict[Origin, list[str]] = {}
        for url in (*config.indexes, *config.find_links):
            with suppress(httpx2.InvalidURL):
                self._places.setdefault(origin_of(url), []).append(url.rstrip("/") + "/")
        self._machines = _machines()
        self._known: dict[Origin, Secret] = {}  # from the keyring
        self._asking = threading.Lock()

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        errand, origin = errand_of(request), origin_of(request.url)
        user, password = request.url.username, request.url.password
        given = (user, password) if password and errand.way == LISTED else None
        if errand.way == LISTED:  # in a pin's URL they are refused
            request.url = request.url.copy_with(userinfo=b"")
        place = self._place(request.url, origin)
        if given is None and not self._may_sign(errand, origin, place):
            yield request
            return
        auth = split_auth_from_url(place)[0] if place else None
        user = user or (auth[0] if auth else "")
        own = (auth[0], auth[1]) if auth and auth[1] is not None else None
        secret = given or own or self._machines.get(origin.host) or self._known.get(origin)
        # A user alone may be a token, which needs no password.
        response = yield _signed(request, secret or ((user, "") if user else None))
        if response.status_code != 401 or origin_of(response.url) != origin or given or own:
            return
        if place is None and errand.way != LISTED:
            return  # the keyring is asked for places of the user's, and for what they list
        secret = self._from_keyring(origin, place, user or None)
        if secret is not None:
            yield _signed(request, secret)

    def _may_sign(self, errand: Errand, origin: Origin, place: str | None) -> bool:
        """Whether any of the user's credentials may go there."""
        if place is not None:
            return self._border.is_trusted(origin)
        return origin.scheme == "https" and errand.way.kind != "foreign"

    def _place(self, url: httpx2.URL, origin: Origin) -> str | None:
        """The user's index or page of this origin, that with the most of the path in common."""

        def in_common(place: str) -> int:
            return commonprefix(urlsplit(place).path, url.path).rfind("/")

        return max(self._places.get(origin, ()), key=in_common, default=None)

    def _from_keyring(self, origin: Origin, place: str | None, user: str | None) -> Secret | None:
        with self._asking:  # it may ask the user to unlock it, which once is enough for
            if origin not in self._known:
                found = get_keyring_auth(place, user) or get_keyring_auth(origin.name, user)
                if found:
                    self._known[origin] = found
            return self._known.get(origin)


def _signed(request: httpx2.Request, secret: Secret | None) -> httpx2.Request:
    return request if secret is None else next(httpx2.BasicAuth(*secret).auth_flow(request))


def _machines() -> dict[str, Secret]:
    """The entries of the user's netrc that name a machine."""
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return {}  # as pip does
    return {
        host.lower(): (login, password or "")
        for host, (login, _, password) in hosts.items()
        if host != "default"
    }
