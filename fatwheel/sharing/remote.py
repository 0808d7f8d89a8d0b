"""A remote: where machines leave parcels for each other (S3, Azure, GCS, WebDAV, or a folder).

Two requests are all that is asked of it: read the file of a name, write the file of a name. It
need not list, lock, or answer conditions, so that any server will do which takes PUT and GET.

A remote is not trusted and not relied on. What comes is bounded in size and time; what does not
come is made here. After the first failure that will not pass, no more is read, or no more written,
and the user is told why, once.

obstore (the Python binding of Apache Arrow's object_store) speaks to the clouds and to WebDAV: one
library that knows them all, with credentials from the variables that each cloud's own tools read.
It is an extra, `fatwheel[remote]`; a folder needs none.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from .. import text
from ..errors import FormatError, UsageError
from ..storage.files import open_plain, readable, replacing
from ..text import clean
from .parcel import FORMAT, Trust

if TYPE_CHECKING:
    from obstore.store import ObjectStore

VARIABLE = "FATWHEEL_REMOTE"
MODE = "FATWHEEL_REMOTE_MODE"
SIGN = "FATWHEEL_REMOTE_SIGN"
TRUST = "FATWHEEL_REMOTE_TRUST"
READ, WRITE = "read", "write"

_FOLDER = "file"
_WEB = ("http", "https")
_CLOUDS = ("s3", "gs", "az")
_VALID = (
    "a folder; https://HOST/PATH of a server that takes PUT (WebDAV); s3://BUCKET/PATH; "
    "gs://BUCKET/PATH; az://CONTAINER/PATH"
)
# Without `://`: a URL all the same, or USER:PASSWORD@HOST. No folder is made and shown of that.
_URL_OR_LOGIN = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:|[^/\\]:[^/\\]*@")
_SERVER_URL = re.compile(
    r"https?://(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?(?:/[^\s?#<>\"\\^`{|}]*)?",
    re.I,
)
_IPV4 = re.compile(r"(?:.*\.)?[0-9]+")  # a host whose last part is a number can be no other
# What each cloud's credentials are called in the environment.
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    **dict.fromkeys(_WEB, f"{VARIABLE}=https://USER:PASSWORD@HOST/PATH"),
}
# What names another server than the cloud's own, and what allows it to be one without TLS. obstore
# reads the former by itself, and ends the process' thread with a panic where one is no URL.
_SERVERS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_PLAIN = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}

# Seconds. A server that is there answers at once; one that is not must not be waited for.
_CONNECT = timedelta(seconds=5)
_SILENT = timedelta(seconds=20)
_WHOLE = timedelta(minutes=10)  # of one request
_RETRY = timedelta(seconds=10)
_GRACE = 20.0
_LEAST_RATE = 32 << 10  # bytes per second: compiling is faster than a slower remote
_CHUNK = 1 << 20
_ONE_PUT = 64 << 20  # bytes: clouds get what is larger in parts


class RemoteError(Exception):
    """Why a remote did not do what it was asked for, in words, fit for a terminal.

    away: whether that means that it will do nothing at all for now.
    """

    def __init__(self, words: str, *, away: bool = False) -> None:
        super().__init__(words)
        self.away = away


class RemotePlace(Protocol):
    """Where a remote's files are. Raises RemoteError, and OSError for files on this machine."""

    def read(self, name: str) -> tuple[int, Iterator[bytes]] | None:
        """The size in bytes of a file, and its bytes; None where there is no such file."""

    def write(self, name: str, file: Path) -> None:
        """Write a file, whole or not at all, over one that may be there."""


# -- what the user says ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """A remote's address. shown: without what is secret. login: user and password, of a URL."""

    scheme: str
    shown: str
    path: Path | None = None
    login: tuple[str, str] | None = field(default=None, repr=False)


