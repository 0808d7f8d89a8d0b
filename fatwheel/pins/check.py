"""Compares all parts with what is published; fills in what images and MSVC lack.

New releases are another matter: `parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from ..events import Emit
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError, read_pip_config
from .compare import MOVED, RIGHT, UNREACHABLE, Comparer, Finding, Pin
from .context import Session, Work
from .cuda import archive_findings
from .listings import Links, published
from .lock import LockFile, LockReport, lock_file
from .nvidia import archives_in
from .published import Values


def check_parts(
    folders: Sequence[Path], cache: Path, downloads: Path, emit: Emit, *, write: bool
) -> list[LockReport]:
    """A report for each file of CUDA, torch, images and MSVC, and one for all packages.

    folders: of toolchains. downloads: where files are kept that have to be fetched. Raises
    ConfigError for parts with mistakes, FetchError where pip's configuration is of no use.
    """
    parts = Parts(*folders)
    index = Index(read_pip_config())
    try:
        comparer = Comparer(index, downloads if write else None, emit)
        reports = [
            _filled(f"images/{platform}", parts, comparer.compare_pins(_image_pins(images)), emit)
            for platform, images in parts.all_images.items()
        ]
        reports += check_msvcs(parts, parts.msvcs, comparer, emit)
        work = Work(Session(index, cache, downloads, emit, write=write), parts)
        for cuda in parts.cudas:
            reports.append(_unwritten(f"cuda/{cuda.version}", _cuda(cuda, work), parts))
        for torch in parts.torches:
            reports.append(_unwritten(f"torch/{torch.version}", _torch(torch, work), parts))
        if parts.package_names:
            reports.append(_packages(work, folders[-1]))
        return reports
    finally:
        index.close()


def check_msvcs(
    parts: Parts, msvcs: Iterable[MsvcRelease], comparer: Comparer, emit: Emit
) -> Iterator[LockReport]:
    """A report for each MSVC. Raises ConfigError where a file cannot be filled in."""
    for msvc in msvcs:
        payloads = [
            (("payloads", number), table.payload()) for number, table in enumerate(msvc.payloads)
        ]
        findings = comparer.compare_msvc(msvc.channel, msvc.catalogue, payloads)
        yield _filled(f"msvc/{msvc.toolset}", parts, findings, emit)


def _image_pins(images: ImageParts) -> Iterator[tuple[Key, Pin]]:
    for number, base in enumerate(images.bases):
        yield ("bases", number), base
    for number, table in enumerate(images.interpreters):
        yield ("interpreters", number), table.download("cpython")
    for number, table in enumerate(images.portable):
        yield ("portable", number), table.download("cpython")


def _filled(name: str, parts: Parts, findings: Iterable[Finding], emit: Emit) -> LockReport:
    """Of a part that has places for what is not known yet, which is written into it."""
    return lock_file(name, findings, LockFile(parts.file(name), Path(FOLDER, name).parent), emit)


def _unwritten(name: str, findings: Iterator[Finding], parts: Parts) -> LockReport:
    return LockReport(name.replace("/", " "), parts.file(name), False, tuple(findings))


def _cuda(cuda: CudaRelease, work: Work) -> Iterator[Finding]:
    if not cuda.archives:
        return
    url = cuda.manifest
    try:
        found = work.session.asker.ask(url, partial(archives_in, url, work.session.index))
    except RefusedError as error:
        yield Finding(("manifest",), url.rpartition("/")[2], UNREACHABLE, {}, {}, str(error))
        return
    pinned = {(one.name, one.platform) for one in cuda.archives}
    there = [one for one in found if (one.name, one.platform) in pinned]
    for _, finding in archive_findings(cuda.archives, there, work.session.new):
        yield finding


def _torch(torch: TorchRelease, work: Work) -> Iterator[Finding]:
    own: list[tuple[Key, TorchWheel]] = []
    theirs: list[tuple[Key, TorchWheel]] = []
    for outer, variant in enumerate(torch.variants):
        for number, wheel in enumerate(variant.wheels):
            where = theirs if wheel.url else own
            where.append((("variants", outer, "wheels", number), wheel))
    url, listings = work.parts.publishers.torch, work.session.listings
    yield from _wheels(own, "torch", partial(listings.own, "torch"))
    yield from _wheels(theirs, f"{url}/torch", partial(listings.at, url, "torch"))


def _wheels(
    wheels: list[tuple[Key, TorchWheel]], listing: str, listed: Callable[[], Links]
) -> Iterator[Finding]:
    """A finding for each wheel; a single one where the listing cannot be read."""
    if not wheels:
        return
    try:
        links = listed()
    except RefusedError as error:
        yield Finding(("variants",), listing, UNREACHABLE, {}, {}, str(error))
        return
    for key, wheel in wheels:
        pinned: Values = {"sha256": wheel.sha256}
        if wheel.file not in links:
            yield Finding(key, wheel.file, UNREACHABLE, pinned, {}, "it is not listed any more")
            continue
        found = published(links[wheel.file], wheel.sha256)
        state = MOVED if found.get("sha256", wheel.sha256) != wheel.sha256 else RIGHT
        yield Finding(key, wheel.file, state, pinned, found)


def _packages(work: Work, folder: Path) -> LockReport:
    for name in work.parts.package_names:
        work.pins.check(name)
    findings = (finding for each in work.pins.findings.values() for finding in each)
    return LockReport("packages", folder / FOLDER / "packages", False, tuple(findings))
