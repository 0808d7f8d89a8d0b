"""The network: queries the package index, other servers and the proxies, all at once and with time
limits, and checks the answers."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx2

from .. import text
from ..config.pinned import Download, Package
from ..containers.render import FILES as IMAGE_FILES
from ..errors import FatwheelError
from ..toolchain.index import Index
from ..toolchain.pipconfig import PipConfig, RefusedError, TransientError, read_pip_config
from ..toolchain.web import Web
from .facts import (
    WINDOWS,
    Answer,
    EngineView,
    Facts,
    FileHost,
    Fix,
    IndexFacts,
    ProxyFacts,
    Silence,
    Topic,
    Trouble,
)

T = TypeVar("T")


class Question(Generic[T]):
    """A question that is being asked in a thread of its own, from now on.

    seconds: how long the answer may take. Whoever hangs is left behind: the thread is a daemon,
    and ends with the program.
    """

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._answers: list[T | Silence] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self) -> T | Silence:
        """The answer, or a Silence once its time is over or where asking it failed."""
        self._thread.join(max(0.0, self._end - time.monotonic()))
        return self._answers[0] if self._answers else Silence(f"no answer in {self._seconds:.0f} s")

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except BaseException as error:  # whatever a broken machine makes of it, it is a finding
            self._answers.append(Silence(f"{type(error).__name__}: {error}"))


# -- the package index, other hosts, proxies -------------------------------------------------------

# Nothing is downloaded: a listing is read, and of a file only whether it is there.


VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PATIENCE = 10.0  # seconds for one network operation: a first look, not a download


def ask_index(package: Package) -> IndexFacts | Trouble:
    """Whether any of the user's places has this file of the toolchain."""
    try:
        with closing(Index(_config())) as index:
            return _ask_sources(index, package)
    except FatwheelError as error:
        return trouble_of(error)


def _config() -> PipConfig:
    """As pip is configured, but impatient."""
    config = read_pip_config()
    return replace(config, retries=0, timeout=min(config.timeout, PATIENCE))


def _ask_sources(index: Index, package: Package) -> IndexFacts:
    clocks: list[float] = []

    def note_clock(response: httpx2.Response) -> None:
        with suppress(ValueError, TypeError):
            said = parsedate_to_datetime(response.headers.get("Date", ""))
            clocks.append(said.timestamp() - time.time())

    index.client.event_hooks["response"].append(note_clock)
    started = time.monotonic()
    sources = []
    for source in index.sources:
        try:
            index.links(source, package)
            sources.append((source.shown, ""))
        except (TransientError, RefusedError) as error:
            sources.append((source.shown, str(error)))
    seconds = time.monotonic() - started
    return IndexFacts(package.filename, tuple(sources), seconds, clocks[-1] if clocks else None)


def ask_places(missing: Sequence[Package | Download]) -> list[tuple[str, int, Question[str]]]:
    """Ask each host that missing files come from, all at once: host, bytes missing, its trouble."""
    hosts: dict[str, list[Package | Download]] = {}
    for file in missing:
        if file.url:
            hosts.setdefault(urlsplit(file.url).netloc, []).append(file)
    return [
        (
            host,
            sum(file.size for file in files),
            Question(lambda url=files[0].url: _ask_url(url), 2 * PATIENCE),  # type: ignore[misc]
        )
        for host, files in hosts.items()
    ]


def places_of(asked: Sequence[tuple[str, int, Question[str]]]) -> tuple[FileHost, ...]:
    """The answers."""
    places = []
    for host, size, question in asked:
        answer = question.answer()
        places.append(
            FileHost(host, size, answer.reason if isinstance(answer, Silence) else answer)
        )
    return tuple(places)


def _ask_url(url: str) -> str:
    """Why a file cannot be fetched; '' where it can."""
    try:
        with closing(Web(_config())) as web:
            web.length(url)
    except FatwheelError as error:
        return error.what
    except (TransientError, RefusedError) as error:
        return str(error)
    return ""


def ask_proxies() -> ProxyFacts:
    """The proxies of variables, of pip, and of the docker command."""
    found = {}
    for name in VARIABLES:
        for spelling in (name.lower(), name):  # the lower-case one counts where both are set
            value = os.environ.get(spelling)
            if value:
                found[spelling] = value if name == "NO_PROXY" else without_password(value)
    try:
        of_pip = read_pip_config().proxy or ""
    except FatwheelError:
        of_pip = ""  # what is wrong there, the index's check says
    return ProxyFacts(tuple(found.items()), without_password(of_pip), _docker_proxies())


