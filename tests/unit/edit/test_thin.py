"""Thinning wheels and files; the device code is in `.fatbin` files unless the host matters."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel import text
from fatwheel.arch import parse_gpu_list
from fatwheel.edit.stitch import stitch_wheels
from fatwheel.edit.survey import Edited
from fatwheel.edit.thin import thin
from fatwheel.errors import FatwheelError, FormatError, StitchError, StoreError, UsageError
from fatwheel.fatbin.container import parse_containers
from fatwheel.fatbin.images import selection_for
from fatwheel.provenance.record import slices_in
from fatwheel.verify.report import verify_wheel

from ...helpers import peimages
from ...helpers.cudawheels import Linker
from ...helpers.datasections import elf_library
from ...helpers.deviceimages import (
    ONE,
    TWO,
    compute,
    container,
    entries,
    images,
    raw,
    read_wheel,
    sm,
    write_wheel,
)
from ...helpers.elflibraries import LIBRARY, link, sections, shown_by_library

FAT = container(sm(80, ONE), compute(80, ONE), sm(90, ONE))
FILES = {"demo/code.fatbin": FAT, "demo/__init__.py": b"import demo._C\n"}
RECORD = {
    "schema": 1,
    "archs": ["80+ptx", "90"],
    "fronts": [
        {"virtual": "compute_80", "codes": ["sm_80", "compute_80"]},
        {"virtual": "compute_90", "codes": ["sm_90"]},
    ],
    "units": [{"name": "a.o", "slices": {"sm_80": "1", "compute_80": "2", "sm_90": "3"}}],
}


def thinned(path: Path, arch: str, out: Path) -> Edited:
    return thin(path, selection_for(parse_gpu_list(arch)), out)


def refusal(path: Path, arch: str = "80") -> str:
    """The message, without this test's folder; nothing must be left behind."""
    out = path.parent / "out"
    with pytest.raises(FatwheelError) as caught:
        thinned(path, arch, out)
    assert not out.exists() or not any(out.iterdir()), "something was written"
    return f"{type(caught.value).__name__} {caught.value}".replace(f"{path.parent}/", "")


# -- wheels --------------------------------------------------------------------------------------


def test_a_thin_wheel_holds_what_the_gpu_loads_and_says_so(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES, version="1.0+cu123.sm80.ptx.sm90")
    made = thinned(fat, "90", tmp_path / "out")
    assert made.path == tmp_path / "out" / "demo-1.0+cu123.sm90-cp311-cp311-linux_x86_64.whl"
    assert made.archs == ("sm90",)
    assert made.notes == ()
    data = made.path.read_bytes()
    assert (made.size, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    found = read_wheel(made.path)
    assert found["demo/code.fatbin"] == container(sm(90, ONE))
    assert found["demo/__init__.py"] == FILES["demo/__init__.py"]
    assert b"\nVersion: 1.0+cu123.sm90\n" in found["demo-1.0+cu123.sm90.dist-info/METADATA"]
    assert sorted(name.partition("/")[2] for name in found if ".dist-info/" in name) == [
        "METADATA", "RECORD", "WHEEL",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "version", "held"),
    [
        ("80", "1.0+sm80", ["elf 80"]),
        ("89+ptx", "1.0+sm80", ["elf 80"]),
        ("80+ptx", "1.0+sm80.ptx", ["elf 80", "ptx 80"]),
        ("80,90", "1.0+sm80.sm90", ["elf 80", "elf 90"]),
        ("120", "1.0+ptx80", ["ptx 80"]),
        ("90,120", "1.0+ptx80.sm90", ["ptx 80", "elf 90"]),
    ],
)
def test_labels_come_from_the_bytes(
    tmp_path: Path, arch: str, version: str, held: list[str]
) -> None:
    made = thinned(write_wheel(tmp_path, FILES), arch, tmp_path / "out")
    assert made.path.name == f"demo-{version}-cp311-cp311-linux_x86_64.whl"
    assert images(read_wheel(made.path)["demo/code.fatbin"]) == [held]


