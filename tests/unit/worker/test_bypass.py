"""What is noticed of compilers that are no stand-ins, and of objects that nobody made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.worker.bypass import (
    clang_variables,
    clangs_commands,
    is_thin,
    makes_device_code,
    note_made,
    outputs,
    tell,
    told,
    unknown_objects,
    whole,
)

Tool = Callable[[str], str]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("-c a.cpp -o x/a.o", ["x/a.o"]),
        ("-c a.cpp -ox/a.o", ["x/a.o"]),
        ("-c x/a.cpp b.c", ["a.o", "b.o"]),
        ("-r a.o b.o -o c.o", ["c.o"]),
        ("-shared a.o", []),
        ("-dc a.cu --output-file a.o", ["a.o"]),
        ("--version", []),
    ],
)
def test_what_a_command_writes(command: str, expected: list[str]) -> None:
    assert outputs(command.split()) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("-ptx a.cu -o a.ptx", True),
        ("--fatbin a.cu", True),
        ("-shared a.cu -optf options -o a.so", True),
        ("-x cu -shared a.cpp -o a.so", True),
        ("-c a.cu -o /dev/null", False),
        ("-E a.cu -o a.ii", False),
        ("-cubin a.ptx", True),
        ("-dlink a.o a.ptx", False),
        ("--version", False),
    ],
)
def test_that_nvcc_compiles_device_code_is_noticed(command: str, expected: bool) -> None:
    assert makes_device_code(command.split()) is expected


def test_an_object_may_have_any_name(tmp_path: Path) -> None:
    """Names of files are bytes; this is not UTF-8."""
    made, place = tmp_path / "made", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.o")
    made.mkdir()
    Path(place).write_bytes(b"object")
    assert unknown_objects([place], str(made), [str(tmp_path)]) == [place]
    note_made(str(made), [place])
    assert unknown_objects([place], str(made), [str(tmp_path)]) == []
    subprocess.run(["ar", "qc", "lib.a", place], cwd=tmp_path, check=True)
    assert unknown_objects([str(tmp_path / "lib.a")], str(made), [str(tmp_path)]) == []


def test_objects_that_nobody_made_are_those_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("project/made.o", "project/brought.o", "project/out.o", "usr/crti.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    note_made(str(tmp_path / "notes"), [str(tmp_path / "link" / "made.o")])
    words = ["-shared", "made.o", "./brought.o", "../project/brought.o", "gone.o", "../usr/crti.o"]
    found = unknown_objects(
        [*words, "-o", "out.o"], str(tmp_path / "notes"), [str(tmp_path / "link")]
    )
    assert found == [str(tmp_path / "project" / "brought.o")]


# -- static libraries ----------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with two objects, of which one was put down, and a folder for notes."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("made.o").write_bytes(b"an object")
    Path("brought.with.a.very.long.name.o").write_bytes(b"another one")
    Path("odd.o").write_bytes(b"an object")
    note_made(str(tmp_path / "notes"), ["made.o"])
    return tmp_path


def unknown_in(build: Path, *words: str) -> list[str]:
    found = unknown_objects(words, str(build / "notes"), [str(build / "work")])
    return [os.path.relpath(path, build / "work") for path in found]


BROUGHT = "libx.a(brought.with.a.very.long.name.o)"


@pytest.mark.parametrize("kind", ["rcs", "rcsT"])
@pytest.mark.parametrize(
    "words",
    [["libx.a"], ["-L.", "-lx"], ["-L", ".", "-l:libx.a"], ["-Wl,--whole-archive", "./libx.a"]],
)
def test_objects_in_static_libraries_are_noticed(
    kind: str, words: list[str], build: Path, tool: Tool
) -> None:
    """And those that a stand-in knows are known in there, under whichever name."""
    objects = ["made.o", "odd.o", "brought.with.a.very.long.name.o"]
    subprocess.run([tool("ar"), kind, "libx.a", *objects], check=True)
    assert unknown_in(build, "-shared", *words, "-o", "out.so") == [BROUGHT]


def test_a_static_library_of_objects_that_are_known_is_not_told(build: Path, tool: Tool) -> None:
    subprocess.run([tool("ar"), "rcs", "libx.a", "made.o", "odd.o"], check=True)
    assert unknown_in(build, "-shared", "libx.a") == []


def test_names_of_bsd_stand_before_the_content(build: Path) -> None:
    row = b"#1/8".ljust(16) + b"0".ljust(32)
    data = b"!<arch>\n"
    for name, content in ((b"one.o", b"an object"), (b"two.o", b"unknown!!")):
        data += row + str(8 + len(content)).encode().ljust(10) + b"`\n"
        data += name.ljust(8, b"\0") + content + b"\n"
    Path("libx.a").write_bytes(data)
    assert unknown_in(build, "libx.a") == ["libx.a(two.o)"]


@pytest.mark.parametrize("data", [b"", b"INPUT(x)", b"!<arch>\nx", b"!<thin>\n" + b"x" * 60])
def test_what_cannot_be_read_as_a_static_library_is_told_as_a_whole(
    data: bytes, build: Path
) -> None:
    Path("libx.a").write_bytes(data)
    assert unknown_in(build, "libx.a") == ["libx.a"]


def test_a_thin_library_may_name_a_pipe(build: Path, tool: Tool) -> None:
    """Who opens it waits for ever, unless he does not wait at all."""
    Path("pipe.o").write_bytes(b"object")
    subprocess.run([tool("ar"), "rcT", "libx.a", "pipe.o"], check=True)
    Path("pipe.o").unlink()
    os.mkfifo("pipe.o")
    assert unknown_in(build, "libx.a") == ["libx.a"]


def test_static_libraries_of_the_system_are_not_the_project_s(build: Path) -> None:
    (build / "libx.a").write_bytes(b"!<arch>\n")
    assert unknown_in(build, "../libx.a", f"-L{build}", "-lx", "-lnowhere") == []


# -- clang ---------------------------------------------------------------------------------------


def test_clang_says_what_it_does_and_names_no_folder(build: Path, tool: Tool) -> None:
    """Whoever calls it, by whichever path."""
    work, log = build / "work", build / "log"
    (work / "code.c").write_text("const char *where = __FILE__;\n")
    variables = {**os.environ, **clang_variables(log, [(str(work), "the-project")])}
    command = [tool("clang"), "-g", "-c", work / "code.c", "-o", "code.o"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    data = (work / "code.o").read_bytes()
    assert b"the-project/code.c" in data
    assert str(build).encode() not in data
    [[program, *words]] = clangs_commands(log)
    assert "clang" in program
    assert words == ["-c", str(work / "code.c"), "-o", str(work / "code.o")]


def test_nothing_was_logged_where_there_is_no_clang(tmp_path: Path) -> None:
    assert list(clangs_commands(tmp_path / "log")) == []
    (tmp_path / "log").write_text(' "cc1\n "x" "-cc1"\nclang -c\n')
    assert list(clangs_commands(tmp_path / "log")) == []


# -- what is told --------------------------------------------------------------------------------


def test_a_finding_is_told_once_and_not_all_of_many(tmp_path: Path) -> None:
    for number in [*range(9), 3]:
        tell(str(tmp_path), {"command": ["/usr/bin/g++", "-c", f"{number}.cpp"]})
        tell(str(tmp_path), {"object": f"{number}.o"})
    *commands, more, objects = told(tmp_path)
    assert [sentence.partition(": ")[2] for sentence in commands] == [
        f"/usr/bin/g++ -c {number}.cpp" for number in range(5)
    ]
    assert "4 more compiler calls" in more
    assert objects.endswith(": 0.o, 1.o, 2.o, 3.o, 4.o and 4 more")


def test_an_endless_command_is_cut(tmp_path: Path) -> None:
    tell(str(tmp_path), {"command": ["g++", "x" * 100_000]})
    [sentence] = told(tmp_path)
    assert len(sentence) < 1200


def test_what_others_write_there_is_not_told(tmp_path: Path) -> None:
    tell(str(tmp_path), {"object": "a.o"})
    for number, text in enumerate(["", "{", "[]", "7", '{"command": 7}', '{"object": []}', "\xff"]):
        (tmp_path / str(number)).write_text(text, encoding="latin-1")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    [sentence] = told(tmp_path)
    assert sentence.endswith("fatwheel knows: a.o")


def test_nothing_is_told_where_nothing_was_noticed(tmp_path: Path) -> None:
    assert told(tmp_path) == ()


def test_a_thin_library_is_made_whole(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """GNU ar reads it."""
    (tmp_path / "in").mkdir()
    contents = [b"odd", b"even"]
    names = [str(tmp_path / "in" / f"{number}.o") for number in range(2)]
    for name, content in zip(names, contents, strict=True):
        Path(name).write_bytes(content)
    thin = tmp_path / "libthin.a"
    subprocess.run([tool("ar"), "rcsT", thin, *names], check=True)
    (tmp_path / "whole.a").write_bytes(whole(thin))
    assert (is_thin(thin), is_thin(tmp_path / "whole.a")) == (True, False)
    for number, content in enumerate(contents):
        listed = subprocess.run(
            [tool("ar"), "p", tmp_path / "whole.a", f"{number}.o"], capture_output=True, check=True
        )
        assert listed.stdout == content
