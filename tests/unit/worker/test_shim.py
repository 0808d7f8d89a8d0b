"""The stand-ins for nvcc, gcc and g++ as programs, called as builds call them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Unit
from fatwheel.worker.context import unit_from_wire
from fatwheel.worker.programs import LAUNCHER, c_compiler_of, write_programs
from fatwheel.worker.shim import SETTINGS, is_trial, settings_text
from fatwheel.worker.view import Marks

from ...helpers.standins import front, make_context

# A compiler that says how it was called, for what the stand-ins must leave alone.
ECHO = """#!/bin/sh
echo "called as $0"
for word in "$@"; do echo "<$word>"; done
cat
echo "to stderr" >&2
exit 7
"""


class Bench:
    """A project, its environment, and the stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "project"
        (self.root / "csrc").mkdir(parents=True)
        self.home = folder / "real-cuda"
        (self.home / "bin").mkdir(parents=True)
        (self.home / "include").mkdir()
        (self.home / "bin" / "cuobjdump").write_text("")
        self.echo(self.home / "bin" / "nvcc")
        self.cxx = shutil.which("g++") or "g++"
        self.standins = write_programs(
            folder / "shims", sys.executable, self.home, folder / "site", self.cxx
        )
        self.shadow, self.compilers = self.standins.cuda_home, self.standins.compilers
        for name in ("records", "made", "told", "links", "objects"):
            (folder / name).mkdir()
        (folder / "empty.o").write_bytes(b"empty object")
        self.variables = {**os.environ, SETTINGS: str(folder / "settings.json")}
        self.capturing()

    @staticmethod
    def echo(path: Path) -> None:
        path.write_text(ECHO)
        path.chmod(0o755)

    @property
    def marks(self) -> Marks:
        return ((str(self.root), "src"), (str(self.shadow), "cuda"))

    def capturing(self, **changes: Any) -> None:
        names = ("records", "made", "told", "links")
        folders: dict[str, Any] = {name: str(self.folder / name) for name in names}
        self.settings("capture", **folders, work=[str(self.folder)],
                      empty_object=str(self.folder / "empty.o"),
                      log_of_clang=str(self.folder / "clang.log"), **changes)  # fmt: skip

    def settings(self, mode: str, **more: Any) -> None:
        root, nvcc = Path(more.pop("root", self.root)), self.standins.nvcc
        more.setdefault("limited", {})
        more.setdefault("answered", str(self.folder))
        more.setdefault("fronts", [front("80")])
        more.setdefault("gencodes", [front("80").gencode])
        text = settings_text(
            mode=mode, root=root, top=Path(more.pop("top", root)), marks=self.marks,
            libraries=["/python/lib"], nvcc=nvcc, cxx=self.cxx, variables={},
            standins=self.compilers, objects=self.folder / "objects", **more,
        )  # fmt: skip
        (self.folder / "settings.json").write_text(text)

    def run(
        self, tool: str, *arguments: str, cwd: Path | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        program = self.shadow / "bin" / "nvcc" if tool == "nvcc" else self.compilers / tool
        return subprocess.run(
            [str(program), *arguments], cwd=cwd or self.root, env=self.variables, input=text,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def write(self, name: str, text: str = "int x;\n") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.folder / "records").iterdir()]

    def past(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a compiler by its path, as a build that sees the stand-ins does."""
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=False,
            env={**self.variables, "COMPILER_PATH": str(self.standins.steps)},
        )  # fmt: skip

    def launch(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a compiler as CMake does, with the launcher that it is told to take."""
        return self.past(str(self.standins.steps / LAUNCHER), *command)

    def findings(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.folder / "told").iterdir()]

    def told(self) -> list[list[str]]:
        """The commands that the user is told of."""
        return [found["command"] for found in self.findings()]

    def unit(self) -> Unit:
        [record] = self.records()
        return unit_from_wire(record["unit"])


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


# -- what stands where -------------------------------------------------------------------------


