"""A project with two CUDA units and a C++ unit, whose own back end makes a wheel of their objects,
in a toolchain whose nvcc is the stand-in: whole builds in a second or two."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import parse_arch
from fatwheel.compilers.nvcc import PARTS
from fatwheel.config.recipe import Recipe, SourcePin
from fatwheel.config.sourcetree import tree_digest
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.engines.local import Tools
from fatwheel.model import Environment
from fatwheel.pipeline.proof import Proof, UnitProof, Way, source_id, write_proof
from fatwheel.provision.tools import HostCompiler
from fatwheel.toolchain.interpreters import compiler_id
from fatwheel.worker import roots

from .standins import write_nvcc

PYPROJECT = """
[build-system]
requires = []
build-backend = "own_backend"
backend-path = ["."]
"""
BACKEND = """
import base64, hashlib, os, subprocess, zipfile
from pathlib import Path

INFO = "demo-1.0.dist-info/"


def build_wheel(directory, config_settings=None, metadata_directory=None):
    files = {"demo/__init__.py": b""}
    for source in sorted(Path("csrc").iterdir()):
        if source.suffix not in (".cu", ".cpp"):
            continue
        target = Path("build/temp.x/csrc", source.stem + ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        nvcc = os.environ["CUDA_HOME"] + "/bin/nvcc"
        tool = [nvcc, "-arch=sm_80"] if source.suffix == ".cu" else [os.environ["CXX"], "-g"]
        subprocess.run([*tool, "-c", str(source), "-o", str(target)], check=True)
        files[f"demo/{source.stem}.o"] = target.read_bytes()
    files[INFO + "METADATA"] = b"Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n"
    tag = b"Tag: py3-none-linux_x86_64"
    files[INFO + "WHEEL"] = b"Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\n" + tag + b"\\n"
    files[INFO + "RECORD"] = "".join(f"{name},,\\n" for name in files).encode()
    name = "demo-1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(Path(directory, name), "w") as wheel:
        for member, data in files.items():
            wheel.writestr(member, data)
    return name
"""
ARCHS = ("80", "86", "90a")


class Demo:
    """The project, a cache of its own, and the toolchain."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.source = folder / "kernels" / "demo" / "src"
        monkeypatch.setenv("FATWHEEL_CACHE", str(self.cache))
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        monkeypatch.setattr(roots, "VIEW_ROOT", folder / "view")
        self.write("pyproject.toml", PYPROJECT)
        self.write("own_backend.py", BACKEND)
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(f"csrc/{name}", f"int {name[0]};\n")
        self.home = write_nvcc(folder / "env")
        (self.home / "include").mkdir()
        self.recipe = Recipe(
            name="demo", project="demo", version="1.0",
            source=SourcePin(folder="src", sha256=tree_digest(self.source)),
            archs=ARCHS[:2], environment={}, imports=("demo",), memory=1 << 20, seconds=1,
            costs=(), epoch=1_700_000_000, folder=self.source.parent, digest="7e" * 32,
        )  # fmt: skip
        self.toolchain = Toolchain(
            name="tools", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88",
            archs=tuple(map(parse_arch, ARCHS)), gcc=(9, 15), packages=(),
            builds=(TorchBuild("2.10.0", "3.11", ()), TorchBuild("2.11.0", "3.11", ()),
             TorchBuild("2.11.0", "3.12", ())),
            digest="70" * 32, default_torch="2.11.0",
        )  # fmt: skip
        environment = Environment(
            root=folder / "env", python=Path(sys.executable), site=folder / "env" / "site",
            cuda_home=self.home, include=folder / "env" / "python", python_version="3.11",
            torch="2.11.0", compiler_id=compiler_id(self.toolchain, self.toolchain.builds[0]),
        )  # fmt: skip
        compiler = HostCompiler(Path(shutil.which("g++") or "g++"), "12.2.0", "c0" * 32)
        self.tools = Tools(environment, compiler)

    def write(self, name: str, text: str) -> None:
        """Write a source file; the recipe's digest changes with it, as load's does."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if hasattr(self, "recipe"):
            digest = hashlib.sha256(f"{self.recipe.digest} {name} {text}".encode())
            self.recipe = dataclasses.replace(self.recipe, digest=digest.hexdigest())

    def prove(
        self,
        ways: Mapping[Way, tuple[str, ...]],
        archs: str = "80,86",
        others: Mapping[str, Mapping[Way, tuple[str, ...]]] | None = None,
    ) -> None:
        """A proof beside the recipe. ways: of the unit csrc/a, what differs; others: of further
        ones."""
        units = [
            UnitProof(name, 2, {}, found)
            for name, found in {"csrc/a": ways, **(others or {})}.items()
        ]
        found = tuple(parse_arch(name) for name in archs.split(","))
        path = self.recipe.folder / "proofs" / f"{archs}.json"
        compilers = compiler_id(self.toolchain, self.toolchain.builds[0])
        parts = PARTS if "split" in ways or "both" in ways else 0
        about = "demo", "1.0", source_id(self.recipe), "tools", compilers
        write_proof(Proof(*about, found[0], found, parts, tuple(units), path))

    def load_recipe(self, kernel: str, *folders: Path) -> Recipe:
        return self.recipe

    def load_toolchain(self, name: str, *folders: Path) -> Toolchain:
        return self.toolchain

    def ready_tools(self, target: Any, emit: Any) -> Tools:
        return self.tools

    def work_folders(self) -> list[str]:
        """What builds left in the cache's work folder."""
        folder = self.cache / "work"
        return sorted(set(os.listdir(folder)) - {"lock"}) if folder.exists() else []
