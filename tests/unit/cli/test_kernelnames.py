"""Names of kernels as people read them: what c++filt says, but shorter, and within bounds.

tests/property/test_names.py has more.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import product

import pytest

from fatwheel.cli import kernelnames
from fatwheel.cli.console import show_error
from fatwheel.cli.kernelnames import fitted, names_shown, readable
from fatwheel.errors import StitchError

from ...helpers.mangled import mangled, needs_library, substitution

pytestmark = needs_library

SCALE = "_ZN2at5scaleIfEEvPT_i"
LAMBDA = "_Z4eachIZ6launchPiPfEUlifE_JifEEvT_DpT0_"
GEMM = (
    "_Z6kernelI4GemmIN7cutlass6half_tE5ShapeILi128ELi128ELi32EES3_ILi64ELi64ELi32EELb1ELi3EEEvNT_"
    "6ParamsEPfi"
)


@pytest.fixture(autouse=True)
def _no_time_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernelnames, "_seconds", 0.0)


def test_words_keep_all_but_the_names() -> None:
    for words, expected in (
        (f"only in sm_90a: {SCALE}", "only in sm_90a: at::scale<float>(float*, int)"),
        ("section .nv.info._Z5shiftv, or so.", "section .nv.info.shift(), or so."),
        ("_Z5shiftv. _Z5shiftv, '_Z5shiftv'", "shift(). shift(), 'shift()'"),
        ("a_Z5shiftv _Zebra __Z5shiftv _Z", "a_Z5shiftv _Zebra __Z5shiftv _Z"),
        ("_ZN33_GLOBAL__N__c7b1e49c_4_k_cu_plain4anonIiEEvPT_",
         "(anonymous namespace)::anon<int>(int*)"),
        (LAMBDA, "each<launch(int*, float*)::{lambda(int, float)#1}, int, float>"
                 "(launch(int*, float*)::{lambda(int, float)#1}, int, float)"),
    ):  # fmt: skip
        assert readable(words) == expected


def test_a_long_name_loses_parameters_then_inner_template_arguments() -> None:
    whole = readable(GEMM)
    assert whole.startswith("kernel<Gemm<cutlass::half_t, Shape<128, 128, 32>")
    assert whole.endswith("::Params, float*, int)")
    for longest, expected in (
        (
            100,
            "kernel<Gemm<cutlass::half_t, Shape<128, 128, 32>, Shape<64, 64, 32>, true, 3> >(...)",
        ),
        (80, "kernel<Gemm<cutlass::half_t, Shape<...>, Shape<...>, true, 3> >(...)"),
        (40, "kernel<Gemm<...> >(...)"),
        (12, "kernel<Ge..."),
    ):
        assert readable(GEMM, longest) == expected
        assert fitted(f"  {GEMM}", longest + 2) == f"  {expected}"


def test_messages_name_kernels_readably_unless_asked_for_mangled_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = StitchError(f"{SCALE} differs", where=f"unit of {SCALE}", details=[f"in a: {SCALE}"])
    show_error(error)
    shown = capsys.readouterr().err
    assert shown.count("at::scale<float>(float*, int)") == 3
    assert SCALE not in shown
    with names_shown(mangled=True):
        show_error(error)
    assert capsys.readouterr().err.count(SCALE) == 3


def test_c_plus_plus_filt_agrees() -> None:
    """On templates, packs, literals, nested and anonymous namespaces, lambdas, pointers."""
    filt = shutil.which("c++filt")
    if not filt:
        pytest.skip("c++filt is not installed")
    ours = [*mangled(), SCALE, LAMBDA, GEMM]
    assert len(ours) > 500
    done = subprocess.run([filt], input="\n".join(ours), capture_output=True, text=True, check=True)
    theirs = [line.removeprefix("void ") for line in done.stdout.splitlines()]
    assert [readable(name, None) for name in ours] == theirs


# -- bounds ----------------------------------------------------------------------------------------


def bombs() -> Iterator[str]:
    """Names that stand for far more than they have characters."""
    for levels, width in product((12, 20, 100, 300), (2, 12)):
        doubled = "_Z1f1a1bIS_S_E"
        for level in range(levels):
            doubled += f"S0_I{substitution(level + 2) * width}E"
        yield doubled
    for members, pointers in product((100, 1000, 3000), (1, 10, 60)):
        yield f"_Z1fIJ{'i' * members}EEv" + f"Dp{'P' * pointers}T_" * 7
        yield f"_Z1fIJ{'i' * members}EEv" + f"Dp{'1aI' * pointers}T_{'E' * pointers}" * 7
        yield f"_Z1fIJ{'i' * members}EEv" + f"Dp{'P' * pointers}T_" * 900
    for piece in ("P", "1aI", "PF", "Z", "N1a", "Ul", "J", "A1_", "X", "DpT_", "S_", "1a", "."):
        yield "_Z1f" + piece * 1300
        yield "_ZN" + piece * 100_000


def test_no_name_takes_long_or_stands_for_much(monkeypatch: pytest.MonkeyPatch) -> None:
    for bomb in bombs():
        begun = time.process_time()
        found = readable(bomb, None)
        assert time.process_time() - begun < 20, bomb[:100]
        assert found == bomb or len(found) <= 1 << 15
        monkeypatch.setattr(kernelnames, "_seconds", 0.0)


def test_many_slow_names_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernelnames, "_seconds", kernelnames._MOST_SECONDS + 1)
    assert readable(SCALE) == SCALE