def test_the_shadow_cuda_home_is_the_real_one_but_for_nvcc(bench: Bench) -> None:
    assert sorted(path.name for path in bench.shadow.iterdir()) == ["bin", "include"]
    assert (bench.shadow / "include").resolve() == bench.home / "include"
    assert (bench.shadow / "bin" / "cuobjdump").resolve() == bench.home / "bin" / "cuobjdump"
    assert not (bench.shadow / "bin" / "nvcc").is_symlink()
    assert bench.standins.nvcc.resolve() == bench.home / "bin" / "nvcc"
    assert bench.standins.nvcc.parent == bench.shadow / "bin"


@pytest.mark.parametrize(
    ("cxx", "there", "expected"),
    [
        ("g++", "gcc", "gcc"),
        ("g++-12", "gcc-12", "gcc-12"),
        ("x86_64-linux-gnu-g++", "x86_64-linux-gnu-gcc", "x86_64-linux-gnu-gcc"),
        ("c++", "cc", "cc"),
    ],
)
def test_the_c_compiler_that_belongs_to_a_cpp_compiler(
    tmp_path: Path, cxx: str, there: str, expected: str
) -> None:
    for name in (cxx, there):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    assert c_compiler_of(str(tmp_path / cxx)) == str(tmp_path / expected)


def test_without_a_c_compiler_beside_it_the_usual_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cc").write_text("")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert c_compiler_of("/elsewhere/my-compiler") == str(tmp_path / "cc")
    monkeypatch.setenv("PATH", "/nowhere")
    assert c_compiler_of("/elsewhere/my-compiler") == "/elsewhere/my-compiler"


# -- capturing ---------------------------------------------------------------------------------


