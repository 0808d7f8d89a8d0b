"""What is said of imports: how long each took, and the last words of those that failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fatwheel.errors import FormatError
from fatwheel.trial.children import Trial
from fatwheel.trial.environment import figures_of, import_findings, try_modules
from fatwheel.trial.subject import Neighbour, TriedWheel
from fatwheel.verify.evidence import Finding

from ...helpers.fakecuda import clean_with

SUBJECT = TriedWheel(Path("demo.whl"), "3.11", "2.11.0", (), (), "its own lock")


def findings(folder: Path, trial: Trial, subject: TriedWheel = SUBJECT) -> list[Finding]:
    return list(import_findings(subject, clean_with(folder), trial))


def texts(found: list[Finding], severity: str) -> list[str]:
    return [one.what for one in found if one.severity == severity]


def test_modules_that_import(tmp_path: Path) -> None:
    trial = try_modules(clean_with(tmp_path), ["json", "decimal"])
    found = findings(tmp_path, trial)
    assert texts(found, "wrong") == texts(found, "warning") == []
    assert found[0].what == "with Python 3.11.7: those of its own lock"
    assert [what.partition(":")[0] for what in texts(found, "note")[1:]] == [
        "import json", "import decimal",
    ]  # fmt: skip
    assert [one["module"] for one in figures_of(trial)] == ["json", "decimal"]
    assert all(one["seconds"] > 0 for one in figures_of(trial))


def test_a_module_that_does_not_import(tmp_path: Path) -> None:
    trial = try_modules(clean_with(tmp_path), ["json", "no_such_module"])
    [wrong] = [one for one in findings(tmp_path, trial) if one.severity == "wrong"]
    assert wrong.what == "import no_such_module fails"
    error, advice = wrong.details[-2:]
    assert error == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "--beside FILE.whl" in advice
    assert figures_of(trial)[1] == {"module": "no_such_module", "seconds": None}


def test_libraries_of_this_machine_are_a_warning(tmp_path: Path) -> None:
    """Where others have none of them, the import fails."""
    trial = replace(
        try_modules(clean_with(tmp_path), ["json"]), outside=("/usr/local/cuda/libcudart.so.13",)
    )
    [found] = [one for one in findings(tmp_path, trial) if one.severity == "warning"]
    assert found.details[0] == "/usr/local/cuda/libcudart.so.13"


def test_an_import_that_ends_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another script in the place of the real one, which begins in the same way.
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        'open(sys.argv[1], "w").write(\'{"start": "demo"}\\n\')\n'
        "print('last words', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setattr("fatwheel.trial.environment.SCRIPT", script)
    trial = try_modules(clean_with(tmp_path), ["demo"])
    [wrong] = [one for one in findings(tmp_path, trial) if one.severity == "wrong"]
    assert wrong.what == "import demo: Python crashed: ended by SIGSEGV"
    assert wrong.details == ("last words",)


def test_an_end_that_is_no_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    said = '{"start": "demo"}\n{"module": "demo", "seconds": 1}\n'
    script.write_text(f"import os, sys\nopen(sys.argv[1], 'w').write({said!r})\nos.abort()\n")
    monkeypatch.setattr("fatwheel.trial.environment.SCRIPT", script)
    trial = try_modules(clean_with(tmp_path), ["demo"])
    [what] = texts(findings(tmp_path, trial), "wrong")
    assert what == "Python did not exit cleanly after the import: ended by SIGABRT"


def test_what_nothing_pins_is_told(tmp_path: Path) -> None:
    wanting = TriedWheel(
        Path("demo.whl"), "3.11", "2.11.0", (), (Requirement("transformers>=4"),), "a test"
    )
    found = findings(tmp_path, try_modules(clean_with(tmp_path), ["json"]), wanting)
    [warning] = [one for one in found if one.severity == "warning"]
    assert warning.details == ("transformers>=4",)


def test_what_a_neighbour_brings_is_not_lacking(tmp_path: Path) -> None:
    wanting = replace(
        SUBJECT, requirements=(Requirement("torch_scatter>=2"),),
        neighbours=(Neighbour(Path("a.whl"), "torch-scatter", "2.1.2"),),
    )  # fmt: skip
    found = findings(tmp_path, try_modules(clean_with(tmp_path), ["json"]), wanting)
    assert texts(found, "warning") == []
    assert texts(found, "note")[1] == "beside torch-scatter 2.1.2"


def test_nothing_to_import(tmp_path: Path) -> None:
    trial = try_modules(clean_with(tmp_path), [])
    assert texts(findings(tmp_path, trial), "warning") == ["there is no module in it to import"]


@pytest.mark.parametrize(
    "line",
    [
        {"outside": 5},
        {"failed": "demo"},
        {"failed": "demo", "lines": None},
        {"module": "demo", "seconds": "long"},
        {"module": "demo", "seconds": 10**400},
        {"module": "demo"},
        {"first_use": []},
    ],
)
def test_a_report_that_the_code_of_a_wheel_wrote_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: dict[str, object]
) -> None:
    """It runs in the same process, and finds the file among the arguments."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nopen(sys.argv[1], 'w').write({json.dumps(line)!r})\n")
    monkeypatch.setattr("fatwheel.trial.environment.SCRIPT", script)
    with pytest.raises(FormatError, match="the code of the wheel wrote to it"):
        try_modules(clean_with(tmp_path), ["demo"])
