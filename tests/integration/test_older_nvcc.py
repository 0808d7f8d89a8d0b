"""The anchor of the module id, on an nvcc that has no -frandom-seed: Debian's 12.4.

nvcc takes the module id from a unit's first external symbol, and from its process id where there
is none: templates alone. With the anchor in the pre-included header, slices that several nvcc
processes made must be what one process makes. The compilers run in a container, as 12.4 needs a
g++ of another Debian than most machines have.
"""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest
from docker.types import Mount
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from fatwheel.config.pinned import Package

from .debianimage import Recipe, image_tar
from .engine import LentEngine
from .insideoldernvcc import ARCHS, CODE, LIBRARY, LINKED, OUT, SOURCES, STAGED, UNANCHORED, UNITS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
VERSION = "12.4.131"
IN_EVERY_OBJECT = {".nv_fatbin", ".nvFatBinSegment", ".text", ".symtab", ".strtab"}


def headers(part: str, version: str, size: int, sha256: str) -> tuple[Package, str]:
    """The wheel of a part of CUDA, and the folder in it that has the headers."""
    file = f"nvidia_cuda_{part}_cu12-{version}-py3-none-manylinux2014_x86_64.whl"
    package = Package(f"nvidia-cuda-{part}-cu12", version, file, size, sha256, "compiler")
    return package, f"nvidia/cuda_{part}/include"


