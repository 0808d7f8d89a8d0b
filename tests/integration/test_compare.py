"""`invoke compare` on a really built wheel of which one thing was changed.

What is changed is found with readelf, cuobjdump and zipfile. Each time the report must name exactly
that, and nothing else.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fatwheel.compare import compare_wheels
from fatwheel.compare.differences import Comparison

from ..helpers.tinywheels import record_hash
from .conftest import Outcome, Workbench

MODULE = "fatwheel_selftest/_lineinfo.cpython-311-x86_64-linux-gnu.so"
KERNEL, UNIT = "_ZN8selftest14reverse_kernelEPKfPfi", "csrc/lineinfo"

Tool = Callable[[str], str]
Told = list[tuple[str, str, str, str]]


@dataclass
class Contents:
    """The files of a wheel, to be changed and packed again; all else stays as it is packed."""

    infos: dict[str, zipfile.ZipInfo]
    files: dict[str, bytes]
    level: int = 6
    order: list[str] = field(default_factory=list)

    @property
    def dist_info(self) -> str:
        return next(n for n in self.files if n.endswith("/RECORD")).rpartition("/")[0]

    def at(self, name: str) -> str:
        return f"{self.dist_info}/{name}"

    def change(self, name: str, offset: int) -> None:
        data = bytearray(self.files[name])
        data[offset] ^= 0xFF
        self.files[name] = bytes(data)

    def add(self, name: str, data: bytes) -> None:
        info = copy.copy(next(iter(self.infos.values())))
        info.filename = info.orig_filename = name
        self.infos[name], self.files[name] = info, data

    def pack(self, folder: Path, name: str) -> Path:
        """With a RECORD that is right."""
        record = self.at("RECORD")
        order = self.order or [n for n in self.files if n != record]
        rows = [f"{n},{record_hash(self.files[n])},{len(self.files[n])}\n" for n in order]
        self.files[record] = "".join([*rows, f"{record},,\n"]).encode()
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member in (*order, record):
                info = copy.copy(self.infos[member])
                archive.writestr(info, self.files[member], zipfile.ZIP_DEFLATED, self.level)
        return folder / name


def read(wheel: Path) -> Contents:
    with zipfile.ZipFile(wheel) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        return Contents(infos, {name: archive.read(name) for name in infos})


@dataclass(frozen=True)
class Bench:
    """The wheel as zipfile packs it, and changed versions of it compared with that."""

    folder: Path
    built: Path
    plain: Path

    def contents(self) -> Contents:
        return read(self.built)

    def compare(self, changed: Contents) -> Comparison:
        return compare_wheels(self.plain, changed.pack(self.folder / "other", self.plain.name))


@pytest.fixture
def wheels(
    selftest: tuple[Workbench, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr("fatwheel.compare.report.find_diffoscope", lambda: None)  # takes long
    built = selftest[1].wheel()
    return Bench(tmp_path, built, read(built).pack(tmp_path / "plain", built.name))


def told(comparison: Comparison, *levels: str) -> Told:
    """Level, section, image and symbol of all differences, or of those of some levels."""
    return [
        (found.level, found.place.section, found.place.image, found.place.symbol)
        for found in comparison.differences
        if not levels or found.level in levels
    ]


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sections(readelf: str, file: Path) -> dict[str, tuple[int, int, int]]:
    """Address, offset and size of every section, as readelf has them."""
    rows = re.findall(
        r"^ +\[ *\d+\] (\S+) +\S+ +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+)",
        output(readelf, "-SW", file),
        re.M,
    )
    return {name: (int(a, 16), int(b, 16), int(c, 16)) for name, a, b, c in rows}


def symbol(readelf: str, file: Path, name: str) -> tuple[int, int]:
    """Address and size of a function, as readelf has them."""
    [row] = re.findall(
        rf"^ +\d+: ([0-9a-f]{{16}}) +(\d+) FUNC .* {re.escape(name)}$",
        output(readelf, "-sW", "--dyn-syms", file).partition("'.symtab'")[0],
        re.M,
    )
    return int(row[0], 16), int(row[1])


@pytest.fixture
def module(wheels: Bench, tmp_path: Path) -> Path:
    path = tmp_path / "module.so"
    path.write_bytes(wheels.contents().files[MODULE])
    return path


@pytest.fixture
def cubin(module: Path, tmp_path: Path, cuda_home: Path) -> tuple[int, Path]:
    """The module's cubin of the kernel for sm_86: where it lies, and a file with it."""
    folder = tmp_path / "cubins"
    folder.mkdir()
    subprocess.run(
        [cuda_home / "bin" / "cuobjdump", "-xelf", "lineinfo.sm_86", module],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    [file] = folder.glob("*.cubin")
    place = module.read_bytes().find(file.read_bytes())
    assert place > 0, "the cubin does not lie in the module as it is"
    return place, file


# -- device code ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_byte_of_a_kernel(wheels: Bench, cubin: tuple[int, Path], tool: Tool) -> None:
    place, file = cubin
    _, offset, size = sections(tool("readelf"), file)[f".text.{KERNEL}"]
    changed = wheels.contents()
    changed.change(MODULE, place + offset + 0x33)
    found = wheels.compare(changed)
    assert told(found) == [
        ("binary", "", "", ""),
        ("section", ".nv_fatbin", "", ""),
        ("kernel", ".nv_fatbin", "sm_86", KERNEL),
    ]
    binary, _, kernel = found.differences
    assert binary.what == "its device code differs; the host's part is the same"
    count = size // 16
    assert kernel.what == (
        f"SASS in 1 of {count} instructions: {size} bytes in both; "
        "the first that differs is at 0x33"
    )
    assert (kernel.place.file, kernel.place.unit) == (MODULE, UNIT)
    assert found.follows == (changed.at("RECORD"),)
    assert found.same == len(changed.files) - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (f".nv.constant0.{KERNEL}", ("kernel", "sm_86", KERNEL, "constants in bank 0")),
        (".note.nv.tkinfo", ("debug", "sm_86", "", "notes and debug information")),
        (".debug_line", ("debug", "sm_86", "", "notes and debug information")),
    ],
)
def test_one_byte_beside_the_code(
    wheels: Bench,
    cubin: tuple[int, Path],
    tool: Tool,
    section: str,
    expected: tuple[str, str, str, str],
) -> None:
    place, file = cubin
    _, offset, size = sections(tool("readelf"), file)[section]
    changed = wheels.contents()
    changed.change(MODULE, place + offset + size - 1)
    *above, last = wheels.compare(changed).differences
    assert [found.level for found in above] == ["binary", "section"]
    assert (last.level, last.place.image, last.place.symbol) == expected[:3]
    assert last.place.unit == UNIT
    assert last.what.startswith(expected[3])
    if not last.place.symbol:
        assert last.what.endswith(f": {section}")