@pytest.mark.parametrize(
    ("code", "arch", "note"),
    [
        (FAT, "80+ptx", None),
        (
            FAT,
            "89+ptx",
            "there is no PTX for compute_89 in it; its PTX for compute_80 was not kept "
            "(--keep-ptx keeps it)",
        ),
        (
            FAT,
            "90,120+ptx",
            "there is no PTX for compute_120 in it; the PTX kept is for compute_80",
        ),
        (
            container(sm(80), sm(90)),
            "80+ptx",
            "there is no PTX for compute_80 in it, nor any other PTX",
        ),
        (FAT + container(sm(80)), "80+ptx", "only 1 of 2 containers have PTX for compute_80"),
    ],
)
def test_ptx_that_is_asked_for_and_not_there_is_noted(
    tmp_path: Path, code: bytes, arch: str, note: str | None
) -> None:
    wheel = write_wheel(tmp_path, {"demo/code.fatbin": code})
    file = tmp_path / "code.fatbin"
    file.write_bytes(code)
    for path in (wheel, file):
        made = thinned(path, arch, tmp_path / "out")
        assert made.notes == (() if note is None else (note,))


def test_all_ptx_is_kept_without_a_note(tmp_path: Path) -> None:
    selection = selection_for(parse_gpu_list("89+ptx")).with_every_ptx()
    made = thin(write_wheel(tmp_path, FILES), selection, tmp_path / "out")
    assert made.notes == ()
    assert made.archs == ("sm80.ptx",)


def test_a_gpu_with_another_number_for_the_same_code_is_not_served_for_certain(
    tmp_path: Path,
) -> None:
    """The code stays where it is kept for the sake of it, as other kernels are served."""
    code = container(sm(101, ONE), sm(80, ONE)) + container(sm(110, TWO))
    file = {"demo/a.fatbin": code}
    assert "nothing in it runs" in refusal(write_wheel(tmp_path, file), "120")
    made = thinned(write_wheel(tmp_path, file), "80,110", tmp_path / "out")
    assert made.archs == ("sm80", "sm101", "sm110")
    assert "1 of 2 containers have nothing for GPUs of compute capability 11.0" in made.notes[1]


def test_thinning_again_gives_the_same_bytes(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES, more={"fatwheel.json": json.dumps(RECORD).encode()})
    once = thinned(fat, "80", tmp_path / "once")
    twice = thinned(once.path, "80", tmp_path / "twice")
    assert once.path.read_bytes() == twice.path.read_bytes()


def test_the_record_and_names_follow_and_signatures_go(tmp_path: Path) -> None:
    signed = {"fatwheel.json": json.dumps(RECORD).encode(), "RECORD.jws": b"{}"}
    files = {**FILES, "demo-1.0.data/scripts/run": b"#!python\n"}
    made = thinned(write_wheel(tmp_path, files, more=signed), "90", tmp_path / "out")
    found = read_wheel(made.path)
    assert json.loads(found["demo-1.0+sm90.dist-info/fatwheel.json"])["archs"] == ["90"]
    assert "demo-1.0+sm90.data/scripts/run" in found
    assert not [name for name in found if name.endswith(".jws")]


def test_all_times_are_the_newest_of_the_wheel(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES, time=(2021, 2, 3, 4, 5, 6))
    with zipfile.ZipFile(fat) as archive:
        contents = {info: archive.read(info) for info in archive.infolist()}
    next(iter(contents)).date_time = (1999, 1, 1, 0, 0, 0)
    with zipfile.ZipFile(fat, "w") as archive:
        for info, data in contents.items():
            archive.writestr(info, data)
    made = thinned(fat, "80", tmp_path / "out")
    with zipfile.ZipFile(made.path) as archive:
        times = {info.date_time for info in archive.infolist()}
    assert times == {(2021, 2, 3, 4, 5, 6)}


