"""The list of toolchains: those with a name, and what can be composed."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from fatwheel.cli.results import show_overview
from fatwheel.pipeline.overview import Overview, ToolchainOffer, TorchOffer, overview

from ...helpers.someparts import CUDA_99, add_part, write_parts, write_toolchain

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "fatwheel/schemas/toolchains.schema.json").read_text()
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toolchain(write_parts(tmp_path), "tools")
    return tmp_path


def valid(found: Overview) -> Overview:
    jsonschema.validate(json.loads(json.dumps(found.to_json())), SCHEMA)
    return found


def test_named_toolchains_come_with_what_they_have(folder: Path) -> None:
    [tools] = valid(overview([folder])).named
    assert tools == ToolchainOffer(
        name="tools",
        platform="linux-x86_64",
        cuda="13.0",
        nvcc="13.0.88",
        builds=(TorchOffer("2.11.0", ("3.10", "3.11")),),
        archs=("80", "86"),
        engines=("process", "dask"),
        unlocked=(),
    )


def test_each_cuda_is_listed_with_all_that_goes_with_it(folder: Path) -> None:
    add_part(folder, "cuda/99.1.0", CUDA_99)
    found = valid(overview([folder], "linux-x86_64")).composed
    older, newer = TorchOffer("2.8.0", ("3.10", "3.11")), TorchOffer("2.9.1", ("3.11", "3.12"))
    assert [(one.cuda, one.builds) for one in found] == [
        ("99.1.0", (TorchOffer("99.2.0", ("3.12",)),)),
        ("13.0.2", (newer,)),
        ("12.8.1", (older, newer)),
        ("12.6.3", (older, newer)),
    ]
    assert found[0].archs == ("90", "990", "990a")


def test_on_windows_only_what_is_built_for_it(folder: Path) -> None:
    found = valid(overview([folder], "win-amd64"))
    assert [one.cuda for one in found.composed] == ["12.8.1", "12.6.3"]
    assert found.named == ()


def test_files_that_are_not_locked_are_named(folder: Path) -> None:
    file = folder / "parts/images/win-amd64.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("sha256")]
    file.write_text("\n".join(lines))
    newest, *_ = valid(overview([folder], "win-amd64")).composed
    assert newest.unlocked == ("python-3.11.9-amd64.exe",)


def test_what_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_overview(overview([folder], "linux-x86_64"))
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[:2] == ["With a name: --toolchain NAME", ""]
    assert "CUDA 12.8.1  nvcc 12.8.1" in shown
    assert "torch    2.8.0 for Python 3.10, 3.11" in shown
    assert "torch    2.9.1 for Python 3.11, 3.12" in shown
    reached = shown[shown.index("GPUs by architecture") + 1 :]
    assert [line.split()[0] for line in reached if line] == ["80", "86", "89", "90", "120"]
    assert any(line.startswith("89   GeForce RTX 40") for line in reached)
