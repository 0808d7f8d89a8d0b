"""What both kinds of workplaces offer.

Premises are tools or images made ready: they know what a finished wheel depends on. A workplace is
there once the project is captured. Both kinds do the same things in the same order; what differs
between them ends here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..build.lookup import Lookup, SliceDigests
from ..engines.allot import Limits
from ..engines.base import Engine
from ..events import Emit
from ..model import Front, Host, Material, Target
from ..prepare import Stores
from ..store import Store


class Workplace(Protocol):
    """A captured target. store: what belongs to it, with its scope. scratch: a folder of this
    build's own. host: what of the machine, or of the image, reaches the wheel."""

    @property
    def engine(self) -> Engine: ...

    @property
    def lookup(self) -> Lookup: ...

    @property
    def host(self) -> Host: ...

    @property
    def store(self) -> Store: ...

    @property
    def scratch(self) -> Path: ...

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        """Upstream's wheel, and the digests of the slices in it."""


class Premises(Protocol):
    """What a target is built with, ready to be used.

    compiler_id: digest of its CUDA compilers. identity: everything of the place that can reach
    the wheel's bytes. materials: what is told of it beside the wheel. cores, memory (bytes): what
    a build may use unless it is told otherwise.
    """

    @property
    def compiler_id(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def materials(self) -> tuple[Material, ...]: ...

    @property
    def cores(self) -> int: ...

    @property
    def memory(self) -> int: ...

    def workplace(
        self,
        target: Target,
        fronts: tuple[Front, ...],
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> AbstractContextManager[Workplace]:
        """Capture the target; what that leaves behind goes when the block ends, but for what is in
        `stores`."""
