"""What a recipe says of one target, by recipes and toolchains made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.config.recipe import Flags, Target
from fatwheel.config.toolchain import Toolchain

from ...helpers.somelocks import full_lock
from ...helpers.workstations import LINUX_TOOLCHAIN, WINDOWS_TOOLCHAIN


def test_a_target_uses_what_is_for_it() -> None:
    recipe = full_lock().recipe
    tools = Target(recipe, LINUX_TOOLCHAIN, "3.10", "2.11.0", ()).tools
    assert [build.python for build in tools.builds] == ["3.10"]
    assert tools.bases == LINUX_TOOLCHAIN.bases[:1]
    assert tools.packages == LINUX_TOOLCHAIN.packages


@pytest.mark.parametrize(
    ("torch", "toolchain", "expected"),
    [
        ("2.13.0", LINUX_TOOLCHAIN, {"nvcc": ("-std=c++20",), "g++": ("-O2",), "cl": ("-O2",)}),
        ("2.15.0+cu132", LINUX_TOOLCHAIN,
         {"nvcc": ("-std=c++20",), "g++": ("-O2",), "cl": ("-O2",)}),
        ("2.11.0", LINUX_TOOLCHAIN, {"g++": ("-O2",), "cl": ("-O2",)}),
        ("2.11.0", WINDOWS_TOOLCHAIN,
         {"nvcc": ("-Xcompiler", "/permissive-"), "g++": ("-O2",), "cl": ("-O2",)}),
        ("2.13.0", WINDOWS_TOOLCHAIN, {
            "nvcc": ("-std=c++20", "-Xcompiler", "/permissive-"), "g++": ("-O2",), "cl": ("-O2",),
        }),
    ],
)  # fmt: skip
def test_flags_are_those_of_all_tables_that_fit_in_their_order(
    torch: str, toolchain: Toolchain, expected: dict[str, tuple[str, ...]]
) -> None:
    flags = (
        Flags(torch=">=2.13", nvcc=("-std=c++20",)),
        Flags(system="windows", nvcc=("-Xcompiler", "/permissive-")),
        Flags(cxx=("-O2",)),
    )
    recipe = replace(full_lock().recipe, flags=flags)
    assert dict(Target(recipe, toolchain, "3.11", torch, ()).flags) == expected