def parse_address(words: str, where: str) -> Address:
    """A remote's address, as of --remote or FATWHEEL_REMOTE; where: which of these.

    Raises UsageError, which shows nothing of what may be a password.
    """
    scheme, mark, rest = words.partition("://")
    if not mark:
        if not words or _URL_OR_LOGIN.search(words):
            raise UsageError("this is not an address of a remote", where=where, hint=_valid())
        return _folder(Path(words).expanduser().absolute(), where)
    scheme = scheme.lower()
    if scheme not in (_FOLDER, *_WEB, *_CLOUDS):
        raise UsageError(f"{scheme[:20]}:// is not a kind of remote", where=where, hint=_valid())
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, _ = parts.hostname or "", parts.port  # which raises where it is no number
    except ValueError:
        raise UsageError("this is not an address of a remote", where=where, hint=_valid()) from None
    if scheme == _FOLDER:
        return _folder(Path(unquote(parts.path)), where)
    if not host:
        raise UsageError("this address names no host or bucket", where=where, hint=_valid())
    if parts.query or parts.fragment:
        raise UsageError(
            "an address of a remote has no `?` or `#`", where=where,
            hint=f"credentials belong into the environment: {_CREDENTIALS[scheme]}",
        )  # fmt: skip
    if "@" in parts.path:  # as of https://USER:PASS/WORD@HOST, of which the host is USER
        raise UsageError(
            "there is an @ behind the host of this address", where=where,
            hint="in a user or a password, write / as %2F; in a path, @ as %40",
        )  # fmt: skip
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    if any(login) and (scheme not in _WEB or where != VARIABLE):
        raise UsageError(
            "there is a user or a password in this address, where others can read it",
            where=where,
            hint=f"credentials belong into the environment: {_CREDENTIALS[scheme]}",
        )
    shown = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return Address(scheme, clean(shown), None, login if any(login) else None)


def _folder(path: Path, where: str) -> Address:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is not a folder", where=where, hint=_valid())
    return Address(_FOLDER, str(path), path)


def _valid() -> str:
    return f"valid: {_VALID}"


def remote_of(named: str | None, variables: Mapping[str, str] = os.environ) -> Remote | None:
    """The remote that --remote names, or else the environment; None where neither does.

    Asks nobody. Raises UsageError where something of it is not valid.
    """
    words = named if named is not None else variables.get(VARIABLE, "")
    if not words:
        return None
    address = parse_address(words, "--remote" if named is not None else VARIABLE)
    mode = variables.get(MODE, "") or WRITE
    if mode not in (READ, WRITE):
        raise UsageError(f"{mode[:40]!r} is not a mode", where=MODE, hint=f"valid: {READ}, {WRITE}")
    trust = trust_of(variables)
    if mode == WRITE and trust.keys and not trust.signer:
        raise UsageError(
            "what is written to this remote must be signed, and there is no key to sign with",
            where=f"{TRUST}={variables[TRUST]}",
            hint=f"name a private key, {SIGN}=KEY.pem; or only read: {MODE}={READ}",
        )
    place = FolderPlace(address.path) if address.path else _object_place(address)
    return Remote(place, address.shown, writes=mode == WRITE, trust=trust)


def trust_of(variables: Mapping[str, str] = os.environ) -> Trust:
    """Who signs and who is believed, as the environment says. Raises UsageError."""
    private, public = variables.get(SIGN, ""), variables.get(TRUST, "")
    if not private and not public:
        return Trust()
    from ..provenance.signing import load_key, load_signer

    signer = load_signer(Path(private), SIGN) if private else None
    keys = [load_key(Path(one), TRUST) for one in public.split(os.pathsep) if one]
    own = [signer.public_key] if signer else []
    return Trust(signer, (*own, *keys))


# -- the remote ------------------------------------------------------------------------------------