RECIPE = Recipe(
    suite="trixie",
    components="main contrib non-free",
    installed=("base-files", "dash", "coreutils", "sed", "python3", "g++-13"),
    # Less nvidia-cuda-dev: 0.9 GB of libraries, of which only the headers would be of use.
    alone=(f"nvidia-cuda-toolkit={VERSION}*",),
    wheels=(
        headers(
            "runtime", "12.4.127", 883_737,
            "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
        ),
        headers(
            "nvcc", VERSION, 22_265_199,
            "e4c9a35435c3b0e36c6397c5696334c9ea6650e524736cbd1c5d345ea099bb04",
        ),
        headers(
            "cccl", "12.4.127.post1", 3_111_329,
            "2027fa5fc75fbee703bf24e8275a40a605cf94a3e8fef8a7187897d49b34facb",
        ),
    ),
    left_out=(
        "usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/bin/nvdisasm",
        "usr/bin/nvlink", "usr/lib/nvidia-cuda-toolkit/compute-sanitizer/",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def client(docker_engine: LentEngine) -> docker.APIClient:
    return docker_engine.connect().api  # which waits as long as compilers take


@pytest.fixture(scope="module")
def image(client: docker.APIClient) -> str:
    """The image with nvcc 12.4; an engine keeps it."""
    tag = f"fatwheel-test/nvcc-{VERSION}:{RECIPE.key}"
    if not client.images(tag):
        name, _, version = tag.partition(":")
        client.import_image_from_file(str(image_tar(RECIPE)), repository=name, tag=version)
    return tag


def run(
    engine: docker.APIClient,
    image: str,
    code: str,
    out: Path,
    user: int | None = None,
    seen: str = OUT,
) -> str:
    """Run Python code in a container, which sees the folder `out` as `seen`; what it printed."""
    user = os.getuid() if user is None else user
    if user != os.getuid():
        os.chown(out, user, user)
    container = engine.create_container(
        image,
        ["/usr/bin/python3", "-I", "-c", f"import sys; sys.path.insert(0, {CODE!r}); {code}"],
        user=f"{user}:{user}",
        host_config=engine.create_host_config(
            network_mode="none", read_only=True, cap_drop=["ALL"], tmpfs={"/tmp": ""},
            mounts=[
                Mount(f"{CODE}/fatwheel", str(ROOT / "fatwheel"), "bind", read_only=True),
                Mount(f"{CODE}/tests", str(ROOT / "tests"), "bind", read_only=True),
                Mount(SOURCES, str(ROOT / "kernels/selftest/src"), "bind", read_only=True),
                Mount(seen, str(out), "bind"),
            ],
        ),
    )  # fmt: skip
    try:
        engine.start(container)
        code_ = engine.wait(container)["StatusCode"]
        output = engine.logs(container).decode(errors="replace")
    finally:
        engine.remove_container(container, force=True)
    assert code_ == 0, f"the container ended with {code_}:\n{output}"
    return output


@pytest.fixture(scope="module")
def objects(client: docker.APIClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the container left its objects and cubins."""
    out = tmp_path_factory.mktemp("objects")
    run(client, image, "from tests.integration.insideoldernvcc import main; main()", out)
    return out


def sections(obj: Path) -> list[tuple[str, bytes]]:
    """Every section of an object in its order, read by pyelftools."""
    with obj.open("rb") as stream:
        return [(section.name, section.data()) for section in ELFFile(stream).iter_sections()]


def symbols(obj: Path, unit: str) -> list[tuple[str, object, object, object, object]]:
    """Every symbol of an object in its order: name, place, size, kind and visibility.

    The name of the text that nvcc made for the host is one of them, and the only thing that
    differs: where an nvcc before 12.9 has several fronts it names that text after the last one.
    """
    named = {f"{unit}.compute_89.cudafe1.cpp": f"{unit}.cudafe1.cpp"}
    with obj.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection), f"{obj.name} has no symbol table"
        return [
            (
                named.get(symbol.name, symbol.name),
                (symbol["st_shndx"], symbol["st_value"]),
                symbol["st_size"],
                dict(symbol["st_info"]),
                dict(symbol["st_other"]),
            )
            for symbol in table.iter_symbols()
        ]


def test_this_nvcc_has_no_seed(client: docker.APIClient, image: str, tmp_path: Path) -> None:
    code = (
        "import subprocess as s; n = '/usr/lib/nvidia-cuda-toolkit/bin/nvcc'; "
        "print(s.run([n, '--version'], capture_output=True, text=True).stdout, "
        "s.run([n, '-frandom-seed', 'x', '--dryrun', 'x.cu'], capture_output=True, text=True))"
    )
    said = run(client, image, code, tmp_path)
    assert f"V{VERSION}" in said
    assert "Unknown option '-frandom-seed'" in said, said


@pytest.mark.parametrize("unit", UNITS)
def test_slices_are_what_one_nvcc_makes(unit: str, objects: Path) -> None:
    ours, theirs = (objects / f"{unit}.{way}.o" for way in ("sliced", "monolithic"))
    mine, its = sections(ours), sections(theirs)
    assert [name for name, _ in mine] == [name for name, _ in its], f"{unit}: other sections"
    assert {name for name, data in its if data} >= IN_EVERY_OBJECT
    different = {name for (name, data), (_, other) in zip(mine, its, strict=True) if data != other}
    assert different <= {".symtab", ".strtab"}, f"{unit}: sections differ"
    assert symbols(ours, unit) == symbols(theirs, unit), f"{unit}: the symbols differ"
    for arch in ARCHS:
        cubin, other = (obj.with_suffix(".cubins") / arch for obj in (ours, theirs))
        assert cubin.read_bytes() == other.read_bytes(), f"{unit}: the {arch} cubin differs"


@pytest.mark.parametrize("unit", STAGED)
def test_stages_make_what_one_call_makes(unit: str, objects: Path) -> None:
    whole, stages = (objects / f"{unit}.{way}.o" for way in ("whole", "stages"))
    assert whole.read_bytes() == stages.read_bytes()


def test_without_the_anchor_no_two_runs_agree(objects: Path) -> None:
    """The names of the kernels, which host code and device code share, hold the process id."""
    first, second = (sections(objects / f"{name}.o") for name in UNANCHORED)
    kernels, others = (
        {
            name
            for name, _ in found
            if name.startswith(".text._ZN8selftest") and "power_kernel" in name
        }
        for found in (first, second)
    )
    assert len(kernels) == len(others) == 2, "the sample has two kernels"
    assert not kernels & others, "the same names: the anchor cures nothing that a test could see"
    assert dict(first)[".nv_fatbin"] != dict(second)[".nv_fatbin"]


def test_anybody_makes_the_same_anywhere(
    client: docker.APIClient, image: str, objects: Path, tmp_path: Path
) -> None:
    """Units and the library of them all: once with what the other tests have made already, and once
    from nothing, by another user in another folder, one after the other, with other variables."""
    call = "from tests.integration.insideoldernvcc import library; library({!r}, {})"
    run(client, image, call.format(OUT, 2), objects)
    folder = "/tmp/elsewhere/with a blank"
    varied = (
        "import os; os.umask(0o077); "
        "os.environ.update(TZ='Pacific/Chatham', LANG='tr_TR', HOME='/', CPATH='/x'); "
    )
    user = 12345 if os.getuid() == 0 else None
    run(client, image, varied + call.format(folder, 1), tmp_path, user, folder)
    for name in (*(f"{unit}.o" for unit in LINKED), LIBRARY):
        one, other = (folder / name for folder in (objects, tmp_path))
        differing = {
            section for section, data in sections(one) if (section, data) not in sections(other)
        }
        assert one.read_bytes() == other.read_bytes(), (
            f"{name} differs in {differing or 'its form'}"
        )
    kept = (objects / LIBRARY).read_bytes()
    assert b"/proc/self/cwd" not in kept
    assert str(tmp_path).encode() not in kept
