"""fatwheel's own Wine: made once, used by one build at a time, and what can be wrong with it. Wine
is a script here."""

from __future__ import annotations

import threading
from pathlib import Path, PureWindowsPath

import pytest

from fatwheel.engines import wine
from fatwheel.errors import EngineError, StoreError
from fatwheel.events import Event, Note, silent
from fatwheel.worker.processes import KILLS_VARIABLE

SCRIPT = """#!/bin/sh
[ "$1" = --version ] && echo "{version}" && exit 0
echo "${{0##*/}} $* $WINEPREFIX ${{CL-none}}" >>"{calls}"
{then}
"""


class Wines:
    """Makes a `wine` and a `wineserver`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"

    def install(self, version: str = "wine-8.0 (Debian 8.0)", then: str = "true") -> None:
        for name in ("wine", "wineserver"):
            path = self.folder / name
            path.write_text(SCRIPT.format(version=version, calls=self.calls, then=then))
            path.chmod(0o755)

    def called(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def wines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wines:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setenv("CL", "/nonsense")
    monkeypatch.setenv("WINEPREFIX", "/users/own")
    return Wines(folder)


def refusal(cache: Path) -> EngineError:
    with pytest.raises(EngineError) as caught, wine.held("demo-1.0", cache, silent):
        pass
    return caught.value


def test_its_windows_is_made_once_and_ends_with_each_build(wines: Wines, tmp_path: Path) -> None:
    wines.install()
    for _ in range(2):
        with wine.held("demo-1.0", tmp_path / "cache", silent) as system:
            assert system.place == PureWindowsPath(r"C:\b\demo-1.0")
    assert wines.called() == [
        "wineserver --kill", "wineserver --wait", "wineserver --persistent", "wine wineboot",
        "wine reg", "wineserver --kill", "wineserver --wait",
        "wineserver --persistent", "wine wineboot", "wineserver --kill", "wineserver --wait",
        "wineserver --kill", "wineserver --wait", "wineserver --persistent", "wine wineboot",
        "wineserver --kill", "wineserver --wait",
    ]  # fmt: skip
    said = wines.calls.read_text()
    prefix = tmp_path / "cache" / "wine" / "8.0" / "windows"
    assert said.count(f"{prefix} none") == len(said.splitlines()), "it saw the user's variables"


def test_paths_on_both_sides(wines: Wines, tmp_path: Path) -> None:
    wines.install()
    (tmp_path / "tools").mkdir()
    with wine.held("demo-1.0", tmp_path / "cache", silent) as system:
        assert system.path(Path("/a folder/b.c")) == "Z:\\a folder\\b.c"
        for _ in range(2):
            assert system.show(tmp_path / "tools", "env") == r"C:\b\demo-1.0\env"
        assert system.real(system.place / "env").resolve() == tmp_path / "tools"


def test_files_are_found_however_a_compiler_spells_them(wines: Wines, tmp_path: Path) -> None:
    wines.install()
    with wine.held("demo-1.0", tmp_path / "cache", silent) as system:
        header = system.real(system.place / "src") / "Include" / "A.h"
        header.parent.mkdir(parents=True)
        header.touch()
        other = header.with_name("a.H")
        for spelled in (r"c:\B\demo-1.0\SRC\include\a.h", str(system.place / "src/Include/A.h")):
            assert system.real(PureWindowsPath(spelled)) == header
        other.touch()
        assert system.real(system.place / "src" / "Include" / "a.H") == other
        assert system.real(PureWindowsPath("z:" + str(header))) == header
        absent = system.real(system.place / "src" / "include" / "none.h")
        assert absent == header.with_name("none.h")


def test_a_worker_of_a_cluster_tells_what_it_kills_and_its_windows_ends_with_it(
    wines: Wines, tmp_path: Path
) -> None:
    wines.install()
    with wine.held("demo-1.0", tmp_path / "build", silent, tmp_path / "killed") as system:
        seen = system.installed.variables[KILLS_VARIABLE].split(";")
        assert seen[1:] == [f"Z:{tmp_path / 'killed'}"]
    assert "wineserver --persistent=600" in wines.called()


def test_its_programs_see_what_linux_kills(
    wines: Wines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control group's name may have backslashes, and each build may be in another group."""
    wines.install()
    for name in (r"app\x2d1.scope", r"app\x2d2.scope"):
        counter = tmp_path / name
        counter.write_text(name)
        monkeypatch.setattr(wine, "counter_of_kills", lambda counter=counter: counter)
        with wine.held("demo-1.0", tmp_path / "cache", silent) as system:
            seen = system.installed.variables[KILLS_VARIABLE]
            assert "\\" not in seen
            assert Path(seen.removeprefix("Z:")).read_text() == name


