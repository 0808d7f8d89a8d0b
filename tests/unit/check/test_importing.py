"""Whether an environment can import a package, by its files and for real."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.check import importing
from fatwheel.check.cures import CAUSES, Symptom, decisive, in_order
from fatwheel.check.environment import CheckedPython, Packages
from fatwheel.check.importing import explained, import_all, import_findings
from fatwheel.check.subject import CheckedPackage, read_installed

from ...helpers import peimages
from ...helpers.environments import WINDOWS, install, target


def found_in(of: CheckedPython, name: str) -> list[Symptom]:
    packages = Packages(of.path)
    found = packages.find(name)
    assert found
    subject = read_installed(found)
    return [
        *importing.installed_findings(of, packages, found, subject),
        *importing.shadow_findings(of, subject),
        *importing.python_findings(of, subject),
        *importing.requirement_findings(of, packages, subject),
        *importing.windows_findings(of, subject),
    ]


def test_a_sound_package_has_no_finding(tmp_path: Path) -> None:
    install(tmp_path, "other", "2.0")
    requires = "Requires-Dist: other>=1\nRequires-Python: >=3.9\n"
    install(tmp_path, "demo", "1.0", {"demo/__init__.py": b""}, metadata=requires)
    assert found_in(target(tmp_path), "demo") == []


def test_a_wheel_for_another_python(tmp_path: Path) -> None:
    install(tmp_path, "demo", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    [finding] = found_in(target(tmp_path), "demo")
    assert (finding.cause, finding.severity) == ("python", "wrong")
    assert "cp312" in finding.what
    assert "cp311" in finding.what
    assert finding.cure
    assert finding.cure.command.endswith("--force-reinstall --no-deps demo==1.0")


@pytest.mark.parametrize("said", [">=3.12", "<3.11.7", "==3.10.*"])
def test_a_package_that_requires_another_python(said: str, tmp_path: Path) -> None:
    install(tmp_path, "demo", "1.0", metadata=f"Requires-Python: {said}\n")
    [finding] = found_in(target(tmp_path), "demo")
    assert finding.cause == "python"


@pytest.mark.parametrize("said", ["nonsense", ">=3.9,", "", "~=" + "3." * 5000])
def test_nonsense_is_no_requirement_of_python(said: str, tmp_path: Path) -> None:
    install(tmp_path, "demo", "1.0", metadata=f"Requires-Python: {said}\n")
    assert found_in(target(tmp_path), "demo") == []


def test_files_that_are_missing(tmp_path: Path) -> None:
    install(tmp_path, "demo", "1.0", listed=("demo/_C.so", "demo/__pycache__/a.pyc"))
    [finding] = found_in(target(tmp_path), "demo")
    assert (finding.severity, finding.details) == ("wrong", ("demo/_C.so",))
    assert finding.cure
    assert "demo==1.0" in finding.cure.command


def test_a_damaged_dist_info(tmp_path: Path) -> None:
    info = install(tmp_path, "demo", "1.0")
    for name in ("METADATA", "RECORD", "WHEEL"):
        (info / name).unlink()
    said = {finding.what for finding in found_in(target(tmp_path), "demo")}
    assert said == {
        "its METADATA is missing or cannot be read",
        "it has no RECORD: which files belong to it is not known",
    }


def test_two_copies_and_another_package_s_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    install(one, "demo", "1.0", {"demo/__init__.py": b""})
    install(one, "demo-gpu", "3.0", {"demo/__init__.py": b""})
    install(two, "demo", "2.0", {"demo/__init__.py": b""})
    said = {finding.what: finding for finding in found_in(target(one, two), "demo")}
    assert set(said) == {
        "it is installed 2 times; Python takes the first",
        "demo-gpu 3.0 has installed the same files",
    }


@pytest.mark.parametrize(
    ("left", "hides"),
    [("demo/__init__.py", True), ("demo.py", True), ("demo/other.py", False), ("demo.txt", False)],
)
def test_what_lies_in_front_of_it(left: str, hides: bool, tmp_path: Path) -> None:
    """A folder without __init__.py hides no package, wherever it lies (PEP 420)."""
    here, site = tmp_path / "here", tmp_path / "site"
    install(site, "demo", "1.0", {"demo/__init__.py": b""})
    (here / left).parent.mkdir(parents=True)
    (here / left).write_text("")
    found = found_in(target(here, site), "demo")
    assert [finding.cause for finding in found] == (["installed"] if hides else [])
    if hides:
        assert found[0].severity == "wrong"
        assert str(here) in found[0].what


def test_requirements_that_are_not_there(tmp_path: Path) -> None:
    install(tmp_path, "other", "0.5")
    requires = (
        "Requires-Dist: einops\nRequires-Dist: other>=1\nRequires-Dist: torch\n"
        'Requires-Dist: nothing; python_version < "3"\nRequires-Dist: extra; extra == "x"\n'
    )
    install(tmp_path, "demo", "1.0", metadata=requires)
    lacking, other = found_in(target(tmp_path), "demo")
    assert lacking.what == "it requires einops, not installed here"
    assert lacking.names == ("einops",)
    assert other.details == ("other>=1: installed is 0.5",)


def test_hostile_requirements_are_one_finding(tmp_path: Path) -> None:
    install(tmp_path, "demo", "1.0", metadata="Requires-Dist: $(rm -rf /)\n")
    [finding] = found_in(target(tmp_path), "demo")
    assert finding.what.startswith("its requirements cannot be read")
    assert finding.cure is None


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    install(tmp_path, "flash-attn", "1.0")
    packages = Packages((tmp_path,))
    near = importing.absent(target(tmp_path), packages, "flash-atn")
    assert near.details == ("installed is flash-attn",)
    assert near.cure
    assert not near.cure.command
    other = importing.absent(target(tmp_path), packages, "xformers")
    assert other.cure
    assert other.cure.command == "/nowhere/venv/bin/python -m pip install xformers"
    for odd in ("$(rm -rf /)", "asyncio"):  # an index's asyncio is not Python's
        cure = importing.absent(target(tmp_path), packages, odd).cure
        assert cure
        assert not cure.command


# -- Windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "severity"), [(0, None), (1, "warning"), (2, "note"), (None, None)]
)
def test_smart_app_control(state: int | None, severity: str | None, tmp_path: Path) -> None:
    """The states are as Microsoft's tools show them: 1 is on, 2 evaluates."""
    assert WINDOWS.windows
    windows = replace(WINDOWS.windows, app_control=state)
    of = replace(WINDOWS, path=(tmp_path,), windows=windows)
    install(tmp_path, "demo", "1.0", {"demo/_C.pyd": peimages.importing([])})
    found = [finding for finding in found_in(of, "demo") if finding.cause == "policy"]
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_signed_libraries_are_no_matter_of_smart_app_control(tmp_path: Path) -> None:
    assert WINDOWS.windows
    of = replace(WINDOWS, path=(tmp_path,), windows=replace(WINDOWS.windows, app_control=1))
    signed = peimages.Image([peimages.Part(".text", 0x1000, b"x")], signature=bytes(8)).write()
    install(tmp_path, "demo", "1.0", {"demo/_C.pyd": signed})
    assert found_in(of, "demo") == []


