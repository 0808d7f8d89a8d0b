"""Runs a module as `python -m` does, and writes down what memory its process took.

    python -m bench.peak FILE MODULE ARGUMENT...

FILE gets two numbers of bytes: the highest resident memory before the module, which is the
interpreter's, and in the end. What wait4 reports includes that of whoever started the process.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def highest_memory() -> int:
    """The highest resident memory of this process so far, in bytes."""
    return int(_STATUS.read_text().partition("VmHWM:")[2].split(maxsplit=1)[0]) << 10


def main() -> None:
    file, module, *arguments = sys.argv[1:]
    before = highest_memory()
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(file).write_text(f"{before} {highest_memory()}")


if __name__ == "__main__":
    main()
