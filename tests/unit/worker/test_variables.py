"""What programs see of this machine. Windows' part is tried in test_windows_inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.worker.processes import bare_variables, upstreams_variables
from fatwheel.worker.programs import Programs


@pytest.fixture(autouse=True)
def _users_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"PATH": "/bin", "HOME": "/home/user", "CPATH": "/x", "LINK": "/y"}
    )


def test_compilers_see_nothing_of_the_user() -> None:
    assert bare_variables() == {"PATH": "/bin", "LC_ALL": "C.UTF-8"}


def test_upstreams_build_finds_the_stand_ins_first() -> None:
    tools = [Path("/stubs"), Path("/compilers")]
    standins = Programs(*map(Path, ("/cuda", "/cuda/bin/nvcc", "/compilers", "/steps")))
    found = upstreams_variables(tools, standins)
    assert found == {
        "PATH": "/stubs:/compilers:/bin", "CC": "/compilers/gcc", "CXX": "/compilers/g++",
        "COMPILER_PATH": "/steps",
        **{
            f"CMAKE_{language}_COMPILER_LAUNCHER": "/steps/launch-compiler"
            for language in ("C", "CXX", "CUDA")
        },
    }  # fmt: skip
