"""CUDA of archives in the cache: merged once, checked, mended, shared, remade; from a server of our
own, with programs of a line."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.containers.layouts import LINUX
from fatwheel.errors import FatwheelError, HashMismatchError, StoreError, ToolchainError
from fatwheel.events import Event, Progress, silent
from fatwheel.model import Environment
from fatwheel.provision import archives
from fatwheel.toolchain import environment as environment_module
from fatwheel.toolchain.environment import ensure_environment
from fatwheel.toolchain.homes import MergedCuda
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.tinywheels import CUDA_H, NVCC, PYTHON, tiny_toolchain, torch_wheel
from ...helpers.webserver import Server

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s
TORCH = "2.11.0"
COMPILER = {"bin/nvcc": NVCC, "bin/ptxas": "#!/bin/sh\n", "nvvm/bin/cicc": "#!/bin/sh\n"}
LIBRARIES = {"include/cuda.h": CUDA_H, "lib/libcudart.so.13": "a library\n"}


class World:
    """A server of archives, and a cache; wheels lie in a folder of their own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.wheels = folder / "wheels"

    def archive(self, name: str, members: Mapping[str, str]) -> Download:
        """An archive that the server has, and its pin."""
        top = f"{name}-linux-x86_64-13.0.88-archive"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as tar:
            for member, text in members.items():
                info = tarfile.TarInfo(f"{top}/{member}")
                info.size, info.mode = len(text.encode()), 0o755
                tar.addfile(info, io.BytesIO(text.encode()))
        content, file = packed.getvalue(), f"{top}.tar.xz"
        self.server.serve(f"/{file}", content)
        digest = hashlib.sha256(content).hexdigest()
        return Download(name, "13.0.88", f"{self.server.url}/{file}", file, len(content), digest)

    def toolchain(self, *archives: Download) -> Toolchain:
        """Its CUDA is these archives, or ones that do."""
        files = archives or (
            self.archive("cuda_nvcc", COMPILER), self.archive("cuda_cudart", LIBRARIES),
        )  # fmt: skip
        return replace(tiny_toolchain(self.wheels), packages=(), cuda_files=files)

    def make(
        self, toolchain: Toolchain, torch: str = TORCH, emit: Callable[[Event], None] = silent
    ) -> Environment:
        return ensure_environment(toolchain, PYTHON, torch, self.cache, emit)

    def left(self) -> list[str]:
        """What the cache has of CUDA, and what is half-made anywhere."""
        homes = [path.name for path in (self.cache / "cuda").glob("*") if path.is_dir()]
        incoming = (self.cache / "downloads" / "incoming").glob("*")
        return [*homes, *map(str, incoming), *map(str, self.cache.rglob(".*.part"))]

    def fetched(self) -> list[str]:
        return [path for path in self.server.requests if path.endswith(".tar.xz")]


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> Iterator[World]:
    tool("g++")
    config = PipConfig(find_links=(str(tmp_path / "wheels"),), retries=0, timeout=5.0)
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)
    monkeypatch.setattr("os.sync", lambda: None)  # slow on a busy machine, and of no effect here
    monkeypatch.delenv("CXX", raising=False)
    with Server() as server:
        yield World(server, tmp_path)


def test_the_archives_become_the_cuda_home(world: World) -> None:
    toolchain, events = world.toolchain(), list[Event]()

    made = world.make(toolchain, emit=events.append)

    home = made.cuda_home
    assert home.parent == world.cache / "cuda"
    assert not (made.site / "nvidia").exists(), "none of it is in the environment"
    assert (home / "nvvm" / "bin" / "cicc").is_file()
    assert (home / "lib" / "libcudart.so").readlink() == Path("libcudart.so.13")
    assert (home / "lib64").readlink() == Path("lib")
    assert (home / "lib" / "stubs" / "libcuda.so").is_file()
    files = [
        path for path in home.rglob("*") if path.is_file() and path.name != "fatwheel-cuda.json"
    ]
    assert {path.lstat().st_mtime for path in files} == {YEAR_2020}
    assert not list((world.cache / "downloads").rglob("*.tar.xz")), "archives are not kept"
    assert {event.label for event in events if isinstance(event, Progress)} >= {"download"}


def test_a_second_time_nothing_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain = world.toolchain()
    first = world.make(toolchain)
    monkeypatch.setattr(environment_module, "find_host_compiler", pytest.fail)
    monkeypatch.setattr(environment_module, "alone", pytest.fail)
    assert world.make(toolchain) == first


def test_another_torch_has_the_same_cuda(world: World) -> None:
    toolchain = world.toolchain()
    first = world.make(toolchain)
    other = torch_wheel(world.wheels, "__version__ = '2.10.0+cu130'\n")
    build = TorchBuild("2.10.0", PYTHON, (other,))
    second = world.make(replace(toolchain, builds=(build,)), "2.10.0")
    assert second.root != first.root
    assert second.cuda_home == first.cuda_home
    assert len(world.fetched()) == 2


def test_another_archive_is_another_cuda_and_another_environment(world: World) -> None:
    """What tells builds which place they run in is the environment's name."""
    first = world.make(world.toolchain())
    more = {**LIBRARIES, "include/more.h": ""}
    parts = (world.archive("cuda_nvcc", COMPILER), world.archive("cuda_cudart", more))
    second = world.make(world.toolchain(*parts))
    assert second.cuda_home != first.cuda_home
    assert second.root != first.root
    assert second.compiler_id != first.compiler_id


