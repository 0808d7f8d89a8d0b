from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.pylock import Pylock, PylockSelectError, is_valid_pylock_path
from packaging.tags import Tag, cpython_tags
from packaging.utils import canonicalize_name

from fatwheel.config.pinned import Package
from fatwheel.errors import FormatError
from fatwheel.provenance.beside import (
    pylock_bytes,
    pylock_name,
    requirements_name,
    requirements_text,
)
from fatwheel.provenance.lock import BuildLock

from ...helpers.somelocks import LINUX, TOOLCHAINS, WINDOWS, some_lock
from ...helpers.tinywheels import write_wheel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WHEELS = {
    LINUX: Path("/x/causal_conv1d-1.5.2+cu130torch2.11.sm80-cp310-cp310-linux_x86_64.whl"),
    WINDOWS: Path("/x/causal_conv1d-1.5.2+cu123torch2.1.sm80-cp310-cp310-win_amd64.whl"),
}
WHEEL = WHEELS[LINUX]
SHA256, SIZE = "5a" * 32, 4711
MACHINES = {
    LINUX: {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    WINDOWS: {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows"},
}
PLATFORMS = {
    LINUX: [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
    + ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"],
    WINDOWS: ["win_amd64"],
}


def with_packages(lock: BuildLock, shared: Iterable[Package], own: Iterable[Package]) -> BuildLock:
    builds = (dataclasses.replace(lock.toolchain.builds[0], packages=tuple(own)),)
    toolchain = dataclasses.replace(lock.toolchain, packages=tuple(shared), builds=builds)
    recipe = dataclasses.replace(lock.recipe, runtime=())
    return dataclasses.replace(lock, toolchain=toolchain, recipe=recipe)


def packages_of(lock: BuildLock) -> tuple[Package, ...]:
    return (*lock.toolchain.packages, *lock.toolchain.builds[0].packages, *lock.recipe.runtime)


def pinned(lock: BuildLock) -> BuildLock:
    """The same as if `invoke lock` had filled in what is not pinned yet."""
    toolchain = lock.toolchain

    def fill(found: Iterable[Package]) -> list[Package]:
        return [
            one if one.locked else dataclasses.replace(one, size=1, sha256="f1" * 32)
            for one in found
        ]

    filled = with_packages(lock, fill(toolchain.packages), fill(toolchain.builds[0].packages))
    recipe = dataclasses.replace(filled.recipe, runtime=lock.recipe.runtime)
    return dataclasses.replace(filled, recipe=recipe)


def parsed(toolchain: str) -> Pylock:
    lock = pinned(some_lock(toolchain))
    data = pylock_bytes(WHEELS.get(toolchain, WHEEL), SHA256, SIZE, lock)
    return Pylock.from_dict(tomllib.loads(data.decode()))


def environment_of(toolchain: str, python: str = "3.10") -> Environment:
    found = dict(default_environment()) | MACHINES[toolchain]
    found |= {
        "python_version": python, "python_full_version": f"{python}.4",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    return Environment(**found)  # type: ignore[typeddict-item]


def tags_of(toolchain: str) -> list[Tag]:
    found = list(cpython_tags((3, 10), platforms=PLATFORMS[toolchain]))
    anywhere = [*PLATFORMS[toolchain], "any"]
    return found + [Tag(f"py{v}", "none", p) for v in ("310", "3") for p in anywhere]


# -- pylock.NAME.toml ----------------------------------------------------------------------------


@pytest.mark.parametrize("wheel", WHEELS.values(), ids=WHEELS)
def test_the_name_is_one_that_installers_look_for(wheel: Path) -> None:
    assert is_valid_pylock_path(wheel.with_name(pylock_name(wheel)))


def test_wheels_of_one_folder_have_files_of_their_own() -> None:
    assert pylock_name(WHEEL) == (
        "pylock.causal_conv1d-1_5_2+cu130torch2_11_sm80-cp310-cp310-linux_x86_64.toml"
    )


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_it_is_valid_by_packaging_s_reader(toolchain: str) -> None:
    found = parsed(toolchain)
    found.validate()
    assert (str(found.lock_version), found.created_by) == ("1.0", "fatwheel")


@pytest.mark.parametrize("toolchain", MACHINES)
def test_an_installer_would_take_all_of_it(toolchain: str) -> None:
    lock = pinned(some_lock(toolchain))
    selected = parsed(toolchain).select(
        environment=environment_of(toolchain), tags=tags_of(toolchain)
    )
    files = {one.filename: (one.size, one.hashes["sha256"]) for _, one in selected}  # type: ignore[union-attr]
    expected = {p.filename: (p.size, p.sha256) for p in packages_of(lock) if p.role != "installer"}
    assert files == {**expected, WHEELS[toolchain].name: (SIZE, SHA256)}


@pytest.mark.parametrize(
    ("toolchain", "machine", "python", "said"),
    [
        (LINUX, LINUX, "3.11", "does not satisfy the Python version"),
        (LINUX, WINDOWS, "3.10", "does not satisfy any of the environments"),
        (WINDOWS, LINUX, "3.10", "does not satisfy any of the environments"),
    ],
)
def test_an_installer_would_refuse_it_elsewhere(
    toolchain: str, machine: str, python: str, said: str
) -> None:
    selected = parsed(toolchain).select(environment=environment_of(machine, python), tags=[])
    with pytest.raises(PylockSelectError, match=said):
        list(selected)


def test_a_file_of_a_url_is_named_by_it_and_another_by_its_place_beside() -> None:
    packages = {one.name: one for one in parsed(WINDOWS).packages}
    [torch], [numpy] = packages["torch"].wheels or [], packages["numpy"].wheels or []
    assert torch.path is None
    assert (torch.url or "").endswith("/torch-2.1.1%2Bcu121-cp310-cp310-win_amd64.whl")
    assert torch.filename == "torch-2.1.1+cu121-cp310-cp310-win_amd64.whl"
    assert (numpy.path, numpy.url) == ("numpy-1.26.4-cp310-cp310-win_amd64.whl", None)


def test_a_size_that_is_not_known_is_left_out() -> None:
    lock = some_lock()
    shared = [dataclasses.replace(one, size=0) for one in lock.toolchain.packages]
    unsized = with_packages(lock, shared, lock.toolchain.builds[0].packages)
    read = Pylock.from_dict(tomllib.loads(pylock_bytes(WHEEL, SHA256, 1, unsized).decode()))
    sizes = {one.filename: one.size for package in read.packages for one in package.wheels or []}
    assert {sizes[one.filename] for one in shared if one.role != "installer"} == {None}


def test_the_wheel_is_the_first() -> None:
    first = parsed(LINUX).packages[0]
    assert (first.name, str(first.version)) == ("causal-conv1d", "1.5.2+cu130torch2.11.sm80")


def test_the_order_of_the_pins_does_not_matter() -> None:
    lock = some_lock()
    shared, own = lock.toolchain.packages, lock.toolchain.builds[0].packages
    turned = with_packages(lock, reversed(shared), reversed(own))
    plain = with_packages(lock, shared, own)
    assert pylock_bytes(WHEEL, SHA256, 1, turned) == pylock_bytes(WHEEL, SHA256, 1, plain)
    assert requirements_text(WHEEL, SHA256, turned) == requirements_text(WHEEL, SHA256, plain)


def test_what_recipe_and_toolchain_both_pin_is_there_once() -> None:
    lock = some_lock()
    numpy = next(one for one in packages_of(lock) if one.name == "numpy")
    both = dataclasses.replace(lock, recipe=dataclasses.replace(lock.recipe, runtime=(numpy,)))
    assert requirements_text(WHEEL, SHA256, both).count("numpy==") == 1


# -- requirements --------------------------------------------------------------------------------


@pytest.mark.parametrize("toolchain", MACHINES)
def test_every_requirement_has_its_hash(toolchain: str) -> None:
    lock = pinned(some_lock(toolchain))
    text = requirements_text(WHEELS[toolchain], SHA256, lock)
    found = re.findall(r"^([a-z0-9-]+)(?:==| @ )\S+ \\\n    --hash=sha256:(\w+)$", text, re.M)
    expected = {(p.name, p.sha256) for p in packages_of(lock) if p.role != "installer"}
    assert set(found) == {*expected, ("causal-conv1d", SHA256)}
    assert len(found) == len(set(found))


class Shelf:
    """A folder with a wheel, what it needs, and what is written beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wheel = write_wheel(folder, "demo", "1.0+cu130", {"demo.py": "import helper\n"})
        self.helper = write_wheel(folder, "helper", "2.0", {"helper.py": "x = 1\n"})
        self.wheel = folder / wheel.filename
        self.lock = with_packages(some_lock(), [self.helper], [])

    @property
    def requirements(self) -> Path:
        return self.folder / requirements_name(self.wheel)

    def write(self) -> None:
        sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        self.requirements.write_text(requirements_text(self.wheel, sha256, self.lock))

    def install(self, target: Path) -> subprocess.CompletedProcess[str]:
        """As the file's own first lines say, but from another folder and without an index."""
        command = [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index",
            "--target", str(target), "--require-hashes", "--requirement", str(self.requirements),
        ]  # fmt: skip
        return subprocess.run(command, cwd="/", capture_output=True, text=True)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    folder = tmp_path / "shelf"
    folder.mkdir()
    found = Shelf(folder)
    found.write()
    return found


def test_pip_installs_what_it_lists(shelf: Shelf, tmp_path: Path) -> None:
    ran = shelf.install(tmp_path / "site")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "site" / "demo.py").read_text() == "import helper\n"
    assert (tmp_path / "site" / "helper.py").read_text() == "x = 1\n"


@pytest.mark.parametrize("which", ["demo", "helper"])
def test_pip_refuses_a_changed_wheel(shelf: Shelf, tmp_path: Path, which: str) -> None:
    name, version = ("demo", "1.0+cu130") if which == "demo" else ("helper", "2.0")
    write_wheel(shelf.folder, name, version, {f"{name}.py": "x = 2\n"})
    ran = shelf.install(tmp_path / "site")
    assert ran.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in ran.stderr
    assert not (tmp_path / "site").exists()


def test_its_first_lines_give_the_command_by_the_file_s_name(shelf: Shelf) -> None:
    command = f"pip install --require-hashes --requirement {shelf.requirements.name}"
    assert f"#   {command}\n" in shelf.requirements.read_text()


# -- locks from strangers ------------------------------------------------------------------------

GOOD = Package("helper", "2.0", "helper-2.0-py3-none-any.whl", 1, "ab" * 32, "runtime")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": ""}, "is not a sha256"),
        ({"sha256": "AB" * 32}, "is not a sha256"),
        ({"sha256": "ab" * 32 + "\n--index-url=https://evil.example"}, "is not a sha256"),
        ({"name": "other"}, "it is not other 2.0"),
        ({"name": "helper\n--index-url=https://evil.example"}, "Name is invalid|name is invalid"),
        ({"version": "2.1"}, "it is not helper 2.1"),
        ({"version": "2.0 ; python_version<'3'"}, "Invalid version"),
        ({"filename": "helper-2.0.tar.gz"}, "not the name of a wheel"),
        ({"filename": "../helper-2.0-py3-none-any.whl"}, "not the name of a wheel"),
        ({"url": "file:///etc/passwd"}, "is not a URL to download from"),
        ({"url": "https://a.example/x.whl\n--pre"}, "is not a URL to download from"),
        ({"url": "https://a.example/x.whl --pre"}, "is not a URL to download from"),
        ({"url": "https://a.example/${HOME}/x.whl"}, "is not a URL to download from"),
    ],
)
def test_nothing_gets_in_that_an_installer_would_obey(change: dict[str, str], said: str) -> None:
    package = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    lock = with_packages(some_lock(), [package], [])
    for write in (
        lambda: pylock_bytes(WHEEL, SHA256, SIZE, lock),
        lambda: requirements_text(WHEEL, SHA256, lock),
    ):
        with pytest.raises(FormatError, match=said):
            write()


def test_one_package_in_two_versions_is_refused() -> None:
    other = dataclasses.replace(GOOD, version="2.1", filename="helper-2.1-py3-none-any.whl")
    with pytest.raises(FormatError, match=r"helper-2.0-py3-none-any.whl is for the same package"):
        requirements_text(WHEEL, SHA256, with_packages(some_lock(), [GOOD], [other]))


@pytest.mark.parametrize("python", ["3", "3.11\n--pre", "3.11.*,!=3.11.2"])
def test_a_python_that_is_none_is_refused(python: str) -> None:
    lock = dataclasses.replace(some_lock(), python=python)
    with pytest.raises(FormatError, match=r"not a Python version such as 3\.11"):
        requirements_text(WHEEL, SHA256, lock)
    with pytest.raises(FormatError, match=r"not a Python version such as 3\.11"):
        pylock_bytes(WHEEL, SHA256, SIZE, lock)


@pytest.mark.parametrize("platform", ["linux", "linux-x86_64' or '", "linux-x86_64\n--pre"])
def test_a_platform_that_is_none_is_refused(platform: str) -> None:
    lock = some_lock()
    lock = dataclasses.replace(
        lock, toolchain=dataclasses.replace(lock.toolchain, platform=platform)
    )
    with pytest.raises(FormatError, match="not a platform such as linux-x86_64"):
        requirements_text(WHEEL, SHA256, lock)
    with pytest.raises(FormatError, match="not a platform such as linux-x86_64"):
        pylock_bytes(WHEEL, SHA256, SIZE, lock)


def test_what_is_not_a_wheel_gets_no_such_files() -> None:
    with pytest.raises(FormatError, match="not the name of a wheel"):
        requirements_text(Path("demo.zip"), SHA256, some_lock())


def test_names_are_in_the_one_spelling_that_the_format_has() -> None:
    package = dataclasses.replace(
        GOOD, name="Some_Helper", filename="Some_Helper-2.0-py3-none-any.whl"
    )
    lock = with_packages(some_lock(), [package], [])
    data = pylock_bytes(WHEEL, SHA256, SIZE, lock).decode()
    names = [str(one.name) for one in Pylock.from_dict(tomllib.loads(data)).packages]
    assert names == ["causal-conv1d", canonicalize_name("Some_Helper")]
