"""Calls of cicc in two. The commands are what nvcc 13.0 lists (`nvcc --dryrun`)."""

from __future__ import annotations

import pytest

from fatwheel.compilers.cicc import divided
from fatwheel.compilers.msvc import split_words

WINDOWS = (
    r'--ms_c++17 --static-host-stub --device-hidden-visibility --frandom-seed "abc" '
    r"--microsoft_version=1938 --msvc_target_version=1938 "
    r'--compiler_bindir "Z:/Build Tools/bin/../.." --diag_suppress 549 --display_error_number '
    r'--orig_src_file_name "one.cu" --orig_src_path_name "Z:\a b\one.cu" --allow_managed '
    r"--extended-lambda --relaxed_constexpr --unsigned_wchar_t -arch compute_90a -m64 "
    r"--no-version-ident -ftz=1 -prec_div=0 -prec_sqrt=0 -fmad=1 -fast-math --gen_div_approx_ftz "
    r'--include_file_name "one.fatbin.c" -maxreg 64 -tused '
    r'--module_id_file_name "keep/one.module_id" --gen_c_file_name "keep/one.cudafe1.c" '
    r'--stub_file_name "keep/one.cudafe1.stub.c" --gen_device_file_name "keep/one.cudafe1.gpu" '
    r'"keep/one.cpp1.ii" -o "keep/one.ptx"'
)


def test_each_option_goes_to_the_part_that_knows_it() -> None:
    call = divided(list(split_words(WINDOWS)))
    assert call
    assert call.front == (
        "-lgenfe", "--emit-llvm-bc", "--ms_c++17", "--static-host-stub",
        "--device-hidden-visibility", "--frandom-seed", "abc", "--microsoft_version=1938",
        "--msvc_target_version=1938", "--diag_suppress", "549", "--display_error_number",
        "--orig_src_file_name", "one.cu", "--orig_src_path_name", r"Z:\a b\one.cu",
        "--allow_managed", "--extended-lambda", "--relaxed_constexpr", "--unsigned_wchar_t",
        "--nv_arch", "compute_90a", "--m64", "--no-version-ident", "--gen_div_approx_ftz",
        "--include_file_name", "one.fatbin.c", "-tused",
        "--module_id_file_name", "keep/one.module_id", "--gen_c_file_name", "keep/one.cudafe1.c",
        "--stub_file_name", "keep/one.cudafe1.stub.c",
        "--gen_device_file_name", "keep/one.cudafe1.gpu",
        "keep/one.cpp1.ii", "-o", "keep/one.ptx.bc",
    )  # fmt: skip
    assert call.back == (
        "-libnvvm", "-arch=compute_90a", "-ftz=1", "-prec-div=0", "-prec-sqrt=0", "-fma=1",
        "-fast-math", "-maxreg=64", "keep/one.ptx.bc", "-o", "keep/one.ptx",
    )  # fmt: skip
    assert call.written == (
        "keep/one.cudafe1.c", "keep/one.cudafe1.stub.c", "keep/one.cudafe1.gpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    "option",
    ["-g", "-generate-line-info", "-lto", "--device-c", "-kernel-params-are-restrict", "--new"],
)
def test_what_is_not_known_is_left_whole(option: str) -> None:
    assert divided([option, *split_words(WINDOWS)]) is None


@pytest.mark.parametrize(
    "words", [["-arch", "compute_80", "a.ii"], ["-o", "a.ptx"], [], ["a.ii", "b.ii", "-o", "a.ptx"]]
)
def test_so_are_calls_of_another_form(words: list[str]) -> None:
    assert divided(words) is None
