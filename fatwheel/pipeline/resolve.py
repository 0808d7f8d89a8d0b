"""What was asked for as targets: every mistake in it is found before anything is fetched."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from ..arch import ArchRequest, parse_arch_list
from ..config.compose import (
    choose,
    compose,
    cudas_with,
    msvc_for,
    platform_of,
    with_device_from,
)
from ..config.load import load_recipe
from ..config.parts import Parts, release
from ..config.recipe import Recipe, Target
from ..config.toolchain import Cell, Toolchain
from ..config.toolchains import check_msvc, load_toolchain, named
from ..errors import ConfigError, UsageError
from ..machine import in_words
from ..shipped import DEFAULT_TOOLCHAINS, recipe_folders, toolchain_folders
from ..toolchain.installed import TORCH as TORCH_FROM
from ..toolchain.installed import find_installed
from ..toolchain.installedcuda import OPTION as CUDA_HOME
from ..toolchain.installedmsvc import INSTALLED, with_installed
from ..toolchain.installedmsvc import OPTION as MSVC
from .checkout import with_checkout
from .requirements import fitting
from .source import epoch_of

DEVICE_FROM = "--device-from"
LINUX = "linux"  # what that option may say
LINUX_X86 = "linux-x86_64"  # where Wine runs


@dataclass(frozen=True)
class ToolchainRequest:
    """What was asked for as toolchains; None means that it was left open.

    toolchain: a name. cudas, torches, pythons: versions, comma-separated. platform: a user's word
    for it. default: the toolchain that is used where nothing else is asked for. cuda_home: the
    folder of an installed CUDA; torch_from: a Python with torch, or its environment's folder.
    msvc: INSTALLED for that of this machine. device_from: LINUX, or None for the toolchain's own.
    """

    default: str = ""
    toolchain: str | None = None
    cudas: str | None = None
    torches: str | None = None
    pythons: str | None = None
    platform: str | None = None
    cuda_home: Path | None = None
    torch_from: Path | None = None
    msvc: str | None = None
    device_from: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether what is installed on this machine was asked for."""
        return self.cuda_home is not None or self.torch_from is not None


def resolve(
    kernel: str, request: ToolchainRequest, archs: str | None, recipes: Path | None = None
) -> tuple[Target, ...]:
    """A target for each CUDA, torch and Python that was asked for.

    recipes: a folder in which the kernel is looked for first. Raises UsageError or ConfigError.
    """
    recipe = with_checkout(load_recipe(kernel, *recipe_folders(recipes)))
    recipe = replace(recipe, epoch=epoch_of(recipe))
    listing = ",".join(recipe.archs) if archs is None else archs
    return tuple(
        Target(
            recipe=_for_cell(recipe, cell),
            toolchain=cell.toolchain,
            python=cell.python,
            torch=cell.torch,
            archs=_archs(listing, cell.toolchain),
        )
        for cell in choose_cells(request)
    )


