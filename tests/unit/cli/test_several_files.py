"""inspect, verify, thin and stitch on several files at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel import errors
from fatwheel.arch import parse_gpu_list
from fatwheel.cli.arguments import files_of
from fatwheel.edit.thin import thin
from fatwheel.errors import FormatError, VerifyError
from fatwheel.fatbin.images import selection_for

from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.cudawheels import NONE, Linker, sound
from ...helpers.datasections import elf_library
from ...helpers.deviceimages import write_wheel
from ...helpers.schemas import schema_of

Run = Callable[..., int]
FILES = ["a.fatbin", "b.fatbin", "c.fatbin"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process; its exit code."""
    collection = load_tasks().namespace
    return lambda *words: exit_code_of(collection, words, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files with device code, and between them, by name, one that is damaged."""
    for name in FILES:
        (tmp_path / name).write_bytes(NONE if name != "b.fatbin" else NONE[:100])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documents(capfd: pytest.CaptureFixture[str], command: str) -> Any:
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, schema_of(command))
    return found


def test_what_is_sound_is_shown_though_another_is_not(
    run: Run, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, bad, other = FILES
    assert run("inspect", one, bad, other) == FormatError.exit_code
    out, err = capfd.readouterr()
    assert out.index(one) < out.index(other)
    assert err.count("error: ") == 1
    assert bad in err


def test_json_of_several_is_a_list_and_of_one_its_document(
    run: Run, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, bad, other = FILES
    assert run("inspect", one, "--json") == 0
    alone = documents(capfd, "inspect")
    assert alone["file"] == one
    assert run("inspect", one, other, "--json") == 0
    several = documents(capfd, "inspect")
    assert several[0] == alone
    assert [found["file"] for found in several] == [one, other]
    assert run("inspect", one, bad, other, "--json") == FormatError.exit_code
    assert documents(capfd, "inspect") == several


def test_every_wheel_is_verified(
    run: Run, tmp_path: Path, tool: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The first one's failure does not hide the second, and decides the exit code."""
    library = tmp_path / "library"
    library.mkdir()
    good = sound(Linker(library, tool))
    bad = replace(good, version="2.0+cu130.sm75")
    wheels = [draft.write(tmp_path) for draft in (bad, good)]
    assert run("verify", *map(str, wheels), "--json") == VerifyError.exit_code
    assert [found["ok"] for found in documents(capfd, "verify")] == [False, True]


def test_thin_makes_all_it_can(run: Run, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("thin", "*.fatbin", "--arch", "80", "--json") == FormatError.exit_code
    made = documents(capfd, "edited")
    assert [Path(each["file"]).parent.name for each in made] == ["dist", "dist"]
    for each in made:
        assert Path(each["file"]).stat().st_size == each["size"]


def test_a_dry_run_makes_nothing_and_tells_the_size(
    run: Run, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, _, other = FILES
    assert run("thin", one, other, "--arch", "80", "--dry-run", "--json") == 0
    told = documents(capfd, "edited")
    assert not (folder / "dist").exists()
    assert run("thin", one, other, "--arch", "80", "--json") == 0
    made = documents(capfd, "edited")
    assert told == [{**each, "written": False, "sha256": None} for each in made]
    assert [each["size_before"] for each in made] == [len(NONE), len(NONE)]
    assert run("thin", one, "--arch", "80", "--dry-run", "--out", "other") == 0
    assert f"not written  other/{one}\n" in capfd.readouterr().out


def test_a_summary_or_all_of_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    library = elf_library({".nv_fatbin": NONE})
    files = {f"demo/{number:03}.so": library for number in range(100)}
    wheel = write_wheel(tmp_path, files)
    assert run("inspect", str(wheel)) == 0
    summary = capfd.readouterr().out
    assert summary.count("\n") < 60
    assert "100 files with GPU code" in summary
    for option in ("--all", "--units"):
        assert run("inspect", str(wheel), option) == 0
        shown = capfd.readouterr().out
        assert all(f"\n{name}  (" in shown for name in files)
    assert run("inspect", str(wheel), "--json") == 0
    assert len(documents(capfd, "inspect")["binaries"]) == 100


def test_a_result_replaces_nothing_that_must_stay(folder: Path) -> None:
    """As the result of another wheel of the same command, whose name may come to be the same."""
    selection = selection_for(parse_gpu_list("80"))
    made = thin(folder / FILES[0], selection, folder / "out")
    before = made.path.read_bytes()
    with pytest.raises(errors.UsageError, match="would replace another of these files"):
        thin(folder / FILES[0], selection, folder / "out", keep=[made.path])
    assert made.path.read_bytes() == before


def test_thin_makes_nothing_of_files_whose_results_would_be_one(
    run: Run, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = FILES[0]
    (folder / "more").mkdir()
    (folder / "more" / one).write_bytes((folder / one).read_bytes())
    assert run("thin", one, f"more/{one}", "--arch", "80") == errors.UsageError.exit_code
    assert one in capfd.readouterr().err
    assert not (folder / "dist").exists()


def test_patterns_are_for_shells_that_leave_them_alone(folder: Path) -> None:
    one, bad, other = FILES
    assert files_of(["*.fatbin"]) == [Path(one), Path(bad), Path(other)]
    assert files_of([other, "[ab].*", other]) == [Path(other), Path(one), Path(bad)]
    with pytest.raises(errors.UsageError, match="no file matches this pattern"):
        files_of(["x*"])


def test_a_file_may_be_called_like_a_pattern(folder: Path) -> None:
    (folder / "[a]*.fatbin").touch()
    assert files_of(["[a]*.fatbin"]) == [Path("[a]*.fatbin")]
