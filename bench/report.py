"""What a benchmark found, as data. Times are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RATIO, PERCENT, BYTES, COUNT = "ratio", "percent", "bytes", "count"
SECONDS = "seconds"


@dataclass(frozen=True)
class Machine:
    """Where it was measured. load is the system's over the last minute, before the start.

    programs: versions of what was used, by name.
    """

    cpu: str
    cores: int
    memory: int
    kernel: str
    load: float
    programs: Mapping[str, str]


@dataclass(frozen=True)
class Measurement:
    """One thing that was run; a median of each where it was run several times.

    cpu is user and system time of the whole process tree. memory is the highest sum over all
    compilers at one time; of a wheel's commands, what they took at most above the interpreter; 0
    where it was not looked at.
    """

    part: str
    what: str
    wall: float
    cpu: float
    memory: int = 0
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """What measurements come to. limit: the value is meant not to exceed it; None: no target.

    unit is one of RATIO, PERCENT, BYTES, COUNT and SECONDS.
    """

    part: str
    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.limit is None else self.value <= self.limit


@dataclass(frozen=True)
class Findings:
    """What one part of the benchmark found."""

    measurements: tuple[Measurement, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class BenchReport:
    """A whole run."""

    machine: Machine
    rounds: int
    measurements: tuple[Measurement, ...]
    figures: tuple[Figure, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of these classes by name; each figure also says whether it is `met`."""
        figures = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        return {**asdict(self), "figures": figures}
