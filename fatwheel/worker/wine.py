"""Wine, where it is not as Windows is: busy, it loses a program at its start now and then.

It looks neither at whether its fork and exec succeed nor at what ended the process, and says
ERROR_INTERNAL_ERROR, which Windows has for nothing that a program can meet. Nothing of the program
has run then. Seen once in thousands of starts. Standard library only, and nothing of fatwheel.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import _winapi
    import ctypes
    import time
    from typing import Any

    _INTERNAL_ERROR = 1359  # ERROR_INTERNAL_ERROR
    _MORE_TRIES = 3
    _start = _winapi.CreateProcess

    def in_wine() -> bool:
        """Whether this is Wine's Windows."""
        return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")

    def start_again_what_is_lost() -> None:
        """From now on, what this process starts and a busy Wine loses is started once more, a
        second later. `subprocess` has no other way to start a program on Windows."""
        if in_wine():
            _winapi.CreateProcess = _started

    def _started(*arguments: Any) -> Any:
        for _ in range(_MORE_TRIES):
            try:
                return _start(*arguments)
            except OSError as error:
                if error.winerror != _INTERNAL_ERROR:
                    raise
            time.sleep(1)
        return _start(*arguments)
