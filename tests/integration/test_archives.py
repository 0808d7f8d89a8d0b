"""CUDA that comes as archives: processes make with it what they make with the same CUDA from
packages, and what containers make.

The archives are made of the packages' files, so that both are known to be the same compilers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.config.toolchains import load_toolchain
from fatwheel.events import silent
from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch, place

from ..conftest import missing
from ..helpers.cudaarchives import NAMES, Archives, make_archives
from ..helpers.pinned import TOOLCHAINS
from ..helpers.webserver import Server
from .conftest import ARCHS, SAMPLE, Outcome, Workbench
from .engine import LentEngine
from .olderarchives import KEYS, make_older_archives
from .once import once
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
        packages = load_toolchain(REAL, TOOLCHAINS).packages
        wanted = [package for package in packages if package.name in NAMES]
        wheels = fetch(wanted, cache_folder() / "image-files", silent)
        return make_archives(list(zip(wanted, wheels, strict=True)), folder, PLACE)

    return once(tmp_path_factory, "archives", make)


class Archived(Workbench):
    """A workbench with environments of its own, whose toolchain has no torch and CUDA as archives
    that a server on this machine has."""

    def __init__(
        self, folder: Path, archives: Archives, server: Server, keys: Mapping[str, str] = {}
    ) -> None:
        """keys: what the toolchain's file says otherwise than linux-cuda13.0's."""
        super().__init__(folder)
        self._home = folder
        self.files = [(file, archives.folder / file.filename) for file in archives.files]
        for file, path in self.files:
            server.serve(f"/{file.filename}", path.read_bytes())
        tables = archives.tables().replace(PLACE, server.url)
        torch = make_toolchain(folder, TOOLCHAIN, without=NAMES, more=tables)
        file = folder / "toolchains" / f"{TOOLCHAIN}.toml"
        text = file.read_text()
        for key, value in keys.items():
            text = re.sub(rf"^{key} = (\[[^]]*\]|.*)$", f"{key} = {value}", text, flags=re.M)
        file.write_text(text)
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


@pytest.mark.long
def test_processes_and_containers_make_one_wheel_of_archives(
    docker_engine: LentEngine, archives: Archives, server: Server, tmp_path: Path, on_disk: Path
) -> None:
    """Both with the programs of one image, as in test_reproducible_engines."""
    contained = Archived(tmp_path / "contained", archives, server)
    images = on_disk / "image-files"
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


@pytest.mark.long  # an older nvcc, and archives of the usual one, are in every run
def test_cuda_12_from_archives(
    server: Server, tmp_path: Path, environment: Environment, tool: Callable[[str], str]
) -> None:
    """Whose nvcc no package has: the code of every kernel is what that nvcc makes in one call."""
    gcc = subprocess.run([tool("g++"), "-dumpversion"], capture_output=True, text=True).stdout
    if not 9 <= int(gcc.partition(".")[0]) <= 13:
        missing("g++ 9 to 13 is not the g++ here")
    (tmp_path / "archives").mkdir()
    archives = make_older_archives(tmp_path / "archives", PLACE)
    bench = Archived(tmp_path / "archived", archives, server, KEYS)
    wheel = bench.build("--arch", ARCHS, kernel="sample").wheel()
    assert "+cu124torch" in wheel.name
    [cuda] = (bench.cache / "cuda").glob("[!.]*")
    tools = environment.cuda_home / "bin" / "cuobjdump", cuda / "bin" / "nvcc"
    for library, units in LIBRARIES.items():
        with zipfile.ZipFile(wheel) as archive:
            [name] = [n for n in archive.namelist() if n.rpartition("/")[2].startswith(library)]
            built = Path(archive.extract(name, tmp_path / "built"))
        expected = []
        for source, flags in units:
            obj = tmp_path / f"{library}-{Path(source).stem}.o"
            words = ["-Xcompiler", "-fPIC", *GENCODES, *flags, "-c", source, "-o", obj]
            subprocess.run([tools[1], *words], cwd=ROOT / SAMPLE / "src", check=True)
            expected += code_of(tools[0], obj, tmp_path / obj.stem)
        found = code_of(tools[0], built, tmp_path / library)
        assert sorted(found) == sorted(expected), f"{library} has other code"


# Nothing is included before and after these sources: see csrc/short.h.
SHORT = ["-D__CUDA_RUNTIME_H__", "-Xcompiler", "-D__COMMON_FUNCTIONS_H__"]
GENCODES = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS.split(",")]
# What the sample's setup.py compiles: for each library, its sources with their flags.
LIBRARIES = {
    "_cases": [(f"csrc/{unit}.cu", ["-DFACTOR=2", *SHORT]) for unit in ("scaled", "listed")],
    "_lines": [("csrc/scaled.cu", ["-DFACTOR=3", "-lineinfo", *SHORT])],
}


def code_of(cuobjdump: Path, file: Path, folder: Path) -> list[tuple[str, bytes]]:
    """Every kernel's code with its architecture, by NVIDIA's own tool and pyelftools.

    Kernels' names are left out: in those of a name space without a name is what nvcc makes up for
    each call.
    """
    folder.mkdir()
    subprocess.run([cuobjdump, "-xelf", "all", file], cwd=folder, check=True, capture_output=True)
    found = []
    for path in folder.iterdir():
        with path.open("rb") as stream:
            sections = ELFFile(stream).iter_sections()
            texts = [s.data() for s in sections if s.name.startswith(".text.")]
        found += [(path.name.split(".")[-2], text) for text in texts]
    assert found, f"{file.name} has no device code"
    return found
