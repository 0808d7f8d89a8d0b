"""Two wheels of a few bytes that are compared, packed alike but for what a test changes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from fatwheel.compare import compare_wheels
from fatwheel.compare.differences import Comparison, Difference

from .tinywheels import record_hash

INFO = "demo-1.0.dist-info"
NAME = "demo-1.0-cp311-cp311-linux_x86_64.whl"
TIME = (2024, 5, 6, 7, 8, 10)
TEXTS = {
    f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n",
}


@pytest.fixture(autouse=True)
def without_diffoscope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed, it takes a while."""
    monkeypatch.setattr("fatwheel.compare.report.find_diffoscope", lambda: None)


def pack(
    path: Path,
    files: Mapping[str, bytes],
    *,
    modes: Mapping[str, int] | None = None,
    times: Mapping[str, tuple[int, int, int, int, int, int]] | None = None,
    record: str | None = None,
    level: int = 6,
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """A wheel with these files, METADATA and WHEEL, and a RECORD that is right or another one."""
    named = any(name.endswith(".dist-info/WHEEL") for name in files)
    every = {**files, **({} if named else TEXTS)}
    listing = next(n for n in every if n.endswith(".dist-info/WHEEL")).replace("WHEEL", "RECORD")
    rows = [f"{name},{record_hash(data)},{len(data)}\n" for name, data in every.items()]
    every[listing] = (record or "".join([*rows, f"{listing},,\n"])).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in every.items():
            info = zipfile.ZipInfo(name, (times or {}).get(name, TIME))
            info.external_attr = (0o100000 | (modes or {}).get(name, 0o644)) << 16
            archive.writestr(info, data, method, level)
    return path


def compared(folder: Path, one: Mapping[str, bytes], other: Mapping[str, bytes]) -> Comparison:
    """Wheels with these files, compared."""
    return compare_wheels(pack(folder / "one" / NAME, one), pack(folder / "other" / NAME, other))


def found(comparison: Comparison, *levels: str) -> list[Difference]:
    """The differences, or those of some levels."""
    return [each for each in comparison.differences if not levels or each.level in levels]
