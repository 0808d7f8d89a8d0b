"""Names of kernels as nvcc and g++ mangle them, composed from parts of the Itanium C++ ABI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product

import pytest

needs_library = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="no library reads mangled names on Python 3.10"
)

LONG = (
    "_Z25flash_bwd_dot_do_o_kernelILb1E23Flash_bwd_kernel_traitsILi128ELi64ELi128EEEv"
    "16Flash_bwd_params"
)

_FUNCTIONS = ("5scale", "N2at6native5scaleE", "N33_GLOBAL__N__c7b1e49c_4_k_cu_plain4anonE")
# Template arguments, which use no substitutions of their own.
_ARGUMENTS = (
    "f", "Li128E", "Lb1E", "Lin3E", "Lm7E", "Lc99E", "JifdE", "N7cutlass6half_tE", "PKf",
    "6TraitsILi64ELb0EN3c104HalfEE", "LN1a1EE1E", "5ArrayIPcLi3EE", "A4_f",
)  # fmt: skip
_PARAMETERS = ("v", "PT_", "PKT_i", "PKPKiPVj", "T_", "PFvifE", "RKfOdx", "PA4_KfM1Ci")


def mangled() -> Iterator[str]:
    """Several hundred names, each sound."""
    for function, parameters in product(_FUNCTIONS, _PARAMETERS):
        if "T_" not in parameters:
            yield f"_Z{function}{parameters}"
        for first, more in product(_ARGUMENTS, ("", "Lb0E", "JiE")):
            if ("T_" in parameters) and (first[0] in "LJ"):
                continue  # no type
            yield f"_Z{_template(function, first + more)}v{parameters}"


def substitution(number: int) -> str:
    """`S_`, `S0_`, ... `S9_`, `SA_`, ... `S10_`: an earlier part of a name, by its number."""
    if number == 0:
        return "S_"
    digits, left = "", number - 1
    while True:
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[left % 36] + digits
        left //= 36
        if not left:
            return f"S{digits}_"


def _template(function: str, arguments: str) -> str:
    if function.startswith("N"):
        return f"{function[:-1]}I{arguments}EE"
    return f"{function}I{arguments}E"
