"""What became another between two locks, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fatwheel.model import Host
from fatwheel.provenance.checks import differences
from fatwheel.provenance.lock import BuildLock

from ...helpers.somelocks import GXX, WINDOWS, some_lock

LOCK = some_lock()


def with_tool(name: str, **changes: Any) -> BuildLock:
    packages = tuple(
        dataclasses.replace(one, **changes) if one.name == name else one
        for one in LOCK.toolchain.packages
    )
    return dataclasses.replace(
        LOCK, toolchain=dataclasses.replace(LOCK.toolchain, packages=packages)
    )


def test_the_same_lock() -> None:
    assert differences(LOCK, dataclasses.replace(LOCK)) == ()


def test_a_pin_is_named_with_both_its_versions() -> None:
    [line] = differences(LOCK, with_tool("ninja", version="1.13.1", sha256="1" * 64))
    assert line.startswith("ninja (build): 1.13.2 ")
    assert "became 1.13.1" in line
    assert "1" * 64 in line


@pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"size": 7}, {"url": "https://x/y"}])
def test_any_part_of_a_pin_counts(change: dict[str, Any]) -> None:
    [line] = differences(LOCK, with_tool("ninja", **change))
    assert line.startswith("ninja (build): ")


def test_what_is_gone_and_what_is_new() -> None:
    packages = tuple(one for one in LOCK.toolchain.packages if one.name != "ninja")
    less = dataclasses.replace(
        LOCK, toolchain=dataclasses.replace(LOCK.toolchain, packages=packages)
    )
    [gone] = differences(LOCK, less)
    assert gone.startswith("ninja (build): ")
    assert gone.endswith("became nothing")
    [new] = differences(less, LOCK)
    assert new.startswith("ninja (build): nothing became 1.13.2 ")


def test_another_compiler() -> None:
    other = dataclasses.replace(LOCK, host=Host("g++ 14.2.0", "d" * 64, GXX.python))
    found = differences(LOCK, other)
    assert "host.compiler: g++ 12.2.0 became g++ 14.2.0" in found
    assert any(line.startswith("g++ (host): 12.2.0 ") for line in found)


def test_fields_of_the_recipe() -> None:
    recipe = dataclasses.replace(LOCK.recipe, epoch=5, environment={"A": "1"})
    found = differences(LOCK, dataclasses.replace(LOCK, recipe=recipe))
    assert f"recipe.epoch: {LOCK.recipe.epoch} became 5" in found
    assert "recipe.environment.A: nothing became 1" in found
    assert any(line.endswith("TRUE became nothing") for line in found)


def test_another_toolchain_is_all_of_it() -> None:
    found = differences(LOCK, some_lock(WINDOWS))
    assert any(line.startswith("toolchain.name: linux-cuda13.0 became windows-") for line in found)
