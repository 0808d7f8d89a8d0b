"""One target's sources and compilers, ready where they are: on this machine or in a container.

An Order says what is there. Its upstream build captures the units and assembles the wheel; in
between, `laid_out` shows the sources to compilers at the path where they always are.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..model import Environment, Front, Unit
from .context import Context, archlist, digest
from .lookup import Lookup, SliceDigests, look_up, slice_digests
from .sight import NVCC
from .upstream import Project, Upstream
from .variables import bare_variables
from .view import Places, compiler_files, shared_sources, shown_at


@dataclass(frozen=True)
class Order:
    """What a workshop is made of.

    name:        of the project's folder in the view, `flash-attn-2.3.6`.
    project:     its root may be written into.
    cxx:         the host compiler; host_id: the digest of what it is made of.
    python:      the interpreter that runs the stand-ins for compilers.
    seeded:      whether nvcc has -frandom-seed.
    variables:   what compilers need besides PATH, LC_ALL and SOURCE_DATE_EPOCH.
    store_trunks: the folders of stores that may only be read (see `branch`).
    work:        a folder of the workshop's own.
    """

    name: str
    project: Project
    environment: Environment
    cxx: str
    host_id: str
    python: str
    seeded: bool
    variables: tuple[tuple[str, str], ...]
    store_root: str
    store_limit: int
    store_trunks: tuple[str, ...]
    work: str


@dataclass(frozen=True)
class Workshop:
    """An order, and the places where compilers see what belongs to it."""

    order: Order
    places: Places

    def context(self, fronts: Sequence[Front]) -> Context:
        """The compile context for these fronts: they decide __CUDA_ARCH_LIST__."""
        order = self.order
        scratch = Path(order.work, "scratch")
        scratch.mkdir(parents=True, exist_ok=True)
        return Context(
            nvcc=os.path.join("@cuda@", "bin", NVCC),
            cxx=order.cxx,
            device_id=order.environment.compiler_id,
            host_id=order.host_id,
            seeded=order.seeded,
            archlist=archlist(fronts),
            places=self.places,
            environment=(
                *bare_variables().items(),
                ("SOURCE_DATE_EPOCH", str(order.project.epoch)),
                *order.variables,
            ),
            scratch=str(scratch),
            store_root=order.store_root,
            store_limit=order.store_limit,
            store_trunks=order.store_trunks,
        )

    def look_up(self, units: Sequence[Unit], fronts: Sequence[Front], threads: int) -> Lookup:
        """What the store answers; the rest as jobs."""
        return look_up(units, lambda unit: fronts, self.context(fronts), threads)

    def slice_digests(self, units: Sequence[Unit], fronts: Sequence[Front]) -> SliceDigests:
        """sha256 of every slice that the store has of these units."""
        return slice_digests(units, fronts, self.context(fronts))


def upstream_of(order: Order) -> Upstream:
    """The project's own build, in the order's work folder."""
    work = Path(order.work, "upstream")
    return Upstream(order.project, order.environment, order.cxx, work, order.python)


@contextmanager
def laid_out(order: Order, origin: Path) -> Iterator[Workshop]:
    """Show the sources below `origin` in the view until the block ends.

    origin is the project's folder after capture, or a copy of the view made then. Raises
    StoreError where the view cannot be made.
    """
    files = compiler_files(origin)
    environment = order.environment
    with shared_sources(order.name, origin, files) as found:
        source, root = shown_at(found)
        places = Places(
            source=source,
            links=(
                ("site", str(environment.site)),
                ("env", str(environment.root)),
                ("cuda", str(environment.cuda_home)),
                ("python", str(environment.include)),
            ),
            listing=digest(sorted(files)),
            root=root,
        )
        yield Workshop(order, places)