class Remote:
    """Files by name, which may or may not come. Threads may share it.

    shown: its address, without secrets. writes: whether it may be written to. trust: who signs.
    tell: is told, once each, why nothing more is read or written.
    """

    def __init__(self, place: RemotePlace, shown: str, *, writes: bool, trust: Trust) -> None:
        self.shown = shown
        self.writes = writes
        self.trust = trust
        self.tell: Callable[[str], None] = lambda words: None
        self.requests = 0
        self._place = place
        self._lock = threading.Lock()  # over what follows
        self._ended: dict[str, str] = {}  # READ or WRITE, and why no more is

    @property
    def in_words(self) -> str:
        """`s3://bucket/x, read only, signed`."""
        mode = "read and written" if self.writes else "only read"
        return f"{self.shown}, {mode}" + (", signed" if self.trust.keys else ", not signed")

    def ended(self, what: str) -> str:
        """Why nothing more is read, or written; '' where it is."""
        return self._ended.get(what, "")

    def get(self, name: str, file: Path, most: int) -> bool:
        """Write what the remote has under a name to a file, at most so many bytes.

        False where it has nothing, or is not asked any more. Raises FormatError where it is larger
        than that.
        """
        if self.ended(READ):
            return False
        try:
            return self._get(name, file, most)
        except RemoteError as error:
            self.end(READ, error)
            return False

    def _get(self, name: str, file: Path, most: int) -> bool:
        started = time.monotonic()
        self._count()
        found = self._place.read(_path(name))
        if found is None:
            return False
        size, chunks = found
        if size > most:
            raise FormatError(f"it has {size} bytes, and {most} are the most", where=name)
        came = 0
        with file.open("wb") as out:
            for chunk in chunks:
                came += len(chunk)
                if came > size:
                    raise FormatError("it has more bytes than the remote says", where=name)
                if time.monotonic() - started > _GRACE + came / _LEAST_RATE:
                    came_to = f"{text.size(came)} of {text.size(size)}"
                    raise RemoteError(f"it is too slow: {came_to} in time", away=True)
                out.write(chunk)
        return True

    def put(self, name: str, file: Path) -> bool:
        """Write a file to the remote; whether it took it."""
        if not self.writes or self.ended(WRITE):
            return False
        try:
            self._count()
            self._place.write(_path(name), file)
        except RemoteError as error:
            self.end(WRITE, error)
            return False
        return True

    def probe(self) -> str:
        """Why the remote cannot be read, or ''."""
        try:
            self._place.read(_path("wheel/" + "0" * 64))
        except RemoteError as error:
            return str(error)
        return ""

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def end(self, what: str, error: RemoteError) -> None:
        """Do no more of what failed, READ or WRITE, and say why, once."""
        with self._lock:
            if what in self._ended:
                return
            self._ended[what] = str(error)
            if error.away:
                self._ended.update({READ: str(error), WRITE: str(error)})
        if error.away:
            self.tell(f"the build goes on without {self.shown}: {error}")
        else:
            doing = "read from" if what == READ else "written to"
            self.tell(f"nothing more is {doing} {self.shown} in this build: {error}")


def _path(name: str) -> str:
    return f"fatwheel{FORMAT}/{name}"


# -- a folder --------------------------------------------------------------------------------------


