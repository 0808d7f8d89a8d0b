"""The code that runs inside of a Windows build container, with Windows' own Python and NVIDIA's
own programs for Windows. What stands in is cl.exe and link.exe: see `msvc`."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.arch import parse_arch
from fatwheel.compilers.hosts import MsvcFamily
from fatwheel.decoders import payload
from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Front
from fatwheel.storage.store import Store
from fatwheel.worker.context import digest, unit_from_wire
from fatwheel.worker.inside import Message
from fatwheel.worker.preprocess import unit_header

from .msvc import BuildTools, install_build_tools, run_tool
from .windows import WindowsPython, Wine, windows_path
from .windowsinside import PROJECT, ROOT, Container

pytestmark = pytest.mark.slow

FRONTS = tuple(Front(parse_arch(number), (f"sm_{number}",)) for number in ("80", "89"))


LAST_MACRO = "NUMBER_799_OF_MANY_MACROS_THAT_SAY_NOTHING=799"  # of the project's setup.py
KERNELS = {".text.scale", ".text._Z5shiftILi1EEvPi", ".text._Z5shiftILi2EEvPi"}


@pytest.fixture(scope="module")
def build_tools(
    tool: Callable[[str], str], wine: Wine, tmp_path_factory: pytest.TempPathFactory
) -> BuildTools:
    for name in ("clang", "lld-link"):
        tool(name)
    gcc = tool("x86_64-w64-mingw32-gcc")
    return install_build_tools(tmp_path_factory.mktemp("build-tools"), gcc, wine)


@dataclass(frozen=True)
class Built:
    """A build of the demonstration project, step by step."""

    container: Container
    message: Message
    captured: dict[str, Any]
    made: list[dict[str, Any]]
    wheel: Path


@pytest.fixture(scope="module")
def built(
    build_tools: BuildTools,
    windows_python: WindowsPython,
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    container = Container(tmp_path_factory.mktemp("container"), windows_python, build_tools)
    message = container.prepare(FRONTS)
    captured = container.capture(message)
    made = container.shard(message, captured["lookup"]["pending"])
    wheel = container.assemble(message, captured["units"])
    return Built(container, message, captured, made, wheel)


def test_modules_for_containers_import_on_windows(windows_python: WindowsPython) -> None:
    """The rooms that run inside containers, as docs/architecture.md names them."""
    rooms = [ROOT / "fatwheel" / name for name in ("compilers", "fatbin", "provision", "worker")]
    paths = sorted(path for room in rooms for path in room.glob("[!_]*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert len(names) > 30, "the rooms lie elsewhere"
    code = "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)\nprint(len(sys.argv) - 2)"
    assert windows_python.run("-c", code, ROOT, *names).strip() == str(len(names))


def test_objects_of_microsoft_s_compiler_are_read(
    build_tools: BuildTools,
    cuobjdump_exe: Callable[..., str],
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """The one object that NVIDIA ships which cl and nvcc made: its section names are long."""
    archive = build_tools.cuda_home / "lib" / "x64" / "cudadevrt.lib"
    ar = [tool("x86_64-w64-mingw32-ar"), "p", str(archive)]
    (tmp_path / "a.obj").write_bytes(subprocess.run(ar, capture_output=True, check=True).stdout)
    found = read_binary(memoryview((tmp_path / "a.obj").read_bytes()))
    assert (found.format, found.machine, found.linked) == ("coff", "x86_64", False)
    listing = subprocess.run(
        [tool("x86_64-w64-mingw32-objdump"), "-h", str(tmp_path / "a.obj")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "__nv_relfatbin" in listing
    images = [entry for container in found.containers for entry in container.entries]
    listed = re.findall(r"\.cubin", cuobjdump_exe("--list-elf", archive))
    assert len(images) == len(listed) > 0


# -- capture ------------------------------------------------------------------------------------


def test_units_are_named_and_free_of_places(built: Built) -> None:
    units = {unit["name"]: unit for unit in built.captured["units"]}
    assert {name: unit["kind"] for name, unit in units.items()} == {
        "csrc/scale": "cuda", "csrc/shift": "cuda", "csrc/module": "c++",
    }  # fmt: skip
    assert units["csrc/scale"]["source"] == "@src@\\csrc\\scale.cu"
    assert units["csrc/scale"]["preprocessor"][:6] == [
        "-I", "@src@\\csrc\\headers here", "-D", "FACTOR=3", "-D", 'WORDS="a b"',
    ]  # fmt: skip
    assert units["csrc/scale"]["codegen"] == ["-Xcompiler", "-MD,-EHsc", "-O3"]
    module = units["csrc/module"]
    assert module["preprocessor"][:4] == [
        "-D", "NDEBUG", "-D", 'GREETING="it says \\"hello there\\""',
    ]  # fmt: skip
    assert "@python@" in module["preprocessor"]
    for unit in (module, units["csrc/scale"]):
        assert unit["preprocessor"][-1] == LAST_MACRO
    assert "C:" not in str(units), "a place of this build would be in keys"


def test_every_slice_is_a_job(built: Built) -> None:
    jobs = built.captured["lookup"]["pending"]
    assert sorted((job["unit"]["name"], (job["front"] or {}).get("codes")) for job in jobs) == [
        ("csrc/module", None),
        ("csrc/scale", ["sm_80"]), ("csrc/scale", ["sm_89"]),
        ("csrc/shift", ["sm_80"]), ("csrc/shift", ["sm_89"]),
    ]  # fmt: skip
    assert all(answer["cpu"] >= 0 and answer["seconds"] > 0 for answer in built.made)


def test_architectures_share_a_host_object(built: Built) -> None:
    """Their stubs name nothing that differs from job to job."""
    store = Store(built.container.folder / "store", 1 << 30)
    refs = (store.root / "refs" / "abi").rglob("*")
    kept = [store.get_json("abi", path.name) for path in refs if path.is_file()]
    assert len(kept) == 4
    assert len({abi["stub"] for abi in kept}) == 2, "one of each unit"


def test_a_second_capture_finds_everything_in_the_store(built: Built) -> None:
    again = built.container.capture(built.message, "again")
    assert again["units"] == built.captured["units"]
    assert again["lookup"]["pending"] == []
    assert again["lookup"]["hits"] == 4


def test_what_nvcc_preprocesses_is_what_it_would_compile(built: Built) -> None:
    """Another header, with the same text: it is preprocessed, by `nvcc.exe --dryrun`, not more."""
    header = built.container.project / "csrc" / "headers here" / "factor.h"
    header.write_text(header.read_text().rstrip("\n") + " // three times\n")
    calls = built.container.tools.calls("cl")
    again = built.container.capture(built.message, "changed")
    new = built.container.tools.calls("cl").removeprefix(calls)
    assert "'-E'" in new, "nothing was preprocessed"
    assert again["lookup"]["pending"] == []


def test_links_of_a_capture_are_answered(built: Built) -> None:
    """The real linker made one library without content, and is not asked for the project's."""
    calls = built.container.tools.calls("link")
    built.container.capture(built.message, "linked")
    new = built.container.tools.calls("link").removeprefix(calls)
    assert new.count("'-NOENTRY'") == 1
    assert "PyInit" not in new, "its objects are empty"
    assert "/EXPORT:PyInit__C" in calls, "assembling links it"
    assert "'-Brepro', '-experimental:deterministic'" in calls


