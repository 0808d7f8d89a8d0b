"""The architectures of a build as its project gets to know them: in variables, variously spelled.

The images of a wheel do not depend on them: options that a project makes of such a list are
replaced. But projects also decide by it which sources they compile, so it names what the wheel is
for. Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..arch import PLACEHOLDER, Arch, ArchRequest, parse_arch
from ..model import Front

# In torch/utils/cpp_extension.py: the only names that torch takes, each with or without +PTX.
_SUPPORTED = re.compile(r"^ *supported_arches = (\[[^\]]*\])", re.MULTILINE)
_CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])([af]?)", re.ASCII)


def arch_variables(fronts: Iterable[Front], site: Path) -> dict[str, str]:
    """The variables by which torch, CMake and those who build with them are told.

    site: the site-packages with the torch that reads its own, if there is one. CMake takes the list
    from CUDAARCHS ("CUDAARCHS", CMake 3.20 and later); setup.py files that call CMake pass on
    CMAKE_CUDA_ARCHITECTURES.
    """
    words = _spelled(fronts, site)
    cmake = ";".join(words["cmake"])
    return {
        "TORCH_CUDA_ARCH_LIST": ";".join(words["torch"]),
        "CUDAARCHS": cmake,
        "CMAKE_CUDA_ARCHITECTURES": cmake,
    }


def filled(
    variables: Iterable[tuple[str, str]], fronts: Iterable[Front], site: Path, cuda_home: Path
) -> dict[str, str]:
    """A recipe's variables, with what their placeholders stand for: `{archs}` in its spellings,
    `{site}` and `{cuda_home}`. All else in braces stays as it is."""
    words = _spelled(fronts, site)

    def listed(match: re.Match[str]) -> str:
        return (match[2] or ";").join(words[match[1] or "nvcc"])

    return {
        name: PLACEHOLDER.sub(listed, value)
        .replace("{site}", str(site))
        .replace("{cuda_home}", str(cuda_home))
        for name, value in variables
    }


def _spelled(fronts: Iterable[Front], site: Path) -> Mapping[str, Sequence[str]]:
    """The architectures that images are made for, in each of `arch.SPELLINGS`."""
    codes = {code for front in fronts for code in front.codes}
    archs = sorted({parse_arch(code) for code in codes})
    asked = [ArchRequest(arch, arch.compute in codes) for arch in archs]
    return {
        "nvcc": [arch.name for arch in archs],
        "number": list(dict.fromkeys(str(arch.number) for arch in archs)),
        "capability": list(dict.fromkeys(arch.capability for arch in archs)),
        "cmake": [one.arch.name + ("" if one.ptx else "-real") for one in asked],
        "sm": [arch.sm for arch in archs],
        "torch": _for_torch(asked, _known(site)),
    }


def _for_torch(asked: Iterable[ArchRequest], known: Sequence[Arch]) -> list[str]:
    """What a torch does not know is named as the newest architecture that it knows and that is not
    newer: `12.0f` as `12.0`. Otherwise torch would end the project's build."""
    words: dict[str, bool] = {}
    for one in asked:
        word = _word(_nearest(one.arch, known))
        words[word] = words.get(word, False) or one.ptx
    return [word + ("+PTX" if ptx else "") for word, ptx in words.items()]


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
