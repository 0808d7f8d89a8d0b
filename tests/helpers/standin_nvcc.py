"""Stands in for nvcc in unit tests, see standins.py: LOG, then nvcc's arguments.

It does what fatwheel sees of nvcc (`nvcc --dryrun` and `--keep` of CUDA 13.0): it preprocesses
with the real g++, once for each front and once for the host, and puts NVIDIA's own images from
data/device in a fatbin, or in the .nv_fatbin section of an object.

A source may say `// stand-in: WHAT`, where WHAT is `killed` (as if a step ran out of memory),
`says TEXT` (and fails), `no image`, `waits` (for ever, in a child), `own code` (a front of its
own gives sm_86 other machine code than that of compute_80 does), or `own stub` (each front
registers other kernels).
"""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "device"
# Kind, architecture and flags as the entry header has them, and the image.
IMAGES = {
    "sm_80": (2, 80, 0x11, "cuda13.0-sm_80.cubin"),
    "sm_86": (2, 86, 0x11, "cuda12.4-sm_86.cubin"),
    "sm_90a": (2, 90, 0x100011, "cuda13.0-sm_90a.cubin"),
    "compute_80": (1, 80, 0x11, "scale.ptx"),
}
HOST = r"""
__asm__(".section .nv_fatbin,\"a\"\n.align 8\nfatbinData: .incbin \"x.fatbin\"\n.previous");
extern "C" const char fatbinData[];
struct Wrapper { int magic, version; const void *container, *none; };
__attribute__((section(".nvFatBinSegment"))) Wrapper wrapper = {0x466243b1, 1, fatbinData, nullptr};
"""


def main(log: str, *args: str) -> int:
    with open(log, "a") as stream:
        stream.write(json.dumps(args) + "\n")
    source = _value(args, "-c") or _value(args, "-fatbin")
    found = re.fullmatch(r"arch=(compute_\w+),code=\[(.*)\]", _value(args, "-gencode"))
    assert found, args
    front, codes = found[1], found[2].split(",")
    passes = _passes(args, source, front)
    if "--dryrun" in args:
        sys.stderr.write("#$ _SPACE_= \n#$ PATH=/usr/bin\n#$ rm a_dlink.reg.c\n")
        for name, command in passes.items():
            sys.stderr.write(f'#$ {shlex.join(command)} -o "/tmp/tmpxft-{name}"\n')
        return 0
    told = re.findall("// stand-in: (.*)", Path(source).read_text())
    keep = Path(_value(args, "--keep-dir"))
    for name, command in passes.items():
        if subprocess.run([*command, "-o", str(keep / name)]).returncode:
            return 1
    return _misbehave(told) or _compile(args, keep / Path(source).stem, front, codes, told)


def _value(args: tuple[str, ...], option: str) -> str:
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


def _compile(
    args: tuple[str, ...], stem: Path, front: str, codes: list[str], told: list[str]
) -> int:
    entries = b""
    for code in codes:
        kind, arch, flags, name = IMAGES[code]
        image = (DATA / name).read_bytes()
        if "own code" in told and front == "compute_86":
            image = _changed(image)
        suffix = ".ptx" if kind == 1 else f".{code}.cubin"
        stem.with_name(f"{stem.name}.{front}{suffix}").write_bytes(image)
        image += bytes(-len(image) % 8)
        header = (kind, 0x101, 64, len(image), 0, 0, 0, 0, arch, 0, 0, flags, 0, 0)
        if "no image" not in told:
            entries += struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    fatbin = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
    stub = f'const char registered[] = "{front if "own stub" in told else "scale"}";\n'
    stem.with_name(f"{stem.name}.cudafe1.stub.c").write_text(stub)
    output = _value(args, "-o")
    if "-fatbin" in args:
        Path(output).write_bytes(fatbin)
        return 0
    Path("x.fatbin").write_bytes(fatbin)
    Path("x.cpp").write_text(f'{HOST}extern "C" {{ extern {stub} }}')
    return subprocess.run(["g++", "-c", "x.cpp", "-o", output]).returncode


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
