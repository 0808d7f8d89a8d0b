"""Shares of a build: which jobs each of several machines does, and the files that they leave.

Machines that are given the same build divide it alike, whatever each has in its store: all jobs
count, by what the recipe says of their costs. The longest goes to the share that has the least so
far; so no share is more than one job longer than another.

A share's file is a parcel (`sharing.parcel`) with all that its jobs make, and the facts by which
the machine that assembles knows that it is of the very same build. It may come from anywhere:
nothing of it is used before all of it was found right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import Arch
from ..engines.base import Capture
from ..errors import FatwheelError, FormatError, UsageError, VerifyError
from ..model import Job, Unit
from ..storage.files import copy, readable, replacing
from ..storage.store import Store
from ..text import size as in_words
from ..worker.assemble import Lookup
from ..worker.context import digest
from ..worker.slices import cost_key, is_native
from .build import take_entry
from .parcel import Parcel, Piece, Trust, contents, read_head, write_parcel

ENDING = ".share"
_MOST_SHARES = 1000
MOST_SIZE = 16 << 30  # bytes of all entries of a share: as much as the largest wheel may have
_LEFT = "left"  # the fact that says how many jobs of a share were not done when its time was up
_KINDS = ("text", "seen", "slice", "abi", "host", "cost")

_Key = tuple[Unit, Arch | None]


@dataclass(frozen=True)
class Share:
    """One of several parts of a build: the second of six is `2/6`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_share(option: str, words: str) -> Share:
    """A share as of --only-shard. Raises UsageError."""
    found = re.fullmatch("([0-9]{1,4})/([0-9]{1,4})", words)
    share = Share(int(found[1]), int(found[2])) if found else Share(0, 0)
    if not 1 <= share.number <= share.count <= _MOST_SHARES:
        raise UsageError(
            f"{words[:40]!r} is no share", where=option,
            hint=f"valid: for six machines 1/6 to 6/6, one each; at most {_MOST_SHARES} machines",
        )  # fmt: skip
    return share


# -- which jobs ------------------------------------------------------------------------------------


