"""What is known of preprocessed texts, with the real g++ as preprocessor."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.compilers.hosts import Gcc
from fatwheel.errors import CompileError
from fatwheel.model import Unit
from fatwheel.worker.preprocess import HOST_PASS, Texts, pass_of, unit_header
from fatwheel.worker.slices import preprocess_command
from fatwheel.worker.view import Places, compiler_files

from ...helpers.standins import calls, cpp_unit, cuda_unit, front, fronts_of_list, job, make_context

FRONT = front("80")
DEVICE_PASS = "compute_80"


@pytest.fixture(autouse=True)
def _compiler(tool: Callable[[str], str]) -> None:
    tool("g++")


class Bench:
    """A project with one unit that includes a header of its own and one of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context(folder)
        self.unit = cuda_unit("a", "-I", "@src@/inc", "-isystem", "@site@")
        self.write("src/inc/own.h", "int own;")
        self.write("site/env.h", "int env;")
        self.write("src/a.cu", '#include "own.h"\n#include <env.h>\nint a = 1;\n')

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
        return path

    def texts(self, **changes: Any) -> Texts:
        """A fresh look, as another build has it, in a context with these changes."""
        context = dataclasses.replace(self.context, **changes)
        return Texts(context, context.store())

    def preprocess(self, pass_: str = DEVICE_PASS, unit: Unit | None = None, **changes: Any) -> str:
        unit = unit or self.unit
        context = dataclasses.replace(self.context, **changes)
        work = job(unit, FRONT if unit.kind == "cuda" else None, host=pass_ == HOST_PASS)
        return self.texts(**changes).preprocess(unit, pass_, preprocess_command(context, work))

    def recorded(self, pass_: str = DEVICE_PASS, unit: Unit | None = None, **changes: Any) -> Any:
        return self.texts(**changes).recorded(unit or self.unit, pass_)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_pass_is_named_after_its_front() -> None:
    assert pass_of(front("90a")) == "compute_90a"
    assert pass_of(None) == HOST_PASS


# -- sources that are no longer what was laid out ------------------------------------------------


def laid_out(bench: Bench) -> Places:
    """The places, as if all that lies in src had been laid out there."""
    files = tuple(sorted(compiler_files(bench.folder / "src").items()))
    return dataclasses.replace(bench.context.places, files=files)


def test_sources_as_they_were_laid_out_are_recorded(bench: Bench) -> None:
    places = laid_out(bench)
    text = bench.preprocess(places=places)
    assert bench.recorded(places=places) == text


def changed(bench: Bench) -> str:
    bench.write("src/inc/own.h", "int own = 666;")
    return "inc/own.h"


def added(bench: Bench) -> str:
    bench.write("src/inc/env.h", "int found_before_the_environments;")
    return "inc/env.h"


@pytest.mark.parametrize("change", [changed, added], ids=lambda change: change.__name__)
@pytest.mark.parametrize("pass_", [DEVICE_PASS, HOST_PASS])
def test_a_source_that_changed_is_named_and_nothing_is_kept(
    change: Callable[[Bench], str], pass_: str, bench: Bench
) -> None:
    places = laid_out(bench)
    name = change(bench)
    with pytest.raises(CompileError, match="changed while it was compiled") as caught:
        bench.preprocess(pass_, places=places)
    assert caught.value.where == name
    assert bench.recorded(pass_, places=places) is None
    assert not bench.texts(places=places).seen(bench.unit, pass_)


def test_a_source_is_read_again_after_compiling(bench: Bench) -> None:
    """What was read before, to look something up, may have been the honest one."""
    places = laid_out(bench)
    bench.preprocess(places=places)
    texts = bench.texts(places=places)
    assert texts.recorded(bench.unit, DEVICE_PASS)
    changed(bench)
    work = job(bench.unit, FRONT, host=False)
    command = preprocess_command(dataclasses.replace(bench.context, places=places), work)
    with pytest.raises(CompileError, match="changed while"):
        texts.preprocess(bench.unit, DEVICE_PASS, command)


# -- the header that every call includes first ------------------------------------------------


