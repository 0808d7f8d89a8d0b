"""Build contexts in folders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import Base, Cell, Toolchain
from fatwheel.containers import render as render_module
from fatwheel.containers import render as rendering
from fatwheel.containers.contexts import contexts_of
from fatwheel.containers.render import Rendered, render
from fatwheel.errors import FatwheelError, StoreError, ToolchainError
from fatwheel.events import silent

from ...helpers.toolchains import shipped_toolchain

WINDOWS = shipped_toolchain("windows-msvc17.8-cuda12.3")


def small() -> Toolchain:
    """linux-cuda13.0 with every file three bytes, and a base whose digest is known."""
    real = shipped_toolchain("linux-cuda13.0")
    digest = hashlib.sha256(b"abc").hexdigest()

    def shrunk(packages: tuple[Package, ...]) -> tuple[Package, ...]:
        return tuple(dataclasses.replace(p, size=3, sha256=digest) for p in packages)

    assert real.containers is not None
    bases = (Base("python:3.11-bookworm", "sha256:" + "1" * 64, ("3.11",)),)
    return dataclasses.replace(
        real,
        packages=shrunk(real.packages),
        builds=tuple(
            dataclasses.replace(build, packages=shrunk(build.packages)) for build in real.builds
        ),
        containers=dataclasses.replace(real.containers, bases=bases),
    )


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was fetched: each file's content is `abc`."""
    names: list[str] = []

    def fetch(files: list[Package], folder: Path, emit: object, **more: object) -> list[Path]:
        paths = [folder / file.sha256 / file.filename for file in files]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"abc")
            names.append(path.name)
        return paths

    monkeypatch.setattr(render_module, "fetch", fetch)
    return names


def cells(toolchain: Toolchain, torch: str, *pythons: str) -> list[Cell]:
    return [Cell(toolchain, python, torch) for python in pythons]


def one(out: Path, cache: Path | None = None) -> list[Rendered]:
    return render(cells(small(), "2.11.0", "3.11"), {}, out, cache, silent)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_texts_of_both_images_and_a_list_of_what_belongs_beside_them(tmp_path: Path) -> None:
    made = one(tmp_path)
    pair = contexts_of(small(), "3.11", "2.11.0", {})
    assert [item.context for item in made] == list(pair)
    for item in made:
        name = item.context.tag.partition(":")[2]
        assert item.folder == tmp_path / "linux-cuda13.0" / name
        assert not item.complete
        found = content(item.folder)
        assert found.items() >= dict(item.context.texts).items()
        extra = found.keys() - dict(item.context.texts).keys()
        assert extra == {"context.json", "files/SHA256SUMS"}
        document = json.loads(found["context.json"])
        assert document["tag"] == item.context.tag
        assert document["base"] == item.context.base
        assert {file["file"].removeprefix("files/") for file in document["files"]} == {
            file.filename for file in item.context.files
        }


def test_with_its_files_a_context_is_complete(tmp_path: Path, fetched: list[str]) -> None:
    made = one(tmp_path / "out", tmp_path / "cache")
    for item in made:
        assert item.complete
        # sha256sum is not ours.
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        done = subprocess.run(
            check, cwd=item.folder / "files", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("OK") == len(item.context.files)
    assert sorted(fetched) == sorted(f.filename for item in made for f in item.context.files)


def test_files_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(rendering.os, "link", refuse)
    made = one(tmp_path / "out", tmp_path / "cache")
    wheel = next((made[0].folder / "files").glob("*.whl"))
    assert (wheel.read_bytes(), wheel.stat().st_nlink) == (b"abc", 1)


def test_again_gives_the_same_folders(tmp_path: Path) -> None:
    first = one(tmp_path)
    before = content(tmp_path)
    (first[0].folder / "Dockerfile").write_text("edited")
    (first[0].folder / "more").write_text("more")
    one(tmp_path)
    assert content(tmp_path) == before


def test_nothing_is_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(part: Path, *more: object) -> None:
        (part / "Dockerfile").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rendering, "_fill", fail)
    with pytest.raises(StoreError, match="cannot write a build context: No space"):
        one(tmp_path)
    assert content(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--out FOLDER"):
        one(tmp_path / "file")


def test_pythons_that_share_a_toolchain_image_share_its_folder(tmp_path: Path) -> None:
    made = render(cells(WINDOWS, "2.1.1", "3.10", "3.11"), {}, tmp_path, None, silent)
    assert [item.context.kind for item in made] == ["toolchain", "env", "env"]


def test_what_is_not_locked_is_written_but_never_fetched(
    tmp_path: Path, fetched: list[str]
) -> None:
    toolchain = dataclasses.replace(
        small(),
        packages=tuple(
            dataclasses.replace(p, sha256="", size=0) if p.name == "ninja" else p
            for p in small().packages
        ),
    )
    made = render(cells(toolchain, "2.11.0", "3.11"), {}, tmp_path / "a", None, silent)
    assert any(name.startswith("ninja-") for name in made[0].context.unlocked)
    assert "ninja" not in (made[0].folder / "files" / "SHA256SUMS").read_text()
    with pytest.raises(ToolchainError) as caught:
        render(cells(toolchain, "2.11.0", "3.11"), {}, tmp_path / "b", tmp_path / "cache", silent)
    assert any(line.startswith("ninja-") for line in caught.value.details)
    assert caught.value.hint == "invoke lock --toolchain linux-cuda13.0"
    assert fetched == []


def test_what_makes_no_image_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FatwheelError):
        render(cells(small(), "2.11.0", "3.11", "2.7"), {}, tmp_path, None, silent)
    assert content(tmp_path) == {}
