"""What a wheel says that it was built for: in its version's label, and in what it requires."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name

from .needs import requirements

_LOCAL_CUDA = re.compile(r"cu(1[0-9])([0-9])?(?![0-9])")
_LOCAL_TORCH = re.compile(r"torch_?([0-9]+\.[0-9]+)")


def minor(version: object) -> str:
    """`13.0` of `13.0.2`; '' for anything else."""
    if not isinstance(version, str):
        return ""
    found = re.match(r"[0-9]{1,3}\.[0-9]{1,3}(?![0-9])", version)
    return found[0] if found else ""


def local_cuda(local: str) -> str:
    """Of `cu128`; a label that names the major version alone, `cu12`, tells too little."""
    found = _LOCAL_CUDA.match(local)
    return f"{found[1]}.{found[2]}" if found and found[2] else ""


def local_torch(local: str) -> str:
    found = _LOCAL_TORCH.search(local)
    return found[1] if found else ""


def required_torch(metadata: bytes) -> str:
    """`2.11` where METADATA requires `torch==2.11.*` or `torch==2.11.0`; else ''."""
    for wanted in requirements(metadata):
        exact = [one.version for one in wanted.specifier if one.operator in ("==", "~=")]
        if canonicalize_name(wanted.name) == "torch" and exact:
            return minor(exact[0].removesuffix(".*") + ".0")
    return ""
