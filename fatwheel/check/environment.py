"""The environment that is checked: its Python, the packages installed in it, torch among them.

Its own Python runs a script that tells what it is (`probe_script`). Nothing of it is imported here,
and fatwheel need not be installed there. Packages are known by their files, read within bounds
(PyPA specifications "Recording installed projects" and "Core metadata"); what cannot be read is
left out.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, generic_tags
from packaging.utils import canonicalize_name

from ..errors import FormatError, UsageError
from ..text import clean
from ..trial.children import Ended, run_to_end
from ..wheels.metadata import allows, fields, read_record
from . import probe_script

_SCRIPT = Path(probe_script.__file__).resolve()
_PYTHON_SECONDS, _DRIVER_SECONDS = 60.0, 90.0  # a first cuInit after a start may take half a minute
_MOST = 4 << 20  # bytes of an answer
_PLACES = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")
_OLDEST_GLIBC = 5  # manylinux1
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")


@dataclass(frozen=True)
class FoundGpu:
    """name: as the driver has it. capability: `8.9`."""

    name: str
    capability: str


@dataclass(frozen=True)
class FoundDriver:
    """What NVIDIA's driver says of itself.

    version: its own, '' where it does not say it. cuda: the newest that it knows, (13, 0); None
    where that is unknown. trouble: why it, or its GPUs, cannot be asked, or ''.
    """

    version: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[FoundGpu, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Windows:
    """Of a Windows: its system folder; the state of Smart App Control (0 off, 1 on, 2 evaluation)
    and whether long paths are enabled, None where unknown."""

    system_folder: Path
    app_control: int | None
    long_paths: bool | None


@dataclass(frozen=True)
class CheckedPython:
    """An environment's Python and system, and the driver.

    executable: the Python as it was started; base: the program that runs, also for a virtual
    environment. path: where modules are looked for. libraries: of LD_LIBRARY_PATH. windows: None
    on other systems.
    """

    executable: Path
    base: Path
    version: tuple[int, int, int]
    implementation: str
    free_threaded: bool
    debug: bool
    soabi: str
    system: str
    machine: str
    bits: int
    platform: str
    libc: tuple[str, str]
    prefix: Path
    base_prefix: Path
    path: tuple[Path, ...]
    libraries: tuple[Path, ...]
    pip: bool
    windows: Windows | None
    driver: FoundDriver = FoundDriver()

    @property
    def python(self) -> str:
        """`3.11`."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def site(self) -> tuple[Path, ...]:
        """The folders that packages are installed in."""
        return tuple(p for p in self.path if p.name in ("site-packages", "dist-packages"))

    @property
    def title(self) -> str:
        """`CPython 3.11.2, free-threaded, on Linux x86_64 (glibc 2.36)`."""
        kind = {"cpython": "CPython", "pypy": "PyPy"}.get(self.implementation, self.implementation)
        words = [f"{kind} {'.'.join(map(str, self.version))}"]
        words += ["free-threaded"] if self.free_threaded else []
        words += ["a debug build"] if self.debug else []
        words += [f"{self.bits} bits"] if self.bits != 64 else []
        libc = f" ({' '.join(self.libc)})" if self.libc[0] else ""
        return f"{', '.join(words)} on {self.system} {self.machine}{libc}"

    @cached_property
    def tags(self) -> tuple[Tag, ...]:
        """The tags of the wheels that its installers take, the best first."""
        platforms = list(self._platforms())
        release = self.version[:2]
        digits = f"{release[0]}{release[1]}"
        if self.implementation != "cpython":
            short = {"pypy": "pp"}.get(self.implementation, self.implementation)
            abi = "_".join(re.split(r"[-.]", self.soabi)[:2]) or "none"
            own = generic_tags(f"{short}{digits}", [abi], platforms)
            return (*own, *compatible_tags(release, f"{short}3", platforms))
        abi = f"cp{digits}{'t' if self.free_threaded else ''}"
        abis = [f"{abi}d", abi] if self.debug else [abi]
        own = cpython_tags(release, abis, platforms)
        return (*own, *compatible_tags(release, f"cp{digits}", platforms))

    def _platforms(self) -> Iterator[str]:
        flat = re.sub(r"[-.]", "_", self.platform)
        if self.system == "Linux":
            machine = {"x86_64": "i686", "aarch64": "armv8l"}.get(self.machine, self.machine)
            machine = self.machine if self.bits == 64 else machine
            yield from _linux_platforms(machine, *self.libc)
            flat = f"linux_{machine}"
        yield flat


