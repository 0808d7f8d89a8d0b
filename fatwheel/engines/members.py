"""One worker of a Dask cluster as a build knows it: what it has, what it does, whether it may work;
and what people are told of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CompileError, EngineError, FatwheelError, FormatError, ToolchainError
from ..model import Job
from ..text import clean, size
from . import daskworker
from .base import Limits
from .daskworker import CORES, MEMORY
from .placing import Member

if TYPE_CHECKING:
    from distributed import Future

_TELLING = ("C++ compiler", "Python")  # what of an identity has words for people
_SHOWN = 24  # characters of them: a version, and the beginning of a digest

ASKED, PREPARED, READY, REFUSED = "asked", "prepared", "ready", "refused"


@dataclass(eq=False)
class PoolMember(Member):
    """A worker of the cluster, with what this build does there.

    why: it is refused. used: bytes that its jobs had when it last said so. waits: all that it was
    asked for and has not answered. fronts: with the future of what is on its way. sending: held
    while something is put on its way.
    """

    address: str
    name: str
    state: str = ASKED
    why: str = ""
    used: int = 0
    waits: set[Future[Any]] = field(default_factory=set)
    sending: threading.Lock = field(default_factory=threading.Lock)


def members_of(info: dict[str, Any]) -> list[PoolMember]:
    """The workers that a scheduler knows and that are for fatwheel, by what it says of itself."""
    found = []
    for address, facts in sorted(info["workers"].items()):
        resources = facts.get("resources", {})
        cores, memory = _whole(resources.get(CORES)), _whole(resources.get(MEMORY))
        if cores > 0 and memory > 0:
            name = clean(str(facts.get("name", address)))
            found.append(PoolMember(Limits(cores, memory), address, name))
    return found


def used_by(facts: Any) -> int:
    """Bytes that a worker's jobs have now, by what a scheduler knows of it; 0 if it says none."""
    match facts:
        case {"metrics": {"fatwheel": {"memory": int(used)}}}:
            return used
        case _:
            return 0


def _whole(number: Any) -> int:
    """What a worker says that it lends; 0 where that is no number."""
    try:
        return int(number)
    except (TypeError, ValueError, OverflowError):
        return 0


def nobody(address: str, refused: Sequence[str] = ()) -> EngineError:
    """There is no worker to build with."""
    if refused:
        return EngineError(
            f"none of the workers at {address} can be used",
            details=refused,
            hint="`fatwheel worker` says what is wrong when it starts; see docs/cluster.md",
        )
    return EngineError(
        f"no worker is left at {address}",
        hint=f"start some, on any machine: fatwheel worker {address}",
    )


def check_facts(answer: Any) -> None:
    """Raise EngineError where a worker runs another program than this machine."""
    if isinstance(answer, ModuleNotFoundError | AttributeError):
        raise EngineError("it has no fatwheel, or another one: install the same there")
    if isinstance(answer, BaseException):
        raise EngineError(in_words(answer))
    theirs, ours = json.loads(answer), json.loads(daskworker.facts())
    for what in ("fatwheel", "distributed", "python"):
        if theirs.get(what) != ours[what]:
            found = clean(str(theirs.get(what))[:40])
            raise EngineError(f"it runs {what} {found}, and this machine {ours[what]}")
    if theirs.get("code") != ours["code"]:
        raise EngineError(f"it runs another fatwheel {ours['fatwheel']}: its code differs")


def check_identity(found: Any, ours: Mapping[str, str]) -> None:
    """Raise ToolchainError where a worker's toolchain and system are not those of this machine, in
    what decides what they make (`daskbench.Equipment`)."""
    theirs = found if isinstance(found, dict) else {}
    others = [name for name in ours if theirs.get(name) != ours[name]]
    if others:
        raise ToolchainError(
            f"not as on the build's machine: {', '.join(others)}",
            details=[
                f"{name}: {clean(str(theirs.get(name))[:_SHOWN])} there, {ours[name][:_SHOWN]} here"
                for name in others
                if name in _TELLING
            ],
        )


def too_large(job: Job, member: PoolMember) -> str:
    """What is told of a job that no worker can hold."""
    return (
        f"{job.label} may need {size(job.memory)}, more than any worker has: it gets all of "
        f"{member.name}, the largest, which has {size(member.limits.memory)}"
    )


def elsewhere(error: FatwheelError, name: str) -> FatwheelError:
    """A worker's error, as it is told here: the folders that it names are there."""
    if not isinstance(error, CompileError | FormatError):
        return error
    hint = f"on {name}: {error.hint}" if error.hint else f"it ran on {name}"
    return type(error)(error.what, where=error.where, details=error.details, hint=hint)


def in_words(error: BaseException) -> str:
    if isinstance(error, FatwheelError):
        return "; ".join([error.what, *error.details[-12:]])
    return clean(" ".join(str(error).split())[:300]) or type(error).__name__
