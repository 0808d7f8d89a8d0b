"""fatwheel on a Windows host: Wine, a real Windows CPython, and what fatwheel needs for Windows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import ROOT, missing
from .once import once
from .windows import WindowsPython, windows_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
# Like `fatwheel` in a virtual environment; pywin32's own start-up file would set its paths.
START = r"""
import os, sys
site, root, folder, cache = sys.argv[1:5]
sys.path[:0] = [root, site, site + r"\win32", site + r"\win32\lib"]
os.add_dll_directory(site + r"\pywin32_system32")
os.environ["FATWHEEL_CACHE"] = cache
for name in ("DOCKER_HOST", "FATWHEEL_BASES"):
    os.environ.pop(name, None)
os.chdir(folder)
sys.argv = ["fatwheel", *sys.argv[5:]]
from fatwheel.__main__ import main
main()
"""
CACHE = "C:\\fwcache"


@dataclass(frozen=True)
class Host:
    """Windows with fatwheel. site: the packages that it depends on."""

    python: WindowsPython
    site: Path

    def words(self, folder: Path, cache: str, *arguments: str) -> list[str]:
        """What python.exe is called with to run a command of fatwheel in a folder."""
        places = map(windows_path, (self.site, ROOT, folder))
        return ["-I", "-B", "-X", "utf8", "-c", START, *places, cache, *arguments]

    def run(
        self, *arguments: str, folder: Path = ROOT, cache: str = CACHE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of fatwheel; once more where a busy Wine lost it: none of ours ends in 1
        without a word."""
        program, words = self.python.folder / "python.exe", self.words(folder, cache, *arguments)
        done = self.python.wine.run(program, *words, timeout=600)
        if done.returncode == 1 and not done.stdout + done.stderr:
            done = self.python.wine.run(program, *words, timeout=600)
        return done


@pytest.fixture(scope="session")
def host(
    windows_python: WindowsPython,
    tmp_path_factory: pytest.TempPathFactory,
    tool: Callable[[str], str],
) -> Host:
    gcc = tool("x86_64-w64-mingw32-gcc")
    site = once(tmp_path_factory, "windows-site", lambda folder: _packages(folder / "site", gcc))
    # Wine is Windows 7 unless told otherwise.
    version = ("add", r"HKEY_CURRENT_USER\Software\Wine", "/v", "Version", "/d", "win10", "/f")
    assert windows_python.wine.run(Path("reg"), *version).returncode == 0
    return Host(windows_python, site)


def _packages(folder: Path, gcc: str) -> Path:
    """What fatwheel depends on, for Windows, in a folder."""
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
    subprocess.run([gcc, "-shared", "-o", library, source, "-ladvapi32"], check=True)
    return folder
