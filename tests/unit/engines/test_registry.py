from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import Base, Containers, LockedMsvc, Toolchain, WineImage
from fatwheel.engines import docker, windows
from fatwheel.engines.registry import engine_for, toolchain_for
from fatwheel.errors import EngineError, UsageError

from ...helpers.somelocks import installed_lock

IMAGES = Containers("linux", 0, ())
CUDA = Download("cuda_nvcc", "12.3.107", "https://x/n.tar", "n.tar", 1, "ee" * 32)
PACKAGES = Toolchain(
    name="tools", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=(), gcc=(9, 15),
    packages=(), builds=(), digest="", default_torch="2.11.0",
    containers=IMAGES,
)  # fmt: skip
ARCHIVES = dataclasses.replace(PACKAGES, cuda_files=(CUDA,))
NO_IMAGES = dataclasses.replace(PACKAGES, containers=None)
OF_WINDOWS = dataclasses.replace(
    PACKAGES,
    platform="win-amd64",
    msvc=LockedMsvc("17.8.2", "19.38.1", "14.38", (), CUDA),
    containers=Containers("windows", 20348, ()),
)
WINDOWS = dataclasses.replace(ARCHIVES, platform="win-amd64")


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "Linux", "x86_64")


def machine(
    monkeypatch: pytest.MonkeyPatch, system: str, processor: str, version: str = ""
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "version", lambda: version)
    monkeypatch.setattr(platform, "machine", lambda: processor)


def refusal(toolchain: Toolchain, asked: str | None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        engine_for(toolchain, asked)
    return caught.value


# -- the engine ----------------------------------------------------------------------------------


def test_processes_where_they_will_do() -> None:
    assert engine_for(PACKAGES, None).name == "process"
    assert engine_for(NO_IMAGES, None).name == "process"
    assert engine_for(ARCHIVES, None).name == "process"


@pytest.mark.parametrize("toolchain", [OF_WINDOWS, WINDOWS])
def test_containers_where_processes_will_not_do(toolchain: Toolchain) -> None:
    assert engine_for(toolchain, None).name == "docker"


def test_windows_builds_in_containers_if_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "Windows", "AMD64", "10.0.19045")
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os="windows"))
    assert engine_for(OF_WINDOWS, None).name == "docker"
    assert engine_for(OF_WINDOWS, "process").name == "process"
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os="linux"))
    assert engine_for(OF_WINDOWS, None).name == "process"
    no_images = dataclasses.replace(OF_WINDOWS, containers=None)
    assert engine_for(no_images, None).name == "process"


def test_an_old_windows_is_told_which_one_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "Windows", "AMD64", "10.0.17134")
    error = refusal(OF_WINDOWS, "process")
    assert "needs Windows 10 1809 (build 17763) or newer, and this is 17134" in error.what


def test_wine_builds_what_is_for_windows_if_it_is_asked_to_or_nothing_else_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no Wine here" in refusal(OF_WINDOWS, "process").what
    for name in ("wine", "wineserver"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    assert engine_for(OF_WINDOWS, "process").name == "process"
    assert engine_for(OF_WINDOWS, None).name == "docker"
    assert engine_for(dataclasses.replace(OF_WINDOWS, containers=None), None).name == "process"


def test_an_engine_with_linux_containers_builds_for_windows_on_linux_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wine = WineImage(version="8.0", base=Base("debian:12", "", ()), packages=())
    both = dataclasses.replace(OF_WINDOWS, wine=wine)
    no_images = dataclasses.replace(both, containers=None)
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os="linux"))
    monkeypatch.setattr(windows.wine, "obstacle", lambda: "")
    assert engine_for(both, None).name == "docker"
    assert engine_for(no_images, None).name == "docker"
    machine(monkeypatch, "Windows", "AMD64", "10.0.19045")
    assert engine_for(both, None).name == "process"
    assert "has no container images" in refusal(no_images, "docker").what
    machine(monkeypatch, "Linux", "x86_64")

    def refuse() -> None:
        raise EngineError("no engine")

    monkeypatch.setattr(docker, "connect", refuse)
    assert engine_for(no_images, None).name == "process"
    monkeypatch.setattr(windows.wine, "obstacle", lambda: "is for Windows")
    assert engine_for(no_images, None).name == "docker", "there is nothing else"


def test_containers_do_not_see_what_is_installed() -> None:
    installed = installed_lock().toolchain
    assert engine_for(installed, None).name == "process"
    error = refusal(installed, "docker")
    assert error.what == (
        "toolchain system-cuda13.0 uses what is installed on this machine, and containers do not "
        "see that"
    )
    assert error.hint == "use --engine process"