def _linux_platforms(machine: str, kind: str, version: str) -> Iterator[str]:
    found = re.match(r"([0-9]{1,3})\.([0-9]{1,3})", version)
    if not found:
        return
    major, minor = int(found[1]), int(found[2])
    if kind == "musl":
        yield from (f"musllinux_{major}_{number}_{machine}" for number in range(minor, -1, -1))
    elif kind == "glibc" and major == 2:
        for number in range(minor, _OLDEST_GLIBC - 1, -1):
            yield f"manylinux_2_{number}_{machine}"
            if number in _LEGACY:
                yield f"{_LEGACY[number]}_{machine}"


# -- asking ----------------------------------------------------------------------------------------


def find_python(named: str) -> Path:
    """The Python that `--python` names: a program, or the folder of an environment."""
    path = Path(os.path.abspath(os.path.expanduser(named)))
    if path.is_dir():
        for place in _PLACES:
            if (path / place).is_file():
                return path / place
        raise UsageError(
            "there is no Python in this folder", where=f"--python {named}",
            hint="name an environment's folder, or its Python: .venv/bin/python",
        )  # fmt: skip
    if not path.is_file():
        raise UsageError(
            "there is no such file or folder", where=f"--python {named}",
            hint="name an environment's folder, or its Python: .venv/bin/python",
        )  # fmt: skip
    return path


def ask(python: Path) -> CheckedPython:
    """What this Python is, and what the driver of its machine says.

    UsageError where it is no Python, or does not answer.
    """
    ended, facts = _answer(python, "python", _PYTHON_SECONDS)
    try:
        target = _target(python, facts or {})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"this is not a Python that answers: {ended.how}",
            where=str(python),
            details=[clean(line)[:300] for line in ended.last],
            hint="--python names the Python of the environment to check, or the folder of one",
        ) from error
    ended, facts = _answer(python, "driver", _DRIVER_SECONDS)
    return replace(target, driver=_driver(facts, ended))


def _answer(python: Path, question: str, limit: float) -> tuple[Ended, dict[str, Any] | None]:
    """How the script ended, and what it wrote down."""
    with tempfile.TemporaryDirectory(prefix="fatwheel-check-") as folder:
        results = Path(folder, "results.json")
        command = [str(python), "-B", str(_SCRIPT), str(results), question]
        output = Path(folder, "output")
        try:
            ended = run_to_end(command, Path.cwd(), os.environ, output, limit)
        except OSError as error:
            return Ended(127, 0.0, (str(error.strerror or error),)), None
        try:
            if results.stat().st_size > _MOST:
                return ended, None
            facts = json.loads(results.read_bytes())
        except (OSError, ValueError, RecursionError):
            return ended, None
        return ended, facts if isinstance(facts, dict) else None


def _target(python: Path, facts: dict[str, Any]) -> CheckedPython:
    """Raises KeyError, TypeError, ValueError or IndexError for what is no such answer."""
    major, minor, micro = map(int, facts["version"])
    libc = [str(word) for word in facts["libc"]] or ["", ""]
    windows = facts["windows"]
    return CheckedPython(
        executable=python,
        base=Path(facts["base_executable"]),
        version=(major, minor, micro),
        implementation=_word(facts["implementation"]),
        free_threaded=bool(facts["free_threaded"]),
        debug=bool(facts["debug"]),
        soabi=_word(facts["soabi"]),
        system=_word(facts["system"]),
        machine=_machine(_word(facts["machine"])),
        bits=int(facts["bits"]),
        platform=_word(facts["platform"]),
        libc=(libc[0][:20], libc[1][:40]),
        prefix=Path(facts["prefix"]),
        base_prefix=Path(facts["base_prefix"]),
        path=tuple(dict.fromkeys(Path(str(place)) for place in facts["path"])),
        libraries=_folders(facts["library_path"]),
        pip=bool(facts["pip"]),
        windows=_windows(windows) if windows else None,
    )


