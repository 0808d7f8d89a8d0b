"""`fatwheel check` on real mismatches: published wheels beside a real torch, libraries that are
gone, GPUs and drivers of other kinds, and a real Windows Python. What Python's own import and the
system's loader say is the oracle."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.model import Environment

from ..helpers.environments import install
from ..helpers.fakecuda import fake_driver
from ..helpers.schemas import schema_of
from .windows import WindowsPython, subject, windows_path

ROOT = Path(__file__).parents[2]
TORCH = "2.11.0"  # of the environment, for which the published wheels below were not built
# What fatwheel needs to check an installed package; none of it is compiled.
PURE = ("invoke", "packaging", "rich", "pygments", "markdown_it", "mdurl")
MODULE = '#include <Python.h>\n%s\nstatic struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "_C"};\n'
MODULE += "PyMODINIT_FUNC PyInit__C(void) { %s return PyModule_Create(&def); }\n"


@dataclass(frozen=True)
class Place:
    """An environment, and what is run in it."""

    folder: Path
    site: Path

    def check(self, *words: str, code: int, **variables: str) -> Any:
        words = (*words, "--python", str(self.folder), "--json")
        done = subprocess.run(
            [sys.executable, "-m", "fatwheel", "check", *words],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        document = json.loads(done.stdout)
        jsonschema.validate(document, schema_of("check"))
        return document

    def says(self, code: str) -> str:
        """The last words of a failure in its Python."""
        done = subprocess.run(
            [str(self.folder / "bin" / "python"), "-c", code], cwd=self.folder,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode != 0, "it does not fail"
        return done.stderr


@pytest.fixture
def place(environment: Environment, tmp_path: Path) -> Place:
    """An environment that has the toolchain's torch beside packages of its own."""
    folder = tmp_path / "venv"
    subprocess.run(
        [str(environment.python), "-m", "venv", "--without-pip", str(folder)], check=True
    )
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "torch.pth").write_text(f"{environment.site}\n")
    return Place(folder, site)


def unpack(place: Place, name: str) -> None:
    """A published wheel, where installers would put it."""
    with zipfile.ZipFile(subject(name)) as wheel:
        wheel.extractall(place.site)


def needs_python_311(environment: Environment) -> None:
    if not environment.python_version.startswith("3.11."):
        pytest.skip("the published wheels are for Python 3.11")


def undefined(library: Path, site: Path, tool: Callable[[str], str]) -> set[str]:
    """The C++ names that the system's loader does not find, with torch's libraries at hand."""
    done = subprocess.run(
        [tool("ldd"), "-r", str(library)], capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(site / "torch" / "lib")},
    )  # fmt: skip
    return set(re.findall(r"undefined symbol: (_Z\w+)", done.stdout + done.stderr))


def findings(document: Any, cause: str) -> list[Any]:
    return [one for one in document["findings"] if one["cause"] == cause]


# -- Linux -----------------------------------------------------------------------------------------


def test_torch_itself(environment: Environment) -> None:
    """Nothing is wrong with it, though this machine may have no driver."""
    place = Place(environment.root, environment.site)
    document = place.check(code=0)
    assert document["kind"] == "environment"
    assert document["environment"]["torch"]["version"].startswith(TORCH)
    assert "`import torch` works" in document["verdict"]["what"]


def test_torchvision_for_another_torch(
    place: Place, environment: Environment, tool: Callable[[str], str]
) -> None:
    """Its import fails later, with an operator that does not exist; the loader knows why."""
    needs_python_311(environment)
    unpack(place, "torchvision-linux")
    document = place.check("torchvision", code=13)
    assert document["verdict"]["cause"] == "torch"
    assert document["verdict"]["what"].startswith(f"it was built for torch 2.5; torch {TORCH}")
    command = document["verdict"]["cure"]["command"]
    assert command.endswith(f"--upgrade torchvision torch=={TORCH}")
    [torch] = [one for one in findings(document, "torch") if "lacks" in one["what"]]
    theirs = set()
    for name in ("_C.so", "image.so"):
        theirs |= undefined(place.site / "torchvision" / name, environment.site, tool)
    assert {name for name in torch["details"] if name.startswith("_Z")} == theirs
    assert "it requires torch==2.5.1" in torch["details"]
    said = place.says(
        "import torch; torch.ops.load_library("
        + repr(str(place.site / "torchvision" / "_C.so"))
        + ")"
    )
    assert "libcudart.so.12: cannot open shared object file" in said
    assert any("(libcudart.so.12)" in one["what"] for one in findings(document, "torch"))
    failed = document["import"]["modules"][-1]
    assert "operator torchvision::nms does not exist" in failed["error"][-1]


