from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fatwheel.containers.layouts import Mount
from fatwheel.engines.base import Limits
from fatwheel.engines.dockerplan import Station
from fatwheel.engines.winestation import WineStation
from fatwheel.shipped import PACKAGE

LIMITS = Limits(cpus=3, memory=5 << 30)
ROOT = Path(__file__).parents[3]


def station(os: str = "linux", **changes: object) -> Station:
    fields = {
        "image": "fatwheel/tools:cp311", "os": os, "os_build": 20348 if os == "windows" else 0,
        "python": "3.11", "code": Path("/home/fatwheel"), "sources": Path("/cache/sources"),
        "store": Path("/cache/store"),
    }  # fmt: skip
    return Station(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_container_has_its_image_and_limits() -> None:
    spec = station().container("shard 1:compute_80", Path("/cache/in/1"), LIMITS)
    assert (spec.purpose, spec.image) == ("shard 1:compute_80", "fatwheel/tools:cp311")
    assert (spec.cpus, spec.memory) == (3, 5 << 30)
    assert (spec.os, spec.os_build) == ("linux", 0)


@pytest.mark.parametrize(
    ("os", "targets"),
    [
        (
            "linux",
            (
                "/fatwheel/code/fatwheel",
                "/fatwheel/sources",
                "/fatwheel/store",
                "/fatwheel/incoming",
            ),
        ),
        ("windows", (r"C:\fw\code\fatwheel", r"C:\fw\sources", r"C:\fw\store", r"C:\fw\incoming")),
    ],
)
def test_it_sees_four_folders_and_may_write_to_one(os: str, targets: tuple[str, ...]) -> None:
    spec = station(os).container("capture", Path("/cache/in/1"), LIMITS)
    sources = ("/home/fatwheel", "/cache/sources", "/cache/store", "/cache/in/1")
    assert spec.mounts == tuple(
        Mount(source, target, writable=target.endswith("incoming"))
        for source, target in zip(sources, targets, strict=True)
    )


@pytest.mark.parametrize(
    ("os", "target"), [("linux", "/fatwheel/trunk"), ("windows", r"C:\fw\trunk")]
)
def test_one_more_store_is_read_only_too(os: str, target: str) -> None:
    spec = station(os, trunk=Path("/cache/other")).container("x", Path("/cache/in/1"), LIMITS)
    assert len(spec.mounts) == 5
    assert Mount("/cache/other", target, writable=False) in spec.mounts
    assert [mount.source for mount in spec.mounts if mount.writable] == ["/cache/in/1"]


@pytest.mark.parametrize(
    ("os", "python"),
    [("linux", "/opt/fatwheel/env/bin/python"), ("windows", r"C:\Python311\python.exe")],
)
def test_its_command_is_the_images_own_python(os: str, python: str) -> None:
    spec = station(os).container("capture", Path("/in"), LIMITS)
    assert spec.command[0] == python
    assert "-I" in spec.command, "nothing of the image's may come before our code"


def test_a_windows_container_is_of_its_images_build() -> None:
    assert station("windows").container("capture", Path("/in"), LIMITS).os_build == 20348


def test_the_command_starts_what_runs_inside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here in a process, with the code where the mount would be."""
    spec = station().container("capture", Path("/in"), LIMITS)
    code = spec.command[-1].replace("'/fatwheel/code'", repr(str(ROOT)))
    assert code != spec.command[-1]
    done = subprocess.run(
        [sys.executable, *spec.command[1:-1], code],
        input="no message\n", capture_output=True, text=True, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    assert "JSONDecodeError" in done.stderr, "it was not asked for a message"


# -- with Wine -------------------------------------------------------------------------------------


def wine_station() -> WineStation:
    made = SimpleNamespace(root=Path("/cache/envs/1"), cuda_home=Path("/cache/cuda/2"))
    tools = SimpleNamespace(
        root=made.root,
        environment=lambda root: made,
        msvc=SimpleNamespace(root=Path("/cache/msvc/3")),
    )
    return WineStation(
        "fatwheel/wine:8.0", "demo-1.0", tools,  # type: ignore[arg-type]
        PACKAGE, Path("/cache/sources"), Path("/cache/store"),
    )  # fmt: skip


def test_with_wine_compilers_are_mounted_and_only_incoming_can_be_written() -> None:
    spec = wine_station().container("capture", Path("/cache/in/1"), LIMITS)
    assert {mount.target: mount.source for mount in spec.mounts} == {
        "/fatwheel/code/fatwheel": str(PACKAGE),
        "/fatwheel/sources": "/cache/sources",
        "/fatwheel/store": "/cache/store",
        "/fatwheel/incoming": "/cache/in/1",
        "/fatwheel/tools/env": "/cache/envs/1",
        "/fatwheel/tools/cuda": "/cache/cuda/2",
        "/fatwheel/tools/msvc": "/cache/msvc/3",
    }
    assert [mount.target for mount in spec.mounts if mount.writable] == ["/fatwheel/incoming"]
    assert (spec.os, spec.memory, spec.as_caller) == ("linux", 5 << 30, False)
    script, place, program = spec.command[1:4]
    assert script == "/opt/fatwheel/scripts/run-in-windows"
    assert (place, program) == ("b/demo-1.0", "C:\\b\\demo-1.0\\env\\python.exe")
    assert spec.command[-1] == "Z:\\fatwheel\\code"


def test_programs_in_wine_are_told_where_things_are_in_their_container() -> None:
    station = wine_station()
    assert station.path(Path("/cache/store")) == "Z:\\fatwheel\\store"
    inside = station.path(Path("/cache/envs/1/Lib/x.py"))
    assert inside == "Z:\\fatwheel\\tools\\env\\Lib\\x.py"
    assert station.show(Path("/cache/cuda/2"), "cuda") == "C:\\b\\demo-1.0\\cuda"
