"""Repacked wheels, judged by `zipfile`, `packaging` and `installer`."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import random
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from installer.sources import WheelFile
from packaging.utils import parse_wheel_filename

from fatwheel.errors import FormatError, StoreError
from fatwheel.wheels.name import parse_wheel_name
from fatwheel.wheels.pack import NewFile, digest_of_contents, plain_file, repack

EPOCH = 1_700_000_000
LABEL = "cu130torch2.11.sm80.sm86"
UPSTREAM = "Demo_Pkg-1.2-py3-none-any.whl"
METADATA = b"Metadata-Version: 2.1\nName: Demo.Pkg\nVersion: 1.2\n\nVersion: 1.2 is described.\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LIBRARY = random.Random(4).randbytes(1_500_000) + bytes(1_500_000)


def contents(folder: str = "Demo_Pkg-1.2") -> dict[str, bytes]:
    return {
        "demo_pkg/__init__.py": b"from . import data\nhello = 'hello'\n",
        "demo_pkg/data.py": b"",
        "demo_pkg/lib.so": LIBRARY,
        "demo_pkg/odd, name \xc3\xb6.txt".encode("latin-1").decode(): b"odd",
        f"{folder}.data/scripts/demo-tool": b"#!python\nprint('tool')\n",
        f"{folder}.data/data/share/demo/file": b"shared",
        f"{folder}.dist-info/METADATA": METADATA,
        f"{folder}.dist-info/WHEEL": WHEEL,
        f"{folder}.dist-info/top_level.txt": b"demo_pkg\n",
        f"{folder}.dist-info/licenses/LICENSE": b"free\n",
        f"{folder}.dist-info/RECORD.jws": b"signature of another RECORD",
        f"{folder}.dist-info/RECORD": b"nonsense,,\n",
    }


def make_upstream(
    path: Path, files: dict[str, bytes], seed: int = 0, permissions: int = 0o664
) -> Path:
    """A wheel as a careless tool writes it: any order, any times, folders, odd permissions."""
    chance = random.Random(seed)
    names = list(files)
    chance.shuffle(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as z:
        z.writestr("demo_pkg/", b"")
        for name in names:
            info = zipfile.ZipInfo(name, (chance.randrange(1980, 2100), 5, 6, 7, 8, 9))
            executable = 0o111 if name.endswith(".so") else 0
            info.external_attr = (stat.S_IFREG | permissions | executable) << 16
            z.writestr(info, files[name])
    return path


def pack(upstream: Path, out: Path, **changes: object) -> Path:
    label = str(changes.pop("label", LABEL))
    options: dict[str, object] = {
        "extra_files": {"fatwheel.json": b"{}"},
        "epoch": EPOCH,
        **changes,
    }
    new = parse_wheel_name(upstream.name).labelled(label)
    return repack(upstream, out, new, **options)  # type: ignore[arg-type]


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    return make_upstream(tmp_path / "in" / UPSTREAM, contents())


@pytest.fixture
def packed(upstream: Path, tmp_path: Path) -> Path:
    return pack(upstream, tmp_path / "dist")


def test_the_name_says_what_it_is(packed: Path) -> None:
    assert packed.name == f"demo_pkg-1.2+{LABEL}-py3-none-any.whl"
    project, version, build, tags = parse_wheel_filename(packed.name)
    assert (project, str(version), build) == ("demo-pkg", f"1.2+{LABEL}", ())
    assert {str(tag) for tag in tags} == {"py3-none-any"}
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


def test_contents_are_upstreams_but_for_version_and_extra_files(packed: Path) -> None:
    folder = f"demo_pkg-1.2+{LABEL}"
    expected = contents(folder)
    del expected[f"{folder}.dist-info/RECORD"]
    del expected[f"{folder}.dist-info/RECORD.jws"]
    expected[f"{folder}.dist-info/METADATA"] = METADATA.replace(
        b"Version: 1.2\n\n", f"Version: 1.2+{LABEL}\n\n".encode()
    )
    expected[f"{folder}.dist-info/fatwheel.json"] = b"{}"
    with zipfile.ZipFile(packed) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    record = found.pop(f"{folder}.dist-info/RECORD")
    assert sorted(found) == sorted(expected)
    assert found == expected
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(record.decode()))}
    assert rows == {
        **{
            name: [
                "sha256="
                + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
                str(len(data)),
            ]
            for name, data in expected.items()
        },
        f"{folder}.dist-info/RECORD": ["", ""],
    }


def test_order_and_attributes(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    outside = [name for name in names if ".dist-info/" not in name]
    inside = [name for name in names if ".dist-info/" in name]
    assert names == sorted(outside) + sorted(set(inside) - {inside[-1]}) + [inside[-1]]
    assert inside[-1].endswith(".dist-info/RECORD")
    assert {info.date_time for info in infos} == {(2023, 11, 14, 22, 13, 20)}
    executable = {info.filename for info in infos if info.external_attr >> 16 & 0o777 == 0o755}
    assert executable == {"demo_pkg/lib.so", f"demo_pkg-1.2+{LABEL}.data/scripts/demo-tool"}
    others = {info.external_attr >> 16 for info in infos if info.filename not in executable}
    assert others == {stat.S_IFREG | 0o644}


def test_installer_finds_every_hash_right(packed: Path) -> None:
    with WheelFile.open(packed) as wheel:
        wheel.validate_record(validate_contents=True)
        assert wheel.dist_info_dir == f"demo_pkg-1.2+{LABEL}.dist-info"


# -- the same bytes, whatever the circumstances ------------------------------------------------

REPACK = f"""
import os, sys
from pathlib import Path
from fatwheel.wheels.name import parse_wheel_name
from fatwheel.wheels.pack import repack
os.umask(int(sys.argv[3], 8))
upstream = Path(sys.argv[1])
new = parse_wheel_name(upstream.name).labelled({LABEL!r})
print(repack(upstream, Path(sys.argv[2]), new,
             extra_files={{"fatwheel.json": b"{{}}"}}, epoch={EPOCH}))
