"""Finding g++: the real one, and shell scripts that pretend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.tools import find_host_compiler

GCC = (9, 15)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; no CXX."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def pretend(path: Path, version: str, says: str = "gcc version", cc1plus: str = "") -> Path:
    """A compiler of a version, with a cc1plus of some content unless that is empty."""
    parts = path.with_name(f"{path.name}-parts")
    parts.mkdir(exist_ok=True)
    for part, content in (("as", "assembler"), ("cc1plus", cc1plus)):
        if content:
            (parts / part).write_text(content)
            (parts / part).chmod(0o755)
    path.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        f"-v) echo 'Target: x86_64-linux-gnu' >&2; echo '{says} {version} (Debian)' >&2;;\n"
        f"-print-prog-name=*) p={parts}/${{1#*=}}; [ -e $p ] && echo $p || echo ${{1#*=}};;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


def test_the_real_one(tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    tool("g++")
    found = find_host_compiler("13.0", (1, 99))
    full = subprocess.run(
        [found.path, "-dumpfullversion"], capture_output=True, text=True, check=True
    )
    assert found.version == full.stdout.strip()
    assert found == find_host_compiler("13.0", (1, 99))


def test_g_plus_plus_comes_first_and_its_digest_covers_the_compiler_proper(path: Path) -> None:
    pretend(path / "c++", "10.1.0", cc1plus="other")
    pretend(path / "g++", "12.2.0", cc1plus="one")
    first = find_host_compiler("13.0", GCC)
    assert (first.path, first.version) == (path / "g++", "12.2.0")

    pretend(path / "g++", "12.2.0", cc1plus="two")
    second = find_host_compiler("13.0", GCC)
    assert second.id != first.id, "another cc1plus behind the same version must have another id"

    pretend(path / "g++", "12.2.1", cc1plus="two")
    assert find_host_compiler("13.0", GCC).id != second.id


def test_too_new_a_default_is_passed_over_for_a_versioned_one(path: Path) -> None:
    pretend(path / "g++", "16.0.0", cc1plus="x")
    pretend(path / "g++-15", "15.3.0", cc1plus="x")
    pretend(path / "g++-11", "11.1.0", cc1plus="x")
    assert find_host_compiler("13.0", GCC).path == path / "g++-15"


def test_cxx_is_taken_or_refused_but_not_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(path / "g++", "12.2.0", cc1plus="x")
    other = pretend(path / "mine", "13.1.0", cc1plus="x")
    monkeypatch.setenv("CXX", str(other))
    assert find_host_compiler("13.0", GCC).path == other
    monkeypatch.setenv("CXX", "mine")
    assert find_host_compiler("13.0", GCC).path == other

    pretend(path / "old", "8.5.0", cc1plus="x")
    monkeypatch.setenv("CXX", "old")
    with pytest.raises(ToolchainError, match=r"CXX=old.*\n.*old: g\+\+ 8\.5\.0, but 9 to 15"):
        find_host_compiler("13.0", GCC)
    monkeypatch.setenv("CXX", "absent")
    with pytest.raises(ToolchainError, match="absent: no such program"):
        find_host_compiler("13.0", GCC)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": "18.1.3", "says": "clang version", "cc1plus": "x"}, r"is not g\+\+"),
        ({"version": "12.2.0"}, "its cc1plus is missing"),
        ({"version": "8.5.0", "cc1plus": "x"}, r"g\+\+ 8\.5\.0, but 9 to 15 is needed"),
    ],
)
def test_why_a_compiler_is_of_no_use(path: Path, options: dict[str, str], words: str) -> None:
    pretend(path / "g++", **options)
    with pytest.raises(ToolchainError, match=words):
        find_host_compiler("13.0", GCC)


def test_a_compiler_that_speaks_no_utf8_is_passed_over(path: Path) -> None:
    (path / "g++").write_bytes(b"#!/bin/sh\nprintf 'gcc \\377\\376'\n")
    (path / "g++").chmod(0o755)
    with pytest.raises(ToolchainError, match=r"is not g\+\+"):
        find_host_compiler("13.0", GCC)


def test_no_compiler_says_how_to_install_one(path: Path) -> None:
    assert not list(path.iterdir())
    with pytest.raises(ToolchainError) as caught:
        find_host_compiler("13.0", GCC)
    assert "apt install g++" in str(caught.value)
    assert "dnf install gcc-c++" in str(caught.value)


def test_where_nvcc_takes_msvc_only_no_gcc_is_looked_for(path: Path) -> None:
    pretend(path / "g++", "12.2.0", cc1plus="x")
    with pytest.raises(ToolchainError, match=r"CUDA 12\.3 takes MSVC"):
        find_host_compiler("12.3", None)
