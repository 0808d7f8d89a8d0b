"""The architectures of a build as its project gets to know them, and those of each of its units.

Standard library only.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..arch import NONE, PLACEHOLDER, Arch, ArchRequest, coverage, parse_arch
from ..errors import UpstreamError
from ..model import Front, Unit

# In torch/utils/cpp_extension.py: the only names that torch takes, each with or without +PTX.
_SUPPORTED = re.compile(r"^ *supported_arches = (\[[^\]]*\])", re.MULTILINE)
_CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])([af]?)", re.ASCII)

# -- variables -------------------------------------------------------------------------------------

# The images of a wheel do not depend on them: options that a project makes of such a list are
# replaced. But projects also decide by it which sources they compile, so it names what the wheel is
# for.


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


# -- units -----------------------------------------------------------------------------------------

# A project that compiles all units for the same architectures has a default, which the user's
# choice replaces. Where units differ in that, the project means it: a source may be written for one
# architecture alone. Then each unit is compiled for those of the asked architectures on whose GPUs
# the project's own images of it would run: a unit of sm_80 for 86, too, but not for 90. The host's
# code needs all units: one that is for none of the asked architectures keeps its host object, and
# has no device code in the wheel.

# What a recipe says of units, in the place of the project's options: a pattern of their names, and
# architectures (`80+ptx`); none for all that are asked for. The first that fits counts.
Rules = Sequence[tuple[str, Sequence[str]]]

_SHOWN = 5  # names of units in a line


def fronts_of(unit: Unit, fronts: Sequence[Front]) -> tuple[Front, ...]:
    """The fronts of a unit: those of the build, or where it has images of its own, exact ones.

    One that is for none has the newest of the project's: without a front there is no host object.
    """
    if unit.images is None:
        return tuple(fronts)
    return _exact(unit.images or unit.own[-1:])


def other_fronts(fronts: Sequence[Front], front_units: Collection[str]) -> tuple[Front, ...]:
    """The fronts of what is no unit, such as host code that nvcc compiles: those of the build, or
    exact ones where those are for some units alone (see `planned`)."""
    codes = [code for front in fronts for code in front.codes]
    return _exact(codes) if front_units else tuple(fronts)


def _exact(codes: Collection[str]) -> tuple[Front, ...]:
    archs = sorted({parse_arch(code) for code in codes})
    return tuple(Front(a, tuple(c for c in (a.sm, a.compute) if c in codes)) for a in archs)


def codes_of(unit: Unit, fronts: Sequence[Front]) -> tuple[str, ...]:
    """The images of a unit that are in the wheel."""
    if unit.images is None:
        return tuple(code for front in fronts for code in front.codes)
    return unit.images


def planned(
    units: Sequence[Unit], rules: Rules, fronts: Sequence[Front], front_units: Collection[str] = ()
) -> tuple[Unit, ...]:
    """Captured units, each with the images that it is to be compiled for.

    front_units: the names of the units that the fronts are for, where they are not for all: others
    get exact ones.

    Raises UpstreamError where an architecture is asked for that no unit is for, or in whose place a
    unit needs a variant of it.
    """
    cuda = [unit for unit in units if unit.kind == "cuda"]
    differ = len({unit.own for unit in cuda if unit.own}) > 1
    asked = [code for front in fronts for code in front.codes]
    meant = {unit: _meant(unit, rules, differ) for unit in cuda}
    found = {unit: _limited(unit, meant[unit], asked) for unit in cuda}
    _check_variants(found, meant, asked)
    _check_served(found, meant, asked)
    if front_units:
        found = {unit: _with_exact_fronts(one, front_units, asked) for unit, one in found.items()}
    return tuple(found.get(unit, unit) for unit in units)


def _with_exact_fronts(unit: Unit, front_units: Collection[str], asked: Sequence[str]) -> Unit:
    if unit.images is not None or unit.name in front_units:
        return unit
    return replace(unit, images=tuple(asked))


def ruled(rules: Rules, fronts: Sequence[Front]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What is known of units before they are: each pattern, and the images that its units get."""
    asked = [code for front in fronts for code in front.codes]
    return tuple((pattern, _kept(_ruling(archs), asked)) for pattern, archs in rules)


def _meant(unit: Unit, rules: Rules, differ: bool) -> tuple[str, ...]:
    """The images that say what a unit is for; () is everything."""
    for pattern, archs in rules:
        if fnmatch.fnmatchcase(unit.name, pattern):
            return _ruling(archs)
    return unit.own if differ else ()