FLAGS = (("nvcc", ["-std=c++20"]), ("g++", ["-O1"]))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("nvcc", "-c", "-std=c++17", "a.cu", "-o", "a.o"), ("-std", "c++17", "-std", "c++20")),
        (("g++", "-c", "-O3", "a.cpp", "-o", "a.o"), ("-O3", "-O1")),
        (("gcc", "-c", "-O3", "a.cpp", "-o", "a.o"), ("-O3", "-O1")),
    ],
)
def test_flags_of_a_recipe_come_last(
    bench: Bench, command: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    bench.capturing(flags=FLAGS)
    for name in ("a.cu", "a.cpp"):
        bench.write(name)
    assert bench.run(*command).returncode == 0
    unit = bench.unit()
    assert unit.codegen == expected


def test_flags_also_go_to_what_cmake_calls_but_not_to_c(bench: Bench) -> None:
    bench.capturing(flags=FLAGS)
    bench.write("a.cpp")
    gcc = bench.launch("g++", "-c", "-O3", "a.cpp", "-o", "a.o")
    assert gcc.returncode == 0, gcc.stderr
    assert "-O1" in bench.unit().codegen
    bench.write("echo.c", "int main(void) {\n#ifdef __OPTIMIZE__\nreturn 1;\n#endif\nreturn 0; }\n")
    assert bench.run("gcc", "echo.c", "-o", "echo").returncode == 0
    assert subprocess.run([bench.root / "echo"], check=False).returncode == 0


def test_a_captured_command_becomes_a_unit_and_an_empty_object(bench: Bench) -> None:
    source = bench.write("csrc/a.cu")
    done = bench.run(
        "nvcc", "-Icsrc", f"-I{bench.shadow}/include", "-c", str(source), "-o", "csrc/a.o", "-DA",
        "-O3", "-MD", "-MF", "csrc/a.d", "-gencode=arch=compute_80,code=sm_80",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bench.unit() == Unit(
        name="csrc/a",
        kind="cuda",
        source="@src@/csrc/a.cu",
        codegen=("-O3",),
        preprocessor=("-I", "@src@/csrc", "-I", "@cuda@/include", "-D", "A"),
        own=("sm_80",),
    )
    assert (bench.root / "csrc" / "a.o").read_bytes() == b"empty object"
    assert (bench.root / "csrc" / "a.d").read_text() == (
        f"{bench.root}/csrc/a.o: {bench.root}/csrc/a.cu\n"
    )


@pytest.mark.parametrize("build", ["build", "../random-1a2b"])
def test_a_unit_of_cmakes_is_named_from_its_build_folder_on(bench: Bench, build: str) -> None:
    source = bench.write("csrc/a.cu")
    folder = (bench.root / build).resolve()
    output = folder / "sub" / "CMakeFiles" / "x.dir" / "csrc" / "a.cu.o"
    output.parent.mkdir(parents=True)
    (folder / "CMakeCache.txt").touch()
    bench.run("nvcc", "-c", str(source), "-o", str(output), cwd=folder)
    assert bench.unit().name == "sub/CMakeFiles/x.dir/csrc/a"


@pytest.mark.parametrize(
    ("words", "cwd", "is_one"),
    [
        (["-c", "src.cxx", "-o", "CMakeFiles/cmTC_1a2b3.dir/src.cxx.o"], "/b", True),
        (["-c", "src.cxx"], "/b/build/CMakeFiles/CMakeScratch/TryCompile-x1", True),
        (["cmTC.o"], "/b/build/CMakeFiles/CMakeTmp", True),
        (["--keep", "CMakeCUDACompilerId.cu"], "/b/CMakeFiles/3.31.6/CompilerIdCUDA", True),
        (["-c", "a.cu", "-o", "CMakeFiles/x.dir/a.cu.o"], "/b/build", False),
        (["-c", "CMakeScratch/a.cu", "-o", "a.o"], "/b", False),
    ],
)
def test_what_cmake_tries_out_reaches_the_real_compilers(
    words: list[str], cwd: str, is_one: bool
) -> None:
    assert is_trial(words, cwd) == is_one


def test_what_cmake_tries_out_is_no_unit(bench: Bench) -> None:
    bench.write("build/CMakeFiles/CMakeScratch/TryCompile-a/src.cxx", "int main() {}")
    folder = bench.root / "build" / "CMakeFiles" / "CMakeScratch" / "TryCompile-a"
    output = "CMakeFiles/cmTC_1a2b3.dir/src.cxx.o"
    (folder / output).parent.mkdir(parents=True)
    assert bench.run("g++", "-c", "src.cxx", "-o", output, cwd=folder).returncode == 0
    assert bench.run("g++", output, "-o", "program", cwd=folder).returncode == 0
    assert subprocess.run([str(folder / "program")], check=False).returncode == 0
    assert (bench.records(), bench.findings()) == ([], [])
    assert not list((bench.folder / "links").iterdir())


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
def test_cpp_is_captured_from_either_compiler(bench: Bench, compiler: str) -> None:
    """setuptools compiles C++ with CC where ninja is not used."""
    bench.write("csrc/b.cpp")
    assert bench.run(compiler, "-c", "csrc/b.cpp", "-o", "b.o").returncode == 0
    assert (bench.unit().kind, bench.unit().name) == ("c++", "b")


def test_one_source_compiled_to_one_object_with_other_flags_is_two_units(bench: Bench) -> None:
    bench.write("csrc/a.cu")
    for flag in ("-DONE", "-DTWO", "-DONE"):
        assert bench.run("nvcc", "-c", "csrc/a.cu", "-o", "a.o", flag).returncode == 0
    units = [record["unit"] for record in bench.records()]
    assert sorted(unit["preprocessor"][1] for unit in units) == ["ONE", "TWO"]
    assert {unit["name"] for unit in units} == {"a"}


def test_what_cannot_be_stitched_is_written_down(bench: Bench) -> None:
    bench.write("a.cu")
    bench.run("nvcc", "-dlto", "-c", "a.cu", "-o", "a.o")
    assert [record["unsupported"] for record in bench.records()] == ["-dlto"]


def test_a_link_of_device_code_is_captured_and_gives_an_empty_object(bench: Bench) -> None:
    bench.write("a.cu")
    bench.run("nvcc", "-dc", "a.cu", "-o", "a.o")
    assert bench.unit().codegen == ("-rdc=true",)
    done = bench.run("nvcc", "-dlink", "-arch=sm_75", "a.o", "-o", "linked.o")
    assert (done.returncode, done.stdout) == (0, "")
    assert (bench.root / "linked.o").read_bytes() == b"empty object"
    links = [json.loads(path.read_text()) for path in (bench.folder / "links").iterdir()]
    assert links == [{"command": ["nvcc", "-dlink", "-arch=sm_75", "a.o", "-o", "linked.o"]}]
    assert bench.findings() == []


def test_sources_that_a_link_of_device_code_compiles_go_to_nvcc_and_are_told(bench: Bench) -> None:
    bench.write("a.cu")
    done = bench.run("nvcc", "-dlink", "a.cu", "-o", "linked.o")
    assert done.returncode == 7, "the real nvcc was not called"
    assert bench.told() == [["nvcc", "-dlink", "a.cu", "-o", "linked.o"]]


def test_what_has_no_relocatable_device_code_is_linked_by_nvcc_alone(bench: Bench) -> None:
    """As it was before there were such links: nvcc -shared links nothing of ordinary objects."""
    context = make_context(bench.folder)
    (bench.folder / "linked").mkdir()
    bench.settings(
        "assemble", context=context.to_wire(), linked=str(bench.folder / "linked"),
    )  # fmt: skip
    bench.write("a.o", "no object")
    for words in (["-dlink", "a.o", "-o", "linked.o"], ["-shared", "a.o", "-o", "lib.so"]):
        done = bench.run("nvcc", *words)
        assert done.returncode == 7, done.stderr
        told = [*words, "-gencode", front("80").gencode]
        assert done.stdout.splitlines()[1:] == [f"<{word}>" for word in told]
    assert list((bench.folder / "linked").iterdir()) == []


def test_what_nvcc_itself_does_is_for_the_architectures_of_the_build(bench: Bench) -> None:
    done = bench.run("nvcc", "-arch=sm_60", "-c", "csrc/a.cpp", "-o", "a.o")
    assert done.stdout.splitlines()[1:] == [
        "<-c>", "<csrc/a.cpp>", "<-o>", "<a.o>", "<-gencode>", "<arch=compute_80,code=[sm_80]>",
    ]  # fmt: skip
    tried = ["-arch=sm_60", "-c", "CMakeFiles/CMakeScratch/a.cpp"]
    done = bench.run("nvcc", *tried)
    assert done.stdout.splitlines()[1:] == [f"<{word}>" for word in tried]


def test_variables_with_options_count(bench: Bench) -> None:
    bench.write("a.cu")
    bench.variables["NVCC_APPEND_FLAGS"] = "-DAPPENDED"
    bench.run("nvcc", "-c", "a.cu", "-o", "a.o")
    assert bench.unit().preprocessor == ("-D", "APPENDED")


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("build/temp.linux-x86_64-cpython-311/csrc/a.o", "csrc/a"),
        ("build/temp/csrc/a.o", "csrc/a"),
        ("{root}/build/temp.linux-x86_64-cpython-310/csrc/a.o", "csrc/a"),
        ("build/temp.linux-x86_64-cpython-311{root}/csrc/a.o", "csrc/a"),
        ("out/a.cu.o", "out/a.cu"),
        ("with space/a.o", "with space/a"),
        ("{outside}/tmpx1y2/a.o", "csrc/a"),
    ],
)
def test_units_are_named_after_their_objects(bench: Bench, output: str, name: str) -> None:
    bench.write("csrc/a.cu")
    output = output.format(root=bench.root, outside=bench.folder)
    (bench.root / output).parent.mkdir(parents=True, exist_ok=True)
    done = bench.run("nvcc", "-c", "csrc/a.cu", "-o", output, "-MD")
    assert done.returncode == 0, done.stderr
    assert bench.unit().name == name
    assert (bench.root / output).read_bytes() == b"empty object"


