"""Which toolchains a request means: a name, the default, or what is composed of parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.arch import parse_arch
from fatwheel.config.toolchain import Toolchain
from fatwheel.errors import UsageError
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.resolve import ToolchainRequest, choose_cells, resolve
from fatwheel.toolchain.interpreters import build_of, compiler_id

from ...helpers.somelocks import ROOT, installed_lock
from ...helpers.someparts import CUDA_99, add_part, write_parts, write_toolchain

Cells = list[tuple[str, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts, and the toolchain `tools` with torch 2.11.0 for Python 3.10 and 3.11, the default.
    That of Windows is none of today's CUDAs."""
    write_toolchain(write_parts(tmp_path), "tools")
    monkeypatch.setattr(resolve_module, "toolchain_folders", lambda: (tmp_path,))
    monkeypatch.setattr(resolve_module, "_running", lambda: "3.11")
    defaults = {"linux": "tools", "windows": "cuda12.6.3-win-amd64"}
    monkeypatch.setattr(resolve_module, "DEFAULT_TOOLCHAINS", defaults)
    return tmp_path


def cells(**asked: str) -> Cells:
    chosen = choose_cells(ToolchainRequest("tools", **asked))
    return [(cell.toolchain.name, cell.torch, cell.python) for cell in chosen]


def refusal(**asked: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        cells(**asked)
    return caught.value


T310, T311 = (("tools", "2.11.0", python) for python in ("3.10", "3.11"))
C126, C128, C130 = (f"cuda{version}-linux-x86_64" for version in ("12.6.3", "12.8.1", "13.0.2"))
W126, W128 = (f"cuda{version}-win-amd64" for version in ("12.6.3", "12.8.1"))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [T311]),
        ({"toolchain": "tools", "pythons": "3.10,3.11"}, [T310, T311]),
        ({"torches": "2.11"}, [T311]),
        ({"pythons": "3.10"}, [T310]),
        ({"torches": "2.8"}, [(C128, "2.8.0", "3.11")]),
        ({"pythons": "3.12"}, [(C130, "2.9.1", "3.12")]),
        ({"cudas": "12.6"}, [(C126, "2.9.1", "3.11")]),
        ({"platform": "windows-x86_64"}, [(W126, "2.9.1", "3.11")]),
        ({"platform": "win-amd64"}, [(W126, "2.9.1", "3.11")]),
        ({"platform": "windows-x86_64", "torches": "2.9"}, [(W128, "2.9.1", "3.11")]),
        ({"platform": "windows-x86_64", "cudas": "12.8"}, [(W128, "2.9.1", "3.11")]),
        ({"toolchain": C128, "torches": "2.8", "pythons": "3.10"}, [(C128, "2.8.0", "3.10")]),
        (
            {"cudas": "12.6, 12.8", "torches": "2.8,2.9"},
            [(cuda, torch, "3.11") for cuda in (C126, C128) for torch in ("2.8.0", "2.9.1")],
        ),
    ],
)  # fmt: skip
def test_which_toolchains_a_request_means(asked: dict[str, str], found: Cells) -> None:
    assert cells(**asked) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"toolchain": "tools", "cudas": "12.8"}, "--cuda beside --toolchain"),
        ({"toolchain": "tools", "platform": "linux-x86_64"}, "--platform beside --toolchain"),
        ({"toolchain": "nonsense"}, "unknown toolchain 'nonsense'"),
        ({"toolchain": "tools", "pythons": "3.9"}, "unusable list of Pythons"),
        ({"toolchain": "tools", "torches": "2.8"}, "tools has no torch 2.8 for Python 3.11"),
        ({"cudas": "12.8,12.8"}, "unusable list"),
        ({"torches": "2.8,"}, "unusable list"),
        ({"cudas": ""}, "unusable list"),
        ({"cudas": "11.8"}, "no toolchain for linux-x86_64 can be composed of these"),
    ],
)
def test_what_a_request_cannot_be(asked: dict[str, str], said: str) -> None:
    assert said in refusal(**asked).what