def test_long_paths(tmp_path: Path) -> None:
    assert WINDOWS.windows
    name = "demo/" + "/".join(["x" * 50] * 5) + ".py"
    install(tmp_path, "demo", "1.0", {name: b"", "demo/__init__.py": b""})
    for enabled, count in ((False, 1), (True, 0), (None, 0)):
        windows = replace(WINDOWS.windows, long_paths=enabled)
        found = found_in(replace(WINDOWS, path=(tmp_path,), windows=windows), "demo")
        assert len(found) == count


HERE = replace(target(), executable=Path(sys.executable))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import finds what lies in this folder, as that of `python -c` does."""
    monkeypatch.chdir(tmp_path)


def subject(site: Path, source: str, **files: bytes) -> CheckedPackage:
    install(site, "demo", "1.0", {"demo/__init__.py": source.encode(), **files})
    found = Packages((site,)).find("demo")
    assert found
    return read_installed(found)


def outcome(site: Path, source: str, *before: Symptom, limit: float = 60) -> list[Symptom]:
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


LIBRARY = Symptom("libraries", "wrong", "libone.so is missing", names=("libone.so: cannot open",))
SYMBOL = Symptom("torch", "wrong", "it was built for another torch", names=("_ZN3c10",))
OTHER = Symptom("installed", "warning", "it requires einops", names=("einops",))


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
    policy = Symptom("policy", "warning", "Smart App Control is on")
    source = "raise ImportError('DLL load failed while importing _C: An Application Control policy "
    source += "has blocked this file.')"
    found = outcome(tmp_path, source, policy)
    assert found[0].severity == "wrong"


def test_causes_are_in_the_order_in_which_one_brings_about_the_next() -> None:
    found = [Symptom(cause, "wrong", cause) for cause in reversed(CAUSES)]
    assert [one.cause for one in in_order(found)] == list(CAUSES)
    first = decisive(found)
    assert first
    assert first.cause == "python"
    assert decisive([one.as_severe_as("warning") for one in found]) is None
