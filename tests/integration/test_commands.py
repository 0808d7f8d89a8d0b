"""What `compilers.nvcc` makes of nvcc's options, against nvcc itself."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fatwheel.compilers.nvcc import read_nvcc

GENCODE = ["-gencode", "arch=compute_80,code=[sm_80]"]


def _dryrun(cuda_home: Path, arguments: list[str], folder: Path) -> list[str]:
    """The steps that nvcc would run, without what differs from call to call."""
    done = subprocess.run(
        [str(cuda_home / "bin" / "nvcc"), "--dryrun", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"nvcc {shlex.join(arguments)}\n{done.stderr}"
    # Temporary files are named after the process.
    return [re.sub(r"tmpxft_[0-9a-f]+_", "tmpxft_", line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    "words",
    [
        "-DA -I inc -UB -I=inc2 -isystem inc3 -DC=1,D=2 -Iinc4,inc5 -include stdio.h",
        "-O3 -std=c++17 --use_fast_math -Xptxas=-v,-O3 --ptxas-options -O2 -lineinfo",
        "--compiler-options '-fPIC,-O2' -Xcompiler -Wall --expt-relaxed-constexpr",
        "-ftz true --fmad=false -prec-div false -maxrregcount 32 --Ofast-compile=mid",
        "-t4 --threads=2 -arch=sm_90 -keep-dir k -objtemp -frandom-seed 1 -ccbin g++",
        "--gpu-architecture compute_75 --gpu-code sm_75,compute_75 -t 0",
        "-diag-suppress 20012,177 --diag-error=20011 -Werror all-warnings -err-no",
        "-MD -MF a.d -MT target -MP",
        "-forward-unknown-to-host-compiler -fopenmp -Wno-unused --foo=bar -march=native",
        "-default-stream per-thread --cudart=shared -Xcudafe --diag_suppress=1 -G -w",
        "-rdc=false --compress-mode=size -Xfatbin -compress-all -split-compile 2",
        "-x cu -dopt on -jtd 5 -brief-diag true -opt-info inline",
    ],
)
def test_nvcc_would_run_the_same_steps(cuda_home: Path, tmp_path: Path, words: str) -> None:
    for name in ("inc", "inc2", "inc3", "inc4", "inc5", "k"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.cu").write_text("__global__ void kernel() {}\n")
    arguments = [*shlex.split(words), "-c", "a.cu", "-o", "a.o"]
    found = read_nvcc(arguments, str(tmp_path))
    assert found is not None, f"not taken apart: {words}"
    # The same with our architecture in place of the project's, and all paths absolute.
    reference = _replace_architectures(arguments)
    ours = [*found.preprocessor, *found.codegen, *GENCODE, "-c", "a.cu", "-o", "a.o"]
    steps = [_relative(line, tmp_path) for line in _dryrun(cuda_home, ours, tmp_path)]
    assert steps == [_relative(line, tmp_path) for line in _dryrun(cuda_home, reference, tmp_path)]


def _replace_architectures(arguments: list[str]) -> list[str]:
    """Take out, by eye, what these tests' commands say of architectures and ways of working."""
    ours = [
        "-arch=sm_90", "--gpu-architecture", "compute_75", "--gpu-code", "sm_75,compute_75",
        "-t4", "--threads=2", "-t", "0", "-keep-dir", "k", "-objtemp", "-frandom-seed", "1",
        "-ccbin", "g++", "-MD", "-MF", "a.d", "-MT", "target", "-MP", "-rdc=false",
    ]  # fmt: skip
    kept = [argument for argument in arguments if argument not in ours]
    return [*kept[:-4], *GENCODE, *kept[-4:]]


def _relative(line: str, folder: Path) -> str:
    return line.replace(f"{folder}/", "")


def test_every_option_of_this_nvcc_is_known(cuda_home: Path) -> None:
    """An option whose value is unknown to be one would make its value look like a source."""
    text = subprocess.run(
        [str(cuda_home / "bin" / "nvcc"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    with_value = re.findall(r"^(--\S+) (?:<.*?>|\{.*?\}|\[.*?\]|entry)\S* +\((-\S+?)\)", text, re.M)
    alone = re.findall(r"^(--\S+) +\((-\S+?)\)", text, re.M)
    assert len(with_value) > 50, f"nvcc --help has another form now:\n{text[:2000]}"
    assert len(alone) > 50, f"nvcc --help has another form now:\n{text[:2000]}"
    # Its value is left out of the help text.
    with_value += [pair for pair in alone if pair[1] in ("-MF", "-qpp-config")]
    elsewhere = {"-odir", "-x", "-optf"}  # other kinds of command, and a file that must exist
    for long, short in with_value:
        for words in ([long, "VALUE"], [f"{long}=VALUE"], [short, "VALUE"], [f"{short}=VALUE"]):
            found = read_nvcc([*words, "-c", "a.cu"], "/project")
            assert found or short in elsewhere, f"{words}: the value was taken for a source"
    for long, short in alone:
        if (long, short) not in with_value:
            for name in (long, short):
                found = read_nvcc(["-c", name, "a.cu"], "/project")
                assert found is None or found.source == "/project/a.cu", name
