"""Stitching wheels; the device code is in `.fatbin` files unless the host matters."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.arch import parse_gpu_list
from fatwheel.edit.stitch import stitch_wheels
from fatwheel.edit.thin import thin_wheel
from fatwheel.errors import FatwheelError, StoreError, UsageError
from fatwheel.fatbin.images import selection_for

from ...helpers.deviceimages import (
    ONE,
    TWO,
    compute,
    container,
    images,
    read_wheel,
    sm,
    write_wheel,
)
from ...helpers.elflibraries import HOST, LIBRARY, RELOCATABLE, link, sections, shown_by_library

TEXT = {"demo/__init__.py": b"import demo._C\n", "demo/data.bin": bytes(100)}


def wheel(
    folder: Path,
    *raws: bytes,
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    **how: object,
) -> Path:
    """demo-VERSION with one container of these images."""
    given = {**TEXT, "demo/code.fatbin": container(*raws), **(files or {})}
    return write_wheel(folder, given, version=version, **how)  # type: ignore[arg-type]


def refusal(first: Path, *others: Path) -> str:
    """The message, without this test's folder; nothing must be left behind."""
    folder = first.parents[1]
    out = folder / "out"
    with pytest.raises(FatwheelError) as caught:
        stitch_wheels([first, *others], out)
    assert not out.exists(), "something was written"
    return f"{type(caught.value).__name__} {caught.value}".replace(f"{folder}/", "")


# -- what comes out ------------------------------------------------------------------------------


def test_a_stitched_wheel_holds_the_images_of_all_and_says_so(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), compute(80), version="1.0+cu123.sm80.ptx")
    b = wheel(tmp_path / "b", sm(89), version="1.0+cu123.sm89")
    made = stitch_wheels([a, b], tmp_path / "out")
    name = "demo-1.0+cu123.sm80.ptx.sm89"
    assert made.path == tmp_path / "out" / f"{name}-cp311-cp311-linux_x86_64.whl"
    assert made.archs == ("sm80.ptx", "sm89")
    assert made.notes == ()
    found = read_wheel(made.path)
    assert found["demo/code.fatbin"] == container(sm(80), compute(80), sm(89))
    assert {path: found[path] for path in TEXT} == TEXT
    assert b"\nVersion: 1.0+cu123.sm80.ptx.sm89\n" in found[f"{name}.dist-info/METADATA"]


def test_the_order_does_not_matter(tmp_path: Path) -> None:
    wheels = [
        wheel(tmp_path / str(number), sm(number), version=f"1.0+sm{number}")
        for number in (90, 80, 86)
    ]
    made = [stitch_wheels(order, tmp_path / "out") for order in itertools.permutations(wheels)]
    assert len({one.sha256 for one in made}) == 1
    assert made[0].archs == ("sm80", "sm86", "sm90")


def test_stitching_undoes_thinning(tmp_path: Path) -> None:
    record = {
        "schema": 1,
        "fronts": [
            {"virtual": f"compute_{number}", "codes": [f"sm_{number}"]} for number in (80, 86, 90)
        ],
        "units": [{"name": "a.o", "slices": {"sm_80": "1", "sm_86": "2", "sm_90": "3"}}],
    }
    fat = wheel(
        tmp_path / "fat",
        sm(80),
        sm(86),
        sm(90),
        more={"fatwheel.json": json.dumps(record).encode()},
    )

    def thin(archs: str) -> Path:
        folder = tmp_path / archs
        return thin_wheel(fat, selection_for(parse_gpu_list(archs)), folder).path

    again = stitch_wheels([thin("90"), thin("80")], tmp_path / "out")
    assert again.path.read_bytes() == thin("80,90").read_bytes()
    every = stitch_wheels([thin("80,90"), thin("86")], tmp_path / "out")
    assert every.path.read_bytes() == thin("80,86,90").read_bytes()


