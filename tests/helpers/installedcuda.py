"""A small installed CUDA, and a Python that says what its torch is.

Its nvcc is a program, as the real one is, that runs the shell script beside it: what that prints is
cut from what nvcc 12.4 and 13.0 print.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

STARTER = r"""
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    char script[4096], *all[64] = {"sh", script};
    ssize_t length = readlink("/proc/self/exe", script, sizeof script - 4);
    if (length < 0 || count > 60) return 1;
    snprintf(script + length, 4, ".sh");
    for (int i = 1; i <= count; i++) all[i + 1] = words[i];
    execv("/bin/sh", all);
    return 1;
}
"""
NVCC = r"""
case "$*" in
--version) echo "Cuda compilation tools, release @cuda@, V@cuda@.61";;
--list-gpu-code) printf 'sm_80\nsm_90\nsm_120\n';;
*--dryrun*)
    echo "#$ _SPACE_= " >&2
    echo "#$ CICC_PATH=@home@/nvvm/bin" >&2
    echo "#$ NVVMIR_LIBRARY_DIR=@libdevice@" >&2
    echo "#$ PATH=@home@/bin" >&2;;
*) exit 9;;
esac
"""
PROGRAMS = ("bin/cudafe++", "bin/ptxas", "bin/fatbinary", "bin/nvlink", "nvvm/bin/cicc")
# As ptxas prints it, in part: it knows older architectures than nvcc lists.
PTXAS = """\
#!/bin/sh
cat <<END
--gpu-name <gpu name>                         (-arch)
        Allowed values for this option:  'compute_90','sm_70','sm_80','sm_90','sm_90a','sm_120',
        'sm_120a','sm_120f'.

--help                                        (-h)
END
"""
HEADERS = ("cuda_runtime.h", "fatbinary_section.h", "crt/host_runtime.h")
HOST_CONFIG = "#if defined(__GNUC__)\n\n#if __GNUC__ > 99\n\n#error -- unsupported\n"


def write(path: Path, text: str = "", *, program: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"this is {path.name}\n", encoding="utf-8")
    path.chmod(0o755 if program else 0o644)
    return path


def write_cuda(
    home: Path, tool: Callable[[str], str], *, cuda: str = "13.0", nvcc: str = "bin/nvcc"
) -> Path:
    """A CUDA of this version. nvcc: where its nvcc is."""
    for name in PROGRAMS:
        write(home / name, PTXAS if name == "bin/ptxas" else "", program=True)
    for name in HEADERS:
        write(home / "include" / name)
    write(home / "include/crt/host_config.h", HOST_CONFIG)
    write(home / "nvvm/libdevice/libdevice.10.bc")
    write(home / "lib64/libcudart.so")
    write_nvcc(home, tool, cuda, nvcc)
    return home


def write_nvcc(home: Path, tool: Callable[[str], str], cuda: str, place: str) -> None:
    nvcc = home / place
    source = write(nvcc.with_suffix(".c"), STARTER)
    subprocess.run([tool("gcc"), "-o", str(nvcc), str(source)], check=True)
    source.unlink()
    words = {"@cuda@": cuda, "@home@": str(home), "@libdevice@": str(home / "nvvm/libdevice")}
    script = NVCC
    for mark, value in words.items():
        script = script.replace(mark, value)
    write(nvcc.with_name("nvcc.sh"), script)


def write_python(folder: Path, **facts: object) -> Path:
    """An interpreter that says it has torch 2.11.0 for CUDA 13.0, but for these facts."""
    answer = {
        "implementation": "CPython",
        "version": "3.11.7",
        "threads": False,
        "executable": str(folder / "bin" / "python"),
        "prefix": str(folder),
        "include": sysconfig.get_path("include"),
        "missing": "",
        "torch": "2.11.0+cu130",
        "cuda": "13.0",
        "site": str(folder / "site"),
        **facts,
    }
    (folder / "site").mkdir(parents=True, exist_ok=True)
    header = folder / "site/torch/include/c10/util/C++17.h"
    write(header, "#if !defined(__clang__) && defined(__GNUC__) && \\\n    __GNUC__ < 9\n")
    body = f"#!{sys.executable}\nprint({json.dumps(answer)!r})\n"
    return write(folder / "bin" / "python", body, program=True)
