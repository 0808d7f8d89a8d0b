"""The tasks `render` and `image`: a toolchain's images as build contexts, and on an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from . import ui
from .ui.arguments import folder_of
from .ui.ending import reported

if TYPE_CHECKING:
    from .images.build import Image
    from .model import Toolchain

_HELP = {
    "toolchain": "compilers and libraries: a file of toolchains/ (default: linux-cuda13.0, or "
    "windows-msvc17.8-cuda12.3 where containers are Windows')",
    "python": "Pythons to have images for, comma-separated: 3.10,3.11 (default: as for build)",
    "torch": "torch in the images, as 2.11.0 (default: the toolchain's own choice)",
    "json": "print one JSON document instead of a table",
}


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "out": "folder for the build contexts (default: contexts)",
        "fetch": "also fetch the files that the images are made of, so that the contexts are "
        "complete",
    },
)
def render(
    c: Context,
    toolchain: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    out: str = "contexts",
    fetch: bool = False,
    json: bool = False,
) -> None:
    """
    Write the Dockerfiles of a toolchain's images, and all that they copy, into folders.

    Needs no container engine. `invoke image` builds the same without the folders.

      invoke render --toolchain windows-msvc17.8-cuda12.3
      invoke render --python 3.11 --fetch --out contexts
    """
    with reported():
        from .cache import cache_folder
        from .images.bases import VARIABLE, named_bases
        from .images.render import render as write

        chosen, pythons, wanted = _chosen(toolchain, python, torch, engine=None)
        with ui.board() as emit:
            cache = cache_folder() if fetch else None
            bases = named_bases()
            if bases.keys() & set(pythons):
                ui.show_note(f"tags will be others on the engine: {VARIABLE} names images there")
            made = write(chosen, pythons, wanted, bases, folder_of("--out", out), cache, emit)
        if json:
            ui.show_json({"contexts": [one.to_json() for one in made]})
        else:
            ui.show_contexts(made)


@task(auto_shortflags=False, help=_HELP)
def image(
    c: Context,
    toolchain: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    json: bool = False,
) -> None:
    """
    Build a toolchain's container images, unless the engine has them already.

    `invoke build --engine docker` does so by itself. Files are fetched and checked on this
    machine; a build that failed goes on where it was. Images stay on the engine: the licences of
    MSVC and CUDA forbid to push them anywhere.

      invoke image --python 3.11,3.13
      invoke image --toolchain windows-msvc17.8-cuda12.3 --torch 2.1.1
      FATWHEEL_BASES=3.11=my-base:1 invoke image --python 3.11
    """
    with reported():
        from .cache import cache_folder
        from .containers.client import connect
        from .images.build import ensure_images

        chosen, pythons, wanted = _chosen(toolchain, python, torch, engine="docker")
        with ui.board() as emit:
            engine = connect()
            every = [
                one
                for each in pythons
                for one in ensure_images(engine, chosen, each, wanted, cache_folder(), emit)
            ]
        # Several Pythons may share a toolchain image, which the first one built.
        images: dict[str, Image] = {}
        for one in every:
            images.setdefault(one.tag, one)
        if json:
            ui.show_json({"images": [one.to_json() for one in images.values()]})
        else:
            ui.show_images(list(images.values()))


def _chosen(
    toolchain: str | None, python: str | None, torch: str | None, engine: str | None
) -> tuple[Toolchain, tuple[str, ...], str]:
    from .prepare import choose
    from .workplaces.choose import default_toolchain

    return choose(toolchain or default_toolchain(engine), python, torch)