@pytest.mark.parametrize("seen", ["root", "link"])
@pytest.mark.parametrize("works_in", ["root", "link"])
def test_names_are_the_same_through_links(bench: Bench, seen: str, works_in: str) -> None:
    """Caches behind links: what upstream calls its folder and what we do need not agree."""
    bench.write("csrc/a.cu")
    link = bench.folder / "link"
    link.symlink_to(bench.root)
    places = {"root": bench.root, "link": link}
    bench.capturing(root=places[seen])
    output = places[works_in] / "build" / "temp.x" / "csrc" / "a.o"
    output.parent.mkdir(parents=True)
    done = bench.run("nvcc", "-c", f"{places[works_in]}/csrc/a.cu", "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert bench.unit().name == "csrc/a"


def test_spaces_in_dependency_files_are_escaped(bench: Bench) -> None:
    bench.write("with space/a.cu")
    bench.run("nvcc", "-c", "with space/a.cu", "-o", "with space/a.o", "-MD")
    text = (bench.root / "with space" / "a.d").read_text()
    root = str(bench.root)
    assert text == f"{root}/with\\ space/a.o: {root}/with\\ space/a.cu\n"


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("{top}/python/build/temp.x/csrc/a.o", "csrc/a"),
        ("{top}/python/build/temp.x{top}/csrc/a.o", "../csrc/a"),
        ("{top}/python/build/temp.x{top}/python/csrc/a.o", "csrc/a"),
        ("{top}/out/a.o", "../out/a"),
        ("{outside}/tmpx1y2/a.o", "../csrc/a"),
    ],
)
def test_sources_above_the_projects_folder_are_units(bench: Bench, output: str, name: str) -> None:
    bench.write("csrc/a.cu")
    (bench.root / "python").mkdir()
    bench.capturing(root=bench.root / "python", top=bench.root)
    output = output.format(top=bench.root, outside=bench.folder)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    where = bench.root / "python"
    done = bench.run("nvcc", "-c", "../csrc/a.cu", "-o", output, cwd=where)
    assert done.returncode == 0, done.stderr
    assert (bench.unit().name, bench.unit().source) == (name, "@src@/csrc/a.cu")


