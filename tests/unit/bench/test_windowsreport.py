"""What the workflows for Windows upload, as rows of a table."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from bench.windowsreport import about, main, rows
from fatwheel.errors import FormatError, UsageError

ABOUT = {
    "workflow": "Windows",
    "windows": "10.0.20348.2966",
    "commit": "a" * 40,
    "run": "https://git.example/fatwheel/fatwheel/actions/runs/17",
    "when": "2026-11-29",
}
# GitHub's `steps` context, as its documentation has it.
STEPS = {
    "payloads": {"outputs": {}, "outcome": "success", "conclusion": "success"},
    "lock": {"outputs": {}, "outcome": "failure", "conclusion": "success"},
    "again": {"outputs": {}, "outcome": "cancelled", "conclusion": "cancelled"},
    "import": {"outputs": {}, "outcome": "skipped", "conclusion": "skipped"},
    "another": {"outputs": {}, "outcome": "success", "conclusion": "success"},
}


def artefact(folder: Path, told: object = ABOUT, steps: object = STEPS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "about.json").write_text(json.dumps(told))
    (folder / "steps.json").write_text(json.dumps(steps))
    return folder


def test_a_row_for_each_part_that_was_tried(tmp_path: Path) -> None:
    day = "[2026-11-29](https://git.example/fatwheel/fatwheel/actions/runs/17)"
    windows = ABOUT["windows"]
    assert list(rows([artefact(tmp_path)]))[2:] == [
        f"| `invoke lock`, against the real servers of the publishers | {windows} | **failed** "
        f"| {day} |",
        f"| CUDA, Python, MSVC and the Windows SDK fetched, checked and unpacked | {windows} "
        f"| passed | {day} |",
        "| both built again from nothing: the same sha256 | 10.0.20348.2966 | did not end in time "
        f"| {day} |",
    ]


def test_several_runs_make_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = artefact(tmp_path / "first")
    second = artefact(tmp_path / "second", {**ABOUT, "run": "", "windows": "10.0.26100.1"})
    assert main(["rows", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["| part | Windows | result | when |", "|---|---|---|---|"]
    assert len(lines) == 2 + 2 * 3
    assert lines[-1].endswith("| 10.0.26100.1 | did not end in time | 2026-11-29 |")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("windows", None), ("windows", 10), ("windows", "10.0 | passed"), ("windows", "x" * 201),
        ("when", "today](https://elsewhere.example)"), ("when", "1\n| a | b |"),
        ("run", "javascript:alert"), ("run", "https://x.example/?a=1"), ("commit", "<script>"),
        ("run", "https://x.example/page"), ("run", f"{ABOUT['run']}\n"), ("when", "today"),
        ("windows", "https://x.example"), ("windows", "Www.x.example"), ("windows", "me@x.example"),
        ("windows", "\x1b[31m"), ("windows", "a\u2028b"), ("windows", "`"), ("windows", "a\\"),
        ("windows", ""), ("workflow", "a\rb"),
    ],
)  # fmt: skip
def test_what_would_be_more_than_a_cell_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(FormatError):
        list(rows([artefact(tmp_path, {**ABOUT, name: value})]))


def test_what_wine_says_of_itself_is_words(tmp_path: Path) -> None:
    words = "wine-9.0 (Ubuntu 9.0~repack-4build3+a) on Linux"
    assert words in list(rows([artefact(tmp_path, {**ABOUT, "windows": words})]))[2]


@pytest.mark.parametrize(
    "steps",
    [{}, {"lock": None}, {"lock": {"outcome": 1}}, {"lock": {}}, {"lock": {"outcome": []}}],
)
def test_steps_that_say_nothing(tmp_path: Path, steps: object) -> None:
    assert len(list(rows([artefact(tmp_path, steps=steps)]))) == 2


@pytest.mark.parametrize("content", ["[]", "no JSON", '{"a": 1, "a": 2}', "[" * 1000])
def test_a_document_that_is_none(tmp_path: Path, content: str) -> None:
    (artefact(tmp_path) / "steps.json").write_text(content)
    with pytest.raises(FormatError):
        list(rows([tmp_path]))


def test_no_artefact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        list(rows([tmp_path]))
    assert main(["rows", str(tmp_path)]) == UsageError.exit_code
    assert "about.json" in capsys.readouterr().err
    assert main(["row"]) == 2
    assert "rows FOLDER" in capsys.readouterr().err


def test_where_and_when_this_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    assert about()["run"] == ""
    for name, value in (("SERVER_URL", "https://git.example"), ("REPOSITORY", "a/b"),
                        ("RUN_ID", "17"), ("WORKFLOW", "Wine"), ("SHA", "b" * 40)):  # fmt: skip
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert main(["about"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == "https://git.example/a/b/actions/runs/17"
    assert (found["workflow"], found["commit"]) == ("Wine", "b" * 40)
    assert found["when"] == datetime.now(timezone.utc).date().isoformat()


def test_what_is_said_of_this_machine_becomes_a_row(tmp_path: Path) -> None:
    assert len(list(rows([artefact(tmp_path, about())]))) == 5
