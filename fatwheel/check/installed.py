"""The packages that are installed in an environment, by the files beside them: nothing is imported.

Formats: PyPA specifications "Recording installed projects" and "Core metadata". What is read is
bounded, and whatever cannot be read is told and left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from ..errors import FormatError
from ..wheels.metadata import fields
from ..wheels.recorded import read_record

_MOST_ENTRIES = 50_000  # of one folder
_MOST_TEXT = 32 << 20  # bytes of METADATA or RECORD
_NEAR, _LIKE = 3, 0.75  # names that are told, and how like they must be (difflib)


@dataclass(frozen=True)
class Distribution:
    """One installed package: its normal name and version, by its folder's name; info: that folder;
    site: where its files lie."""

    name: str
    version: str
    info: Path
    site: Path

    @cached_property
    def metadata(self) -> bytes | None:
        """METADATA; None where it is missing, or cannot be read."""
        return read_text(self.info / "METADATA")

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The Tag lines of WHEEL."""
        try:
            return tuple(fields(read_text(self.info / "WHEEL") or b"", "Tag"))
        except FormatError:
            return ()

    @cached_property
    def files(self) -> tuple[str, ...] | None:
        """The paths in RECORD, relative to site and with slashes; None where there is no RECORD."""
        record = read_text(self.info / "RECORD")
        if record is None:
            return None
        return tuple(name for name in read_record("RECORD", record).rows if _is_plain(name))

    @cached_property
    def listed(self) -> str:
        """top_level.txt, or ''."""
        return (read_text(self.info / "top_level.txt") or b"").decode("utf-8", "replace")

    def place(self, name: str) -> Path:
        """Where a file of it lies."""
        return self.site.joinpath(*PurePosixPath(name).parts)


def _is_plain(name: str) -> bool:
    """Scripts lie above site-packages; nothing else that a RECORD names there is looked at."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and "\\" not in name and ".." not in path.parts


def read_text(path: Path, most: int = _MOST_TEXT) -> bytes | None:
    """A plain file of bounded size; None where it is none, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > most:
            return None
        with path.open("rb") as stream:
            return stream.read(most)
    except (OSError, ValueError):  # a name with a zero in it
        return None


class Packages:
    """All packages on a Python's path. unreadable: folders of it that cannot be listed, and why."""

    def __init__(self, path: Iterable[Path]) -> None:
        self.unreadable: dict[Path, str] = {}
        self._found: dict[str, list[Distribution]] = {}
        for folder in path:
            for name in self._names(folder):
                stem, dot, suffix = name.rpartition(".")
                project, dash, version = stem.rpartition("-")
                if dot and dash and suffix == "dist-info":
                    found = Distribution(
                        str(canonicalize_name(project)), version, folder / name, folder
                    )
                    self._found.setdefault(found.name, []).append(found)

    def _names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))[:_MOST_ENTRIES]
        except (FileNotFoundError, NotADirectoryError):  # python311.zip, and folders yet to come
            return []
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return []

    def __iter__(self) -> Iterator[Distribution]:
        """Each package once, the one that Python finds."""
        return (found[0] for found in self._found.values())

    def find(self, name: str) -> Distribution | None:
        copies = self.copies(name)
        return copies[0] if copies else None

    def copies(self, name: str) -> tuple[Distribution, ...]:
        """All that is installed of one name, what Python finds first coming first."""
        return tuple(self._found.get(str(canonicalize_name(name)), ()))

    def bringing(self, module: str) -> Distribution | None:
        """The package that a top-level module comes with."""
        for found in self:
            if module in found.listed.split():
                return found
        starts = (f"{module}/", f"{module}.")
        for found in self:
            if any(name.startswith(starts) for name in found.files or ()):
                return found
        return None

    def near(self, name: str) -> tuple[str, ...]:
        """Names that somebody may have meant."""
        return tuple(
            get_close_matches(str(canonicalize_name(name)), list(self._found), _NEAR, _LIKE)
        )

    def owner_of(self, library: str) -> tuple[Distribution, str] | None:
        """The package whose RECORD has a file of this name, and the file's path in it."""
        for found in self:
            for name in found.files or ():
                if name.rpartition("/")[2].lower() == library.lower():
                    return found, name
        return None