def test_one_command_for_several_sources_is_a_unit_for_each(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.write(f"csrc/{name}.cu")
    (bench.root / "made").mkdir()
    done = bench.run("nvcc", "-O2", "-odir", "made", "-c", "csrc/a.cu", "csrc/b.cu")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    units = [record["unit"] for record in bench.records()]
    assert sorted((unit["name"], unit["codegen"]) for unit in units) == [
        ("made/a", ["-O2"]), ("made/b", ["-O2"]),
    ]  # fmt: skip
    for name in ("a", "b"):
        assert (bench.root / "made" / f"{name}.o").read_bytes() == b"empty object"


def test_a_command_that_compiles_and_links_is_a_unit_and_a_link(bench: Bench) -> None:
    bench.write("csrc/a.cu")
    bench.write("b.o")
    words = ["-O2", "-shared", "b.o", "csrc/a.cu", "-lcudart", "-o", "a.so"]
    done = bench.run("nvcc", *words)
    assert done.returncode == 7, "that of the nvcc that links"
    assert (bench.unit().name, bench.unit().codegen) == ("csrc/a", ("-O2",))
    [link] = [json.loads(path.read_text()) for path in (bench.folder / "links").iterdir()]
    expected = ["-nodlink", "-O2", "-shared", "b.o", "0-a.o", "-lcudart", "-o", "a.so"]
    assert link["command"] == ["nvcc", *expected]
    [linked] = [Path(line[1:-1]) for line in done.stdout.splitlines() if "0-a.o" in line]
    assert linked.read_bytes() == b"empty object"
    assert bench.findings() == [{"object": "project/b.o"}]


def test_a_command_with_a_source_that_is_no_units_goes_past_whole(bench: Bench) -> None:
    bench.write("csrc/a.cu")
    words = ["-shared", "csrc/a.cu", "/elsewhere/b.cu", "-o", "a.so"]
    assert bench.run("nvcc", *words).returncode == 7
    assert bench.records() == []
    assert bench.told() == [["nvcc", *words]]


@pytest.mark.parametrize("compiler", ["/elsewhere/bin/nvcc", "/usr/bin/g++", "gcc"])
def test_what_cmake_calls_is_a_unit_wherever_the_compiler_is(bench: Bench, compiler: str) -> None:
    source = "a.cu" if "nvcc" in compiler else "a.cpp"
    bench.write(source)
    done = bench.launch(compiler, "-c", source, "-o", "a.o")
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.unit().source == f"@src@/{source}"
    assert bench.told() == []


def test_what_cmake_calls_that_is_no_unit_is_its_own(bench: Bench) -> None:
    bench.echo(bench.root / "nvcc")
    done = bench.launch("./nvcc", "-E", "a.cu")
    assert done.stdout.splitlines() == ["called as ./nvcc", "<-E>", "<a.cu>"]
    assert done.returncode == 7
    assert bench.launch("/no/such/compiler", "-c", "a.cu").returncode == 1
    assert bench.records() == []


# -- leaving alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("-E", "csrc/a.cu"),
        ("csrc/a.o", "-o", "with space", "-L/x", "-optf", "file"),
        ("-c", "/elsewhere/a.cu", "-o", "a.o"),
        ("-c", "../other/a.cu"),
        ("-c", "csrc/a.cu", "-o", "/dev/null"),
        ("", "-x", "'quoted'", "$HOME", "*"),
    ],
)
def test_other_commands_reach_the_real_compiler_whole(
    bench: Bench, arguments: tuple[str, ...]
) -> None:
    bench.write("csrc/a.cu")
    done = bench.run("nvcc", *arguments, text="from stdin\n")
    called = [f"called as {bench.standins.nvcc}", *(f"<{word}>" for word in arguments)]
    assert done.stdout.splitlines() == [*called, "from stdin"]
    assert (done.stderr, done.returncode) == ("to stderr\n", 7)
    assert bench.records() == []