def _windows(facts: dict[str, Any]) -> Windows:
    control, long_paths = facts["app_control"], facts["long_paths"]
    return Windows(
        Path(facts["system_folder"]),
        control if isinstance(control, int) else None,
        None if long_paths is None else long_paths == 1,
    )


def _driver(facts: dict[str, Any] | None, ended: Ended) -> FoundDriver:
    """A driver that makes its asker crash or wait has trouble, too."""
    try:
        if facts is None:
            raise ValueError(ended.how)
        gpus = [FoundGpu(str(one["name"])[:200], str(one["capability"])) for one in facts["gpus"]]
        known = tuple(gpu for gpu in gpus if _CAPABILITY.fullmatch(gpu.capability))
        cuda = int(facts["cuda"])
        release = (cuda // 1000, cuda % 1000 // 10) if 0 < cuda < 1_000_000 else None
        return FoundDriver(str(facts["version"])[:40], release, known, str(facts["trouble"])[:400])
    except (KeyError, TypeError, ValueError) as error:
        return FoundDriver(trouble=f"asking it failed: {str(error)[:200]}")


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError("not a word")
    return value


def _machine(name: str) -> str:
    """As binaries have it."""
    return {"AMD64": "x86_64", "ARM64": "aarch64", "arm64": "aarch64"}.get(name, name)


def _folders(path: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in path.split(os.pathsep) if part)


# -- installed packages ----------------------------------------------------------------------------


_MOST_ENTRIES = 50_000  # of one folder
_MOST_TEXT = 32 << 20  # bytes of METADATA or RECORD
_NEAR, _LIKE = 3, 0.75  # names that are told, and how like they must be (difflib)


@dataclass(frozen=True)
class Distribution:
    """One installed package: its normal name and version, by its folder's name; info: that folder;
    site: where its files lie."""

    name: str
    version: str
    info: Path
    site: Path

    @cached_property
    def metadata(self) -> bytes | None:
        """METADATA; None where it is missing, or cannot be read."""
        return read_text(self.info / "METADATA")

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The Tag lines of WHEEL."""
        try:
            return tuple(fields(read_text(self.info / "WHEEL") or b"", "Tag"))
        except FormatError:
            return ()

    @cached_property
    def files(self) -> tuple[str, ...] | None:
        """The paths in RECORD, relative to site and with slashes; None where there is no RECORD."""
        record = read_text(self.info / "RECORD")
        if record is None:
            return None
        return tuple(name for name in read_record("RECORD", record).rows if _is_plain(name))

    @cached_property
    def listed(self) -> str:
        """top_level.txt, or ''."""
        return (read_text(self.info / "top_level.txt") or b"").decode("utf-8", "replace")

    def place(self, name: str) -> Path:
        """Where a file of it lies."""
        return self.site.joinpath(*PurePosixPath(name).parts)


def _is_plain(name: str) -> bool:
    """Scripts lie above site-packages; nothing else that a RECORD names there is looked at."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and "\\" not in name and ".." not in path.parts


def read_text(path: Path, most: int = _MOST_TEXT) -> bytes | None:
    """A plain file of bounded size; None where it is none, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > most:
            return None
        with path.open("rb") as stream:
            return stream.read(most)
    except (OSError, ValueError):  # a name with a zero in it
        return None


class Packages:
    """All packages on a Python's path. unreadable: folders of it that cannot be listed, and why."""

    def __init__(self, path: Iterable[Path]) -> None:
        self.unreadable: dict[Path, str] = {}
        self._found: dict[str, list[Distribution]] = {}
        for folder in path:
            for name in self._names(folder):
                stem, dot, suffix = name.rpartition(".")
                project, dash, version = stem.rpartition("-")
                if dot and dash and suffix == "dist-info":
                    found = Distribution(
                        str(canonicalize_name(project)), version, folder / name, folder
                    )
                    self._found.setdefault(found.name, []).append(found)

    def _names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))[:_MOST_ENTRIES]
        except (FileNotFoundError, NotADirectoryError):  # python311.zip, and folders yet to come
            return []
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return []

    def __iter__(self) -> Iterator[Distribution]:
        """Each package once, the one that Python finds."""
        return (found[0] for found in self._found.values())

    def find(self, name: str) -> Distribution | None:
        copies = self.copies(name)
        return copies[0] if copies else None

    def copies(self, name: str) -> tuple[Distribution, ...]:
        """All that is installed of one name, what Python finds first coming first."""
        return tuple(self._found.get(str(canonicalize_name(name)), ()))

    def bringing(self, module: str) -> Distribution | None:
        """The package that a top-level module comes with."""
        for found in self:
            if module in found.listed.split():
                return found
        starts = (f"{module}/", f"{module}.")
        for found in self:
            if any(name.startswith(starts) for name in found.files or ()):
                return found
        return None

    def near(self, name: str) -> tuple[str, ...]:
        """Names that somebody may have meant."""
        return tuple(
            get_close_matches(str(canonicalize_name(name)), list(self._found), _NEAR, _LIKE)
        )

    def owner_of(self, library: str) -> tuple[Distribution, str] | None:
        """The package whose RECORD has a file of this name, and the file's path in it."""
        for found in self:
            for name in found.files or ():
                if name.rpartition("/")[2].lower() == library.lower():
                    return found, name
        return None


