"""One share of a build, made by one of several machines, and what the others made, taken.

What is assembled at the end is the same wheel that one machine alone would have made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..config.recipe import Recipe
from ..containers.commandlines import quoted
from ..engines.base import Build, Capture
from ..errors import FatwheelError, UsageError
from ..events import Emit, Note, step
from ..model import Front, Job, Unit
from ..provenance.lock import lock_bytes, lock_of
from ..sharing.parcel import Trust
from ..sharing.shares import (
    ENDING,
    Share,
    check_place,
    divided,
    files_in,
    key_of,
    read_shares,
    take_shares,
    write_share,
)
from ..storage.files import check_writable, disk_error
from ..text import count, size
from ..worker.assemble import Lookup, all_jobs
from ..worker.context import digest
from ..worker.slices import is_native
from .costs import with_recipe_cost
from .scope import FORMAT


@dataclass(frozen=True)
class ShareOrder:
    """A share to make. file: where it goes; None where the remote has it."""

    share: Share
    file: Path | None


@dataclass(frozen=True)
class ShareMade:
    """A share that was made. jobs: how many it has; left: how many of them are not done; compiled:
    how many ran now. size: of its file in bytes, 0 where there is none."""

    share: Share
    file: Path | None
    jobs: int
    left: int
    compiled: int
    size: int


def division(
    capture: Capture, recipe: Recipe, build: Build, shares: int
) -> Sequence[Sequence[Job]]:
    """The jobs of each share, the same on every machine: by the recipe's costs, of all jobs."""
    jobs = all_jobs(capture.units, build.fronts)
    return divided((with_recipe_cost(job, recipe) for job in jobs), shares)


def facts_of(build: Build, capture: Capture, front: str) -> dict[str, str]:
    """What two machines must have in common to make shares of one build."""
    target, host = build.target, capture.host
    lock = hashlib.sha256(lock_bytes(lock_of(target, host))).hexdigest()
    return {
        "project": f"{target.recipe.project} {target.recipe.version}",
        "toolchain": f"{target.toolchain.name} (CUDA {target.toolchain.cuda})",
        "python": host.python,
        "torch": target.torch,
        "archs": ",".join(map(str, target.archs)),
        "front": f"{front}: {' '.join(map(_shown, build.fronts))}{_for_units(capture.units)}",
        "compiler": f"{host.compiler} {host.compiler_id[:16]}",
        "lock": lock,
        "fatwheel": f"{__version__}, format {FORMAT}",
    }


def _shown(front: Front) -> str:
    codes = "+".join(front.codes)
    return f"{codes} (split in {front.split})" if front.split else codes


def _for_units(units: Sequence[Unit]) -> str:
    """Which units the fronts are for, where not for all: machines may have different proofs."""
    cuda = [unit for unit in units if unit.kind == "cuda"]
    having = [unit.name for unit in cuda if unit.images is None]
    if len(having) == len(cuda):
        return ""
    return f" for {len(having)} of {count(len(cuda), 'unit')} ({digest(having)[:16]})"


def check_order(order: ShareOrder) -> None:
    """Refuse a file for a share that cannot be written, before hours of compiling. One from an
    earlier run may be there. Raises UsageError, StoreError."""
    if order.file:
        check_place(order.file, "--share-to")
        check_writable(order.file.absolute().parent, "write the share", "--share-to FILE")


def leave_share(
    order: ShareOrder, build: Build, capture: Capture, scope: str, front: str, compiled: int,
    trust: Trust, *, stopped: bool,
) -> ShareMade:  # fmt: skip
    """Write what the jobs of a share made into its file, if it has one. stopped: some of them may
    not be done, and the file says how many."""
    jobs = division(capture, build.target.recipe, build, order.share.count)[order.share.number - 1]
    if order.file is None:
        return ShareMade(order.share, None, len(jobs), 0, compiled, 0)
    facts = {**facts_of(build, capture, front), "share": str(order.share)}
    everything, found = all_jobs(capture.units, build.fronts), capture.look_again()
    pending = set(map(key_of, found.pending))
    left = {job for job in jobs if stopped and key_of(job) in pending}
    try:
        check_place(order.file, "--share-to")  # hours after it was looked at first
        order.file.parent.mkdir(parents=True, exist_ok=True)
        write_share(
            order.file, everything, found, jobs, build.store, scope, facts, trust, left
        )  # fmt: skip
        written = order.file.stat().st_size
    except OSError as error:
        failed = disk_error(error, "write the share", order.file, "--share-to FILE")
        raise _nothing_lost(failed) from error
    except UsageError as error:
        raise _nothing_lost(error) from error
    return ShareMade(order.share, order.file, len(jobs), len(left), compiled, written)


def _nothing_lost(error: FatwheelError) -> FatwheelError:
    """The error of a share that cannot be written when all is compiled."""
    kept = "What was compiled is kept: the same command compiles nothing again"
    hint = f"{error.hint}. {kept}" if error.hint else kept
    return type(error)(error.what, where=error.where, hint=hint, details=error.details)


def taken(
    folder: Path, build: Build, capture: Capture, found: Lookup, scope: str, front: str,
    trust: Trust, emit: Emit, *, all_of_them: bool = True,
) -> Lookup:  # fmt: skip
    """What is left to do when all shares in a folder are in the store. found: what was before.

    all_of_them: whether nothing of them may be left. Raises UsageError where some is, and where one
    is of another build.
    """
    files = files_in(folder, "--from-shares")
    facts = facts_of(build, capture, front)
    with step(emit, "shares", count(len(files), "file")):
        read = read_shares(files, scope, facts, trust)
        found = take_shares(read, capture, found, build.store, trust)
    shares = [one.share for one in read]
    sizes = size(sum(file.stat().st_size for file in files))
    emit(Note(f"{count(len(set(shares)), 'share')} of {shares[0].count} taken, {sizes}"))
    if not all_of_them:
        return found
    # What is compiled for this machine's own processor is not in shares.
    left = {key_of(job) for job in found.pending if not is_native(job.unit)}
    every = division(capture, build.target.recipe, build, shares[0].count)
    whole = {one.share.number for one in read if not one.left}
    for number, jobs in enumerate(every, 1):
        lacking = [job for job in jobs if key_of(job) in left]
        if lacking and number not in whole:
            share = Share(number, shares[0].count)
            raise _lacking(share, lacking, folder, begun=share in shares)
    return found


def _lacking(share: Share, lacking: Sequence[Job], folder: Path, *, begun: bool) -> UsageError:
    file = folder / f"{share.number}-of-{share.count}{ENDING}"
    shown, there = (
        quoted([str(path)], "windows" if os.name == "nt" else "linux") for path in (file, folder)
    )
    order = f"--only-shard {share} --share-to {shown}"
    if begun:
        state, how = "not complete", f"go on with it: the same command with {order} beside "
    else:
        state, how = "missing", f"make it: the same command with {order} in place of "
    return UsageError(
        f"share {share} is {state}: {count(len(lacking), 'job')} of it "
        f"{'is' if len(lacking) == 1 else 'are'} not compiled",
        where=str(folder),
        details=[*(job.label for job in lacking[:5]), *(["…"] if len(lacking) > 5 else [])],
        hint=how + (f"--from-shares {there}" if begun else "--from-shares"),
    )
