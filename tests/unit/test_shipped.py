"""The toolchain that is used where none is named; the digest of fatwheel's own code."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fatwheel import shipped
from fatwheel.config.toolchains import load_toolchain, named
from fatwheel.shipped import DEFAULT_TOOLCHAINS, TOOLCHAINS, default_toolchain


@pytest.mark.parametrize(
    ("machine", "system", "platform_of_it"),
    [
        ("x86_64", "linux", "linux-x86_64"),
        ("aarch64", "linux", "linux-aarch64"),
        ("arm64", "linux", "linux-aarch64"),  # containers on a Mac
        ("AMD64", "windows", "win-amd64"),
        ("riscv64", "linux", "linux-x86_64"),  # refused later, with what there is
        ("arm64", "darwin", "linux-x86_64"),
    ],
)
def test_it_is_for_the_system_and_its_processor(
    machine: str, system: str, platform_of_it: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    name = default_toolchain(system)
    composed = named(name, TOOLCHAINS)
    found = composed[1] if composed else load_toolchain(name, TOOLCHAINS).platform
    assert found == platform_of_it


def test_all_of_them_are_there() -> None:
    for name in DEFAULT_TOOLCHAINS.values():
        assert named(name, TOOLCHAINS) or load_toolchain(name, TOOLCHAINS)


def test_the_codes_digest_changes_with_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fatwheel" / "build").mkdir(parents=True)
    (tmp_path / "fatwheel" / "build" / "x.py").write_text("x = 1\n")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "fatwheel")
    before = shipped.code_digest()
    assert shipped.code_digest() == before
    (tmp_path / "fatwheel" / "build" / "x.py").write_text("x = 2\n")
    assert shipped.code_digest() != before
