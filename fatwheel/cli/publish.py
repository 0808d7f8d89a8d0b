"""Commands that publish wheels: index."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from .arguments import MANGLED, FilesTask, files_of, folder_of, reported


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "the wheels to offer, whoever built them; those that the site has already stay",
        "out": "folder of the site (default: site)",
        "base-url": "where the wheels are, if not in the site: a release of GitHub's, a bucket",
        "metadata-beside": "the files NAME.whl.metadata of OUT/files are under --base-url as well, "
        "so that installers may ask for them",
        "only": "remove wheels from the site that are not named",
        "mangled": MANGLED,
        "json": "print one JSON document instead",
    },
)
def index(
    c: Context,
    wheels: list[str],
    out: str = "site",
    base_url: str = "",
    metadata_beside: bool = False,
    only: bool = False,
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Make a static site that pip and uv install wheels from.

    A simple index of all wheels (OUT/simple/), one for each CUDA and torch (OUT/cu130/torch2.11/),
    and a page that asks for the GPU and names the wheel (OUT/index.html). CUDA, torch and GPUs are
    read from the wheels' bytes. Works from any web server, GitHub Pages, or as files.

      invoke index dist/*.whl --out site
      invoke index dist/*.whl --base-url https://github.com/ORG/REPO/releases/download/TAG
      pip install flash-attn --extra-index-url https://ORG.github.io/REPO/cu130/torch2.11/
    """
    with reported(mangled):
        from ..publish.site import Request, write_site
        from .progress import board
        from .results import show_json, show_site

        request = Request(base_url, metadata_beside, only)
        with board() as emit:
            written = write_site(files_of(wheels), folder_of("--out", out), request, emit)
        if json:
            show_json(written.to_json())
        else:
            show_site(written)
