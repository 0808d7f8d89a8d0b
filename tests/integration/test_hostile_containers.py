"""Projects that mean harm, built in real containers: what they leave there stays there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Contained, Workbench, build_in_containers
from .engine import LentEngine
from .slim import Slim

pytestmark = pytest.mark.slow

RECIPE = """
project = "hostile-demo"
version = "1.0"
archs = ["80"]
imports = ["hostile_demo"]
memory = "300MiB"
seconds = 5.0
epoch = 2026-01-01

[source]
folder = "src"
"""
SETUP = """
{does}
import os
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class Build(build_ext):
    def build_extension(self, ext):
        nvcc = [os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc"), "-Xcompiler", "-fPIC"]
        objects = []
        for source in ext.sources:
            objects.append(Path(self.build_temp, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            subprocess.check_call([*nvcc, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        init = "-Wl,--defsym=PyInit__one=0"  # nobody imports this one
        subprocess.check_call([os.environ["CXX"], "-shared", init, *objects, "-o", library])


setup(
    name="hostile-demo",
    version="1.0",
    packages=["hostile_demo"],
    ext_modules=[Extension("hostile_demo._one", ["csrc/one.cu", "csrc/two.cu"])],
    cmdclass={{"build_ext": Build}},
)
"""
ONE = "__global__ void one(float *x) { x[threadIdx.x] += 1.0f; }\n"
TWO = "__global__ void two(float *x) { x[threadIdx.x] *= 2.0f; }\n"

LINK = """
import os
os.symlink("/", "/fatwheel/incoming/store")
"""
# Refs under the very names that an honest build of another project looks for.
POISON = """
import hashlib, json, os
from pathlib import Path
store = Path("/fatwheel/incoming/store")
data = b"poison"
sha256 = hashlib.sha256(data).hexdigest()
ref = json.dumps({{"sha256": sha256, "size": len(data)}})
for name in {names!r}:
    path = store / "refs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ref)
object_ = store / "objects" / sha256[:2] / sha256
object_.parent.mkdir(parents=True, exist_ok=True)
object_.write_bytes(data)
"""
FILL = """
import os
for number in range(1500):
    os.mkdir("deeper")
    os.chdir("deeper")
    os.mkfifo("pipe")
os.chdir("/fatwheel/incoming")
os.mkdir("locked")
os.mkfifo("locked/pipe")
os.symlink("/", "root")
os.chmod("locked", 0)
with open("sparse", "wb") as stream:
    stream.truncate(3 << 30)
raise SystemExit("it filled its folder")
"""


def write_project(folder: Path, does: str = "") -> Path:
    """A recipe with its sources; does is what its setup.py does first."""
    for name, text in {
        "recipe.toml": RECIPE,
        "src/setup.py": SETUP.format(does=does),
        "src/hostile_demo/__init__.py": "",
        "src/csrc/one.cu": ONE,
        "src/csrc/two.cu": TWO,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def build(bench: Workbench, lent: LentEngine, project: Path) -> Contained:
    options = ("--python", "3.11", "--arch", "80")
    return build_in_containers(bench, lent, *options, kernel=str(project))


def refs(bench: Workbench) -> list[str]:
    root = bench.store / "refs"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def work_folders(bench: Workbench) -> list[Path]:
    return [path for path in (bench.cache / "work").iterdir() if path.name != "lock"]


@pytest.fixture(scope="module")
def honest(
    docker_engine: LentEngine, slim: Slim, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Contained]:
    """An honest project, built once from nothing."""
    folder = tmp_path_factory.mktemp("honest")
    project = write_project(folder / "project")
    done = build(Workbench(folder / "bench", slim=slim), docker_engine, project)
    done.outcome.wheel()
    return project, done


def test_a_link_to_the_root_in_the_place_of_its_store(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "project", LINK)
    done = build(Workbench(tmp_path, slim=slim), docker_engine, project)
    assert done.outcome.code == 14, done.outcome.err
    assert "cannot accept" in done.outcome.err
    assert done.purposes == ("capture",)
    assert refs(done.bench) == []
    assert work_folders(done.bench) == []


def test_what_it_puts_in_its_store_reaches_nobody(
    honest: tuple[Path, Contained], docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    """The honest build afterwards compiles everything, and gives the honest bytes."""
    project, done = honest
    wanted = refs(done.bench)
    assert {name.partition("/")[0] for name in wanted} >= {"slice", "host", "wheel", "built"}
    bench = Workbench(tmp_path / "bench", slim=slim)
    evil = write_project(tmp_path / "evil", POISON.format(names=wanted))
    harmed = build(bench, docker_engine, evil)
    assert not set(refs(bench)) & set(wanted), "an entry of another project"
    objects = [path.read_bytes() for path in (bench.store / "objects").rglob("*") if path.is_file()]
    assert b"poison" not in objects
    for wheel in harmed.outcome.wheels:
        wheel.unlink()
    again = build(bench, docker_engine, project)
    assert again.outcome.wheel().read_bytes() == done.outcome.wheel().read_bytes()
    logs = [p.read_text() for p in (bench.cache / "logs").rglob("shard*.log")]
    made = sum(text.count("made in") for text in logs)
    assert made == 2 * 2, "both projects' two units, each of them once"


def test_whatever_it_leaves_is_cleaned_away(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "project", FILL)
    done = build(Workbench(tmp_path, slim=slim), docker_engine, project)
    assert done.outcome.code == 7, done.outcome.err
    assert "it filled its folder" in done.outcome.err
    assert work_folders(done.bench) == []
    assert refs(done.bench) == []


def test_costs_are_the_builds_own(honest: tuple[Path, Contained]) -> None:
    _, done = honest
    found = [name for name in refs(done.bench) if name.startswith("cost/")]
    assert len(found) == 2
    for name in found:
        ref = json.loads((done.bench.store / "refs" / name).read_text())
        kept = done.bench.store / "objects" / ref["sha256"][:2] / ref["sha256"]
        assert json.loads(kept.read_text())["rss"] > 0