def divided(jobs: Iterable[Job], count: int) -> tuple[tuple[Job, ...], ...]:
    """All jobs of a build, with their costs by the recipe, in so many shares."""
    shares: list[list[Job]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for job in sorted(jobs, key=lambda job: (-job.seconds, job.label, digest(job.unit.codegen))):
        least = min(range(count), key=lambda number: (sums[number], number))
        shares[least].append(job)
        sums[least] += job.seconds
    return tuple(map(tuple, shares))


def only(lookup: Lookup, share: Iterable[Job]) -> Lookup:
    """What is left to do of a share."""
    wanted = set(map(key_of, share))
    return replace(lookup, pending=tuple(job for job in lookup.pending if key_of(job) in wanted))


def key_of(job: Job) -> _Key:
    """What job this is, whichever of its images are wanted."""
    return job.unit, job.front.virtual if job.front else None


# -- files -----------------------------------------------------------------------------------------


def write_share(
    file: Path, jobs: Sequence[Job], lookup: Lookup, share: Iterable[Job], store: Store,
    scope: str, facts: Mapping[str, str], trust: Trust, left: Set[Job] = frozenset(),
) -> Parcel:  # fmt: skip
    """Write all that a share's jobs made into a file. jobs: all of the build, in the order of
    `Lookup.made`. left: those of the share that were not done; what is there of them goes along.

    Raises OSError, FormatError where something is missing, and UsageError where it is too much.
    """
    wanted, undone = set(map(key_of, share)), set(map(key_of, left))
    keys: dict[tuple[str, str], None] = {}
    for job, made in zip(jobs, lookup.made, strict=True):
        if key_of(job) not in wanted:
            continue
        if key_of(job) in undone:
            made = tuple(pair for pair in made if _is_there(store, *pair))
        else:
            _check_complete(job, made)
        # What is for this machine's own processor stays here.
        own = [pair for pair in made if not (pair[0] == "host" and is_native(job.unit))]
        keys.update(dict.fromkeys(own))
        keys.update({("abi", key): None for kind, key in made if kind == "slice"})
    costs = [("cost", cost_key(job)) for job in share]
    pieces, size = [], 0
    for kind, key in (*keys, *costs):
        data = store.file(kind, key)  # gigabytes in all: none is read before it is written
        if data is not None:
            pieces.append(Piece(kind, key, data))
            size += data.stat().st_size
        elif kind != "cost":
            raise FormatError(f"{kind}/{key[:16]} is missing from the store", where=str(file))
        if size > MOST_SIZE:
            raise UsageError(
                f"this share has more than {in_words(MOST_SIZE)}", where=str(file),
                hint="divide the build into more shares",
            )  # fmt: skip
    about = {**facts, _LEFT: str(len(undone))} if undone else facts
    with replacing(file) as out:
        return write_parcel(out, _name(about), scope, pieces, trust, about)


def _is_there(store: Store, kind: str, key: str) -> bool:
    return store.has(kind, key) and (kind != "slice" or store.has("abi", key))


def _check_complete(job: Job, made: Sequence[tuple[str, str]]) -> None:
    kinds = [kind for kind, _ in made]
    slices = len(job.front.codes) if job.front else 0
    if kinds.count("slice") != slices or kinds.count("host") != job.host:
        raise FormatError("a job's results are missing from the store", where=job.label)


def files_in(folder: Path, option: str) -> tuple[Path, ...]:
    """The shares in a folder. Raises UsageError where there is none."""
    hint = f"valid: a folder with the files that --share-to wrote, *{ENDING}"
    try:
        found = sorted(path for path in folder.iterdir() if path.name.endswith(ENDING))
    except OSError as error:
        raise UsageError(
            f"cannot look for shares in {folder}: {error.strerror}", where=option, hint=hint
        ) from error
    if not found:
        raise UsageError(f"there is no share in {folder}", where=option, hint=hint)
    return tuple(found)


def check_place(file: Path, option: str) -> None:
    """Refuse to write a share over anything but an earlier one. Raises UsageError."""
    if not os.path.lexists(file):
        return
    hint = f"name a new file, NAME{ENDING}"
    if not file.is_file():
        raise UsageError(f"{file} is no file", where=option, hint=hint)
    try:
        with readable(file, f"a file that {option} wrote"), file.open("rb") as stream:
            is_share = "share" in read_head(stream, str(file), Trust()).about
    except (FormatError, VerifyError):
        is_share = False
    if not is_share:
        raise UsageError(f"{file} is there, and is no share", where=option, hint=hint)


@dataclass(frozen=True)
class ShareFile:
    """A share's file that was found right, and what it says is inside. left: how many jobs of the
    share were not done when its time was up."""

    file: Path
    share: Share
    left: int
    parcel: Parcel


def read_shares(
    files: Sequence[Path], scope: str, facts: Mapping[str, str], trust: Trust
) -> tuple[ShareFile, ...]:
    """Read shares' files to their ends; nothing of them is kept.

    facts: those of this build, but for `share`. Raises UsageError, FormatError or VerifyError that
    names the file.
    """
    found = tuple(_checked(file, scope, facts, trust) for file in files)
    if len({one.share.count for one in found}) > 1:
        raise UsageError(
            f"these shares are of different divisions: "
            f"{', '.join(str(one.share) for one in found)}",
            where=str(files[0].parent),
            hint="use the shares of one run alone",
        )
    return found


def take_shares(
    shares: Sequence[ShareFile], capture: Capture, found: Lookup, store: Store, trust: Trust
) -> Lookup:
    """Put what shares made into a store, as far as this build asks for it; what is left to do.

    As from a remote, nothing else comes in: what a file holds for other builds is not believed.
    found: what the build lacks before. Raises as `read_shares`, where a file has changed since.
    """
    texts = {key for one in found.passes for key in (*one.texts, *one.seen)}
    wanted = {(kind, key) for kind in ("text", "seen") for key in texts}
    asked: set[tuple[str, str]] = set()
    while wanted - asked:
        asked |= wanted
        for share in shares:
            _take(share, wanted, store, trust)
        found = capture.look_again()
        wanted = set(found.absent) | {("abi", key) for kind, key in found.absent if kind == "slice"}
    return found


def _take(share: ShareFile, wanted: Set[tuple[str, str]], store: Store, trust: Trust) -> None:
    where = str(share.file)
    with _reading(share.file), share.file.open("rb") as stream:
        if read_head(stream, where, trust) != share.parcel:
            raise FormatError("it was changed while it was read", where=where)
        for item, data in contents(stream, share.parcel, where):
            if item.kind == "cost" or (item.kind, item.key) in wanted:
                take_entry(item, data, store)


def _checked(file: Path, scope: str, facts: Mapping[str, str], trust: Trust) -> ShareFile:
    where = str(file)
    with _reading(file), file.open("rb") as stream:
        parcel = read_head(stream, where, trust)
        if parcel.size > MOST_SIZE:
            raise FormatError(
                f"its entries have {in_words(parcel.size)}; {in_words(MOST_SIZE)} are the most",
                where=where,
            )
        _check_facts(parcel, scope, facts, where)
        for item, data in contents(stream, parcel, where):
            if item.kind not in _KINDS:
                raise FormatError(f"it has an entry of kind {item.kind}", where=where)
            copy(data, None)
    share = parse_share(where, parcel.about["share"])
    return ShareFile(file, share, _left_in(parcel, where), parcel)


def _left_in(parcel: Parcel, where: str) -> int:
    words = parcel.about.get(_LEFT, "0")
    if not re.fullmatch("[0-9]{1,6}", words):
        raise FormatError("it does not say how many of its jobs are left", where=where)
    return int(words)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What to do where a share's file is not right."""
    try:
        with readable(file, f"a file that --share-to wrote, *{ENDING}"):
            yield
    except (FormatError, VerifyError) as error:
        raise _with_hint(error) from error


def _with_hint(error: FatwheelError) -> FatwheelError:
    hint = error.hint or "nothing of it was used. Get it again, or make the share again"
    return type(error)(error.what, where=error.where, hint=hint, details=error.details)


def _check_facts(parcel: Parcel, scope: str, facts: Mapping[str, str], where: str) -> None:
    """Refuse a share of another build, by what differs."""
    about = dict(parcel.about)
    if "share" not in about:
        raise FormatError("it does not say which share it is", where=where)
    differing = [name for name, value in facts.items() if about.get(name) != value]
    if differing:
        raise UsageError(
            "this share is of another build",
            where=where,
            details=[
                f"{name}: {about.get(name, 'not said')}; here {facts[name]}" for name in differing
            ],
            hint="make all shares with the same options, the same fatwheel and the same lock "
            "(--locked), on machines with the same compilers, or in containers",
        )
    if parcel.scope != scope or parcel.name != _name(about):
        raise UsageError(
            "this share is of another project, or was compiled in another place", where=where,
            hint="make all shares with the same recipe and engine",
        )  # fmt: skip


def _name(facts: Mapping[str, str]) -> str:
    return f"share/{digest(sorted(facts.items()))}"
