"""What a comparison is, apart from how it is found. A wheel that is compared, opened and read."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from fatwheel.compare.differences import LEVELS, Comparison, Difference, Position, Side, opened
from fatwheel.errors import FormatError, UsageError
from fatwheel.wheels.name import stem_of

from ...helpers.comparedwheels import INFO, NAME, pack

ONE, OTHER = Side(Path("a/x.whl"), 1, "a" * 64), Side(Path("b/x.whl"), 2, "b" * 64)


@pytest.mark.parametrize(
    ("levels", "highest"),
    [
        (["kernel", "section", "binary"], "binary"),
        (["archive", "pins", "files"], "pins"),
        (["archive"], "archive"),
        ([], None),
    ],
)
def test_the_highest_level(levels: list[str], highest: str | None) -> None:
    differences = tuple(Difference(level, "x") for level in levels)
    assert Comparison(ONE, OTHER, differences=differences).level == highest


def test_levels_go_from_the_wheel_down_to_the_kernel() -> None:
    order = ["files", "text", "binary", "section", "unit", "image", "kernel"]
    assert [level for level in LEVELS if level in order] == order


def test_identical_are_wheels_of_the_same_bytes() -> None:
    assert not Comparison(ONE, OTHER).identical
    assert Comparison(ONE, Side(Path("c.whl"), 1, "a" * 64)).identical


def test_json_has_null_where_a_place_does_not_apply() -> None:
    place = Position("a.so").at(section=".text", container=0)
    shown = Difference("section", "x", place, one="1").to_json()
    assert (shown["file"], shown["section"], shown["container"]) == ("a.so", ".text", 0)
    assert (shown["unit"], shown["image"], shown["symbol"], shown["other"]) == (None,) * 4


CONTENT = b"x = 1\n" * 1000


def test_files_go_by_names_without_the_version(tmp_path: Path) -> None:
    path = pack(tmp_path / NAME, {"demo/a.py": CONTENT, "demo-1.0.data/scripts/x": b""})
    with opened(path) as wheel:
        assert list(wheel.files) == [
            "demo/a.py", ".data/scripts/x", ".dist-info/METADATA", ".dist-info/WHEEL",
            ".dist-info/RECORD",
        ]  # fmt: skip
        file = wheel.files["demo/a.py"]
        assert file.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert wheel.read(file) == b"".join(wheel.pieces(file)) == CONTENT
        with wheel.mapped(file) as data:
            assert bytes(data) == CONTENT
        stored = b"".join(wheel.stored(file))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("demo/a.py")
    assert len(stored) == info.compress_size
    assert stored in path.read_bytes()
    assert stem_of(f"{INFO}/a/b", INFO) == ".dist-info/a/b"
    assert stem_of("demo-1.0/a", INFO) == "demo-1.0/a"


def test_what_is_wrong_names_the_wheel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.whl"), opened(tmp_path / "absent.whl"):
        pass
    with pytest.raises(UsageError, match="a wheel"), opened(tmp_path):
        pass
    (tmp_path / "a.whl").write_bytes(b"PK no zip")
    with pytest.raises(FormatError, match=r"a\.whl"), opened(tmp_path / "a.whl"):
        pass


def test_a_damaged_file_is_found_although_nobody_reads_it(tmp_path: Path) -> None:
    path = pack(tmp_path / NAME, {"demo/a.py": CONTENT}, method=zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"x = 1", b"x = 2", 1))
    with pytest.raises(FormatError, match=r"demo-1\.0.*demo/a\.py.*damaged"), opened(path):
        pass
