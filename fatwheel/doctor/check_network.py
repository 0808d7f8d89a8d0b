"""Checks of the network: proxies, the package index, other places that files come from."""

from __future__ import annotations

from collections.abc import Iterable

from .. import text
from ..images.ingredients import FILES as IMAGE_FILES
from ..workplaces.choose import DOCKER
from .facts import WINDOWS, EngineView, Facts, Silence, Trouble
from .finding import Check, Finding, Fix

PROXY = Check("proxy", "proxy")
INDEX = Check("index", "package index")
PLACES = Check("places", "other download servers")

_SLOW = 5.0  # seconds for a listing


def check_proxy(facts: Facts) -> Finding:
    """Whether the parts that fetch agree on the way out. A proxy is no fault; half of one is."""
    proxies = facts.proxies
    if isinstance(proxies, Silence):
        return PROXY.warning(
            proxies.reason, "pip did not say its proxy", Fix("try it", "python -m pip config list")
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
    path = facts.daemon_file.path if facts.daemon_file else "the engine's daemon.json"
    say = f'add "proxies": {{"https-proxy": "http://HOST:PORT"}} to {path}, then start it again'
    return (Fix(say, restart_command(facts), administrator=True),)


def restart_command(facts: Facts) -> str:
    """How the engine is started again, on this machine's system."""
    if facts.host.system == WINDOWS:
        return "sc.exe stop docker & timeout /t 5 & sc.exe start docker"
    return "sudo systemctl restart docker"


def check_index(facts: Facts) -> Finding:
    index = facts.index
    look = Fix("look at what pip is told", "python -m pip config list")
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
            Fix("name an index that has it", "python -m pip config set global.index-url https://…"),
        )
    found = f"{', '.join(good)} answered in {text.duration(index.seconds)}"
    if bad:
        found += f"; {text.count(len(bad), 'other place')} not"
    if index.seconds > _SLOW:
        return INDEX.warning(found, "slow: fetching will take long", look)
    return INDEX.ok(found)


def check_places(facts: Facts) -> Finding:
    """Hosts other than the index; those whose files are all here do not matter."""
    if not facts.places or facts.images_made:
        return PLACES.skipped("no file that is missing comes from elsewhere than the index")
    bad = [place for place in facts.places if place.trouble]
    good = [place for place in facts.places if not place.trouble]
    answered = f"{', '.join(place.host for place in good)} answered" if good else ""
    if not bad:
        return PLACES.ok(answered)
    folder = IMAGE_FILES if facts.engine == DOCKER else "downloads"
    failed = "; ".join(f"{place.host}: {place.trouble}" for place in bad)
    missing = sum(place.missing for place in bad)
    size = f"{text.size(missing)} of the toolchain" if missing else "some files of the toolchain"
    return PLACES.wrong(
        f"{failed}{f'; {answered}' if answered else ''}",
        f"{size} must come from there, once",
        Fix("let the firewall or the proxy allow it (pip's proxy and certificates are used)"),
        Fix(f"or copy {folder} from another machine's cache into this one's", "invoke cache"),
    )


def findings(facts: Facts) -> Iterable[Finding]:
    yield check_proxy(facts)
    yield check_index(facts)
    yield check_places(facts)