def test_the_header_fixes_the_list_of_architectures(tmp_path: Path) -> None:
    header = tmp_path / "fatwheel.h"
    header.write_text(unit_header(cuda_unit(), (800, 860, 900), Gcc()))
    (tmp_path / "a.cpp").write_text("int list[] = {__CUDA_ARCH_LIST__};")
    command = ["g++", "-E", "-P", "-D__CUDA_ARCH_LIST__=800", "-include", str(header), "a.cpp"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert text.splitlines()[-1] == "int list[] = {800,860,900};"


def test_the_header_anchors_each_unit_by_a_hidden_symbol_of_its_own(tmp_path: Path) -> None:
    symbols = []
    for name in ("csrc/a", "csrc/b"):
        (tmp_path / "a.cpp").write_text(unit_header(cuda_unit(name), (800,), Gcc()))
        subprocess.run(["g++", "-c", "a.cpp"], cwd=tmp_path, check=True)
        table = subprocess.run(
            ["readelf", "-sW", "a.o"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        [line] = [line for line in table.splitlines() if "fw_unit_" in line]
        assert {"GLOBAL", "HIDDEN"} <= set(line.split()), f"nvcc needs an external symbol: {line}"
        symbols.append(line.split()[-1])
    assert symbols[0] != symbols[1], "two units of one extension would not link"


# -- records -----------------------------------------------------------------------------------


def test_nothing_is_known_of_a_unit_that_was_never_compiled(bench: Bench) -> None:
    assert bench.recorded() is None
    assert not bench.texts().seen(bench.unit, DEVICE_PASS)


def test_a_record_answers_without_a_preprocessor(bench: Bench) -> None:
    text = bench.preprocess()
    nowhere = (("PATH", "/nonexistent"),)
    assert bench.recorded(environment=nowhere) == text
    assert bench.texts().seen(bench.unit, DEVICE_PASS)
    assert calls(bench.folder / "cuda") == [], "nvcc was called to compile"


def test_a_texts_digest_is_that_of_what_the_preprocessor_writes(bench: Bench) -> None:
    cpp = cpp_unit("b")
    bench.write("src/b.cpp", "int b = A;")
    expected = subprocess.run(
        [*preprocess_command(bench.context, job(cpp, None))], capture_output=True, check=True
    ).stdout
    assert bench.preprocess(HOST_PASS, cpp) == hashlib.sha256(expected).hexdigest()


def test_each_pass_has_its_own_text(bench: Bench) -> None:
    bench.write("src/a.cu", "#ifdef __CUDA_ARCH__\nint device;\n#else\nint host;\n#endif")
    device, host = bench.preprocess(), bench.preprocess(HOST_PASS)
    assert device != host
    assert (bench.recorded(), bench.recorded(HOST_PASS)) == (device, host)


@pytest.mark.parametrize("name", ["src/a.cu", "src/inc/own.h", "site/env.h"])
def test_a_record_ends_when_a_file_changes(bench: Bench, name: str) -> None:
    bench.preprocess()
    path = bench.folder / name
    old = path.read_text()
    path.write_text(old + "int more;\n")
    assert bench.recorded() is None, f"{name} changed"
    assert bench.texts().seen(bench.unit, DEVICE_PASS), "else nothing would be looked up"
    path.unlink()
    assert bench.recorded() is None, f"{name} is gone"
    path.write_text(old)
    assert bench.recorded() is not None, "it is as it was"


def test_a_record_ends_when_the_project_gets_another_file(bench: Bench) -> None:
    bench.write("src/a.cu", '#if __has_include("extra.h")\n#include "extra.h"\n#endif')
    before = bench.preprocess()
    bench.write("src/inc/extra.h", "int extra;")
    places = dataclasses.replace(bench.context.places, listing="one file more")
    assert bench.recorded(places=places) is None, "extra.h would not be seen"
    assert bench.texts(places=places).seen(bench.unit, DEVICE_PASS)
    assert bench.preprocess(places=places) != before


@pytest.mark.parametrize(
    "change", [{"device_id": "other"}, {"host_id": "other"}], ids=lambda change: next(iter(change))
)
def test_a_record_is_about_one_compiler(bench: Bench, change: dict[str, str]) -> None:
    bench.preprocess()
    assert bench.recorded(**change) is None


def test_a_cpp_record_does_not_care_for_cuda(bench: Bench) -> None:
    bench.write("src/b.cpp", "int b;")
    bench.preprocess(HOST_PASS, cpp_unit("b"))
    assert bench.recorded(HOST_PASS, cpp_unit("b"), device_id="other") is not None
    assert bench.recorded(HOST_PASS, cpp_unit("b"), host_id="other") is None


def test_the_environment_may_lie_elsewhere(bench: Bench, tmp_path: Path) -> None:
    """The same files in another Python's environment: the same text, without preprocessing."""
    text = bench.preprocess()
    shutil.copytree(bench.folder / "site", tmp_path / "site2")
    old = bench.context.places
    places = dataclasses.replace(old, links=(("site", str(tmp_path / "site2")), old.links[1]))
    assert bench.recorded(places=places) == text
    (tmp_path / "site2" / "env.h").write_text("int other;\n")
    assert bench.recorded(places=places) is None


def test_records_of_several_states_are_kept(bench: Bench) -> None:
    digests = {}
    for word in ("one", "two", "three"):
        bench.write("site/env.h", f"int {word};")
        digests[word] = bench.preprocess()
    assert len(set(digests.values())) == 3
    for word, text in digests.items():
        bench.write("site/env.h", f"int {word};")
        assert bench.recorded() == text


def test_records_are_bounded(bench: Bench) -> None:
    for number in range(9):
        bench.write("site/env.h", f"int n{number};")
        bench.preprocess()
    kept = 0
    for number in range(9):
        bench.write("site/env.h", f"int n{number};")
        kept += bench.recorded() is not None
    assert kept == 6, "the newest six states, see _VARIANTS"


def test_line_directives_may_name_what_does_not_exist(bench: Bench) -> None:
    bench.write("src/a.cu", '#line 1 "generator.y"\nint a;\n#line 7 "/no/such/file"\nint b;')
    text = bench.preprocess()
    assert bench.recorded() == text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["/dev/zero", "/proc/kmsg", "/proc/kcore", "pipe", "socket"])
def test_a_record_from_elsewhere_may_name_what_never_ends(
    bench: Bench, name: str, tmp_path: Path
) -> None:
    """Records may have come from a remote. (A failure of this test does not end.)"""
    text = bench.preprocess()
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    elif name == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / name))
    key, store = bench.texts().key(bench.unit, DEVICE_PASS), bench.context.store()
    [record] = store.get_json("text", key)
    named = {**record, "text": "ab" * 32, "files": [[str(tmp_path / name), "cd" * 32, False]]}
    store.put_json("text", key, [named, record])
    assert bench.recorded() == text


