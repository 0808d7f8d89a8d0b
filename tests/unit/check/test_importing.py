"""The real import in a process of its own, and what it says of findings."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.check.causes import CAUSES, Finding, decisive, in_order
from fatwheel.check.importing import explained, import_all, import_findings
from fatwheel.check.installed import Packages
from fatwheel.check.subject import Subject, read_installed

from ...helpers.environments import install, target

HERE = replace(target(), executable=Path(sys.executable))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import finds what lies in this folder, as that of `python -c` does."""
    monkeypatch.chdir(tmp_path)


def subject(site: Path, source: str, **files: bytes) -> Subject:
    install(site, "demo", "1.0", {"demo/__init__.py": source.encode(), **files})
    found = Packages((site,)).find("demo")
    assert found
    return read_installed(found)


def outcome(site: Path, source: str, *before: Finding, limit: float = 60) -> list[Finding]:
    one = subject(site, source)
    imported = import_all(HERE, one, torch=False, limit=limit)
    assert imported.succeeded == ("demo" in imported.trial.seconds)
    return [*explained(before, imported), *import_findings(HERE, one, imported)]


def test_an_import_that_works(tmp_path: Path) -> None:
    [finding] = outcome(tmp_path, "import sys\nassert '' in sys.path or sys.path\n")
    assert (finding.severity, finding.what[:13]) == ("note", "`import demo`")
    assert not list(tmp_path.rglob("__pycache__")), "it left something behind"


def test_the_words_of_an_error(tmp_path: Path) -> None:
    source = "try:\n    raise OSError('root\\x1b[31m')\nexcept OSError as e:\n"
    source += "    raise ImportError('x' * 2000) from e\n"
    [finding] = outcome(tmp_path, source)
    assert finding.severity == "wrong"
    assert finding.what.startswith("`import demo` fails: ImportError: xxx")
    assert len(finding.what) < 700
    assert finding.details == ("OSError: root\\x1b[31m",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash: ended by SIGSEGV"),
        ("import os; os._exit(3)", "crash: exit code 3"),
        ("raise SystemExit(7)", "fails: SystemExit: 7"),
        ("import ctypes; ctypes.string_at(0)", "crash: ended by SIGSEGV"),
    ],
)
def test_an_import_that_ends_the_process(source: str, said: str, tmp_path: Path) -> None:
    [finding] = outcome(tmp_path, source)
    assert finding.severity == "wrong"
    assert finding.what.endswith(said)


def test_an_import_that_does_not_end(tmp_path: Path) -> None:
    [finding] = outcome(tmp_path, "import time; time.sleep(60)", limit=1)
    assert "does not end" in finding.what
    assert finding.cure
    assert "--seconds" in finding.cure.say


def test_a_module_of_another_package_that_is_missing(tmp_path: Path) -> None:
    [finding] = outcome(tmp_path, "import nothing_of_this_name.at_all")
    assert finding.cure
    assert finding.cure.command.endswith("demo==1.0")
    [finding] = outcome(tmp_path, "import demo.gone")
    assert finding.cure is None


LIBRARY = Finding("libraries", "wrong", "libone.so is missing", names=("libone.so: cannot open",))
SYMBOL = Finding("torch", "wrong", "it was built for another torch", names=("_ZN3c10",))
OTHER = Finding("installed", "warning", "it requires einops", names=("einops",))


def test_what_an_error_names_is_wrong_and_the_first_cause_decides(tmp_path: Path) -> None:
    source = "raise ImportError('libone.so: cannot open shared object file')"
    found = outcome(tmp_path, source, LIBRARY.as_severe_as("warning"), OTHER)
    assert [one.severity for one in found] == ["wrong", "warning", "wrong"]
    first = decisive(found)
    assert first
    assert first.cause == "libraries"


def test_a_name_within_another_is_not_named(tmp_path: Path) -> None:
    source = "raise ImportError('libone.so: cannot opener; einops_other')"
    found = outcome(tmp_path, source, LIBRARY.as_severe_as("warning"), OTHER)
    assert [one.severity for one in found] == ["warning", "warning", "wrong"]


def test_where_everything_loads_what_seemed_missing_is_not_missed(tmp_path: Path) -> None:
    """But what torch lacks is: packages may catch that a library of operators does not load."""
    found = outcome(tmp_path, "", LIBRARY, SYMBOL, OTHER)
    assert [one.severity for one in found] == ["note", "wrong", "warning", "note"]


def test_smart_app_control_is_known_by_its_error(tmp_path: Path) -> None:
    policy = Finding("policy", "warning", "Smart App Control is on")
    source = "raise ImportError('DLL load failed while importing _C: An Application Control policy "
    source += "has blocked this file.')"
    found = outcome(tmp_path, source, policy)
    assert found[0].severity == "wrong"


def test_causes_are_in_the_order_in_which_one_brings_about_the_next() -> None:
    found = [Finding(cause, "wrong", cause) for cause in reversed(CAUSES)]
    assert [one.cause for one in in_order(found)] == list(CAUSES)
    first = decisive(found)
    assert first
    assert first.cause == "python"
    assert decisive([one.as_severe_as("warning") for one in found]) is None
