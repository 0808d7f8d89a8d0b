"""What builds require: what is missing, what contradicts torch, and what becomes of the pins."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.config.load import load_recipe
from fatwheel.config.parts import PinnedFile
from fatwheel.config.pinned import Package
from fatwheel.config.recipe import Target
from fatwheel.config.toolchain import TorchBuild
from fatwheel.errors import ConfigError, FetchError, ToolchainError, UpstreamError
from fatwheel.events import Note, silent
from fatwheel.pipeline.lockrecipe import lock_recipe, with_pins
from fatwheel.pipeline.requirements import check_requirements, fitting, put_packages
from fatwheel.pipeline.resolve import ToolchainRequest
from tests.helpers.plaintargets import plain_recipe, plain_toolchain
from tests.helpers.tinywheels import write_wheel
from tests.helpers.webserver import Server, body

SHA = "0123456789abcdef" * 4


def package(name: str, version: str, role: str = "build", tag: str = "py3-none-any") -> Package:
    return Package(name, version, f"{name}-{version}-{tag}.whl", 1, SHA, role)


TOOLS = (package("setuptools", "81.0.0"), package("nvidia_cuda_nvcc", "13.0.88", "compiler"))
OF_TORCH = (package("torch", "2.11.0+cu130", "runtime"), package("numpy", "2.2.6", "runtime"))


def target(root: Path, *build: Package, requires: tuple[str, ...] = ()) -> Target:
    toolchain = plain_toolchain(
        packages=TOOLS, builds=(TorchBuild("2.11.0", "3.11", OF_TORCH),), default_torch="2.11.0"
    )
    recipe = plain_recipe(root, build=build, requires=requires)
    return Target(recipe, toolchain, "3.11", "2.11.0", ())


def project(root: Path, requires: str, more: str = "") -> Path:
    (root / "pyproject.toml").write_text(f"[build-system]\nrequires = {requires}\n{more}")
    return root


def lacking(root: Path, requires: str, *build: Package, more: str = "") -> tuple[str, ...]:
    with pytest.raises(ToolchainError) as caught:
        check_requirements(project(root, requires, more), target(root, *build))
    assert "`invoke lock --kernel demo`" in str(caught.value)
    return caught.value.details


def test_what_the_toolchain_has_is_enough(tmp_path: Path) -> None:
    check_requirements(tmp_path, target(tmp_path))
    words = '["setuptools>=61", "torch", "torch==2.11.0", "NumPy>2", "nvidia-cuda-nvcc"]'
    check_requirements(project(tmp_path, words), target(tmp_path))


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    assert lacking(tmp_path, '["cmake>=3.26", "torch", "setuptools>=99"]') == (
        "cmake>=3.26", "setuptools>=99, and there is setuptools 81.0.0",
    )  # fmt: skip
    pins = (package("cmake", "3.30.0"), package("setuptools", "99.1"))
    check_requirements(tmp_path, target(tmp_path, *pins))
    assert lacking(tmp_path, '["cmake>=3.26"]', package("cmake", "3.1")) == (
        "cmake>=3.26, and there is cmake 3.1",
    )


def test_markers_are_the_targets(tmp_path: Path) -> None:
    words = """[
        "a; python_version < '3.12'", "b; python_version >= '3.12'", "c; sys_platform == 'win32'",
        "d; platform_machine == 'x86_64'", "e; extra == 'x'",
    ]"""
    assert lacking(tmp_path, words) == (
        'a; python_version < "3.12"', 'd; platform_machine == "x86_64"',
    )  # fmt: skip


def test_what_back_ends_and_recipes_ask_for(tmp_path: Path) -> None:
    more = 'build-backend = "scikit_build_core.build"\n'
    assert lacking(tmp_path, "[]", more=more) == ("cmake", "ninja")
    with pytest.raises(ToolchainError) as caught:
        check_requirements(project(tmp_path, "[]"), target(tmp_path, requires=("cmake<4",)))
    assert caught.value.details == ("cmake<4",)


def test_a_requirement_that_conflicts_with_torch(tmp_path: Path) -> None:
    words = '["torch==2.4.0", "numpy<2", "cmake"]'
    with pytest.raises(ToolchainError, match="than the toolchain's torch goes with") as caught:
        check_requirements(project(tmp_path, words), target(tmp_path))
    assert caught.value.details == (
        "torch==2.4.0, and there is torch 2.11.0+cu130", "numpy<2, and there is numpy 2.2.6",
    )  # fmt: skip
    assert "--torch" in str(caught.value)


def test_a_recipe_brings_no_other_torch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belong to the toolchain's torch"):
        check_requirements(tmp_path, target(tmp_path, package("numpy", "1.26.0")))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ('"cmake"', "requires is not a list"),
        ('["cm ake"]', "a requirement is invalid"),
        ("[5]", "is invalid|5"),
        (f"[{', '.join(['1'] * 300)}]", "requires is not a list"),
    ],
)
def test_what_is_no_requirement(tmp_path: Path, words: str, says: str) -> None:
    with pytest.raises((UpstreamError, ToolchainError), match=says):
        check_requirements(project(tmp_path, words), target(tmp_path))


def test_of_a_recipes_pins_those_that_fit() -> None:
    linux = "manylinux_2_28_x86_64"
    pins = (
        package("a", "1.0"),
        package("b", "1", tag=f"cp311-cp311-{linux}"),
        package("b", "1", tag=f"cp312-cp312-{linux}"),
        package("b", "1"),
        package("c", "1", tag="py3-none-win_amd64"),
        package("c", "1", tag=f"py3-none-{linux}"),
    )
    assert fitting(pins, "3.11", "linux-x86_64") == (pins[0], pins[1], pins[5])
    assert fitting(pins, "3.13", "win-amd64") == (pins[0], pins[3], pins[4])


# -- with an index ---------------------------------------------------------------------------------


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only index that there is."""
    with Server() as server:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        yield server


