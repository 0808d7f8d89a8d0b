"""How the two families of host compilers are called, and how nvcc uses each.

A family says what its commands look like; it runs nothing. Sources: gcc's manual; Microsoft,
"MSVC Compiler Options"; nvcc's own commands, as `nvcc --dryrun` lists them on both systems.
Standard library only.
"""

from __future__ import annotations

import ntpath
import re
import shlex
from collections.abc import Sequence

from .msvc import split_words

# How compilers say that the system ran out of memory, on lines that no excerpt of a source can
# be: LLVM (cicc), EDG (cudafe++), ptxas.
_DEVICE_OUT_OF_MEMORY = (
    r"^(?:LLVM ERROR|Catastrophic error): out of memory"
    r"|^ptxas fatal *: Memory allocation failure"
)

LINKER = "link"  # Microsoft's, as it is called
Mapped = Sequence[tuple[str, str]]  # a folder, and the name that objects have for it


class Family:
    """What commands of a family of host compilers are made of.

    object_name: what a job calls its output. keeps_text: whether compiling can leave the
    preprocessed text behind. prints_text: whether preprocessing writes to standard output.
    lists_steps: whether what `nvcc --dryrun` lists can be run step by step.
    """

    object_name: str
    keeps_text: bool
    prints_text: bool
    lists_steps: bool
    out_of_memory: re.Pattern[str]

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        """Options without which an object would tell where or when it was made.

        mapped: folders, and what objects call them instead; where several fit, the last one
        counts. seed: for names that would be random.
        """
        raise NotImplementedError

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        """The command that compiles C++, less its output."""
        raise NotImplementedError

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        """The command that only preprocesses, less its output."""
        raise NotImplementedError

    def output(self, name: str) -> list[str]:
        """Where an object or a text goes to."""
        raise NotImplementedError

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        """The command that makes a library of an object without content; [] where the linker makes
        one of such objects by itself."""
        raise NotImplementedError

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        """What nvcc must be told; steady: options for every host pass, also those that only
        preprocess for device code, where __FILE__ becomes text."""
        raise NotImplementedError

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        """A preprocessing command that `nvcc --dryrun` lists, and the file that it writes; None
        where the line is another."""
        raise NotImplementedError

    def anchor(self, name: str) -> str:
        """A definition of an external symbol that nobody else sees."""
        raise NotImplementedError

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        """Finds the jobs' own folders, below `scratch`, in texts; None where none are named."""
        raise NotImplementedError


class Gcc(Family):
    object_name = "output"
    keeps_text = True
    prints_text = False
    lists_steps = True
    # nvcc's and gcc's drivers, gcc's and binutils' allocator, the C++ run time, the system.
    out_of_memory = re.compile(
        r"^nvcc error *: '\S+' died due to signal 9\b"
        r"|^\S+: fatal error: Killed signal terminated program "
        r"|^\S+: out of memory allocating \d+ bytes"
        rf"|{_DEVICE_OUT_OF_MEMORY}"
        r"|^terminate called after throwing an instance of 'std::bad_alloc'"
        r"|^virtual memory exhausted"
        r"|^[\w+./-]+: (?:[^:\n]+: )*Cannot allocate memory$",
        re.MULTILINE | re.IGNORECASE,
    )

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        # Both debug information and __FILE__ (gcc 8 and later). Without the first option texts
        # name the job's own folder.
        maps = [f"-ffile-prefix-map={folder}={name}" for folder, name in mapped]
        return ["-fno-working-directory", *maps, f"-frandom-seed={seed}"]

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, *arguments, "-c", source]

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        command = self.compile(cxx, arguments, source)
        return ["-E" if arg == "-c" else arg for arg in command]

    def output(self, name: str) -> list[str]:
        return ["-o", name]

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        return []

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        return ["-ccbin", cxx, *(word for option in steady for word in ("-Xcompiler", option))]

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        words = shlex.split(line[2:]) if line.startswith("#$ ") and " -E " in line else []
        if "-E" not in words or "-o" not in words:
            return None
        output = words.index("-o")
        return words[:output] + words[output + 2 :], words[output + 1]

    def anchor(self, name: str) -> str:
        return f'extern "C" {{ __attribute__((visibility("hidden"))) int {name} = 1; }}\n'

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        return None


class MsvcFamily(Family):
    """cl. nvcc.exe finds it by PATH, as the variables of its developer's prompt say: it takes no
    other one for Microsoft's."""

    object_name = "output.obj"
    keeps_text = False
    prints_text = True
    lists_steps = False
    # cl's C1002, C1060, C1076 and C3859; nvcc, of a step that ended with STATUS_NO_MEMORY,
    # STATUS_INSUFFICIENT_RESOURCES or STATUS_COMMITMENT_LIMIT.
    out_of_memory = re.compile(
        r"^(?:\S.*\(\d+(?:,\d+)?\)|cl|c1xx|[\w.+-]+\.\w+) ?: "
        r"(?:fatal )?error C(?:1002|1060|1076|3859)\b"
        r"|^nvcc error *: '\S+' died with status 0xC0000(?:017|09A|12D)\b"
        rf"|{_DEVICE_OUT_OF_MEMORY}",
        re.MULTILINE | re.IGNORECASE,
    )

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        # The second one is what -pathmap needs. There is no seed: cl's names are not random.
        # nvcc.exe passes no blanks on, and takes a comma for an end; images have no such folders.
        maps = [f"-pathmap:{old}={new}" for old, new in mapped if not re.search("[ ,]", old)]
        return ["-Brepro", "-experimental:deterministic", *maps]

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, "-nologo", *arguments, "-c", source]

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, "-nologo", *arguments, "-E", source]

    def output(self, name: str) -> list[str]:
        return [f"-Fo{name}"]

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        options = ["-NOLOGO", "-DLL", "-NOENTRY", "-NODEFAULTLIB", f"-OUT:{name}"]
        return [linker_of(cxx), *options, source]

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        # cl looks for pre-included headers beside the source, and where it is told to.
        return ["--use-local-env", "-I", ".", "-Xcompiler", ",".join(steady)]

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        words = split_words(line[3:]) if line.startswith("#$ ") and " -E " in line else []
        if "-E" not in words or ">" not in words:
            return None
        output = words.index(">")
        return [cxx, *words[1:output], *words[output + 2 :]], words[output + 1]

    def anchor(self, name: str) -> str:
        return f'extern "C" {{ int {name} = 1; }}\n'

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        # cl may name a file by its whole path, in small letters, with doubled backslashes.
        folder = re.escape(scratch.replace("\\", "\\\\").encode())
        return re.compile(folder + rb'\\\\[^\\"]+', re.IGNORECASE)


def linker_of(cxx: str) -> str:
    """Microsoft's linker, which lies beside cl."""
    return ntpath.join(ntpath.dirname(cxx), "link.exe")


def family_of(cxx: str) -> Family:
    """The family of a host compiler, by its path."""
    name = ntpath.basename(cxx).lower()
    return MsvcFamily() if name in ("cl", "cl.exe") else Gcc()
