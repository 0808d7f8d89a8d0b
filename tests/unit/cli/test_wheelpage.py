"""The page of `inspect --html`: its numbers are the report's, its size is bounded, text is text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel import text
from fatwheel.cli import wheelpage
from fatwheel.cli.wheelpage import wheel_page
from fatwheel.errors import FormatError, StoreError, UsageError
from fatwheel.verify.inspect import inspect_file, inspect_units, without_units

from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.cudawheels import LZ4, MODULE, NONE, Linker, fatbin, images
from ...helpers.pages import ReadPage
from ...helpers.tinywheels import Draft

Report = dict[str, Any]
Run = Callable[..., int]
HOSTILE = "</script><img src=x onerror=alert(1)><!--"


@pytest.fixture(scope="module")
def wheel(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One library with four images in two containers, another with two of them, compressed."""
    folder = tmp_path_factory.mktemp("wheel")
    linker = Linker(folder, tool)
    files = {
        MODULE: linker.library(NONE + fatbin(images(NONE)[:1])),
        "demo/other.so": linker.library(LZ4),
        "demo/plain.so": linker.library(),
    }
    return Draft("demo", "1.0+cu130", files=files).write(folder)


@pytest.fixture(scope="module")
def report(wheel: Path) -> Report:
    return inspect_units(wheel)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    collection = load_tasks().namespace
    return lambda *words: exit_code_of(collection, words, monkeypatch)


def maps_of(*reports: Report) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ReadPage(wheel_page(reports)).data["wheels"]
    return found


def total(rows: list[Any]) -> int:
    """Bytes in the cells of some rows, which are last in each."""
    return sum(cell[0] for row in rows for cell in row[-1] if cell)


def sizes(report: Report) -> int:
    return sum(image["bytes"] for binary in report["binaries"] for image in binary["images"])


def grown(report: Report, units: int, kernels: int = 1) -> Report:
    """The report of a wheel whose first file has so many units with so many kernels each."""
    found = copy.deepcopy(report)
    binary = found["binaries"][0]
    first = binary["units"][0]
    binary["units"] = [
        {**first, "container": number,
         "kernels": [f"kernel_{number}_{k}_" + "x" * 190 for k in range(kernels)]}
        for number in range(units)
    ]  # fmt: skip
    return found


def test_every_byte_of_the_report_is_in_the_heat_maps(report: Report) -> None:
    [maps] = maps_of(report)
    assert total(maps["files"]) == total(maps["units"]) == sizes(report) > 0
    assert maps["more_files"] == maps["more_units"] == [0, 0]
    assert maps["columns"] == [
        ["compute_80", "PTX"], ["sm_80", "cubin"], ["sm_90a", "cubin"], ["sm_120f", "cubin"],
    ]  # fmt: skip
    assert [path for path, _, _ in maps["files"]] == [MODULE, "demo/other.so"]
    units = [(file, container) for file, container, *_ in maps["units"]]
    assert sorted(units) == [(0, 0), (0, 1), (1, 0)]
    for file, container, kernels, called, names, cells in maps["units"]:
        [unit] = [
            one
            for binary in report["binaries"]
            if binary["path"] == maps["files"][file][0]
            for one in binary["units"]
            if one["container"] == container
        ]
        assert kernels == len(unit["kernels"])
        assert names[0] == called
        assert sorted(names) == unit["kernels"]
        by_name = {image["arch"]: image for image in unit["images"]}
        for (name, _), cell in zip(maps["columns"], cells, strict=True):
            assert (cell and cell[0]) == (by_name[name]["bytes"] if name in by_name else None)


def test_compressed_and_missing_images_are_told_apart(report: Report) -> None:
    page = ReadPage(wheel_page([report])).data
    methods = page["methods"]
    by_unit = {
        (file, container): cells for file, container, *_, cells in page["wheels"][0]["units"]
    }
    assert [cell is None for cell in by_unit[0, 1]] == [True, False, True, True]
    assert {methods[cell[1]] for cell in by_unit[0, 0]} == {""}
    assert {methods[cell[1]] for cell in by_unit[1, 0]} == {"lz4"}
    assert {methods[cell[1]] for cell in page["wheels"][0]["files"][1][2]} == {"compressed"}


def test_the_tables_say_what_the_report_says(report: Report) -> None:
    page = ReadPage(wheel_page([report]))
    page.check_it_asks_for_nothing()
    rows = page.rows()
    drivers = report["binaries"][0]["drivers"]
    words = {"native": "● native", "jit": "◐ by JIT, from PTX", "none": "○ none"}
    for capability, how in report["coverage"].items():
        said, driver, saves, _ = rows[capability]
        assert said == words.get(how, said)
        assert how in words or said.startswith("◔ in part: ")
        assert (driver == "") == (capability not in drivers)
        saving = report["thinned"].get(capability)
        assert saves == (
            f"{text.size(saving['saves'])}, {saving['percent']:.0f} %" if saving else ""
        )
    assert {"native", "part", "none"} <= set(report["coverage"].values())
    assert rows["sm_90a"][:2] == ["cubin", "1"]
    assert page.texts("b")[0] == text.size(sizes(report))
    assert page.texts("h1") == [f"GPU code in {report['file']}"]


def test_the_same_files_make_the_same_bytes(report: Report, wheel: Path) -> None:
    assert wheel_page([report]) == wheel_page([inspect_units(wheel)])


