"""Images of one unit or container: whether they belong together, and which are worth keeping.

They belong together if one host program can launch the kernels of all; StitchError for those that
do not agree. Worth keeping are those that given GPUs would load.

A GPU of capability X.Y loads, of the cubins that run on it natively, one with the highest
architecture; where there is none, its driver compiles the PTX with the highest architecture that
it can use; nothing else is ever loaded (`arch.runs_natively`, `arch.runs_by_jit`). Between the
suffix variants of one architecture, such as sm_90 and sm_90a, the driver chooses; all are kept.
Nothing here knows what images of other kinds (LTO-IR, unknown ones) are for, so they stay.

That a cubin also runs on GPUs with a higher minor number holds between discrete GPUs. "Binary
compatibility is supported only for the desktop. It is not supported for Tegra" (CUDA C++
Programming Guide): on a Jetson Orin (8.7) an sm_80 cubin fails and compute_80 PTX runs. Where
either side is such an integrated GPU, whatever may be loaded is kept: its image, that of the
discrete GPUs, and the PTX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..arch import Arch, ArchRequest, runs_by_jit, runs_natively
from ..errors import StitchError
from .container import Entry
from .cubin import ParameterLayout
from .stitch import nvcc_order

# Enough to see what is wrong; the rest is counted.
_DETAILS_SHOWN = 12


@dataclass(frozen=True)
class Described:
    """What can be compared of an image.

    title:   what messages call it: `sm_80`, `sm_80 of a.whl`.
    kernels: the names of those it defines.
    layouts: how they take their parameters, by name, or what messages say of that; None for PTX,
             whose text is not read so far.
    """

    title: str
    kernels: frozenset[str]
    layouts: Mapping[str, ParameterLayout] | Mapping[str, str] | None


def is_readable(entry: Entry) -> bool:
    """Whether an image is of a kind whose kernels can be told."""
    return entry.kind in ("elf", "ptx")


@dataclass(frozen=True)
class Disagreement:
    """Kernels that two images define with different parameters: which images, and a line for each
    of the kernels and images."""

    what: str
    lines: tuple[str, ...]


def compare(unit: str, images: Iterable[Described]) -> None:
    """Refuse, by the unit's name, images that one host object could not launch alike.

    That only some images define a kernel is no contradiction: see `in_part`.
    """
    for found in disagreements(images):
        raise StitchError(
            found.what,
            where=unit,
            details=shorten(found.lines),
            hint="a host program passes the same parameters to both; the source depends on the "
            "architecture in a way that cannot work",
        )


def disagreements(images: Iterable[Described]) -> Iterator[Disagreement]:
    """Each image that takes other parameters for a kernel than the first cubin that defines it."""
    first: dict[str, tuple[str, ParameterLayout | str]] = {}
    for image in images:
        layouts = image.layouts or {}
        differing = [name for name in layouts if name in first and first[name][1] != layouts[name]]
        if differing:
            others = " and ".join(sorted({first[name][0] for name in differing}))
            yield Disagreement(
                f"{others} and {image.title} disagree on kernel parameters",
                tuple(
                    f"{name}: {title} has {layout}"
                    for name in differing
                    for title, layout in (first[name], (image.title, layouts[name]))
                ),
            )
        for name, layout in layouts.items():
            first.setdefault(name, (image.title, layout))


def in_part(images: Sequence[Described]) -> dict[str, tuple[str, ...]]:
    """The kernels that only some of the images define, with the titles of those that do.

    Sources leave kernels out for some architectures (`#if __CUDA_ARCH__ >= 530`), so that this is
    normal; a host program must not launch them elsewhere.
    """
    everywhere = frozenset.intersection(*(image.kernels for image in images)) if images else ()
    found: dict[str, list[str]] = {}
    for image in images:
        for name in image.kernels.difference(everywhere):
            found.setdefault(name, []).append(image.title)
    return {name: tuple(found[name]) for name in sorted(found)}


def shorten(lines: Iterable[str]) -> list[str]:
    """The first of many lines for `details`, and how many more there are."""
    shown: list[str] = []
    iterator: Iterator[str] = iter(lines)
    for line in iterator:
        if len(shown) == _DETAILS_SHOWN:
            return [*shown, f"... and {1 + sum(1 for _ in iterator)} more"]
        shown.append(line)
    return shown


def only_in(title: str, names: Iterable[str]) -> list[str]:
    return [f"only in {title}: {name}" for name in sorted(names)]


# Architectures of integrated GPUs: Jetson and DRIVE from TK1 to Thor. That of GB10 (12.1) is not
# among them: it runs on the drivers of discrete GPUs, and loads sm_120.
_INTEGRATED = frozenset({32, 53, 62, 72, 87, 88, 101, 110})
# Thor reports 10.1 to programs of CUDA 12, and 11.0 to those of CUDA 13.
_OTHER_NUMBERS = {101: 110, 110: 101}


def nothing_more(entry: Entry) -> bool:
    """For Selection: only what the GPUs load."""
    return False


def every_ptx(entry: Entry) -> bool:
    """For Selection: PTX of every architecture, for GPUs to come."""
    return entry.kind == "ptx"


@dataclass(frozen=True)
class PtxOf:
    """For Selection: PTX of exactly these architectures."""

    archs: frozenset[Arch]

    def __call__(self, entry: Entry) -> bool:
        return entry.kind == "ptx" and entry.arch in self.archs


@dataclass(frozen=True)
class Selection:
    """What to keep: what any of these GPUs (by their plain architecture) would load, and beyond
    that the images for which `also` is true.

    partial: whether kernels that none of the GPUs can run may go, and leave nothing behind.
    """

    gpus: tuple[Arch, ...]
    also: Callable[[Entry], bool] = nothing_more
    partial: bool = False

    def with_every_ptx(self) -> Selection:
        """The same, and all PTX."""
        return replace(self, also=every_ptx)


def selection_for(requests: Iterable[ArchRequest]) -> Selection:
    """What `--arch` names: its GPUs, and the PTX of exactly the architectures with `+ptx`.

    `90a` is the GPU that sm_90a is for: 9.0.
    """
    asked = tuple(requests)
    gpus = sorted({Arch(request.arch.number) for request in asked})
    return Selection(
        tuple(gpus), PtxOf(frozenset(request.arch for request in asked if request.ptx))
    )


def choose(selection: Selection, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The images of a container to keep, in canonical order (`stitch.nvcc_order`)."""
    kept = [entry for gpu in selection.gpus for entry in loaded_by(gpu, entries)]
    kept += [entry for entry in entries if not is_readable(entry) or selection.also(entry)]
    return nvcc_order(kept)