"""


def test_the_same_bytes_everywhere(tmp_path: Path) -> None:
    circumstances = [
        ("022", {"TZ": "UTC", "LC_ALL": "C"}),
        ("077", {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}),
        ("000", {"TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "PYTHONUTF8": "0"}),
    ]
    made = []
    for place, (umask, variables) in enumerate(circumstances):
        folder = tmp_path / str(place)
        upstream = make_upstream(
            folder / "in" / UPSTREAM,
            contents(),
            seed=place,
            permissions=0o666 & ~int(umask, 8),
        )
        ran = subprocess.run(
            [sys.executable, "-c", REPACK, upstream, folder / "dist", umask],
            env={**os.environ, **variables},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        made.append(Path(ran.stdout.strip()).read_bytes())
    assert made[0] == made[1], "umask, time zone or locale shows in the wheel"
    assert made[0] == made[2]


def test_content_and_epoch_do_show(upstream: Path, tmp_path: Path, packed: Path) -> None:
    """The test above would be worth nothing if the output never changed."""
    later = pack(upstream, tmp_path / "later", epoch=EPOCH + 2)
    other = pack(upstream, tmp_path / "other", extra_files={"fatwheel.json": b"[]"})
    assert len({path.read_bytes() for path in (packed, later, other)}) == 3
    assert digest_of_contents(packed) == digest_of_contents(later)
    assert digest_of_contents(packed) != digest_of_contents(other)


def test_digest_of_contents_by_hand(tmp_path: Path) -> None:
    files = {
        "b.py": b"b",
        "x-1.dist-info/METADATA": b"Name: x\nVersion: 1\n",
        "x-1.dist-info/WHEEL": b"Tag: py3-none-any\n",
        "x-1.dist-info/RECORD": b"",
    }
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o640) << 16
            archive.writestr(info, data)
    lines = [f"{n}\0" + "640\0" + hashlib.sha256(d).hexdigest() + "\n" for n, d in files.items()]
    assert digest_of_contents(wheel) == hashlib.sha256("".join(lines).encode()).hexdigest()


# -- replacing and failing ---------------------------------------------------------------------


def test_a_wheel_that_is_there_is_replaced(upstream: Path, tmp_path: Path, packed: Path) -> None:
    before = packed.read_bytes()
    packed.write_bytes(b"old")
    assert pack(upstream, packed.parent) == packed
    assert packed.read_bytes() == before


def test_a_wheel_that_has_a_local_version_gets_another(packed: Path, tmp_path: Path) -> None:
    again = pack(packed, tmp_path / "again", label="cu999")
    assert again.name == "demo_pkg-1.2+cu999-py3-none-any.whl"
    with zipfile.ZipFile(again) as archive:
        names = [name for name in archive.namelist() if name.endswith("fatwheel.json")]
    assert names == ["demo_pkg-1.2+cu999.dist-info/fatwheel.json"]


def test_a_damaged_wheel_leaves_nothing(upstream: Path, tmp_path: Path) -> None:
    data = bytearray(upstream.read_bytes())
    at = bytes(data).index(LIBRARY[:64]) if LIBRARY[:64] in data else len(data) // 2
    data[at + 30] ^= 0xFF
    upstream.write_bytes(data)
    with pytest.raises(FormatError, match="damaged") as caught:
        pack(upstream, tmp_path / "dist")
    assert upstream.name in str(caught.value)
    assert list((tmp_path / "dist").iterdir()) == [], "a half-written wheel was left"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("Demo_Pkg-1.3-py3-none-any.whl", {}, "names do not agree"),
        ("Demo_Pkg-1.2-cp311-cp311-linux_x86_64.whl", {}, "tags do not agree"),
        ("demo.whl", {}, "not the name of a wheel"),
        (UPSTREAM, {"Demo_Pkg-1.2.dist-info/METADATA": None}, "METADATA"),
        (UPSTREAM, {"Demo_Pkg-1.2.dist-info/METADATA": b"Name: x\n"}, "Version"),
        (UPSTREAM, {"other-1.dist-info/METADATA": b""}, ".dist-info folders"),
        (UPSTREAM, {"../outside": b""}, "outside"),
    ],
)
def test_unsound_wheels_are_refused(
    tmp_path: Path, name: str, change: dict[str, bytes | None], said: str
) -> None:
    files = {**contents(), **change}
    files = {place: data for place, data in files.items() if data is not None}
    upstream = make_upstream(tmp_path / "in" / name, files)
    with pytest.raises(FormatError) as caught:
        pack(upstream, tmp_path / "dist")
    assert said in str(caught.value)
    assert not (tmp_path / "dist").exists(), "something was written"


def test_no_wheel_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read") as caught:
        pack(tmp_path / UPSTREAM, tmp_path / "dist")
    assert str(tmp_path / UPSTREAM) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["RECORD", "METADATA", "WHEEL", "RECORD.jws", "/a", "../x", "a/../../b"]
)
def test_extra_files_may_not_be_the_wheels_own(upstream: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file to add"):
        pack(upstream, tmp_path / "dist", extra_files={name: b""})


def test_the_last_files_are_told_of_all_others(upstream: Path, tmp_path: Path) -> None:
    told: list[dict[str, str]] = []

    def closing(digests: Mapping[str, str]) -> list[NewFile]:
        told.append(dict(digests))
        return [plain_file(f"demo_pkg-1.2+{LABEL}.dist-info/a-statement", b"of the others")]

    wheel = pack(upstream, tmp_path / "dist", closing=closing)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        held = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    info = f"demo_pkg-1.2+{LABEL}.dist-info"
    assert names[-2:] == [f"{info}/a-statement", f"{info}/RECORD"]
    assert told == [{name: held[name] for name in names[:-2]}]


def test_an_output_folder_that_is_a_file(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "dist").write_text("mine")
    with pytest.raises(StoreError, match="--out FOLDER") as caught:
        pack(upstream, tmp_path / "dist")
    assert str(tmp_path / "dist") in str(caught.value)
    assert (tmp_path / "dist").read_text() == "mine"