def test_its_real_path_is_not_shorter_than_the_one_that_compilers_see() -> None:
    """Else g++ -isystem names headers by it: in containers otherwise than in processes."""
    seen = "/proc/self/cwd/cuda/bin/.."
    for home in (MergedCuda((), "13.0.88", Path("/c")).root, Path(LINUX.cuda)):
        assert len(str(home)) >= len(seen), f"{home} is shorter than {seen}"


@pytest.mark.parametrize(
    "lost", ["", "fatwheel-cuda.json", "bin/nvcc", "bin/ptxas", "nvvm/bin/cicc"]
)
def test_what_is_damaged_is_made_again_and_the_environment_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    toolchain = world.toolchain()
    first = world.make(toolchain)
    shutil.rmtree(first.cuda_home) if not lost else (first.cuda_home / lost).unlink()
    monkeypatch.setattr(environment_module, "_install", pytest.fail)
    second = world.make(toolchain)
    assert second == first
    assert (second.cuda_home / (lost or "fatwheel-cuda.json")).is_file()
    assert world.left() == [first.cuda_home.name]


def test_what_a_killed_run_left_is_deleted_and_whole_archives_are_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = world.toolchain()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            world.make(toolchain)
    assert world.left() == []
    half = world.cache / "cuda" / ".0123456789abcdef.part" / "bin"
    half.mkdir(parents=True)
    made = world.make(toolchain)
    assert len(world.fetched()) == 2, "archives that were complete have been fetched again"
    assert world.left() == [made.cuda_home.name]


def test_only_one_makes_it_and_the_others_wait(world: World) -> None:
    toolchain, made = world.toolchain(), list[Environment]()
    threads = [
        threading.Thread(target=lambda: made.append(world.make(toolchain))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 3
    assert len(world.fetched()) == 2


def refused(world: World, *archives: Download) -> FatwheelError:
    """Why archives do not make a CUDA; nothing half-made is left then."""
    with pytest.raises(FatwheelError) as caught:
        world.make(world.toolchain(*archives))
    assert world.left() == []
    made = [path.name for path in (world.cache / "packages").iterdir()]
    assert made == ["lock"], "packages were fetched for nothing"
    return caught.value


def test_an_archive_whose_hash_differs(world: World) -> None:
    nvcc = world.archive("cuda_nvcc", COMPILER)
    error = refused(world, replace(nvcc, sha256="0" * 64))
    assert isinstance(error, HashMismatchError)
    assert nvcc.filename in error.what


def test_a_damaged_archive(world: World) -> None:
    nvcc = world.archive("cuda_nvcc", COMPILER)
    content = b"\xfd7zXZ\x00" + bytes(500)
    world.server.serve(f"/{nvcc.filename}", content)
    digest = hashlib.sha256(content).hexdigest()
    error = refused(world, replace(nvcc, size=len(content), sha256=digest))
    assert (error.what, error.where) == ("this archive is damaged", nvcc.filename)


@pytest.mark.parametrize("name", COMPILER)
def test_an_archive_that_lacks_a_part_of_nvcc(world: World, name: str) -> None:
    members = {other: text for other, text in COMPILER.items() if other != name}
    error = refused(world, world.archive("cuda_nvcc", members))
    assert "lack a part of its compiler" in error.what
    assert error.details == (name,)


def test_two_archives_with_the_same_file(world: World) -> None:
    parts = [world.archive(name, COMPILER) for name in ("cuda_nvcc", "cuda_crt")]
    assert "another archive has the same file, bin/nvcc" in refused(world, *parts).what


def test_an_nvcc_that_is_another(world: World) -> None:
    other = {**COMPILER, "bin/nvcc": NVCC.replace("88", "99")}
    assert "the installed nvcc is 13.0.99" in refused(world, world.archive("cuda_nvcc", other)).what


def test_an_archive_that_is_not_pinned_yet_is_told_before_any_download(world: World) -> None:
    parts = (world.archive("cuda_nvcc", COMPILER), world.archive("cuda_cudart", LIBRARIES))
    error = refused(world, replace(parts[0], sha256=""), parts[1])
    assert isinstance(error, ToolchainError)
    assert error.details == (parts[0].filename,)
    assert world.fetched() == []


def test_an_archive_of_unknown_size_is_as_good(world: World) -> None:
    toolchain = world.toolchain()
    unsized = tuple(replace(file, size=0) for file in toolchain.cuda_files)
    made = world.make(replace(toolchain, cuda_files=unsized))
    assert made.cuda_home == MergedCuda(toolchain.cuda_files, "13.0.88", world.cache).root


def test_the_disk_must_hold_archives_and_packages_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough for either, not for both."""
    toolchain = world.toolchain()
    archives = 5 * sum(file.size for file in toolchain.cuda_files)
    [torch] = toolchain.builds[0].packages
    usage = shutil.disk_usage(world.cache)
    free = archives + torch.size
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    error = refused(world, *toolchain.cuda_files)
    assert isinstance(error, StoreError)
    assert "the toolchain needs" in error.what
    assert world.fetched() == []


def test_a_disk_that_fills_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.provision.archives.write_member", full)
    error = refused(world)
    assert isinstance(error, StoreError)
    assert "No space left on device" in error.what
