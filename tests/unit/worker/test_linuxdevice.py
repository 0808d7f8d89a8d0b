"""The stand-ins for cicc and ptxas, with shell scripts for the compilers of both systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.worker.linuxdevice import main

NO_MEMORY = 0xC0000017
CICC = ("-arch", "compute_80", "-m64", "--stub_file_name", "a.stub.c", "a.ii", "-o", "a.ptx")
PTXAS = ("-arch=sm_80", "-m64", "a.ptx", "-o", "a.cubin")
# What is its last argument gets its text.
WRITES = 'for last; do :; done; printf "%b" "{}" > "$last"'
FRONT = 'echo stub > a.stub.c; for last; do :; done; printf "%s " "$@" > "$last"'
BOTH = 'case "$*" in *lgenfe*) {};; *) {}; echo {} > a.stub.c;; esac'  # front end, whole call


class Place:
    """A job's folder, and the programs of both systems beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()

    def program(self, name: str, script: str) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$@" >> {path}.calls\n{script}\n')
        path.chmod(0o755)
        return str(path)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, role: str, windows: str, linux: str, arguments: tuple[str, ...]) -> int:
        real = self.program(f"windows/{role}", windows)
        own = self.program(f"linux/{role}", linux)
        return main(role, real, own, str(self.state), *arguments)

    def compared(self, role: str) -> None:
        """The first call of a program was compared already."""
        (self.state / role).mkdir()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    Path("a.ptx").write_text(".version 9.0\n.target sm_80\n")
    return Place(tmp_path)


def test_linux_optimises_what_windows_front_end_leaves(place: Place) -> None:
    place.compared("cicc")
    assert place.run("cicc", FRONT, WRITES.format("ptx\\n"), CICC) == 0
    [front] = place.calls("windows/cicc")
    assert front.endswith("--nv_arch compute_80 --m64 --stub_file_name a.stub.c a.ii -o a.ptx.bc")
    assert place.calls("linux/cicc") == ["-libnvvm -arch=compute_80 a.ptx.bc -o a.ptx"]
    assert Path("a.ptx").read_bytes() == b"ptx\n"
    assert sorted(path.name for path in Path().iterdir()) == ["a.ptx", "a.stub.c"]


def test_ptx_of_the_older_generator_has_windows_ends_of_lines(place: Place) -> None:
    place.compared("cicc")
    text = "// Based on NVVM 7.0.1\\nb\\n"
    assert place.run("cicc", FRONT, WRITES.format(text), CICC) == 0
    assert Path("a.ptx").read_bytes() == b"// Based on NVVM 7.0.1\r\nb\r\n"


def test_the_first_call_is_made_by_both(place: Place) -> None:
    both = BOTH.format(FRONT, WRITES.format("ptx"), "stub")
    assert place.run("cicc", both, WRITES.format("ptx"), CICC) == 0
    assert len(place.calls("windows/cicc")) == 2
    assert place.run("cicc", both, WRITES.format("ptx"), CICC) == 0
    assert len(place.calls("windows/cicc")) == 3, "the second one has only a front end"


@pytest.mark.parametrize(
    ("linux", "stub", "named"),
    [("other", "stub", "another a.ptx"), ("ptx", "other", "another a.stub.c")],
)
def test_a_difference_fails(
    place: Place, capfd: pytest.CaptureFixture[str], linux: str, stub: str, named: str
) -> None:
    both = BOTH.format(FRONT, WRITES.format("ptx"), stub)
    assert place.run("cicc", both, WRITES.format(linux), CICC) == 1
    said = capfd.readouterr().err
    assert named in said
    assert "Build without --device-from" in said