@pytest.mark.slow
def test_images_in_another_order(wheels: Bench, module: Path, cuda_home: Path) -> None:
    """The first two of one container, which have the same headers' sizes."""
    listed = output(cuda_home / "bin" / "cuobjdump", "-lelf", module)
    assert re.findall(r"lineinfo\.(sm_\d+)", listed)[:2] == ["sm_80", "sm_86"]
    data = module.read_bytes()
    header = bytes.fromhex("50ed55ba01001000")
    start = data.find(header) + 16
    sizes = []
    for _ in range(2):  # 64 bytes of header at least, then the payload: u32 at 4, u64 at 8
        at = start + sum(sizes)
        head, payload = (
            int.from_bytes(data[at + a : at + b], "little") for a, b in ((4, 8), (8, 16))
        )
        sizes.append(head + payload)
    one, other = data[start : start + sizes[0]], data[start + sizes[0] :][: sizes[1]]
    changed = wheels.contents()
    changed.files[MODULE] = data[:start] + other + one + data[start + sum(sizes) :]
    *above, last = wheels.compare(changed).differences
    assert [found.level for found in above] == ["binary", "section"]
    assert (last.level, last.what) == ("image", "its images are in a different order")
    assert (last.one, last.other) == ("sm_80, sm_86, sm_89", "sm_86, sm_80, sm_89")
    assert last.place.unit == UNIT


# -- the host's part -----------------------------------------------------------------------------


@pytest.mark.slow
def test_one_byte_of_a_host_function(wheels: Bench, module: Path, tool: Tool) -> None:
    readelf = tool("readelf")
    address, offset, _ = sections(readelf, module)[".text"]
    function, size = symbol(readelf, module, "PyInit__lineinfo")
    changed = wheels.contents()
    changed.change(MODULE, function - address + offset + 5)
    found = wheels.compare(changed)
    assert told(found) == [
        ("binary", "", "", ""),
        ("section", ".text", "", ""),
        ("function", ".text", "", "PyInit__lineinfo"),
    ]
    assert found.differences[0].what == "the host's part differs; its device code is the same"
    assert f"{size} bytes in both" in found.differences[2].what
    assert "0x5" in found.differences[2].what


