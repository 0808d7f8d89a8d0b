"""What fatwheel is measured against: Python's zipfile, in a process of its own.

    python -m bench.plainzip read WHEEL
    python -m bench.plainzip repack LEVEL CONTENT NEW WHEEL...

`read` unpacks all members to nothing. `repack` unpacks wheels to a folder beside NEW, and makes
the wheel NEW of the files in the folder CONTENT.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

_STEP = 1 << 20


def read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                while stream.read(_STEP):
                    pass


def repack(level: int, content: Path, new: Path, wheels: Sequence[Path]) -> None:
    for number, wheel in enumerate(wheels):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(new.with_suffix(f".{number}"))
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for file in sorted(content.rglob("*")):
            archive.write(file, file.relative_to(content))


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "read":
        read(Path(arguments[0]))
    else:
        level, content, new, *wheels = arguments
        repack(int(level), Path(content), Path(new), [Path(wheel) for wheel in wheels])


if __name__ == "__main__":
    main()
