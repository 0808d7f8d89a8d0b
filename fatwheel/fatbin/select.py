"""Which images of a container are worth keeping: those that given GPUs would load.

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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..arch import Arch, ArchRequest, runs_by_jit, runs_natively
from .container import Entry
from .parity import is_readable
from .stitch import nvcc_order

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
