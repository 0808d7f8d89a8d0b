"""fatwheel on a Windows host: Wine, a real Windows CPython, and what fatwheel needs for Windows.

There is no container engine in Wine, so builds end where they would ask for one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fatwheel.pipeline.plan import BuildRequest, plan_build
from fatwheel.shipped import DEFAULT_TOOLCHAINS

from .windows import windows_path
from .windowshost import CACHE, Host

pytestmark = pytest.mark.slow  # 30 MB of downloads, and the doctor waits for servers


def request_for(toolchain: str) -> BuildRequest:
    return BuildRequest(
        kernel="flash-attn", archs="80,86,89+ptx", pythons="3.10,3.11", torch=None,
        toolchain=toolchain, engine=None, shards=None, jobs=8, memory=40 << 30, front="auto",
        out=Path("dist"),
    )  # fmt: skip


def test_the_original_release_is_planned_as_on_linux(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags of images are the same."""
    monkeypatch.delenv("FATWHEEL_BASES", raising=False)
    name = "windows-msvc17.8-cuda12.3"
    line = "build --arch 80,86,89+ptx --python 3.10,3.11 --jobs 8 --memory 40GiB --plan --json"
    done = host.run(*line.split(), "--engine", "docker", "--toolchain", name)
    assert done.returncode == 0, done.stderr
    there: dict[str, Any] = json.loads(done.stdout)
    here = json.loads(json.dumps(plan_build(request_for(name)).to_json()))
    # Folders of the host are other ones there; all else is equal.
    commands = [(one["purpose"], one.pop("command")) for one in there["containers"]]
    for one in here["containers"]:
        del one["command"]
    assert there == here
    for purpose, command in commands:
        if command:
            folder = f'"type=bind,source={CACHE}\\store,target=C:\\fw\\store,readonly"'
            assert folder in command, purpose


def test_windows_has_a_toolchain_of_its_own(host: Host) -> None:
    done = host.run("build", "--arch", "89", "--python", "3.11", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["toolchain"] == DEFAULT_TOOLCHAINS["windows"]
    assert plan["engine"] == "process", "no engine with containers answers here"


def test_a_build_ends_where_it_needs_the_engine(host: Host) -> None:
    line = ("build", "--arch", "80", "--python", "3.11", "--engine", "docker")
    done = host.run(*line)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "--accept-msvc-license" in done.stderr, "Microsoft's terms come before anything else"
    done = host.run(*line, "--accept-msvc-license")
    assert done.returncode == 14, done.stdout + done.stderr
    assert "no engine is listening there" in done.stderr
    assert "npipe:////./pipe/docker_engine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_on_a_network_drive(host: Host, tmp_path: Path) -> None:
    """Junctions lead to none, so all tools would be copied for every build."""
    wine = host.python.wine
    Path(wine.environment["WINEPREFIX"], "dosdevices", "y:").symlink_to(tmp_path)
    drives = r"HKEY_LOCAL_MACHINE\Software\Wine\Drives"
    wanted = ("add", drives, "/v", "y:", "/d", "network", "/f")
    assert wine.run(Path("reg"), *wanted).returncode == 0
    wine.stop()  # it asks for the kinds of drives when it starts
    wine.start()
    done = host.run("cache", cache="Y:\\fw")
    assert done.returncode == 10, done.stdout + done.stderr
    assert "the cache folder cannot be used: it is on a network drive" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_knows_windows(host: Host) -> None:
    for _ in range(3):
        done = host.run("doctor", "--engine", "docker", "--json")
        assert done.returncode == 6, done.stdout + done.stderr
        found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
        # It is set where the tests of images have run before, in the same Wine.
        if "LongPathsEnabled" in json.dumps(found["long-paths"]):
            break  # else Wine was too slow to say it: the doctor waits for nothing for long
    else:
        pytest.fail(f"it says nothing of long paths: {found['long-paths']}")
    assert found["engine"]["status"] == "wrong"
    every = [fix["command"] or "" for one in found.values() for fix in one["fixes"]]
    assert not any("powershell" in command.lower() for command in every)


def test_files_of_any_wheel_are_read_on_windows_too(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "no.whl"
    path.write_bytes(b"no wheel")
    done = host.run("verify", windows_path(path))
    assert done.returncode == 11, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
