"""Code that is taken over because its device program is known, with the real nvcc."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.arch import parse_arch
from fatwheel.engines.process import local_workplace
from fatwheel.errors import CompileError
from fatwheel.events import silent
from fatwheel.model import Environment, Front, Job, Unit
from fatwheel.pipeline.costs import apart
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.worker.context import Context
from fatwheel.worker.deviceprogram import digest_of_program
from fatwheel.worker.preprocess import Texts, pass_of
from fatwheel.worker.secondkey import OFF
from fatwheel.worker.slices import Made, known_host_key, missing, run_job, slice_key
from fatwheel.worker.stages import front_key, kept_front
from fatwheel.worker.view import Places

from .conftest import SAMPLE

pytestmark = pytest.mark.slow

FRONT = Front(parse_arch("80"), ("sm_80", "compute_80"))
UNIT = Unit("a", "cuda", "@src@/a.cu", ("-lineinfo",), ("-I", "@site@"))
SOURCE = """
#include "host.h"
#include "device.h"
__global__ void kernel(int *p) { p[threadIdx.x] = twice(p[threadIdx.x]); }
void run(int *p) { kernel<<<1, threads()>>>(p); }
"""


class Project:
    """A unit that includes headers of a library, of which there are versions."""

    def __init__(self, folder: Path, environment: Environment) -> None:
        self.site = folder / "site"
        self.store = folder / "store"
        self._fresh = folder / "fresh"
        for name in ("src", "site", "scratch"):
            (folder / name).mkdir()
        (folder / "src" / "a.cu").write_text(SOURCE)
        links = (("site", str(self.site)), ("cuda", str(environment.cuda_home)))
        self.context = Context(
            nvcc="@cuda@/bin/nvcc", cxx="/usr/bin/g++", device_id="device", host_id="host",
            seeded=True, fronts=(FRONT,), places=Places(str(folder / "src"), links, "listing"),
            environment=(("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")),
            scratch=str(folder / "scratch"), store_root=str(self.store), store_limit=1 << 30,
            audit=0,
        )  # fmt: skip
        self.header("device.h", "__device__ inline int twice(int a) { return a * 2; }\n")
        self.header("host.h", "inline int threads() { return 32; }\n")

    def header(self, name: str, text: str) -> None:
        """Write a header, as a library's version has it; all are from the same day."""
        (self.site / name).write_text(text)
        os.utime(self.site / name, (1_600_000_000, 1_600_000_000))

    def compile(self, *, stages: bool = False, **changes: object) -> list[Made]:
        """Do what the store lacks of the unit."""
        context = replace(self.context, **changes)  # type: ignore[arg-type]
        store = context.store()
        texts = Texts(context, store)
        jobs = missing(texts, context, store, Job(UNIT, FRONT, True, 0, 0))
        if stages:
            jobs = tuple(stage for job in jobs for stage in apart(job))
        made = [run_job(context, store, Texts(context, store), job) for job in jobs]
        whole = Job(UNIT, FRONT, True, 0, 0)
        assert missing(Texts(context, store), context, store, whole) == ()
        return made

    def results(self, context: Context | None = None) -> list[object]:
        """What a build would take from the store."""
        context = context or self.context
        store = context.store()
        texts = Texts(context, store)
        host = known_host_key(texts, context, store, UNIT, FRONT)
        keys = [slice_key(context, UNIT, FRONT, code, self.text()) for code in FRONT.codes]
        assert host
        return [
            store.digest("host", host),
            *(store.digest("slice", key) for key in keys),
            *(store.get_json("abi", key) for key in keys),
        ]

    def fresh(self) -> list[object]:
        """What nvcc makes of the unit when nothing is known."""
        context = replace(self.context, store_root=str(self._fresh), audit=OFF)
        store = context.store()
        run_job(context, store, Texts(context, store), Job(UNIT, FRONT, True, 0, 0))
        return self.results(context)

    def text(self) -> str:
        texts = Texts(self.context, self.context.store())
        found = texts.recorded(UNIT, pass_of(FRONT))
        if found is None:  # it was compiled into the other store
            context = replace(self.context, store_root=str(self._fresh))
            found = Texts(context, context.store()).recorded(UNIT, pass_of(FRONT))
        assert found
        return found


@pytest.fixture(scope="module", name="environment")
def _environment() -> Environment:
    target = resolve(SAMPLE, ToolchainRequest("linux-cuda13.0"), "80")[0]
    return local_workplace(target, silent).tools.environment


@pytest.fixture(name="project")
def _project(environment: Environment, tmp_path: Path) -> Project:
    return Project(tmp_path, environment)


NEWER = "struct unheard_of { int a; };\n\ninline int threads() { return 64; }\n"


@pytest.mark.parametrize("stages", [False, True])
def test_code_is_taken_over_where_only_the_hosts_part_is_new(
    project: Project, stages: bool
) -> None:
    [first] = project.compile()
    assert not first.taken
    old = project.results()
    project.header("host.h", NEWER)
    made = project.compile(stages=stages)
    assert [one.taken for one in made] == ([True, True, False] if stages else [True])
    new = project.results()
    assert new == project.fresh()
    assert new[1:3] == old[1:3]  # the slices
    assert new[0] != old[0]  # the host object


