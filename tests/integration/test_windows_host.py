"""fatwheel on a Windows host: Wine, a real Windows CPython, and what fatwheel needs for Windows.

There is no container engine in Wine, so builds end where they would ask for one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.pipeline.plan import BuildRequest, plan_build

from ..conftest import ROOT, missing
from .windows import WindowsPython

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow  # 30 MB of downloads, and the doctor waits for servers

# What packages ask for on Windows alone, which pip does not see from here.
ONLY_WINDOWS = ("colorama", "pywin32")
# Rust's standard library asks Windows for random numbers in this way, which Debian 12's Wine does
# not know yet.
RANDOM = """
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
    return RtlGenRandom(bytes, (ULONG)count);
}
"""
# Like `invoke` in a virtual environment; pywin32's own start-up file would set its paths.
INVOKE = r"""
import os, sys
site, root, cache = sys.argv[1:4]
sys.path[:0] = [root, site, site + r"\win32", site + r"\win32\lib"]
os.add_dll_directory(site + r"\pywin32_system32")
os.environ["FATWHEEL_CACHE"] = cache
os.environ.pop("DOCKER_HOST", None)
os.environ.pop("FATWHEEL_BASES", None)
os.chdir(root)
sys.argv = ["invoke", *sys.argv[4:]]
from invoke.main import program
program.run()
"""
CACHE = "C:\\fwcache"

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    """The packages that fatwheel depends on, for Windows."""
    folder = tmp_path_factory.mktemp("windows-site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--target", str(folder), "--platform", "win_amd64", "--implementation", "cp",
        "--python-version", "3.11", "--only-binary", ":all:",
        *project["dependencies"], *ONLY_WINDOWS,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        missing(f"cannot fetch packages for Windows: {done.stderr}")
    source = folder / "random.c"
    source.write_text(RANDOM, encoding="ascii")
    library = folder / "pydantic_core" / "bcryptprimitives.dll"
    compiler = tool("x86_64-w64-mingw32-gcc")
    subprocess.run([compiler, "-shared", "-o", library, source, "-ladvapi32"], check=True)
    return folder


@pytest.fixture(scope="session")
def invoke(windows_python: WindowsPython, site: Path) -> Invoke:
    """Runs a task of this repository on Windows."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = windows_python.folder / "python.exe"
        start = ("-I", "-X", "utf8", "-c", INVOKE, site, ROOT, CACHE)
        return windows_python.wine.run(program, *start, *arguments)

    return run


def request_for(toolchain: str) -> BuildRequest:
    return BuildRequest(
        kernel="flash-attn", archs="80,86,89+ptx", pythons="3.10,3.11", torch=None,
        toolchain=toolchain, engine=None, shards=None, jobs=8, memory=40 << 30, front="auto",
        out=Path("dist"),
    )  # fmt: skip


def test_the_original_release_is_planned_as_on_linux(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word on the toolchain: Windows has its own. Tags of images are the same."""
    monkeypatch.delenv("FATWHEEL_BASES", raising=False)
    line = "build --arch 80,86,89+ptx --python 3.10,3.11 --jobs 8 --memory 40GiB --plan --json"
    done = invoke(*line.split())
    assert done.returncode == 0, done.stderr
    there: dict[str, Any] = json.loads(done.stdout)
    here = json.loads(json.dumps(plan_build(request_for("windows-msvc17.8-cuda12.3")).to_json()))
    # Folders of the host are other ones there; all else is equal.
    commands = [(one["purpose"], one.pop("command")) for one in there["containers"]]
    for one in here["containers"]:
        del one["command"]
    assert there == here
    for purpose, command in commands:
        if command:
            folder = f'"type=bind,source={CACHE}\\store,target=C:\\fw\\store,readonly"'
            assert folder in command, purpose


def test_a_build_ends_where_it_needs_the_engine(invoke: Invoke) -> None:
    line = ("build", "--arch", "80", "--python", "3.11")
    done = invoke(*line)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "--accept-msvc-license" in done.stderr, "Microsoft's terms come before anything else"
    done = invoke(*line, "--accept-msvc-license")
    assert done.returncode == 14, done.stdout + done.stderr
    assert "no engine is listening there" in done.stderr
    assert "npipe:////./pipe/docker_engine" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_knows_windows(invoke: Invoke) -> None:
    for _ in range(3):
        done = invoke("doctor", "--json")
        assert done.returncode == 6, done.stdout + done.stderr
        found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
        # It is set where the tests of images have run before, in the same Wine.
        if "LongPathsEnabled" in json.dumps(found["long-paths"]):
            break  # else Wine was too slow to say it: the doctor waits for nothing for long
    else:
        pytest.fail(f"it says nothing of long paths: {found['long-paths']}")
    assert found["engine"]["status"] == "wrong"
    every = [fix["command"] or "" for one in found.values() for fix in one["fixes"]]
    assert not any("powershell" in command.lower() for command in every)


def test_files_of_any_wheel_are_read_on_windows_too(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "no.whl"
    path.write_bytes(b"no wheel")
    done = invoke("verify", "Z:" + str(path).replace("/", "\\"))
    assert done.returncode == 11, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