def test_a_build_finds_nothing_of_the_one_before(wines: Wines, tmp_path: Path) -> None:
    wines.install(
        then="[ -f $WINEPREFIX/user.reg ] || echo fresh >$WINEPREFIX/user.reg\n"
        "mkdir -p $WINEPREFIX/drive_c/windows/temp $WINEPREFIX/drive_c/windows/system32"
    )
    prefix = tmp_path / "cache" / "wine" / "8.0" / "windows"
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "letter").write_text("dear")
    with wine.held("demo-1.0", tmp_path / "cache", silent) as system:
        place = system.real(system.place)
        place.mkdir(parents=True)
        (place / "link").symlink_to(tmp_path / "users")
        # In the place of a folder, too, and in one that was there.
        temp = prefix / "drive_c" / "windows" / "temp"
        (temp / "left").mkdir()
        (temp / "left" / "file").write_text("left")
        (temp.parent / "system32").rmdir()
        (temp.parent / "system32").symlink_to(tmp_path / "users")
        (prefix / "user.reg").unlink()
        (prefix / "user.reg").symlink_to(tmp_path / "users" / "letter")
    with wine.held("other-1.0", tmp_path / "cache", silent) as system:
        assert not system.real(system.place).parent.exists()
        assert list(temp.iterdir()) == []
        assert not (temp.parent / "system32").is_symlink()
        assert (prefix / "user.reg").read_text() == "fresh\n"
    assert (tmp_path / "users" / "letter").read_text() == "dear"


def test_a_windows_that_cannot_be_made(wines: Wines, tmp_path: Path) -> None:
    wines.install()
    (tmp_path / "cache" / "wine").mkdir(parents=True)
    (tmp_path / "cache" / "wine" / "8.0").write_text("")
    with pytest.raises(StoreError), wine.held("demo-1.0", tmp_path / "cache", silent):
        pass


def test_a_second_build_waits(wines: Wines, tmp_path: Path) -> None:
    wines.install()
    events: list[Event] = []
    waits, done = threading.Event(), threading.Event()

    def emit(event: Event) -> None:
        events.append(event)
        waits.set()

    def second() -> None:
        with wine.held("demo-1.0", tmp_path / "cache", emit):
            done.set()

    thread = threading.Thread(target=second)
    with wine.held("other-1.0", tmp_path / "cache", silent):
        thread.start()
        assert waits.wait(60)
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()
    assert events == [Note("another build uses Wine: waiting for it")]


@pytest.mark.parametrize("version", ["wine-7.22 (Staging)", "wine-3.0", "", "something else"])
def test_a_wine_that_is_too_old(wines: Wines, tmp_path: Path, version: str) -> None:
    wines.install(version)
    error = refusal(tmp_path / "cache")
    assert error.what.startswith("this Wine is too old: ")
    assert error.hint is not None
    assert "apt install wine" in error.hint


def test_no_wine(wines: Wines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(wines.folder))
    assert "no Wine here" in wine.obstacle()
    assert refusal(tmp_path / "cache").what == "there is no Wine on this machine"


def test_a_wine_that_does_not_work(wines: Wines, tmp_path: Path) -> None:
    wines.install(then="exit 3")
    assert wine.obstacle() == "", "nothing is started to find out"
    error = refusal(tmp_path / "cache")
    assert error.what == "Wine does not work here"
    assert "exit status 3" in error.details[0]
