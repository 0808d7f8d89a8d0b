"""Stand-ins for cicc.exe and ptxas.exe in Wine: NVIDIA's compilers for Linux do the greater part.

cicc's front end knows the host compiler's C++, so it is always that of Windows. Its optimiser and
ptxas know nothing of the host, and those for Linux make the same bytes (measured with CUDA 13.0:
docs/windows.md says of what). Some calls are made by both, and compared; a difference fails.
What they may not know is left to Windows' own: options that are not known (`compilers.cicc`), and
PTX that names source files, whose sizes and times ptxas writes into line tables.

Wine starts programs of Linux but does not wait for them, so a file says that one has ended.
Standard library only; runs in Wine, on Windows' Python.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..compilers.cicc import divided

_ONE_IN = 50  # calls that are made by both
# PTX of the older of cicc's two code generators has Windows' ends of lines on Windows.
_OLDER = b"Based on NVVM 7."
_HEADER = 1000  # bytes, in which that is
_SOURCE_FILE = re.compile(rb"^\s*\.file\s", re.MULTILINE)
_PLAIN_PATH = re.compile(r"[^\\:]+")  # one that means the same on both systems, if it is relative
_KILLED = 137  # what a shell says of a program that was killed
_NO_MEMORY = 0xC0000017  # STATUS_NO_MEMORY, which nvcc.exe names and `hosts` knows
_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.1  # seconds between two looks
_LIFE_SIGN = 5.0  # seconds between two looks whether it still runs
_LONGEST_START = 120.0  # seconds until it must have begun; a busy machine takes some


@dataclass(frozen=True)
class Tools:
    """real: Windows' program. own: Linux', as Linux knows it. state: a folder of the build, in
    which it stands what has been compared."""

    real: str
    own: str
    state: Path


def main(role: str, real: str, own: str, state: str, *arguments: str) -> int:
    """What a stand-in does; its exit code."""
    tools = Tools(real, own, Path(state))
    done = {"cicc": cicc, "ptxas": ptxas}[role](tools, arguments)
    return call_real(tools, arguments) if done is None else done


def cicc(tools: Tools, arguments: Sequence[str]) -> int | None:
    """None where the call has to be Windows' own."""
    call = divided(arguments)
    if call is None or not _PLAIN_PATH.fullmatch(call.ptx):
        return None
    if code := call_real(tools, call.front):
        return code
    code = call_own(tools, call.back)
    if code == 0:
        _end_lines_as_windows(Path(call.ptx))
        if is_audited(tools, Path(call.bitcode).read_bytes()):
            code = _compare(tools, arguments, [call.ptx, *call.written])
    with suppress(OSError):
        os.unlink(call.bitcode)
    return code


def _end_lines_as_windows(ptx: Path) -> None:
    text = ptx.read_bytes()
    if _OLDER in text[:_HEADER]:
        ptx.write_bytes(text.replace(b"\n", b"\r\n"))


def ptxas(tools: Tools, arguments: Sequence[str]) -> int | None:
    """None where the call has to be Windows' own."""
    ptx = next((word for word in arguments if word.endswith(".ptx")), "")
    made = [after for word, after in pairwise(arguments) if word == "-o"]
    if len(made) != 1 or not all(map(_PLAIN_PATH.fullmatch, arguments)):
        return None
    try:
        text = Path(ptx).read_bytes()
    except OSError:
        return None
    if _SOURCE_FILE.search(text):
        return None
    code = call_own(tools, arguments)
    if code == 0 and is_audited(tools, text + "\0".join(arguments).encode()):
        return _compare(tools, arguments, made)
    return code


# -- comparing -------------------------------------------------------------------------------------


def is_audited(tools: Tools, what: bytes) -> bool:
    """Whether a call is made by both: all of each program in a build until one was found to be the
    same, and later one in so many, chosen by what is compiled."""
    chosen = int.from_bytes(hashlib.sha256(what).digest()[:8], "big") % _ONE_IN == 0
    return chosen or not _mark(tools).exists()