def test_names_of_folders_may_carry_the_version(tmp_path: Path) -> None:
    wheels = [
        wheel(
            tmp_path / version,
            sm(number),
            version=version,
            files={f"demo-{version}.data/scripts/run": b"#!python\n"},
        )
        for number, version in ((80, "1.0+sm80"), (90, "1.0+sm90"))
    ]
    made = stitch_wheels(wheels, tmp_path / "out")
    assert "demo-1.0+sm80.sm90.data/scripts/run" in read_wheel(made.path)


def test_a_wheel_without_record_adds_none(tmp_path: Path) -> None:
    made = stitch_wheels(
        [wheel(tmp_path / "a", sm(80)), wheel(tmp_path / "b", sm(90))], tmp_path / "out"
    )
    assert not [name for name in read_wheel(made.path) if name.endswith("fatwheel.json")]


def test_the_newest_time_wins(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), time=(2021, 1, 1, 0, 0, 0))
    b = wheel(tmp_path / "b", sm(90), time=(2022, 1, 1, 0, 0, 0))
    one, other = (stitch_wheels(order, tmp_path / "out").sha256 for order in ([a, b], [b, a]))
    assert one == other


def test_a_library_is_stitched_and_loads(tmp_path: Path, tool: Callable[[str], str]) -> None:
    first, second = container(sm(80), sm(90)), container(sm(80, TWO), compute(90, TWO))
    data = link(tool, tmp_path, LIBRARY, first=first, second=second)
    fat = write_wheel(tmp_path / "fat", {"demo.so": data})
    thin = {
        arch: thin_wheel(fat, selection_for(parse_gpu_list(arch)), tmp_path / "thin").path
        for arch in ("80", "90")
    }
    made = stitch_wheels([thin["90"], thin["80"]], tmp_path / "out")
    assert made.notes == ()
    assert shown_by_library(tmp_path, read_wheel(made.path)["demo.so"]) == first + second