class FolderPlace:
    """A folder, such as one that machines of a team mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> tuple[int, Iterator[bytes]] | None:
        try:
            stream = open_plain(self._folder / name)
        except NotADirectoryError:
            return None
        except OSError as error:
            raise RemoteError(_in_words(error)) from error
        if stream is None:
            return None

        def chunks() -> Iterator[bytes]:
            with closing(stream):
                try:
                    while chunk := stream.read(_CHUNK):
                        yield chunk
                except OSError as error:
                    raise RemoteError(_in_words(error)) from error

        return os.fstat(stream.fileno()).st_size, chunks()

    def write(self, name: str, file: Path) -> None:
        path = self._folder / name
        with file.open("rb") as source:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as out:
                    while chunk := source.read(_CHUNK):
                        out.write(chunk)
            except OSError as error:
                raise RemoteError(_in_words(error)) from error


def _in_words(error: OSError) -> str:
    return error.strerror or str(error)


# -- servers ---------------------------------------------------------------------------------------


class ObjectPlace:
    """A bucket of a cloud, or a folder of a WebDAV server.

    credentials: where those are looked for, for messages.
    """

    def __init__(self, store: ObjectStore, credentials: str, *, in_parts: bool) -> None:
        self._store = store
        self._credentials = credentials
        self._in_parts = in_parts

    def read(self, name: str) -> tuple[int, Iterator[bytes]] | None:
        import obstore

        try:
            found = obstore.get(self._store, name)
            # Each piece as it comes: waiting for larger ones, nobody would see that it is slow.
            return int(found.meta["size"]), self._chunks(iter(found.stream(1)))
        except BaseException as error:
            if isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(str(error)):
                return None
            raise self._failure(error) from None

    def _chunks(self, chunks: Iterator[Any]) -> Iterator[bytes]:
        while True:
            try:
                chunk = next(chunks, None)
            except BaseException as error:
                raise self._failure(error) from None
            if chunk is None:
                return
            yield bytes(chunk)

    def write(self, name: str, file: Path) -> None:
        import obstore

        parts = self._in_parts and file.stat().st_size > _ONE_PUT
        try:
            obstore.put(self._store, name, file, use_multipart=parts)
        except BaseException as error:
            raise self._failure(error) from None

    def _failure(self, error: BaseException) -> BaseException:
        """A RemoteError for what the library raised; else the same error."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        if type(error).__name__ == _PANIC:
            return RemoteError(_UNUSABLE, away=True)
        if not isinstance(error, (BaseError, OSError)):
            return error
        said = _said(error)
        if _NO_BUCKET.search(str(error)):
            return RemoteError("there is no such bucket", away=True)
        if _METADATA in str(error):
            return RemoteError(
                f"there are no credentials, in the environment ({self._credentials}) or of this "
                f"machine ({_METADATA}): {said}", away=True,
            )  # fmt: skip
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if refused or said.startswith(("401", "403")):
            return RemoteError(
                f"it takes no such request with these credentials ({self._credentials}): {said}"
            )
        if said.startswith("507"):
            return RemoteError(f"it is full: {said}")
        if said.startswith("405"):
            return RemoteError(f"it can only be read, which {MODE}={READ} says: {said}")
        return RemoteError(said, away=said.startswith(_AWAY))


NO_ANSWER, NO_CONNECTION = "there is no answer in time", "there is no connection"
BROKEN_OFF = "the connection broke off"
_UNTRUSTED = "its certificate is not trusted; SSL_CERT_FILE may name a file with another authority"
_NO_TLS = f"it is without TLS, which {' or '.join(_PLAIN.values())}=true allows"
# Rust's, which is no Exception and which no module offers. The library has shown what it says.
_PANIC = "PanicException"
_UNUSABLE = "it cannot be used: its address and the environment make no valid request"
_AWAY = (NO_ANSWER, NO_CONNECTION, BROKEN_OFF, _NO_TLS)
_METADATA = "169.254.169.254"  # gives credentials to machines of a cloud; asked where no others are
_LONGEST = 300  # characters of what a server or the library says
_ANSWER = re.compile(
    r"(?:performing ([A-Z]{3,8}) (\S+) .*)?status code: ([1-5][0-9]{2}[\w ]*)", re.S
)
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|specified bucket does not exist")
_CODE = re.compile("<Code>([A-Za-z]{3,60})</Code>")  # what clouds call an error
_CAUSE = re.compile(r'(?:message|error): "([^"\n]{3,200})"')  # of no connection


