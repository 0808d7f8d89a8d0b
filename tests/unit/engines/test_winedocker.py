"""Containers with Wine in which tools are tried while they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.containers.imagebuild import ContainerImage
from fatwheel.containers.layouts import ContainerSpec, EngineFacts
from fatwheel.engines import winedocker
from fatwheel.engines.winedocker import _Workshop

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