def _mark(tools: Tools) -> Path:
    """What is there when a program made the same as the other system's in this build. Before that
    nothing may pass: it would be kept, and of a build that failed the next one takes it."""
    return tools.state / Path(tools.real).stem


def _compare(tools: Tools, arguments: Sequence[str], files: Sequence[str]) -> int:
    """Make files once more, with Windows' own program."""
    before = [Path(file).read_bytes() for file in files]
    done = subprocess.run([tools.real, *arguments], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        return done.returncode
    other = [
        file for file, was in zip(files, before, strict=True) if Path(file).read_bytes() != was
    ]
    if not other:
        _mark(tools).mkdir(exist_ok=True)
        return 0
    program, file = Path(tools.real).stem, os.path.basename(other[0])
    sys.stderr.write(
        f"fatwheel: the {program} for Linux makes another {file} than that for Windows. Build "
        "without --device-from, and please report it.\n"
    )
    return 1


# -- running ---------------------------------------------------------------------------------------


def call_real(tools: Tools, arguments: Sequence[str]) -> int:
    """Run Windows' own program; its exit code."""
    return subprocess.run([tools.real, *arguments], check=False).returncode


def call_own(tools: Tools, arguments: Sequence[str]) -> int:
    """Run Linux' program in this folder, and say what it says; its exit code."""
    with _folder() as folder:
        here, name = unix_path(os.getcwd()), folder.name
        words = shlex.join([tools.own, *arguments])
        (folder / "run").write_text(
            f"cd {shlex.quote(here)} || exit\n"
            f"echo $$ > {name}/pid\n"
            f"env -i {words} < /dev/null > {name}/said 2>&1\n"
            f"echo $? > {name}/code.part\nmv {name}/code.part {name}/code\n",
            encoding="utf-8",
            newline="\n",
        )
        start_unix("/bin/sh", f"{unix_path(str(folder))}/run")
        code = _wait(folder)
        with suppress(FileNotFoundError):
            sys.stderr.buffer.write((folder / "said").read_bytes())
        return _NO_MEMORY if code == _KILLED else code


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of this call's own, whose name needs no quotes; the way to it may."""
    folder = Path(f"own-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder.absolute()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path) -> int:
    """The exit code that appears in a folder; that of a killed program where its shell has gone
    without a word."""
    began = looked = time.monotonic()
    pause = _FIRST_WAIT
    while True:
        with suppress(OSError, ValueError):
            return int((folder / "code").read_text())
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_WAIT)
        if time.monotonic() - looked > _LIFE_SIGN:
            looked = time.monotonic()
            if not _lives(folder, looked - began) and not (folder / "code").exists():
                return _KILLED


def _lives(folder: Path, seconds: float) -> bool:
    """Whether the shell of a call runs that was begun so many seconds ago, and not another program
    that has its number by now."""
    try:
        number = int((folder / "pid").read_text())
    except (OSError, ValueError):
        return seconds < _LONGEST_START
    try:
        return os.fsencode(folder.name) in Path(f"{_ROOT}/proc/{number}/cmdline").read_bytes()
    except OSError:
        return False


if sys.platform == "win32":
    import _winapi

    _ROOT = "Z:"  # Linux' root folder

    def unix_path(path: str) -> str:
        """A path as Linux knows it."""
        call = ctypes.WinDLL("kernel32").wine_get_unix_file_name
        call.restype, call.argtypes = ctypes.c_char_p, [ctypes.c_wchar_p]
        return os.fsdecode(call(path))

    def start_unix(program: str, argument: str) -> None:
        """Start a program of Linux; nothing is known of it then. Raises OSError."""
        command = subprocess.list2cmdline([program, argument])
        inherited: Any = None  # the variables, which typeshed takes for needed
        _winapi.CreateProcess(
            f"{_ROOT}{program}", command, None, None, False, 0, inherited, None, None
        )
else:
    _ROOT = ""

    def unix_path(path: str) -> str:
        """A path as Linux knows it."""
        return path

    def start_unix(program: str, argument: str) -> None:
        """Start a program; nothing is known of it then. Raises OSError."""
        subprocess.run(["/bin/sh", "-c", '"$0" "$1" &', program, argument], check=True)