@pytest.mark.parametrize(
    ("system", "processor"), [("Windows", "AMD64"), ("Darwin", "arm64"), ("Linux", "aarch64")]
)
def test_containers_on_a_machine_of_another_kind(
    monkeypatch: pytest.MonkeyPatch, system: str, processor: str
) -> None:
    machine(monkeypatch, system, processor)
    assert engine_for(PACKAGES, None).name == "docker"


def test_foreign_code_goes_into_containers_where_an_engine_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os="linux"))
    assert engine_for(PACKAGES, None, foreign=True).name == "docker"
    assert engine_for(PACKAGES, "process", foreign=True).name == "process", (
        "what is asked for is taken"
    )
    assert engine_for(NO_IMAGES, None, foreign=True).name == "process"
    assert engine_for(PACKAGES, None).name == "process"
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os="windows"))
    assert engine_for(PACKAGES, None, foreign=True).name == "process", "it runs no such containers"

    def refuse() -> None:
        raise EngineError("no engine")

    monkeypatch.setattr(docker, "connect", refuse)
    assert engine_for(PACKAGES, None, foreign=True).name == "process"


@pytest.mark.parametrize("asked", ["process", "docker"])
def test_what_is_asked_for_is_taken(asked: str) -> None:
    assert engine_for(PACKAGES, asked).name == asked


def test_an_engine_that_does_not_exist_is_refused() -> None:
    error = refusal(PACKAGES, "cloud")
    assert (error.where, error.hint) == ("--engine", "valid: process, docker, dask")


def test_containers_without_images_are_refused() -> None:
    error = refusal(NO_IMAGES, "docker")
    assert error.where == "--engine docker"
    assert "[containers]" in error.what
    assert error.hint == "use --engine process"


def test_processes_for_another_kind_of_machine_are_refused() -> None:
    error = refusal(WINDOWS, "process")
    assert "windows-x86_64" in error.what
    assert "linux-x86_64" in error.what
    assert error.hint == "use --engine docker"


def test_a_toolchain_that_no_engine_can_use_is_refused_with_the_reasons() -> None:
    neither = dataclasses.replace(WINDOWS, containers=None)
    error = refusal(neither, None)
    assert error.where == "--toolchain tools"
    assert [detail.partition(":")[0] for detail in error.details] == [
        "--engine process", "--engine docker", "--engine dask",
    ]  # fmt: skip
    assert "another toolchain" in (refusal(neither, "docker").hint or "")


# -- the toolchain -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("Linux", "linux-cuda13.0"), ("Windows", "cuda13.0.2-win-amd64"),
        ("Darwin", "linux-cuda13.0"),
    ],
)  # fmt: skip
def test_the_toolchain_is_that_of_this_system(
    monkeypatch: pytest.MonkeyPatch, system: str, name: str
) -> None:
    machine(monkeypatch, system, "x86_64")
    assert toolchain_for(None) == name
    assert toolchain_for("process") == name


@pytest.mark.parametrize(
    ("os", "name"), [("linux", "linux-cuda13.0"), ("windows", "cuda13.0.2-win-amd64")]
)
def test_containers_decide_it_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, os: str, name: str
) -> None:
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(os=os))
    assert toolchain_for("docker") == name
    assert toolchain_for(None) == "linux-cuda13.0", "no engine is asked without need"


def test_an_engine_that_does_not_answer_is_no_mistake_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise EngineError("no engine")

    monkeypatch.setattr(docker, "connect", refuse)
    assert toolchain_for("docker") == "linux-cuda13.0"


# -- loading -------------------------------------------------------------------------------------


def test_an_engine_that_is_not_used_is_not_loaded() -> None:
    """Neither it nor its libraries cost a build in processes anything."""
    code = (
        "import sys\n"
        "from fatwheel.engines.registry import engine_for, toolchain_for\n"
        "from fatwheel.config.toolchains import load_toolchain\n"
        "from fatwheel.shipped import TOOLCHAINS\n"
        "toolchain = load_toolchain('linux-cuda13.0', TOOLCHAINS)\n"
        "assert toolchain_for(None) and toolchain_for('process')\n"
        "assert engine_for(toolchain, None).name == 'process'\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "fatwheel.engines.process" in loaded
    assert not {"docker", "fatwheel.engines.docker"} & {*loaded}
