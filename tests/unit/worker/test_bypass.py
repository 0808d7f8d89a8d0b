"""What is noticed of compilers that are no stand-ins, and of objects that nobody made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.worker.bypass import makes_images, note_made, outputs, tell, told, unknown_objects


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
        ("-c a.cu -o a.o", False),
        ("-cubin a.ptx", False),
        ("--version", False),
    ],
)
def test_device_code_in_files_of_its_own_is_noticed(command: str, expected: bool) -> None:
    assert makes_images(command.split()) is expected


def test_objects_that_nobody_made_are_those_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("work/made.o", "work/brought.o", "work/out.o", "usr/crti.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    note_made(str(tmp_path / "notes"), [str(tmp_path / "link" / "made.o")])
    words = ["-shared", "made.o", "./brought.o", "../work/brought.o", "gone.o", "../usr/crti.o"]
    found = unknown_objects(
        [*words, "-o", "out.o"], str(tmp_path / "notes"), [str(tmp_path / "link")]
    )
    assert found == [str(tmp_path / "work" / "brought.o")]


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


def test_nothing_is_told_where_nothing_was_noticed(tmp_path: Path) -> None:
    assert told(tmp_path) == ()
