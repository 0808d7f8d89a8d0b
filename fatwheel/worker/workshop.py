"""The sources and compilers of one target, ready for use on this machine or in a container.

An Order says what is there. Its upstream build captures the units and assembles the wheel; in
between, `laid_out` shows the sources to compilers at the path where they always are, and gives the
context in which they compile.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError
from ..model import Environment, Front
from .context import Context, digest
from .processes import bare_variables
from .roots import NVCC, Root, choose_root
from .upstream import Project, Upstream
from .view import Places, compiler_files, shared_sources

UPSTREAM = "upstream"  # the folder in an order's work folder where upstream's build runs


@dataclass(frozen=True)
class Order:
    """What a target is built from and with.

    name:        of the project's folder in the view, `flash-attn-2.3.6`.
    project:     its source may be written into.
    cxx:         the host compiler; host_id: the digest of what it is made of.
    python:      the interpreter that runs the stand-ins for compilers.
    seeded:      whether nvcc has -frandom-seed.
    variables:   what compilers need besides PATH, LC_ALL and SOURCE_DATE_EPOCH.
    store_scope: of the entries that the build reads and writes.
    store_trunks: folders of stores that may only be read (see `storage.store`).
    work:        a folder of the workshop's own.
    audit:       see `context.Context`.
    refuge:      a folder of the user's own, made where sources cannot lie at the fixed path.
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
    store_scope: str
    store_trunks: tuple[str, ...]
    work: str
    refuge: str
    audit: int = -1


def upstream_of(order: Order) -> Upstream:
    """The project's own build, in the order's work folder."""
    work = Path(order.work, UPSTREAM)
    return Upstream(order.project, order.environment, order.cxx, work, order.python)


def untold(words: str) -> None:
    """For who has nobody to tell."""


@contextmanager
def laid_out(
    order: Order, origin: Path, fronts: Sequence[Front], tell: Callable[[str], None] = untold
) -> Iterator[Context]:
    """Show the sources below `origin` in the view until the block ends; gives the context in which
    they are compiled.

    origin is the source's folder after capture, or a copy of the view made then. fronts decide
    __CUDA_ARCH_LIST__. tell: gets what the user must know of wheels made here. Raises StoreError
    where the view cannot be made.
    """
    inside = order.project.subdirectory
    files = compiler_files(origin, inside)
    environment = order.environment
    links = (
        ("site", str(environment.site)),
        ("env", str(environment.root)),
        ("cuda", str(environment.cuda_home)),
        ("python", str(environment.include)),
    )
    root = _root(order, links)
    with shared_sources(root.folder, order.name, origin, files, inside) as source:
        if root.note:
            tell(root.note)
        places = Places(
            source=root.seen(source),
            links=links,
            listing=digest(sorted(files)),
            files=tuple(sorted(files.items())),
            cover=root.cover,
        )
        yield _context(order, places, fronts)


def _context(order: Order, places: Places, fronts: Sequence[Front]) -> Context:
    scratch = Path(order.work, "scratch")
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(
        nvcc=os.path.join("@cuda@", "bin", NVCC),
        cxx=order.cxx,
        device_id=order.environment.compiler_id,
        host_id=order.host_id,
        seeded=order.seeded,
        fronts=tuple(fronts),
        places=places,
        environment=(
            *bare_variables().items(),
            ("SOURCE_DATE_EPOCH", str(order.project.epoch)),
            *order.variables,
        ),
        scratch=str(scratch),
        store_root=order.store_root,
        store_limit=order.store_limit,
        store_scope=order.store_scope,
        store_trunks=order.store_trunks,
        audit=order.audit,
    )


def _root(order: Order, links: tuple[tuple[str, str], ...]) -> Root:
    variables = {**bare_variables(), **dict(order.variables)}
    programs = [order.cxx, *filter(None, variables["PATH"].split(os.pathsep))]
    needed = [order.work, *programs, *(folder for _, folder in links)]
    try:
        return choose_root(Path(order.refuge), needed)
    except OSError as error:
        raise StoreError(
            f"cannot make a folder for the project's sources: {error.strerror}", where=order.refuge
        ) from error
