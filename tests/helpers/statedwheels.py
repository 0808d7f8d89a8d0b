"""A wheel that tells how it was built, as `invoke build` makes it, and ways to rewrite it.

Its only binary is a fatbin that NVIDIA's tools made: one container with sm_80, compute_80, sm_90a
and sm_120f. RECORD is right however a wheel is changed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fatwheel.config.pinned import Package, Sdist
from fatwheel.config.recipe import Recipe, SourcePin
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.model import Host
from fatwheel.provenance.lock import BuildLock, lock_bytes
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes
from fatwheel.verify.report import Report

from .cudawheels import NONE, fatbin, images
from .tinywheels import record_hash

LABEL = "cu130torch2.11.sm80.ptx.sm90a.sm120f"
VERSION = f"1.0+{LABEL}"
INFO = f"demo-{VERSION}.dist-info"
NAME = f"demo-{VERSION}-py3-none-any.whl"
BINARY = "demo/code.fatbin"
WRITTEN = (2024, 5, 6, 7, 8, 10)

RECORD, LOCK = f"{INFO}/fatwheel.json", f"{INFO}/fatwheel.lock.json"
SBOM, STATEMENT = f"{INFO}/sboms/fatwheel.cdx.json", f"{INFO}/fatwheel.provenance.json"

Files = dict[str, bytes]
CODES = ("sm_80", "compute_80", "sm_90a", "sm_120f")
SLICES = {
    code: hashlib.sha256(fatbin([image])).hexdigest()
    for code, image in zip(CODES, images(NONE), strict=True)
}


def package(name: str, version: str, role: str) -> Package:
    """A pin whose sha256 is that of its name."""
    filename = f"{name}-{version}-py3-none-any.whl"
    digest = hashlib.sha256(filename.encode()).hexdigest()
    return Package(name, version, filename, 1000, digest, role)


def demo_lock() -> BuildLock:
    """That of a small recipe with an sdist."""
    digest = hashlib.sha256(b"demo-1.0.tar.gz").hexdigest()
    sdist = Sdist("demo", "1.0", "demo-1.0.tar.gz", 1000, digest, "source")
    recipe = Recipe(
        name="demo", project="demo", version="1.0", source=SourcePin(sdist, sha256=digest),
        archs=(), environment={}, imports=("demo",), memory=0, seconds=0, costs=(),
        epoch=1700000000, folder=Path("kernels/demo"), digest="d" * 64,
    )  # fmt: skip
    toolchain = Toolchain(
        name="tiny", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=(), gcc=(9, 15),
        packages=(package("nvcc", "13.0.88", "compiler"), package("ninja", "1.13.2", "build")),
        builds=(TorchBuild("2.11.0", "3.11", (package("torch", "2.11.0", "runtime"),)),),
        digest="e" * 64, default_torch="2.11.0",
    )  # fmt: skip
    host = Host("g++ 12.2.0", "c" * 64, "3.11.7")
    return BuildLock(recipe=recipe, toolchain=toolchain, python="3.11", torch="2.11.0", host=host)


def demo_record(lock: BuildLock) -> dict[str, Any]:
    """The record of a build of it for three architectures."""
    return {
        "schema": 1,
        "fatwheel": lock.fatwheel,
        "lock": hashlib.sha256(lock_bytes(lock)).hexdigest(),
        "recipe": {
            "name": "demo", "project": "demo", "version": "1.0",
            "source": lock.recipe.source.sha256, "digest": "d" * 64,
        },
        "toolchain": {
            "name": "tiny", "platform": "linux-x86_64", "cuda": "13.0", "nvcc": "13.0.88",
            "digest": "e" * 64,
        },
        "python": "3.11",
        "torch": "2.11.0",
        "archs": ["80+ptx", "90a", "120f"],
        "front": "auto",
        "fronts": [
            {"virtual": "compute_80", "codes": ["sm_80", "compute_80"]},
            {"virtual": "compute_90a", "codes": ["sm_90a"]},
            {"virtual": "compute_120f", "codes": ["sm_120f"]},
        ],
        "units": [{"name": "csrc/a.o", "slices": dict(SLICES)}],
    }  # fmt: skip


def demo_files(lock: BuildLock | None = None) -> Files:
    """The files of such a wheel, but RECORD."""
    lock = lock or demo_lock()
    record = demo_record(lock)
    files = {
        BINARY: NONE,
        "demo/__init__.py": b"",
        f"{INFO}/METADATA": f"Metadata-Version: 2.1\nName: demo\nVersion: {VERSION}\n".encode(),
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
        RECORD: as_json(record),
        LOCK: lock_bytes(lock),
        SBOM: sbom_bytes(lock, record, "demo", VERSION),
    }
    files[STATEMENT] = statement_bytes(subjects_of(files), predicate_of(lock, record))
    return files


def subjects_of(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """What a statement says of these files."""
    return [(name, hashlib.sha256(data).hexdigest()) for name, data in files.items()]


def write(folder: Path, files: Mapping[str, bytes], name: str = NAME) -> Path:
    """A wheel of these files with a RECORD that is right; of the same files, the same bytes."""
    lines = [f"{name},{record_hash(data)},{len(data)}\n" for name, data in files.items()]
    record = f"{INFO}/RECORD"
    members = {**files, record: "".join([*lines, f"{record},,\n"]).encode()}
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():  # what is edited keeps the newest time of all
            archive.writestr(zipfile.ZipInfo(member, WRITTEN), data, zipfile.ZIP_DEFLATED)
    return path


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def edited(data: bytes, change: Callable[[Any], object]) -> bytes:
    """A document, changed in place and written again in the same way."""
    content = json.loads(data)
    change(content)
    return as_json(content)


def state_again(files: Files) -> None:
    """Make the statement's subjects right once more, as a careful forger would."""

    def anew(statement: Any) -> None:
        statement["subject"] = [
            {"name": name, "digest": {"sha256": sha256}}
            for name, sha256 in sorted(subjects_of(files))
            if name != STATEMENT
        ]

    files[STATEMENT] = edited(files[STATEMENT], anew)


def said(report: Report) -> str:
    """All that the check says."""
    [found] = [check for check in report.checks if check.name == "provenance"]
    return "\n".join(
        f"{finding.severity}: {finding.where}: {finding.what}\n" + "\n".join(finding.details)
        for finding in found.findings
    )


def results(report: Report) -> dict[str, str]:
    """The checks that are not ok."""
    return {check.name: check.result for check in report.checks if check.result != "ok"}