def test_a_signal_that_ends_the_real_compiler_is_passed_on(bench: Bench) -> None:
    (bench.home / "bin" / "nvcc").write_text("#!/bin/sh\nkill -11 $$\n")
    assert bench.run("nvcc", "--version").returncode == -11


def test_linking_and_c_are_done_by_the_real_compilers(bench: Bench) -> None:
    bench.write("main.c", "int class(void) { return 3; }\nint main(void) { return class(); }\n")
    assert bench.run("gcc", "-c", "main.c", "-o", "main.o").returncode == 0
    assert bench.run("g++", "main.o", "-o", "program").returncode == 0
    assert subprocess.run([str(bench.root / "program")]).returncode == 3
    assert bench.records() == []


def test_c_is_compiled_without_the_projects_folder(bench: Bench) -> None:
    bench.write("main.c", "const char *where(void) { return __FILE__; }\n")
    source = bench.root / "main.c"
    assert bench.run("gcc", "-g", "-c", str(source), "-o", "main.o").returncode == 0
    data = (bench.root / "main.o").read_bytes()
    assert str(bench.folder).encode() not in data
    assert f"{bench.root.name}/main.c\0".encode() in data


def test_what_is_optimized_while_linking_is_the_same_in_every_folder(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """gcc compiles once more then, and names folders and random symbols."""
    tool("g++")
    libraries = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name)
        bench.write("main.c", "static int hidden(int x) { return x; } int (*shown)(int) = hidden;")
        options = ["-g", "-O2", "-flto", "-fPIC"]
        assert bench.run("gcc", *options, "-c", "main.c", "-o", "main.o").returncode == 0
        done = bench.run("g++", *options, "-shared", "main.o", "-o", "main.so")
        assert done.returncode == 0, done.stderr
        libraries.append((bench.root / "main.so").read_bytes())
    assert libraries[0] == libraries[1]
    assert str(tmp_path).encode() not in libraries[0]


