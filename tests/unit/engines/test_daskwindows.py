"""Toolchains for Windows on a cluster: what a worker says of its own, and what the machine that
builds makes of the names that a compiler there has for files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.engines import windows
from fatwheel.engines.base import Limits
from fatwheel.engines.daskwindows import WindowsEquipment, context_of, identity_of
from fatwheel.errors import EngineError, UsageError
from fatwheel.events import Note
from fatwheel.model import Unit
from fatwheel.provision.msvc import unpack
from fatwheel.toolchain.homes import accept
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts
from fatwheel.worker.slices import steady

from ...helpers.msvcpackages import SDK, VC, write_packages
from ...helpers.workstations import WINDOWS_TOOLCHAIN

PLACE = PureWindowsPath("C:/b/demo-1.0")
UNIT = Unit("csrc/a", "cuda", "@src@/csrc/a.cu", (), (), (), None)


@dataclass(frozen=True)
class Tools:
    """Those of a machine, below a folder."""

    folder: Path
    cl: str = "19.38.33130"

    @property
    def root(self) -> Path:
        return self.folder

    @property
    def msvc(self) -> Any:
        return SimpleNamespace(root=self.folder / "msvc")

    def environment(self, root: Path) -> Any:
        return SimpleNamespace(
            compiler_id="ab" * 32, python_version="3.11.9", include=root / "include"
        )


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    unpack(write_packages(tmp_path / "packages"), tmp_path / "msvc")
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").write_text("#define PY 3")
    return Tools(tmp_path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (f"msvc/{VC[9:]}/bin/Hostx64/x64/c2.dll", "C++ compiler"),
        ("include/Python.h", "headers of Python"),
        (f"msvc/Windows Kits/10/Include/{SDK}/um/another.h", "names of the system's headers"),
    ],
)
def test_a_worker_shows_that_its_tools_are_as_they_were_unpacked(
    tools: Tools, tmp_path: Path, change: str, what: str
) -> None:
    before = identity_of(tools)  # type: ignore[arg-type]
    shutil.copytree(tools.folder, tmp_path / "elsewhere")
    there = Tools(tmp_path / "elsewhere")
    assert identity_of(there) == before  # type: ignore[arg-type]
    (there.folder / change).write_text("another")
    after = identity_of(there)  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == {what}


def test_msvc_comes_only_to_a_machine_whose_user_has_accepted_the_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    monkeypatch.delenv("FATWHEEL_ACCEPT_MSVC_LICENSE", raising=False)
    monkeypatch.setattr(windows, "obstacle", lambda toolchain: "")
    monkeypatch.setattr(windows, "ready_tools", lambda target, emit: "the tools")
    target: Any = SimpleNamespace(toolchain=WINDOWS_TOOLCHAIN)
    with pytest.raises(UsageError, match="only once you have accepted Microsoft's terms"):
        WindowsEquipment.ready(target, Limits(1, 1), tmp_path / "killed")
    accept(tmp_path)
    made: Any = WindowsEquipment.ready(target, Limits(1, 1), tmp_path / "killed")
    assert made.tools == "the tools"


# -- the machine that builds -----------------------------------------------------------------------


class Site:
    """A captured project: its sources, as they were copied, and a Windows that shows them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = folder / "sources"
        header = self.sources / "captured" / "csrc" / "A.h"
        header.parent.mkdir(parents=True)
        header.write_text("int a;")
        (header.parent / "notes.md").write_text("no source")
        shutil.copytree(self.sources / "captured", folder / "b" / "demo-1.0" / "src")
        self.system = SimpleNamespace(place=PLACE, real=self.real)
        stores = SimpleNamespace(own=folder / "store", trunks=())
        self.build: Any = SimpleNamespace(stores=stores, scope="")
        self.described = {
            "cxx": r"C:\b\demo-1.0\msvc\bin\cl.exe",
            "host_id": "cd" * 32,
            "environment": {
                "root": r"C:\b\demo-1.0\env",
                "site": r"C:\b\demo-1.0\env\Lib\site-packages",
                "cuda_home": r"C:\b\demo-1.0\cuda",
                "include": r"C:\b\demo-1.0\env\include",
            },
        }

    def real(self, path: PureWindowsPath) -> Path:
        return self.folder.joinpath(*path.parts[1:])

    def context(self) -> Context:
        project = SimpleNamespace(subdirectory="", epoch=7)
        message = SimpleNamespace(compiler_id="ab" * 32, seeded=True, fronts=(), project=project)
        return context_of(self, message)  # type: ignore[arg-type]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Site(tmp_path).context()


def test_folders_have_the_names_that_windows_itself_gives_them(context: Context) -> None:
    """They are part of keys. Nothing here is Linux's, as the folder of a job."""
    assert context.places.mapped() == (
        (r"C:\b\demo-1.0\env", "env"),
        (r"C:\b\demo-1.0\cuda", "cuda"),
        (r"C:\b\demo-1.0\env\include", "python"),
        (r"C:\b\demo-1.0\env\Lib\site-packages", "site"),
        (r"C:\b\demo-1.0\src", "demo-1.0"),
    )
    assert r"-pathmap:C:\b\demo-1.0\src=demo-1.0" in steady(context, UNIT)
    assert dict(context.places.files or ()).keys() == {"csrc/A.h"}


@pytest.mark.parametrize(
    ("name", "change", "same"),
    [
        (r"C:\b\demo-1.0\src\csrc\A.h", lambda sha: sha, True),
        (r"C:\b\demo-1.0/src/csrc/../csrc/A.h", lambda sha: sha, True),
        (r"C:\b\demo-1.0\src\csrc\A.h", lambda sha: sha[::-1], False),
        (r"C:\b\demo-1.0\src\csrc\none.h", lambda sha: sha, False),
        (r"C:\b\demo-1.0\src\csrc\none.h", lambda sha: None, True),
        (r"csrc\A.h", lambda sha: sha, False),
    ],
)
def test_what_a_worker_read_must_be_the_same_here(
    context: Context, name: str, change: Callable[[str], str | None], same: bool
) -> None:
    sha = change(hashlib.sha256(b"int a;").hexdigest())
    found = Texts(context, context.store()).others({"files": [[name, sha, False]]})
    assert found == ([] if same else [name])


def test_on_windows_a_worker_waits_for_no_build_on_its_machine() -> None:
    with pytest.raises(EngineError, match="another build of this project is at work"):
        windows._not_twice(Note("another build is at work"))
