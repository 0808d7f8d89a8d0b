"""Runs in the clean environment: hands fatbin containers to NVIDIA's driver, one by one.

    python -I driver.py JOB RESULTS

JOB is JSON: {"units": [{"file": path, "offset": n, "size": n, "kernels": [names]}, ...]}.
RESULTS gets JSON lines: {"gpu": ..., "major": n, "minor": n, "cuda": n, "mode": n}, then one per
unit, in order: {"unit": n, "code": n, "load": seconds, "kernels": seconds, "missing": [names],
"versions": {"90/80": kernels}}. code is the driver's error, 0 where it loaded; versions are those
of the machine code and of the PTX that it was made from. {"failed": function, "code": n} where
nothing can be done. Functions and constants as NVIDIA's driver API reference gives them. Standard
library only, and nothing of fatwheel: it is run as a file.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_PTX_VERSION, _BINARY_VERSION = 5, 6  # CU_FUNC_ATTRIBUTE_*
_MISSING_SHOWN = 20


class Failed(Exception):
    """A function of the driver that did not return 0."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function} failed with error {code}")
        self.function = function
        self.code = code


class Driver:
    """The driver's library with a context on its first GPU. Raises Failed, OSError."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(LIBRARY)
        self.call("cuInit", 0)
        self.device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: object) -> None:
        code = self.code_of(name, *arguments)
        if code:
            raise Failed(name, code)

    def code_of(self, name: str, *arguments: object) -> int:
        function: Callable[..., int] = getattr(self.library, name)
        return int(function(*arguments))

    def described(self) -> dict[str, object]:
        """The GPU, the CUDA that the driver knows (13000 is 13.0), and how it loads."""
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), self.device)
        cuda, mode = ctypes.c_int(), ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(cuda))
        if hasattr(self.library, "cuModuleGetLoadingMode"):  # since CUDA 11.7
            self.call("cuModuleGetLoadingMode", ctypes.byref(mode))
        return {
            "gpu": name.value.decode("utf-8", "replace"),
            "major": self._attribute(_MAJOR),
            "minor": self._attribute(_MINOR),
            "cuda": cuda.value,
            "mode": mode.value,
        }

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, self.device)
        return value.value

    def load(self, data: bytes, kernels: Sequence[str]) -> dict[str, object]:
        """Load a container and all its kernels, and let go of it again."""
        begun = time.perf_counter()
        module = ctypes.c_void_p()
        code = self.code_of("cuModuleLoadData", ctypes.byref(module), data)
        loaded = time.perf_counter()
        if code:
            return {"code": code, "load": loaded - begun, "kernels": 0.0}
        missing: list[str] = []
        versions: Counter[str] = Counter()
        for kernel in kernels:
            code = code or self._load_kernel(module, kernel, missing, versions)
        done = time.perf_counter()
        self.call("cuModuleUnload", module)
        return {
            "code": code,
            "load": loaded - begun,
            "kernels": done - loaded,
            "missing": missing[:_MISSING_SHOWN],
            "versions": dict(versions),
        }

    def _load_kernel(
        self, module: ctypes.c_void_p, name: str, missing: list[str], versions: Counter[str]
    ) -> int:
        function = ctypes.c_void_p()
        code = self.code_of(
            "cuModuleGetFunction", ctypes.byref(function), module, name.encode("utf-8")
        )
        if code == 500:  # CUDA_ERROR_NOT_FOUND
            missing.append(name)
            return 0
        if code == 0 and hasattr(self.library, "cuFuncLoad"):  # since CUDA 12.4
            code = self.code_of("cuFuncLoad", function)
        numbers = []
        for attribute in (_BINARY_VERSION, _PTX_VERSION):
            value = ctypes.c_int()
            code = code or self.code_of(
                "cuFuncGetAttribute", ctypes.byref(value), attribute, function
            )
            numbers.append(str(value.value))
        if code == 0:
            versions["/".join(numbers)] += 1
        return code


def main(arguments: Sequence[str]) -> int:
    """0 whatever the driver said; 1 where it could not be asked."""
    job, results = arguments
    with open(job, encoding="utf-8") as stream:
        units: list[dict[str, Any]] = json.load(stream)["units"]
    with open(results, "w", encoding="utf-8") as stream:

        def say(said: dict[str, object]) -> None:
            stream.write(json.dumps(said) + "\n")
            stream.flush()

        try:
            driver = Driver()
            say(driver.described())
            for number, unit in enumerate(units):
                with open(unit["file"], "rb") as file:
                    file.seek(unit["offset"])
                    data = file.read(unit["size"])
                say({"unit": number, **driver.load(data, unit["kernels"])})
        except Failed as error:
            say({"failed": error.function, "code": error.code})
            return 1
        except OSError as error:
            say({"failed": str(error), "code": 0})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
