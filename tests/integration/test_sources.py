"""Wheels of git repositories with submodules and patches, and of checkouts: built, and rebuilt from
another cache."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fatwheel.config.load import load_recipe
from fatwheel.wheels.archive import open_wheel

from ..helpers.gitserver import Repositories, served
from ..helpers.preloaded import run_command
from ..helpers.tinywheels import write_wheel
from ..helpers.webserver import Server, body
from .conftest import ROOT, SAMPLE, Outcome, Workbench
from .test_bad_input import RECIPE, SETUP, named, quick

PROJECT = "fatwheel-sourced"
PATCH = """\
--- a/alpha.cu
+++ b/alpha.cu
@@ -1,3 +1,3 @@
 #include "short.h"
-__global__ void alpha(float *p) { p[threadIdx.x] *= 2; }
+__global__ void alpha(float *p) { p[threadIdx.x] *= 3; }
 void launch_alpha(float *p) { alpha<<<1, 32>>>(p); }
"""


@dataclass(frozen=True)
class Place:
    """A folder with a recipe in kernels/, in which somebody works with the installed program.

    index: one more package index.
    """

    folder: Path
    index: str = ""

    @property
    def recipe(self) -> Path:
        return self.folder / "kernels" / "sourced"

    def run(self, bench: Workbench, *words: str) -> Outcome:
        index = {"PIP_EXTRA_INDEX_URL": self.index} if self.index else {}
        command = [sys.executable, "-m", "fatwheel", *words]
        done = run_command(command, self.folder, bench.variables(**index))
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr, bench.wheels())

    def build(self, bench: Workbench) -> Path:
        words = ["build", "--kernel", "sourced", "--arch", "80", "--out", str(bench.out)]
        return self.run(bench, *words).wheel()

    def rebuild(self, bench: Workbench, wheel: Path) -> Outcome:
        out = str(self.folder / "rebuilt")
        words = ["--from-store", "never", "--yes", "--engine", "process", "--out", out]
        return self.run(bench, "rebuild", str(wheel), *words)


@pytest.fixture
def repositories(tool: Callable[[str], str], tmp_path: Path) -> Iterator[Repositories]:
    tool("git")
    with served(tmp_path / "served") as found:
        yield found


def recipe_of(source: str) -> str:
    start, _, _ = named(RECIPE, PROJECT).partition("[source]")
    return f"{start}[source]\n{source}"


def sources() -> dict[str, str]:
    setup = named(SETUP, PROJECT).replace("*short, ", "'-Iinc', *short, ")
    return {"setup.py": setup, "alpha.cu": quick("alpha"), "beta.cu": quick("beta")}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Server]:
    """A package index with one package, which a build needs."""
    module = {"fatwheel_needed.py": "FLAG = '-lineinfo'\n"}
    pin = write_wheel(tmp_path / "wheels", "fatwheel_needed", "1.2", module)
    with Server() as server:
        server.serve(f"/files/{pin.filename}", (tmp_path / "wheels" / pin.filename).read_bytes())
        page = f'<a href="/files/{pin.filename}#sha256={pin.sha256}">{pin.filename}</a>'
        server.answers["/simple/fatwheel-needed/"] = body(page.encode(), "text/html")
        yield server


@pytest.fixture
def place(repositories: Repositories, index: Server, tmp_path: Path) -> Place:
    """A recipe of a repository with a submodule, a patch, and a requirement."""
    short = (ROOT / SAMPLE / "src" / "csrc" / "short.h").read_text()
    inner = repositories.commit("inner.git", {"short.h": short})
    files = sources()
    files["setup.py"] = "import fatwheel_needed\n" + files["setup.py"]
    files["pyproject.toml"] = (
        "[build-system]\nrequires = ['setuptools', 'fatwheel_needed']\n"
        "build-backend = 'setuptools.build_meta'\n"
    )
    files[".gitmodules"] = '[submodule "inc"]\n  path = inc\n  url = ../inner.git\n'
    outer = repositories.commit("p.git", {**files, "inc": f"=> {inner.commit}"})
    found = Place(tmp_path / "place", f"{index.url}/simple")
    found.recipe.mkdir(parents=True)
    (found.recipe / "three.patch").write_text(PATCH)
    (found.recipe / "recipe.toml").write_text(
        recipe_of(
            f"git = {outer.url!r}\ncommit = {outer.commit!r}\ntree = {outer.tree!r}\n"
            "patches = ['three.patch']\n\n[[source.submodules]]\npath = 'inc'\n"
            f"url = {inner.url!r}\ncommit = {inner.commit!r}\ntree = {inner.tree!r}\n"
        )
    )
    return found


def test_a_wheel_of_a_commit_is_rebuilt_from_another_cache(
    bench: Workbench, place: Place, repositories: Repositories, tmp_path: Path
) -> None:
    outcome = place.run(bench, "build", "--kernel", "sourced", "--arch", "80")
    assert outcome.code == 6, outcome.err
    assert "fatwheel_needed" in outcome.err
    assert place.run(bench, "lock", "--kernel", "sourced", "--python", "3.11").code == 0
    wheel = place.build(bench)
    with open_wheel(wheel) as opened:
        lock = json.loads(opened.read(f"{opened.dist_info}/fatwheel.lock.json"))
        sbom = json.loads(opened.read(f"{opened.dist_info}/sboms/fatwheel.cdx.json"))
    source = lock["recipe"]["source"]
    assert source["git"]["url"] == f"{repositories.url}/p.git"
    assert [one["path"] for one in source["git"]["submodules"]] == ["inc"]
    assert [one["file"] for one in source["patches"]] == ["three.patch"]
    assert [one["version"] for one in lock["recipe"]["build"]] == ["1.2"]
    urls = [one["purl"] for one in sbom["components"] if "vcs_url" in one.get("purl", "")]
    assert len(urls) == 1
    assert source["git"]["commit"] in urls[0]

    url = source["git"]["url"]
    outcome = place.run(bench, "recipe", "git", f"{url}@main", "--name", "again")
    assert outcome.code == 0, outcome.err
    assert "2 units, 2 of them with CUDA code" in outcome.out
    new = load_recipe(place.folder / "kernels" / "again")
    assert new.source.git == load_recipe(place.recipe).source.git
    assert [one.name for one in new.build] == ["fatwheel-needed"]
    assert (new.project, new.version) == (PROJECT.replace("-", "_"), "1.0")

    other = Workbench(tmp_path / "other")
    asked = len(repositories.asked)
    outcome = place.rebuild(other, wheel)
    assert outcome.code == 0, outcome.err
    assert len(repositories.asked) > asked, "it was fetched anew"

    patch = place.recipe / "three.patch"
    patch.write_text(PATCH.replace("*= 3", "*= 4"))
    outcome = place.rebuild(other, wheel)
    assert outcome.code == 5, outcome.err
    assert "the patch three.patch of the recipe sourced is not the one" in outcome.err

    patch.write_text(PATCH.replace("*= 2", "*= 5"))
    outcome = place.run(bench, "build", "--kernel", "sourced", "--arch", "80")
    assert outcome.code == 3, outcome.err
    assert "hunk 1 of 1 of alpha.cu" in outcome.err


def test_a_wheel_of_a_checkout_says_that_it_cannot_be_rebuilt(
    bench: Workbench, tmp_path: Path
) -> None:
    place, checkout = Place(tmp_path / "place"), tmp_path / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "pyvenv.cfg").touch()
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name, text in sources().items():
        (checkout / name).write_text(text)
    shutil.copytree(ROOT / SAMPLE / "src" / "csrc", tmp_path / "headers")
    (checkout / "real").mkdir()
    shutil.copy(tmp_path / "headers" / "short.h", checkout / "real")
    (checkout / "inc").symlink_to("real")
    place.recipe.mkdir(parents=True)
    (place.recipe / "recipe.toml").write_text(recipe_of(f"checkout = {str(checkout)!r}\n"))
    wheel = place.build(bench)
    outcome = place.rebuild(bench, wheel)
    assert outcome.code == 16, outcome.err
    assert "built from a checkout" in outcome.err
    outcome = place.run(bench, "verify", str(wheel))
    assert "built from a folder that only one machine has" in outcome.out
    assert str(tmp_path) not in wheel.read_bytes().decode("latin-1")
