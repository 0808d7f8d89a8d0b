"""Real builds with an installed CUDA and torch: those of the environment, as if a user had them.

What is made with them must be what is made where they are pinned.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from fatwheel.model import Environment

from .conftest import ARCHS, Outcome, Workbench
from .once import once


def pip_packages(folder: Path, cuda: Path) -> Path:
    """The CUDA as its packages have it: no lib64, no libcudart.so, no stub of the driver."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    for path in (cuda / "bin").iterdir():
        (folder / "bin" / path.name).symlink_to(path)
    for path in (cuda / "lib").glob("lib*.so.*"):
        (folder / "lib" / path.name).symlink_to(path.resolve())
    for name in ("nvvm", "include"):
        (folder / name).symlink_to(cuda / name)
    return folder


@pytest.fixture(scope="module")
def built(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workbench, Outcome]:
    def make(folder: Path) -> tuple[Workbench, Outcome]:
        bench = Workbench(folder / "bench")
        asked = ("--cuda-home", str(environment.cuda_home), "--torch-from", str(environment.root))
        outcome = bench.build("--arch", ARCHS, *asked)
        outcome.wheel()
        return bench, outcome

    return once(tmp_path_factory, "installed-cuda", make)


def files_of(wheel: Path) -> dict[str, bytes]:
    """Without those that tell how it was made."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if "dist-info/" not in name]
        return {name: archive.read(name) for name in names}


def lock_of(wheel: Path) -> dict[str, dict[str, object]]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/fatwheel.lock.json")]
        found: dict[str, dict[str, object]] = json.loads(archive.read(name))
        return found


def test_the_code_is_that_of_the_pinned_toolchain(
    built: tuple[Workbench, Outcome], sample: tuple[Workbench, Outcome]
) -> None:
    mine, pinned = files_of(built[1].wheel()), files_of(sample[1].wheel())
    assert any(name.endswith(".so") for name in mine)
    assert mine == pinned


def test_the_lock_says_what_was_installed(
    built: tuple[Workbench, Outcome], environment: Environment
) -> None:
    toolchain = lock_of(built[1].wheel())["toolchain"]
    assert toolchain["packages"] == toolchain["torch_packages"] == []
    text = json.dumps(toolchain)
    assert '"name": "cicc"' in text
    assert str(environment.root) not in text


@pytest.mark.long  # with the pinned CUDA, that is in every run
def test_another_place_and_an_empty_store_give_the_same_bytes(
    built: tuple[Workbench, Outcome], environment: Environment, tmp_path: Path
) -> None:
    """And so does a CUDA home that had to be made of links."""
    cuda = pip_packages(tmp_path / "packages", environment.cuda_home)
    bench = Workbench(tmp_path / "bench")
    asked = ("--cuda-home", str(cuda), "--torch-from", str(environment.python))
    again = bench.build("--arch", ARCHS, *asked)
    assert (bench.cache / "systems").is_dir(), "this CUDA home was used as it is"
    assert again.wheel().read_bytes() == built[1].wheel().read_bytes()
    assert "the wheel cannot be rebuilt elsewhere" in again.err


def test_it_is_verified_and_not_rebuilt(built: tuple[Workbench, Outcome]) -> None:
    bench, outcome = built
    wheel = str(outcome.wheel())
    verified = bench.invoke("verify", wheel)
    assert verified.code == 0, verified.err
    assert "it cannot be rebuilt elsewhere" in verified.out
    rebuilt = bench.invoke("rebuild", wheel)
    assert rebuilt.code == 6
    assert "compilers that one machine had installed (nvcc 13.0" in rebuilt.err
    locked = bench.build("--locked", wheel)
    assert locked.code == 6
    assert "it cannot be rebuilt elsewhere" in locked.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--engine", "docker"), 2, "is installed on this machine, and containers do not see that"),
        (("--locked", "W.whl"), 2, "--locked beside --cuda-home"),
        (("--torch-from", "/nowhere"), 6, "there is no /nowhere"),
        (("--cuda-home", "/nowhere"), 6, "no such folder"),
    ],
)
def test_bad_input(
    built: tuple[Workbench, Outcome],
    environment: Environment,
    more: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    asked = {"--cuda-home": str(environment.cuda_home), "--torch-from": str(environment.root)}
    asked |= {more[0]: more[1]}
    words = [word for pair in asked.items() for word in pair]
    ended = built[0].build(*words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err
