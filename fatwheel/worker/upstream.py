"""Runs the upstream build with stand-ins for nvcc and g++: first to capture, then to assemble.

The project's own back end runs unpatched in the environment's Python. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..compilers.hosts import family_of
from ..compilers.nvcc import is_relocatable, read_device_link
from ..errors import StoreError, ToolchainError, UpstreamError
from ..model import Environment, Front, Unit
from . import backend as backend_script
from . import bypass
from .archs import arch_variables, filled, other_fronts, planned
from .assemble import SliceDigests
from .context import Context, fingerprint, unit_from_wire
from .linking import strip_search_paths
from .processes import bare_variables, real_compilers_variables, run_group, upstreams_variables
from .programs import said_to_be_lost, write_program, write_programs
from .roots import job_variables, programs_of, remove_tree
from .shim import SETTINGS, mapped, settings_text, shown
from .view import Marks

_TRIES = 3  # of a build in which Windows, or Wine, started no stand-in
_UNITS_SHOWN = 10
_PINNED_ALONE = ("cmake", "ninja")
_NOT_PINNED = (
    "{0}: not among the pinned packages of this build, and that of the machine is not used"
)
# CMake's own words, and those of scikit-build-core.
_OLD_CMAKE = re.compile(r"CMake (\d[\d.]*\d) or higher is required|CMake with version >=(\d[\d.]*)")
_NO_LIBRARY = re.compile(r"cannot find -l((?:cu|nv)\w+)", re.ASCII)  # of CUDA
_LINKED = "linked"  # the folder with what was linked, and its digests
_TAIL = 40  # lines of upstream's output that an error shows


@dataclass(frozen=True)
class Project:
    """An unpacked source tree that upstream's build may write into.

    root is the folder inside the source from where it is built, `subdirectory` of it as recipes
    have it. backend and backend_paths are those of pyproject.toml's [build-system] (PEP 517).
    variables: the recipe's [environment]. epoch: seconds, for SOURCE_DATE_EPOCH.
    stub_commands: programs that the build calls without need; it finds ones that do nothing.
    requirements: a folder of the source with packages that the build needs, modules in its `site`
    and programs in its `bin`; or ''.
    rules: the recipe's [[unit]] tables (see `archs.Rules`). settings: its [config_settings].
    pretend: '' or the compute capability of the GPU that torch shall seem to have, `8.9`.
    flags: options that compilers get behind those of the project, by the tool: `nvcc`, `g++`, `cl`.
    front_units: those that the build's fronts are for (see `archs.planned`).
    """

    root: Path
    backend: str
    backend_paths: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    epoch: int
    stub_commands: tuple[str, ...] = ()
    subdirectory: str = ""
    requirements: str = ""
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    pretend: str = ""
    flags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    front_units: tuple[str, ...] = ()

    @property
    def top(self) -> Path:
        """The folder of the whole source."""
        depth = len(PurePosixPath(self.subdirectory).parts)
        return self.root.parents[depth - 1] if depth else self.root

    def at(self, root: Path) -> Project:
        """The same project in another place."""
        return replace(self, root=root)


@dataclass(frozen=True)
class Captured:
    """The units of a build, by name, and what the user must know of what else it compiles.

    links: the commands that link, without this machine's folders. wheel: what the project's build
    called its wheel.
    """

    units: tuple[Unit, ...]
    notes: tuple[str, ...]
    links: tuple[tuple[str, ...], ...]
    wheel: str


class Upstream:
    """One project's build in one environment, in a work folder that is the build's own.

    Every run starts from the project as it was at first: stale objects can lie anywhere in it.
    """

    def __init__(
        self, project: Project, environment: Environment, cxx: str, work: Path, python: str
    ) -> None:
        """cxx: the host compiler; python: the interpreter that runs the stand-ins."""
        self.project = project
        self.environment = environment
        self.cxx = cxx
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self._pristine = work / "pristine"
        _copy_tree(project.top, self._pristine)
        self._python = python
        self._standins = write_programs(
            work / "shims", python, environment.cuda_home, environment.site, cxx
        )

    @property
    def marks(self) -> Marks:
        """The folders that captured commands must not name."""
        folders = (
            (self.project.top, "src"),
            (self._standins.cuda_home, "cuda"),
            (self.environment.cuda_home, "cuda"),
            (self.environment.site, "site"),
            (self.environment.root, "env"),
            (self.environment.include, "python"),
        )
        found: dict[str, str] = {}
        for folder, name in folders:
            found.setdefault(str(folder), name)
            found.setdefault(os.path.realpath(folder), name)
        return tuple(found.items())

    @property
    def _names(self) -> dict[str, Any]:
        """What of the stand-ins' settings says how folders are called."""
        return {"marks": self.marks, "name": self.project.top.name}

    def log(self, mode: str) -> Path:
        """What upstream's build printed when it ran last; mode: 'capture' or 'assemble'."""
        return self.work / f"{mode}.log"

    def _log_of_clang(self, mode: str) -> Path:
        return self.work / f"{mode}-clang.log"

    def _libraries(self) -> list[str]:
        """Where the Python's own library lies, if that is not a folder of the system."""
        prefix = Path(os.path.realpath(self.environment.include)).parent.parent
        return [] if prefix == Path("/usr") else [str(prefix / "lib"), str(prefix / "lib64")]

    def capture(self, fronts: Sequence[Front]) -> Captured:
        """What a build for these fronts compiles, each unit with the images that it is for.

        Raises UpstreamError where it fails, or compiles nothing for one of the architectures.
        """
        names = ("records", "made", "told", "links")
        records, made, told, links = (self.work / name for name in names)
        for folder in (records, made, told, links):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        log, empty = self._log_of_clang("capture"), self._empty_object()
        bypass.note_made(str(made), [str(empty)])
        wheel = self._run(
            "capture", fronts,
            {
                "records": str(records), "made": str(made), "told": str(told), "links": str(links),
                "work": [str(self.project.top), str(self.work)],
                "empty_object": str(empty), "empty_library": str(self._empty_library(empty)),
                "log_of_clang": str(log),
            },
        )  # fmt: skip
        found = [json.loads(path.read_text()) for path in sorted(records.iterdir())]
        units = tuple(
            sorted((unit_from_wire(record["unit"]) for record in found), key=lambda u: u.name)
        )
        self._check_supported(found)
        for command in bypass.clangs_commands(log):
            bypass.tell(str(told), {"command": [shown(word, self._names) for word in command]})
        self._check_compiled(units, told)
        notes = (*bypass.told(told), *self._ignored_settings(wheel.parent))
        return Captured(
            planned(units, self.project.rules, fronts, self.project.front_units), notes,
            bypass.linked(links), wheel.name,
        )  # fmt: skip

    def _check_supported(self, records: Iterable[Mapping[str, Any]]) -> None:
        unsupported = [
            f"{record['unit']['name']}: {record['unsupported']}"
            for record in records
            if record["unsupported"]
        ]
        if unsupported:
            raise UpstreamError(
                "the project compiles device code in a way that is not supported",
                where=self.project.top.name,
                details=sorted(unsupported),
                hint="not supported are link-time optimisation (-dlto), -ewp, and, for Windows, "
                "separate compilation (-rdc=true). Can the project be built without?",
            )

    def _check_compiled(self, units: Sequence[Unit], told: Path) -> None:
        """Refuse a build whose device code nobody here compiles, or links."""
        if not any(unit.kind == "cuda" for unit in units):
            past = bypass.told(told)
            raise UpstreamError(
                "this project's build compiles no CUDA unit",
                where=self.project.top.name,
                details=past,
                hint="the project must use CUDA_HOME, CXX and CC: docs/recipes.md"
                if past
                else "its setup.py may need an environment variable to build CUDA code: set it "
                "under [environment] in the recipe, for example FORCE_CUDA",
            )
        links = [
            " ".join(words)
            for words in bypass.commands_told(told)
            if os.path.basename(words[0]) == "nvcc" and read_device_link(words[1:], "/")
        ]
        if links and any(is_relocatable(unit.codegen) for unit in units):
            raise UpstreamError(
                "this project links its device code with an nvcc that went past fatwheel, for the "
                "project's own architectures",
                where=self.project.top.name,
                details=links,
                hint="the project must call nvcc by its name, or as CUDA_HOME/bin/nvcc: is it told "
                "of another one, by CMAKE_CUDA_COMPILER or CUDACXX?",
            )

    def assemble(self, context: Context, fronts: Sequence[Front], units: Iterable[Unit]) -> Path:
        """The wheel that upstream's build makes when every compile is answered from the store.

        units: those that were captured."""
        units = tuple(units)
        limited = {fingerprint(unit): asdict(unit) for unit in units if unit.images is not None}
        answered, linked = self.work / "answered", self.work / _LINKED
        for folder in (answered, linked):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        wire = {
            "context": context.to_wire(),
            "limited": limited,
            "answered": str(answered),
            "linked": str(linked),
        }
        wheel = self._run("assemble", fronts, wire)
        self._check_answered(units, answered)
        strip_search_paths(wheel, [*(folder for folder, _ in self.marks), str(self.work)])
        return wheel

    def linked(self) -> SliceDigests:
        """What device code the last `assemble` has linked, as `assemble.slice_digests` tells of
        units: the name of each object, without suffix, and its images, which are in no other."""
        links: SliceDigests = []
        for path in sorted((self.work / _LINKED).glob("*.json")):
            with suppress(OSError, ValueError):  # the project's own build may write there, too
                match json.loads(path.read_text(encoding="utf-8")):
                    case {"name": str(name), "slices": dict(slices)}:
                        links.append({"name": name, "slices": {**slices}})
        return sorted(links, key=lambda one: (one["name"], sorted(one["slices"])))

    def _check_answered(self, units: Iterable[Unit], answered: Path) -> None:
        """Refuse a wheel of objects that are empty since the capture."""
        left = [unit.name for unit in units if not (answered / fingerprint(unit)).exists()]
        if left:
            raise UpstreamError(
                "the project's build did not compile everything again for the wheel",
                where=self.project.top.name,
                details=[*left[:_UNITS_SHOWN], *([f"and {len(left) - _UNITS_SHOWN} more"]
                                                 if len(left) > _UNITS_SHOWN else [])],
                hint="it must not keep a build folder outside of the project: is there a variable "
                "such as SKBUILD_BUILD_DIR?",
            )  # fmt: skip

    def _run(self, mode: str, fronts: Sequence[Front], settings: Mapping[str, Any]) -> Path:
        for _ in range(_TRIES):
            returncode, out, said = self._run_once(mode, fronts, settings)
            lost = said_to_be_lost(said)
            if not lost:
                break
        name = out / "name"
        if lost or returncode != 0 or not name.is_file():
            lines = _telling_lines(said)
            raise UpstreamError(
                "Windows did not start a stand-in for a compiler"
                if lost
                else f"the project's own build {_ending(returncode)}",
                where=f"{self.project.top.name}, {mode}",
                details=lines or ["it printed nothing"],
                hint=_hint(lines),
            )
        return out / name.read_text()

    def _run_once(
        self, mode: str, fronts: Sequence[Front], settings: Mapping[str, Any]
    ) -> tuple[int, Path, str]:
        """How the back end ended, the folder for its wheel, and what was printed."""
        settings_file = self.work / f"{mode}.json"
        objects = self.work / "objects"
        shutil.rmtree(objects, ignore_errors=True)
        objects.mkdir()
        settings_file.write_text(
            settings_text(
                mode=mode, fronts=fronts,
                gencodes=[
                    front.gencode for front in other_fronts(fronts, self.project.front_units)
                ],
                root=self.project.root, top=self.project.top, marks=self.marks,
                libraries=self._libraries(), nvcc=self._standins.nvcc, cxx=self.cxx,
                variables=real_compilers_variables(), standins=self._standins.compilers,
                objects=objects, includes=self._headers(),
                flags=self.project.flags, **settings,
            )
        )  # fmt: skip
        # What an earlier run built must not be taken for up to date.
        remove_tree(self.project.top)
        _copy_tree(self._pristine, self.project.top)
        out = self.work / f"{mode}-wheel"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        log = self.log(mode)
        self._log_of_clang(mode).unlink(missing_ok=True)
        command = [
            str(self.environment.python), "-s", backend_script.__file__, str(self.project.root),
            self.project.backend, os.pathsep.join(self.project.backend_paths), str(out),
            json.dumps({"settings": self._filled(self.project.settings, fronts),
                        "pretend": self.project.pretend}),
        ]  # fmt: skip
        returncode = run_group(command, self._variables(mode, fronts, settings_file), log)
        return returncode, out, log.read_text(errors="replace")

    def _variables(self, mode: str, fronts: Sequence[Front], settings_file: Path) -> dict[str, str]:
        standins = self._standins
        own = [self._stubs(), standins.compilers, standins.cuda_home / "bin"]
        site = os.pathsep.join(map(str, self._required("site")))
        return {
            **upstreams_variables(
                [*own, *self._required("bin"), *programs_of(self.environment)], standins
            ),
            **bypass.clang_variables(self._log_of_clang(mode), mapped(self._names)),
            **self._driver_library(),
            "HOME": str(self._empty_home()),
            "CUDA_HOME": str(standins.cuda_home),
            "CUDA_PATH": str(standins.cuda_home),
            # The options that torch and CMake make of it are dropped; what else it decides is not.
            **arch_variables(fronts, self.environment.site),
            "MAX_JOBS": str(os.cpu_count() or 1),
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SOURCE_DATE_EPOCH": str(self.project.epoch),
            SETTINGS: str(settings_file),
            **dict.fromkeys(["PYTHONPATH"] if self.project.requirements else [], site),
            **self._filled(self.project.variables, fronts),
        }

    def _filled(self, values: Iterable[tuple[str, str]], fronts: Sequence[Front]) -> dict[str, str]:
        """Values of the recipe, with what their placeholders stand for."""
        return filled(values, fronts, self.environment.site, self._standins.cuda_home)

    def _required(self, name: str) -> list[Path]:
        """A folder of the packages that the project's build needs, if it has some."""
        packages = self.project.requirements
        return [self.project.top / packages / name] if packages else []

    def _headers(self) -> list[Path]:
        """Where NVIDIA's packages among them have headers: those of CUDA that a toolchain lacks."""
        folders = (site.glob("nvidia/*/include") for site in self._required("site"))
        return sorted(folder for found in folders for folder in found)

    def _driver_library(self) -> dict[str, str]:
        """Lets gcc find the driver's library (-lcuda), of which CUDA has a stub: what was linked
        with that finds the user's own."""
        homes = (self.environment.cuda_home / name / "stubs" for name in ("lib64", "lib"))
        found = [str(home) for home in homes if home.is_dir()]
        return {"LIBRARY_PATH": os.pathsep.join(found)} if found else {}

    def _ignored_settings(self, out: Path) -> Iterator[str]:
        """What the user must know of settings that the back end did not ask for. The project's
        build may have written that file, too."""
        names = [name for name, _ in self.project.settings]
        with suppress(OSError, ValueError, TypeError):
            said = json.loads((out / "ignored").read_text(encoding="utf-8"))
            names = [name for name in names if name in said]
            if names:
                yield (
                    f"the project's back end, {self.project.backend}, does not know these "
                    f"[config_settings] of the recipe: {', '.join(names)}"
                )

    def _empty_home(self) -> Path:
        """A home without settings: setuptools and others read some there; and without what an
        earlier run left, such as a cache of empty objects (ccache)."""
        folder = self.work / "home"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _stubs(self) -> Path:
        folder = self.work / "stubs"
        folder.mkdir(exist_ok=True)
        for name in self.project.stub_commands:
            write_program(folder, name, self._python, self.environment.site, "pass")
        # Those of this machine would decide what is built, and no lock names them.
        places = (*self._required("bin"), *programs_of(self.environment))
        programs = [str(place) for place in places]
        for name in _PINNED_ALONE:
            if not shutil.which(name, path=os.pathsep.join([str(folder), *programs])):
                code = f"import sys; sys.exit({_NOT_PINNED.format(name)!r})"
                write_program(folder, name, self._python, self.environment.site, code)
        return folder

    def _empty_object(self) -> Path:
        """An object without content, so that upstream's link step succeeds while capturing."""
        path = self.work / "empty.o"
        source = self.work / "empty.cpp"
        source.write_text("")
        family = family_of(self.cxx)
        self._try_out(
            [*family.compile(self.cxx, (), str(source)), *family.output(str(path))],
            "the C++ compiler cannot compile even an empty file",
            hint="use another one: CXX=/path/to/g++",
        )
        return path

    def _empty_library(self, empty_object: Path) -> Path:
        """A library of such an object, where the linker must be answered too."""
        path = self.work / "empty.dll"
        command = family_of(self.cxx).empty_library(self.cxx, str(empty_object), str(path))
        if command:
            self._try_out(
                command,
                "the linker cannot make even an empty library",
                hint="the toolchain's compiler and linker may not belong together",
            )
        return path

    def _try_out(self, command: Sequence[str], failure: str, hint: str) -> None:
        """Run a command of the compiler's own. It sees none of the user's variables: compilers see
        none later on either. Raises ToolchainError where it fails."""
        done = subprocess.run(
            command, cwd=self.work, env={**bare_variables(), **job_variables(self.work)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stdout + done.stderr).splitlines()[-_TAIL:]
            raise ToolchainError(failure, where=command[0], details=said, hint=hint)


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"failed (exit code {returncode})" if returncode else "ended without making a wheel"


def _hint(lines: Sequence[str]) -> str | None:
    """What to do about a build that failed with these lines."""
    if found := _OLD_CMAKE.search("\n".join(lines)):
        return (
            "its CMake is one of the pinned packages of this build: list a newer one in the recipe,"
            f' requires = ["cmake>={found[1] or found[2]}"], and pin it: `invoke lock --kernel`'
        )
    if found := _NO_LIBRARY.search("\n".join(lines)):
        return (
            f"does CUDA have lib{found[1]}.so? The project does not say where, so set under "
            '[environment] in the recipe: LIBRARY_PATH = "{cuda_home}/lib64"'
        )
    return "above are the last lines of its output, without Python's tracebacks" if lines else None


def _copy_tree(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, symlinks=True)
    except shutil.Error as error:
        # One entry for each file that could not be copied: (source, target, why).
        raise StoreError(
            f"the project's sources cannot be copied: {error.args[0][0][2]}",
            where=str(target),
            hint="free some space, or use another folder: FATWHEEL_CACHE=/big/disk",
        ) from error


def _telling_lines(log: str) -> list[str]:
    """The end of a log without Python's tracebacks, which hide what a compiler said."""
    lines: list[str] = []
    in_frame = False
    for line in log.splitlines():
        if re.match(r'\s*File "', line):
            in_frame = True
        elif line.strip() == "Traceback (most recent call last):":
            in_frame = False
        elif not (in_frame and line.startswith("    ")):
            in_frame = False
            lines.append(line)
    return lines[-_TAIL:]
