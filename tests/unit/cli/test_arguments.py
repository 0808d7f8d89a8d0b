"""Reading what follows a task's name: several files in a row, and what `stitch` and `thin` make of
their arguments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke.collection import Collection

from fatwheel import errors
from fatwheel.cli.arguments import (
    count_of,
    file_of,
    folder_of,
    seconds_of,
    size_of,
    words_of,
)
from fatwheel.edit.survey import Edited
from fatwheel.errors import UsageError

from ...helpers.commandline import ROOT, exit_code_of, load_tasks
from ...helpers.deviceimages import compute, entries

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process; its exit code."""
    collection = Collection.from_module(load_tasks())

    def run(*arguments: str) -> int:
        return exit_code_of(collection, arguments, monkeypatch)

    return run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stitch a b", "a b"),
        ("-r folder stitch a b", "a b"),
        ("stitch a --out o b -- c", "a b"),
        ("stitch --out=o a --flag b", "a b"),
        ("build a b", ""),
        ("", ""),
    ],
)
def test_the_words_of_a_task(line: str, words: str) -> None:
    assert list(words_of(line.split(), {"stitch"}, {"--out"})) == words.split()


# -- single values -------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("999999", 999_999)])
def test_counts_are_whole_numbers_from_1_on(text: str, number: int) -> None:
    assert count_of("--jobs", text) == number


@pytest.mark.parametrize("text", ["000", "+1", " 1", "1\n", "1e3", "1000000"])
def test_other_counts_are_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        count_of("--jobs", text)
    assert caught.value.where == "--jobs"
    assert repr(text) in caught.value.what


def test_what_is_not_given_is_none() -> None:
    assert (count_of("--jobs", None), size_of("--memory", None)) == (None, None)


def test_sizes_are_bytes_or_refused_with_the_option() -> None:
    assert size_of("--memory", "1.5GiB") == 1_610_612_736
    with pytest.raises(errors.UsageError, match="48") as caught:
        size_of("--memory", "48")
    assert caught.value.where == "--memory"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5h30m", 19_800), ("90m", 5400), ("45s", 45), ("1h1s", 3601), ("0h1m", 60)],
)
def test_times_are_seconds(text: str, seconds: float) -> None:
    assert seconds_of("--stop-after", text) == seconds
    assert seconds_of("--stop-after", None) is None


@pytest.mark.parametrize("text", ["", "5", "h", "0m", "5h 30m", "30m5h", "-1h", "1.5h", "9" * 50])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time") as caught:
        seconds_of("--stop-after", text)
    assert caught.value.where == "--stop-after"


def test_a_folder_need_not_exist_but_must_not_be_or_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for good in (tmp_path, tmp_path / "link", tmp_path / "link" / "new" / "dist", Path("dist")):
        assert folder_of("--out", str(good)) == good
    for bad in ("", f"{tmp_path}/file", f"{tmp_path}/file/dist", f"{tmp_path}/link/file/a/b"):
        with pytest.raises(errors.UsageError, match="is not a folder") as caught:
            folder_of("--out", bad)
        assert caught.value.where == "--out"


# -- several files -------------------------------------------------------------------------------


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What stitch_wheels and thin were called with; nothing is edited."""
    asked: list[Any] = []

    def edit(*arguments: Any, keep: Any = (), dry_run: bool = False) -> Edited:
        asked.append(arguments)
        return Edited(Path("dist/a.whl"), 2048, "ab" * 32, ("sm80", "sm90"), ("a note",))

    monkeypatch.setattr("fatwheel.edit.stitch.stitch_wheels", edit)
    monkeypatch.setattr("fatwheel.edit.thin.thin", edit)
    return asked


@pytest.mark.parametrize(
    ("line", "wheels", "out"),
    [
        ("a.whl b.whl", ["a.whl", "b.whl"], "dist"),
        ("a.whl b.whl c.whl --out fat", ["a.whl", "b.whl", "c.whl"], "fat"),
        ("--out fat a.whl b.whl", ["a.whl", "b.whl"], "fat"),
        ("a.whl --out=fat b.whl", ["a.whl", "b.whl"], "fat"),
        ("build inspect", ["build", "inspect"], "dist"),  # files, though named like tasks
        ("a.whl", ["a.whl"], "dist"),
    ],
)
def test_stitch_takes_any_number_of_wheels(
    run: Run, edited: list[Any], line: str, wheels: list[str], out: str
) -> None:
    assert run("stitch", *line.split()) == 0
    assert edited == [([Path(wheel) for wheel in wheels], Path(out))]


def test_stitch_without_wheels_is_refused_by_invoke(
    run: Run, edited: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("stitch") == 1
    assert "'wheels'" in capfd.readouterr().err
    assert edited == []


def test_stitch_after_another_task(
    run: Run, edited: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = SimpleNamespace(identical=True, to_json=dict)
    monkeypatch.setattr("fatwheel.compare.report.compare_wheels", lambda one, other: same)
    assert run("compare", "x", "y", "--json", "stitch", "a.whl", "b.whl") == 0
    assert edited == [([Path("a.whl"), Path("b.whl")], Path("dist"))]


def test_a_real_command_line_takes_several_wheels(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "invoke", "-r", str(ROOT), "stitch", "a.whl", "b.whl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == errors.UsageError.exit_code
    assert "No such file or directory\n  where: a.whl" in done.stderr


def test_edited_files_are_listed_and_notes_go_to_stderr(
    run: Run, edited: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("stitch", "a.whl", "b.whl") == 0
    out, err = capfd.readouterr()
    assert out == (
        f"file    dist/a.whl\nsize    2.0 KiB\nsha256  {'ab' * 32}\narchs   sm80, sm90\n"
    )
    assert err == "a.whl: a note\n"


@pytest.mark.parametrize(
    ("line", "gpus", "ptx_kept"),
    [
        ("x.whl --arch 80", [80], []),
        ("x.whl --arch 90a,89 --out o", [89, 90], []),
        ("x.whl --arch 80,89+ptx", [80, 89], [89]),
        ("x.whl --arch 80 --keep-ptx", [80], [50, 80, 89]),
    ],
)
def test_thin_selects_what_is_asked_for(
    run: Run, edited: list[Any], line: str, gpus: list[int], ptx_kept: list[int]
) -> None:
    assert run("thin", *line.split()) == 0
    [(path, selection, out)] = edited
    assert (path, out) == (Path("x.whl"), Path("o" if "--out" in line else "dist"))
    assert [gpu.number for gpu in selection.gpus] == gpus
    held = entries(*(compute(number) for number in (50, 80, 89)))
    assert [entry.arch.number for entry in held if selection.also(entry)] == ptx_kept


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ([], "no architecture given"),
        (["--arch", "8"], "'8' is not an architecture (valid: 80, 90a, 120f, 80+ptx)"),
        (["--arch", "80,80"], "names 80 a second time"),
        (["--arch", "8.0"], "'8.0' is not an architecture"),
    ],
)
def test_thin_needs_gpus_that_there_are(
    run: Run, edited: list[Any], option: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("thin", "x.whl", *option) == errors.UsageError.exit_code
    assert message in capfd.readouterr().err
    assert edited == []


def test_an_option_is_no_file() -> None:
    """`invoke thin --help` gives the task a file of that name."""
    assert file_of("-odd/name.whl") == Path("-odd/name.whl")
    with pytest.raises(errors.UsageError, match="--help stands where a file should be") as caught:
        file_of("--help")
    assert "invoke --help thin" in (caught.value.hint or "")
