"""What the containers of a build are: one image, what they see of the host, their limits.

No Docker here: a plan shows the same specifications that the engine gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..containers.layouts import layout_of
from ..containers.specs import ContainerSpec, Mount
from .allot import Limits


@dataclass(frozen=True)
class Station:
    """What all containers of one target have in common.

    image:   the image of its Python and torch; os and os_build are the image's (see Containers).
    python:  as in '3.11'.
    code:    the folder of the package `fatwheel`.
    sources: the folder with the project, and with what capture found in it.
    store:   the store's folder. trunk: of one more store that is read besides.
    """

    image: str
    os: str
    os_build: int
    python: str
    code: Path
    sources: Path
    store: Path
    trunk: Path | None = None

    def container(self, purpose: str, incoming: Path, limits: Limits) -> ContainerSpec:
        """The container for a purpose, which may write to `incoming` and nowhere else."""
        layout = layout_of(self.os)
        start = (
            f"import sys; sys.path.insert(0, {layout.code!r}); "
            "from fatwheel.build.inside import main; main()"
        )
        return ContainerSpec(
            purpose=purpose,
            image=self.image,
            command=(layout.python_of(self.python), "-I", "-B", "-c", start),
            mounts=(
                Mount(str(self.code), layout.package, writable=False),
                Mount(str(self.sources), layout.sources, writable=False),
                Mount(str(self.store), layout.store, writable=False),
                *self._trunk(layout.trunk),
                Mount(str(incoming), layout.incoming, writable=True),
            ),
            cpus=limits.cpus,
            memory=limits.memory,
            os=self.os,
            os_build=self.os_build,
        )

    def _trunk(self, place: str) -> tuple[Mount, ...]:
        return (Mount(str(self.trunk), place, writable=False),) if self.trunk else ()
