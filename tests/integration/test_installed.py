"""fatwheel as people install it: a wheel from an sdist, outside of any checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fatwheel import __version__

from .conftest import ROOT, SAMPLE, Workbench

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """What a command prints to stdout."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed `fatwheel`. It is built from a copy of what a release would hold."""
    folder = tmp_path_factory.mktemp("release")
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".hypothesis", "dist")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    run(sys.executable, "-m", "build", "--outdir", folder, folder / "source")
    [wheel] = folder.glob("*.whl")
    assert [path.name for path in folder.glob("*.tar.gz")] == [f"fatwheel-{__version__}.tar.gz"]
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    scripts = folder / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python")
    run(*pip, "install", "--quiet", "--no-compile", wheel)
    return scripts / "fatwheel"


def test_it_builds_outside_of_any_checkout(program: Path, bench: Workbench, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / SAMPLE, folder / "kernels" / "sample")
    asked = ("build", "--kernel", "sample", "--arch", "80", "--front", "exact")
    run(program, *asked, cwd=folder, FATWHEEL_CACHE=str(bench.cache), CI="true")
    [wheel] = (folder / "dist").glob("*.whl")
    run(program, "verify", wheel, cwd=folder, CI="true")
    assert "sm_80" in run(program, "inspect", wheel, cwd=folder, CI="true")


def test_the_recipes_come_with_it(program: Path) -> None:
    """With their sources: what it would build of them is what a checkout builds."""
    [there] = program.parents[1].glob("lib/python*/site-packages/fatwheel/data/kernels")
    assert contents(there) == contents(ROOT / "kernels")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_recipe_of_the_users_own_comes_first(program: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kernels" / "selftest", tmp_path / "kernels" / "selftest")
    recipe = tmp_path / "kernels" / "selftest" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('version = "1.0.0"', 'version = "7.0.0"'))
    asked = ("build", "--kernel", "selftest", "--arch", "80", "--plan")
    assert "fatwheel-selftest 7.0.0" in run(program, *asked, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "fatwheel-selftest 1.0.0" in run(program, *asked, cwd=elsewhere)
    named = (*asked, "--recipes", str(tmp_path / "kernels"))
    assert "fatwheel-selftest 7.0.0" in run(program, *named, cwd=elsewhere)


def test_what_comes_with_it(program: Path, tmp_path: Path) -> None:
    assert run(program, "--version", cwd=tmp_path) == f"fatwheel {__version__}\n"
    shown = run(program, "render", "--python", "3.11", "--out", "contexts", cwd=tmp_path, CI="true")
    assert "contexts" in shown
    assert sorted(tmp_path.rglob("Dockerfile"))