def without_password(url: str) -> str:
    """A proxy's address as it may be shown."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if "@" not in parts.netloc:
            return url
        host = parts.netloc.rpartition("@")[2]
        user = (parts.username or "") + (":****" if parts.password else "")
        return urlunsplit(parts._replace(netloc=f"{user}@{host}"))
    except ValueError:
        return "an address that cannot be read"


def _docker_proxies() -> tuple[str, ...]:
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    try:
        read = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        proxies = read["proxies"]["default"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return ()
    if not isinstance(proxies, Mapping):
        return ()
    return tuple(
        f"{name}={without_password(str(value))}"
        for name, value in proxies.items()
        if name in ("httpProxy", "httpsProxy") and value
    )


def trouble_of(error: FatwheelError) -> Trouble:
    """An expected failure as a fact."""
    what = ": ".join([error.what, *error.details[:3]])
    return Trouble(what, error.where or "", error.hint or "")


# -- checks ----------------------------------------------------------------------------------------

# Each is a function of the facts, and touches nothing.


PROXY = Topic("proxy", "proxy")
INDEX = Topic("index", "package index")
PLACES = Topic("places", "other download servers")

_SLOW = 5.0  # seconds for a listing


def check_proxy(facts: Facts) -> Answer:
    """Whether the parts that fetch agree on the way out. A proxy is no fault; half of one is."""
    proxies = facts.proxies
    if isinstance(proxies, Silence):
        return PROXY.warning(
            proxies.reason, "pip's proxy is unknown", Fix("try it", "python -m pip config list")
        )
    variables = dict(proxies.variables)
    ways = [f"{name}={value}" for name, value in variables.items()]
    ways += [f"pip's proxy {proxies.pip}"] if proxies.pip else []
    ways += [f"docker's {proxy}" for proxy in proxies.docker]
    engine = facts.container_engine
    of_engine = engine.proxies if isinstance(engine, EngineView) else ()
    ways += [f"the engine's {proxy}" for proxy in of_engine]
    names = {name.upper() for name in variables}
    if not ways:
        return PROXY.ok("none is set")
    found = ", ".join(ways)
    if "HTTP_PROXY" in names and not names & {"HTTPS_PROXY", "ALL_PROXY"}:
        return PROXY.warning(
            found,
            "indexes are reached by https, for which no proxy is set",
            Fix("set it too", _same_for_https(facts)),
        )
    behind = bool(proxies.pip or names & {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
    if behind and isinstance(engine, EngineView) and not of_engine:
        return PROXY.warning(
            found, "the engine fetches base images without a proxy", *_engine_proxy(facts, engine)
        )
    return PROXY.ok(found)


def _same_for_https(facts: Facts) -> str:
    """By the variable's name: its value may hold a password."""
    if facts.host.system == WINDOWS:
        return "setx HTTPS_PROXY %HTTP_PROXY%"
    return 'export HTTPS_PROXY="${HTTP_PROXY:-$http_proxy}"'


def _engine_proxy(facts: Facts, engine: EngineView) -> tuple[Fix, ...]:
    if engine.desktop:
        return (Fix("Docker Desktop: Settings, Resources, Proxies: enter it, Apply & restart"),)
    path = facts.daemon_file or "the engine's daemon.json"
    say = f'add "proxies": {{"https-proxy": "http://HOST:PORT"}} to {path}, then start it again'
    return (Fix(say, restart_command(facts), administrator=True),)


def restart_command(facts: Facts) -> str:
    """How the engine is started again, on this machine's system."""
    if facts.host.system == WINDOWS:
        return "sc.exe stop docker & timeout /t 5 & sc.exe start docker"
    return "sudo systemctl restart docker"


def check_index(facts: Facts) -> Answer:
    index = facts.index
    look = Fix("check pip's configuration", "python -m pip config list")
    offline = "the toolchain's files come from there"
    if isinstance(index, Silence):
        return INDEX.wrong(index.reason, offline, look)
    if isinstance(index, Trouble):
        hint = [Fix(index.hint)] if index.hint else []
        return INDEX.wrong(f"{index.what}", offline, *hint, look)
    if not index.asked:
        return INDEX.skipped("no file of this toolchain comes from it")
    good = [place for place, trouble in index.sources if not trouble]
    bad = [f"{place}: {trouble}" for place, trouble in index.sources if trouble]
    if not good:
        return INDEX.wrong(
            f"no {index.asked}; {'; '.join(bad)}",
            offline,
            look,
            Fix("use an index that has it", "python -m pip config set global.index-url https://…"),
        )
    found = f"{', '.join(good)} answered in {text.duration(index.seconds)}"
    if bad:
        found += f"; {text.count(len(bad), 'other place')} not"
    if index.seconds > _SLOW:
        return INDEX.warning(found, "slow: fetching will take long", look)
    return INDEX.ok(found)


def check_places(facts: Facts) -> Answer:
    """Hosts other than the index; those whose files are all here do not matter."""
    if not facts.places or facts.images_made:
        return PLACES.skipped("all missing files come from the index")
    bad = [place for place in facts.places if place.trouble]
    good = [place for place in facts.places if not place.trouble]
    answered = f"{', '.join(place.host for place in good)} answered" if good else ""
    if not bad:
        return PLACES.ok(answered)
    folder = IMAGE_FILES if facts.uses_images else "downloads"
    failed = "; ".join(f"{place.host}: {place.trouble}" for place in bad)
    missing = sum(place.missing for place in bad)
    size = f"{text.size(missing)} of the toolchain" if missing else "some files of the toolchain"
    return PLACES.wrong(
        f"{failed}{f'; {answered}' if answered else ''}",
        f"{size} must come from there, once",
        Fix("let the firewall or the proxy allow it (pip's proxy and certificates are used)"),
        Fix(f"or copy {folder} from another machine's cache into this one's", "invoke cache"),
    )


def findings(facts: Facts) -> Iterable[Answer]:
    yield check_proxy(facts)
    yield check_index(facts)
    yield check_places(facts)