def test_new_device_code_is_compiled(project: Project) -> None:
    project.compile()
    old = project.results()
    project.header("device.h", "__device__ inline int twice(int a) { return a * 3; }\n")
    [made] = project.compile()
    assert not made.taken
    assert project.results()[1:3] != old[1:3]
    project.header("device.h", "\n__device__ inline int twice(int a) { return a * 3; }\n")
    [made] = project.compile()
    assert not made.taken, "line tables name another line"


def test_one_that_is_audited_is_compiled(project: Project) -> None:
    project.compile()
    project.header("host.h", NEWER)
    [made] = project.compile(audit=1)
    assert not made.taken
    assert project.results() == project.fresh()
    project.header("host.h", NEWER + "\n")
    assert project.compile(audit=OFF)[0].taken is False
    project.header("host.h", NEWER + "\n\n")
    assert project.compile(audit=0)[0].taken is True


def test_a_difference_is_an_error_once_and_ends_the_taking_over(project: Project) -> None:
    project.compile()
    store, key = project.context.store(), front_key(project.context, UNIT, FRONT, project.text())
    kept = kept_front(store, key)
    assert kept
    assert b"shl.b32" in kept.ptx
    store.put("ptx", key, zlib.compress(kept.ptx.replace(b"shl.b32", b"shr.b32")))
    project.header("host.h", NEWER)
    with pytest.raises(CompileError) as caught:
        project.compile(audit=1)
    assert caught.value.where == "a"
    assert "not the same code: _Z6kernelPi" in caught.value.what
    assert "--audit off" in (caught.value.hint or "")
    assert project.results() == project.fresh()
    project.header("host.h", NEWER + "\n")
    [made] = project.compile()
    assert not made.taken


def test_a_store_that_lost_the_code_has_it_compiled(project: Project) -> None:
    project.compile()
    store = project.context.store()
    for code in FRONT.codes:
        store.remove("slice", slice_key(project.context, UNIT, FRONT, code, project.text()))
    project.header("host.h", NEWER)
    assert project.compile()[0].taken  # from PTX
    assert project.results() == project.fresh()
    store.clear("ptx")
    project.header("host.h", NEWER + "\n")
    assert not project.compile()[0].taken


# -- what decides PTX ------------------------------------------------------------------------------

KERNEL = "__global__ void %s k(int *p, float *f) { int i = threadIdx.x; %s }\n"
STRUCT = (
    "struct S { int a[40]; };\n"
    "__device__ __noinline__ int at(const S *s) { return s->a[clock() & 7]; }\n"
    "__global__ void k(int *p, const %s S s) { p[0] = at(&s); }\n"
)
LOOP = "\n#pragma unroll %d\nfor (int j = 0; j < i; j++) p[j] *= j;\n"
BRANCH = "if (i < p[0]) %s p[1] = f[2] / f[3]; else p[2] = f[1] / f[4];"
MEMBERS = "struct %s T { int a, b, c, d; };\n__global__ void k(T *p) { p[0] = p[1]; }\n"
DECLARED = '# 1 "lib.h" 1\n__global__ void %s k(int *p);\n# 2 "x.cu" 2\n'
DEFINED = DECLARED + "__global__ void k(int *p) { p[0] = p[1] * p[2]; }\n"
LONG = '__attribute__((maxnreg(\n# 40 "lib.h"\n32)))'
SAYS = (
    '# 1 "lib.h" 1\nconstexpr const char *TEXT = "__cuda_local_var_%d_2_x";\n# 2 "x.cu" 2\n'
    "__global__ void k(const char **p) { p[0] = TEXT; }\n"
)
DEFAULT = "template <int N = %d> struct D { static constexpr int n = N; };\n"
# Sources of which nvcc makes other PTX.
OTHER = [
    (KERNEL % ("", "f[i] *= 0.1f;"), KERNEL % ("", "f[i] *= 0.10000001f;")),
    (KERNEL % ("", LOOP % 2), KERNEL % ("", LOOP % 4)),
    (KERNEL % ("", BRANCH % "[[likely]]"), KERNEL % ("", BRANCH % "[[unlikely]]")),
    (KERNEL % ("", 'asm("membar.gl;");'), KERNEL % ("", 'asm("membar.cta;");')),
    (KERNEL % ("__launch_bounds__(64)", "p[i] = 1;"), KERNEL % ("", "p[i] = 1;")),
    (KERNEL % ("__maxnreg__(32)", "p[i] = 1;"), KERNEL % ("", "p[i] = 1;")),
    (KERNEL % ("__cluster_dims__(2)", "p[i] = 1;"), KERNEL % ("", "p[i] = 1;")),
    (KERNEL % ("__block_size__((64, 1, 1))", "p[i] = 1;"), KERNEL % ("", "p[i] = 1;")),
    (DEFINED % "__maxnreg__(32)", DEFINED % ""),
    (DEFINED % "__attribute((maxnreg(32)))", DEFINED % ""),
    (DEFINED % "__attribute__ ( (maxnreg(32)) )", DEFINED % ""),
    (DEFINED % "<:<:gnu::maxnreg(32):>:>", DEFINED % ""),
    (DEFINED % LONG, DEFINED % ""),
    (DEFINED % "__launch_bounds__(128, 1, 2)", DEFINED % "__launch_bounds__(128, 1, 4)"),
    (SAYS % 1, SAYS % 3),
    (STRUCT % "__grid_constant__", STRUCT % ""),
    (MEMBERS % "", MEMBERS % "alignas(16)"),
    (DEFAULT % 3 + KERNEL % ("", "p[i] = D<>::n;"), DEFAULT % 4 + KERNEL % ("", "p[i] = D<>::n;")),
    (KERNEL % ("", "p[1] = 2;"), KERNEL.replace("k(", "l(") % ("", "p[1] = 2;")),
]  # fmt: skip

