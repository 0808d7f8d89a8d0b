"""Containers with Wine in which tools are tried while they are made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.containers.imagebuild import ContainerImage
from fatwheel.containers.layouts import ContainerSpec, EngineFacts
from fatwheel.engines import winedocker
from fatwheel.engines.winedocker import _Workshop
from fatwheel.events import silent
from fatwheel.model import Host
from fatwheel.provenance.lock import Material, lock_of, materials_of

from ...helpers.plaintargets import plain_recipe
from ...helpers.workstations import IN_WINE

IMAGE = ContainerImage("wine", "fatwheel/wine:8.0", "sha256:1", 1, False)


class Bench:
    """A cache of links, in which an environment and a CUDA are being made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.disk, self.work = (folder / name for name in ("cache", "disk", "work"))
        for place in (self.cache, self.disk / "e" / ".1.part", self.disk / "c", self.work):
            place.mkdir(parents=True)
        (self.cache / "envs").symlink_to(self.disk / "e")
        (self.cache / "cuda").symlink_to(self.disk / "c")
        self.specs: list[ContainerSpec] = []
        monkeypatch.setattr(winedocker, "answer_of", self.answer)

    def answer(self, engine: object, spec: ContainerSpec, roster: object, log: Path) -> str:
        self.specs.append(spec)
        return "said"

    def run(self, program: str, *, trusted: bool) -> ContainerSpec:
        shop = _Workshop(
            EngineFacts(os="linux", rootless=True), None, IMAGE, self.cache, self.work, trusted,  # type: ignore[arg-type]
        )  # fmt: skip
        assert shop.run([str(self.disk / program), "--version"]) == "said"
        return self.specs.pop()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("trusted", [True, False])
def test_tools_of_a_lock_from_elsewhere_can_write_nothing_that_stays(
    bench: Bench, trusted: bool
) -> None:
    """Nor can any see what else is in the cache."""
    spec = bench.run("e/.1.part/python.exe", trusted=trusted)
    incoming = str(bench.work / "tools")
    assert {mount.source: mount.writable for mount in spec.mounts} == {
        str(bench.disk / "e" / ".1.part"): trusted,
        incoming: True,
    }
    assert spec.as_caller == trusted
    assert spec.command[3:] == ("Z:\\fatwheel\\tools\\envs\\python.exe", "--version")


def test_cuda_is_not_written_to(bench: Bench) -> None:
    spec = bench.run("c/.2.part/bin/nvcc.exe", trusted=True)
    assert str(bench.disk / "c" / ".2.part") == spec.mounts[0].source
    assert not spec.mounts[0].writable
    assert spec.command[3] == "Z:\\fatwheel\\tools\\cuda\\bin\\nvcc.exe"


def test_wheels_tell_what_their_image_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside themselves: their own lock and bytes are those of any other place."""
    tools = SimpleNamespace(is_made=lambda: True)
    monkeypatch.setattr(winedocker, "ensure_wine", lambda *about: IMAGE)
    monkeypatch.setattr(winedocker, "windows_tools", lambda *about: tools)
    monkeypatch.setattr(winedocker, "pinned_here", lambda target: None)
    monkeypatch.setattr(winedocker, "wine_scope_of", lambda *about: ())
    monkeypatch.setattr(winedocker, "_check_readable", lambda *about: None)
    target = Target(plain_recipe(Path()), IN_WINE.toolchain, "3.11", "2.1.1", ())
    made = winedocker.wine_workplace(Any, target, Path(), silent)  # type: ignore[arg-type]
    [debian] = IN_WINE.toolchain.wine.packages if IN_WINE.toolchain.wine else ()
    assert made.materials == (
        IMAGE.material,
        Material(
            "wine", "libwine", "8.0~repack-4", "libwine_8.0~repack-4_amd64.deb", debian.size,
            debian.sha256, "",
        ),
    )  # fmt: skip
    lock = lock_of(target, Host("cl", "0" * 64, "3.11.9"))
    assert not {one.role for one in materials_of(lock)} & {"wine"}