def _ruling(archs: Iterable[str]) -> tuple[str, ...]:
    return tuple(code for text in archs for code in _codes(text))


def _codes(text: str) -> Iterator[str]:
    arch = parse_arch(text.removesuffix("+ptx"))
    yield arch.sm
    if text.endswith("+ptx"):
        yield arch.compute


def _limited(unit: Unit, meant: Sequence[str], asked: Sequence[str]) -> Unit:
    kept = _kept(meant, asked)
    if len(kept) == len(asked):
        return unit
    # The project may name none itself, where a recipe does.
    return replace(unit, images=kept, own=unit.own or tuple(meant))


def _kept(meant: Sequence[str], asked: Iterable[str]) -> tuple[str, ...]:
    return tuple(code for code in asked if not meant or _serve(meant, parse_arch(code)))


def _serve(meant: Iterable[str], arch: Arch) -> bool:
    """Whether code for these images is code for an architecture, too. A variant serves itself
    alone: who uses its instructions needs it by name."""
    plain = [code for code in meant if not parse_arch(code).suffix]
    return arch.sm in meant or arch.compute in meant or _runs(plain, arch)


def _runs(codes: Iterable[str], arch: Arch) -> bool:
    """Whether images run on the GPUs of an architecture."""
    cubins = [parse_arch(code) for code in codes if code.startswith("sm_")]
    ptx = [parse_arch(code) for code in codes if code.startswith("compute_")]
    return coverage(cubins, ptx, Arch(arch.number)) != NONE


def _check_variants(
    found: Mapping[Unit, Unit], meant: Mapping[Unit, tuple[str, ...]], asked: Sequence[str]
) -> None:
    """Refuse to leave a unit out for an architecture only because a variant was not named."""
    needed = [
        f"{unit.name} is for {_listed(meant[unit])}, not for {arch}"
        for unit, limited in found.items()
        for arch in sorted({parse_arch(code) for code in asked} - _archs(limited, asked))
        if _runs(meant[unit], arch) and not _runs(codes_of(limited, ()), arch)
    ]
    if needed:
        raise UpstreamError(
            "the project compiles units for a variant of an architecture that was asked for",
            details=[*needed[:_SHOWN], *_more(len(needed) - _SHOWN)],
            hint="ask for the variant, as in --arch 90a; or, if such a unit compiles without, say "
            "so with [[unit]] in the recipe",
        )


def _check_served(
    found: Mapping[Unit, Unit], meant: Mapping[Unit, tuple[str, ...]], asked: Sequence[str]
) -> None:
    served = set().union(*(_archs(limited, asked) for limited in found.values()))
    left = sorted({parse_arch(code) for code in asked} - served)
    if found and left:
        raise UpstreamError(
            f"the project compiles nothing for {', '.join(map(str, left))}",
            details=list(summary(found, {unit: _listed(meant[unit]) for unit in found})),
            hint="leave it out of --arch; or, if the units compile for it, say so with [[unit]] in "
            "the recipe",
        )


def _archs(unit: Unit, asked: Sequence[str]) -> set[Arch]:
    return {parse_arch(code) for code in (asked if unit.images is None else unit.images)}


def _listed(codes: Iterable[str]) -> str:
    """`80, 90a+ptx`; `all` for no codes."""
    codes = set(codes)
    archs = sorted({parse_arch(code) for code in codes})
    return ", ".join(str(ArchRequest(arch, arch.compute in codes)) for arch in archs) or "all"


def summary(units: Iterable[Unit], of: Mapping[Unit, str]) -> Iterator[str]:
    """A line for each group of units that are for the same: `80: csrc/a, csrc/b`."""
    groups: dict[str, list[str]] = {}
    for unit in units:
        groups.setdefault(of[unit], []).append(unit.name)
    for title, names in groups.items():
        yield f"{title}: {', '.join([*names[:_SHOWN], *_more(len(names) - _SHOWN)])}"


def _more(number: int) -> list[str]:
    return [f"and {number} more"] if number > 0 else []


def told(units: Iterable[Unit], fronts: Sequence[Front]) -> Iterator[str]:
    """What the user must know of units that are not for all architectures, in sentences."""
    asked = {code for front in fronts for code in front.codes}
    limited = [unit for unit in units if not asked.issubset(codes_of(unit, fronts))]
    of = {unit: _listed(unit.images or ()) if unit.images else "none" for unit in limited}
    if limited:
        groups = "; ".join(summary(limited, of))
        yield (
            "not all units are for all of these architectures, by the project's own options or the "
            f"recipe: {groups}"
        )
