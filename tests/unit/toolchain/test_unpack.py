"""Unpacking wheels and linking them into environments."""

from __future__ import annotations

import os
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.events import Event, Progress, silent
from fatwheel.toolchain.unpack import InstallScheme, is_unpacked, link_into, unpack, unpack_all

from ...helpers.tinywheels import record_hash, write_wheel

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


def nothing(_: int) -> None:
    pass


def make(tmp_path: Path, **options: object) -> Path:
    package = write_wheel(
        tmp_path, "demo", "1.0", {"demo/a.py": "A\n", "demo/tool": "#!/bin/sh\n"}, **options
    )  # type: ignore[arg-type]
    return tmp_path / package.filename


def linked(folder: Path, root: Path, python: Path = Path("/python")) -> None:
    into = InstallScheme(python, root / "site", root / "headers", root / "scripts", root / "data")
    link_into(folder, "demo", into, "linux-x86_64")


def test_members_are_written_with_fixed_modes_and_times(tmp_path: Path) -> None:
    wheel = make(tmp_path, programs=("demo/tool",))
    old = os.umask(0o077)
    try:
        unpack(wheel, tmp_path / "out", nothing)
    finally:
        os.umask(old)
    modes = {
        path.relative_to(tmp_path / "out").as_posix(): oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert modes.pop("demo/tool") == "0o755"
    assert set(modes.values()) == {"0o644"}
    times = {path.stat().st_mtime for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert times == {YEAR_2020}
    assert (tmp_path / "out/demo/a.py").read_text() == "A\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"demo/a.py,{record_hash(b'B')},2", "demo/a.py does not have the sha256"),
        ("", "demo/a.py is not mentioned in RECORD"),
        ("demo/a.py,,", "hash / size of demo/a.py is not included"),
    ],
)
def test_a_wheel_that_contradicts_its_record_is_refused(
    tmp_path: Path, row: str, words: str
) -> None:
    wheel = make(tmp_path, record={"demo/a.py": row})
    with pytest.raises(ToolchainError) as caught:
        unpack(wheel, tmp_path / "out", nothing)
    assert words in str(caught.value)
    assert wheel.name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_member_gets_out_of_its_folder(tmp_path: Path) -> None:
    package = write_wheel(tmp_path / "w", "demo", "1.0", {"../escaped": "x"})
    with pytest.raises(ToolchainError, match="outside"):
        unpack(tmp_path / "w" / package.filename, tmp_path / "out", nothing)
    assert not (tmp_path / "escaped").exists()


def test_a_file_that_is_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "demo-1.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(ToolchainError, match=r"demo-1\.0-py3-none-any\.whl"):
        unpack(tmp_path / "demo-1.0-py3-none-any.whl", tmp_path / "out", nothing)


def test_missing_and_shortened_files_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert not is_unpacked(folder)
    unpack(make(tmp_path), folder, nothing)
    assert is_unpacked(folder)
    (folder / "demo/a.py").write_text("")
    assert not is_unpacked(folder)
    (folder / "demo/a.py").unlink()
    assert not is_unpacked(folder)


def test_several_are_unpacked_and_their_wheels_deleted(tmp_path: Path) -> None:
    wheels = {}
    for number in range(6):
        package = write_wheel(
            tmp_path / str(number), f"demo{number}", "1.0", {f"d{number}.txt": "x" * 1000}
        )
        wheels[tmp_path / str(number) / package.filename] = tmp_path / f"out{number}"
    events: list[Event] = []

    unpack_all(wheels, events.append)

    assert all(is_unpacked(folder) for folder in wheels.values())
    assert not any(wheel.parent.exists() for wheel in wheels)
    last = events[-1]
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert isinstance(last, Progress)
    assert (last.done, last.total) == (written, written)


def test_one_bad_wheel_ends_the_work_and_leaves_the_good_ones(tmp_path: Path) -> None:
    good = write_wheel(tmp_path / "g", "good", "1.0", {"good.py": "x" * 100})
    bad = make(tmp_path, record={"demo/a.py": ""})
    folders = {tmp_path / "g" / good.filename: tmp_path / "good", bad: tmp_path / "bad"}
    with pytest.raises(ToolchainError):
        unpack_all(folders, silent)
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        unpack(make(tmp_path), tmp_path / "out", interrupt)
    assert not (tmp_path / "out").exists()


def test_environments_share_files_but_not_scripts(tmp_path: Path) -> None:
    package = write_wheel(
        tmp_path,
        "demo",
        "1.0",
        {
            "demo/a.py": "A\n",
            "demo/__pycache__/a.pyc": "compiled elsewhere",
            "demo-1.0.data/scripts/run": "#!python\nprint(1)\n",
            "demo-1.0.data/scripts/native": "\x7fELF",
            "demo-1.0.data/headers/demo.h": "",
            "demo-1.0.data/data/share/demo.txt": "",
            "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\ndemo = demo.a:main\n",
        },
        programs=("demo-1.0.data/scripts/run", "demo-1.0.data/scripts/native"),
    )
    unpack(tmp_path / package.filename, tmp_path / "p", nothing)
    for name in ("one", "two"):
        linked(tmp_path / "p", tmp_path / name, Path("/env") / name / "bin/python")

    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "site/demo/a.py").samefile(two / "site/demo/a.py")
    assert (one / "scripts/native").samefile(two / "scripts/native")
    assert (one / "scripts/run").read_text() == "#!/env/one/bin/python\nprint(1)\n"
    assert (two / "scripts/demo").read_text().startswith("#!/env/two/bin/python\n")
    assert os.access(two / "scripts/demo", os.X_OK)
    assert (one / "headers/demo/demo.h").is_file()
    assert (one / "data/share/demo.txt").is_file()
    assert not (one / "site/demo/__pycache__").exists()
    info = one / "site/demo-1.0.dist-info"
    assert (info / "INSTALLER").read_text() == "fatwheel\n"
    rows = dict(row.split(",", 1) for row in (info / "RECORD").read_text().splitlines())
    assert rows["demo/a.py"] == f"{record_hash(b'A' + bytes([10]))},2"
    assert rows["../scripts/native"] == f"{record_hash(bytes([127]) + b'ELF')},4"
    files = [path for path in (*one.rglob("*"), *two.rglob("*")) if path.is_file()]
    late = [path for path in files if path.stat().st_mtime != YEAR_2020]
    assert late == [], f"these have another time than 2020-01-01 (now: {time.time()})"


def test_two_packages_may_share_a_file_but_not_disagree_on_it(tmp_path: Path) -> None:
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        package = write_wheel(tmp_path / name, name, "1.0", {"shared/__init__.py": text})
        unpack(tmp_path / name / package.filename, tmp_path / f"p{name}", nothing)
    linked(tmp_path / "pa", tmp_path / "env")
    linked(tmp_path / "pb", tmp_path / "env")
    with pytest.raises(ToolchainError, match=r"c 1\.0 cannot be installed.*shared/__init__\.py"):
        linked(tmp_path / "pc", tmp_path / "env")


def test_a_file_system_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    unpack(make(tmp_path, programs=("demo/tool",)), tmp_path / "p", nothing)
    monkeypatch.setattr("os.link", refuse)
    linked(tmp_path / "p", tmp_path / "env")
    tool = tmp_path / "env/site/demo/tool"
    assert tool.read_text() == "#!/bin/sh\n"
    assert tool.stat().st_mtime == YEAR_2020
    assert os.access(tool, os.X_OK)