@pytest.mark.parametrize("name", ["demo/__init__.py", "demo/a.fatbin"])
def test_a_wheel_with_files_that_record_does_not_list_so_is_refused(
    tmp_path: Path, name: str
) -> None:
    """RECORD is made anew: it would vouch for what somebody put there."""
    files = {**FILES, "demo/__init__.py": b"good = 1", "demo/a.fatbin": container(sm(80, ONE))}
    fat = write_wheel(tmp_path, files)
    with zipfile.ZipFile(fat) as archive:
        contents = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(fat, "w") as archive:
        for info, data in contents.items():
            spoiled = data.replace(b"good", b"evil") + bytes(8 * (info.filename == "demo/a.fatbin"))
            archive.writestr(info, spoiled if info.filename == name else data)
    message = refusal(fat)
    assert "the wheel's files are not those that its RECORD lists" in message
    assert f"{name}: its sha256 is not the one in RECORD" in message


def test_files_that_only_look_like_device_code_are_carried(tmp_path: Path) -> None:
    files = {**FILES, "demo/kernel.cubin": sm(75)[64:], "demo/empty.bin": b""}
    found = read_wheel(thinned(write_wheel(tmp_path, files), "80", tmp_path / "out").path)
    assert found["demo/kernel.cubin"] == files["demo/kernel.cubin"]
    assert found["demo/empty.bin"] == b""


def test_libraries_that_are_not_read_are_carried_unless_device_code_is_in_them(
    tmp_path: Path,
) -> None:
    for_x86 = struct.pack("<16sHH", b"\x7fELF\1\1\1", 3, 3) + bytes(100)
    packed = struct.pack("<16sHHIQQQ", b"\x7fELF\2\1\1", 2, 62, 1, 0, 0, 0) + bytes(100)
    others = {"demo/attach_x86.so": for_x86, "demo/packed": packed}
    fat = write_wheel(tmp_path, {**FILES, **others})
    made = thinned(fat, "80", tmp_path / "out")
    assert made.notes == ()
    found = read_wheel(made.path)
    assert {name: found[name] for name in others} == others
    shutil.rmtree(tmp_path / "out")
    for name, data in others.items():
        hidden = write_wheel(tmp_path / "in", {**FILES, name: data + FAT})
        message = refusal(hidden)
        assert f"{name}: device code that cannot be read is in it" in message


def test_a_gpu_that_was_served_in_part_still_is_and_a_note_says_so(tmp_path: Path) -> None:
    code = container(sm(80, ONE), sm(86, ONE)) + container(sm(90, TWO), sm(80, TWO))
    old = container(sm(75, {"old": []}), sm(80, {"old": []}))
    fat = write_wheel(tmp_path, {"demo/a.fatbin": code, "demo/b.fatbin": old})
    made = thinned(fat, "75,80,90", tmp_path / "out")
    assert made.notes == (
        "2 of 3 containers have nothing for GPUs of compute capability 7.5, as before: "
        "demo/a.fatbin: the container of kernel one has sm_80, sm_86",
        "2 of 3 containers have nothing for GPUs of compute capability 9.0, as before: "
        "demo/a.fatbin: the container of kernel one has sm_80, sm_86",
    )
    found = read_wheel(made.path)
    assert images(found["demo/a.fatbin"]) == [["elf 80"], ["elf 80", "elf 90"]]
    assert images(found["demo/b.fatbin"]) == [["elf 75", "elf 80"]]


def test_containers_without_kernels_may_be_left_empty(tmp_path: Path) -> None:
    code = FAT + container(sm(90, {}))
    made = thinned(write_wheel(tmp_path, {"demo/a.fatbin": code}), "80", tmp_path / "out")
    assert images(read_wheel(made.path)["demo/a.fatbin"]) == [["elf 80"], []]
    assert made.notes == ()


