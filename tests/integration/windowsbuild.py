"""A toolchain for Windows made of real and of small files, and a project to build with it.

The CPython is a real one, as python.org's NuGet packages have it; nvcc is NVIDIA's; cl and link are
stand-ins (see `msvc`); torch is a name. All files lie in a folder, from which `--find` takes them.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fatwheel.provision.msvc import VCVARS

from ..conftest import ROOT
from ..helpers.tinywheels import write_wheel
from .msvc import CL, CUDA_WHEELS, install_msvc
from .windows import WindowsPython, subject
from .windowsinside import PROJECT

TOOLCHAIN = """
name = "windows-demo"
platform = "win-amd64"
cuda = "13.0"
nvcc = "13.0.88"
archs = ["80", "89"]

{wine}
{msvc}
[[portable]]
python = "3.11"
version = "3.11.9"
url = "https://example.org/python.3.11.9.nupkg"
{python}
"""
MSVC = """
[msvc]
visual_studio = "17.8.2"
cl = "{cl}"
toolset = "14.38"
license = "https://example.org/terms"

[msvc.channel]
url = "https://example.org/a.chman"
sha256 = "{nothing}"

[msvc.catalogue]
url = "https://example.org/a.vsman"
sha256 = "{nothing}"

[[msvc.payloads]]
name = "stand-ins"
version = "1.0"
url = "https://example.org/stand-ins.vsix"
{pin}
"""
RECIPE = """
project = "windows-demo"
version = "1.0"
archs = ["89"]
imports = ["windows_demo"]
memory = "300MiB"
seconds = 1.0
epoch = 2026-01-01
stub_commands = ["git"]

[environment]
DEMO_FLAVOUR = "plain"

[source]
folder = "src"
"""
# Where Wine is pinned, at the end.
IMAGES = ROOT / "toolchains" / "parts" / "images" / "win-amd64.toml"
# What reads no more than the version.
TORCH = {
    "torch/__init__.py": "__version__ = '2.11.0+cu130'\n",
    "torch/utils/cpp_extension.py": "",
}


@dataclass(frozen=True)
class Demo:
    """A folder with the toolchain, the project, and in `files` what they are made of."""

    folder: Path

    @property
    def wheels(self) -> list[Path]:
        return sorted(self.folder.glob("dist*/*.whl"))

    def build(self, out: str, engine: str = "process") -> list[str]:
        """The arguments of a build on this machine, into a folder in this one."""
        return [
            "build", "--kernel", "windows-demo", "--toolchain", "windows-demo",
            "--engine", engine, "--find", "files", "--accept-msvc-license", "--out", out,
        ]  # fmt: skip


def write_demo(folder: Path, python: WindowsPython, gcc: str) -> Demo:
    files = folder / "files"
    files.mkdir(parents=True)
    write_python(files / "python.3.11.9.nupkg", python.folder)
    packages = [*_subjects(files, "compiler", *CUDA_WHEELS)]
    packages += _subjects(files, "build", "setuptools", "ninja-windows")
    torch = write_wheel(files, "torch", "2.11.0", TORCH)
    text = TOOLCHAIN.format(
        wine="[wine]" + IMAGES.read_text(encoding="utf-8").partition("\n[wine]")[2],
        msvc=_msvc(files, gcc),
        python=_pin(files / "python.3.11.9.nupkg"),
    )
    text += "".join(f"\n[[packages]]\n{package}" for package in packages)
    text += '\n[[builds]]\ntorch = "2.11.0"\npython = "3.11"\n'
    text += f"\n[[builds.packages]]\n{_package(files / torch.filename, 'runtime')}"
    (folder / "toolchains").mkdir()
    (folder / "toolchains" / "windows-demo.toml").write_text(text, encoding="utf-8")
    recipe = folder / "kernels" / "windows-demo"
    shutil.copytree(PROJECT, recipe / "src")
    (recipe / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return Demo(folder)


def write_python(path: Path, folder: Path) -> None:
    """A Python as NuGet's packages have it, with what describes a package."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", "<Relationships/>")
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, f"tools/{file.relative_to(folder).as_posix()}")


def _subjects(files: Path, role: str, *names: str) -> Iterator[str]:
    for name in names:
        path = subject(name)
        shutil.copy(path, files)
        yield _package(files / path.name, role)


def _package(path: Path, role: str) -> str:
    name, version, *_ = path.name.split("-")
    return (
        f'name = "{name.replace("_", "-")}"\nversion = "{version}"\nfile = "{path.name}"\n'
        f'role = "{role}"\n{_pin(path)}'
    )


def _pin(path: Path) -> str:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return f'size = {path.stat().st_size}\nsha256 = "{sha256}"\n'


def _msvc(files: Path, gcc: str) -> str:
    """The stand-ins as one package of Visual Studio, and its table."""
    home = files.parent / "msvc"
    install_msvc(home, gcc)
    package = files / "stand-ins.vsix"
    with zipfile.ZipFile(package, "w") as archive:
        for file in sorted(home.rglob("*")):
            name = f"Contents/{quote(file.relative_to(home).as_posix())}"
            if file.is_file() and name != f"Contents/{VCVARS}":
                archive.write(file, name)
    shutil.rmtree(home)
    return MSVC.format(cl=CL, nothing="0" * 64, pin=_pin(package))
