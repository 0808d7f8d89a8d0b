"""Which images of a toolchain the container engine has."""

from __future__ import annotations

from ..errors import EngineError, FatwheelError
from ..images.bases import VARIABLE, named_bases
from ..images.contexts import contexts_of
from ..model import Toolchain
from .facts import EngineView, ImageFacts, Trouble
from .needs import torch_for


def ask_images(
    toolchain: Toolchain, python: str, engine: EngineView
) -> ImageFacts | Trouble | None:
    """The images for one Python by their tags; None where the engine cannot have them."""
    if toolchain.containers is None or toolchain.containers.os != engine.facts.os:
        return None
    torch = torch_for(toolchain, python)
    try:
        contexts = contexts_of(toolchain, python, torch, _bases(python, engine))
    except FatwheelError as error:
        return Trouble(error.what, error.where or "", error.hint or "")
    wanted = tuple(context.tag for context in contexts)
    return ImageFacts(wanted, tuple(tag for tag in wanted if tag in engine.images))


def _bases(python: str, engine: EngineView) -> dict[str, str]:
    """The base that the user named for a Python, by the engine's id of it."""
    named = named_bases().get(python)
    if named is None:
        return {}
    found = engine.images.get(named) or engine.images.get(f"{named}:latest")
    if found is None:
        raise EngineError(
            f"the engine has no image {named}, which {VARIABLE} names",
            hint="`docker image ls` lists those that it has",
        )
    return {python: found}


def own_bases() -> frozenset[str]:
    """Pythons for which the user named a base image; none where they cannot be read."""
    try:
        return frozenset(named_bases())
    except FatwheelError:
        return frozenset()  # what is wrong there, asking for the images says