@pytest.mark.slow
def test_one_byte_of_headers_and_build_id(wheels: Bench, module: Path, tool: Tool) -> None:
    places = {
        "the headers": 0x30,  # flags
        "the section table": int(output(tool("readelf"), "-hW", module).partition(
            "Start of section headers:")[2].split()[0]) + 70,
    }  # fmt: skip
    for what, offset in places.items():
        changed = wheels.contents()
        changed.change(MODULE, offset)
        found = wheels.compare(changed)
        assert found.level == "binary", found.differences
        assert any(what in one.what for one in found.differences), found.differences
    changed = wheels.contents()
    _, offset, size = sections(tool("readelf"), module)[".note.gnu.build-id"]
    changed.change(MODULE, offset + size - 1)
    assert told(wheels.compare(changed)) == [
        ("binary", "", "", ""),
        ("section", ".note.gnu.build-id", "", ""),
    ]


# -- files and archive ---------------------------------------------------------------------------


@pytest.mark.slow
def test_one_line_of_metadata(wheels: Bench) -> None:
    changed = wheels.contents()
    metadata = changed.at("METADATA")
    lines = changed.files[metadata].decode().split("\n")
    number = next(n for n, line in enumerate(lines, 1) if line.startswith("License:"))
    lines[number - 1] = "License: MIT"
    changed.files[metadata] = "\n".join(lines).encode()
    [found] = wheels.compare(changed).differences
    assert (found.level, found.place.file, found.what) == ("text", metadata, f"line {number}")
    assert (found.one, found.other) == ("License: Apache-2.0", "License: MIT")


@pytest.mark.slow
def test_one_pin_of_the_lock(wheels: Bench) -> None:
    """The record and the statement tell of it too: what they are made from is named, once."""
    changed = wheels.contents()
    lock = changed.at("fatwheel.lock.json")
    content = json.loads(changed.files[lock])
    [ninja] = [one for one in content["toolchain"]["packages"] if one["name"] == "ninja"]
    before = ninja["version"]
    ninja["version"] = "1.13.1"
    ninja["filename"] = ninja["filename"].replace(before, "1.13.1")
    changed.files[lock] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    [found] = wheels.compare(changed).differences
    assert (found.level, found.place.file) == ("pins", lock)
    assert re.match(rf"ninja .*{re.escape(before)}.* became 1\.13\.1 ", found.what)


@pytest.mark.slow
def test_a_file_added_and_a_mode_changed(wheels: Bench) -> None:
    changed = wheels.contents()
    changed.add("fatwheel_selftest/extra.py", b"x = 1\n")
    [found] = wheels.compare(changed).differences
    assert (found.level, found.place.file) == ("files", "fatwheel_selftest/extra.py")
    assert found.what == "only in the second: 6 bytes"
    changed = wheels.contents()
    changed.infos[MODULE].external_attr ^= 0o111 << 16
    [found] = wheels.compare(changed).differences
    assert (found.level, found.place.file) == ("modes", MODULE)
    assert (found.one, found.other) in (("755", "644"), ("644", "755"))


@pytest.mark.slow
def test_the_same_files_packed_otherwise(wheels: Bench) -> None:
    again = compare_wheels(wheels.plain, wheels.contents().pack(wheels.folder / "x", "a.whl"))
    assert again.identical
    assert again.differences == ()
    packed = wheels.contents()
    packed.level = 1
    [found] = wheels.compare(packed).differences
    assert found.level == "archive"
    assert "compressed differently" in found.what
    assert MODULE in found.what or "more" in found.what
    moved = wheels.contents()
    moved.order = sorted((n for n in moved.files if not n.endswith("/RECORD")), reverse=True)
    assert {one.level for one in wheels.compare(moved).differences} == {"text", "archive"}
    timed = wheels.contents()
    timed.infos[MODULE].date_time = (2020, 2, 3, 4, 5, 6)
    [found] = wheels.compare(timed).differences
    assert (found.level, found.other) == ("archive", "2020-02-03 04:05:06")
    assert MODULE in found.what


@pytest.mark.slow
def test_the_command(wheels: Bench, selftest: tuple[Workbench, Outcome]) -> None:
    bench = selftest[0]
    changed = wheels.contents()
    changed.add("fatwheel_selftest/extra.py", b"x = 1\n")
    other = changed.pack(wheels.folder / "other", wheels.plain.name)
    done = bench.invoke("compare", str(wheels.plain), str(other))
    assert done.code == 15
    assert "fatwheel_selftest/extra.py: only in the second: 6 bytes" in done.out
    assert "not the same" in done.out
    assert "at the highest level in their lists of files" in done.err
    done = bench.invoke("compare", str(wheels.plain), str(wheels.plain), "--json")
    assert done.code == 0, done.err
    report: Mapping[str, Any] = json.loads(done.out)
    assert report["identical"]
    other.write_bytes(other.read_bytes()[:-1])
    assert bench.invoke("compare", str(wheels.plain), str(other)).code == 11
    assert bench.invoke("compare", str(wheels.plain), "absent.whl").code == 2
