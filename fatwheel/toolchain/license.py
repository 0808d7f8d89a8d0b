"""Microsoft's terms for MSVC, which whoever fetches it has to accept: once for each cache.

<cache>/accepted-license    there if the user has accepted them with an option
"""

from __future__ import annotations

import os
from pathlib import Path

from ..config.model import Msvc
from ..errors import UsageError

OPTION = "--accept-msvc-license"
VARIABLE = "FATWHEEL_ACCEPT_MSVC_LICENSE"
_FILE = "accepted-license"
_TEXT = f"The user of this folder has accepted Microsoft's terms for MSVC with {OPTION}.\n"


def accept(cache: Path) -> None:
    """Remember that the user accepts the terms. Raises OSError."""
    (cache / _FILE).write_text(_TEXT, encoding="utf-8")


def is_accepted(cache: Path) -> bool:
    """Whether the user has accepted the terms, here or for this run."""
    return os.environ.get(VARIABLE) == "1" or (cache / _FILE).is_file()


def check_accepted(msvc: Msvc | None, cache: Path) -> None:
    """Raise UsageError, which says where the terms stand, unless the user has accepted them.

    msvc: None for a toolchain that has another compiler.
    """
    if msvc and not is_accepted(cache):
        raise UsageError(
            "MSVC is fetched from Microsoft only once you have accepted Microsoft's terms",
            where=f"MSVC {msvc.toolset} of Visual Studio {msvc.visual_studio}",
            details=[f"the terms: {msvc.license}"],
            hint=f"read them; {OPTION} accepts them for all builds to come, {VARIABLE}=1 for one",
        )