def test_images_of_other_kinds_stay(tmp_path: Path) -> None:
    code = container(sm(80), sm(90), raw("lto", 75, b"ir"), raw("other", 75, b"what"))
    made = thinned(write_wheel(tmp_path, {"demo/a.fatbin": code}), "80", tmp_path / "out")
    assert images(read_wheel(made.path)["demo/a.fatbin"]) == [["lto 75", "other 75", "elf 80"]]
    assert made.archs == ("sm80",)


# -- code that libraries load themselves ---------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, tool: Callable[[str], str]) -> bytes:
    """With two containers of the usual kind, for 80 and 90, and among its data others for 75."""
    data = container(sm(75)) + container(sm(75), compute(75))
    (tmp_path / "data.bin").write_bytes(data)
    more = '.section .mine,"aw"\n.incbin "data.bin"\n'
    folder = tmp_path
    codes = [container(sm(80, names), sm(90, names)) for names in (ONE, TWO)]
    return link(tool, folder, LIBRARY, first=codes[0], second=codes[1], more=more)


def test_code_among_data_stays_and_is_told(tmp_path: Path, library: bytes) -> None:
    size = len(container(sm(75)) + container(sm(75), compute(75)))
    made = thinned(write_wheel(tmp_path, {"demo/a.so": library}), "90", tmp_path / "out")
    assert made.archs == ("sm75.ptx", "sm90"), "a version says no less than what is inside"
    assert made.notes == (
        "left as it is, because libraries load it themselves: demo/a.so: 2 containers in .mine "
        f"({text.size(size)})",
    )
    after = read_wheel(made.path)["demo/a.so"]
    assert sections(after)[".mine"] == sections(library)[".mine"]
    assert images(sections(after)[".nv_fatbin"][1]) == [["elf 90"], ["elf 90"]]


def test_gpus_that_only_such_code_may_serve_are_not_refused(tmp_path: Path, library: bytes) -> None:
    (tmp_path / "a.so").write_bytes(library)
    made = thin(
        tmp_path / "a.so",
        replace(selection_for(parse_gpu_list("75")), partial=True),
        tmp_path / "out",
    )
    assert made.archs == ("sm75.ptx",)
    assert len(made.notes) == 2


def test_parts_of_a_library_with_such_code_are_stitched_to_the_whole(
    tmp_path: Path, library: bytes
) -> None:
    fat = write_wheel(tmp_path, {"demo/a.so": library, "demo/b.cubin": sm(70)[64:]})
    parts = [thinned(fat, arch, tmp_path / arch).path for arch in ("80", "90")]
    whole = thinned(fat, "80,90", tmp_path / "whole")
    assert whole.archs == ("sm70", "sm75.ptx", "sm80", "sm90")
    for number, order in enumerate((parts, parts[::-1])):
        made = stitch_wheels(order, tmp_path / str(number))
        assert made.path.read_bytes() == whole.path.read_bytes()


def test_cubins_stay_under_their_names(tmp_path: Path) -> None:
    cubin = sm(75)[64:]
    files = {**FILES, "demo/a_sm75.cubin": cubin, "demo/b_sm75.cubin": cubin}
    made = thinned(write_wheel(tmp_path, files), "80", tmp_path / "out")
    assert made.archs == ("sm75", "sm80")
    size = text.size(2 * len(cubin))
    assert made.notes == (
        f"left as it is, because libraries load it themselves: 2 cubin files ({size})",
    )
    found = read_wheel(made.path)
    assert found["demo/a_sm75.cubin"] == found["demo/b_sm75.cubin"] == cubin