def loaded_by(gpu: Arch, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The images of a container that a GPU may load; () if none of them runs on it."""
    cubins = [e for e in entries if e.kind == "elf" and runs_natively(e.arch, gpu)]
    loaded = _newest(e for e in cubins if _is_proven(e.arch, gpu))
    proven = max((entry.arch.number for entry in loaded), default=0)
    for integrated in (False, True):
        loaded += _newest(
            e
            for e in cubins
            if not _is_proven(e.arch, gpu)
            and is_integrated(e.arch) == integrated
            and e.arch.number > proven
        )
    if not proven:
        loaded += _newest(e for e in entries if e.kind == "ptx" and runs_by_jit(e.arch, gpu))
    other = _OTHER_NUMBERS.get(gpu.number)
    return (*loaded, *(e for e in entries if is_readable(e) and e.arch.number == other))


def _newest(entries: Iterable[Entry]) -> list[Entry]:
    """Those of the highest architecture."""
    found = list(entries)
    newest = max((entry.arch.number for entry in found), default=0)
    return [entry for entry in found if entry.arch.number == newest]


def is_integrated(arch: Arch) -> bool:
    """Whether GPUs of an architecture are parts of a Jetson's or a DRIVE's processor."""
    return arch.number in _INTEGRATED


def _is_proven(image: Arch, gpu: Arch) -> bool:
    """Whether a cubin that runs on a GPU by its number is known to."""
    return image.number == gpu.number or not (is_integrated(image) or is_integrated(gpu))
