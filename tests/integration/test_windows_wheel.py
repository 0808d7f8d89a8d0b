"""Windows wheels, stitched and thinned, in the hands of a real Windows CPython.

Each wheel has two extension modules that read their own device code at run time: what they find
is what CUDA's runtime would find. The expected containers are put together here by hand.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fatwheel.fatbin.container import parse_containers

from .conftest import Workbench
from .windows import WindowsPython
from .winwheel import build_extension, write_wheel

pytestmark = pytest.mark.slow

DEVICE = Path(__file__).parent.parent / "data" / "device"
PROJECT, VERSION = "fwdemo", "1.0"
FILES = {"_one": "fwdemo/_one.cp311-win_amd64.pyd", "_two": "fwdemo/_two.pyd"}

# Of one file by NVIDIA's fatbinary: cubin and PTX for 8.0, cubins for 9.0 and 12.x.
ELF_80, PTX_80, ELF_90A, ELF_120F = (
    bytes(entry.raw)
    for container in parse_containers((DEVICE / "none.fatbin").read_bytes())
    for entry in container.entries
)

Reader = Callable[[Path], dict[str, list[bytes]]]


def other_kernel(entry: bytes) -> bytes:
    """The same image with another name for its kernel: it belongs to another unit."""
    assert b"scale" in entry
    return entry.replace(b"scale", b"shift")


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def modules(*entries: bytes) -> dict[str, list[bytes]]:
    """The containers of a wheel's modules that hold these images, for each of their units."""
    unit, other = container(*entries), container(*map(other_kernel, entries))
    return {"_one": [unit], "_two": [unit, other]}


FOR_80 = modules(ELF_80, PTX_80)
FOR_90 = modules(ELF_90A)
FOR_120 = modules(ELF_120F)
# In the order of architectures, code before PTX.
FOR_ALL = modules(ELF_80, PTX_80, ELF_90A, ELF_120F)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(tmp_path_factory.mktemp("windows") / "bench")


@pytest.fixture(scope="module")
def gcc(tool: Callable[[str], str]) -> str:
    return tool("x86_64-w64-mingw32-gcc")


@pytest.fixture(scope="module")
def parts(
    gcc: str, windows_python: WindowsPython, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """Wheels for 80, 90 and 120 of one project."""
    folder = tmp_path_factory.mktemp("wheels")

    def make(name: str, contents: dict[str, list[bytes]]) -> Path:
        members = {"fwdemo/__init__.py": b""}
        for module, units in contents.items():
            place = folder / f"{name}{module}"
            members[FILES[module]] = build_extension(gcc, windows_python, place, module, units)
        return write_wheel(folder / name, PROJECT, VERSION, members)

    return make("a", FOR_80), make("b", FOR_90), make("c", FOR_120)


@pytest.fixture(scope="module")
def stitched(
    parts: tuple[Path, ...], bench: Workbench, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return stitch(bench, parts, tmp_path_factory.mktemp("stitched") / "out")


def stitch(bench: Workbench, wheels: Sequence[Path], out: Path) -> Path:
    return bench.wheel_in(out, "stitch", *map(str, wheels))


def thin(bench: Workbench, wheel: Path, out: Path, *options: str) -> Path:
    return bench.wheel_in(out, "thin", str(wheel), *options)


@pytest.fixture
def read(windows_python: WindowsPython, tmp_path: Path) -> Reader:
    """Installs a wheel with pip and gives what its modules find."""

    def read_(wheel: Path) -> dict[str, list[bytes]]:
        target = tmp_path / wheel.stem
        windows_python.install(wheel, target)
        return imported(windows_python, target)

    return read_


def imported(python: WindowsPython, target: Path) -> dict[str, list[bytes]]:
    """What each module of an installed wheel finds through its wrappers."""
    code = (
        "import json, fwdemo._one, fwdemo._two; print(json.dumps({"
        "m.__name__: [c.hex() for c in m.containers()] for m in (fwdemo._one, fwdemo._two)}))"
    )
    found = json.loads(python.call(code, target))
    return {
        name.rpartition(".")[2]: [bytes.fromhex(text) for text in texts]
        for name, texts in found.items()
    }


def check(found: dict[str, list[bytes]], expected: dict[str, list[bytes]]) -> None:
    """Compare containers without printing them."""
    assert images(found) == images(expected)
    assert found == expected, "the same images in another order or with other bytes"


def images(modules: dict[str, list[bytes]]) -> dict[str, list[Counter[tuple[str, str]]]]:
    return {
        name: [
            Counter((entry.kind, entry.arch.name) for entry in container.entries)
            for unit in units
            for container in parse_containers(unit)
        ]
        for name, units in modules.items()
    }


@pytest.mark.parametrize("number", range(3))
def test_before_stitching_each_holds_its_own(
    parts: tuple[Path, ...], read: Reader, number: int
) -> None:
    check(read(parts[number]), (FOR_80, FOR_90, FOR_120)[number])


def test_stitched_modules_find_the_union(stitched: Path, read: Reader) -> None:
    check(read(stitched), FOR_ALL)


def test_the_order_of_stitching_does_not_matter(
    parts: tuple[Path, ...], stitched: Path, bench: Workbench, tmp_path: Path
) -> None:
    """Nor whether it is done in one step or in two. The host's part is of the first wheel."""
    for_80, for_90, for_120 = parts
    again = stitch(bench, [for_80, for_120, for_90], tmp_path / "again")
    assert again.read_bytes() == stitched.read_bytes()
    half = stitch(bench, [for_80, for_90], tmp_path / "half")
    whole = stitch(bench, [half, for_120], tmp_path / "whole")
    assert whole.read_bytes() == stitched.read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--arch", "80", "--keep-ptx"), FOR_80),
        (("--arch", "80"), modules(ELF_80)),
        (("--arch", "90"), FOR_90),
        (("--arch", "120"), FOR_120),
        (("--arch", "80,120"), modules(ELF_80, ELF_120F)),
        # Nothing else runs there: the PTX is compiled when it is loaded.
        (("--arch", "100"), modules(PTX_80)),
    ],
    ids=["80 and PTX", "80", "90", "120", "80 and 120", "100"],
)
def test_thinned_modules_find_what_is_kept(
    stitched: Path,
    bench: Workbench,
    read: Reader,
    tmp_path: Path,
    options: tuple[str, ...],
    expected: dict[str, list[bytes]],
) -> None:
    thinned = thin(bench, stitched, tmp_path / "thin", *options)
    check(read(thinned), expected)


