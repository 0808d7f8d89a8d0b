"""Relocatable device code (nvcc -rdc=true): what is linked for each architecture apart is what one
nvcc links for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fatwheel.arch import parse_gpu_list
from fatwheel.edit.thin import thin_wheel
from fatwheel.fatbin.images import selection_for
from fatwheel.model import Environment
from fatwheel.verify.report import verify_wheel
from fatwheel.wheels.archive import open_wheel

from .conftest import ROOT, Captured, Workbench, record_of
from .linkedcode import section
from .monolithic import compile_monolithic

pytestmark = pytest.mark.slow

PROJECT = "tests/data/linked"
ARCHS = "80,86+ptx"
CODES = ["sm_80", "sm_86", "compute_86"]
GENCODES = [
    *("-gencode", "arch=compute_80,code=sm_80"),
    *("-gencode", "arch=compute_86,code=[sm_86,compute_86]"),
]
# The link of each library, as the project does it: `cuda` stands for CUDA's folder, and inputs are
# where a build shows them to nvlink, which writes folders of libraries into what it makes.
SETUPTOOLS = {
    "_C.": ["-dlink", "caller", "called", "plain", "-Llib/0", "-larchived"],
    "libwhole.": [
        *("-dlink", "-Xnvlink", "--shared", "caller", "called", "plain", "-Llib/0", "-larchived"),
    ],
    # LIBRARY_PATH leads to the library.
    "libmixed.": ["-dlink", "-Xnvlink", "--shared", "mixed", "-larchived"],
    # nvcc wants an object: one without device code.
    "libhosted.": ["-dlink", "-Xnvlink", "--shared", "nothing", "-Llib/0", "-larchived"],
}
CMAKE = {
    "_C.": [
        *("-O3", "-DNDEBUG", "-dlink", "caller", "called", "-Lcuda/lib64", "in/libarchived.a"),
        *("-lcudadevrt", "-lcudart"),
    ],
}


def in_form(folder: Path, form: str) -> str:
    """The project, built in one of its ways."""
    shutil.copytree(ROOT / PROJECT, folder)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('FORM = "setuptools"', f'FORM = "{form}"'))
    return str(folder)


def libraries(wheel: Path, folder: Path) -> dict[str, Path]:
    """The libraries of a wheel, by how they are called, up to a point."""
    folder.mkdir()
    with open_wheel(wheel) as opened:
        for one in opened.members:
            if one.name.endswith(".so"):
                path = folder / Path(one.name).name
                path.write_bytes(b"".join(opened.pieces(one.name)))
    return {f"{path.name.partition('.')[0]}.": path for path in folder.iterdir()}


class Reference:
    """What nvcc alone makes of the units, with all architectures in each call."""

    def __init__(self, captured: Captured, folder: Path, tool: Callable[[str], str]) -> None:
        self.context, self.folder = captured.context, folder
        units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
        self.objects = {}
        for number, unit in enumerate(units):
            made = compile_monolithic(self.context, unit, captured.fronts, folder / str(number))
            name = unit.name.rpartition("/")[2]
            self.objects[name] = made.rename(folder / f"{name}.o")
        assert {"archived", "called", "caller", "plain"} <= self.objects.keys()
        nothing = self.objects["nothing"] = folder / "nothing.o"
        subprocess.run([tool("g++"), "-c", "-x", "c++", os.devnull, "-o", nothing], check=True)
        self.context.places.link_into(folder)
        for place in ("in", "lib/0"):
            (folder / place).mkdir(parents=True)
            archive = folder / place / "libarchived.a"
            subprocess.run([tool("ar"), "rcs", archive, self.objects["archived"]], check=True)

    def link(self, words: Sequence[str]) -> Path:
        seen = self.context.places.in_view
        known = {name: str(path) for name, path in self.objects.items()}
        cuda = f"-L{seen('@cuda@')}/lib64"
        words = [cuda if word == "-Lcuda/lib64" else known.get(word, word) for word in words]
        command = [seen(self.context.nvcc), "-ccbin", self.context.cxx, *words, *GENCODES]
        done = subprocess.run(
            [*command, "-o", "linked.o"], cwd=self.folder, capture_output=True, text=True,
            env={**dict(self.context.environment), "LIBRARY_PATH": "lib/0"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return self.folder / "linked.o"

    def assert_is_in(self, library: Path, words: Sequence[str]) -> None:
        """The library holds, in each section, what nvcc made of its objects and their link."""
        linked = self.link(words)
        parts = [(linked, ".nv_fatbin"), (linked, "__nv_module_id")]
        apart = {"nothing", "plain"}
        names = ["archived", *(word for word in words if word in self.objects.keys() - apart)]
        parts += [(self.objects[name], "__nv_relfatbin") for name in names]
        parts += [(self.objects["plain"], ".nv_fatbin")] if "plain" in words else []
        data = library.read_bytes()
        sections = {name: section(data, name)[1] for _, name in parts}
        sizes = dict.fromkeys(sections, 0)
        for obj, name in parts:
            _, content = section(obj.read_bytes(), name)
            assert content in sections[name], f"{library.name}: {obj.name} differs in {name}"
            sizes[name] += len(content)
        # Nothing else is there: what objects hold of a section is aligned to 8 bytes.
        for name in (".nv_fatbin", "__nv_relfatbin"):
            assert len(sections[name]) - sizes[name] < 8 * len(parts), name


@pytest.mark.parametrize("form", ["setuptools", pytest.param("cmake", marks=pytest.mark.long)])
def test_linked_libraries_equal_what_one_nvcc_links(
    form: str,
    environment: Environment,
    capture: Callable[..., Captured],
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    if form == "cmake":
        tool("cmake")
    kernel, bench = in_form(tmp_path / "project", form), Workbench(tmp_path / "bench")
    wheel = bench.build("--arch", ARCHS, kernel=kernel).wheel()
    found = libraries(wheel, tmp_path / "libraries")
    wanted = SETUPTOOLS if form == "setuptools" else CMAKE
    assert found.keys() == wanted.keys()
    # Again from nothing: the same bytes. What CMake builds again is the business of
    # test_upstreams_compilers.
    if form == "setuptools":
        first = wheel.read_bytes()
        bench.forget_wheels()
        shutil.rmtree(bench.store)
        assert bench.build("--arch", ARCHS, kernel=kernel).wheel().read_bytes() == first
    if form == "setuptools":
        assert b"hosted for 800,860\0" in found["libhosted."].read_bytes()
    reference = Reference(capture(bench, kernel, ARCHS), tmp_path / "reference", tool)
    for name, words in wanted.items():
        reference.assert_is_in(found[name], words)
    links = {unit["name"]: list(unit["slices"]) for unit in record_of(wheel)["units"]}  # type: ignore[attr-defined]
    made = [name for name, codes in links.items() if codes == CODES[:2]]
    assert len(made) == len(wanted), f"PTX is in all units, and in no link: {links}"
    report = verify_wheel(wheel)
    assert report.ok
    coverage = report.to_json()["coverage"]
    assert (coverage["8.6"], coverage["9.0"]) == ("native", "jit")
    thin = thin_wheel(wheel, selection_for(parse_gpu_list("86")), tmp_path / "thin")
    assert verify_wheel(thin.path).ok


def test_a_symbol_that_is_defined_nowhere_is_named_with_the_architecture(
    environment: Environment, tmp_path: Path
) -> None:
    kernel, bench = in_form(tmp_path / "project", "setuptools"), Workbench(tmp_path / "bench")
    called = tmp_path / "project" / "src" / "csrc" / "called.cu"
    called.write_text(called.read_text().replace("int twice", "int thrice"))
    done = bench.build("--arch", "80", kernel=kernel)
    assert done.code == 7
    assert "libwhole: the device code does not link for sm_80" in done.err
    assert "Undefined reference to 'twice(int)' in 'caller.o'" in done.err
    assert "is each of these symbols defined in a source" in done.err
    assert not done.wheels


def test_a_link_that_goes_past_the_stand_ins_is_refused(
    environment: Environment, tmp_path: Path
) -> None:
    """It would be for the project's own architectures, whatever was asked for."""
    kernel, bench = in_form(tmp_path / "project", "past"), Workbench(tmp_path / "bench")
    done = bench.build("--arch", "80", kernel=kernel)
    assert done.code == 7
    assert "links its device code with an nvcc that went past fatwheel" in done.err
    assert "cuda/bin/nvcc -Xcompiler -fPIC" in done.err
    assert "as CUDA_HOME/bin/nvcc" in done.err
    assert not done.wheels