def test_the_host_code_is_the_first_wheels_and_a_note_says_so(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    def library(number: int, host: str) -> bytes:
        first, second = container(sm(number, ONE)), container(sm(number, TWO))
        return link(tool, tmp_path, LIBRARY, host=host, first=first, second=second)

    ours = library(80, HOST)
    a = write_wheel(tmp_path / "a", {"demo.so": ours}, version="1.0+sm80")
    other = library(90, HOST.replace('"three"', '"three!"'))
    b = write_wheel(tmp_path / "b", {"demo.so": other}, version="1.0+sm90")
    made = stitch_wheels([a, b], tmp_path / "out")
    assert made.notes == (
        f"demo.so: the host code is that of {a.name}; in {b.name} it differs slightly",
    )
    stitched = read_wheel(made.path)["demo.so"]
    expected = container(sm(80, ONE), sm(90, ONE)) + container(sm(80, TWO), sm(90, TWO))
    assert shown_by_library(tmp_path, stitched) == expected
    assert b"three!" in other
    assert b"three!" not in stitched


def test_kernels_that_the_host_code_may_not_know_are_noted(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """As in wheels that were built apart from a source that leaves kernels out for some GPUs."""

    def built(name: str, host: str, image: bytes) -> Path:
        code = container(image)
        data = link(tool, tmp_path, LIBRARY, host=host, first=code, second=code)
        return write_wheel(tmp_path / name, {"demo.so": data}, version=f"1.0+{name}")

    old = built("sm80", HOST, sm(80, ONE))
    new = built("sm90", HOST.replace('"three"', '"three!"'), sm(90, {**ONE, **TWO}))
    first, _ = stitch_wheels([old, new], tmp_path / "out").notes
    assert first == (
        f"demo.so: not all of the wheels have the same kernels: two is only in {new.name}. The "
        f"host code, that of {old.name}, may be unable to launch such kernels: name the wheel that "
        "has all of them first, or build one wheel for all architectures"
    )
    first, _ = stitch_wheels([new, old], tmp_path / "out").notes
    assert first.endswith(f"the same kernels: two is only in {new.name}")


# -- memory ------------------------------------------------------------------------------------

STITCHES = """
import json, sys
from pathlib import Path
from fatwheel.edit.stitch import stitch_wheels

def peak():
    # What getrusage says counts the process that started this one, too.
    [line] = [one for one in open("/proc/self/status") if one.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

before = peak()
made = stitch_wheels([Path(one) for one in sys.argv[2:]], Path(sys.argv[1]))
print(json.dumps({"memory": peak() - before, "archs": made.archs}))
"""


def test_large_wheels_cost_no_memory(tmp_path: Path) -> None:
    """Two with 96 MiB each: while the tables of one are read, as much of it counts as memory as the
    system maps around each table; of both together it would be twice that."""
    code = (os.urandom(1024) + bytes(3072)) * 512

    def large(version: str, *numbers: int) -> Path:
        data = bytearray()
        for place in range(24):
            kernel = {f"kernel_{place}": [(0, 8)]}
            data += container(*(sm(number, kernel, code) for number in numbers))
        assert len(data) > 96 << 20
        return write_wheel(tmp_path / version, {"demo/code.fatbin": data}, version=version)

    wheels = [large("1.0+sm80.sm86", 80, 86), large("1.0+sm86.sm90", 86, 90)]
    done = subprocess.run(
        [sys.executable, "-c", STITCHES, str(tmp_path / "out"), *map(str, wheels)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["archs"] == ["sm80", "sm86", "sm90"]
    assert told["memory"] < 130 << 20, told


# -- refusals ------------------------------------------------------------------------------------


def test_two_different_wheels_are_needed(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80))
    link_to_it = tmp_path / "a" / "again.whl"
    os.link(a, link_to_it)
    assert refusal(a) == (
        "UsageError 1 wheel given, where at least two are needed\n  invoke stitch A.whl B.whl"
    )
    assert refusal(a, link_to_it) == "UsageError a/again.whl: the same file is given twice"
    with pytest.raises(UsageError, match="cannot read this file"):
        stitch_wheels([a, tmp_path / "missing.whl"], tmp_path / "out")


def test_wheels_of_other_projects_versions_and_platforms(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), version="1.0+cu118torch2.1.sm80")
    other = "cp310-abi3-win_amd64"
    b = wheel(tmp_path / "b", sm(90), version="1.1+cu121torch2.2.sm90", project="other", tag=other)
    assert refusal(a, b) == (
        f"StitchError {a.name} and {b.name} are not builds of the same wheel\n"
        "  project: demo and other\n"
        "  version: 1.0 and 1.1\n"
        "  version label, but for architectures: cu118torch2.1 and cu121torch2.2\n"
        "  Python tag: cp311 and cp310\n"
        "  ABI tag: cp311 and abi3\n"
        "  platform tag: linux_x86_64 and win_amd64\n"
        "  only the architectures may differ"
    )


def test_other_files_are_named(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), files={"demo/__init__.py": b"", "demo/old.py": b""})
    b = wheel(tmp_path / "b", sm(90), files={"demo/new.py": b""})
    assert refusal(a, b) == (
        f"StitchError {a.name} and {b.name} do not have the same files\n"
        f"  only in a/{a.name}: demo/old.py\n"
        f"  only in b/{b.name}: demo/new.py\n"
        "  only device code may differ: build the wheels from the same source in the same way"
    )
    c = wheel(tmp_path / "c", sm(90), files={"demo/old.py": b""}, description="another\n")
    assert refusal(a, c) == (
        f"StitchError {a.name} and {c.name} differ in files without device code\n"
        "  .dist-info/METADATA\n"
        "  demo/__init__.py\n"
        "  only device code may differ: build the wheels from the same source in the same way"
    )


def test_device_code_in_other_files_is_named(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), files={"demo/more.fatbin": container(sm(80, TWO))})
    b = wheel(tmp_path / "b", sm(90), files={"demo/more.fatbin": b"no device code"})
    assert refusal(a, b) == (
        f"StitchError {a.name} and {b.name} do not have the same files with device code\n"
        f"  only in a/{a.name}: demo/more.fatbin\n"
        "  only device code may differ: build the wheels from the same source in the same way"
    )


