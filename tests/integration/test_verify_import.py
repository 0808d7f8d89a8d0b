"""`invoke verify --import` with a real torch: wheels that import, that don't, that can't here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.doctor.machine import ask_gpu
from fatwheel.model import Environment

from ..helpers.tinywheels import Draft
from .conftest import Outcome, Workbench

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# A module's initialisation, before which the loader looks for a function that nobody has.
UNDEFINED = """
extern void *a_function_that_nobody_has(void);
void *PyInit__C(void) { return a_function_that_nobody_has(); }
"""


def tag_of(environment: Environment) -> str:
    major, minor, _ = environment.python_version.split(".")
    return f"cp{major}{minor}-cp{major}{minor}-linux_x86_64"


def report_of(outcome: Outcome) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The whole report, and its checks by name."""
    report = json.loads(outcome.out)
    return report, {check["name"]: check for check in report["checks"]}


def test_a_wheel_of_ours_imports(
    selftest: tuple[Workbench, Outcome], trier: Workbench, environment: Environment, tmp_path: Path
) -> None:
    """With its lock's packages, and none of the user's, whatever the user's variables say."""
    (tmp_path / "torch.py").write_text("raise ImportError('the user\\'s own torch')\n")
    wheel = str(selftest[1].wheel())
    done = trier.invoke("verify", wheel, "--import", "--json", PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.out + done.err
    report, checks = report_of(done)
    assert checks["import"]["result"] == "ok"
    runtime = report["runtime"]
    assert (runtime["origin"], runtime["gpu"]) == ("its own lock", None)
    assert runtime["python"] == environment.python_version
    assert runtime["torch"].startswith(f"{environment.torch}+")
    names = {one["name"] for one in runtime["packages"]}
    assert "nvidia-cuda-nvcc" not in names
    assert "nvidia-cuda-runtime" in names, "torch loads it, and this machine's is no substitute"
    assert [one["module"] for one in runtime["import"]] == ["fatwheel_selftest"]
    assert runtime["import"][0]["seconds"] > 0
    assert not list((trier.cache / "work").glob("build-*")), "the environment was left"


def test_without_its_lock_it_is_like_any_other_s(
    selftest: tuple[Workbench, Outcome], trier: Workbench, tmp_path: Path
) -> None:
    """With a toolchain's packages, and its own modules, torch before them."""
    wheel = selftest[1].wheel()
    other = without_papers(wheel, tmp_path)
    done = trier.invoke("verify", str(other), "--import", "--json")
    assert done.code == 0, done.out + done.err
    runtime = report_of(done)[0]["runtime"]
    assert runtime["origin"] == "toolchain linux-cuda13.0"
    assert "fatwheel_selftest" in [one["module"] for one in runtime["import"]]


def without_papers(wheel: Path, folder: Path) -> Path:
    """The same wheel without what fatwheel added to it but METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kept = {
        name: data
        for name, data in members.items()
        if ".dist-info/fatwheel" not in name and "/sboms/" not in name and "RECORD" not in name
    }
    [info] = {name.partition("/")[0] for name in kept if ".dist-info/" in name}
    version = info.removesuffix(".dist-info").partition("-")[2]
    draft = Draft(
        project=info.partition("-")[0],
        version=version,
        tag="-".join(wheel.stem.split("-")[-3:]),
        metadata=kept.pop(f"{info}/METADATA").decode(),
        wheel=kept.pop(f"{info}/WHEEL").decode(),
        files=kept,
    )
    return draft.write(folder)


def test_a_module_with_an_undefined_symbol(
    trier: Workbench, environment: Environment, tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Nothing in the file's tables is wrong with it; only loading shows it."""
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text(UNDEFINED)
    command = [tool("gcc"), "-shared", "-fPIC", "-Wl,-z,now", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    tag = tag_of(environment)
    name = f"demo/_C.cpython-{tag.partition('-')[0].removeprefix('cp')}-x86_64-linux-gnu.so"
    files = {"demo/__init__.py": b"from . import _C\n", name: library.read_bytes()}
    wheel = Draft(tag=tag, files=files).write(tmp_path)
    assert trier.invoke("verify", str(wheel)).code == 0
    done = trier.invoke("verify", str(wheel), "--import", "--json")
    assert done.code == 13, done.out + done.err
    report, checks = report_of(done)
    assert checks["import"]["result"] == "wrong"
    [wrong] = [one for one in checks["import"]["findings"] if one["severity"] == "wrong"]
    assert wrong["what"] == "import demo fails"
    assert "undefined symbol: a_function_that_nobody_has" in wrong["details"][-1]
    assert report["runtime"]["import"] == [{"module": "demo", "seconds": None}]


def test_an_import_that_ends_python(
    trier: Workbench, environment: Environment, tmp_path: Path
) -> None:
    code = b"import sys, os, signal\nprint('last words', flush=True)\n"
    code += b"os.kill(os.getpid(), signal.SIGSEGV)\n"
    wheel = Draft(tag=tag_of(environment), files={"demo/__init__.py": code}).write(tmp_path)
    done = trier.invoke("verify", str(wheel), "--import")
    assert done.code == 13, done.out + done.err
    assert "import demo: Python crashed: ended by SIGSEGV" in done.out
    assert "last words" in done.out


REFUSED = {
    "another Python": ({"tag": "cp39-cp39-linux_x86_64"}, "no toolchain matches this wheel"),
    "Windows": ({"tag": "cp311-cp311-win_amd64"}, "the wheel is for win_amd64, and this machine"),
    "another torch": (
        {"metadata": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Dist: torch<1\n"},
        "torch<1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wheels_that_cannot_be_tried_here(bench: Workbench, name: str, tmp_path: Path) -> None:
    draft, message = REFUSED[name]
    wheel = Draft(files={"demo.py": b""}, **draft).write(tmp_path)
    done = bench.invoke("verify", str(wheel), "--import")
    assert done.code == 6, done.out + done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_without_network_and_packages(tmp_path: Path) -> None:
    """A cache with nothing in it, and pip configured with a folder of nothing.

    The toolchains say that their packages are of a byte each: whether the disk has room for the
    real ones is asked before anything is fetched, and not what is tried here.
    """
    (tmp_path / "nothing").mkdir()
    for pins in sorted((ROOT / "toolchains").rglob("*.toml")):
        copy = tmp_path / pins.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"\bsize = \d+", "size = 1", pins.read_text("utf-8")), "utf-8")
    wheel = Draft(tag="py3-none-any", files={"demo.py": b""}).write(tmp_path)
    done = installed(
        tmp_path, "verify", str(wheel), "--import", FATWHEEL_CACHE=str(tmp_path / "cache"),
        PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "nothing"), PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    assert done.returncode == 4, done.stdout + done.stderr
    assert "cannot fetch" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gpu(tmp_path: Path) -> None:
    if ask_gpu().gpus:
        pytest.skip("there is a GPU here")
    wheel = Draft(tag="py3-none-any", files={"demo.py": b""}).write(tmp_path)
    done = invoke("verify", str(wheel), "--gpu", FATWHEEL_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 6, done.stdout + done.stderr
    assert "error: " in done.stderr
    assert "--import tries the import" in done.stderr


def invoke(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(ROOT, "invoke", *arguments, **variables)


def installed(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`fatwheel ARGUMENTS` as whoever stands in this folder runs it: its toolchains come first."""
    return run(folder, "fatwheel", *arguments, **variables)


def run(
    folder: Path, module: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, env={**os.environ, **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