def listed(server: Server, folder: Path, *packages: Package) -> None:
    """What the index has."""
    pages: dict[str, str] = {}
    for one in packages:
        data = (folder / one.filename).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        link = f'<a href="/files/{one.filename}#sha256={sha256}">{one.filename}</a>\n'
        pages[one.name] = pages.get(one.name, "") + link
        server.serve(f"/files/{one.filename}", data)
    for name, page in pages.items():
        server.answers[f"/simple/{name}/"] = body(page.encode(), "text/html")


TOOL = {
    "demotool.py": "def main():\n    print('demotool ran')\n",
    "demotool-1.2.dist-info/entry_points.txt": "[console_scripts]\ndemotool = demotool:main\n",
}


def test_packages_for_a_build_are_copies(index: Server, tmp_path: Path) -> None:
    made = write_wheel(tmp_path / "wheels", "demotool", "1.2", TOOL)
    listed(index, tmp_path / "wheels", made)
    cache = tmp_path / "cache"
    cache.mkdir()
    before = os.umask(0o077)
    try:
        put_packages([made], cache, tmp_path / "out", silent)
    finally:
        os.umask(before)
    module = tmp_path / "out" / "site" / "demotool.py"
    for path in (tmp_path / "out", module.parent, module):
        assert path.stat().st_mode & 0o044 == 0o044, "in containers another user reads them"
    assert module.stat().st_nlink == 1, "what a build writes reaches no other"
    done = subprocess.run(
        [tmp_path / "out" / "bin" / "demotool"], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(module.parent)},
    )  # fmt: skip
    assert done.stdout == "demotool ran\n"
    assert [path.name for path in cache.iterdir() if path.name.startswith(".req")] == []


RECIPE = """\
project = "demo"
version = "1.0"
archs = ["80"]
imports = ["demo"]

[[build]]  # by hand
name = "demotool"
version = "1.1"
file = "demotool-1.1-py3-none-any.whl"
size = 5
sha256 = "{SHA}"

[source]
folder = "src"
"""


