"""What nvcc and linkers made, thinned and stitched: read by NVIDIA's tools, loaded, compared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fatwheel.fatbin.container import parse_containers
from fatwheel.model import Environment

from ..helpers.deviceimages import read_wheel, write_wheel
from .conftest import ARCHS, Outcome, Workbench
from .linkedcode import Compiler, compiler_in, listed, loaded, running, section

pytestmark = pytest.mark.slow

Tool = Callable[[str], str]

EACH = tuple(ARCHS.split(","))
THIN = tuple(f"thin {arch}" for arch in EACH)
EDITED = (*THIN, "stitched", "the other way")


# -- selftest: a wheel of our own build ----------------------------------------------------------


@dataclass(frozen=True)
class Wheels:
    """selftest's wheel by how it was edited, and unpacked by pip in folders of the same names."""

    wheels: dict[str, Path]
    sites: Path

    def libraries(self, name: str) -> list[Path]:
        found = sorted((self.sites / name / "fatwheel_selftest").glob("*.so"))
        assert len(found) == 2, f"selftest has two extension modules, not {found}"
        return found


@pytest.fixture(scope="module")
def made(
    selftest: tuple[Workbench, Outcome],
    environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Wheels:
    bench, outcome = selftest
    folder = tmp_path_factory.mktemp("postlink")

    def edit(name: str, *command: str | Path) -> Path:
        return bench.wheel_in(folder / name, *map(str, command))

    wheels = {"built": outcome.wheel()}
    for arch, name in zip(EACH, THIN, strict=True):
        wheels[name] = edit(name, "thin", wheels["built"], "--arch", arch)
    thin = [wheels[name] for name in THIN]
    wheels["stitched"] = edit("stitched", "stitch", *thin)
    wheels["the other way"] = edit("the other way", "stitch", thin[2], thin[0], thin[1])
    wheels["thin to all"] = edit("thin to all", "thin", wheels["built"], "--arch", ARCHS)
    sites = folder / "sites"
    for name in ("built", *EDITED):
        install(environment, wheels[name], sites / name)
    return Wheels(wheels, sites)


def install(environment: Environment, wheel: Path, site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", environment.python, "install", "--quiet",
         "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile",
         "--target", site, wheel],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"pip does not install {wheel.name}:\n{done.stdout}{done.stderr}"


def test_stitched_in_any_order_the_bytes_are_those_of_the_wheel_thinned_to_all(
    made: Wheels,
) -> None:
    expected = made.wheels["thin to all"]
    for name in ("stitched", "the other way"):
        assert made.wheels[name].name == expected.name
        assert made.wheels[name].read_bytes() == expected.read_bytes(), name


def test_names_of_thinned_wheels_tell_their_architecture(made: Wheels) -> None:
    built = made.wheels["built"].name
    whole = "+cu130torch2.11.sm80.sm86.sm89-"
    assert whole in built
    for arch, name in zip(EACH, THIN, strict=True):
        assert made.wheels[name].name == built.replace(whole, f"+cu130torch2.11.sm{arch}-")


def test_stitched_the_device_code_is_what_nvcc_and_the_linker_made(
    made: Wheels, environment: Environment
) -> None:
    """Of objects that equal those of one nvcc call for all architectures (test_exact)."""
    for before, after in zip(made.libraries("built"), made.libraries("stitched"), strict=True):
        found = listed(environment.cuda_home, after)
        assert found == listed(environment.cuda_home, before)
        assert set(found) == {f"elf {arch}" for arch in EACH}
        ours, theirs = (section(file.read_bytes(), ".nv_fatbin")[1] for file in (after, before))
        assert ours == theirs, f"{after.name}: other bytes than the linker's"


def test_cuobjdump_finds_only_what_was_kept(made: Wheels, environment: Environment) -> None:
    for arch, name in zip(EACH, THIN, strict=True):
        for before, after in zip(made.libraries("built"), made.libraries(name), strict=True):
            every = listed(environment.cuda_home, before)
            kept = [image for image in every if image == f"elf {arch}"]
            assert 0 < len(kept) < len(every)
            assert listed(environment.cuda_home, after) == kept


def test_host_code_stays_as_it_was(made: Wheels) -> None:
    for name in EDITED:
        for before, after in zip(made.libraries("built"), made.libraries(name), strict=True):
            for part in (".text", ".rodata", ".dynsym", ".eh_frame", ".init_array"):
                one, other = (section(file.read_bytes(), part) for file in (before, after))
                assert one == other, f"{name}: {part} of {after.name} changed or moved"


def test_python_imports_them_and_wrappers_lead_to_the_right_containers(
    made: Wheels, environment: Environment, tmp_path: Path
) -> None:
    names = ("built", *EDITED)
    files = {made.sites / name: made.libraries(name) for name in names}
    found = loaded(
        environment, files, tmp_path / "shown", module="fatwheel_selftest", modules=["torch"]
    )
    pairs = {name: found[2 * place : 2 * place + 2] for place, name in enumerate(names)}
    units = [len(parse_containers(shown)) for shown in pairs["built"]]
    assert units == [7, 2], "selftest's setup.py names 7 units for one module, 2 for the other"
    for name in ("stitched", "the other way"):
        assert pairs[name] == pairs["built"], f"{name}: other containers, or in another order"
    for arch, name in zip(EACH, THIN, strict=True):
        for before, after in zip(pairs["built"], pairs[name], strict=True):
            assert images(after) == [
                [image for image in held if image[0] == f"elf {arch}"] for held in images(before)
            ], f"{name}: a wrapper leads to other images than it led to"


def images(containers: bytes) -> list[list[tuple[str, bytes]]]:
    """Each container's images, by what they are and their bytes."""
    return [
        [(f"{entry.kind} {entry.arch}", bytes(entry.raw)) for entry in container.entries]
        for container in parse_containers(containers)
    ]


def test_build_split_makes_the_wheels_that_thin_makes(
    made: Wheels, warm_selftest: Workbench
) -> None:
    outcome = warm_selftest.build("--arch", ARCHS, "--split", kernel="selftest")
    assert outcome.code == 0, outcome.err
    expected = [made.wheels[name] for name in ("built", *THIN)]
    assert {wheel.name for wheel in outcome.wheels} == {wheel.name for wheel in expected}
    for wheel in expected:
        assert (warm_selftest.out / wheel.name).read_bytes() == wheel.read_bytes(), wheel.name


# -- linked device code --------------------------------------------------------------------------

ORIGINAL = {
    "linked": ["elf 80", "elf 90"],
    "relocatable": 2 * ["elf 80", "ptx 80", "elf 90"],
}
KEPT = {"80": {"elf 80", "ptx 80"}, "90": {"elf 90", "ptx 80"}}  # with --keep-ptx


@dataclass(frozen=True)
class Linked:
    """A library with linked device code, and a wheel with it."""

    compiler: Compiler
    bench: Workbench
    library: Path
    wheel: Path

    def thin(self, file: Path, arch: str) -> Path:
        out = file.parent / f"for {arch}"
        done = self.bench.invoke("thin", str(file), "--arch", arch, "--keep-ptx", "--out", str(out))
        assert done.code == 0, done.err
        [made] = out.iterdir()
        return made

    def images(self, file: Path) -> dict[str, list[str]]:
        """What cuobjdump finds."""
        linked = listed(self.compiler.cuda_home, file)
        every = listed(self.compiler.cuda_home, file, "-all")
        assert every[: len(linked)] == linked
        return {"linked": linked, "relocatable": every[len(linked) :]}


@pytest.fixture(scope="module")
def linked(
    environment: Environment, tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> Linked:
    folder = tmp_path_factory.mktemp("linked")
    compiler = compiler_in(folder / "compiled", environment, tool)
    library = compiler.library_of_linked_code(
        "demo.so",
        "-gencode=arch=compute_80,code=[sm_80,compute_80]",
        "-gencode=arch=compute_90,code=sm_90",
    )
    wheel = write_wheel(folder / "wheel", {"demo.so": library.read_bytes()})
    return Linked(compiler, Workbench(folder / "bench"), library, wheel)


def test_linked_code_is_thinned_with_what_it_was_linked_from(
    linked: Linked, environment: Environment, tmp_path: Path
) -> None:
    assert linked.images(linked.library) == ORIGINAL
    where, before = section(linked.library.read_bytes(), "__nv_relfatbin")
    thin = {arch: linked.thin(linked.library, arch) for arch in KEPT}
    for arch, file in thin.items():
        assert linked.images(file) == {
            part: [image for image in held if image in KEPT[arch]]
            for part, held in ORIGINAL.items()
        }, f"thinned to {arch}"
        address, content = section(file.read_bytes(), "__nv_relfatbin")
        assert (address, len(content)) == (where, len(before)), "relocatable code has moved"
    shown = show(linked, environment, [linked.library, *thin.values()], tmp_path)
    for arch, containers in zip(thin, shown[1:], strict=True):
        assert images(containers) == [
            [image for image in held if image[0] in KEPT[arch]] for held in images(shown[0])
        ], f"thinned to {arch}, a wrapper leads to other images than it led to"


def test_linked_code_of_thinned_wheels_is_stitched_to_what_it_was(
    linked: Linked, environment: Environment, tmp_path: Path
) -> None:
    thin = [linked.thin(linked.wheel, arch) for arch in KEPT]
    orders = [thin, thin[::-1]]
    one, other = (
        linked.bench.wheel_in(tmp_path / str(place), "stitch", *map(str, order))
        for place, order in enumerate(orders)
    )
    assert one.read_bytes() == other.read_bytes()
    stitched = tmp_path / "demo.so"
    stitched.write_bytes(read_wheel(one)["demo.so"])
    assert linked.images(stitched) == ORIGINAL
    before, after = linked.library.read_bytes(), stitched.read_bytes()
    assert section(after, "__nv_relfatbin") == section(before, "__nv_relfatbin")
    assert section(after, ".nv_fatbin")[1] == section(before, ".nv_fatbin")[1]
    ours, theirs = show(linked, environment, [stitched, linked.library], tmp_path)
    assert ours == theirs, "a wrapper leads to another container than it led to"


def test_a_wrapper_whose_container_was_left_out(
    linked: Linked, environment: Environment, tool: Tool, tmp_path: Path
) -> None:
    """It holds a null pointer, which no relocation fills in."""
    compiler = compiler_in(tmp_path / "compiled", environment, tool)
    (compiler.folder / "null.c").write_text(
        '__attribute__((used, aligned(8), section(".nvFatBinSegment"))) '
        "struct { int magic, version; const void *data; void *more; } extra = {0x466243b1, 1};"
    )
    command = [compiler.gxx, "-fPIC", "-c", "-xc", "null.c"]
    subprocess.run(command, cwd=compiler.folder, check=True)
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    objects = [*compiler.objects({"a": running("a")}, *codes), compiler.folder / "null.o"]
    library = compiler.library("null.so", objects)
    thin = linked.thin(library, "80")
    assert listed(compiler.cuda_home, thin) == ["elf 80"]
    [shown] = show(linked, environment, [thin], tmp_path)
    assert [[image for image, _ in one] for one in images(shown)] == [["elf 80"]]


def test_patchelf_before_or_after_thin(
    linked: Linked, environment: Environment, tool: Tool, tmp_path: Path
) -> None:
    def patched(file: Path, folder: Path) -> Path:
        folder.mkdir()
        path = shutil.copy(file, folder / file.name)
        subprocess.run([tool("patchelf"), "--set-rpath", f"/{'folder/' * 200}", path], check=True)
        assert file.read_bytes() != path.read_bytes()
        return path

    thin = linked.thin(linked.library, "80")
    before = linked.thin(patched(linked.library, tmp_path / "before"), "80")
    after = patched(thin, tmp_path / "after")
    for file in (before, after):
        assert b"folder/folder" in section(file.read_bytes(), ".dynstr")[1]
        assert linked.images(file) == linked.images(thin)
    plain, *others = show(linked, environment, [thin, before, after], tmp_path)
    assert others == [plain, plain]


def show(
    linked: Linked, environment: Environment, files: Sequence[Path], folder: Path
) -> list[bytes]:
    """The containers of libraries that are loaded with nothing but CUDA's runtime."""
    runtime = [linked.compiler.runtime]
    jobs = {file.parent: [file] for file in files}
    return loaded(environment, jobs, folder / "shown", libraries=runtime)
