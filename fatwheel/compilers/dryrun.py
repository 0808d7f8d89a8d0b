"""Reads what `nvcc --dryrun` lists: the commands that one call would run, in nvcc's own words.

    #$ PATH=/cuda/nvvm/bin:/cuda/bin:/usr/bin
    #$ gcc -D__CUDA_ARCH__=800 -E -x c++ … "a.cu" -o "keep/a.cpp1.ii"
    #$ "$CICC_PATH/cicc" … --stub_file_name "keep/a.cudafe1.stub.c" … -o "keep/a.ptx"
    #$ ptxas -arch=sm_80 -m64 "keep/a.ptx" -o "keep/a.sm_80.cubin"
    #$ fatbinary --create="output" … "--image3=kind=elf,sm=80,file=keep/a.sm_80.cubin"

They can be run one by one, by a POSIX shell, as nvcc itself does (CUDA 11.8 to 13.0, on Linux: a
`$` in a macro is the shell's; on Windows they are for cmd, and lean on files that nvcc.exe writes
in between). Standard library only.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_VARIABLE = re.compile(r"(PATH|LD_LIBRARY_PATH|CICC_PATH|NVVMIR_LIBRARY_DIR)=(.*)")
_ASSIGNED = re.compile(r"\w+=")  # of nvcc's own, which other steps do not need
_IMAGE = re.compile(r"--image3?=.*\bfile=([^,]*)")


@dataclass(frozen=True)
class FrontFiles:
    """What a front end leaves for later steps, as paths: PTX, and the part of the host's code that
    registers kernels."""

    ptx: str
    stub: str


@dataclass(frozen=True)
class ListedStep:
    """A command, as a shell gets it, and its words."""

    line: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return os.path.basename(self.words[0])

    def value(self, option: str) -> str:
        return self.words[self.words.index(option) + 1]


@dataclass(frozen=True)
class Listing:
    """The commands of one nvcc call in their order, and the variables that nvcc sets for them."""

    variables: tuple[tuple[str, str], ...]
    steps: tuple[ListedStep, ...]

    def front(self) -> FrontFiles:
        """Raises ValueError where the call has not exactly one front end."""
        (step,) = self._of("cicc")
        return FrontFiles(step.value("-o"), step.value("--stub_file_name"))

    def device_steps(self, codes: Iterable[str]) -> list[str]:
        """What makes a fatbin with only these images from the front's PTX.

        Raises ValueError where the call does not make them.
        """
        ptx = self.front().ptx
        wanted, files = [], [ptx] if any(code.startswith("compute_") for code in codes) else []
        for code in codes:
            if not code.startswith("compute_"):
                (step,) = (one for one in self._of("ptxas") if f"-arch={code}" in one.words)
                wanted.append(step.line)
                files.append(step.value("-o"))
        (fatbinary,) = self._of("fatbinary")
        return [*wanted, _only(fatbinary, files)]

    def program_steps(self) -> list[str]:
        """What makes the device program and the stub: a front end that stops before its optimiser,
        since for link-time optimisation that is left to others. In the place of PTX it leaves what
        is of no use.

        Raises ValueError where the call has not exactly one front end.
        """
        (preprocess,) = (step for step in self.steps if step.words[-1].endswith(".cpp1.ii"))
        (cicc,) = self._of("cicc")
        return [preprocess.line, f"{cicc.line} -lto"]

    def host_steps(self) -> list[str]:
        """What makes an object with the front's PTX and stub: all but the front end itself."""
        return [
            step.line
            for step in self.steps
            if step.program != "cicc" and not step.words[-1].endswith(".cpp1.ii")
        ]

    def _of(self, program: str) -> Iterator[ListedStep]:
        return (step for step in self.steps if step.program == program)


def read_listing(text: str) -> Listing:
    """Read the lines of a listing. Raises ValueError for words that no shell would read."""
    variables, steps = [], []
    for line in text.splitlines():
        told = line.removeprefix("#$ ")
        if told == line:
            continue
        if found := _VARIABLE.fullmatch(told):
            variables.append((found[1], found[2].strip()))
        elif not _ASSIGNED.match(told) and (words := shlex.split(told)) and words[0] != "rm":
            steps.append(ListedStep(told, tuple(words)))
    return Listing(tuple(variables), tuple(steps))


def _only(fatbinary: ListedStep, files: Sequence[str]) -> str:
    """The command of fatbinary with images of these files alone. ValueError where it is not quoted
    as nvcc quotes it."""
    line, words = fatbinary.line, []
    for word in fatbinary.words:
        found = _IMAGE.fullmatch(word)
        if found is None or found[1] in files:
            words.append(word)
        else:
            line = line.replace(f'"{word}"' if f'"{word}"' in line else word, "")
    if shlex.split(line) != words:
        raise ValueError(f"unusual quotes: {fatbinary.line}")
    return line
