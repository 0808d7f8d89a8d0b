"""Runs in the clean environment: imports modules, uses the GPU once, and writes down how long.

    python -I trial.py RESULTS gpu|none MODULE...

One JSON line each into RESULTS, as it happens, so that what came before a crash is known:
{"start": name}, {"module": name, "seconds": s}, {"failed": name, "lines": [...]},
{"torch": version}, {"first_use": seconds}, {"outside": [paths]}: CUDA's libraries that were loaded
from elsewhere than this environment. Standard library only, and nothing of fatwheel: it is run as a
file. Without -I, modules are found as `python -c` finds them.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence

_LINES = 12  # the last of a traceback
_CAUSES = 5  # errors that led to one
_CUDA = re.compile(
    r"lib(cudart|cublas|cublasLt|cudnn|cufft|curand|cusolver|cusparse|cupti|nvrtc|nvJitLink|nccl)\b"
)


def main(arguments: Sequence[str]) -> int:
    """0 if all modules could be imported, and the GPU used where that is asked for."""
    results, gpu, *modules = arguments
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        sys.path[0] = ""
    with open(results, "w", encoding="utf-8") as stream:

        def say(**said: object) -> None:
            stream.write(json.dumps(said) + "\n")
            stream.flush()

        good = True
        for name in modules:
            say(start=name)
            begun = time.perf_counter()
            try:
                importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                good = False
                say(failed=name, lines=_words(error))
            else:
                say(module=name, seconds=time.perf_counter() - begun)
        torch = sys.modules.get("torch")
        if torch is not None:
            say(torch=str(getattr(torch, "__version__", "")))
        say(outside=_from_outside(sys.prefix))
        if gpu == "gpu" and good:
            say(start="the GPU")
            begun = time.perf_counter()
            _use_gpu()
            say(first_use=time.perf_counter() - begun)
    return 0 if good else 1


def _from_outside(prefix: str) -> list[str]:
    """Linux alone tells which files a process has mapped. The driver's own library is the
    machine's, and has to be."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
            paths = {line.split(None, 5)[5].rstrip("\n") for line in stream if "/" in line}
    except OSError:
        return []
    inside = os.path.realpath(prefix) + os.sep
    return sorted(
        path
        for path in paths
        if _CUDA.match(os.path.basename(path)) and not os.path.realpath(path).startswith(inside)
    )


def _use_gpu() -> None:
    """Makes the driver load what must be there before any kernel can run."""
    torch = importlib.import_module("torch")
    torch.zeros(1, device="cuda").add_(1).cpu()


def _words(error: BaseException) -> list[str]:
    """Python's own, the last of them, behind what the errors said that led to this one."""
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < _CAUSES:
        causes.insert(0, f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    last = [line for line in text.splitlines() if line.strip()][-_LINES:]
    return [*(line for line in "\n".join(causes).splitlines() if line not in last), *last]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