def test_pins_are_locked(index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = [write_wheel(tmp_path / "w", "demotool", version, TOOL) for version in ("1.2", "2.0")]
    listed(index, tmp_path / "w", *wheels)
    place = tmp_path / "kernels" / "demo"
    (place / "src").mkdir(parents=True)
    project(place / "src", '["demotool<2", "setuptools"]')
    (place / "recipe.toml").write_text(RECIPE.replace("{SHA}", SHA))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    asked = ToolchainRequest("linux-cuda13.0")
    report = lock_recipe("demo", [asked], silent, write=False)
    assert (report.written, report.count()["open"]) == (False, 1)
    report = lock_recipe("demo", [asked], silent, write=True)
    assert report.written
    [pin] = load_recipe("demo", tmp_path / "kernels").build
    assert (pin.version, pin.size, pin.sha256) == ("1.2", wheels[0].size, wheels[0].sha256)
    assert (place / "recipe.toml").read_text().endswith(f'sha256 = "{wheels[0].sha256}"\n')
    assert not lock_recipe("demo", [asked], silent, write=True).written
    project(place / "src", '["torch==1.0"]')
    with pytest.raises(ToolchainError, match="than the toolchain's torch goes with"):
        lock_recipe("demo", [asked], silent, write=True)
    # Only the user says which indexes are asked.
    other = '[[tool.pdm.source]]\nname = "own"\nurl = "https://own.example/simple\\nmade x"\n'
    project(place / "src", '["demotool>2"]', other + "[tool]\nuv = 7\n")
    with pytest.raises(FetchError, match="no set of packages") as refused:
        lock_recipe("demo", [asked], silent, write=True)
    assert str(refused.value.hint).endswith("_INDEX_URL): https://own.example/simple made x")


def table(file: str) -> str:
    name, version, _ = file.split("-", 2)
    return (
        f"\n[[build]]\nname = {name!r}\nversion = {version!r}\nfile = {file!r}\n"
        f"size = 5\nsha256 = {SHA!r}\n"
    )


def test_locking_leaves_what_other_toolchains_need(
    index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins for other Pythons, and of packages that this toolchain has itself; not what nobody
    requires. Of what is pinned, the version stays."""
    versions = [write_wheel(tmp_path / "w", "demotool", one, TOOL) for one in ("1.2", "1.3")]
    ninja = write_wheel(tmp_path / "w", "ninja", "1.11.1", {"ninja.py": ""})
    listed(index, tmp_path / "w", *versions, ninja)
    place = tmp_path / "kernels" / "demo"
    (place / "src").mkdir(parents=True)
    project(place / "src", '["demotool", "ninja"]')
    others = (
        "demotool-1.0-cp39-cp39-win_amd64.whl", "demotool-1.2-py3-none-any.whl",
        "ninja-1.11.1-py3-none-any.whl", "unused-1.0-cp39-cp39-win_amd64.whl",
        "unused-1.0-py3-none-any.whl",
    )  # fmt: skip
    start, _, end = RECIPE.partition("[[build]]")
    source = "[source]" + end.partition("[source]")[2]
    (place / "recipe.toml").write_text(start + source + "".join(map(table, others)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    seen: list[object] = []
    asked = [ToolchainRequest("linux-cuda13.0", pythons=one) for one in ("3.11", "3.12")]
    assert lock_recipe("demo", asked, seen.append, write=True).written
    kept = {one.filename: one for one in load_recipe("demo", tmp_path / "kernels").build}
    assert set(kept) == set(others) - {"unused-1.0-py3-none-any.whl"}
    assert kept["demotool-1.2-py3-none-any.whl"].sha256 == versions[0].sha256
    assert [one.text for one in seen if isinstance(one, Note)] == [
        "no longer pinned: unused-1.0-py3-none-any.whl"
    ]


def test_what_cannot_be_exchanged_is_left_to_the_user() -> None:
    pin = PinnedFile(file="a-1-py3-none-any.whl", size=1, sha256=SHA, url="")
    with pytest.raises(ConfigError, match="cannot be exchanged"):
        with_pins('build = [\n{ name = "a" },\n]\n', [pin])
    odd = '[environment]\nX = """\n[[build]]\n"""\n'
    with pytest.raises(ConfigError, match="cannot be exchanged"):
        with_pins(odd, [pin])


def test_a_marker_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match="marker says nothing"):
        check_requirements(project(tmp_path, """["a; os_name ~= 'x'"]"""), target(tmp_path))
