"""The tasks `render` and `image`, and what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection

from fatwheel.containers import client, imagebuild
from fatwheel.containers.contexts import VARIABLE
from fatwheel.containers.imagebuild import ContainerImage

from ...helpers.commandline import exit_code_of, load_tasks

COLLECTION = Collection.from_module(load_tasks())
WINDOWS = "windows-msvc17.8-cuda12.3"


@pytest.fixture(autouse=True)
def no_own_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What images were asked for; the toolchain image is there after the first time."""
    asked: list[tuple[Any, ...]] = []

    def ensure(engine: object, toolchain: Any, python: str, torch: str, *more: object) -> Any:
        asked.append((toolchain.name, python, torch))
        first = ContainerImage(
            "toolchain", "t:toolchain", "sha256:" + "a" * 64, 1 << 30, len(asked) == 1
        )
        return [first, ContainerImage("env", f"t:cp{python}", "sha256:" + "b" * 64, 8 << 30, True)]

    class Engine:
        os = "linux"

    monkeypatch.setattr(imagebuild, "ensure_images", ensure)
    monkeypatch.setattr(client, "connect", Engine)
    return asked


def test_images_of_all_pythons_asked_for(
    made: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(COLLECTION, ("image", "--python", "3.11,3.13", "--json"), monkeypatch) == 0
    assert made == [("linux-cuda13.0", "3.11", "2.11.0"), ("linux-cuda13.0", "3.13", "2.11.0")]
    images = json.loads(capfd.readouterr().out)["images"]
    assert [(image["tag"], image["built"]) for image in images] == [
        ("t:toolchain", True), ("t:cp3.11", True), ("t:cp3.13", True),
    ]  # fmt: skip
    assert images[0]["size"] == 1 << 30
    assert images[0]["id"] == "sha256:" + "a" * 64


def test_a_table_of_images(
    made: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made.append(("an earlier one",))
    arguments = ("image", "--python", "3.11", "--torch", "2.11.0")
    assert exit_code_of(COLLECTION, arguments, monkeypatch) == 0
    out = capfd.readouterr().out
    for words in ("t:toolchain", "1.0 GiB", "aaaaaaaaaaaa", "already there", "t:cp3.11", "built"):
        assert words in out, f"{words!r} is not in:\n{out}"


@pytest.mark.parametrize(
    "arguments",
    [("--python", "2.7"), ("--torch", "9.9"), ("--toolchain", "nothing")],
)
def test_what_cannot_be_is_refused_before_the_engine_is_asked(
    made: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    assert exit_code_of(COLLECTION, ("image", *arguments), monkeypatch) == 2
    assert exit_code_of(COLLECTION, ("render", *arguments), monkeypatch) == 2
    assert made == []


def test_contexts_without_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    arguments = ["render", "--toolchain", WINDOWS, "--python", "3.10,3.11", "--out", str(tmp_path)]
    assert exit_code_of(COLLECTION, (*arguments, "--json"), monkeypatch) == 0
    contexts = json.loads(capfd.readouterr().out)["contexts"]
    assert [context["kind"] for context in contexts] == ["toolchain", "env", "env"]
    for context in contexts:
        assert Path(context["folder"], "Dockerfile").is_file()
        assert context["complete"] is False
    assert exit_code_of(COLLECTION, tuple(arguments), monkeypatch) == 0
    out = capfd.readouterr().out
    assert "(not fetched)" in out
    assert Path(contexts[1]["folder"]).name in out


def test_own_bases_are_not_final_without_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "3.11=my-base")
    arguments = (
        "render",
        "--toolchain",
        "linux-cuda13.0",
        "--python",
        "3.11",
        "--out",
        str(tmp_path),
    )
    assert exit_code_of(COLLECTION, arguments, monkeypatch) == 0
    assert "tags will differ on the engine" in capfd.readouterr().err
    [dockerfile] = tmp_path.glob("*/toolchain-*/Dockerfile")
    assert "FROM my-base\n" in dockerfile.read_text()