# -- the wheel ----------------------------------------------------------------------------------


def test_the_wheel_is_one_for_this_python_and_windows(built: Built) -> None:
    assert built.wheel.name == "windows_demo-1.0-cp311-cp311-win_amd64.whl"
    with zipfile.ZipFile(built.wheel) as archive:
        assert "windows_demo/_C.cp311-win_amd64.pyd" in archive.namelist()
        [name] = [name for name in archive.namelist() if name.endswith("/WHEEL")]
        assert "Tag: cp311-cp311-win_amd64" in archive.read(name).decode().splitlines()


def test_it_is_packed_alike_on_both_systems(built: Built, tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fatwheel.wheels.name import parse_wheel_name
from fatwheel.wheels.pack import digest_of_contents, repack
upstream = Path(sys.argv[2])
name = parse_wheel_name(upstream.name).labelled("cu130.sm80")
packed = repack(upstream, Path(sys.argv[3]), name, extra_files={}, epoch=1700000000)
print(packed.name, digest_of_contents(packed))
"""
    for name in ("windows", "linux"):
        (tmp_path / name).mkdir()
    there = built.container.python.run("-c", code, ROOT, built.wheel, tmp_path / "windows")
    here = subprocess.run(
        [sys.executable, "-I", "-c", code, str(ROOT), str(built.wheel), str(tmp_path / "linux")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert there.split() == here.split()
    assert there.startswith("windows_demo-1.0+cu130.sm80-cp311-cp311-win_amd64.whl ")


def test_windows_python_imports_it(built: Built, tmp_path: Path) -> None:
    python = built.container.python
    python.install(built.wheel, tmp_path / "site")
    dlls = windows_path(built.container.tools.cuda_home / "bin" / "x86_64")
    code = (
        f"import os; os.add_dll_directory({dlls!r}); import windows_demo._C as m; print(m.__doc__)"
    )
    assert python.call(code, tmp_path / "site").strip() == 'it says "hello there"'


def test_cuobjdump_finds_both_images_of_each_unit(
    built: Built, cuobjdump_exe: Callable[..., str], tmp_path: Path
) -> None:
    library = extracted(built.wheel, tmp_path)
    listing = cuobjdump_exe("--list-elf", library)
    found = re.findall(r"\.(sm_\d+)\.cubin", listing)
    assert sorted(found) == ["sm_80", "sm_80", "sm_89", "sm_89"], listing
    symbols = cuobjdump_exe("--dump-elf-symbols", library)
    kernels = re.findall(r"STT_FUNC .*STO_ENTRY +(\S+)", symbols)
    assert sorted(kernels) == sorted(2 * [name.removeprefix(".text.") for name in KERNELS]), symbols


def test_the_device_code_is_that_of_one_call_for_all_architectures(
    built: Built, tmp_path: Path
) -> None:
    """nvcc.exe, called as upstream would call it, but in the view and with our header."""
    stitched = sorted(bytes(image.raw) for image in images(built.wheel, tmp_path))
    plain = sorted(
        bytes(image.raw)
        for name in ("scale", "shift")
        for image in monolithic(built, name, tmp_path / name)
    )
    assert len(stitched) == len(plain) == 4
    assert stitched == plain


def test_the_device_code_is_that_of_linux_s_nvcc(
    built: Built, cuda_home: Path, tmp_path: Path
) -> None:
    """Of the same version; its ptxas gets the same PTX, so instructions are the same."""
    found = images(built.wheel, tmp_path)
    source = PROJECT / "csrc"
    for number in ("80", "89"):
        expected: dict[str, bytes] = {}
        for name in ("scale", "shift"):
            cubin = tmp_path / f"{name}.{number}.cubin"
            subprocess.run(
                [str(cuda_home / "bin" / "nvcc"), "-cubin", f"-arch=sm_{number}", "-O3",
                 f"-I{source / 'headers here'}", "-DFACTOR=3", '-DWORDS="a b"', "-D", LAST_MACRO,
                 str(source / f"{name}.cu"), "-o", str(cubin)],
                check=True, capture_output=True,
            )  # fmt: skip
            expected |= instructions(cubin.read_bytes())
        made: dict[str, bytes] = {}
        for image in found:
            if image_name(image) == f"sm_{number}":
                made |= instructions(bytes(payload(image)))
        assert made.keys() == expected.keys() == KERNELS
        assert made == expected


def extracted(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("windows_demo/_C.cp311-win_amd64.pyd", folder))


def images(wheel: Path, folder: Path) -> list[Entry]:
    library = read_binary(memoryview(extracted(wheel, folder).read_bytes()))
    return [entry for container in library.containers for entry in container.entries]


def instructions(cubin: bytes) -> dict[str, bytes]:
    """The code of each kernel, by its section."""
    elf = ELFFile(io.BytesIO(cubin))
    return {
        section.name: section.data()
        for section in elf.iter_sections()
        if section.name.startswith(".text.")
    }


def monolithic(built: Built, name: str, folder: Path) -> Sequence[Entry]:
    """What one call of nvcc.exe makes for all fronts, as upstream would call it."""
    [unit] = [unit for unit in built.captured["units"] if unit["name"] == f"csrc/{name}"]
    shutil.copytree(PROJECT / "csrc", folder)
    (folder / "keep").mkdir()
    (folder / "fatwheel.h").write_text(unit_header(unit_from_wire(unit), (800, 890), MsvcFamily()))
    gencodes = [
        word
        for code in ("80", "89")
        for word in ("-gencode", f"arch=compute_{code},code=sm_{code}")
    ]
    run_tool(
        built.container.python.wine, built.container.tools, "nvcc.exe", "--use-local-env",
        "-I", ".", "-include", "fatwheel.h", "-I", "headers here", "-D", "FACTOR=3",
        "-D", 'WORDS="a b"', "-D", LAST_MACRO, "-O3",
        "-frandom-seed", digest("seed", unit["name"])[:16], *gencodes,
        "-c", f"{name}.cu", "--keep", "--keep-dir", "keep", "-o", "output.obj", cwd=folder,
    )  # fmt: skip
    return slices_of((folder / "output.obj").read_bytes())
