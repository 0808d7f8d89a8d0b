"""A container image from Debian packages of another release than this machine's.

The packages come from the mirror and with the keyring that this machine's own apt is configured
with; apt checks them against Debian's signed index, and keeps its lists in a folder of their own.
Nothing is installed: the packages' files, and files of pinned wheels, are written into one tar,
which `docker import` makes an image of. So no root is needed, and no script of a package is run.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import DebianPackage
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.storage.files import replacing
from fatwheel.toolchain.fetch import fetch

from ..conftest import missing

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Recipe:
    """What an image is made of.

    installed: packages that come with all that they depend on. alone: packages that come
    without. wheels: pinned wheels, and the folder in each whose files go to /usr/include.
    left_out: beginnings of paths that are not wanted.
    """

    suite: str
    components: str
    installed: tuple[str, ...]
    alone: tuple[str, ...]
    wheels: tuple[tuple[Package, str], ...]
    left_out: tuple[str, ...]

    @property
    def key(self) -> str:
        """Other contents, or another way to lay them out, another key."""
        said = repr(self) + Path(__file__).read_text(encoding="utf-8")
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def image_tar(recipe: Recipe) -> Path:
    """The image's root as a tar, which the cache keeps; half a minute where it is not there yet."""
    path = cache_folder() / "test-engine" / f"{recipe.key}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name, replacing(path) as out:
            folder = Path(name)
            debs = _packages(recipe, folder)
            wheels = [package for package, _ in recipe.wheels]
            files = fetch(wheels, cache_folder() / "downloads", silent)
            headers = {file: below for file, (_, below) in zip(files, recipe.wheels, strict=True)}
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
                _add_packages(tar, debs, recipe.left_out)
                _add_headers(tar, headers)
    return path


def pinned_packages(packages: Sequence[DebianPackage], suite: str) -> list[Path]:
    """The files of pinned packages of a suite, which the cache keeps."""
    kept = cache_folder() / "test-engine" / "packages"
    wanted = [kept / package.path.rpartition("/")[2] for package in packages]
    if not all(path.exists() for path in wanted):
        named = ("=".join(path.name.split("_")[:2]) for path in wanted)
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            for path in _packages(Recipe(suite, "main", (), tuple(named), (), ()), Path(name)):
                shutil.copy(path, kept)
    return wanted


def _packages(recipe: Recipe, folder: Path) -> list[Path]:
    """Fetch the packages' files. The test cannot run where apt cannot."""
    apt = _apt(recipe, folder)
    out = folder / "alone"
    out.mkdir()
    install = ["install", "--yes", "--download-only", "--no-install-recommends"]
    for words in (
        ["update"],
        *([[*install, *recipe.installed]] if recipe.installed else []),
        ["download", *recipe.alone],
    ):
        command = ["apt-get", "-qq", *words]
        done = subprocess.run(
            command, cwd=out, env={**os.environ, "APT_CONFIG": str(apt)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            missing(f"no packages of Debian {recipe.suite}: {words[0]}: {done.stderr.strip()}")
    return [*sorted((folder / "cache" / "archives").glob("*.deb")), *sorted(out.glob("*.deb"))]


def _apt(recipe: Recipe, folder: Path) -> Path:
    """apt's configuration for another suite: with no package installed, and lists of its own."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    sources = folder / "suite.sources"
    sources.write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: {recipe.suite}\n"
        f"Components: {recipe.components}\nSigned-By: {_KEYRING}\n"
    )
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'Dir::State "{folder}/state"; Dir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}/cache"; Dir::Etc::SourceList "{sources}";\n'
        'Dir::Etc::SourceParts "/dev/null"; APT::Sandbox::User "root";\n'
    )
    return configuration


def _mirror() -> str:
    """Where this machine's own apt gets Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"apt says of no mirror: {error}")
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    found = [words[2] for words in lines if words[:2] == ["Debian", "Debian"] and len(words) == 3]
    if not found or not Path(_KEYRING).exists():
        missing("this machine's apt is not configured with a mirror of Debian and its keyring")
    return found[0]


def _add_packages(tar: tarfile.TarFile, debs: list[Path], left_out: tuple[str, ...]) -> None:
    # base-files first: its /lib is a link, through which later names lead.
    seen: set[str] = set()
    for deb in sorted(debs, key=lambda deb: not deb.name.startswith("base-files_")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tool:
            with tarfile.open(fileobj=tool.stdout, mode="r|") as members:
                for member in members:
                    name = member.name.removeprefix("./")
                    if name in seen or name.startswith(left_out):
                        continue
                    seen.add(name)
                    tar.addfile(member, members.extractfile(member) if member.isreg() else None)
            # What follows the end of a tar is only padding, but the tool waits to write it.
            while tool.stdout and tool.stdout.read(1 << 16):
                pass
        assert tool.returncode == 0, f"{deb.name} cannot be read"


def _add_headers(tar: tarfile.TarFile, wheels: dict[Path, str]) -> None:
    for wheel, below in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(f"{below}/")]
            assert names, f"{wheel.name} has nothing in {below}"
            for name in names:
                if not name.endswith(("/", "/__init__.py")):
                    data = archive.read(name)
                    entry = tarfile.TarInfo(f"./usr/include/{name.removeprefix(below + '/')}")
                    entry.size, entry.mode = len(data), 0o644
                    tar.addfile(entry, io.BytesIO(data))
