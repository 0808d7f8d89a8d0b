"""The stages of an nvcc call, one by one: what is kept of a front, and what is made from it.

A front leaves two things: PTX, from which ptxas makes the code of each architecture, and the stub,
with which the host compiler makes the host object. The store keeps both, so that each of these can
run by itself, at once and anywhere, and so that one architecture more needs no front.

They are run as nvcc itself would (`nvcc --dryrun`), in a folder that looks as it would: what they
make is the same, byte for byte. Standard library only.
"""

from __future__ import annotations

import re
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..compilers.dryrun import Listing, read_listing
from ..compilers.hosts import family_of
from ..compilers.nvcc import SPLIT_COMPILE
from ..errors import ToolchainError
from ..model import Front, Job, Unit
from ..storage.store import Store
from .archs import fronts_of
from .context import Context, digest
from .processes import ProcessUsage, run_measured
from .roots import fitting, job_folder

_LARGEST = 1 << 30  # bytes of PTX; real ones have up to some 100 MB
_QUICK = 1  # zlib's level: PTX shrinks to an eighth, at 100 MB/s and more
# What PTX begins with: comments, `.version 9.0`, `.target sm_80`, `.address_size 64`.
_HEAD = re.compile(rb"(?:[^\n]*\n)*?\.address_size[^\n]*\n")
_MOST_HEAD = 4096


@dataclass(frozen=True)
class Kept:
    """What the store has of a front. ptx: for its host object perhaps no more than the first lines,
    since nothing of it gets there."""

    ptx: bytes
    stub: bytes


def keep_front(context: Context, store: Store, key: str, kept: Kept) -> None:
    """Keep what a front left under its key, where it can be used."""
    if keeps_fronts(context):
        store.put("ptx", key, zlib.compress(kept.ptx, _QUICK))
        store.put("stub", key, kept.stub)


def keeps_fronts(context: Context) -> bool:
    """Whether what a front leaves is kept: where its further steps can be run by themselves."""
    return family_of(context.cxx).lists_steps


def follows_front(job: Job) -> bool:
    """Whether a job is a stage that begins with what its front left."""
    return job.stage in ("ptxas", "host")


def front_key(context: Context, unit: Unit, front: Front, text: str) -> str:
    """What decides a front's PTX and stub: all that decides a slice but for its image."""
    return digest("front", context.device_id, unit.codegen, front.key, text)


def has_front(store: Store, key: str) -> bool:
    return store.has("ptx", key) and store.has("stub", key)


def forget_front(store: Store, key: str) -> None:
    for kind in ("ptx", "stub"):
        store.remove(kind, key)


def kept_front(store: Store, key: str, *, for_host: bool = False) -> Kept | None:
    """What is kept under a front's key; None where it is not, or is not what it should be."""
    packed, stub = store.get("ptx", key), store.get("stub", key)
    if packed is None or stub is None:
        return None
    try:
        if for_host and (head := _HEAD.match(zlib.decompressobj().decompress(packed, _MOST_HEAD))):
            return Kept(head[0], stub)
        unpacking = zlib.decompressobj()
        ptx = unpacking.decompress(packed, _LARGEST)
    except zlib.error:
        return None
    return Kept(ptx, stub) if unpacking.eof else None


def copy_front(store: Store, key: str, other: str, stub: bytes) -> bool:
    """Keep a front's PTX under another one's key too, with that one's stub; whether it is there."""
    packed = store.get("ptx", key)
    if packed is None:
        return False
    store.put("ptx", other, packed)
    store.put("stub", other, stub)
    return True


# -- running stages --------------------------------------------------------------------------------


def call_of(context: Context, job: Job) -> Job:
    """The nvcc call that lists a stage's steps.

    For ptxas the one for all images of the front: file names depend on how many there are, and
    cubins with debug information hold them.
    """
    assert job.front is not None
    fronts = fronts_of(job.unit, context.fronts)
    codes = next((one.codes for one in fronts if one.virtual == job.front.virtual), ())
    if job.stage == "host" or not set(job.front.codes) <= set(codes):
        return replace(job, stage="whole")
    return replace(job, front=replace(job.front, codes=codes), stage="whole")


def run_stage(
    context: Context, job: Job, command: Sequence[str], folder: Path, kept: Kept
) -> ProcessUsage | None:
    """Run the steps of a stage in a job's folder, from what is kept of its front.

    command: that of `call_of`. None where what nvcc lists is not as it is known to be.
    """
    assert job.front is not None
    try:
        listing = read_listing(dryrun(context, command, folder))
        front = listing.front()
        if job.stage == "host":
            steps = listing.host_steps()
        else:
            steps = listing.device_steps(job.front.codes)
    except (subprocess.CalledProcessError, ValueError):
        return None
    (folder / front.ptx).write_bytes(kept.ptx)
    (folder / front.stub).write_bytes(kept.stub)
    return _total(_run(context, listing, steps, folder))


def run_program(context: Context, command: Sequence[str], folder: Path) -> ProcessUsage | None:
    """Have an nvcc command make the device program and the stub in a job's folder, and no more;
    None where what nvcc lists is not as it is known to be."""
    try:
        listing = read_listing(dryrun(context, command, folder))
        steps = listing.program_steps()
    except (subprocess.CalledProcessError, ValueError):
        return None
    return _total(_run(context, listing, steps, folder))


def _run(
    context: Context, listing: Listing, steps: Iterable[str], folder: Path
) -> Iterable[ProcessUsage]:
    """Run steps of a listing until one fails."""
    variables = {**context.variables(folder), **dict(listing.variables)}
    for step in steps:
        usage = run_measured(context.places.shown(["sh", "-c", step]), folder, variables)
        yield usage
        if usage.returncode != 0:
            return


def _total(usages: Iterable[ProcessUsage]) -> ProcessUsage:
    """What steps that ran one after the other used together."""
    total = ProcessUsage(0, "", 0.0, 0)
    for one in usages:
        output, rss = total.output + one.output, max(total.rss, one.rss)
        total = ProcessUsage(one.returncode, output, total.cpu + one.cpu, rss)
    return total


def check_split(context: Context) -> None:
    """Raise ToolchainError where fronts of the build are to be split and this nvcc cannot do it. It
    is asked: whether it can follows from no version."""
    if not any(front.split for front in context.fronts):
        return
    with job_folder(Path(context.scratch), "options") as folder:
        context.places.link_into(folder)
        try:
            told = _said(context, [context.places.in_view(context.nvcc), "--help"], folder)
        except subprocess.CalledProcessError as error:
            raise ToolchainError(
                f"nvcc --help failed with exit code {error.returncode}",
                details=str(error.output).splitlines(),
            ) from error
    if SPLIT_COMPILE not in told.split():
        raise ToolchainError(
            f"this nvcc has no {SPLIT_COMPILE}, so its optimisers cannot divide the code of a unit",
            hint="a newer CUDA's has it; or use --front shared, and for proofs --ways shared",
        )


def dryrun(context: Context, command: Sequence[str], folder: Path) -> str:
    """What an nvcc command lists with --dryrun. Raises CalledProcessError where it fails."""
    return _said(context, [*command, "--dryrun"], folder)


def _said(context: Context, command: Sequence[str], folder: Path) -> str:
    """What nvcc says. Raises CalledProcessError where it fails."""
    # It lists to stderr on Linux, and to stdout on Windows.
    shown = context.places.shown(command)
    return subprocess.run(
        fitting(shown, folder), cwd=folder, env=context.variables(folder), check=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ).stdout  # fmt: skip