# -- torch -----------------------------------------------------------------------------------------

_MOST_VERSION = 64 << 10  # bytes of torch/version.py
_VERSION = re.compile(rb"^__version__\s*(?::[^=\n]{0,100})?=\s*['\"]([\w.+!-]{1,100})['\"]", re.M)
_CUDA = re.compile(rb"^cuda\s*(?::[^=\n]{0,100})?=\s*['\"]([0-9]{1,3}(?:\.[0-9]{1,3})?)['\"]", re.M)
# What `import torch` loads: these bring all others of its libraries.
_LOADED = ("lib/libtorch_global_deps.so", "lib/libtorch_python.so", "lib/libtorch.so")
_LOADED_ON_WINDOWS = ("lib/torch_python.dll", "lib/torch_cuda.dll", "lib/torch_cpu.dll")


@dataclass(frozen=True)
class Torch:
    """folder: the package. version: `2.11.0+cu130`; release: `2.11`. cuda: `13.0`, '' without."""

    folder: Path
    version: str
    cuda: str

    @property
    def release(self) -> str:
        return ".".join(self.version.partition("+")[0].split(".")[:2])

    @property
    def public(self) -> str:
        """`2.11.0`."""
        return self.version.partition("+")[0]

    @property
    def title(self) -> str:
        return f"torch {self.version}" + (f" (CUDA {self.cuda})" if self.cuda else " (no CUDA)")

    def meets(self, requirement: Requirement) -> bool:
        """Whether a requirement takes it; a version that says nothing is taken."""
        try:
            return not self.version or allows(requirement, self.version)
        except ValueError:
            return True

    def roots(self, windows: bool) -> tuple[Path, ...]:
        """The libraries that its import loads first."""
        names = _LOADED_ON_WINDOWS if windows else _LOADED
        found = (self.folder.joinpath(*name.split("/")) for name in names)
        modules = sorted(self.folder.glob("_C.*.pyd" if windows else "_C.*.so"))[:1]
        return tuple(path for path in (*modules, *found) if path.is_file())


def find_torch(target: CheckedPython, packages: Packages) -> Torch | None:
    """The first on the path that is a package; None where there is none."""
    for folder in target.path:
        text = read_text(folder / "torch" / "version.py", _MOST_VERSION)
        if text is None and not (folder / "torch" / "__init__.py").is_file():
            continue
        version, cuda = (pattern.search(text or b"") for pattern in (_VERSION, _CUDA))
        listed = packages.find("torch")
        return Torch(
            folder / "torch",
            version[1].decode() if version else listed.version if listed else "",
            cuda[1].decode() if cuda else "",
        )
    return None
