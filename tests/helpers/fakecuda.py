"""A library in the place of NVIDIA's driver: one GPU of 9.0, as NVIDIA's rules say it loads images.

FAKE_CUDA is the CUDA that it knows (12040 is 12.4), FAKE_CAPABILITY what its GPU says of itself.
It knows containers by their entries: kind, header size, padded size, architecture, flags.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fatwheel.trial.environment import Clean

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef const unsigned char *bytes;
static int compiled = 0;
static unsigned u32(bytes p) { unsigned v; memcpy(&v, p, 4); return v; }
static uint64_t u64(bytes p) { uint64_t v; memcpy(&v, p, 8); return v; }
int cuGetErrorString(int code, const char **text) {
    *text = code == 100 ? "no CUDA-capable device is detected" : 0; return code == 100 ? 0 : 1;
}
int cuInit(unsigned flags) { return getenv("FAKE_NO_GPU") ? 100 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
static int number(const char *name, int usual) {
    const char *said = getenv(name);
    return said ? atoi(said) : usual;
}
int cuDeviceGet(int *device, int number) { *device = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = 0; return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "Fake H200"); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    int capability = number("FAKE_CAPABILITY", 90);
    *value = which == 75 ? capability / 10 : which == 76 ? capability % 10 : 0; return 0;
}
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13010); return 0; }
int cuModuleGetLoadingMode(int *mode) {
    const char *wanted = getenv("CUDA_MODULE_LOADING");
    *mode = wanted && !strcmp(wanted, "EAGER") ? 1 : 2; return 0;
}
int cuModuleLoadData(void **module, bytes data) {
    uint64_t end = 16 + u64(data + 8), at = 16;
    int native = 0, ptx = 0;
    if (getenv("FAKE_CRASH")) abort();
    while (at < end) {
        unsigned kind = data[at] | data[at + 1] << 8, arch = u32(data + at + 0x1c);
        if (kind == 2 && arch / 10 == 9) native = arch;
        if (kind == 1 && arch <= 90) ptx = arch;
        at += u32(data + at + 4) + u64(data + at + 8);
    }
    *module = (void *)(intptr_t)(native ? native : ptx);
    compiled = !native;
    if (native) return 0;
    if (!ptx) return 209;
    return getenv("CUDA_DISABLE_PTX_JIT") ? 223 : 0;
}
int cuModuleUnload(void *module) { return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = module; return strstr(name, "lost") ? 500 : 0;
}
int cuFuncLoad(void *function) { return 0; }
int cuFuncGetAttribute(int *value, int which, void *function) {
    *value = which == 6 ? 90 : (int)(intptr_t)function; return 0;
}
"""


def fake_driver(folder: Path, tool: Callable[[str], str]) -> Path:
    """The folder of a libcuda.so.1."""
    folder.mkdir(exist_ok=True)
    source = folder / "cuda.c"
    source.write_text(SOURCE)
    library = str(folder / "libcuda.so.1")
    subprocess.run([tool("gcc"), "-shared", "-fPIC", "-o", library, str(source)], check=True)
    return folder


def clean_with(folder: Path, **variables: str) -> Clean:
    """This Python in the place of a clean environment's."""
    empty = folder / "empty"
    empty.mkdir(parents=True, exist_ok=True)
    return Clean(
        root=folder,
        python=Path(sys.executable),
        version="3.11.7",
        empty=empty,
        variables={"PATH": os.environ["PATH"], **variables},
    )
