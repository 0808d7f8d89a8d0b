"""Commands for toolchains and their images: toolchains, lock, render, image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from ..errors import UsageError
from ..shipped import DEFAULT_TOOLCHAINS as DEFAULT
from .arguments import CUDA, LICENSE, PLATFORM, accept_license, folder_of, reported

if TYPE_CHECKING:
    from ..containers.imagebuild import ContainerImage
    from ..pins.lock import LockReport

_HELP = {
    "toolchain": "compilers and libraries: a file of toolchains/ (default: "
    f"{DEFAULT['linux']}; where the container engine runs Windows containers, "
    f"{DEFAULT['windows']})",
    "python": (
        "Python versions to make images for, comma-separated: 3.10,3.11 (default: as for build)"
    ),
    "cuda": CUDA,
    "torch": "torch in the images, such as 2.8 (default: the toolchain's default)",
    "platform": PLATFORM,
    "json": "print one JSON document instead of a table",
}


@task(
    auto_shortflags=False,
    help={
        "platform": "only what is for linux-x86_64, linux-aarch64 or windows-x86_64",
        "json": "print one JSON document instead of tables",
    },
)
def toolchains(c: Context, platform: str | None = None, json: bool = False) -> None:
    """
    List the toolchains: those with a name, and what can be composed.

    `invoke build` takes a name with --toolchain; or --cuda, --torch, --python and --platform, of
    which you may leave out any. A file whose sha256 is not known yet is not used: `invoke lock`
    asks its publisher.

      invoke toolchains --platform windows-x86_64
    """
    with reported():
        from ..config.compose import platform_of
        from ..pipeline.overview import overview
        from ..shipped import toolchain_folders
        from .results import show_json, show_overview

        wanted = None if platform is None else platform_of(platform)
        found = overview(toolchain_folders(), wanted)
        if json:
            show_json(found.to_json())
        else:
            show_overview(found)


@task(
    auto_shortflags=False,
    help={
        "kernel": "a recipe: pin what its build requires and the toolchain lacks",
        "toolchain": "a file of toolchains/ (default: all of them, and all parts; with --kernel: "
        f"{DEFAULT['linux']}, and several are taken)",
        "cuda": "releases of CUDA to look up, comma-separated: 13.2 for the newest, or 13.2.1",
        "torch": "releases of torch to look up, comma-separated: 2.13, or 2.13.0",
        "python": "Pythons to look up for --torch, or for every torch there is: 3.15",
        "platform": "only for these, comma-separated: linux-x86_64, linux-aarch64, windows-x86_64",
        "host-build": "with --toolchain: take the newest base image that this Windows host runs, "
        "such as 20348.2340; `ver` prints it (default: the newest image)",
        "msvc": "MSVCs whose packages to look up, comma-separated: 17.14 (Visual Studio), or 14.44",
        "check": "only compare: write nothing and fetch no files",
        "json": "print one JSON document instead of tables",
    },
)
def lock(
    c: Context,
    kernel: str | None = None,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    host_build: str | None = None,
    msvc: str | None = None,
    check: bool = False,
    json: bool = False,
) -> None:
    """
    Compare pins with what is published, fill in what is not known yet, and look up new releases.

    Sizes, sha256 and digests of images that are missing are asked for and written into the
    toolchain's file; comments stay. Of a toolchain that comes with an installed fatwheel, a copy is
    written to ./toolchains. Where nobody publishes the sha256 of a file, it is fetched
    once, and the table says so.

    With --cuda, --torch or --python, a release is looked up at NVIDIA, at PyTorch and on your
    package index, all that it needs is resolved for every Python and platform (this needs uv), and
    toolchains/parts has it from then on. With --msvc, packages are looked up in Microsoft's
    catalogue of that release of Visual Studio.

    With --kernel, the packages that a project's build requires beside the toolchains' (--toolchain,
    or --cuda, --torch, --python, --platform: one or several each, comma-separated) are resolved and
    written into its recipe. What it has for other toolchains stays, and so do versions that fit.

    What is pinned and is published otherwise stays as it is, and the exit code is 5; it is 4 where
    something could not be reached.

      invoke lock --toolchain windows-msvc17.8-cuda12.3
      invoke lock --cuda 13.2 --torch 2.13
      invoke lock --python 3.15 --platform linux-x86_64
      invoke lock --kernel torchmcubes
      invoke lock --kernel torchmcubes --cuda 12.8,13.0 --platform linux-x86_64,windows-x86_64
      invoke lock --check --json
    """
    with reported():
        from ..config.toolchains import list_toolchains, names_parts, toolchain_file
        from ..containers.render import FILES
        from ..pins.check import check_parts
        from ..pins.lock import lock_toolchains, refusal
        from ..pins.parts import PartsRequest, lock_named, lock_parts
        from ..pins.published import parse_host_build
        from ..pipeline.lockrecipe import lock_recipe
        from ..pipeline.resolve import ToolchainRequest
        from ..shipped import toolchain_folders
        from ..storage.cache import cache_folder
        from .progress import board

        if kernel is not None:
            requests = [
                ToolchainRequest(DEFAULT["linux"], one or None, cuda, torch, python, place or None)
                for one in (toolchain or "").split(",")
                for place in (platform or "").split(",")
            ]
            with board() as emit:
                reports = [lock_recipe(kernel, requests, emit, write=not check)]
            _show_locks(reports, json)
            return
        folders, cache = toolchain_folders(), cache_folder()
        request = PartsRequest.of(cuda, torch, python, platform, msvc)
        if request and toolchain:
            raise UsageError(
                "a toolchain's file and releases are locked one after the other",
                where="--toolchain",
                hint="leave out --toolchain, or --cuda, --torch, --python, --platform and --msvc",
            )
        host = None if host_build is None else parse_host_build(host_build)
        if host_build is not None and (host is None or not toolchain):
            raise UsageError(
                f"{host_build!r} is not the version of a Windows host"
                if host is None
                else "which toolchain's base image the host must run is not said",
                where="--host-build",
                hint="valid: --toolchain windows-msvc17.8-cuda12.3 --host-build 20348.2340",
            )
        with board() as emit:
            places = (folders, cache, cache / FILES, emit)
            if request:
                reports = lock_parts(request, *places, write=not check)
            else:
                names = [toolchain] if toolchain else list_toolchains(*folders)
                # Others pin nothing themselves.
                pinned = [one for one in names if not names_parts(toolchain_file(one, *folders))]
                reports = lock_toolchains(
                    pinned, folders, cache / FILES, emit, write=not check, host=host
                )
                if toolchain is None:
                    reports += check_parts(*places, write=not check)
                elif not pinned:
                    reports += lock_named(toolchain, *places, write=not check, host=host)
        _show_locks(reports, json)
        trouble = refusal(reports)
        if trouble:
            raise trouble


def _show_locks(reports: Sequence[LockReport], json: bool) -> None:
    from .results import show_json, show_locks

    if json:
        show_json({"toolchains": [report.to_json() for report in reports]})
    else:
        show_locks(reports)


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "out": "folder for the build contexts (default: contexts)",
        "fetch": "also fetch the files that the images are made of, so that the contexts are "
        "complete",
        "wine": "for Windows toolchains: the Linux image with Wine, not the Windows images",
        "accept-msvc-license": LICENSE,
    },
)
def render(
    c: Context,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    out: str = "contexts",
    fetch: bool = False,
    wine: bool = False,
    accept_msvc_license: bool = False,
    json: bool = False,
) -> None:
    """
    Write the Dockerfiles of a toolchain's images, and all that they copy, into folders.

    Needs no container engine. `invoke image` builds the same without the folders.

      invoke render --toolchain windows-msvc17.8-cuda12.3
      invoke render --python 3.11 --fetch --out contexts
    """
    with reported():
        from ..containers.contexts import VARIABLE, named_bases
        from ..containers.render import render as write
        from ..engines.registry import toolchain_for
        from ..pipeline.resolve import ToolchainRequest, choose_cells
        from ..storage.cache import cache_folder
        from .console import show_note
        from .progress import board
        from .results import show_contexts, show_json

        asked = ToolchainRequest(toolchain_for(None), toolchain, cuda, torch, python, platform)
        cells = choose_cells(asked)
        accept_license(accept_msvc_license)
        with board() as emit:
            cache = cache_folder() if fetch else None
            bases = named_bases()
            if bases.keys() & {cell.python for cell in cells}:
                show_note(f"tags will differ on the engine: {VARIABLE} names images there")
            made = write(cells, bases, folder_of("--out", out), cache, emit, wine=wine)
        if json:
            show_json({"contexts": [one.to_json() for one in made]})
        else:
            show_contexts(made)


@task(auto_shortflags=False, help={**_HELP, "accept-msvc-license": LICENSE})
def image(
    c: Context,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    accept_msvc_license: bool = False,
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
        from ..containers.client import connect
        from ..containers.imagebuild import ensure_images
        from ..engines.registry import images_toolchain
        from ..pipeline.resolve import ToolchainRequest, choose_cells
        from ..storage.cache import cache_folder
        from .progress import board
        from .results import show_images, show_json

        asked = ToolchainRequest(images_toolchain(), toolchain, cuda, torch, python, platform)
        cells = choose_cells(asked)
        accept_license(accept_msvc_license)
        with board() as emit:
            engine = connect()
            every = [
                one
                for cell in cells
                for one in ensure_images(
                    engine, cell.toolchain, cell.python, cell.torch, cache_folder(), emit
                )
            ]
        # Several Pythons may share a toolchain image, which the first one built.
        images: dict[str, ContainerImage] = {}
        for one in every:
            images.setdefault(one.tag, one)
        if json:
            show_json({"images": [one.to_json() for one in images.values()]})
        else:
            show_images(list(images.values()))