def test_kernels_that_not_all_wheels_have_are_noted(tmp_path: Path) -> None:
    """They may be left out for an architecture, or the sources differ: only the user can tell."""
    a = wheel(tmp_path / "a", sm(80, {**ONE, **TWO}), version="1.0+sm80")
    b = wheel(tmp_path / "b", sm(90, ONE), version="1.0+sm90")
    assert stitch_wheels([b, a], tmp_path / "out").notes == (
        f"demo/code.fatbin: not all of the wheels have the same kernels: two is only in {a.name}",
    )


def test_wheels_of_other_sources_are_refused(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80, ONE), version="1.0+sm80")
    b = wheel(tmp_path / "b", sm(90, TWO), version="1.0+sm90")
    assert refusal(a, b) == (
        f"StitchError demo/code.fatbin: {a.name} and {b.name} do not have the same kernels\n"
        f"  only in {a.name}: one\n"
        f"  only in {b.name}: two\n"
        "  stitch files that were built from the same source, with the same options"
    )


def test_other_parameters_are_shown(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80, {"one": [(0, 8)]}), version="1.0+sm80")
    b = wheel(tmp_path / "b", sm(90, {"one": [(0, 4)]}), version="1.0+sm90")
    message = refusal(a, b)
    assert message.startswith("StitchError demo/code.fatbin: the container of kernel one: sm_80 of")
    assert f"one: sm_90 of {b.name} has #0 of 4 bytes" in message


def test_two_images_for_one_architecture_contradict(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80), version="1.0+one")
    b = wheel(tmp_path / "b", sm(80, code=b"else"), version="1.0+one")
    assert "hold different images for sm_80" in refusal(a, b)


def test_damaged_files_are_named_with_their_wheel(tmp_path: Path) -> None:
    a = wheel(tmp_path / "a", sm(80))
    b = wheel(tmp_path / "b", sm(90), files={"demo/code.fatbin": container(sm(90))[:-1]})
    assert refusal(a, b).startswith(f"FormatError b/{b.name}: demo/code.fatbin: fatbin container")
    text = tmp_path / "b" / "text.whl"
    text.write_bytes(b"not a wheel")
    assert refusal(a, text) == (
        "FormatError b/text.whl: not a wheel: it does not start as a zip archive"
    )