def _for_cell(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe with those of its pins that are for one Python and platform."""
    place = (cell.python, cell.toolchain.platform)
    return replace(
        recipe, build=fitting(recipe.build, *place), runtime=fitting(recipe.runtime, *place)
    )


def choose_cells(request: ToolchainRequest) -> tuple[Cell, ...]:
    """The toolchains that were asked for, with their Pythons and torches.

    Toolchains that are files come first: parts are asked where a CUDA or a platform is named, and
    where the default has no such torch or Python. Raises UsageError or ConfigError, and for what is
    installed ToolchainError.
    """
    cells = tuple(_cells(request))
    if request.msvc is not None:
        _check_choice(MSVC, request.msvc, INSTALLED, "the toolchain's own MSVC is fetched")
        cells = tuple(_with_installed_msvc(cell) for cell in cells)
    if request.device_from is not None:
        own = "the toolchain's own compilers make all device code"
        _check_choice(DEVICE_FROM, request.device_from, LINUX, own)
        cells = tuple(_with_device_from_linux(cell) for cell in cells)
    return cells


def _check_choice(option: str, value: str, valid: str, without: str) -> None:
    if value != valid:
        raise UsageError(
            f"{value!r} is not a valid choice",
            where=option,
            hint=f"valid: {valid}; without the option, {without}",
        )


def _cells(request: ToolchainRequest) -> tuple[Cell, ...]:
    if request.is_installed:
        check_nothing_beside(request)
        return (_installed(request),)
    if request.toolchain is not None:
        _check_alone(request)
        composed = named(request.toolchain, *toolchain_folders())
        if composed is None:
            return tuple(_named(load_toolchain(request.toolchain, *toolchain_folders()), request))
        cuda, platform = composed
        return tuple(_composed(replace(request, cudas=cuda, platform=platform)))
    if request.cudas is None and request.platform is None:
        return tuple(_default(request))
    return tuple(_composed(_with_usual_cuda(request)))


def _with_usual_cuda(request: ToolchainRequest) -> ToolchainRequest:
    """A request that names only a platform has the CUDA that is the default there."""
    if request.cudas is None and request.torches is None and request.platform is not None:
        platform = platform_of(request.platform)
        for name in DEFAULT_TOOLCHAINS.values():
            composed = named(name, *toolchain_folders())
            if composed and composed[1] == platform:
                return replace(request, cudas=composed[0])
    return request


def _default(request: ToolchainRequest) -> Iterator[Cell]:
    """The default toolchain, or one with another CUDA where it has no such torch or Python."""
    composed = named(request.default, *toolchain_folders())
    if composed is None:
        toolchain = load_toolchain(request.default, *toolchain_folders())
        if _serves(toolchain, request):
            return _named(toolchain, request)
    elif request.torches is None:
        return _composed(replace(request, cudas=composed[0]))
    return _composed(request)


def _check_alone(request: ToolchainRequest) -> None:
    for option, value in (("--cuda", request.cudas), ("--platform", request.platform)):
        if value is not None:
            raise UsageError(
                f"{option} beside --toolchain, which says that already",
                where=f"--toolchain {request.toolchain} {option} {value}",
                hint="name a toolchain, or what one is to be composed of",
            )


def _archs(listing: str, toolchain: Toolchain) -> tuple[ArchRequest, ...]:
    """Raises UsageError, naming CUDAs that know an architecture which this one does not."""
    try:
        return parse_arch_list(listing, toolchain.archs)
    except UsageError as error:
        known = cudas_with(listing, Parts(*toolchain_folders()))
        if toolchain.installed or not known:
            raise
        newer = [cuda for cuda in known if release(cuda) > release(toolchain.cuda)]
        nearest = min(newer, key=release) if newer else max(known, key=release)
        more = f"all of {listing} are known to CUDA {', '.join(known)}: --cuda {nearest}"
        raise UsageError(
            error.what, where=error.where, details=error.details, hint=f"{error.hint}; {more}"
        ) from None


# -- toolchains that are files ---------------------------------------------------------------------


def _serves(toolchain: Toolchain, request: ToolchainRequest) -> bool:
    """Whether a toolchain has every Python and torch that was asked for, as far as it is known."""
    pythons = _listed("--python", request.pythons) or toolchain.pythons
    torches = _listed("--torch", request.torches) or toolchain.torches
    known = {number for torch in toolchain.torches for number in _prefixes(torch)}
    return set(pythons) <= set(toolchain.pythons) and set(torches) <= known


def _prefixes(torch: str) -> tuple[str, str]:
    """`2.11.0` may be asked for as `2.11`."""
    return torch, ".".join(torch.split(".")[:2])


def _named(toolchain: Toolchain, request: ToolchainRequest) -> Iterator[Cell]:
    if toolchain.msvc:
        check_msvc(Parts(*toolchain_folders()), toolchain)
    pythons = _choose_pythons(toolchain, request.pythons)
    for torch in _listed("--torch", request.torches) or (None,):
        chosen = _choose_torch(toolchain, torch, pythons)
        for python in pythons:
            yield Cell(toolchain, python, chosen)


def _choose_pythons(toolchain: Toolchain, text: str | None) -> tuple[str, ...]:
    if text is None:
        return (toolchain.usual_python(_running()),)
    wanted = _items(text)
    mistakes = [
        f"{item!r} is not supported by this toolchain"
        for item in dict.fromkeys(wanted)
        if item not in toolchain.pythons
    ]
    mistakes += _repeated(wanted)
    if mistakes:
        raise UsageError(
            "unusable list of Pythons",
            where=f"--python {text}",
            details=mistakes,
            hint=f"{toolchain.name} supports Python {', '.join(toolchain.pythons)}",
        )
    return wanted


def _choose_torch(toolchain: Toolchain, text: str | None, pythons: tuple[str, ...]) -> str:
    """The torch asked for, or the toolchain's; there must be one for every Python."""
    usable = toolchain.torches_for(*pythons)
    if text is None and usable:
        return toolchain.usual_torch(*pythons)
    asked = [torch for torch in usable if text in _prefixes(torch)]
    if asked:
        return asked[-1]
    wanted = "torch" if text is None else f"torch {text}"
    raise UsageError(
        f"{toolchain.name} has no {wanted} for Python {', '.join(pythons)}",
        where="--torch" if text is None else f"--torch {text}",
        hint="valid: " + "; ".join(_served(toolchain, torch) for torch in toolchain.torches),
    )


def _served(toolchain: Toolchain, torch: str) -> str:
    pythons = [build.python for build in toolchain.builds if build.torch == torch]
    return f"{torch} for Python {', '.join(pythons)}"


# -- what is installed -----------------------------------------------------------------------------


def check_nothing_beside(request: ToolchainRequest, **more: object) -> None:
    """Raise UsageError where something else is to say what is built with. more: other options."""
    beside = {
        "--toolchain": request.toolchain,
        "--cuda": request.cudas,
        "--torch": request.torches,
        "--python": request.pythons,
        "--platform": request.platform,
        MSVC: request.msvc,
        DEVICE_FROM: request.device_from,
        **more,
    }
    mine = CUDA_HOME if request.cuda_home is not None else TORCH_FROM
    for option, value in beside.items():
        if value is not None:
            raise UsageError(
                f"{option} beside {mine}, which uses what is installed on this machine",
                where=f"{option} {value}",
                hint="leave one of them out",
            )


def _installed(request: ToolchainRequest) -> Cell:
    toolchain = find_installed(request.cuda_home, request.torch_from)
    [build] = toolchain.builds
    return Cell(toolchain, build.python, build.torch)


def _with_installed_msvc(cell: Cell) -> Cell:
    toolchain, parts = cell.toolchain, Parts(*toolchain_folders())
    if toolchain.msvc is None:
        raise _not_for_windows(f"{MSVC} is for Windows", f"{MSVC} {INSTALLED}", toolchain)
    cuda = next((one for one in reversed(parts.cudas) if one.minor == toolchain.cuda), None)
    if cuda is None:
        raise UsageError(
            f"which MSVC the nvcc of CUDA {toolchain.cuda} takes is not known",
            where=f"{MSVC} {INSTALLED}",
            hint="`invoke toolchains` lists the CUDAs that are known",
        )
    return replace(cell, toolchain=with_installed(toolchain, cuda, msvc_for(parts, cuda)))


def _with_device_from_linux(cell: Cell) -> Cell:
    toolchain, parts = cell.toolchain, Parts(*toolchain_folders())
    if toolchain.msvc is None:
        what = f"{DEVICE_FROM} is for Windows wheels"
        raise _not_for_windows(what, f"{DEVICE_FROM} {LINUX}", toolchain)
    try:
        return replace(cell, toolchain=with_device_from(parts, toolchain, cell.python, LINUX_X86))
    except ConfigError as error:
        raise UsageError(
            error.what, where=f"{DEVICE_FROM} {LINUX}", details=error.details, hint=error.hint
        ) from error


def _not_for_windows(what: str, option: str, toolchain: Toolchain) -> UsageError:
    return UsageError(
        f"{what}, and toolchain {toolchain.name} is for {in_words(toolchain.platform)}",
        where=option,
        hint="--platform windows-x86_64 builds for Windows",
    )


# -- toolchains that are composed ------------------------------------------------------------------


def _composed(request: ToolchainRequest) -> Iterator[Cell]:
    parts = Parts(*toolchain_folders())
    platform = _platform(request)
    for cuda, torch, python in product(
        _listed("--cuda", request.cudas) or (None,),
        _listed("--torch", request.torches) or (None,),
        _listed("--python", request.pythons) or (None,),
    ):
        chosen = choose(parts, platform, cuda, torch, python, _running())
        yield Cell(compose(parts, chosen), chosen.python, chosen.torch.version)


def _platform(request: ToolchainRequest) -> str:
    """The platform asked for, or that of the default toolchain."""
    if request.platform is not None:
        return platform_of(request.platform)
    if composed := named(request.default, *toolchain_folders()):
        return composed[1]
    return load_toolchain(request.default, *toolchain_folders()).platform


def _running() -> str:
    """The Python that runs: `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _listed(option: str, text: str | None) -> tuple[str, ...]:
    """The items of a comma-separated list; none where it was left out."""
    if text is None:
        return ()
    items = _items(text)
    mistakes = [*_repeated(items), *(["an item is empty"] if "" in items else [])]
    if mistakes:
        raise UsageError("unusable list", where=f"{option} {text}", details=mistakes)
    return items


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


def _repeated(items: Sequence[str]) -> list[str]:
    twice = (item for item in dict.fromkeys(items) if items.count(item) > 1)
    return [f"{item} is named twice" for item in twice]
