"""What a toolchain has for one Python and torch, by toolchains made by hand."""

from __future__ import annotations

from dataclasses import replace

from fatwheel.config.toolchain import Base, Containers

from ...helpers.somelocks import full_lock
from ...helpers.workstations import LINUX_TOOLCHAIN, WINDOWS_TOOLCHAIN


def test_every_file_counts_once() -> None:
    assert len(LINUX_TOOLCHAIN.files) == 4
    doubled = replace(LINUX_TOOLCHAIN, packages=LINUX_TOOLCHAIN.packages * 2)
    assert len(doubled.files) == 4


def test_a_pin_stands_where_the_file_has_it() -> None:
    places = {".".join(map(str, key)): item for key, item in full_lock().toolchain.pins()}
    assert sorted(places) == [
        "builds.0.packages.0", "containers.bases.0", "cuda_files.0", "interpreters.0",
        "msvc.payloads.0", "packages.0",
    ]  # fmt: skip
    assert [item for item in places.values() if isinstance(item, Base)] == [
        places["containers.bases.0"]
    ]


def test_the_usual_torch_where_there_is_one_for_that_python() -> None:
    older = replace(LINUX_TOOLCHAIN.builds[1], torch="2.10.0")
    toolchain = replace(LINUX_TOOLCHAIN, builds=(*LINUX_TOOLCHAIN.builds, older))
    assert toolchain.usual_torch("3.11") == "2.11.0"
    older_usual = replace(toolchain, default_torch="2.10.0")
    assert older_usual.usual_torch("3.11") == "2.10.0"
    assert older_usual.usual_torch("3.10") == "2.11.0"
    assert older_usual.usual_torch("3.10", "3.11") == "2.11.0"
    assert older_usual.torches_for("3.10", "3.12") == ()


def test_the_running_python_is_the_usual_one() -> None:
    assert LINUX_TOOLCHAIN.usual_python("3.10") == "3.10"
    assert LINUX_TOOLCHAIN.usual_python("3.9") == "3.11"


def test_the_base_for_a_python() -> None:
    first, second = LINUX_TOOLCHAIN.bases
    assert LINUX_TOOLCHAIN.base_for("3.10") == first
    assert LINUX_TOOLCHAIN.base_for("3.11") == second
    assert LINUX_TOOLCHAIN.base_for("3.12") is None
    assert WINDOWS_TOOLCHAIN.base_for("3.11") == WINDOWS_TOOLCHAIN.bases[0]
    assert replace(LINUX_TOOLCHAIN, containers=None).base_for("3.11") is None


def test_a_base_without_pythons_is_for_those_that_are_installed() -> None:
    bare, brings = Base("a/bare:1", "", ()), Base("a/python:3.10", "", ("3.10",))
    both = replace(WINDOWS_TOOLCHAIN, containers=Containers("windows", 20348, (bare, brings)))
    assert both.base_for("3.11") == bare
    assert both.base_for("3.10") == brings