def test_nothing_is_written_where_there_is_nothing_to_select(tmp_path: Path) -> None:
    """The library's own container defines no kernel, and nothing leads to it, as in cuFFT."""
    data = elf_library({".nv_fatbin": container(sm(52, {})), ".data": container(sm(75))})
    fat = write_wheel(tmp_path, {"demo/a.so": data, "demo/b.cubin": sm(70)[64:]})
    sizes = [text.size(len(one)) for one in (container(sm(75)), sm(70)[64:])]
    message = "there is nothing to select: libraries load its device code themselves"
    assert refusal(fat) == (
        f"FormatError {fat.name}: {message}\n"
        f"  demo/a.so: 1 container in .data ({sizes[0]})\n"
        f"  1 cubin file ({sizes[1]})"
    )
    (tmp_path / "a.so").write_bytes(data)
    assert refusal(tmp_path / "a.so").startswith(f"FormatError a.so: {message}")


def test_a_library_that_uses_none_of_its_containers_stays_beside_others(
    tmp_path: Path, library: bytes, tool: Callable[[str], str]
) -> None:
    """Linkers may drop wrappers, and leave containers that define no kernel, as in libcufftw."""
    plain = Linker(tmp_path, tool).library(container(sm(52, {}), sm(90, {})))
    fat = write_wheel(tmp_path, {"demo/a.so": library, "demo/b.so": plain})
    parts = [thinned(fat, arch, tmp_path / arch).path for arch in ("80", "90")]
    whole = thinned(fat, "80,90", tmp_path / "whole")
    assert whole.archs == ("sm52", "sm75.ptx", "sm80", "sm90")
    for path in (*parts, whole.path):
        assert read_wheel(path)["demo/b.so"] == plain
        assert verify_wheel(path).result_of("label") == "ok"
    assert stitch_wheels(parts, tmp_path / "both").path.read_bytes() == whole.path.read_bytes()


