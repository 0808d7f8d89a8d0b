"""Digests of device programs, of texts as gcc and cicc write them, cut short."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.worker.deviceprogram import digest_of_program, is_understood, keeps_lines

# As nvcc 13.0.88 leaves it of `a.cu`, which includes dev.h and lib.h.
PROGRAM = """typedef char __nv_bool;
# 3 "/site/dev.h"
struct pair;
# 3 "/site/dev.h"
struct pair {
# 4 "/site/dev.h"
int a;
int b;};
__asm__(".align 2");
# 5 "/src/a.cu"
__launch_bounds__(64) __global__ __var_used__ void _Z1kP4pair(
# 5 "/src/a.cu"
struct pair *p){
{
# 6 "/src/a.cu"
 int __cuda_local_var_111491_7_non_const_i;
# 7 "/src/a.cu"
 int __cuda_local_var_111492_7_non_const_i;
__cuda_local_var_111491_7_non_const_i = 1;
__cuda_local_var_111492_7_non_const_i = 2;

#pragma unroll 4
for (; __cuda_local_var_111491_7_non_const_i < 8; ++__cuda_local_var_111491_7_non_const_i) {
p->a += __cuda_local_var_111492_7_non_const_i; }
}}
"""
TEXT = """# 0 "/src/a.cu"
# 0 "<built-in>"
# 1 "/site/dev.h" 1
# 3 "/site/dev.h"
struct pair { int a, b; };
# 2 "/src/a.cu" 2
# 1 "/site/lib.h" 1
inline int host(int a) { return a; }
# 3 "/src/a.cu" 2

