"""Divides one call of cicc, nvcc's device compiler, into two: front end, and optimiser.

    cicc --ms_c++17 --allow_managed -arch compute_80 -m64 -ftz=1 … a.ii -o a.ptx

is the same as

    cicc -lgenfe --ms_c++17 --allow_managed --nv_arch compute_80 --m64 --emit-llvm-bc … a.ii -o a.bc
    cicc -libnvvm -arch=compute_80 -ftz=1 … a.bc -o a.ptx

The first one knows the host compiler's C++, and writes all files but PTX. The second one knows
nothing of the host, and takes most of the time. NVIDIA documents neither, so this is what was
measured: with CUDA 13.0, PTX and all other files are the same, byte for byte. A call with any
option that is not listed here is not divided. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# What the front end gets as it is: alone, and with a word that follows it.
_FLAGS = re.compile(
    r"--(?:ms_)?c\+\+\d+|--(?:gnu|microsoft|msvc_target)_version=\d+"
    r"|--(?:static-host-stub|device-hidden-visibility|display_error_number|allow_managed"
    r"|extended-lambda|relaxed_constexpr|unsigned_wchar_t|no-version-ident|gen_div_approx_ftz"
    r"|gen_module_id_file)|-tused"
)
_VALUES = (
    "--frandom-seed", "--diag_suppress", "--orig_src_file_name", "--orig_src_path_name",
    "--include_file_name", "--module_id_file_name", "--gen_c_file_name", "--stub_file_name",
    "--gen_device_file_name",
)  # fmt: skip
_DROPPED = "--compiler_bindir"  # cicc's own: where the header files of C++ modules would be
# What the optimiser gets, in its own words.
_OPTIMISERS = re.compile(r"-(ftz|prec_div|prec_sqrt|fmad)=([01])")
_ITS_NAMES = {"ftz": "ftz", "prec_div": "prec-div", "prec_sqrt": "prec-sqrt", "fmad": "fma"}


@dataclass(frozen=True)
class Divided:
    """front: arguments that make `bitcode`; back: those that make `ptx` of it. written: the other
    files that the front end writes."""

    front: tuple[str, ...]
    back: tuple[str, ...]
    bitcode: str
    ptx: str
    written: tuple[str, ...]


def divided(arguments: Sequence[str]) -> Divided | None:
    """A call of cicc in two; None where it is one that is not known well enough."""
    front, back, written = ["-lgenfe", "--emit-llvm-bc"], ["-libnvvm"], []
    source = ptx = ""
    words = iter(arguments)
    for word in words:
        if _FLAGS.fullmatch(word):
            front.append(word)
        elif word in _VALUES:
            value = next(words, "")
            front += [word, value]
            if word in ("--gen_c_file_name", "--stub_file_name", "--gen_device_file_name"):
                written.append(value)
        elif word == _DROPPED:
            next(words, "")
        elif word == "-arch":
            arch = next(words, "")
            front += ["--nv_arch", arch]
            back.append(f"-arch={arch}")
        elif word == "-m64":
            front.append("--m64")
        elif found := _OPTIMISERS.fullmatch(word):
            back.append(f"-{_ITS_NAMES[found[1]]}={found[2]}")
        elif word == "-fast-math":
            back.append(word)
        elif word == "-maxreg":
            back.append(f"-maxreg={next(words, '')}")
        elif word == "-o":
            ptx = next(words, "")
        elif not word.startswith("-") and not source:
            source = word
        else:
            return None
    if not source or not ptx:
        return None
    bitcode = f"{ptx}.bc"
    return Divided(
        (*front, source, "-o", bitcode),
        (*back, bitcode, "-o", ptx),
        bitcode,
        ptx,
        tuple(written),
    )