def test_that_other_code_of_libraries_is_lost_in_stitching_is_told(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Built apart, each has it for the architecture that it was built for."""
    wheels = []
    for arch in (80, 90):
        folder = tmp_path / str(arch)
        folder.mkdir()
        (folder / "data.bin").write_bytes(container(sm(arch, ONE)))
        more = '.section .mine,"aw"\n.incbin "data.bin"\n'
        codes = [container(sm(arch, names)) for names in (ONE, TWO)]
        data = link(tool, folder, LIBRARY, first=codes[0], second=codes[1], more=more)
        wheels.append(write_wheel(folder, {"demo/a.so": data}, version=f"1.0+sm{arch}"))
    made = stitch_wheels(wheels, tmp_path / "out")
    assert (
        "the device code that libraries load themselves is that of "
        f"{wheels[0].name}; in {wheels[1].name} it is for other architectures"
    ) in made.notes


# -- measured and not written --------------------------------------------------------------------


def measured(path: Path, arch: str, out: Path, *, temporary: Path) -> Edited:
    """The result of a dry run, which must leave nothing behind."""
    made = thin(path, selection_for(parse_gpu_list(arch)), out, dry_run=True)
    assert not out.exists()
    assert list(temporary.iterdir()) == []
    assert made.sha256 is None
    return made


@pytest.mark.parametrize("arch", ["80", "90", "80,89+ptx", "120"])
@pytest.mark.parametrize("kind", ["wheel", "record", "fatbin", "library"])
def test_a_dry_run_tells_what_is_written_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, kind: str
) -> None:
    """Its size above all: that of the files, of what zip adds to them, and of RECORD."""
    large = {
        "demo/words.txt": b"words and more words " * 200_000,
        "demo/noise": os.urandom(3 << 20),
    }
    library = peimages.library(entries(sm(80), sm(90)), entries(sm(80), compute(80))).write()
    path = tmp_path / "demo.fatbin"
    path.write_bytes(FAT)
    if kind == "library":
        path = tmp_path / "demo.dll"
        path.write_bytes(library)
        arch = "80" if arch in ("90", "120") else arch
    elif kind != "fatbin":
        record = {"fatwheel.json": json.dumps(RECORD).encode()} if kind == "record" else None
        path = write_wheel(tmp_path, {**FILES, **large}, more=record)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    told = measured(path, arch, tmp_path / "out", temporary=temporary)
    made = thinned(path, arch, tmp_path / "out")
    assert told == replace(made, sha256=None)
    assert told.size == made.path.stat().st_size
    assert told.before == path.stat().st_size


def test_a_dry_run_refuses_what_could_not_be_written(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES)
    selection = selection_for(parse_gpu_list("80"))
    made = thin(fat, selection, tmp_path / "out", dry_run=True)
    with pytest.raises(UsageError, match="would replace another of these files"):
        thin(fat, selection, tmp_path / "out", keep=[made.path], dry_run=True)
    with pytest.raises(StitchError, match="nothing in it runs on"):
        thin(fat, selection_for(parse_gpu_list("75")), tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()


# -- refusals ------------------------------------------------------------------------------------


def test_a_gpu_that_nothing_serves_is_refused(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES)
    assert refusal(fat, "80,75") == (
        f"StitchError {fat.name}: nothing in it runs on GPUs of compute capability 7.5\n"
        "  it holds sm_80, compute_80, sm_90; `invoke inspect` shows which GPUs can run them"
    )


def test_a_container_that_would_be_left_with_nothing_is_refused(tmp_path: Path) -> None:
    code = FAT + container(sm(90, TWO), compute(90, TWO)) + container(sm(75, {"three": []}))
    code += 2 * container(compute(90, TWO), sm(90, TWO))
    fat = write_wheel(tmp_path, {"demo/a.fatbin": code})
    assert refusal(fat, "80") == (
        f"StitchError {fat.name}: 4 containers would be left with nothing that runs on these GPUs\n"
        "  demo/a.fatbin: the container of kernel two has sm_90, compute_90; so do 2 more\n"
        "  demo/a.fatbin: the container of kernel three has sm_75\n"
        "  also name GPUs that they support (`invoke inspect` shows which), or drop those "
        "kernels: --partial"
    )
    with pytest.raises(StitchError):  # PTX that none of these GPUs can use does not help
        thin(fat, selection_for(parse_gpu_list("80")).with_every_ptx(), tmp_path / "out")


def recorded(unit_of: dict[str, bytes], wrong: str = "") -> dict[str, bytes]:
    """The files of a wheel with these containers, and a record of them as units."""
    slices = {
        name: {**slices_in(parse_containers(code)[0].entries)}
        | ({"sm_103": SHA} if name == wrong else {})
        for name, code in unit_of.items() if name
    }  # fmt: skip
    fronts = [
        {"virtual": f"compute_{arch}", "codes": [f"sm_{arch}"]} for arch in ("80", "89", "90")
    ]
    units = [{"name": name, "slices": found} for name, found in slices.items()]
    record = {"schema": 1, "archs": ["80", "89", "90"], "fronts": fronts, "units": units}
    return {
        "demo/code.fatbin": b"".join(unit_of.values()),
        "demo-1.0.dist-info/fatwheel.json": json.dumps(record).encode(),
    }


SHA = "0123456789abcdef" * 4
OF_UNITS = {
    "base": container(sm(80, ONE), sm(89, ONE), sm(90, ONE)),
    "hopper": container(sm(90, TWO)),
}


def test_units_that_were_built_for_other_gpus_alone_are_left_out(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, recorded(OF_UNITS))
    made = thinned(fat, "89", tmp_path / "out")
    assert (made.archs, made.notes) == (("sm89",), ())
    assert images(read_wheel(made.path)["demo/code.fatbin"]) == [["elf 89"], []]
    both = thinned(fat, "80,90", tmp_path / "both")
    assert both.archs == ("sm80", "sm90")
    again = thinned(both.path, "80", tmp_path / "again")
    assert again.path.read_bytes() == thinned(fat, "80", tmp_path / "once").path.read_bytes()


@pytest.mark.parametrize(
    ("arch", "unit_of", "wrong"),
    [
        ("120", OF_UNITS, ""),  # nothing was built for that
        ("89", OF_UNITS, "hopper"),  # the record names a slice that is not there
        ("89", {**OF_UNITS, "": container(sm(90, {"three": []}))}, ""),  # it is not in the record
    ],
)
def test_what_a_record_does_not_prove_is_refused(
    tmp_path: Path, arch: str, unit_of: dict[str, bytes], wrong: str
) -> None:
    fat = write_wheel(tmp_path, recorded(unit_of, wrong))
    with pytest.raises(StitchError):
        thinned(fat, arch, tmp_path / "out")


def test_files_without_device_code_are_refused(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, {"demo/__init__.py": b"", "demo/empty.fatbin": container()})
    assert refusal(fat) == f"FormatError {fat.name}: it has no device code"
    empty = tmp_path / "empty.fatbin"
    empty.write_bytes(container())
    assert refusal(empty) == "FormatError empty.fatbin: it has no device code"


def test_a_cubin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cubin"
    path.write_bytes(sm(80)[64:])
    assert refusal(path) == (
        "FormatError a.cubin: a cubin is a single image: there is nothing to select"
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"plain text", "not a kind of file that is known here"),
        (FAT[:-1], "the container claims"),
        (b"PK\x03\x04 but no zip archive", "the zip archive is cut off"),
        (b"\x7fELF", "is cut off"),
        (b"!<arch>\n", "static libraries are not supported"),
    ],
)
def test_other_and_damaged_files_are_refused(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    message = refusal(path)
    assert message.startswith("FormatError file: ")
    assert text in message


def test_a_damaged_file_in_a_wheel_is_named(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, {**FILES, "demo/b.fatbin": FAT[:-1]})
    assert f"FormatError {fat.name}: demo/b.fatbin: fatbin container at offset 0x0" in refusal(fat)


def test_a_wheel_whose_names_do_not_agree_is_refused(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES).rename(tmp_path / "demo-2.0-cp311-cp311-linux_x86_64.whl")
    assert "the wheel's names do not agree" in refusal(fat)


def test_a_file_that_cannot_be_read_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read this file: No such file or directory"):
        thinned(tmp_path / "nowhere.whl", "80", tmp_path / "out")
    with pytest.raises(UsageError, match="cannot read this file: it is a folder"):
        thinned(tmp_path, "80", tmp_path / "out")


def test_the_file_itself_is_never_replaced(tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, FILES)
    once = thinned(fat, "80", tmp_path)
    before = once.path.read_bytes()
    with pytest.raises(UsageError) as caught:
        thinned(once.path, "80", tmp_path)
    assert str(caught.value) == (
        f"{once.path}: the result would replace the file that it is made from\n"
        "  name another folder: --out FOLDER"
    )
    assert once.path.read_bytes() == before
    single = tmp_path / "a.fatbin"
    single.write_bytes(FAT)
    with pytest.raises(UsageError, match="would replace"):
        thinned(single, "80", tmp_path)


@pytest.mark.parametrize("kind", ["wheel", "fatbin"])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk is full in the middle of it."""
    source = tmp_path / "a.fatbin"
    source.write_bytes(FAT)
    path = write_wheel(tmp_path, FILES) if kind == "wheel" else source
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        thinned(path, "80", tmp_path / "a file" / "out")
    assert caught.value.hint == "use a folder, not a file: --out FOLDER"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        thinned(path, "80", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fat = write_wheel(tmp_path, FILES)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="temporary copy") as caught:
        thinned(fat, "80", tmp_path / "out")
    assert caught.value.where == str(fat)


# -- single files --------------------------------------------------------------------------------


def test_a_single_file_keeps_its_name_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.fatbin"
    path.write_bytes(FAT + bytes(24) + container(sm(80, TWO), sm(90, TWO)))
    path.chmod(0o754)
    made = thinned(path, "90", tmp_path / "out")
    assert made.path == tmp_path / "out" / "a.fatbin"
    assert made.path.read_bytes() == container(sm(90, ONE)) + container(sm(90, TWO))
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o754
    assert made.archs == ("sm90",)


def test_a_library_is_thinned_and_loads(tmp_path: Path, tool: Callable[[str], str]) -> None:
    first, second = (sm(80, ONE), sm(90, ONE)), (sm(80, TWO), compute(80, TWO))
    data = link(tool, tmp_path, LIBRARY, first=container(*first), second=container(*second))
    library = tmp_path / "demo.so"
    library.write_bytes(data)
    made = thinned(library, "90+ptx", tmp_path / "out")
    expected = container(sm(90, ONE)) + container(compute(80, TWO))
    assert made.archs == ("ptx80", "sm90")
    assert shown_by_library(tmp_path, made.path.read_bytes()) == expected
    wheel = write_wheel(tmp_path, {"demo.so": data})
    in_wheel = read_wheel(thinned(wheel, "90", tmp_path / "out").path)["demo.so"]
    assert shown_by_library(tmp_path, in_wheel) == expected


def test_a_signature_that_is_lost_is_noted(tmp_path: Path) -> None:
    image = peimages.library(entries(sm(80), sm(90)))
    signed = replace(image, signature=struct.pack("<IHH", 16, 0x200, 2) + bytes(8)).write()
    note = "its Authenticode signature was dropped, because what it signed has changed"
    library = tmp_path / "demo.dll"
    library.write_bytes(signed)
    [found] = thinned(library, "80", tmp_path / "out").notes
    assert found.startswith(note)
    wheel = write_wheel(tmp_path, {"demo/demo.dll": signed}, tag="cp311-cp311-win_amd64")
    [found] = thinned(wheel, "80", tmp_path / "out").notes
    assert found.startswith(f"demo/demo.dll: {note}")


def test_a_library_of_another_machine_is_refused(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    data = bytearray(link(tool, tmp_path, LIBRARY, first=FAT, second=container(sm(80, TWO))))
    data[18] = 183  # e_machine: aarch64
    wheel = write_wheel(tmp_path / "in", {"demo.so": bytes(data)})
    message = refusal(wheel)
    assert message.startswith(f"FormatError {wheel.name}: demo.so: ")
    assert "aarch64" in message
    data[4] = 1  # EI_CLASS: 32-bit
    library = tmp_path / "demo.so"
    library.write_bytes(bytes(data))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert refusal(library).startswith("FormatError demo.so: ")


LINKED_CODE = """
.section {section},"a"
.align 8
container: .incbin "code.bin"
.section .nvFatBinSegment,"aw"
.align 8
.long 0x466243B1, 2
.quad container, container
.section .note.GNU-stack,"",@progbits
"""


@pytest.mark.parametrize("options", [["-c"], ["-shared"]], ids=["object", "library"])
def test_device_code_that_is_relocatable_only_is_refused(
    tmp_path: Path, tool: Callable[[str], str], options: list[str]
) -> None:
    """As nvcc -rdc=true leaves it in objects."""
    (tmp_path / "code.bin").write_bytes(FAT)
    (tmp_path / "code.s").write_text(LINKED_CODE.format(section="__nv_relfatbin"))
    command = [tool("g++"), *options, "code.s", "-o", "code"]
    subprocess.run(command, cwd=tmp_path, check=True)
    message = refusal(tmp_path / "code")
    assert message.startswith("FormatError code: ")
    assert "device code" in message
    assert "-rdc=true" in message


def test_a_damaged_library_is_refused(tmp_path: Path, tool: Callable[[str], str]) -> None:
    data = link(tool, tmp_path, LIBRARY, first=FAT, second=container(sm(80, TWO)))
    library = tmp_path / "demo.so"
    library.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError) as caught:
        thinned(library, "80", tmp_path / "out")
    assert str(library) in str(caught.value)
