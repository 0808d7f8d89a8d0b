"""Files of other projects that tests and the benchmark work on, pinned in subjects.toml."""

from __future__ import annotations

import sys
from pathlib import Path

from fatwheel.config.pinned import Package
from fatwheel.events import Emit
from fatwheel.storage.cache import downloads_folder
from fatwheel.toolchain.fetch import fetch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("subjects.toml")


def subjects() -> dict[str, Package]:
    """The pins by the names that subjects.toml gives them."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Package(
            name=table["name"],
            version=table["version"],
            filename=table["file"],
            size=table["size"],
            sha256=table["sha256"],
            role="subject",
        )
        for name, table in tables.items()
    }


def fetch_subject(name: str, emit: Emit) -> Path:
    """A subject's file in the user's cache, fetched if it is not there; nothing may write to it.

    Raises KeyError for a name that subjects.toml does not have, and what `fetch` raises.
    """
    [path] = fetch([subjects()[name]], downloads_folder(), emit)
    return path
