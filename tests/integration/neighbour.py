"""Another user of the machine, who works against a build, until it is ended.

Run as that user, with: sources of its own, the file for what it finds out, the folder of the build,
"first" or "later", and folders of /tmp that everybody may read, such as the checkout.

Standard library only, and no import of fatwheel: a system's Python runs it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

TMP = Path("/tmp")
FIXED = TMP / "fatwheel"
MARK = "a_neighbour_was_here"


def put_sources(origin: Path) -> None:
    """Sources of the neighbour's own at the fixed path."""
    target = FIXED / "fatwheel-sample-1.0" / "src"
    shutil.copytree(origin, target)
    for path in target.rglob("*.c*"):
        with path.open("a") as stream:
            stream.write(f'\nextern "C" __attribute__((used)) int {MARK}() {{ return 666; }}\n')


class Neighbour:
    def __init__(self, origin: Path, report: Path, victim: Path, public: set[str]) -> None:
        self.origin, self.report, self.victim, self.public = origin, report, victim, public
        self.moved = 0
        self.read: set[str] = set()
        self.held: dict[str, int] = {}

    def go_on(self) -> None:
        while True:
            self.replace_sources()
            self.look_around()
            # At once or not at all: who ends this does so at any time.
            part = self.report.with_suffix(".part")
            found = {"moved": self.moved, "read": sorted(self.read), "held": sorted(self.held)}
            part.write_text(json.dumps(found))
            part.rename(self.report)
            time.sleep(0.2)

    def replace_sources(self) -> None:
        """Move the fixed root away, with what may be mounted there, and put another one there."""
        with suppress(OSError):
            FIXED.rename(TMP / f"aside-{self.moved}")
            put_sources(self.origin)
            self.moved += 1
            # Not the last one: compilers may be reading what was mounted there.
            shutil.rmtree(TMP / f"aside-{self.moved - 3}", ignore_errors=True)

    def look_around(self) -> None:
        """Read what can be read of sources, and lock what can be opened, for ever."""
        for top in (TMP, self.victim):
            for folder, below, names in os.walk(top):
                below[:] = [name for name in below if os.path.join(folder, name) not in self.public]
                for name in names:
                    with suppress(OSError):
                        self.open(os.path.join(folder, name))

    def open(self, path: str) -> None:
        if path in self.held or os.stat(path).st_uid == os.getuid():
            return
        handle = os.open(path, os.O_RDONLY)
        if path.endswith((".cu", ".cpp")):
            self.read.add(path)
        if not os.path.basename(path).endswith("lock"):
            os.close(handle)
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.held[path] = handle


def main() -> None:
    origin, report, victim = map(Path, sys.argv[1:4])
    first, *public = sys.argv[4:]
    if first == "first":
        put_sources(origin)
    Neighbour(origin, report, victim, set(public)).go_on()


if __name__ == "__main__":
    main()
