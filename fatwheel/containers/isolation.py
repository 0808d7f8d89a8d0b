"""How Windows containers are kept apart from their host.

With process isolation they are processes of the host's kernel, with Hyper-V isolation each is a
small virtual machine. Windows Server's engine takes the first unless told otherwise, and that of
Windows 10 and 11 the second: there, Microsoft intends process isolation for development and testing
alone, and containers fail to start now and then (docker/for-win#14287). So the engine's own way is
taken, unless the user names one.
"""

from __future__ import annotations

import os

from ..errors import EngineError, UsageError

VARIABLE = "FATWHEEL_ISOLATION"
PROCESS, HYPERV, DEFAULT = "process", "hyperv", "default"
# Images of Windows Server 2022 and later run with process isolation on any newer host; older ones
# need a host of exactly their build. Source: Microsoft's page on the compatibility of container
# versions.
_STABLE_SINCE = 20348


def isolation(host_build: int, image_build: int, usual: str) -> str:
    """'process', 'hyperv', or 'default' where it is up to an engine that is not known.

    The builds are numbers as in 20348, and that of the host is 0 where it is unknown. usual: what
    the engine takes unless told otherwise, or ''. Raises EngineError where the host is older than
    the image: neither way works there. Raises UsageError where the user's variable names no way.
    """
    if 0 < host_build < image_build:
        raise EngineError(
            f"the host is too old for the image: it is Windows build {host_build}, and the image "
            f"needs {image_build} or newer",
            hint="use Windows Server 2022 (build 20348), Windows 11 (22000) or newer as the host",
        )
    way = _asked()
    if way != DEFAULT:
        return way
    shares_kernel = host_build in (0, image_build) or image_build >= _STABLE_SINCE
    return HYPERV if usual == PROCESS and not shares_kernel else usual or DEFAULT


def _asked() -> str:
    """What the user's variable says."""
    way = os.environ.get(VARIABLE) or DEFAULT
    if way not in (PROCESS, HYPERV, DEFAULT):
        raise UsageError(
            f"{way!r} is no way to isolate containers",
            where=VARIABLE,
            hint=f"valid: {PROCESS}, {HYPERV} or {DEFAULT} (the engine's own)",
        )
    return way
