"""The task `lock`: its arguments, its results, its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection

from fatwheel.errors import ConfigError, FetchError, HashMismatchError, UsageError

from ...helpers import releases
from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.publishers import (
    DIGEST,
    NINJA_FILE,
    PYTHON,
    PYTHON_FILE,
    Publishers,
    configure,
    pinned,
    sha256,
)
from ...helpers.webserver import Server

COLLECTION = Collection.from_module(load_tasks())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publishers]:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fatwheel.shipped.toolchain_folders", lambda: (tmp_path,))
    with Server() as server:
        configure(monkeypatch, server)
        yield Publishers(server, tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *arguments: exit_code_of(COLLECTION, ("lock", *arguments), monkeypatch)


def test_a_toolchain_is_filled_in_and_the_table_says_so(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    world.write(torch=pinned("torch"), nvcc=pinned("nvcc"), cudart=pinned("cudart"))
    assert run("--toolchain", "demo") == 0
    told = capfd.readouterr().out
    assert told.startswith("demo: 6 pins: 4 as published, 2 filled in\n")
    assert f"digest {DIGEST}" in told
    assert "its sha256 is not published: fetched once to find out" in told
    assert told.endswith(f"written to {world.file}\n")
    # Where builds of images keep their files: what was fetched is not fetched again.
    assert (world.folder / "cache" / "image-files" / sha256(PYTHON) / PYTHON_FILE).is_file()
    assert run("--toolchain", "demo") == 0
    assert capfd.readouterr().out == "demo: 6 pins: 6 as published\n"


def test_without_a_name_all_toolchains_are_checked(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    text = world.write_locked()
    (world.folder / "other.toml").write_text(text.replace('name = "demo"', 'name = "other"'))
    assert run("--check", "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert [item["toolchain"] for item in document["toolchains"]] == ["demo", "other"]
    assert [item["count"]["right"] for item in document["toolchains"]] == [6, 6]


def test_check_changes_nothing(world: Publishers, run: Callable[..., int]) -> None:
    before = world.write()
    assert run("--check") == 0
    assert world.file.read_text() == before


def test_what_moved_ends_with_its_exit_code_after_the_report(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    world.write_locked()
    world.publish_image(f"sha256:{'e' * 64}")
    assert run() == HashMismatchError.exit_code
    captured = capfd.readouterr()
    [row] = [line for line in captured.out.splitlines() if line.startswith(world.image)]
    assert f"digest {DIGEST}" in row
    assert f"digest sha256:{'e' * 64}" in row
    assert "error: what is published differs from the pins" in captured.err
    assert run("--json") == HashMismatchError.exit_code
    assert json.loads(capfd.readouterr().out)["toolchains"][0]["count"]["moved"] == 1


def test_what_was_not_reached_ends_with_its_exit_code(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    world.write_locked()
    del world.server.answers["/simple/ninja/"]
    assert run() == FetchError.exit_code
    captured = capfd.readouterr()
    assert NINJA_FILE in captured.out
    assert "no such package here: 404 Not Found" in captured.err


def test_a_toolchain_that_is_none(world: Publishers, run: Callable[..., int]) -> None:
    world.write()
    assert run("--toolchain", "dmo") == UsageError.exit_code
    world.file.write_text("name = 1")
    assert run() == ConfigError.exit_code


def test_a_host_s_version_and_whose_image_it_is_for(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    world.write()
    assert run("--toolchain", "demo", "--host-build", "20348") == UsageError.exit_code
    assert "'20348' is not the version of a Windows host" in capfd.readouterr().err
    assert run("--host-build", "20348.2340") == UsageError.exit_code
    assert "which toolchain's base image" in capfd.readouterr().err
    assert run("--toolchain", "demo", "--host-build", "20348.2340") == UsageError.exit_code
    assert "it has no Windows image" in capfd.readouterr().err
    assert not world.server.requests


def test_releases_are_looked_up_one_toolchain_is_not(
    world: Publishers, run: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--toolchain", "demo", "--cuda", "13.2") == UsageError.exit_code
    assert "locked one after the other" in capfd.readouterr().err
    assert run("--torch", "2") == UsageError.exit_code
    assert "valid: as in 2.13, or 2.13.0" in capfd.readouterr().err
    assert not world.server.requests


def test_a_release_of_cuda_is_looked_up_and_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fatwheel.shipped.toolchain_folders", lambda: (tmp_path / "toolchains",))
    with Server() as server:
        releases.configure(monkeypatch, server)
        world = releases.Releases(server, tmp_path / "toolchains")
        base = f"{server.url.removeprefix('http://')}/python:3.11"
        image = world.parts / "images" / "linux-x86_64.toml"
        image.write_text(image.read_text().replace("python:3.11", base))
        assert run("--cuda", "99.1") == 0
        told = capfd.readouterr().out
        file = world.parts / "cuda" / f"{releases.CUDA}.toml"
        assert told.startswith("cuda 99.1.0: 12 pins: 12 filled in\n")
        assert told.endswith(f"written to {file}\n")

        assert run("--json") == FetchError.exit_code, "there is no registry of images"
        document = json.loads(capfd.readouterr().out)
        by_name = {one["toolchain"]: one["count"] for one in document["toolchains"]}
        assert by_name["cuda 99.1.0"]["right"] == 12, "without options, parts are checked, too"

        world.publish_archives(cuda_cudart=b"another")
        assert run("--cuda", "99.1") == HashMismatchError.exit_code
        assert "cuda_cudart-linux-x86_64" in capfd.readouterr().err