def _said(error: Exception) -> str:
    """What went wrong, as one line, without what else the library says for its developers, and
    without what a URL may hold of credentials."""
    words, _, debug = str(error).partition("\n\nDebug source")
    words = re.sub(r"\?[^\s)]*", "", re.sub(r"(https?://)[^/\s@]*@", r"\1", words))
    code, cause = _CODE.search(words), _CAUSE.search(debug)
    if answer := _ANSWER.search(words):
        asked = f" to {answer[1]} {answer[2]}" if answer[1] else ""
        return clean(f"{answer[3].strip()}{f' ({code[1]})' if code else ''}{asked}")[:_LONGEST]
    if "kind: Timeout" in debug:
        return NO_ANSWER
    if "kind: Connect" in debug:
        why = _UNTRUSTED if "InvalidCertificate" in debug else cause[1] if cause else ""
        return clean(f"{NO_CONNECTION}{f': {why}' if why else ''}")
    if "kind: Interrupted" in debug:
        return BROKEN_OFF
    if "BadScheme" in debug:
        return _NO_TLS
    # What is quoted may be of a key that could not be read.
    words = re.sub(r'"(?:[^"\\]|\\.)*"', '"…"', words)
    return clean(" ".join(re.sub(r"^Generic \w+ error: ", "", words).split()))[:_LONGEST]


def _object_place(address: Address) -> ObjectPlace:
    try:
        from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store
    except ImportError as error:
        raise UsageError(
            f"{address.shown} needs a library that is not installed",
            where=VARIABLE,
            hint="python -m pip install 'fatwheel[remote]', or: python -m pip install obstore",
        ) from error
    from obstore.exceptions import BaseError

    plain = address.scheme == "http" or os.environ.get(_PLAIN.get(address.scheme, "")) == "true"
    _check_servers(address.scheme, plain=plain)
    client: Any = {
        "connect_timeout": _CONNECT, "read_timeout": _SILENT, "timeout": _WHOLE,
        "user_agent": "fatwheel",
    }  # fmt: skip
    if plain:
        client["allow_http"] = True
    if authorities := os.environ.get("SSL_CERT_FILE"):
        with readable(Path(authorities), "SSL_CERT_FILE=FILE.pem"):
            client["root_certificate"] = Path(authorities).read_bytes()
    retry: Any = {
        "max_retries": 2, "retry_timeout": _RETRY,
        "backoff": {
            "init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }  # fmt: skip
    credentials = _CREDENTIALS[address.scheme]
    try:
        if address.scheme in _WEB:
            if address.login:
                client["default_headers"] = {"Authorization": _basic(*address.login)}
            store: Any = HTTPStore.from_url(
                address.shown,
                client_options=client,
                retry_config=retry,
            )
            return ObjectPlace(store, credentials, in_parts=False)
        kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[address.scheme]
        store = kind.from_url(address.shown, client_options=client, retry_config=retry)
        return ObjectPlace(store, credentials, in_parts=True)
    except (BaseError, ValueError, OSError) as error:
        raise UsageError(
            f"this remote cannot be used: {_said(error)}", where=address.shown,
            hint=f"its credentials, in the environment: {credentials}",
        ) from None  # fmt: skip


def _check_servers(scheme: str, *, plain: bool) -> None:
    """Raises UsageError where the environment names a server that is not to be spoken to."""
    for name in _SERVERS.get(scheme, ()):
        words = os.environ.get(name, "")
        if words and not _is_server(words):
            raise UsageError(
                "this is not the URL of a server", where=name,
                hint="such as https://HOST:PORT, or http://HOST:PORT",
            )  # fmt: skip
        if words.lower().startswith("http:") and not plain:
            raise UsageError(
                "this server is without TLS", where=name, hint=f"{_PLAIN[scheme]}=true allows it"
            )


def _is_server(words: str) -> bool:
    """Whether this is the URL of a server, of which obstore makes requests."""
    found = _SERVER_URL.fullmatch(words)
    if found is None:
        return False
    ipv6, host, port = found.groups()
    try:
        if ipv6:
            IPv6Address(ipv6)
        elif _IPV4.fullmatch(host):
            IPv4Address(host)
    except ValueError:
        return False
    return int(port or 0) < 1 << 16


def _basic(user: str, password: str) -> str:
    """RFC 7617."""
    import base64

    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
