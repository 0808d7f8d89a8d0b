"""What was asked for as targets: every mistake in it is found before anything is fetched."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ..arch import parse_arch_list
from ..config.load import load_recipe, load_toolchain
from ..config.model import Target, Toolchain
from ..errors import UsageError
from ..shipped import recipe_folders, toolchain_folders
from .source import epoch_of


def resolve(
    kernel: str,
    toolchain: str,
    archs: str | None,
    pythons: str | None,
    torch: str | None,
    recipes: Path | None = None,
) -> tuple[Target, ...]:
    """A target for each Python, all of one toolchain and torch.

    recipes: a folder in which the kernel is looked for first. Raises UsageError or ConfigError.
    """
    recipe = load_recipe(kernel, *recipe_folders(recipes))
    recipe = replace(recipe, epoch=epoch_of(recipe))
    tools = load_toolchain(toolchain, *toolchain_folders())
    listing = ",".join(recipe.archs) if archs is None else archs
    requests = parse_arch_list(listing, tools.archs)
    chosen = _choose_pythons(tools, pythons)
    wanted = _choose_torch(tools, torch, chosen)
    return tuple(Target(recipe, tools, python, wanted, requests) for python in chosen)


def choose(
    toolchain: str, pythons: str | None, torch: str | None
) -> tuple[Toolchain, tuple[str, ...], str]:
    """A toolchain by its name, its Pythons and its torch, as `resolve` chooses them."""
    tools = load_toolchain(toolchain, *toolchain_folders())
    chosen = _choose_pythons(tools, pythons)
    return tools, chosen, _choose_torch(tools, torch, chosen)


def _choose_pythons(toolchain: Toolchain, text: str | None) -> tuple[str, ...]:
    serves = f"{toolchain.name} supports Python {', '.join(toolchain.pythons)}"
    if text is None:
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (toolchain.usual_python(running),)
    wanted = [item.strip() for item in text.split(",")]
    mistakes = [
        f"{item!r} is not supported by this toolchain"
        for item in dict.fromkeys(wanted)
        if item not in toolchain.pythons
    ]
    mistakes += [f"{item} is named twice" for item in sorted(set(wanted)) if wanted.count(item) > 1]
    if mistakes:
        raise UsageError(
            "unusable list of Pythons", where=f"--python {text}", details=mistakes, hint=serves
        )
    return tuple(wanted)


def _choose_torch(toolchain: Toolchain, text: str | None, pythons: tuple[str, ...]) -> str:
    """The torch asked for, or the toolchain's; there must be one for every Python."""
    usable = toolchain.torches_for(*pythons)
    if text is None and usable:
        return toolchain.usual_torch(*pythons)
    if text in usable:
        return text
    wanted = "torch" if text is None else f"torch {text}"
    raise UsageError(
        f"{toolchain.name} has no {wanted} for Python {', '.join(pythons)}",
        where="--torch" if text is None else f"--torch {text}",
        hint="valid: " + "; ".join(_served(toolchain, torch) for torch in toolchain.torches),
    )


def _served(toolchain: Toolchain, torch: str) -> str:
    pythons = [build.python for build in toolchain.builds if build.torch == torch]
    return f"{torch} for Python {', '.join(pythons)}"
