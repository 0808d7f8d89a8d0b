"""Which builds share entries of the store, and that the code which makes them has a number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grimp
import pytest

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.config.pinned import Download, Package, Sdist
from fatwheel.config.recipe import Recipe, SourcePin, Target
from fatwheel.config.toolchain import (
    Base,
    Containers,
    LockedInterpreter,
    LockedMsvc,
    Toolchain,
    TorchBuild,
)
from fatwheel.engines import dockerplan
from fatwheel.engines.local import LocalWorkplace
from fatwheel.pipeline.scope import FORMAT, scope_of

from ...helpers import formats


def package(name: str, role: str = "compiler", sha256: str = "ab" * 32) -> Package:
    return Package(name, "1.0", f"{name}.whl", 7, sha256, role)


def download(name: str, sha256: str = "ab" * 32) -> Download:
    return Download(name, "1.0", f"https://example.org/{name}", name, 7, sha256)


SDIST = Sdist("demo", "1.0", "demo.tar.gz", 7, "ab" * 32, "source")
RECIPE = Recipe(
    name="demo", project="demo", version="1.0", source=SourcePin(package=SDIST), archs=("80",),
    environment={"FORCE": "1"}, imports=(), memory=1, seconds=1, costs=(), epoch=7,
    folder=Path("/recipes/demo"), digest="", subdirectory="sub", stub_commands=("git",),
)  # fmt: skip
TOOLCHAIN = Toolchain(
    name="tools", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=(parse_arch("80"),),
    gcc=(9, 15), packages=(package("nvcc"), package("ninja", "build")),
    builds=tuple(
        TorchBuild(torch, python, (package(f"torch{torch}-{python}", "runtime"),))
        for torch in ("2.10.0", "2.11.0") for python in ("3.11", "3.13")
    ),
    digest="", default_torch="2.11.0", cuda_files=(download("cuda"),),
    interpreters=(LockedInterpreter("3.11", download("python")),),
    msvc=LockedMsvc("17.8.2", "19.38", "14.38", "https://terms", (download("headers"),)),
    containers=Containers(
        "linux", 0,
        (Base("python:3.11", "sha256:1", ("3.11",)), Base("python:3.13", "sha256:3", ("3.13",))),
    ),
)  # fmt: skip
TARGET = Target(RECIPE, TOOLCHAIN, "3.11", "2.11.0", (ArchRequest(parse_arch("80")),))
BASES = {"3.11": "sha256:7"}


def contained(target: Target = TARGET, own: Toolchain | None = TOOLCHAIN) -> str:
    return scope_of(target.recipe, dockerplan.scope_of(target, own, BASES))


def in_wine(target: Target = TARGET) -> str:
    return scope_of(target.recipe, dockerplan.wine_scope_of(target, TOOLCHAIN, "fatwheel/wine:8.0"))


def in_processes(recipe: Recipe) -> str:
    return scope_of(recipe, LocalWorkplace.scope)


# -- what is shared ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        replace(TARGET, python="3.13"), replace(TARGET, torch="2.10.0"),
        replace(TARGET, archs=(ArchRequest(parse_arch("90a"), ptx=True),)),
        replace(TARGET, recipe=replace(RECIPE, memory=9, seconds=9, epoch=9, folder=Path("/x"))),
        replace(TARGET, toolchain=TARGET.tools),
        replace(TARGET, python="3.13", toolchain=replace(TARGET, python="3.13").tools),
    ],
    ids=["python", "torch", "archs", "costs", "lock", "lock of another python"],
)  # fmt: skip
def test_device_code_is_compiled_once_for_all_of_these(target: Target) -> None:
    assert contained(target) == contained()
    assert in_wine(target) == in_wine()


def test_processes_share_by_project_alone() -> None:
    assert in_processes(RECIPE) == in_processes(replace(RECIPE, memory=9))
    assert in_processes(RECIPE) != contained()


# -- what is not ---------------------------------------------------------------------------------

OTHER_RECIPES = {
    "project": {"project": "other"},
    "version": {"version": "2.0"},
    "sdist": {"source": SourcePin(package=replace(SDIST, sha256="cd" * 32))},
    "folder": {"source": SourcePin(folder="/recipes/demo/src")},
    "subdirectory": {"subdirectory": ""},
    "environment": {"environment": {"FORCE": "0"}},
    "stub commands": {"stub_commands": ("curl",)},
}


@pytest.mark.parametrize("changes", OTHER_RECIPES.values(), ids=OTHER_RECIPES)
def test_another_project_has_a_scope_of_its_own(changes: dict[str, Any]) -> None:
    recipe = replace(RECIPE, **changes)
    assert contained(replace(TARGET, recipe=recipe)) != contained()
    assert in_processes(recipe) != in_processes(RECIPE)


def test_folders_beside_two_recipes_are_two_projects() -> None:
    """Whatever they are called."""
    one, other = (
        replace(RECIPE, source=SourcePin(folder=name)) for name in ("/one/src", "/other/src")
    )
    assert in_processes(one) != in_processes(other)


def test_between_machines_a_folder_is_its_project_wherever_it_lies() -> None:
    one, other = (
        replace(RECIPE, source=SourcePin(folder=name)) for name in ("/one/src", "/other/src")
    )
    place = LocalWorkplace.scope
    assert scope_of(one, place, anywhere=True) == scope_of(other, place, anywhere=True)
    renamed = replace(one, version="2.0")
    assert scope_of(renamed, place, anywhere=True) != scope_of(one, place, anywhere=True)
    assert scope_of(one, place, anywhere=True) != scope_of(one, place)


def test_between_machines_what_is_pinned_is_what_it_is_on_one() -> None:
    place = LocalWorkplace.scope
    assert scope_of(RECIPE, place, anywhere=True) == scope_of(RECIPE, place)


OTHER_TOOLCHAINS: dict[str, dict[str, Any]] = {
    "role": {"packages": (package("nvcc", "runtime"), package("ninja", "build"))},
    "package": {"packages": (package("nvcc", sha256="cd" * 32), package("ninja", "build"))},
    "cuda": {"cuda_files": (download("cuda", "cd" * 32),)},
    "interpreter": {"interpreters": (LockedInterpreter("3.11", download("python", "cd" * 32)),)},
    "msvc": {"msvc": None},
    "base": {"containers": Containers("linux", 0, (Base("evil", "sha256:1", ("3.11",)),))},
    "digest": {"containers": Containers("linux", 0, (Base("python:3.11", "", ("3.11",)),))},
    "torch": {"builds": (TorchBuild("2.11.0", "3.11", (package("evil", "runtime"),)),)},
}


@pytest.mark.parametrize("changes", OTHER_TOOLCHAINS.values(), ids=OTHER_TOOLCHAINS)
def test_what_a_lock_from_elsewhere_compiles_with_has_a_scope_of_its_own(
    changes: dict[str, Any],
) -> None:
    """Whatever it calls its toolchain, and whatever role it gives to the compiler."""
    other = replace(TARGET, toolchain=replace(TOOLCHAIN, **changes))
    assert contained(other) != contained()
    locked = replace(other, toolchain=other.tools)
    assert contained(locked) != contained()
    assert in_wine(other) != in_wine()


def test_an_image_of_ones_own_has_a_scope_of_its_own() -> None:
    every = ({}, BASES, {"3.11": "x"})
    scopes = {scope_of(RECIPE, dockerplan.scope_of(TARGET, TOOLCHAIN, one)) for one in every}
    assert len(scopes) == 3


def test_a_new_pin_of_this_checkout_is_another_place() -> None:
    newer = replace(TOOLCHAIN, packages=(package("nvcc", sha256="cd" * 32),))
    assert contained(replace(TARGET, toolchain=newer), own=newer) != contained()


# -- the format ----------------------------------------------------------------------------------


def test_code_that_decides_bytes_is_the_code_of_this_format() -> None:
    found, recorded = formats.digest_of_modules(), formats.recorded()
    advice = (
        "raise FORMAT in fatwheel/pipeline/scope.py if slices, host objects, records of texts "
        "or keys can come out differently, then record it: python -m tests.helpers.formats"
    )
    assert recorded["format"] == FORMAT, f"FORMAT is {FORMAT}, the recorded code's is not: {advice}"
    assert found == recorded["digest"], f"the code that makes slices was changed: {advice}"


ROOMS = ("compilers", "fatbin", "worker")


def test_every_module_that_makes_slices_is_looked_at() -> None:
    """What those import, of their own rooms, is one of them, or was found to decide nothing."""
    graph = grimp.build_graph("fatwheel")
    for name in formats.MODULES:
        every = graph.find_modules_directly_imported_by(f"fatwheel.{name}")
        near = {one.removeprefix("fatwheel.") for one in every if one.split(".")[1] in ROOMS}
        unknown = near - set(formats.MODULES) - set(formats.ELSE)
        assert not unknown, (
            f"{name} imports {unknown}: do they decide bytes? tests/helpers/formats.py"
        )


SAME = '''
"""Another docstring."""
# and a comment
def f(a: int) -> str:
    """Words."""
    return f"{a:>{3}} {a!r}" + 'x'  # more
'''
ORIGINAL = 'def f(a: int) -> str: return (f"{a:>{3}}" f" {a!r}") + "x"'


def test_words_and_layout_do_not_count() -> None:
    assert formats.meaning(SAME) == formats.meaning(ORIGINAL)


@pytest.mark.parametrize(
    "other",
    [ORIGINAL.replace("3", "4"), ORIGINAL.replace('"x"', '"y"'), ORIGINAL.replace(" {", "{")],
)
def test_what_code_does_counts(other: str) -> None:
    assert formats.meaning(other) != formats.meaning(ORIGINAL)


@pytest.mark.parametrize("python", ["3.10", "3.12", "3.13", "3.14"])
def test_every_python_finds_the_same(python: str, tool: Callable[[str], str]) -> None:
    script = (
        "import sys, types\n"
        "sys.modules['fatwheel'] = types.ModuleType('fatwheel')\n"
        "sys.modules['fatwheel.pipeline'] = types.ModuleType('pipeline')\n"
        "sys.modules['fatwheel.pipeline.scope'] = types.SimpleNamespace(FORMAT=1)\n"
        "import runpy\n"
        "found = runpy.run_path(sys.argv[1])\n"
        "print(found['digest_of_modules']())"
    )
    versions = Path.home() / ".pyenv" / "versions"
    programs = [*versions.glob(f"{python}.*/bin/python"), Path(f"/usr/bin/python{python}")]
    programs = [program for program in programs if program.exists()]
    if not programs:
        pytest.skip(f"there is not a Python {python} here")
    done = subprocess.run(
        [programs[0], "-c", script, formats.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == formats.digest_of_modules(), f"not as Python {sys.version} has it"
