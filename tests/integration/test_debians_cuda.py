"""A real build with Debian's nvcc 12.4 as it is installed there: its programs in three folders, its
headers among the system's.

As root alone could install it, it lies in another folder, and its nvcc.profile, which has paths
from the root on, names that. torch is a stand-in that says which CUDA it was built for: the sample
does not import it.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tarfile
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.events import silent
from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch

from .conftest import Workbench
from .debianimage import image_tar
from .test_older_nvcc import RECIPE, VERSION

pytestmark = pytest.mark.slow

DEBIAN = replace(
    RECIPE, installed=(), left_out=("usr/share/", "usr/lib/nvidia-cuda-toolkit/compute-sanitizer/")
)
PROFILE = """
NVVMIR_LIBRARY_DIR = {usr}/lib/nvidia-cuda-toolkit/libdevice
PATH += {usr}/lib/nvidia-cuda-toolkit/bin:{usr}/bin:
INCLUDES += -I{usr}/include
"""
NEEDED = ("setuptools", "_distutils_hack", "wheel", "packaging")


def installed(folder: Path) -> Path:
    """The /usr of a Debian that has this CUDA."""
    with tarfile.open(image_tar(DEBIAN)) as archive:
        archive.extractall(folder)
    usr = folder / "usr"
    runtime = next(package for package, _ in RECIPE.wheels if "runtime" in package.name)
    [file] = fetch([runtime], cache_folder() / "downloads", silent)
    libraries = usr / "lib" / f"{platform.machine()}-linux-gnu"
    libraries.mkdir(parents=True)
    with zipfile.ZipFile(file) as wheel:
        [name] = [name for name in wheel.namelist() if "/libcudart.so." in name]
        (libraries / Path(name).name).write_bytes(wheel.read(name))
        (libraries / "libcudart.so").symlink_to(Path(name).name)
    profile = usr / "lib/nvidia-cuda-toolkit/bin/nvcc.profile"
    profile.unlink()
    profile.write_text(PROFILE.format(usr=usr))
    return usr


def with_torch(folder: Path, tools: Path) -> Path:
    """A virtual environment with setuptools, and with what says that it is torch."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for path in tools.iterdir():
        if path.is_dir() and path.name.partition("-")[0] in NEEDED:
            shutil.copytree(path, site / path.name)
    torch = site / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text('from . import version\n\n__version__ = "2.8.0+cu126"\n')
    (torch / "version.py").write_text('cuda = "12.6"\n')
    return folder


def test_a_build(environment: Environment, tmp_path: Path) -> None:
    usr = installed(tmp_path / "debian")
    python = with_torch(tmp_path / "venv", environment.site)
    bench = Workbench(tmp_path / "bench")
    asked = ("--cuda-home", str(usr), "--torch-from", str(python))
    wheel = bench.build("--arch", "80,90a", *asked).wheel()
    assert "+cu124torch2.8.sm80.sm90a-" in wheel.name
    verified = bench.invoke("verify", str(wheel))
    assert verified.code == 0, verified.err
    rebuilt = bench.invoke("rebuild", str(wheel))
    assert rebuilt.code == 6
    assert f"nvcc {VERSION}" in rebuilt.err
    unknown = bench.build("--arch", "120", *asked)
    assert unknown.code == 2
    assert "does not know" in unknown.err