def test_a_single_module_is_thinned(
    stitched: Path, bench: Workbench, windows_python: WindowsPython, tmp_path: Path
) -> None:
    """And put in the place of the one that pip installed."""
    windows_python.install(stitched, tmp_path / "site")
    file = tmp_path / "site" / FILES["_two"]
    done = bench.invoke("thin", str(file), "--arch", "80,90", "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    shutil.copy(tmp_path / "out" / file.name, file)
    expected = {"_one": FOR_ALL["_one"], "_two": modules(ELF_80, ELF_90A)["_two"]}
    check(imported(windows_python, tmp_path / "site"), expected)


@pytest.mark.parametrize("number", range(4))
def test_verify_finds_nothing_wrong(
    parts: tuple[Path, ...], stitched: Path, bench: Workbench, number: int
) -> None:
    done = bench.invoke("verify", str([*parts, stitched][number]))
    assert done.code == 0, done.out + done.err


def test_thinned_and_stitched_again_it_is_as_before(
    stitched: Path, bench: Workbench, tmp_path: Path
) -> None:
    parts = [
        thin(bench, stitched, tmp_path / arch, "--arch", arch, *more)
        for arch, *more in (("80", "--keep-ptx"), ("90",), ("120",))
    ]
    again = stitch(bench, parts, tmp_path / "again")
    assert again.read_bytes() == stitched.read_bytes()


def test_cuobjdump_for_windows_finds_the_images(
    parts: tuple[Path, ...],
    stitched: Path,
    bench: Workbench,
    cuobjdump_exe: Callable[..., str],
    tmp_path: Path,
) -> None:
    thinned = thin(bench, stitched, tmp_path / "thin", "--arch", "80")
    for wheel, code, ptx in (
        (parts[0], ["80"], ["80"]),
        # cuobjdump does not show the suffix f.
        (stitched, ["80", "90a", "120"], ["80"]),
        (thinned, ["80"], []),
    ):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / wheel.stem)
        for module, units in (("_one", 1), ("_two", 2)):
            file = tmp_path / wheel.stem / FILES[module]
            listed = re.findall(r"\.sm_(\w+)\.cubin$", cuobjdump_exe("-lelf", file), re.MULTILINE)
            assert listed == code * units, f"{wheel.name}: {module}"
            if ptx:
                text = cuobjdump_exe("-lptx", file)
                listed = re.findall(r"\.sm_(\w+)\.ptx$", text, re.MULTILINE)
                assert listed == ptx * units, f"{wheel.name}: {module}"