HOME, VENV = Path("/cuda"), Path("/venv")


@pytest.mark.parametrize("named", [{"cuda_home": HOME}, {"torch_from": VENV}])
@pytest.mark.parametrize(
    ("option", "asked"),
    [
        ("--toolchain", {"toolchain": "tools"}),
        ("--cuda", {"cudas": "13.0"}),
        ("--torch", {"torches": "2.8"}),
        ("--python", {"pythons": "3.11"}),
        ("--platform", {"platform": "linux-x86_64"}),
    ],
)
def test_nothing_goes_beside_what_is_installed(
    named: dict[str, Path], option: str, asked: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as caught:
        choose_cells(ToolchainRequest("tools", **asked, **named))  # type: ignore[arg-type]
    [mine] = named
    other = f"--{mine.replace('_', '-')}"
    what = f"{option} beside {other}, which uses what is installed on this machine"
    assert caught.value.what == what


def test_what_is_installed_is_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def find_installed(*places: object) -> Toolchain:
        asked.extend(places)
        return installed_lock().toolchain

    monkeypatch.setattr(resolve_module, "find_installed", find_installed)
    [cell] = choose_cells(ToolchainRequest("tools", cuda_home=HOME, torch_from=VENV))
    assert asked == [HOME, VENV]
    assert (cell.toolchain.name, cell.torch) == ("system-cuda13.0", "2.11.0")
    with pytest.raises(UsageError) as caught:
        resolve("selftest", ToolchainRequest("tools", cuda_home=HOME), "89,990a", ROOT / "kernels")
    hint = str(caught.value.hint)
    assert "--cuda" not in hint, "another CUDA is none that this machine has"


def test_an_architecture_that_this_cuda_does_not_know(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_part(folder, "cuda/99.1.0", CUDA_99)
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(UsageError) as caught:
        resolve("selftest", ToolchainRequest("tools", cudas="12.6"), "89,120")
    assert "'120' is an architecture this toolchain's nvcc does not know" in caught.value.details
    hint = "all of 89,120 are known to CUDA 13.0, 12.8: --cuda 12.8"
    assert hint in (caught.value.hint or "")
    [target] = resolve("selftest", ToolchainRequest("tools", cudas="99.1"), "990a")
    assert [request.arch for request in target.archs] == [parse_arch("990a")]


# -- device code from Linux ------------------------------------------------------------------------

FROM_LINUX = {"device_from": "linux", "platform": "windows-x86_64"}


def test_compilers_for_linux_are_of_nvcc_s_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module, "toolchain_folders", lambda: (ROOT / "toolchains",))
    asked = ToolchainRequest("", cudas="13.0", torches="2.11", **FROM_LINUX)
    [cell] = choose_cells(asked)
    [own] = choose_cells(replace(asked, device_from=None))
    packages = {one.name: one for one in cell.toolchain.device_packages}
    versions = {packages[name].version for name in ("nvidia-nvvm", "nvidia-cuda-nvcc")}
    assert versions == {own.toolchain.nvcc}
    assert all("x86_64" in one.filename and "linux" in one.filename for one in packages.values())
    assert own.toolchain.device_packages == ()
    assert cell.toolchain.digest != own.toolchain.digest
    build = build_of(cell.toolchain, cell.python, cell.torch)
    assert compiler_id(cell.toolchain, build) != compiler_id(own.toolchain, build)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"device_from": "mac"}, "'mac' is not a valid choice"),
        (
            {"device_from": "linux"},
            "--device-from is for Windows wheels, and toolchain tools is for linux-x86_64",
        ),
        (
            {**FROM_LINUX, "cudas": "12.8"},
            "there are no packages with nvcc 12.8.1 for linux-x86_64",
        ),
    ],
)
def test_device_code_that_does_not_come_from_linux(asked: dict[str, str], what: str) -> None:
    error = refusal(**asked)
    assert error.what == what
    assert (error.where or "").startswith("--device-from")
    assert error.hint