def test_wheels_without_device_code(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_wheel(tmp_path / name, TEXT)
    a, b = (next((tmp_path / name).iterdir()) for name in ("a", "b"))
    assert refusal(a, b) == f"FormatError a/{a.name}: it has no device code"


def test_different_kinds_of_a_file(tmp_path: Path, tool: Callable[[str], str]) -> None:
    data = link(tool, tmp_path, LIBRARY, first=container(sm(80)), second=container(sm(80, TWO)))
    a = write_wheel(tmp_path / "a", {"demo.so": data})
    b = write_wheel(tmp_path / "b", {"demo.so": container(sm(90)) + container(sm(90, TWO))})
    assert refusal(a, b) == (
        "StitchError demo.so: the wheels hold different kinds of this file\n"
        f"  a/{a.name}: demo.so is elf for x86_64\n"
        f"  b/{b.name}: demo.so is fatbin for cuda"
    )


def test_no_input_is_replaced(tmp_path: Path) -> None:
    a = wheel(tmp_path, sm(80), version="1.0+sm80")
    b = wheel(tmp_path, sm(80), sm(90), version="1.0+sm80.sm90")
    before = b.read_bytes()
    with pytest.raises(UsageError, match="would replace the file that it is made from"):
        stitch_wheels([a, b], tmp_path)
    assert b.read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    wheels = [wheel(tmp_path / "a", sm(80)), wheel(tmp_path / "b", sm(90))]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write the wheel"):
        stitch_wheels(wheels, tmp_path / "file" / "out")


# -- device code that was linked, and kernels that were given up ---------------------------------


def test_linked_device_code_is_thinned_and_stitched(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """The relocatable code stays at its place, and none of it is lost for good."""
    parts = {
        "linked": container(sm(80, TWO), sm(90, TWO)),
        "relocatable_one": container(sm(80, TWO), sm(90, TWO), compute(90, TWO)),
        "relocatable_two": container(sm(80, {}), sm(90, {})),  # functions for others, no kernels
    }
    for name, data in parts.items():
        (tmp_path / f"{name}.bin").write_bytes(data)
    ordinary = container(sm(80), sm(90))
    library = link(tool, tmp_path, LIBRARY, first=ordinary, second=ordinary, more=RELOCATABLE)
    fat = write_wheel(tmp_path / "fat", {"demo.so": library})

    def thin_to(arch: str) -> Path:
        selection = selection_for(parse_gpu_list(arch))
        return thin_wheel(fat, selection, tmp_path / arch).path

    def held(wheel: Path) -> dict[str, list[list[str]]]:
        found = sections(read_wheel(wheel)["demo.so"])
        return {name: images(found[name][1]) for name in (".nv_fatbin", "__nv_relfatbin")}

    a, b = thin_to("80"), thin_to("90+ptx")
    assert held(a) == {".nv_fatbin": [["elf 80"]] * 3, "__nv_relfatbin": [["elf 80"]] * 2}
    assert held(b) == {
        ".nv_fatbin": [["elf 90"]] * 3,
        "__nv_relfatbin": [["elf 90", "ptx 90"], ["elf 90"]],
    }
    before, after = (sections(read_wheel(wheel)["demo.so"]) for wheel in (fat, a))
    assert after["__nv_relfatbin"][0] == before["__nv_relfatbin"][0], "relocatable code has moved"
    made = stitch_wheels([b, a], tmp_path / "out").path
    assert made.read_bytes() == thin_to("80,90+ptx").read_bytes()
    stitched = sections(read_wheel(made)["demo.so"])["__nv_relfatbin"]
    assert stitched == before["__nv_relfatbin"], "relocatable code is not what it was"
    assert shown_by_library(tmp_path, read_wheel(made)["demo.so"]) == 2 * ordinary


def test_wheels_with_kernels_given_up_can_be_stitched(tmp_path: Path) -> None:
    code = container(sm(80), sm(90)) + container(sm(90, TWO)) + container(sm(80, TWO), sm(90, TWO))
    fat = write_wheel(tmp_path / "fat", {"demo/code.fatbin": code})
    partial = replace(selection_for(parse_gpu_list("80")), partial=True)
    a = thin_wheel(fat, partial, tmp_path / "a")
    assert images(read_wheel(a.path)["demo/code.fatbin"]) == [["elf 80"], [], ["elf 80"]]
    assert a.notes == (
        "1 of 3 containers have nothing for GPUs of compute capability 8.0, as before: "
        "demo/code.fatbin: the container of kernel two has sm_90",
    )
    b = thin_wheel(fat, selection_for(parse_gpu_list("90")), tmp_path / "b")
    both = thin_wheel(fat, selection_for(parse_gpu_list("80,90")), tmp_path / "both")
    for order in ([a, b], [b, a]):
        made = stitch_wheels([part.path for part in order], tmp_path / "out")
        assert made.path.read_bytes() == both.path.read_bytes()


def test_tags_that_do_not_agree_are_noted(tmp_path: Path) -> None:
    """As in published wheels whose file was renamed, and nothing else."""
    fat = write_wheel(tmp_path / "fat", {"demo/code.fatbin": container(sm(80), sm(90))})
    renamed = fat.rename(fat.with_name(fat.name.replace("linux_x86_64", "manylinux_2_28_x86_64")))
    thin = [
        thin_wheel(renamed, selection_for(parse_gpu_list(arch)), tmp_path / arch)
        for arch in ("80", "90")
    ]
    for made in (*thin, stitch_wheels([part.path for part in thin], tmp_path / "out")):
        assert made.path.name.endswith("-cp311-cp311-manylinux_2_28_x86_64.whl")
        assert "the wheel's tags do not agree, as before" in made.notes[0]
