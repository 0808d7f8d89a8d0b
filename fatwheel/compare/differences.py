"""What a comparison of two wheels says: differences, each with its level and its place.

A difference at one level mostly has others below it that say more: the binary, its section, the
unit, the image, the kernel. They follow it in the order in which they are found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# From the highest to the lowest:
# pins: what went into the wheels. files: which files there are. modes: permissions. text: lines.
# binary: a whole file. section: one of its sections. function: host code or data, by its symbol.
# unit: a container of device code. image: one of its images. kernel: what of a kernel reaches the
# GPU. debug: what of an image does not. archive: how the same files were packed.
LEVELS = (
    "pins", "files", "modes", "text", "binary", "section", "function", "unit", "image", "kernel",
    "debug", "archive",
)  # fmt: skip

# Characters of a line, or of a string in a binary, that are kept.
MOST_TEXT = 400


@dataclass(frozen=True)
class Place:
    """Where something differs; what does not apply is '' or None.

    file:      its name in the wheel.
    section:   of a binary.
    container: of device code, counted from 0 in the first wheel's binary; unit is its name where
               the wheel has a record of it.
    image:     `sm_86`, `compute_80`.
    symbol:    a kernel, or a function or variable of the host.
    """

    file: str = ""
    section: str = ""
    container: int | None = None
    unit: str = ""
    image: str = ""
    symbol: str = ""

    def at(self, **parts: Any) -> Place:
        """A place within this one."""
        return replace(self, **parts)


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    what: a sentence; one and other are what stands there in each wheel, where that can be read:
    a line, a string, a mode. None where there is nothing.
    """

    level: str
    what: str
    place: Place = Place()
    one: str | None = None
    other: str | None = None

    def to_json(self) -> dict[str, Any]:
        place = {name: None if part == "" else part for name, part in asdict(self.place).items()}
        told = {"level": self.level, "what": self.what, "one": self.one, "other": self.other}
        return {**told, **place}


@dataclass(frozen=True)
class Side:
    """One of the two wheels: its file, its size in bytes, and the sha256 of all of it."""

    path: Path
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.path.name, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class Comparison:
    """What differs between two wheels; nothing does where their bytes are the same.

    same:       how many files are the same in both.
    follows:    files that differ only as they must, because of the other differences: RECORD.
    more:       whether there are so many differences that some were not looked for.
    diffoscope: what that tool says of the first file that differs, if it is installed; its end
                may be missing. '' where there is none.
    """

    one: Side
    other: Side
    same: int = 0
    differences: tuple[Difference, ...] = ()
    follows: tuple[str, ...] = ()
    more: bool = False
    diffoscope: str = ""

    @property
    def identical(self) -> bool:
        return self.one.sha256 == self.other.sha256

    @property
    def level(self) -> str | None:
        """The highest level at which something differs."""
        found = {difference.level for difference in self.differences}
        return next((level for level in LEVELS if level in found), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "one": self.one.to_json(),
            "other": self.other.to_json(),
            "identical": self.identical,
            "level": self.level,
            "same": self.same,
            "differences": [difference.to_json() for difference in self.differences],
            "follows": list(self.follows),
            "more": self.more,
            "diffoscope": self.diffoscope or None,
        }