def test_a_wheel_says_the_same_before_it_is_installed(
    place: Place, environment: Environment
) -> None:
    needs_python_311(environment)
    document = place.check(str(subject("torchaudio-linux")), code=13)
    assert (document["kind"], document["import"]) == ("wheel", None)
    assert document["verdict"]["cause"] == "torch"
    assert not list(place.site.glob("torchaudio*"))
    said = {one["what"] for one in findings(document, "torch")}
    assert any(what.startswith("it was built for CUDA 12 (libcudart.so.12)") for what in said)


def test_a_library_that_was_deleted(environment: Environment, on_disk: Path) -> None:
    """Of a copy of torch whose files are links to the environment's."""
    folder = on_disk / "venv"
    subprocess.run(
        [str(environment.python), "-m", "venv", "--without-pip", str(folder)], check=True
    )
    site = next(folder.glob("lib/python*/site-packages"))
    needed = ("torch", "torch-*", "torchgen", "functorch", "nvidia", "nvidia_*",
              "typing_extensions*", "sympy*",
              "mpmath*", "networkx*", "jinja2*", "markupsafe*", "filelock*", "fsspec*")  # fmt: skip
    for pattern in needed:
        for source in environment.site.glob(pattern):
            if source.is_dir():
                shutil.copytree(source, site / source.name, copy_function=os.link)
            else:
                os.link(source, site / source.name)
    [library] = site.glob("nvidia/**/libcudnn.so.9")
    library.unlink()
    place = Place(folder, site)
    document = place.check("torch", code=13)
    said = place.says("import torch")
    assert "libcudnn.so.9: cannot open shared object file" in said
    assert document["verdict"]["cause"] == "libraries"
    assert document["verdict"]["what"] == "torch does not load: libcudnn.so.9 is missing"
    command = document["verdict"]["cure"]["command"]
    [info] = site.glob("nvidia_cudnn_cu13-*.dist-info")
    version = info.name.removesuffix(".dist-info").partition("-")[2]
    assert command.endswith(f"nvidia-cudnn-cu13=={version}")
    assert "reinstall" in command