def test_libraries_do_not_look_for_others_in_folders_of_this_machine(bench: Bench) -> None:
    bench.write("main.c", "int answer(void) { return 3; }\n")
    assert bench.run("gcc", "-fPIC", "-c", "main.c", "-o", "main.o").returncode == 0
    paths = f"-Wl,-rpath,/python/lib,-rpath,$ORIGIN/../libs,-rpath,{bench.root}/lib"
    done = bench.run("g++", "-shared", "main.o", "-o", "main.so", paths, "-L/python/lib")
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["readelf", "-d", "main.so"], cwd=bench.root, capture_output=True, text=True, check=True
    ).stdout
    [line] = [line for line in shown.splitlines() if "PATH" in line]
    assert line.endswith("[$ORIGIN/../libs]")


# -- going past ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cc", "c++", os.path.basename(os.path.realpath("/usr/bin/g++"))])
def test_every_name_of_the_compiler_is_a_stand_in(bench: Bench, name: str) -> None:
    bench.write("csrc/b.cpp")
    assert bench.run(name, "-c", "csrc/b.cpp", "-o", "b.o").returncode == 0
    assert bench.unit().kind == "c++"
    assert bench.told() == []


def test_a_compiler_that_is_called_by_its_path_is_told_and_names_no_folder(bench: Bench) -> None:
    source = bench.write("b.cpp", "const char *where() { return __FILE__; }\n")
    bench.write("c.S", 'nop\n.section .note.GNU-stack,"",@progbits\n')
    for words in ("-c b.cpp -o b.o", f"-c {source} -o again.o", "-c c.S -o c.o",
                  f"-shared b.o c.o -o b.so -Wl,-rpath,{bench.root},-rpath,/kept",
                  "-c b.cpp -o b.o"):  # fmt: skip
        done = bench.past(bench.cxx, "-g", "-fPIC", *words.split())
        assert (done.returncode, done.stderr) == (0, "")
    data = (bench.root / "b.so").read_bytes()
    again = (bench.root / "again.o").read_bytes()
    assert str(bench.folder).encode() not in data + again
    assert b"project/b.cpp\0" in again
    assert b"/kept" in data
    assert sorted(words[-1] for words in bench.told()) == [
        "-Wl,-rpath,project,-rpath,/kept", "again.o", "b.o", "c.o",
    ]  # fmt: skip
    assert bench.records() == []


def test_what_fails_past_the_stand_ins_fails(bench: Bench) -> None:
    bench.write("b.cpp", "#error wrong\n")
    done = bench.past(bench.cxx, "-c", "b.cpp")
    assert done.returncode == 1
    assert "#error wrong" in done.stderr


def test_objects_that_nobody_made_are_told_where_they_are_linked(bench: Bench) -> None:
    bench.write("main.c", "int main(void) { return 0; }\n")
    assert bench.run("gcc", "-c", "main.c", "-o", "main.o").returncode == 0
    shutil.copyfile(bench.root / "main.o", bench.root / "copied.o")
    assert bench.run("g++", "main.o", "-o", "program").returncode == 0
    assert bench.findings() == []
    assert bench.run("g++", "copied.o", "-o", "program").returncode == 0
    assert bench.findings() == [{"object": "project/copied.o"}]


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [
        (("-c", "/elsewhere/a.cu", "-o", "a.o"), True),
        (("-fatbin", "a.cu", "-o", "a.fatbin"), True),
        (("-dc", "a.ptx", "-o", "a.o"), True),
        (("-cuda", "a.cu", "-o", "a.cudafe1.cpp"), True),
        (("--version",), False),
        (("-c", "a.cu", "-o", "/dev/null"), False),
        (("-E", "a.cu"), False),
    ],
)
def test_device_code_that_nvcc_makes_itself_is_told(
    bench: Bench, arguments: tuple[str, ...], is_told: bool
) -> None:
    bench.run("nvcc", *arguments)
    assert bench.told() == ([["nvcc", *arguments]] if is_told else [])


