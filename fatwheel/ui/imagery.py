"""Build contexts and images of toolchains, to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import text
from .console import out, write_rows
from .messages import show_note
from .tables import Row

if TYPE_CHECKING:
    from ..images.build import Image
    from ..images.render import Rendered


def show_contexts(made: Sequence[Rendered]) -> None:
    """Build contexts in one table; to stderr what is missing before they can be built."""
    rows: list[Row] = []
    for one in made:
        files = one.context.files
        rows.append(
            {
                "folder": str(one.folder),
                "image": one.context.tag,
                "files": text.count(len(files), "file")
                + f", {text.size(sum(file.size for file in files))}"
                + ("" if one.complete else " (not fetched)"),
            }
        )
    write_rows(out(), rows)
    unlocked = dict.fromkeys(name for one in made for name in one.context.unlocked)
    if unlocked:
        names = ", ".join(unlocked)
        show_note(f"not known yet, so these cannot be built before `invoke lock`: {names}")


def show_images(images: Sequence[Image]) -> None:
    """Images on the engine in one table."""
    write_rows(
        out(),
        [
            {
                "image": image.tag,
                "size": text.size(image.size),
                "id": image.id.removeprefix("sha256:")[:12],
                "": "built" if image.built else "was there",
            }
            for image in images
        ],
    )
