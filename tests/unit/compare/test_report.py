"""Wheels compared as a whole: levels, order, what follows from what, the report's shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from fatwheel.compare import compare_wheels, refusal
from fatwheel.compare.differences import LEVELS, Comparison
from fatwheel.errors import FormatError, RebuildError, UsageError
from fatwheel.provenance.lock import lock_bytes
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes

from ...helpers import statedwheels
from ...helpers.comparedwheels import NAME, compared, found, pack, without_diffoscope
from ...helpers.cudawheels import changed, fatbin, images
from ...helpers.deviceimages import container, sm
from ...helpers.schemas import schema_of
from ...helpers.statedwheels import (
    BINARY,
    INFO,
    LOCK,
    RECORD,
    SBOM,
    STATEMENT,
    Files,
    demo_files,
    edited,
)

assert without_diffoscope  # a fixture

SCHEMA = schema_of("compare")


def checked(comparison: Comparison) -> Comparison:
    """The comparison, whose JSON must be as the schema says."""
    document = json.loads(json.dumps(comparison.to_json()))
    Draft202012Validator(SCHEMA).validate(document)
    return comparison


def stated(folder: Path, change: Callable[[Files], object]) -> Comparison:
    """A wheel with provenance, and the same after a change of its files."""
    files = demo_files()
    (folder / "one").mkdir()
    (folder / "other").mkdir()
    one = pack(folder / "one" / statedwheels.NAME, files)
    change(files)
    other = pack(folder / "other" / statedwheels.NAME, files)
    return checked(compare_wheels(one, other))


def test_the_schema_is_sound_and_names_every_level() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert tuple(SCHEMA["$defs"]["level"]["enum"]) == LEVELS


def test_identical_wheels(tmp_path: Path) -> None:
    comparison = checked(compared(tmp_path, {"a.py": b""}, {"a.py": b""}))
    assert comparison.identical
    assert (comparison.level, comparison.differences, comparison.same) == (None, (), 4)


def test_the_highest_level_comes_first(tmp_path: Path) -> None:
    one = {"a.fatbin": container(sm(80)), "a.py": b"1\n", "gone.py": b""}
    other = {"a.fatbin": container(sm(80, code=b"more")), "a.py": b"2\n"}
    comparison = checked(compared(tmp_path, one, other))
    assert comparison.level == "files"
    assert [each.level for each in comparison.differences] == ["files", "binary", "kernel", "text"]
    assert comparison.follows == ("demo-1.0.dist-info/RECORD",)
    assert comparison.same == 2  # METADATA and WHEEL


def test_record_alone(tmp_path: Path) -> None:
    """A tampered RECORD is not explained by anything."""
    files: Mapping[str, bytes] = {"a.py": b"1\n"}
    one = pack(tmp_path / "one" / NAME, files)
    other = pack(tmp_path / "other" / NAME, files, record="a.py,sha256=x,2\n")
    comparison = checked(compare_wheels(one, other))
    assert {each.level for each in comparison.differences} == {"text"}
    assert comparison.differences[0].what == "the line of a.py"
    assert comparison.follows == ()


def test_data_is_compared_as_bytes(tmp_path: Path) -> None:
    [each] = found(checked(compared(tmp_path, {"a.bin": b"\0\1"}, {"a.bin": b"\0\2"})))
    assert (each.level, each.place.file) == ("binary", "a.bin")
    assert each.what == "2 bytes in both; the first that differs is at 0x1"


def test_a_damaged_binary_does_not_hide_the_rest(tmp_path: Path) -> None:
    broken = b"\x7fELF" + bytes(100)
    comparison = checked(
        compared(
            tmp_path, {"a.so": broken, "a.py": b"1\n"}, {"a.so": broken + b"x", "a.py": b"2\n"}
        )
    )
    told = {(each.level, each.place.file) for each in comparison.differences}
    assert told == {("binary", "a.so"), ("text", "a.py")}


def test_a_file_with_very_many_differences_is_cut_off(tmp_path: Path) -> None:
    # Too few lines to be told as one run.
    one = "".join(f"{n}\n" for n in range(390)).encode()
    other = "".join(f"{n + 1000}\n" for n in range(390)).encode()
    comparison = checked(compared(tmp_path, {"a.txt": one}, {"a.txt": other}))
    assert comparison.more
    assert len(comparison.differences) == 200


# -- provenance ----------------------------------------------------------------------------------


def restate(files: Files, ninja: str = "") -> None:
    """All papers made anew, with another ninja if it is named, as a build would."""
    lock = statedwheels.demo_lock()
    if ninja:
        packages = (lock.toolchain.packages[0], statedwheels.package("ninja", ninja, "build"))
        lock = replace(lock, toolchain=replace(lock.toolchain, packages=packages))
    record = statedwheels.demo_record(lock)
    files[LOCK], files[RECORD] = lock_bytes(lock), statedwheels.as_json(record)
    files[SBOM] = sbom_bytes(lock, record, "demo", statedwheels.VERSION)
    del files[STATEMENT]
    files[STATEMENT] = statement_bytes(statedwheels.subjects_of(files), predicate_of(lock, record))


def test_a_pin_is_told_once_and_all_papers_follow(tmp_path: Path) -> None:
    comparison = stated(tmp_path, lambda files: restate(files, "1.13.1"))
    [each] = comparison.differences
    assert (each.level, each.place.file) == ("pins", LOCK)
    assert each.what.startswith("ninja (build): 1.13.2 ")
    assert " became 1.13.1 " in each.what
    assert set(comparison.follows) == {RECORD, SBOM, STATEMENT, f"{INFO}/RECORD"}


def test_likely_causes_come_before_everything(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        files["demo/extra.py"] = b""
        files["demo/__init__.py"] = b"x = 1\n"
        restate(files, "1.13.1")

    comparison = stated(tmp_path, change)
    assert [each.level for each in comparison.differences] == ["pins", "files", "text"]
    assert comparison.level == "pins"


def test_a_kernel_of_a_unit_with_its_name_and_the_papers_follow(tmp_path: Path) -> None:
    """As an honest rebuild with another result: record and statement tell of the new slice."""
    data = changed(3, b"scale", b"shape")

    def change(files: Files) -> None:
        files[BINARY] = data
        old = statedwheels.SLICES["sm_120f"]
        new = hashlib.sha256(fatbin([images(data)[3]])).hexdigest()
        files[RECORD] = files[RECORD].replace(old.encode(), new.encode())
        statedwheels.state_again(files)

    comparison = stated(tmp_path, change)
    kernels = found(comparison, "kernel")
    assert {(each.place.file, each.place.unit, each.place.image) for each in kernels} == {
        (BINARY, "csrc/a.o", "sm_120f")
    }
    assert {each.place.symbol for each in kernels} == {"scale", "shape"}
    assert {each.place.file for each in comparison.differences} == {BINARY}
    assert set(comparison.follows) == {RECORD, STATEMENT, f"{INFO}/RECORD"}


def test_a_digest_that_is_wrong_in_the_statement_alone(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        files[STATEMENT] = edited(
            files[STATEMENT],
            lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64),
        )

    [each] = stated(tmp_path, change).differences
    assert (each.level, each.place.file) == ("text", STATEMENT)
    assert each.what.endswith(f" became {'0' * 64}")


def test_a_slice_s_digest_that_is_wrong_in_the_record_alone(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        old = statedwheels.SLICES["sm_80"]
        files[RECORD] = files[RECORD].replace(old.encode(), b"0" * 64)

    [each] = stated(tmp_path, change).differences
    assert (each.level, each.place.file) == ("text", RECORD)
    assert each.what.startswith("units[csrc/a.o].slices.sm_80: ")


def test_a_wheel_without_provenance(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        for name in (LOCK, RECORD, SBOM, STATEMENT):
            del files[name]

    comparison = stated(tmp_path, change)
    assert [(each.level, each.place.file) for each in comparison.differences] == [
        ("files", name) for name in (RECORD, LOCK, SBOM, STATEMENT)
    ]


# -- mistakes ------------------------------------------------------------------------------------


def test_the_refusal_names_the_highest_level(tmp_path: Path) -> None:
    error = refusal(compared(tmp_path, {"a.py": b"1\n"}, {"a.py": b"2\n"}))
    assert isinstance(error, RebuildError)
    assert error.exit_code == 15
    assert error.what == "the wheels differ, at the highest level in lines of text"


def test_what_is_no_wheel(tmp_path: Path) -> None:
    sound = pack(tmp_path / NAME, {"a.py": b"1\n"})
    cut = tmp_path / "cut.whl"
    cut.write_bytes(sound.read_bytes()[:-5])
    for one, other in ((sound, cut), (cut, sound)):
        with pytest.raises(FormatError, match=r"^\S*cut\.whl: "):
            compare_wheels(one, other)
    with pytest.raises(UsageError, match=r"absent\.whl"):
        compare_wheels(sound, tmp_path / "absent.whl")


def test_diffoscope_gets_the_first_file_that_differs(tmp_path: Path) -> None:
    asked: list[tuple[str, list[bytes]]] = []

    def said(name: str, sizes: Sequence[int], contents: Sequence[Iterable[bytes]]) -> str:
        asked.append((name, [b"".join(content) for content in contents]))
        return "words"

    files = {"a.py": b"1\n", "b.py": b"1\n"}
    first = pack(tmp_path / "one" / NAME, files)
    second = pack(tmp_path / "other" / NAME, {**files, "b.py": b"2\n"})
    assert compare_wheels(first, second, said).diffoscope == "words"
    second = pack(tmp_path / "other" / NAME, files, times={"a.py": (2000, 1, 1, 0, 0, 0)})
    compare_wheels(first, second, said)
    assert asked == [
        ("b.py", [b"1\n", b"2\n"]),
        (NAME, [first.read_bytes(), second.read_bytes()]),
    ]