__attribute__((global)) void __attribute__((launch_bounds(64))) k(pair *p) {
  int i = 1; { int i = 2; p->a += i; }
}
"""
LATER = PROGRAM.replace("_11149", "_20949")  # the same, further down in another text

Digest = Callable[..., str | None]


@pytest.fixture(name="digest")
def _digest(tmp_path: Path) -> Digest:
    def of(program: str, text: str, stamp: Callable[[str], str | None] | None = None) -> str | None:
        (tmp_path / "a.gpu").write_text(program)
        (tmp_path / "a.ii").write_text(text)
        return digest_of_program(tmp_path / "a.gpu", tmp_path / "a.ii", stamp)

    return of


def test_where_local_variables_stood_in_the_text_does_not_count(digest: Digest) -> None:
    assert digest(PROGRAM, TEXT) is not None
    assert digest(LATER, TEXT) == digest(PROGRAM, TEXT)


def test_which_local_variable_is_used_does(digest: Digest) -> None:
    other = PROGRAM.replace("+= __cuda_local_var_111492", "+= __cuda_local_var_111491")
    assert digest(other, TEXT) != digest(PROGRAM, TEXT)


def test_files_that_the_program_has_nothing_of_do_not_count(digest: Digest) -> None:
    other = TEXT.replace("return a;", "return a + 1;").replace("# 0", '# 1 "/site/more.h" 1\n# 0')
    assert digest(PROGRAM, other) == digest(PROGRAM, TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("unroll 4", "unroll 8"),
        ("launch_bounds__(64)", "launch_bounds__(128)"),
        ("int b;", "long b;"),
        ('# 6 "', '# 60 "'),
        ('".align 2"', '".align 4"'),
        ("_non_const_i = 2", "_const_i = 2"),
    ],
)
def test_all_else_of_the_program_counts(digest: Digest, old: str, new: str) -> None:
    assert old in PROGRAM
    assert digest(PROGRAM.replace(old, new), TEXT) != digest(PROGRAM, TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # What the program does not show, though it decides PTX or line tables.
        ("__attribute__((launch_bounds(64)))", "__attribute__((launch_bounds(64),maxnreg(32)))"),
        ("k(pair *p)", "k(__attribute__((grid_constant)) pair *p)"),
        ("int i = 1; {", "int i = 1;  {"),
        ('# 3 "/site/dev.h"', '# 4 "/site/dev.h"'),
        ("int a, b;", "int a, b; int host();"),
    ],
)
def test_the_text_of_the_programs_files_counts(digest: Digest, old: str, new: str) -> None:
    assert old in TEXT
    assert digest(PROGRAM, TEXT.replace(old, new)) != digest(PROGRAM, TEXT)


@pytest.mark.parametrize(
    ("attribute", "counts"),
    [
        ("__attribute__((maxnreg(32)))", True),
        ("__attribute__ ((block_size(64, 1, 1)))", True),
        ("__attribute__((device,  cluster_dims(2)))", True),
        ("[[nvidia::unheard_of]]", True),
        ("[ [ unheard_of ] ]", True),
        ("[[unheard_of(a[1])]]", True),
        ('const char *s = "[[" "(";', False),
        ("__attribute__((launch_bounds(P<A<B, C>, D>::n, Q<E, F>::n)))", False),
        ("__attribute((maxnreg(32)))", True),
        ("__attribute__( (maxnreg(32)) )", True),
        ('__attribute__((maxnreg(\n# 12 "/site/lib.h"\n32)))', True),
        ("__attribute__((aligned((8)), maxnreg(32)))", True),
        ("__attribute__((launch_bounds(128, 1, 2)))", True),
        ("__attribute__((launch_bounds(128, 1)))", False),
        ('__attribute__((deprecated("(a")))', False),
        ('__attribute__((\n# 12 "/site/lib.h"\ndevice))', False),
        ("__attribute__((device)) __attribute__((__noinline__))", False),
        ('__attribute__((format(printf, 1, 2), visibility("default")))', False),
        ("[[nodiscard]] [[gnu::always_inline, maybe_unused]]", False),
        ("__attribute__((aligned(sizeof(int) * (2 + (1)))))", False),
        ("__attribute__(())", False),
    ],
)
def test_a_file_counts_with_an_attribute_that_the_program_may_not_show(
    digest: Digest, attribute: str, counts: bool
) -> None:
    other = TEXT.replace("inline int host", f"{attribute} int host")
    assert (digest(PROGRAM, other) != digest(PROGRAM, TEXT)) == counts


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ('p->a = (__builtin_nanf(""));', ""),
        ("", 'const char *s = R"x(\n# 1 "/site/lib.h"\n)x";'),
        ("", 'const char *s = R"(never ended'),
        ("", '__attribute__((\n# 1 "/site/more.h" 1\nmaxnreg(1)\n# 4 "/src/a.cu" 2\n)) void g();'),
        ("", "__attribute__((maxnreg(COUNT))) void g();"),
        ("", "__attribute__((launch_bounds(128, 1, COUNT))) void g();"),
        ("", "__attribute__((maxnreg([] { return 1; }()))) void g();"),
    ],
)
def test_what_could_hide_something_is_not_understood(
    digest: Digest, program: str, text: str
) -> None:
    assert digest(PROGRAM + program, TEXT + text) is None


def test_raw_strings_and_names_in_strings_are_understood(digest: Digest) -> None:
    assert digest(PROGRAM, TEXT + 'const char *s = R"(\n#include <a>\n[[)";\n')
    says = PROGRAM + 'char *s = "__cuda_local_var_%d_7_non_const_i";\n'
    assert digest(says % 1, TEXT) != digest(says % 2, TEXT)


def test_a_program_of_files_that_the_text_has_not_is_not_understood(digest: Digest) -> None:
    assert digest(PROGRAM.replace("/site/dev.h", "/site/else.h"), TEXT) is None
    assert digest(re.sub("# .*\n", "", PROGRAM), TEXT) is None
    assert digest("", "") is None


def test_with_line_tables_times_and_sizes_of_the_programs_files_count(digest: Digest) -> None:
    asked = []

    def stamp(name: str) -> str:
        asked.append(name)
        return "then"

    first = digest(PROGRAM, TEXT, stamp)
    assert sorted(asked) == ["/site/dev.h", "/src/a.cu"]
    assert first not in (None, digest(PROGRAM, TEXT))
    assert digest(PROGRAM, TEXT, lambda name: "then" if name == "/src/a.cu" else "now") != first
    assert digest(PROGRAM, TEXT, lambda name: None) is None


@pytest.mark.parametrize(
    "options",
    [
        ("-G",), ("--device-debug",), ("-rdc=true",), ("-rdc", "true"), ("-dc",), ("-dlto",),
        ("--relocatable-device-code=true",), ("--optf", "file"), ("--options-file=x",),
        ("-optf", "file"), ("-ewp",),
    ],
)  # fmt: skip
def test_options_that_make_more_of_a_source_are_not_understood(options: tuple[str, ...]) -> None:
    assert not is_understood(("-O3", *options))


def test_other_options_are() -> None:
    common = ("-O3", "--use_fast_math", "--expt-relaxed-constexpr", "-Xptxas", "-v", "-std=c++17")
    assert is_understood((*common, "-lineinfo"))
    assert keeps_lines((*common, "-lineinfo"))
    assert keeps_lines((*common, "--generate-line-info"))
    assert not keeps_lines(common)
