"""A repacked wheel in pip's hands: installed, imported, listed, run, uninstalled."""

from __future__ import annotations

import stat
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

from fatwheel.wheels.name import parse_wheel_name
from fatwheel.wheels.pack import repack

VERSION = "1.2+cu130torch2.11.sm80.sm86"
CONTENTS = {
    "demo_pkg/__init__.py": b"hello = 'hello'\n",
    "demo_pkg/notes, with comma.txt": b"notes",
    "Demo_Pkg-1.2.data/scripts/demo-tool": b"#!python\nprint('tool')\n",
    "Demo_Pkg-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: Demo.Pkg\nVersion: 1.2\n",
    "Demo_Pkg-1.2.dist-info/WHEEL": (
        b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
    "Demo_Pkg-1.2.dist-info/RECORD": b"",
}


def make_wheel(folder: Path) -> Path:
    upstream = folder / "Demo_Pkg-1.2-py3-none-any.whl"
    with zipfile.ZipFile(upstream, "w") as archive:
        for name, data in CONTENTS.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o664) << 16
            archive.writestr(info, data)
    return repack(
        upstream,
        folder / "dist",
        parse_wheel_name(upstream.name).labelled(VERSION.partition("+")[2]),
        extra_files={"fatwheel.json": b"{}"},
        epoch=1_700_000_000,
    )


def run(*command: str | Path, cwd: Path | None = None) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_pip_installs_runs_and_removes_it(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    folder = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = folder / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", wheel)
    assert f"=={VERSION}" in run(*pip, "list", "--format", "freeze")
    where = "import demo_pkg; print(demo_pkg.hello, demo_pkg.__file__)"
    hello, _, file = run(python, "-c", where, cwd=tmp_path).strip().partition(" ")
    assert hello == "hello"
    assert run(folder / "demo-tool").strip() == "tool"
    site = Path(file).parent.parent
    found = PathDistribution(site / f"demo_pkg-{VERSION}.dist-info")
    assert found.version == VERSION
    assert found.read_text("fatwheel.json") == "{}"
    assert "Successfully uninstalled" in run(*pip, "uninstall", "-y", "demo-pkg")
    assert not (site / "demo_pkg").exists(), "RECORD does not list all that was installed"