RAW = 'const char *text = R"(\n# 1 "lib.h"\n)";\n'
NAN = (
    '# 1 "lib.h" 1\nconstexpr float NONE = %s;\n# 2 "x.cu" 2\n'
    "__global__ void k(float *p) { p[0] = NONE; }\n"
)
VALUE = '# 1 "value.h" 1\nconstexpr int M = %d;\n# 2 "x.cu" 2\n'
SPLIT = '__attribute__((maxnreg(\n# 1 "number.h" 1\n%d\n# 2 "lib.h" 2\n)))'
# Sources of which nvcc makes other PTX, though all that a digest could be over is the same.
NOT_UNDERSTOOD = [
    (RAW + KERNEL % ("", BRANCH % "[[likely]]"), RAW + KERNEL % ("", BRANCH % "[[unlikely]]")),
    (NAN % '__builtin_nanf("")', NAN % '-__builtin_nanf("")'),
    (NAN % '__builtin_nanf("1")', NAN % '__builtin_nanf("2")'),
    (NAN % "__builtin_bit_cast(float, 0x7fc00001)", NAN % "__builtin_bit_cast(float, 0x7fc00002)"),
    (DEFINED % (SPLIT % 32), DEFINED % (SPLIT % 64)),
    (
        VALUE % 32 + KERNEL % ("__maxnreg__(M)", "p[i] = f[i];"),
        VALUE % 64 + KERNEL % ("__maxnreg__(M)", "p[i] = f[i];"),
    ),
    (
        VALUE % 2 + DEFINED % "__launch_bounds__(128, 1, M)",
        VALUE % 4 + DEFINED % "__launch_bounds__(128, 1, M)",
    ),
]  # fmt: skip

Compiled = tuple[str | None, bytes]


@pytest.fixture(scope="module", name="compiled")
def _compiled(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Compiled]:
    """Compiles a source; gives the digest of its device program, and PTX."""

    def compile_(source: str) -> Compiled:
        folder = tmp_path_factory.mktemp("unit")
        (folder / "keep").mkdir()
        (folder / "x.cu").write_text(source)
        options = ["-frandom-seed", "seed", "-gencode", "arch=compute_90,code=compute_90"]
        subprocess.run(
            [environment.cuda_home / "bin" / "nvcc", "-std=c++17", *options, "--keep",
             "--keep-dir", "keep", "-fatbin", "x.cu", "-o", "x.fatbin"],
            cwd=folder, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        program, text = folder / "keep" / "x.cudafe1.gpu", folder / "keep" / "x.cpp1.ii"
        ptx = (folder / "keep" / "x.ptx").read_bytes()
        return digest_of_program(program, text, None), ptx

    return compile_


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_changes_ptx_changes_the_program(
    one: str, other: str, compiled: Callable[[str], Compiled]
) -> None:
    first, second = compiled(one), compiled(other)
    assert first[1] != second[1]
    assert first[0] is not None
    assert first[0] != second[0]


@pytest.mark.parametrize(("one", "other"), NOT_UNDERSTOOD)
def test_what_the_program_hides_is_not_understood(
    one: str, other: str, compiled: Callable[[str], Compiled]
) -> None:
    first, second = compiled(one), compiled(other)
    assert first[1] != second[1]
    assert first[0] is None
    assert second[0] is None


def test_what_is_only_the_hosts_changes_neither(compiled: Callable[[str], Compiled]) -> None:
    kernel = '# 1 "x.cu" 2\n' + KERNEL % ("", LOOP % 2 + "int j = 3; { int j = i; p[j] = i; }")
    library = '# 1 "lib.h" 1\n%s\n'
    more = "struct later { int a; };\ntemplate <class T> T same(T a) { return a; }\n/* and */"
    plain = compiled(library % "inline int host() { return 1; }" + kernel)
    assert plain[0] is not None
    assert compiled(library % more + kernel) == plain