def test_until_one_was_the_same_all_are_compared(place: Place) -> None:
    """What is not compared is kept, and the next build takes it."""
    both = BOTH.format(FRONT, WRITES.format("ptx"), "stub")
    killed = BOTH.format(FRONT, "exit 7", "stub")
    assert place.run("cicc", killed, WRITES.format("other"), CICC) == 7, "it compared nothing"
    assert place.run("cicc", both, WRITES.format("other"), CICC) == 1
    assert place.run("cicc", both, WRITES.format("other"), CICC) == 1
    assert place.run("cicc", both, WRITES.format("ptx"), CICC) == 0
    assert len(place.calls("windows/cicc")) == 8
    assert place.run("cicc", both, WRITES.format("ptx"), CICC) == 0
    assert len(place.calls("windows/cicc")) == 9


def test_linux_assembles(place: Place) -> None:
    place.compared("ptxas")
    script = "echo spills >&2; " + WRITES.format("cubin")
    assert place.run("ptxas", "exit 9", script, PTXAS) == 0
    assert place.calls("linux/ptxas") == [" ".join(PTXAS)], "cubins hold the command line"
    assert place.calls("windows/ptxas") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("-arch=sm_80", "C:\\b\\a.ptx", "-o", "a.cubin"),
        ("-arch=sm_80", "b.ptx", "-o", "a.cubin"),
        ("--version",),
    ],
)
def test_other_calls_are_windows_own(place: Place, arguments: tuple[str, ...]) -> None:
    assert place.run("ptxas", "exit 9", "exit 1", arguments) == 9
    assert place.calls("linux/ptxas") == []


def test_so_is_ptx_that_names_source_files(place: Place) -> None:
    """ptxas writes their sizes and times into line tables, and Linux' finds none of them."""
    Path("a.ptx").write_text('.target sm_80\n\t.file\t1 "Z:\\\\a.cu"\n')
    assert place.run("ptxas", "exit 9", "exit 1", PTXAS) == 9
    assert place.calls("linux/ptxas") == []


def test_a_whole_call_is_windows_own(place: Place) -> None:
    assert place.run("cicc", "exit 9", "exit 1", ("-lto", *CICC)) == 9
    assert place.calls("windows/cicc") == [" ".join(("-lto", *CICC))]


def test_what_they_say_and_how_they_end_is_passed_on(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert place.run("ptxas", "exit 9", "echo fatal; exit 3", PTXAS) == 3
    assert capfd.readouterr().err == "fatal\n"
    assert place.run("cicc", "exit 4", "exit 1", CICC) == 4
    assert place.calls("linux/cicc") == [], "its front end failed"


def test_a_killed_program_had_no_memory(place: Place) -> None:
    assert place.run("ptxas", "exit 9", "kill -9 $$", PTXAS) == NO_MEMORY


def test_a_shell_that_vanished_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.worker.linuxdevice._LIFE_SIGN", 0.2)
    assert place.run("ptxas", "exit 9", "kill -9 $PPID", PTXAS) == NO_MEMORY


def test_another_program_may_have_its_number(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.worker.linuxdevice._LIFE_SIGN", 0.2)
    script = f"echo {os.getpid()} > own-{os.getpid()}/pid; kill -9 $PPID"
    assert place.run("ptxas", "exit 9", script, PTXAS) == NO_MEMORY


@pytest.mark.parametrize("name", ["o'brien", "a $(b)", "x;y&z"])
def test_folders_with_odd_names(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place.compared("ptxas")
    (place.folder / name).mkdir()
    monkeypatch.chdir(place.folder / name)
    Path("a.ptx").write_text(".version 9.0\n.target sm_80\n")
    assert place.run("ptxas", "exit 9", WRITES.format("cubin"), PTXAS) == 0
    assert Path("a.cubin").read_text() == "cubin"


def test_a_shell_that_never_came(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.worker.linuxdevice._LIFE_SIGN", 0.1)
    monkeypatch.setattr("fatwheel.worker.linuxdevice._LONGEST_START", 0.2)
    monkeypatch.setattr("fatwheel.worker.linuxdevice.start_unix", lambda *command: None)
    assert place.run("ptxas", "exit 9", "exit 0", PTXAS) == NO_MEMORY
