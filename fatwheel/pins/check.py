"""Compares all parts with what is published; fills in what images and MSVC lack.

New releases are another matter: `parts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..config.mistakes import Key
from ..config.parts import (
    FOLDER,
    CudaRelease,
    ImageParts,
    MsvcRelease,
    Parts,
    TorchRelease,
    TorchWheel,
)
from ..config.toolchains import load_parts_file, load_toolchain, toolchain_file
from ..events import Emit, StepFinished, StepStarted
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError, read_pip_config
from .compare import FILLED, UNREACHABLE, Comparer, Pin, PinState, compare_listed
from .cuda import archive_findings
from .listings import Links
from .lock import LockReport, PinFile, check_host, lock_file, torch_text
from .nvidia import archives_in
from .published import HostBuild, Values
from .session import Session, Work


@dataclass(frozen=True)
class _Wanted:
    """The parts to look at, by their names; packages with their versions. None for all."""

    images: Collection[str] | None = None
    msvcs: Collection[str] | None = None
    cudas: Collection[str] | None = None
    torches: Collection[str] | None = None
    packages: Collection[tuple[str, str]] | None = None

    @classmethod
    def of(cls, name: str, folders: Sequence[Path]) -> _Wanted:
        """Those of a toolchain whose file names parts."""
        toolchain = load_toolchain(name, *folders)
        file = load_parts_file(toolchain_file(name, *folders), Parts(*folders))
        builds = (package for build in toolchain.builds for package in build.packages)
        pins = {(one.name, one.version) for one in (*toolchain.packages, *builds) if not one.url}
        return cls(
            images={file.parts.images or file.platform},
            msvcs={toolchain.msvc.toolset} if toolchain.msvc else (),
            cudas={file.parts.cuda},
            torches=set(toolchain.torches),
            packages=pins - {("torch", torch) for torch in toolchain.torches},
        )


def check_parts(
    folders: Sequence[Path],
    cache: Path,
    downloads: Path,
    emit: Emit,
    *,
    write: bool,
    toolchain: str | None = None,
    host: HostBuild | None = None,
) -> list[LockReport]:
    """A report for each file of CUDA, torch, images and MSVC, and one for all packages.

    folders: of toolchains. downloads: where files are kept that have to be fetched. toolchain: one
    whose file names parts, to look at these alone; None for all parts. host: the Windows that its
    base images must run on. Raises ConfigError for parts with mistakes, UsageError for a toolchain
    that there is not, FetchError where pip's configuration is of no use.
    """
    wanted = _Wanted()
    if toolchain is not None:
        wanted = _Wanted.of(toolchain, folders)
        if host is not None:
            check_host(host, load_toolchain(toolchain, *folders))
    parts = Parts(*folders)
    with closing(Index(read_pip_config())) as index:
        comparer = Comparer(index, downloads if write else None, emit, host)
        reports = [
            _filled(f"images/{name}", parts, comparer.compare_pins(_image_pins(images)), emit)
            for name, images in parts.all_images.items()
            if _is(name, wanted.images)
        ]
        msvcs = [one for one in parts.msvcs if _is(one.toolset, wanted.msvcs)]
        reports += check_msvcs(parts, msvcs, comparer, emit)
        work = Work(Session(index, cache, downloads, emit, write=write), parts)
        for cuda in parts.cudas:
            if _is(cuda.version, wanted.cudas):
                reports.append(_unwritten(f"cuda/{cuda.version}", _cuda(cuda, work), parts))
        for torch in parts.torches:
            if _is(torch.version, wanted.torches):
                reports.append(_torch(torch, work, comparer, emit))
        if parts.names("packages"):
            reports.append(_packages(work, folders[-1], wanted.packages))
        return reports


def _is(name: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or name in wanted


def check_msvcs(
    parts: Parts, msvcs: Iterable[MsvcRelease], comparer: Comparer, emit: Emit
) -> Iterator[LockReport]:
    """A report for each MSVC. Raises ConfigError where a file cannot be filled in."""
    for msvc in msvcs:
        payloads = [
            (("payloads", number), table.payload()) for number, table in enumerate(msvc.payloads)
        ]
        findings = comparer.compare_msvc(msvc.channel, msvc.catalogue, payloads, msvc.cl)
        yield _filled(f"msvc/{msvc.toolset}", parts, findings, emit)


def _image_pins(images: ImageParts) -> Iterator[tuple[Key, Pin]]:
    for number, base in enumerate(images.bases):
        yield ("bases", number), base
    if images.wine:
        yield ("wine", "base"), images.wine.base
    for number, table in enumerate(images.interpreters):
        yield ("interpreters", number), table.download("cpython")
    for number, table in enumerate(images.portable):
        yield ("portable", number), table.download("cpython")


def _filled(name: str, parts: Parts, findings: Iterable[PinState], emit: Emit) -> LockReport:
    """Of a part that has places for what is not known yet, which is written into it."""
    return lock_file(name, findings, PinFile(parts.file(name), Path(FOLDER, name).parent), emit)


def _unwritten(name: str, findings: Iterator[PinState], parts: Parts) -> LockReport:
    return LockReport(name.replace("/", " "), parts.file(name), False, tuple(findings))


def _cuda(cuda: CudaRelease, work: Work) -> Iterator[PinState]:
    if not cuda.archives:
        return
    url = cuda.manifest
    try:
        found = work.session.asker.ask(url, partial(archives_in, url, work.session.index))
    except RefusedError as error:
        yield PinState(("manifest",), url.rpartition("/")[2], UNREACHABLE, {}, {}, str(error))
        return
    pinned = {(one.name, one.platform) for one in cuda.archives}
    there = [one for one in found if (one.name, one.platform) in pinned]
    for _, finding in archive_findings(cuda.archives, there, work.session.new):
        yield finding


def _torch(torch: TorchRelease, work: Work, comparer: Comparer, emit: Emit) -> LockReport:
    """Of wheels whose sha256 is not known yet, it is found out and written into the part."""
    name = f"torch/{torch.version}"
    started = time.monotonic()
    emit(StepStarted("lock", name))
    file = PinFile(work.parts.file(name), Path(FOLDER, "torch"))
    own: list[tuple[Key, TorchWheel]] = []
    theirs: list[tuple[Key, TorchWheel]] = []
    unknown: list[tuple[Key, Pin]] = []
    for outer, variant in enumerate(torch.variants):
        for number, wheel in enumerate(variant.wheels):
            key = ("variants", outer, "wheels", number)
            if wheel.sha256:
                (theirs if wheel.url else own).append((key, wheel))
            else:
                unknown.append((key, wheel.package()))
    url, listings = work.parts.publishers.torch, work.session.listings
    findings = [
        *_wheels(own, "torch", partial(listings.own, "torch")),
        *_wheels(theirs, f"{url}/torch", partial(listings.at, url, "torch")),
    ]
    for finding in comparer.compare_pins(unknown):
        findings.append(finding)
        if finding.state == FILLED:
            torch = _with(torch, finding.name, finding.new)
            file.rewrite(torch_text(torch))  # at once: it may have been fetched for long
    emit(StepFinished("lock", time.monotonic() - started, name))
    return LockReport(name.replace("/", " "), file.path, file.written, tuple(findings))


def _with(torch: TorchRelease, file: str, values: Values) -> TorchRelease:
    """A release with what was found out of one of its wheels."""
    size, sha256 = values.get("size", 0), values.get("sha256", "")
    assert isinstance(size, int)
    variants = tuple(
        replace(
            variant,
            wheels=tuple(
                replace(one, size=one.size or size, sha256=one.sha256 or str(sha256))
                if one.file == file
                else one
                for one in variant.wheels
            ),
        )
        for variant in torch.variants
    )
    return replace(torch, variants=variants)


def _wheels(
    wheels: list[tuple[Key, TorchWheel]], listing: str, listed: Callable[[], Links]
) -> Iterator[PinState]:
    """A finding for each wheel; a single one where the listing cannot be read."""
    if not wheels:
        return
    try:
        links = listed()
    except RefusedError as error:
        yield PinState(("variants",), listing, UNREACHABLE, {}, {}, str(error))
        return
    for key, wheel in wheels:
        pinned: Values = {"sha256": wheel.sha256}
        absent = "it is not listed any more"
        yield compare_listed(key, wheel.file, pinned, links.get(wheel.file, ()), absent)


def _packages(work: Work, folder: Path, wanted: Collection[tuple[str, str]] | None) -> LockReport:
    """wanted: names with versions; None for every file that is pinned."""
    every = [(name, "") for name in work.parts.names("packages")]
    for name, version in every if wanted is None else sorted(wanted):
        work.pins.check(name, version)
    findings = (finding for each in work.pins.findings.values() for finding in each)
    return LockReport("packages", folder / FOLDER / "packages", False, tuple(findings))
