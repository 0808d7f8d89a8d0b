"""The architectures of a build as torch's TORCH_CUDA_ARCH_LIST spells them.

The images of a wheel do not depend on it: options that a project makes of the list are replaced.
But projects also decide by it which sources they compile, so it names what the wheel is for.
Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..arch import Arch, parse_arch
from ..model import Front

# In torch/utils/cpp_extension.py: the only names that torch takes, each with or without +PTX.
_SUPPORTED = re.compile(r"^ *supported_arches = (\[[^\]]*\])", re.MULTILINE)
_CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])([af]?)", re.ASCII)


def torch_arch_list(fronts: Iterable[Front], site: Path) -> str:
    """`8.0;9.0a;12.0+PTX`; site: the site-packages with the torch that reads it, if there is one.

    What this torch does not know is named as the newest architecture that it knows and that is not
    newer: `12.0f` as `12.0`. Otherwise torch would end the project's build.
    """
    codes = {code for front in fronts for code in front.codes}
    named = sorted({parse_arch(code) for code in codes})
    known = _known(site)
    ptx_of = {arch: arch.compute in codes for arch in named}
    words: dict[str, bool] = {}
    for arch in named:
        word = _word(_nearest(arch, known))
        words[word] = words.get(word, False) or ptx_of[arch]
    return ";".join(word + ("+PTX" if ptx else "") for word, ptx in words.items())


def _word(arch: Arch) -> str:
    return arch.capability + arch.suffix


def _nearest(arch: Arch, known: Sequence[Arch]) -> Arch:
    if not known or arch in known:
        return arch
    plain = [one for one in known if not one.suffix]
    return max((one for one in plain if one.number <= arch.number), default=arch)


def _known(site: Path) -> list[Arch]:
    """What the environment's torch takes; nothing where there is no torch, or one unlike others."""
    try:
        text = (site / "torch" / "utils" / "cpp_extension.py").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return []
    found = _SUPPORTED.search(text)
    try:
        names = ast.literal_eval(found[1]) if found else []
    except (ValueError, SyntaxError):
        return []
    matches = (_CAPABILITY.fullmatch(name) for name in names if isinstance(name, str))
    return [Arch(int(m[1]) * 10 + int(m[2]), m[3]) for m in matches if m]