def test_no_torch(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    place = Place(tmp_path / "venv", site)
    with zipfile.ZipFile(subject("torchaudio-linux")) as wheel:
        wheel.extractall(site)
    document = place.check("torchaudio", "--no-import", code=13)
    causes = {one["cause"] for one in document["findings"] if one["severity"] == "wrong"}
    assert "torch" in causes
    [torch] = [one for one in findings(document, "torch") if "not installed" in one["what"]]
    assert "torch==2.5.*" in torch["cure"]["command"]


@pytest.mark.parametrize(
    ("capability", "cuda", "cause", "said"),
    [
        ("90", "12080", None, "machine code for Fake H200 (9.0)"),
        ("35", "12080", "gpu", "no code for Fake H200 (3.5)"),
        ("120", "12040", "driver", "is too old"),
        ("120", "12090", None, "machine code for Fake H200 (12.0)"),
        ("150", "13010", None, "PTX alone"),
        ("90", "11040", "driver", "is too old: CUDA 12 needs 525.60.13"),
    ],
)
def test_other_gpus_and_drivers(
    capability: str, cuda: str, cause: str | None, said: str, tmp_path: Path,
    tool: Callable[[str], str],
) -> None:  # fmt: skip
    """A library in the place of the driver's: nothing else is a stand-in."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    place = Place(tmp_path / "venv", site)
    with zipfile.ZipFile(subject("nvjpeg-linux")) as wheel:
        wheel.extractall(site)
    document = place.check(
        "nvidia-nvjpeg-cu12", code=13 if cause else 0, FAKE_CAPABILITY=capability, FAKE_CUDA=cuda,
        LD_LIBRARY_PATH=str(fake_driver(tmp_path / "driver", tool)),
    )  # fmt: skip
    assert document["verdict"]["cause"] == cause
    assert any(said in one["what"] for one in document["findings"]), document["findings"]


# -- Windows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WindowsPlace:
    """An environment of a real Windows Python, which runs fatwheel itself, under Wine."""

    python: WindowsPython
    folder: Path
    lent: Path

    @property
    def site(self) -> Path:
        return self.folder / "Lib" / "site-packages"

    def check(self, *words: str, code: int) -> Any:
        main = "from fatwheel.__main__ import main; main()"
        line = ["fatwheel", "check", *words, "--json"]
        done = self.python.wine.run(
            self.folder / "Scripts" / "python.exe", "-X", "utf8", "-c",
            f"import sys; sys.path[:0] = [{windows_path(ROOT)!r}, {windows_path(self.lent)!r}]; "
            f"sys.argv[:] = {line!r}; {main}",
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        document = json.loads(done.stdout)
        jsonschema.validate(document, schema_of("check"))
        return document

    def says(self, code: str) -> str:
        done = self.python.wine.run(
            self.folder / "Scripts" / "python.exe", "-X", "utf8", "-c", code
        )
        return done.stderr


@pytest.fixture
def windows_place(windows_python: WindowsPython, tmp_path: Path) -> WindowsPlace:
    place, lent = tmp_path / "venv", tmp_path / "lent"
    done = windows_python.wine.run(
        windows_python.folder / "python.exe", "-I", "-m", "venv", "--without-pip", place
    )
    assert done.returncode == 0, done.stderr
    lent.mkdir()
    for name in PURE:
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.origin
        shutil.copytree(Path(spec.origin).parent, lent / name)
    info = Path(str(importlib.metadata.distribution("invoke").locate_file("")))
    for folder in info.glob("invoke-*.dist-info"):
        shutil.copytree(folder, lent / folder.name)
    return WindowsPlace(windows_python, place, lent)


def compiled(place: WindowsPlace, folder: Path, tool: Callable[[str], str], *, gone: str) -> Path:
    """A real module that needs a function of gone.dll, whose source this is."""
    gcc, base = tool("x86_64-w64-mingw32-gcc"), place.python.folder
    folder.mkdir()
    (folder / "gone.c").write_text(gone)
    (folder / "a.c").write_text(MODULE % ("extern int f(void);", "f();"))
    run = {"cwd": folder, "check": True, "capture_output": True}
    subprocess.run([gcc, "-shared", "gone.c", "-o", "gone.dll"], **run)  # type: ignore[call-overload]
    subprocess.run(  # type: ignore[call-overload]
        [gcc, "-shared", "a.c", f"-I{base / 'include'}", "gone.dll",
         str(base / "libs" / "python311.lib"), "-o", "_C.pyd"], **run,
    )  # fmt: skip
    return folder


EXPORTED = "__declspec(dllexport) int %s(void) { return 0; }\n"


def test_a_dll_that_is_missing(
    windows_place: WindowsPlace, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Windows does not say which one; PATH is no place where Python looks."""
    made = compiled(windows_place, tmp_path / "made", tool, gone=EXPORTED % "f")
    module = {
        "demo/__init__.py": b"from . import _C\n",
        "demo/_C.pyd": (made / "_C.pyd").read_bytes(),
    }
    install(windows_place.site, "demo", "1.0", module, tag="cp311-cp311-win_amd64")
    assert "DLL load failed while importing _C" in windows_place.says("import demo")
    document = windows_place.check("demo", code=13)
    assert document["environment"]["title"].startswith("CPython 3.11.9 on Windows x86_64")
    [finding] = findings(document, "libraries")
    assert finding["what"] == "gone.dll is missing"
    assert finding["details"] == ["needed by demo/_C.pyd"]
    assert "DLL load failed" in document["import"]["modules"][0]["error"][-1]
    # Beside the module it is found, and by the same rules everything else: the report is empty.
    shutil.copy(made / "gone.dll", windows_place.site / "demo" / "gone.dll")
    document = windows_place.check("demo", code=0)
    assert document["verdict"]["what"] == "nothing is wrong: `import demo` works"
    assert not [one for one in document["findings"] if one["severity"] != "note"]


def test_a_dll_without_the_function(
    windows_place: WindowsPlace, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    made = compiled(windows_place, tmp_path / "made", tool, gone=EXPORTED % "f")
    other = compiled(windows_place, tmp_path / "other", tool, gone=EXPORTED % "f" + EXPORTED % "g")
    (tmp_path / "other" / "gone.c").write_text(EXPORTED % "g")
    subprocess.run(
        [tool("x86_64-w64-mingw32-gcc"), "-shared", "gone.c", "-o", "gone.dll"],
        cwd=other, check=True,
    )  # fmt: skip
    module: Mapping[str, bytes] = {
        "demo/__init__.py": b"from . import _C\n",
        "demo/_C.pyd": (made / "_C.pyd").read_bytes(),
        "demo/gone.dll": (other / "gone.dll").read_bytes(),
    }
    install(windows_place.site, "demo", "1.0", module, tag="cp311-cp311-win_amd64")
    document = windows_place.check("demo", "--no-import", code=13)
    [finding] = findings(document, "symbols")
    assert (finding["where"], finding["details"]) == ("demo/_C.pyd", ["f"])


def test_a_wheel_for_linux_in_a_windows(windows_place: WindowsPlace) -> None:
    info = {"demo/__init__.py": b""}
    install(windows_place.site, "demo", "1.0", info, tag="cp311-cp311-manylinux_2_28_x86_64")
    document = windows_place.check("demo", "--no-import", code=13)
    assert document["verdict"]["cause"] == "python"
