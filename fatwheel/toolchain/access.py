"""Which hosts a request may reach, depending on who named its URL, and with which credentials.

There are three ways to come to a URL. The user's own pip configuration names places, and what
they list is as welcome as it is to pip. A toolchain or a recipe of this checkout pins files. And
a lock from elsewhere pins files too, in a stranger's words: it must not make this machine ask
hosts of the stranger's choice.

Every request is held to the rules of its way, and so is every redirect that it meets.
"""

from __future__ import annotations

import netrc
import os
import re
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import httpx2
from unearth import Link
from unearth.auth import get_keyring_auth
from unearth.utils import commonprefix, parse_netloc, split_auth_from_url

from ..config.fields import LOOPBACK
from ..config.pinned import DebianFile, Download, Package
from .pipconfig import PipConfig, RefusedError

_PORTS = {"http": 80, "https": 443}
_KEY = "fatwheel"  # of a request's extensions, which its redirects inherit
# What resolvers take for an IPv4 address, in whatever spelling: 127.1, 0x7f.0.0.1, 2130706433.
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)", re.IGNORECASE)


@dataclass(frozen=True)
class HttpOrigin:
    """Scheme, host and port: what credentials belong to."""

    scheme: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """As URLs have it: `host`, or `host:port` where the port is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def encrypted(self) -> HttpOrigin:
        """The same, or where servers send those on who come over http."""
        if (self.scheme, self.port) != ("http", _PORTS["http"]):
            return self
        return HttpOrigin("https", self.host, _PORTS["https"])

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address that the host is, rather than the name of one; 0.0.0.0 if hard to tell."""
        host = self.host.rstrip(".")
        with suppress(ValueError):
            address = ip_address(host)
            return getattr(address, "ipv4_mapped", None) or address
        return IPv4Address(0) if ":" in host or _NUMERIC.fullmatch(host) else None

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine itself, in a spelling that says so."""
        return self.host in LOOPBACK or bool(self.address and self.address.is_loopback)

    @property
    def is_inside(self) -> bool:
        """Whether it is a private address, or a name of this machine."""
        local = self.host == "localhost" or self.host.endswith(".localhost")
        return local or bool(self.address and not self.address.is_global)


def origin_of(url: httpx2.URL | str) -> HttpOrigin:
    """Where a URL leads. Raises httpx2.InvalidURL."""
    url = httpx2.URL(url)
    return HttpOrigin(url.scheme, url.host.lower(), url.port or _PORTS.get(url.scheme, 0))


@dataclass(frozen=True)
class Way:
    """Who named a URL: 'listed' (the user's own places), 'pinned' or 'foreign' (see above).

    hosts: those that a foreign URL may name, as `Origin.name` has them.
    """

    kind: str
    hosts: frozenset[str] = frozenset()


LISTED = Way("listed")
PINNED = Way("pinned")


def way_of(pin: Package | Download) -> Way:
    """Who named the URL of a pin, or where it has none, the place that lists its file. Of Debian's
    packages, the user's own configuration names it."""
    if not pin.url or isinstance(pin, DebianFile):
        return LISTED
    return PINNED if pin.hosts is None else Way("foreign", pin.hosts)


@dataclass
class RequestContext:
    """One request with all its redirects.

    to_disk: the answer is a file, written as it comes; any other is read whole. first, last: the
    origins asked so far.
    """

    way: Way
    to_disk: bool = False
    first: HttpOrigin | None = None
    last: HttpOrigin | None = None

    @property
    def extensions(self) -> dict[str, object]:
        """For the request, where `context_of` finds it again."""
        return {_KEY: self}


def context_of(request: httpx2.Request) -> RequestContext:
    """The context of a request; requests without one come from readers of listings."""
    context = request.extensions.setdefault(_KEY, RequestContext(LISTED))
    assert isinstance(context, RequestContext)
    return context


class AccessRules:
    """What the user's pip configuration names, and what may be asked for because of it."""

    def __init__(self, config: PipConfig) -> None:
        self.places = frozenset(_origins((*config.indexes, *config.find_links)))
        self._trusted = {parse_netloc(host) for host in config.trusted_hosts}
        self._named = {place.host for place in self.places} | {host for host, _ in self._trusted}

    def is_trusted(self, origin: HttpOrigin) -> bool:
        """Whether the connection is confidential, by pip's rules."""
        if origin.scheme == "https" or origin.is_loopback:
            return True
        return not {(origin.host, None), (origin.host, origin.port)}.isdisjoint(self._trusted)

    def may_name(self, pin: Package | Download) -> bool:
        """Whether the URL of a pin is one that it may have."""
        with suppress(RefusedError, httpx2.InvalidURL, ValueError):
            self.check(RequestContext(way_of(pin)), httpx2.URL(Link(pin.url).normalized))
            return True
        return False

    def admit(self, request: httpx2.Request) -> None:
        """Let a request, or the next of its redirects, pass. Raises RefusedError.

        Whatever the request carries for one origin stays there.
        """
        context = context_of(request)
        self.check(context, request.url)
        context.last = origin_of(request.url)
        context.first = context.first or context.last
        if context.last not in (context.first, context.first.encrypted):
            request.headers.pop("Authorization", None)

    def check(self, context: RequestContext, url: httpx2.URL) -> None:
        """Raise RefusedError for a URL that a request must not lead to."""
        origin = origin_of(url)
        if context.way == LISTED and context.last is None:
            return
        if context.way != LISTED and url.userinfo:
            raise RefusedError("a pin's URL must have no user or password in it")
        self._check_scheme(context, origin)
        if context.way.kind == "foreign" and context.last is None:
            self._check_host(context.way, origin)
        if not self._may_reach(context, origin):
            raise RefusedError(
                f"{origin.name} is a local or private address that pip's configuration does not "
                "name"
            )

    def _check_scheme(self, context: RequestContext, origin: HttpOrigin) -> None:
        whither = "it redirects to" if context.last else "it is"
        if origin.scheme not in _PORTS:
            raise RefusedError(f"{whither} a {origin.scheme or 'nameless'}: URL, not https")
        if origin.scheme == "https":
            return
        if context.last is not None and context.last.scheme == "https":
            raise RefusedError(f"it redirects from https to http, at {origin.name}")
        tried_out = context.way == PINNED and origin.is_loopback
        if context.way != LISTED and not tried_out:
            raise RefusedError(f"{whither} plain http, at {origin.name}")

    def _check_host(self, way: Way, origin: HttpOrigin) -> None:
        if origin.name not in way.hosts and origin not in self.places:
            raise RefusedError(f"no toolchain or recipe here fetches anything from {origin.name}")

    def _may_reach(self, context: RequestContext, origin: HttpOrigin) -> bool:
        if not origin.is_inside or origin.host in self._named:
            return True
        if context.last is not None and context.last.host == origin.host:
            return True
        if origin.is_loopback:
            at_home = context.last is None or context.last.is_loopback
            return at_home and context.way.kind != "foreign"
        # An index inside of a company may well send its user on to an address in there. Nothing
        # but what clouds tell a machine of itself lies at link-local ones.
        address = origin.address
        return context.way == LISTED and bool(
            address and not address.is_link_local and not address.is_unspecified
        )


def _origins(urls: Iterable[str]) -> Iterable[HttpOrigin]:
    for url in urls:
        with suppress(httpx2.InvalidURL):
            origin = origin_of(url)
            if origin.scheme in _PORTS:
                yield origin


# -- credentials -----------------------------------------------------------------------------------

# What pip finds is found here too: in an index's URL, in netrc, in the keyring. Unlike pip, this
# never uses netrc's `default` entry, which would tell a password to whatever host a URL names; and
# where a stranger's lock names the URL, nothing is sent but to the user's own indexes.


Secret = tuple[str, str]  # user, password


class Credentials(httpx2.Auth):
    """Adds credentials to requests; thread-safe. Redirects to other origins lose them."""

    def __init__(self, config: PipConfig, rules: AccessRules) -> None:
        self._rules = rules
        self._places: dict[HttpOrigin, list[str]] = {}
        for url in (*config.indexes, *config.find_links):
            with suppress(httpx2.InvalidURL):
                self._places.setdefault(origin_of(url), []).append(url.rstrip("/") + "/")
        self._machines = _machines()
        self._known: dict[HttpOrigin, Secret] = {}  # from the keyring
        self._asking = threading.Lock()

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        context, origin = context_of(request), origin_of(request.url)
        user, password = request.url.username, request.url.password
        given = (user, password) if password and context.way == LISTED else None
        if context.way == LISTED:  # in a pin's URL they are refused
            request.url = request.url.copy_with(userinfo=b"")
        place = self._place(request.url, origin)
        if given is None and not self._may_sign(context, origin, place):
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
        if place is None and context.way != LISTED:
            return  # the keyring is asked for places of the user's, and for what they list
        secret = self._from_keyring(origin, place, user or None)
        if secret is not None:
            yield _signed(request, secret)

    def _may_sign(self, context: RequestContext, origin: HttpOrigin, place: str | None) -> bool:
        """Whether any of the user's credentials may go there."""
        if place is not None:
            return self._rules.is_trusted(origin)
        return origin.scheme == "https" and context.way.kind != "foreign"

    def _place(self, url: httpx2.URL, origin: HttpOrigin) -> str | None:
        """The user's index or page of this origin, that with the most of the path in common."""

        def in_common(place: str) -> int:
            return commonprefix(urlsplit(place).path, url.path).rfind("/")

        return max(self._places.get(origin, ()), key=in_common, default=None)

    def _from_keyring(
        self, origin: HttpOrigin, place: str | None, user: str | None
    ) -> Secret | None:
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
