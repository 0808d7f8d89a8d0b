"""Prints the list of toolchains. To stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import text
from .console import out, write, write_sentences

if TYPE_CHECKING:
    from rich.console import Console

    from ..pipeline.overview import Offer, Overview


def show_overview(overview: Overview) -> None:
    """Each toolchain that has a name, then what can be composed, by platform."""
    console = out()
    if overview.named:
        write(console, ("With a name", "bold"), ": --toolchain NAME")
        _write_offers(console, overview.named)
    platforms = dict.fromkeys(offer.platform for offer in overview.composed)
    for platform in platforms:
        write(console, "")
        write(console, (f"For {platform}", "bold"), ": --cuda, --torch, --python")
        _write_offers(console, [one for one in overview.composed if one.platform == platform])


def _write_offers(console: Console, offers: Sequence[Offer]) -> None:
    for offer in offers:
        write(console, "")
        title = offer.name or f"CUDA {offer.cuda}"
        write(console, f"  {title}", (f"  nvcc {offer.nvcc}", "dim"))
        write_sentences(console, _facts(offer))


def _facts(offer: Offer) -> Iterator[tuple[str, str]]:
    yield "torch", ", ".join(offer.torches)
    yield "Python", ", ".join(offer.pythons)
    yield "archs", " ".join(offer.archs)
    yield "engines", ", ".join(offer.engines) or "none"
    if offer.unlocked:
        yield "to lock", f"{text.count(len(offer.unlocked), 'file')}: {offer.unlocked[0]} …"