def test_what_a_file_says_is_text(report: Report) -> None:
    hostile = copy.deepcopy(report)
    hostile["file"] = HOSTILE
    hostile["wheel"] = {"name": HOSTILE, "version": "\x1b[31m", "tags": [HOSTILE]}
    for binary in hostile["binaries"]:
        binary["path"] = HOSTILE
        for unit in binary["units"]:
            unit["kernels"] = [HOSTILE, f"_Z{len(HOSTILE)}{HOSTILE}v"]
    page = ReadPage(wheel_page([hostile]))
    page.check_it_asks_for_nothing()
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    assert page.data["wheels"][0]["files"][0][0] == HOSTILE
    assert page.data["wheels"][0]["units"][0][3] == HOSTILE
    assert b"\x1b" not in wheel_page([hostile])


def test_kernels_are_called_as_people_read_them(report: Report) -> None:
    named = copy.deepcopy(report)
    named["binaries"][0]["units"][0]["kernels"] = ["_Z5scalePfS_ih"]
    name = "scale(float*, float*, int, unsigned char)"
    assert (name, [name]) in [tuple(unit[3:5]) for unit in maps_of(named)[0]["units"]]


def test_a_unit_is_called_by_a_kernel_of_its_own(report: Report) -> None:
    """Most units of large libraries have a kernel of the same name, such as CUB's EmptyKernel."""
    large = grown(report, 2)
    for unit in large["binaries"][0]["units"]:
        unit["kernels"] = sorted([*unit["kernels"], "EmptyKernel"])
    called = [unit[3] for unit in maps_of(large)[0]["units"] if not unit[0]]
    assert [name.split("_")[:2] for name in sorted(called)] == [["kernel", "0"], ["kernel", "1"]]


def test_several_files_have_a_part_each(report: Report) -> None:
    other = {**report, "file": "other.whl"}
    page = ReadPage(wheel_page([report, other]))
    assert page.texts("h1") == ["GPU code in 2 files"]
    assert page.texts("option")[:2] == [report["file"], "other.whl"]
    assert len(page.data["wheels"]) == 2
    assert [one.get("aria-label") for one in page.all("section")][:2] == [
        report["file"],
        "other.whl",
    ]


def test_a_file_without_gpu_code(tmp_path: Path) -> None:
    plain = Draft("plain", "1.0", files={"plain.py": b""}).write(tmp_path)
    page = ReadPage(wheel_page([inspect_units(plain)]))
    assert page.data["wheels"] == [
        {"columns": [], "files": [], "units": [], "more_files": [0, 0], "more_units": [0, 0]}
    ]


# -- bounds ----------------------------------------------------------------------------------------


def test_units_that_do_not_fit_are_summed_up(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheelpage, "_UNITS", 30)
    large = grown(report, 50)
    maps, second = maps_of(large, large)
    in_all = [one for binary in large["binaries"] for one in binary["units"]]
    assert (len(maps["units"]), maps["more_units"][0]) == (30, len(in_all) - 30)
    every = sum(image["bytes"] for unit in in_all for image in unit["images"])
    assert total(maps["units"]) + maps["more_units"][1] == every
    assert second["units"] == []
    assert second["more_units"] == [len(in_all), every]


def test_files_and_architectures_that_do_not_fit_are_summed_up(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheelpage, "_FILES", 1)
    monkeypatch.setattr(wheelpage, "_COLUMNS", 2)
    [maps] = maps_of(report)
    assert maps["columns"][-1] == ["others", ""]
    assert len(maps["columns"]) == 3
    assert maps["more_files"][0] == 1
    assert total(maps["files"]) + maps["more_files"][1] == total(maps["units"]) == sizes(report)


def test_a_wheel_of_any_size_has_a_page_of_a_few_megabytes(report: Report) -> None:
    """Twice what is listed, with more names than there is room for."""
    page = wheel_page([grown(report, 40_000, kernels=3)])
    assert len(page) < 8 << 20
    [maps] = ReadPage(page).data["wheels"]
    assert len(maps["units"]) == 20_000
    assert all(called for _, _, _, called, *_ in maps["units"])
    assert len(maps["units"][0][4]) == 3, "the largest have all their names"
    assert maps["units"][-1][4] == []


# -- the command -----------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_says_the_same_as_without(
    run: Run, wheel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", str(wheel), "--json") == 0
    alone = capfd.readouterr().out
    assert run("inspect", str(wheel), "--json", "--html", str(tmp_path / "a.html")) == 0
    out, err = capfd.readouterr()
    assert out == alone
    assert json.loads(out) == inspect_file(wheel) == without_units(inspect_units(wheel))
    assert err == f"the page is {tmp_path / 'a.html'}\n"
    assert (tmp_path / "a.html").read_bytes() == wheel_page([inspect_units(wheel)])


def test_what_can_be_read_is_on_the_page_though_a_file_cannot(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.fatbin").write_bytes(NONE)
    Path("b.fatbin").write_bytes(NONE[:100])
    code = run("inspect", "a.fatbin", "b.fatbin", "--html", "a.html")
    assert code == FormatError.exit_code
    assert len(ReadPage(Path("a.html").read_bytes()).data["wheels"]) == 1
    assert run("inspect", "b.fatbin", "--html", "b.html") == FormatError.exit_code
    assert not Path("b.html").exists()


def test_a_page_that_cannot_be_written_is_told_before_files_are_read(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    for page, code in (
        (mine, UsageError.exit_code), (wheel, UsageError.exit_code),
        (Path("/proc/self/a.html"), StoreError.exit_code),
    ):  # fmt: skip
        assert run("inspect", "there-is-none.whl", "--html", str(page)) == code
        assert "there-is-none" not in capfd.readouterr().err
    assert mine.read_text() == "mine"
