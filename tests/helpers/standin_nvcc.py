"""Stands in for nvcc and its tools in unit tests, see standins.py: LOG, a name, and arguments.

It does what fatwheel sees of nvcc (`nvcc --dryrun` and `--keep` of CUDA 13.0): it preprocesses
with the real g++, once for each front and once for the host, and puts NVIDIA's own images from
data/device in a fatbin, or in the .nv_fatbin section of an object. The steps that it lists can be
run one by one.

`nvcc -dlink` gives an object with one image of those in `IMAGES`; an input that says `says TEXT`
makes it fail.

A source may say `// stand-in: WHAT`, where WHAT is `killed` (as if a step ran out of memory),
`ptxas-fails` and `ptxas-killed` (from PTX that says so),
`says TEXT` (and fails), `no image`, `waits` (for ever, in a child), `own code` (a front of its
own gives sm_86 other machine code than that of compute_80 does), `split code` (--split-compile
gives other machine code), or `own stub` (each front registers other kernels).

It knows --split-compile, unless a file `old` lies beside its LOG.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "device"
# Kind, architecture and flags as the entry header has them, and the image.
IMAGES = {
    "sm_80": (2, 80, 0x11, "cuda13.0-sm_80.cubin"),
    "sm_86": (2, 86, 0x11, "cuda12.4-sm_86.cubin"),
    "sm_90a": (2, 90, 0x100011, "cuda13.0-sm_90a.cubin"),
    "compute_80": (1, 80, 0x11, "scale.ptx"),
    "compute_86": (1, 86, 0x11, "scale.ptx"),
    "compute_90a": (1, 90, 0x100011, "scale.ptx"),
}
CUBINS = [code for code, image in IMAGES.items() if image[0] == 2]
HOST = r"""
__asm__(".section .nv_fatbin,\"a\"\n.align 8\nfatbinData: .incbin \"x.fatbin\"\n.previous");
extern "C" const char fatbinData[];
struct Wrapper { int magic, version; const void *container, *none; };
__attribute__((section(".nvFatBinSegment"))) Wrapper wrapper = {0x466243b1, 1, fatbinData, nullptr};
"""


def main(log: str, program: str, *args: str) -> int:
    """program: nvcc, or one of those whose names it lists."""
    if program != "nvcc":
        return PROGRAMS[program](args)
    if args == ("--help",):
        known = "" if Path(log).with_name("old").exists() else "--split-compile <number>"
        print(f"--threads <number> (-t)\n{known} (-split-compile)")
        return 0
    with open(log, "a") as stream:
        stream.write(json.dumps(args) + "\n")
    if "-dlink" in args:
        return _link(args)
    source = _value(args, "-c") or _value(args, "-fatbin")
    found = re.fullmatch(r"arch=(compute_\w+),code=\[(.*)\]", _value(args, "-gencode"))
    assert found, args
    front, codes = found[1], found[2].split(",")
    keep = Path(_value(args, "--keep-dir") or "/tmp/tmpxft")
    passes = _passes(args, source, front)
    texts = [[*command, "-o", str(keep / name)] for name, command in passes.items()]
    told = re.findall("// stand-in: (.*)", Path(source).read_text())
    made = [] if "no image" in told else codes
    steps = _steps(args, keep / Path(source).stem, source, front, made)
    if "--dryrun" in args:
        sys.stderr.write(f"#$ _SPACE_= \n#$ PATH={Path(log).parent / 'bin'}:/usr/bin:/bin\n")
        for step in [*texts, *steps]:
            sys.stderr.write(f"#$ {shlex.join(step)} \n")
        return 0
    for step in texts:
        if subprocess.run(step).returncode:
            return 1
    code = _misbehave(told)
    for step in steps if not code else ():
        run = PROGRAMS.get(step[0])
        code = code or (run(step[1:]) if run else subprocess.run(step).returncode)
    return code


def _value(args: Sequence[str], option: str) -> str:
    return args[args.index(option) + 1] if option in args else ""


def _passes(args: tuple[str, ...], source: str, front: str) -> dict[str, list[str]]:
    """The name of each preprocessed text, and the command that makes it."""
    text = ["-g"] if "-g" in args else []
    for index, arg in enumerate(args):
        if arg in ("-D", "-U", "-I", "-isystem", "-include"):
            text += [arg, args[index + 1]]
    number = re.sub(r"\D", "", front) + "0"
    stem = Path(source).stem
    device = ["g++", f"-D__CUDA_ARCH__={number}", "-E", "-x", "c++", *text, source]
    if "-fatbin" in args:
        return {f"{stem}.cpp1.ii": device}
    return {f"{stem}.cpp1.ii": device, f"{stem}.cpp4.ii": ["g++", "-E", "-x", "c++", *text, source]}


def _misbehave(told: list[str]) -> int:
    if "killed" in told:
        sys.stderr.write("nvcc error   : 'cicc' died due to signal 9 (Kill signal)\n")
        return 9
    for word in told:
        if word.startswith("says "):
            sys.stderr.write(word[5:] + "\n")
            return 2
    if "waits" in told:
        subprocess.run(["sleep", "600"])
    return 0


def _steps(
    args: tuple[str, ...], stem: Path, source: str, front: str, codes: list[str]
) -> list[list[str]]:
    """What follows the preprocessors, as nvcc lists it."""
    ptx, stub = f"{stem}.{front}.ptx", f"{stem}.cudafe1.stub.c"
    cubins = {code: f"{stem}.{front}.{code}.cubin" for code in codes if code in CUBINS}
    output = _value(args, "-o") or "a.out"
    fatbin = output if "-fatbin" in args else "x.fatbin"
    split = [argument for argument in args if argument.startswith("--split-compile=")]
    images = [
        f"--image3=kind={'elf' if code in cubins else 'ptx'},sm={code},file={cubins.get(code, ptx)}"
        for code in codes
    ]
    steps = [
        ["cicc", "-arch", front, "--stub_file_name", stub, source, "-o", ptx],
        *(["ptxas", f"-arch={code}", ptx, "-o", cubin, *split] for code, cubin in cubins.items()),
        ["fatbinary", f"--create={fatbin}", *images],
    ]
    if "-fatbin" in args:
        return steps
    return [["cudafe++", stub, "x.cpp"], *steps, ["g++", "-c", "x.cpp", "-o", output]]


def _cicc(args: Sequence[str]) -> int:
    """Make PTX and stub, which tell ptxas and the linker what the source said."""
    told = re.findall("// stand-in: (.*)", Path(args[-3]).read_text())
    front = _value(args, "-arch")
    words = f"// {front} {' '.join(told)}\n".encode()
    Path(_value(args, "-o")).write_bytes((DATA / "scale.ptx").read_bytes() + words)
    stub = f'const char registered[] = "{front if "own stub" in told else "scale"}";\n'
    Path(_value(args, "--stub_file_name")).write_text(stub)
    return 0


def _ptxas(args: Sequence[str]) -> int:
    words = Path(args[1]).read_bytes().splitlines()[-1].decode().split(maxsplit=2)
    if "ptxas-fails" in words[2:]:
        sys.stderr.write("ptxas fatal   : no\n")
        return 255
    if "ptxas-killed" in words[2:]:
        os.kill(os.getpid(), signal.SIGKILL)
    image = (DATA / IMAGES[args[0].removeprefix("-arch=")][3]).read_bytes()
    if words[1] == "compute_86" and "own code" in words[2:]:
        image = _changed(image)
    if args[-1].startswith("--split") and "split code" in words[2:]:
        image = _changed(image)
    Path(_value(args, "-o")).write_bytes(image)
    return 0


def _fatbinary(args: Sequence[str]) -> int:
    entries = b""
    for image in args[1:]:
        found = re.fullmatch("--image3=kind=(...),sm=(.*),file=(.*)", image)
        assert found, image
        kind, arch, flags, name = IMAGES[found[2]]
        data = Path(found[3] if found[1] == "elf" else DATA / name).read_bytes()
        data += bytes(-len(data) % 8)
        header = (kind, 0x101, 64, len(data), 0, 0, 0, 0, arch, 0, 0, flags, 0, 0)
        entries += struct.pack("<HHIQIIHHIIIQQQ", *header) + data
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
    Path(args[0].removeprefix("--create=")).write_bytes(container)
    return 0


def _cudafe(args: Sequence[str]) -> int:
    Path(args[1]).write_text(f'{HOST}extern "C" {{ extern\n#include "{args[0]}"\n}}\n')
    return 0


PROGRAMS = {"cicc": _cicc, "ptxas": _ptxas, "fatbinary": _fatbinary, "cudafe++": _cudafe}


def _link(args: tuple[str, ...]) -> int:
    for name in args:
        text = Path(name).read_bytes() if name.endswith(".o") and name != args[-1] else b""
        if said := re.search(rb"// stand-in: says (.*)", text):
            sys.stderr.write(said[1].decode() + "\n")
            return 255
    code = _value(args, "-gencode").partition("code=")[2]
    kind, arch, flags, name = IMAGES[code]
    image = (DATA / name).read_bytes()
    image += bytes(-len(image) % 8)
    header = (kind, 0x101, 64, len(image), 0, 0, 0, 0, arch, 0, 0, flags, 0, 0)
    entry = struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    Path("x.fatbin").write_bytes(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry)) + entry)
    Path("x.cpp").write_text(HOST)
    return subprocess.run(["g++", "-c", "x.cpp", "-o", _value(args, "-o")]).returncode


def _changed(cubin: bytes) -> bytes:
    """The cubin with another last byte in the code of kernel `scale` (ELF-64, gABI)."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + size * n) for n in range(count)]
    for name, _, _, _, offset, length in headers:
        if cubin[headers[names][4] + name :].startswith(b".text.scale\0"):
            place = offset + length - 1
            return cubin[:place] + bytes([cubin[place] ^ 1]) + cubin[place + 1 :]
    raise AssertionError("no kernel scale")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
