"""A package's libraries in the process that would load them, as far as files tell.

torch comes first where a package uses it, as everybody imports it first: extensions find its
libraries because they are loaded already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..verify.libraries import is_of_torch
from .environment import Target
from .installed import Packages
from .libraries import Loaded, Loader
from .subject import Library, Subject
from .torch import Torch


@dataclass(frozen=True)
class Linking:
    """A package in its environment, and what the loader makes of its libraries."""

    target: Target
    packages: Packages
    torch: Torch | None
    subject: Subject
    loader: Loader
    torch_loaded: tuple[Loaded, ...]
    loaded: tuple[tuple[Library, Loaded], ...]

    @property
    def in_use(self) -> frozenset[Path]:
        """The package's modules, its libraries of operators for torch, and what is loaded with
        these: all others may be for other machines."""
        modules = [(one, loaded) for one, loaded in self.loaded if one.module or uses_torch(one)]
        return frozenset(
            place for one, loaded in modules for place in (one.place, *loaded.found.values())
        )

    @property
    def uses_torch(self) -> bool:
        return any(uses_torch(library) for library, _ in self.loaded)


def uses_torch(library: Library) -> bool:
    return any(map(is_of_torch, library.loading.needed))


def link(target: Target, packages: Packages, torch: Torch | None, subject: Subject) -> Linking:
    """Load everything, as far as files tell."""
    windows = target.system == "Windows"
    held = {one.place: one.loading for one in subject.libraries}
    own_folders = dict.fromkeys(one.place.parent for one in subject.libraries)
    added = [*([torch.folder / "lib"] if torch else []), *own_folders]
    loader = Loader(target, held, added if windows else ())
    if target.base:
        loader.load(target.base)
    wants_torch = subject.name == "torch" or any(map(uses_torch, subject.libraries))
    roots = torch.roots(windows) if torch and wants_torch else ()
    of_torch = tuple(loader.load(root) for root in roots)
    # Others are loaded by those that need them: until then, nobody finds them loaded already.
    ordered = sorted(subject.libraries, key=lambda one: not (one.module or uses_torch(one)))
    loaded = tuple((one, loader.load(one.place)) for one in ordered)
    return Linking(target, packages, torch, subject, loader, of_torch, loaded)