def test_what_a_real_nvcc_starts_is_its_own(bench: Bench) -> None:
    """It may be told to take the stand-in (-ccbin), and keep its texts in the project's folder."""
    (bench.home / "bin" / "nvcc").write_text(
        f"#!/bin/sh\nexec {bench.compilers}/g++ -c kept.cpp -o kept.o\n"
    )
    bench.write("kept.cpp")
    assert bench.run("nvcc", "--keep", "x.o").returncode == 0
    assert (bench.root / "kept.o").read_bytes().startswith(b"\x7fELF")
    assert bench.records() == bench.told() == []


# -- mistakes ----------------------------------------------------------------------------------


def test_a_call_without_settings_says_what_is_wrong(bench: Bench) -> None:
    del bench.variables[SETTINGS]
    done = bench.run("nvcc", "--version")
    assert done.returncode == 7
    assert SETTINGS in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_are_gone_are_named(bench: Bench) -> None:
    (bench.folder / "settings.json").unlink()
    done = bench.run("g++", "--version")
    assert done.returncode == 1
    assert done.stderr.startswith("g++: ")
    assert "settings.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_named(bench: Bench) -> None:
    bench.write("a.cu")
    done = bench.run("nvcc", "-c", "a.cu", "-o", "no/such/folder/a.o")
    assert done.returncode == 1
    assert "no/such/folder/a.o" in done.stderr
    assert "Traceback" not in done.stderr


# -- answering ---------------------------------------------------------------------------------


class Assembling(Bench):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.context = make_context(folder / "view")
        self.fronts = (front("80", "sm_80", "sm_86"), front("90a"))
        self.settings("assemble", context=self.context.to_wire(), fronts=self.fronts)

    def write_both(self, name: str, text: str) -> None:
        """In the project, where upstream sees it, and in the view, where compilers do."""
        self.write(name, text)
        (Path(self.context.places.source) / name).write_text(text)


@pytest.fixture
def assembling(tmp_path: Path, tool: Callable[[str], str]) -> Assembling:
    tool("g++")
    return Assembling(tmp_path)


def test_a_cuda_command_is_answered_with_all_images(assembling: Assembling) -> None:
    assembling.write_both("a.cu", "int a;\n")
    theirs = "-gencode=arch=compute_75,code=sm_75"
    done = assembling.run("nvcc", "-c", "a.cu", "-o", "a.o", "-MD", theirs)
    assert (done.returncode, done.stderr) == (0, "")
    images = [image_name(entry) for entry in slices_of((assembling.root / "a.o").read_bytes())]
    assert images == ["sm_80", "sm_86", "sm_90a"]
    assert (assembling.root / "a.d").exists()


def test_a_cpp_command_is_answered_with_its_object(assembling: Assembling) -> None:
    assembling.write_both("b.cpp", "int answer = 42;\n")
    assert assembling.run("gcc", "-c", "b.cpp", "-o", "b.o").returncode == 0
    symbols = subprocess.run(["nm", str(assembling.root / "b.o")], capture_output=True, text=True)
    assert symbols.stdout.split()[1:] == ["D", "answer"]


def test_a_compile_error_is_shown_and_ends_the_command(assembling: Assembling) -> None:
    assembling.write_both("a.cu", "#error not today\n")
    (assembling.root / "a.o").write_bytes(b"old")
    done = assembling.run("nvcc", "-c", "a.cu", "-o", "a.o")
    assert done.returncode == 8
    assert "#error not today" in done.stderr
    assert done.stderr.startswith("a [sm_80,sm_86]: nvcc failed")
    assert (assembling.root / "a.o").read_bytes() == b"old", "something half-done was left"
    assert sorted(path.name for path in assembling.root.glob("a.o*")) == ["a.o"]
