"""What a build's lock lists, for real recipes and toolchains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.config.load import load_recipe
from fatwheel.config.pinned import Package
from fatwheel.config.recipe import Target
from fatwheel.config.sourcetree import tree_digest
from fatwheel.provenance.lock import lock_of, materials_of, target_of

from ...helpers.somelocks import CL, GXX, LINUX, ROOT, WINDOWS, some_lock
from ...helpers.toolchains import shipped_toolchain

ARCHS = (ArchRequest(parse_arch("80")), ArchRequest(parse_arch("86"), ptx=True))


def target(kernel: str, toolchain: str = LINUX, python: str = "3.11") -> Target:
    tools = shipped_toolchain(toolchain)
    recipe = load_recipe(kernel, ROOT / "kernels")
    return Target(recipe, tools, python, tools.default_torch, ARCHS)


def test_a_lock_is_for_one_python_and_torch() -> None:
    wanted = target("causal-conv1d")
    lock = lock_of(wanted, GXX)
    [build] = lock.toolchain.builds
    assert (build.python, build.torch) == ("3.11", wanted.torch)
    assert lock.toolchain.containers is not None
    assert [base.reference for base in lock.toolchain.containers.bases] == ["python:3.11-bookworm"]
    assert target_of(lock, ARCHS) == dataclasses.replace(wanted, toolchain=wanted.tools)


def test_a_lock_does_not_depend_on_the_architectures() -> None:
    one = target("causal-conv1d")
    assert lock_of(one, GXX) == lock_of(dataclasses.replace(one, archs=ARCHS[:1]), GXX)


def test_every_interpreter_of_an_image_stays() -> None:
    lock = lock_of(target("flash-attn", WINDOWS, "3.10"), CL)
    assert {one.python for one in lock.toolchain.interpreters} == {"3.10", "3.11"}
    assert [build.python for build in lock.toolchain.builds] == ["3.10"]


def test_sources_are_locked_wherever_they_come_from() -> None:
    sdist = lock_of(target("causal-conv1d"), GXX)
    assert sdist.recipe.source.package is not None
    assert sdist.recipe.source.sha256 == sdist.recipe.source.package.sha256
    folder = lock_of(target("selftest"), GXX)
    assert folder.recipe.source.sha256 == tree_digest(ROOT / "kernels" / "selftest" / "src")


@pytest.mark.parametrize("toolchain", [LINUX, WINDOWS])
def test_materials_are_all_that_is_known_by_its_hash(toolchain: str) -> None:
    lock = some_lock(toolchain)
    materials = materials_of(lock)
    locked = [pin for pin in lock.files if pin.locked]
    assert {pin.sha256 for pin in locked} <= {one.sha256 for one in materials}
    others = {one.role for one in materials if one.sha256 not in {pin.sha256 for pin in locked}}
    assert others <= {"host", "image"}
    host = next(one for one in materials if one.role == "host")
    name = "cl" if toolchain == WINDOWS else "g++"
    assert (host.name, host.sha256) == (name, lock.host.compiler_id)
    assert all(len(one.sha256) == 64 for one in materials)


def test_what_is_not_locked_yet_is_no_material() -> None:
    lock = some_lock()
    unlocked = Package("torch", "2.11.0", "torch.whl", 0, "", "runtime")
    builds = (dataclasses.replace(lock.toolchain.builds[0], packages=(unlocked,)),)
    changed = dataclasses.replace(
        lock, toolchain=dataclasses.replace(lock.toolchain, builds=builds)
    )
    assert unlocked in changed.files
    assert not any(one.name == "torch" for one in materials_of(changed))


def test_a_base_with_a_digest_is_a_material() -> None:
    lock = some_lock()
    containers = lock.toolchain.containers
    assert containers is not None
    base = dataclasses.replace(containers.bases[0], digest=f"sha256:{'ba' * 32}")
    changed = dataclasses.replace(
        lock,
        toolchain=dataclasses.replace(
            lock.toolchain, containers=dataclasses.replace(containers, bases=(base,))
        ),
    )
    [image] = [one for one in materials_of(changed) if one.role == "image"]
    assert (image.name, image.sha256) == (base.reference, "ba" * 32)


def test_wheels_that_modules_import_are_in_the_lock(tmp_path: Path) -> None:
    recipe = load_recipe("flash-attn", ROOT / "kernels")
    assert recipe.runtime, "flash-attn imports einops"
    lock = lock_of(target("flash-attn"), GXX)
    assert {one.sha256 for one in recipe.runtime} <= {one.sha256 for one in materials_of(lock)}
