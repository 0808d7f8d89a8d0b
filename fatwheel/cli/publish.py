"""Commands that publish wheels: index, release-notes."""

from __future__ import annotations

from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from ..errors import UsageError
from ..wheels.name import split_variant
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
        "variants": "experimental: also make thin wheels for single kinds of GPUs, from which uv "
        "takes the one for the machine's (docs/publishing.md)",
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
    variants: bool = False,
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
      invoke index dist/*.whl --variants
      pip install flash-attn --extra-index-url https://ORG.github.io/REPO/cu130/torch2.11/
    """
    with reported(mangled):
        from ..publish.site import Request, write_site
        from .progress import board
        from .results import show_json, show_site

        request = Request(base_url, metadata_beside, only, variants)
        with board() as emit:
            written = write_site(files_of(wheels), folder_of("--out", out), request, emit)
        if json:
            show_json(written.to_json())
        else:
            show_site(written)


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "the wheels of the release, whoever built them",
        "since": "folder of the wheels of the release before, or a site that `index` made of them",
        "json": "print one JSON document instead of Markdown",
    },
)
def release_notes(
    c: Context,
    wheels: list[str],
    since: str | None = None,
    json: bool = False,
) -> None:
    """
    Write what changed since the last release, as Markdown.

    For each wheel: its size, the architectures that it gained or lost, and for each architecture
    how many functions have the machine code that they had before. All is read from the wheels.

      invoke release-notes dist/*.whl --since previous > notes.md
      gh release create v2 dist/*.whl --notes-file notes.md
    """
    with reported():
        from ..publish.notes import markdown, read_changes
        from .console import write_verbatim
        from .progress import board
        from .results import show_json

        before = [] if since is None else _wheels_in(since)
        with board() as emit:
            changes = read_changes(files_of(wheels), before, emit)
        if json:
            show_json({"wheels": [one.to_json() for one in changes]})
        else:
            write_verbatim(markdown(changes))


def _wheels_in(text: str) -> list[Path]:
    """The wheels of a folder, or of a site in it, without variants of these. An empty folder is the
    one before the first release."""
    folder = folder_of("--since", text)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {text!r}", where="--since")
    there = (*folder.glob("*.whl"), *(folder / "files").glob("*.whl"))
    return sorted(path for path in there if not split_variant(path.name)[1])
