"""All checks of a wheel: only those that were asked for, and nothing is run that is in doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.errors import FormatError, UsageError, VerifyError
from fatwheel.events import silent
from fatwheel.trial import verify as verify_module
from fatwheel.trial.verify import Trials, Tried, verify
from fatwheel.verify.evidence import Check, Finding, note, wrong
from fatwheel.verify.report import Report

from ...helpers.tinywheels import Draft

IMPORT = Tried((Check("import", (note("imported"),)),), {"gpu": None})
GPU = Tried((Check("import", ()), Check("gpu", (wrong("no"),))), {"gpu": {}})


@pytest.fixture(autouse=True)
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was tried; nothing is."""
    made: list[str] = []

    def attempt(name: str, result: Tried) -> None:
        def run(*arguments: object) -> Tried:
            made.append(name)
            return result

        monkeypatch.setattr(verify_module, name, run)

    attempt("_by_import", IMPORT)
    attempt("_on_gpu", GPU)
    return made


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return Draft(files={"demo.py": b""}).write(tmp_path)


def names(report: Report) -> list[str]:
    return [check.name for check in report.checks]


def test_nothing_more_is_asked(wheel: Path, attempts: list[str]) -> None:
    report = verify(wheel, Trials(), silent)
    assert attempts == []
    assert not {"signature", "import", "gpu"} & set(names(report))
    assert "runtime" not in report.to_json()


def test_import(wheel: Path, attempts: list[str]) -> None:
    report = verify(wheel, Trials(importing=True), silent)
    assert attempts == ["_by_import"]
    assert names(report)[-1] == "import"
    assert report.to_json()["runtime"] == {"gpu": None}
    assert report.ok


def test_gpu_means_import_too(wheel: Path, attempts: list[str]) -> None:
    report = verify(wheel, Trials(importing=True, gpu=True), silent)
    assert attempts == ["_on_gpu"]
    assert names(report)[-2:] == ["import", "gpu"]
    assert not report.ok


def test_other_wheels_must_be_vouched_for_too(
    wheel: Path, tmp_path: Path, attempts: list[str]
) -> None:
    files, rows = {"other.py": b""}, {"other.py": None}
    other = Draft(project="other", files=files).write(tmp_path)
    assert verify(wheel, Trials(importing=True, beside=(other,)), silent).ok
    assert attempts == ["_by_import"]
    Draft(project="other", files=files, rows=rows).write(tmp_path)
    with pytest.raises(VerifyError, match="cannot be trusted: these checks failed: record"):
        verify(wheel, Trials(gpu=True, beside=(other,)), silent)
    with pytest.raises(FormatError, match="not the name of a wheel"):
        verify(wheel, Trials(gpu=True, beside=(other.rename(tmp_path / "other.whl"),)), silent)
    assert attempts == ["_by_import"]


def test_a_signature(wheel: Path, attempts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def sound(path: Path, key: Path) -> tuple[Finding, ...]:
        return (note(f"{path.name} {key.name}"),)

    monkeypatch.setattr("fatwheel.provenance.signing.load_key", lambda path: None)
    monkeypatch.setattr("fatwheel.verify.provenance.signature_findings", sound)
    report = verify(wheel, Trials(key=Path("a.pub"), importing=True), silent)
    assert names(report)[-2:] == ["signature", "import"]
    assert attempts == ["_by_import"]


def test_code_that_nobody_signed_is_not_run(
    wheel: Path, attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.provenance.signing.load_key", lambda path: None)
    monkeypatch.setattr(
        "fatwheel.verify.provenance.signature_findings", lambda *_: (wrong("by another key"),)
    )
    report = verify(wheel, Trials(key=Path("a.pub"), gpu=True), silent)
    assert attempts == []
    assert report.result_of("gpu") == "warning"
    assert "these checks failed: signature" in report.checks[-1].findings[0].what


def test_code_that_record_does_not_vouch_for_is_not_run(
    tmp_path: Path, attempts: list[str]
) -> None:
    rows: dict[str, str | None] = {"demo.py": None}
    wheel = Draft(files={"demo.py": b""}, rows=rows).write(tmp_path)
    report = verify(wheel, Trials(importing=True), silent)
    assert attempts == []
    assert "these checks failed: record" in report.checks[-1].findings[0].what
    assert report.runtime is None


def test_a_key_that_is_none_is_told_before_the_wheel_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--key"):
        verify(tmp_path / "not there.whl", Trials(key=tmp_path / "not there.pub"), silent)
