"""`invoke verify` and `invoke inspect` on wheels as compilers and other people make them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.verify.report import Report, verify_wheel

from ..helpers.tinywheels import Draft
from .conftest import ARCHS, Outcome, Workbench
from .windows import subject

DEVICE = Path(__file__).parent.parent / "data" / "device"
MEMORY = 300 * 10**6  # bytes above the interpreter, for a wheel of 200 MB
PUBLISHED = ("xformers-linux", "xformers-windows")


def results(report: Report) -> dict[str, str]:
    """The checks that are not ok."""
    return {check.name: check.result for check in report.checks if check.result != "ok"}


# -- built here ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wheel_of_ours_passes(
    selftest: tuple[Workbench, Outcome], warm_selftest: Workbench
) -> None:
    wheel = selftest[1].wheel()
    done = warm_selftest.invoke("verify", str(wheel), "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["ok"]
    assert {check["name"]: check["result"] for check in report["checks"]} == dict.fromkeys(
        (check["name"] for check in report["checks"]), "ok"
    )
    libraries = {
        found["name"]: found for binary in report["binaries"] for found in binary["imports"]
    }
    assert libraries["libcudart.so.13"]["version"] == "13"
    assert "unknown" not in {found["from"] for found in libraries.values()}


@pytest.mark.slow
def test_a_thin_wheel_of_ours_passes_too(
    selftest: tuple[Workbench, Outcome], warm_selftest: Workbench, tmp_path: Path
) -> None:
    done = warm_selftest.invoke(
        "thin", str(selftest[1].wheel()), "--arch", ARCHS.split(",")[1], "--out", str(tmp_path)
    )
    assert done.code == 0, done.err
    [wheel] = tmp_path.glob("*.whl")
    assert results(verify_wheel(wheel)) == {}
    renamed = wheel.rename(tmp_path / wheel.name.replace("sm86", "sm89"))
    done = warm_selftest.invoke("verify", str(renamed))
    assert done.code == 13
    assert "the wheel's names do not agree" in done.out


# -- for Windows ---------------------------------------------------------------------------------


@pytest.fixture
def extension(tmp_path: Path, tool: Callable[[str], str]) -> Callable[[str], bytes]:
    """A module with device code, for the Python of a DLL such as python311.dll."""

    def build(python: str) -> bytes:
        (tmp_path / "python.def").write_text(f"LIBRARY {python}\nEXPORTS\nPyModule_Create2\n")
        (tmp_path / "a.s").write_text(
            f'.section .nv_fatb,"dr"\n.incbin "{DEVICE / "none.fatbin"}"\n'
            ".section .text\n.globl PyInit__C\nPyInit__C: jmp PyModule_Create2\n"
            '.section .drectve\n.ascii " -export:PyInit__C"\n'
        )
        compiler = tool("x86_64-w64-mingw32-gcc")
        for command in (
            [tool("x86_64-w64-mingw32-dlltool"), "-d", "python.def", "-l", "python.lib"],
            [compiler, "-shared", "a.s", "python.lib", "-o", "_C.pyd"],
        ):
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "_C.pyd").read_bytes()

    return build


def windows_wheel(folder: Path, module: bytes, python: str = "cp311") -> Path:
    return Draft(
        version="1.0+sm80.ptx.sm90a.sm120f",
        tag=f"{python}-{python}-win_amd64",
        files={"demo/__init__.py": b"", "demo/_C.cp311-win_amd64.pyd": module},
    ).write(folder)


def test_a_windows_wheel_passes(tmp_path: Path, extension: Callable[[str], bytes]) -> None:
    report = verify_wheel(windows_wheel(tmp_path, extension("python311.dll")))
    assert results(report) == {}, report.checks
    [binary] = report.to_json()["binaries"]
    assert (binary["format"], binary["machine"], binary["kernels"]) == ("pe", "x86_64", 2)
    origins = {found["name"].lower(): found["from"] for found in binary["imports"]}
    assert origins["python311.dll"] == "python"
    assert origins["kernel32.dll"] == "system"
    assert "unknown" not in origins.values()


def test_a_module_for_another_python_is_wrong(
    tmp_path: Path, extension: Callable[[str], bytes]
) -> None:
    """By the DLL that it needs, and by its name."""
    report = verify_wheel(windows_wheel(tmp_path, extension("python310.dll")))
    assert results(report) == {"imports": "wrong"}
    report = verify_wheel(windows_wheel(tmp_path, extension("python310.dll"), "cp310"))
    assert results(report) == {"modules": "wrong"}


# -- published -----------------------------------------------------------------------------------

MEASURED = """
import json, resource, sys
from pathlib import Path
from fatwheel.verify.inspect import inspect_units
from fatwheel.verify.report import verify_wheel
run = {"inspect": inspect_units, "verify": lambda path: verify_wheel(path).to_json()}[sys.argv[1]]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
report = run(Path(sys.argv[2]))
print(json.dumps({"memory": peak() - before, "report": report}))
"""


def measured(command: str, path: Path) -> tuple[int, dict[str, Any]]:
    """Peak memory above the interpreter in bytes, and the report."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, command, path], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return found["memory"], found["report"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_wheel_is_inspected_in_bounded_memory(name: str) -> None:
    """48 containers and 1552 kernels, as NVIDIA's tools count them."""
    memory, report = measured("inspect", subject(name))
    assert memory < MEMORY
    [flash] = [b for b in report["binaries"] if "_C_flashattention" in b["path"]]
    assert (flash["containers"], flash["kernels"], len(flash["units"])) == (48, 1552, 48)
    kernels = {kernel for unit in flash["units"] for kernel in unit["kernels"]}
    assert len(kernels) == 1552
    for unit in flash["units"]:
        images = {(image["arch"], image["compression"]) for image in unit["images"]}
        assert images == {("compute_80", "lz4"), ("sm_80", ""), ("sm_90", "")}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_wheel_passes(name: str) -> None:
    memory, report = measured("verify", subject(name))
    assert memory < MEMORY
    assert report["ok"]
    assert {check["name"] for check in report["checks"] if check["result"] != "ok"} == set()
    for binary in report["binaries"]:
        cuda = {found["version"] for found in binary["imports"] if found["from"] == "cuda"}
        assert cuda == {"12"}
        assert "unknown" not in {found["from"] for found in binary["imports"]}
