"""What cl.exe and link.exe do in tests, done by clang and lld: see standin.c.

Takes Windows' command lines and paths. Texts name files as cl does, #line 1 "Z:\\\\folder\\\\file".
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LIBRARIES = Path(__file__).parents[3] / "lib" / "x64"
PREFIX = os.getcwd().partition("/drive_c/")[0]  # it starts in a folder below
BANNER = "Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33130 for x64"
# As little of clang as possible: neither its macros nor what it needs of a C library.
CLANG = [
    "clang", "--driver-mode=cl", "--target=x86_64-pc-windows-msvc",
    "-fms-compatibility-version=19.38.33130", "/X", "-U__clang__", "-U__clang_major__",
    "-fno-builtin", "/GS-", "/Zc:threadSafeInit-", "-Wno-everything",
]  # fmt: skip
NOT_LLDS = ("/LTCG", "/MANIFEST", "/MANIFESTUAC", "/LTCGOUT")
PATH = re.compile(r"([-/](?:Fo|FI|I|Tp|Tc|OUT:|IMPLIB:|LIBPATH:)|(?![-/]))(.+)")
DRIVE = re.compile(r"([A-Za-z]):(?=[\\/])")
DOSDEVICE = re.compile(re.escape(PREFIX.encode()) + rb"/dosdevices/([a-z]:)")


def main() -> int:
    program, cwd, *words = Path("call").read_bytes().decode().split("\0")[:-1]
    os.chdir(cwd)
    words = list(expanded(words))
    defining = (False, *(word in ("-D", "/D") for word in words))
    words = [
        word if macro else host_path(word) for word, macro in zip(words, defining, strict=False)
    ]
    note(program, words)
    if Path(program).stem.lower() == "link":
        return link(program, words)
    if not words:
        print(BANNER, file=sys.stderr)
        return 0
    words = [*includes(), *words]
    if "-E" in words or "/E" in words:
        return preprocess(words)
    return compile_(words)


def note(program: str, words: list[str]) -> None:
    """Tests look at what was called; in containers nothing can be written there."""
    with suppress(OSError), Path(f"{program}.calls").open("a") as calls:
        calls.write(repr(words) + "\n")


def includes() -> list[str]:
    folders = os.environ.get("INCLUDE", "").split(";")
    return [word for folder in folders if folder for word in ("-imsvc", host_path(folder))]


def preprocess(words: list[str]) -> int:
    done = subprocess.run([*CLANG, *words], stdout=subprocess.PIPE, check=False)
    sys.stdout.buffer.write(re.sub(rb'^# (\d+ )"([^"]*)".*$', marker, done.stdout, flags=re.M))
    return done.returncode


def marker(found: re.Match[bytes]) -> bytes:
    name = found[2]
    if name.startswith(b"/"):
        own = DOSDEVICE.match(name)
        name = own[1].upper() + name[own.end() :] if own else b"Z:" + name
        name = name.replace(b"/", rb"\\")
    return b"#line " + found[1] + b'"' + name + b'"'


def compile_(words: list[str]) -> int:
    """In two steps, because clang leaves out what nothing names, even what has a section."""
    [source] = [word for word in words if re.search(r"\.(?:cpp|cxx|c)$", word, re.I)]
    source = re.sub(r"^[-/]T[pc]", "", source)
    language = [] if any(word in ("-TP", "/TP") for word in words) else ["/TP"]
    options = [word for word in words if not word.endswith(source) and word not in ("-Tp", "/Tp")]
    plain = [word for word in options if word.lstrip("-/") != "c" and not word[1:].startswith("Fo")]
    text = subprocess.run(
        [*CLANG, *plain, *language, "/E", source], stdout=subprocess.PIPE, check=False
    )
    if text.returncode:
        return text.returncode
    name = Path(f"standin-{os.getpid()}.cpp")
    allocate = b"__declspec(allocate("
    name.write_bytes(text.stdout.replace(allocate, b"__attribute__((used)) " + allocate))
    try:
        done = subprocess.run([*CLANG, *options, *language, str(name)], check=False)
    finally:
        name.unlink()
    return done.returncode


def link(program: str, words: list[str]) -> int:
    """A library without a C run time: nothing runs when it is loaded."""
    kept = [word for word in words if not word.upper().startswith(NOT_LLDS)]
    variable = os.environ.get("_LINK_", "").split()
    note(program, variable)
    folders = [f"/libpath:{host_path(folder)}" for folder in os.environ.get("LIB", "").split(";")]
    command = ["lld-link", "/noentry", "/nodefaultlib", *kept, *variable, *folders]
    run_time = [str(LIBRARIES / name) for name in ("runtime.obj", "ucrt.lib")]
    return subprocess.run([*command, *run_time, "/errorlimit:0"], check=False).returncode


def expanded(words: list[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("@"):
            yield from words_of(Path(host_path(word[1:])).read_text())
        else:
            yield word


def words_of(text: str) -> Iterator[str]:
    """As Microsoft's C run time splits them, but for doubled quotes, which nobody writes."""
    word: str | None = None
    quoted = False
    for slashes, quote, other in re.findall(r'(\\+(?="))|(")|((?s:.))', text):
        if slashes:
            word = (word or "") + "\\" * (len(slashes) // 2)
            quoted ^= len(slashes) % 2 == 1  # its quotation mark will be taken for a quote
            word += '"' * (len(slashes) % 2)
        elif quote:
            quoted, word = not quoted, word or ""
        elif other.isspace() and not quoted:
            if word is not None:
                yield word
            word = None
        else:
            word = (word or "") + other
    if word is not None:
        yield word


def host_path(word: str) -> str:
    """A path of this machine for one of Windows', also behind an option's name."""
    found = PATH.fullmatch(word)
    if found is None:
        return word
    path = DRIVE.sub(drive_s_folder, found[2], count=1)
    return found[1] + path.replace("\\", "/")


def drive_s_folder(found: re.Match[str]) -> str:
    drive = found[1].lower()
    return "" if drive == "z" else f"{PREFIX}/dosdevices/{drive}:"


if __name__ == "__main__":
    sys.exit(main())
