"""Reads pip's configuration, and names failed requests without showing passwords."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

from ..errors import FetchError


class TransientError(Exception):
    """A failure that may pass when retried; its text says what happened."""


class NoConnectionError(TransientError):
    """Nobody answers there."""


class RefusedError(Exception):
    """A failure that does not pass when retried; its text says what happened.

    passing: the last of all tries failed in a way that may pass. unreachable: no server answered.
    """

    passing = False
    unreachable = False


class NotListedError(RefusedError):
    """An index answers that it does not have a project."""


def redacted(text: object) -> str:
    """A text without users and passwords in its URLs."""
    return re.sub(r"://[^/?#\s]*@", "://****@", str(text))


# -- pip's configuration ---------------------------------------------------------------------------

# pip itself reads its files and PIP_* variables and prints the merged result (`pip config list`);
# so whatever works for the user's `pip install` works here. Options of the sections [global] and
# [download] count, and variables come last, as for `pip download`.


_SECTIONS = ("global", "download", ":env:")  # later ones override
# Variables by which pip finds its configuration, or which are part of it.
_HEEDED = re.compile(r"PIP_|XDG_|HOME$|APPDATA$|USERPROFILE$|VIRTUAL_ENV$|PATH$")
_NO = ("", "0", "n", "no", "f", "false", "off")  # as pip's strtobool reads a switch


@dataclass(frozen=True)
class PipConfig:
    """indexes and find_links in the order to ask; timeout in seconds per network operation.

    retries counts the further attempts after a first that failed. cert is a file or folder of
    CA certificates, client_cert a PEM file with key and certificate, proxy a URL.
    """

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: float = 15.0
    retries: int = 5


def read_pip_config() -> PipConfig:
    """What the user's pip would use now; its defaults where there is no pip to ask.

    Raises FetchError where pip cannot read its own configuration.
    """
    command = _pip()
    if command is None:
        return interpret({})
    heeded = {name: os.environ[name] for name in os.environ if _HEEDED.match(name)}
    return _configured(tuple(command), tuple(sorted(heeded.items())))


@lru_cache(maxsize=4)
def _configured(command: tuple[str, ...], heeded: tuple[tuple[str, str], ...]) -> PipConfig:
    """What pip says in an environment with these variables. It is asked once: that takes a third of
    a second."""
    answer = subprocess.run([*command, "config", "list"], capture_output=True, text=True)
    if answer.returncode:
        raise FetchError(
            "pip cannot read its configuration",
            where=" ".join([*command, "config", "list"]),
            details=(answer.stderr or answer.stdout).strip().splitlines()[-10:],
        )
    return interpret(merge(answer.stdout))


def _pip() -> list[str] | None:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    other = shutil.which("pip")
    return [other] if other else None


def merge(listing: str) -> dict[str, str]:
    """Options by name from `pip config list`, whose lines are SECTION.OPTION='VALUE'."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, dot, option = key.rpartition(".")
        if equals and dot and section in found:
            found[section][option] = _unquoted(value)
    merged: dict[str, str] = {}
    for section in _SECTIONS:
        merged.update({option: value for option, value in found[section].items() if value})
    return merged


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def interpret(options: Mapping[str, str]) -> PipConfig:
    """A PipConfig from options by name. Raises FetchError for a timeout that is no number."""
    indexes: tuple[str, ...] = ()
    if options.get("no-index", "").lower() in _NO:
        first = options.get("index-url") or options.get("pypi-url") or _default_index()
        indexes = (first, *options.get("extra-index-url", "").split())
    return PipConfig(
        indexes=indexes,
        find_links=tuple(_folder(place) for place in options.get("find-links", "").split()),
        trusted_hosts=tuple(options.get("trusted-host", "").split()),
        cert=options.get("cert"),
        client_cert=options.get("client-cert"),
        proxy=_with_scheme(options.get("proxy")),
        timeout=_number(options, ("timeout", "default-timeout"), PipConfig.timeout),
        retries=int(_number(options, ("retries",), PipConfig.retries)),
    )


def _default_index() -> str:
    """The index that is asked when nothing is configured: the library's own default."""
    # Imported here: it takes a quarter of a command's start, and most commands fetch nothing.
    from unearth import PackageFinder

    return PackageFinder().sources[0]["url"]


def _folder(place: str) -> str:
    return place if "://" in place else os.path.expanduser(place)


def _with_scheme(proxy: str | None) -> str | None:
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _number(options: Mapping[str, str], names: tuple[str, ...], default: float) -> float:
    for name in names:
        if name in options:
            try:
                return float(options[name])
            except ValueError:
                raise FetchError(
                    f"pip's option {name} is {options[name]!r}, which is not a number",
                    where="python -m pip config list",
                ) from None
    return default
