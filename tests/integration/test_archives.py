"""CUDA that comes as archives: processes make with it what they make with the same CUDA from
packages, and what containers make.

The archives are made of the packages' files, so that both are known to be the same compilers.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.config.load import load_toolchain
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch, place

from ..helpers.cudaarchives import NAMES, Archives, make_archives
from ..helpers.webserver import Server
from .conftest import ARCHS, Outcome, Workbench, once
from .engine import LentEngine
from .slim import REAL, ROOT, make_toolchain
from .test_reproducible import assert_same, differences
from .test_reproducible_engines import PYTHON, build_inside, dependencies

pytestmark = pytest.mark.slow

TOOLCHAIN = "linux-archives"
# What a wheel says of how it was made: all of these name the toolchain or its files.
SAYING = {
    "fatwheel.json", "fatwheel.lock.json", "fatwheel.provenance.json", "fatwheel.cdx.json",
    "RECORD",
}  # fmt: skip
PLACE = "http://127.0.0.1:9"  # nothing is there: the server's own takes its place


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The compilers of linux-cuda13.0 as archives."""

    def make(folder: Path) -> Archives:
        packages = load_toolchain(REAL.stem, REAL.parent).packages
        wanted = [package for package in packages if package.name in NAMES]
        wheels = fetch(wanted, cache_folder() / "image-files", silent)
        return make_archives(list(zip(wanted, wheels, strict=True)), folder, PLACE)

    return once(tmp_path_factory, "archives", make)


class Archived(Workbench):
    """A workbench with environments of its own, whose toolchain has no torch and CUDA as archives
    that a server on this machine has."""

    def __init__(self, folder: Path, archives: Archives, server: Server) -> None:
        super().__init__(folder)
        self._home = folder
        self.files = [(file, archives.folder / file.filename) for file in archives.files]
        for file, path in self.files:
            server.serve(f"/{file.filename}", path.read_bytes())
        tables = archives.tables().replace(PLACE, server.url)
        torch = make_toolchain(folder, TOOLCHAIN, without=NAMES, more=tables)
        self.files += [(one, folder / "wheels" / one.filename) for one in torch]
        shared = cache_folder() / "packages"
        for name in ("envs", "downloads", "packages"):
            (self.cache / name).unlink()
            (self.cache / name).mkdir()
        for package in load_toolchain(TOOLCHAIN, folder / "toolchains").packages:
            if (shared / package.sha256).is_dir():
                (self.cache / "packages" / package.sha256).symlink_to(shared / package.sha256)

    def hand_over(self, name: str) -> None:
        """Put what no index has where a build looks for what it has fetched."""
        for file, path in self.files:
            target = place(file, self.cache / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    @property
    def home(self) -> Path:
        return self._home

    def command(self, *arguments: str) -> list[str]:
        made = super().command(*arguments)
        return [*made[:3], "--search-root", str(ROOT), *made[3:]]

    def build_command(self, *arguments: str, kernel: str = "sample") -> list[str]:
        return super().build_command("--toolchain", TOOLCHAIN, *arguments, kernel=kernel)

    def variables(self, **more: str) -> dict[str, str]:
        return super().variables(PIP_FIND_LINKS=str(self.home / "wheels"), **more)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_the_same_compilers_from_archives_make_the_same(
    archives: Archives, server: Server, sample: tuple[Workbench, Outcome], tmp_path: Path
) -> None:
    """All of the wheel but what is said of how it was made: every library, and what Python and pip
    read."""
    bench = Archived(tmp_path / "archived", archives, server)
    outcome = bench.build("--arch", ARCHS, kernel="sample")
    mine, its = outcome.wheel(), sample[1].wheel()
    assert mine.name == its.name
    differing = {line.partition(":")[0].rpartition("/")[2] for line in differences(mine, its)}
    assert differing <= SAYING, f"{differing - SAYING} differ:\n{outcome.err}"
    with zipfile.ZipFile(mine) as wheel:
        assert sum(name.endswith(".so") for name in wheel.namelist()) == 2
    assert sorted(server.requests) == sorted(f"/{file.filename}" for file in archives.files)


def test_processes_and_containers_make_one_wheel_of_archives(
    docker_engine: LentEngine, archives: Archives, server: Server, tmp_path: Path
) -> None:
    """Both with the programs of one image, as in test_reproducible_engines."""
    contained = Archived(tmp_path / "contained", archives, server)
    images = tmp_path / "image-files"
    shutil.copytree(cache_folder() / "image-files", images, copy_function=os.link)
    (contained.cache / "image-files").unlink()
    (contained.cache / "image-files").symlink_to(images)
    contained.hand_over("image-files")
    asked = ("--engine", "docker", "--arch", "80", "--python", PYTHON)
    wheel = contained.build(*asked, kernel="sample", **docker_engine.variables).wheel()
    bench = Archived(tmp_path / "inside", archives, server)
    bench.hand_over("downloads")
    image, packages = docker_engine.bases[PYTHON], dependencies(tmp_path / "packages")
    build_inside(docker_engine.connect().api, image, bench, packages, "sample")
    [made] = bench.wheels()
    assert_same(made, wheel)
    assert server.requests == [], "what was handed over was fetched"