@pytest.mark.parametrize("name", ["with space.h", 'with"quote.h', "with\\backslash.h", "é.h"])
def test_headers_of_any_name_count(bench: Bench, name: str) -> None:
    bench.write(f"src/inc/{name}", "int odd;")
    bench.write("src/a.cu", f"#include <{name}>")
    bench.preprocess()
    assert bench.recorded() is not None
    bench.write(f"src/inc/{name}", "int changed;")
    assert bench.recorded() is None, f"{name} changed"


# -- the list of architectures -----------------------------------------------------------------


def test_a_text_without_the_list_holds_for_any(bench: Bench) -> None:
    text = bench.preprocess(fronts=fronts_of_list(800))
    assert bench.recorded(fronts=fronts_of_list(800, 900)) == text


def test_a_text_with_the_list_holds_for_that_list_alone(bench: Bench) -> None:
    bench.write("src/inc/own.h", "int list[] = {__CUDA_ARCH_LIST__};")
    one, two = (
        bench.preprocess(fronts=fronts_of_list(800)),
        bench.preprocess(fronts=fronts_of_list(800, 900)),
    )
    assert one != two, "the stand-in does not pass the list on"
    assert bench.recorded(fronts=fronts_of_list(800)) == one
    assert bench.recorded(fronts=fronts_of_list(800, 900)) == two
    assert bench.recorded(fronts=fronts_of_list(900)) is None


def test_a_list_in_the_command_counts_too(bench: Bench) -> None:
    unit = cuda_unit("a", "-D", "LIST=__CUDA_ARCH_LIST__")
    bench.write("src/a.cu", "int list[] = {LIST};")
    bench.preprocess(unit=unit, fronts=fronts_of_list(800))
    assert bench.recorded(unit=unit, fronts=fronts_of_list(800, 900)) is None


def test_units_whose_text_changes_with_the_list_are_known(bench: Bench) -> None:
    bench.write("src/inc/own.h", "int list[] = {__CUDA_ARCH_LIST__};")
    bench.preprocess(fronts=fronts_of_list(800))
    assert not bench.texts(fronts=fronts_of_list(800)).reads_archlist(bench.unit, DEVICE_PASS)
    bench.preprocess(fronts=fronts_of_list(800, 900))
    assert bench.texts(fronts=fronts_of_list(800, 900)).reads_archlist(bench.unit, DEVICE_PASS)


def test_speaking_of_the_list_without_reading_it_proves_nothing(bench: Bench) -> None:
    bench.write("src/inc/own.h", "// __CUDA_ARCH_LIST__\nint own;")
    lists = ((800,), (800, 900))
    same = [bench.preprocess(fronts=fronts_of_list(*numbers)) for numbers in lists]
    assert same[0] == same[1]
    assert not bench.texts(fronts=fronts_of_list(800, 900)).reads_archlist(bench.unit, DEVICE_PASS)


# -- errors ------------------------------------------------------------------------------------


def test_a_source_that_does_not_preprocess_is_an_error(bench: Bench) -> None:
    bench.write("src/a.cu", "#error no")
    with pytest.raises(subprocess.CalledProcessError):
        bench.preprocess()
    assert bench.recorded() is None
    assert list((bench.folder / "scratch").iterdir()) == [], "something was left behind"


def test_a_front_that_nvcc_does_not_run_is_an_error(bench: Bench, tmp_path: Path) -> None:
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho '#$ cicc -o x.ptx' >&2\n")
    with pytest.raises(subprocess.CalledProcessError):
        bench.preprocess()


def test_preprocessing_sees_the_fronts_architecture(bench: Bench) -> None:
    bench.write("src/a.cu", "int n = __CUDA_ARCH__;")
    text = bench.preprocess()
    bench.write("src/a.cu", "int n = 800;")
    assert bench.preprocess() == text, "line markers are the same, so the macro's value was not"
