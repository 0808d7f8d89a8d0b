"""Windows programs on Linux, by Wine.

Builds share one Windows of fatwheel's own, one after the other: nothing of the user's own Wine is
read or changed, and nothing runs there when the build has ended.

    <cache>/wine/<version>/windows     its Windows
    <cache>/wine/<version>/files       what it had when it was made, a path a line
    <cache>/wine/<version>/registry    as it was then; written last

Each build finds the registry as it was, since variables that a build before left there would be
those of its compilers, and no file that came later.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import psutil

from ..errors import EngineError
from ..events import Emit, Note
from ..machine import counter_of_kills
from ..model import Environment
from ..provision.msvc import inside
from ..shipped import PACKAGE
from ..storage import files
from ..storage.cache import VARIABLE, remove_tree
from ..worker.processes import KILLS_VARIABLE
from ..worker.programs import write_exe
from ..worker.roots import SHORT_ROOT
from .programs import Places

LEAST = (8, 0)  # the oldest Wine that CUDA's programs were tried with
_HINT = "install Wine 8 or newer: apt install wine (Debian, Ubuntu), dnf install wine (Fedora)"
_PATIENCE = 300  # seconds for a new Windows; 5 on an idle machine
# A first start writes menus and file types into the user's home, and asks for .NET and a browser
# in a window; none of them is wanted.
_OVERRIDES = "winemenubuilder.exe=d;mscoree=;mshtml="


def obstacle() -> str:
    """Why there is no Wine here, as the end of a sentence, or ''. Starts nothing."""
    if shutil.which("wine") and shutil.which("wineserver"):
        return ""
    return "is for Windows, and there is no Wine here to run its programs (apt install wine)"


@dataclass(frozen=True)
class _Installed:
    """A Wine of this machine, and the folder of its Windows. counted: None, or where a worker of a
    cluster counts what it has killed for memory."""

    wine: str
    server: str
    home: Path
    counted: Path | None

    @property
    def prefix(self) -> Path:
        return self.home / "windows"

    @property
    def registry(self) -> Path:
        return self.home / "registry"

    @property
    def files(self) -> Path:
        return self.home / "files"

    @property
    def kills(self) -> Path:
        """A link: names of control groups may have backslashes, which Windows' programs read as
        slashes."""
        return self.home / "kills"

    def real(self, path: PureWindowsPath) -> Path:
        """A path of its drive C:, or of Z:, as this machine knows it: whatever letters are capital
        there."""
        top = Path("/") if path.drive.upper() == "Z:" else self.prefix / "drive_c"
        return inside(top, *path.parts[1:])

    @property
    def _persistent(self) -> str:
        """How a server is told to wait for programs. Nobody comes back to that of a worker that was
        killed, so it ends by itself, after 10 minutes without any."""
        return "--persistent=600" if self.counted else "--persistent"

    @property
    def variables(self) -> dict[str, str]:
        """All that its programs see of this machine."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": _OVERRIDES,
            KILLS_VARIABLE: ";".join(f"Z:{file}" for file in (self.kills, self.counted) if file),
        }

    def call(self, *command: str) -> None:
        """Raises EngineError where that fails. Its services keep the streams of who starts them."""
        try:
            subprocess.run(
                command, env=self.variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=True, start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(
                "Wine does not work here",
                where=" ".join(command),
                details=[str(error)],
                hint=f"try it: WINEPREFIX={self.prefix} wine cmd /c ver",
            ) from error

    def begin(self) -> None:
        """Start its Windows, which is made where it is not there. Raises OSError, too."""
        if not (self.registry.exists() and self.files.exists()):
            self._make()
        self._sweep()
        for file in self.registry.iterdir():
            (self.prefix / file.name).unlink(missing_ok=True)
            shutil.copyfile(file, self.prefix / file.name)
        self.kills.unlink(missing_ok=True)
        self.kills.symlink_to(counter_of_kills())
        self.call(self.server, self._persistent)
        self.call(self.wine, "wineboot")

    def _make(self) -> None:
        remove_tree(self.prefix)
        self.prefix.mkdir(parents=True)
        self.call(self.server, self._persistent)
        self.call(self.wine, "wineboot", "--init")
        key = r"HKEY_CURRENT_USER\Software\Wine"
        self.call(self.wine, "reg", "add", key, "/v", "Version", "/d", "win10", "/f")
        self.end()  # which writes the registry
        found = sorted(_below(self.prefix))
        self.files.write_text("\n".join(found), encoding="utf-8", errors="surrogateescape")
        part = self.registry.with_suffix(".part")
        remove_tree(part)
        part.mkdir()
        for file in self.prefix.glob("*.reg"):
            shutil.copyfile(file, part / file.name)
        part.rename(self.registry)

    def _sweep(self) -> None:
        """Delete what builds have left, here where no link is followed: Wine's programs take links
        for folders. Wine's own temporary files go, too."""
        text = self.files.read_text(encoding="utf-8", errors="surrogateescape")
        known = frozenset(text.split("\n"))
        for path in list(_below(self.prefix, known)):
            if path not in known:
                if path.endswith("/"):
                    remove_tree(self.prefix / path)
                else:
                    (self.prefix / path).unlink(missing_ok=True)

    def end(self) -> None:
        with suppress(EngineError):
            self.call(self.server, "--kill")
        with suppress(EngineError):
            self.call(self.server, "--wait")


def _below(folder: Path, known: Container[str] | None = None) -> Iterator[str]:
    """What is in a folder, by its path there; those of folders end with a slash. known: do not look
    into others than these."""
    waiting = [""]
    while waiting:
        place = waiting.pop()
        with os.scandir(folder / place) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                path = f"{place}{entry.name}/" if is_folder else f"{place}{entry.name}"
                if is_folder and (known is None or path in known):
                    waiting.append(path)
                yield path


@contextmanager
def held(name: str, place: Path, emit: Emit, counted: Path | None = None) -> Iterator[Wine]:
    """Wine's Windows, for one build. Raises EngineError where there is none that works.

    place: a folder in which it is kept: the cache, or one of a build's own on a worker of a
    cluster, with the file in which that counts what it has killed.
    """
    wine, version = _found()
    home = place / "wine" / version
    installed = _Installed(wine, str(shutil.which("wineserver")), home, counted)
    note = Note("another build uses Wine: waiting for it")
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(home / "lock", waiting=lambda: emit(note)))
            installed.end()  # what a killed build left running
            stack.callback(installed.end)
            installed.begin()
        except OSError as error:
            raise files.disk_error(error, "use Wine", home, f"{VARIABLE}=FOLDER") from error
        yield Wine(installed, PureWindowsPath(SHORT_ROOT, name))


def _found() -> tuple[str, str]:
    """The program, and the version that it says."""
    wine = shutil.which("wine")
    if wine is None or shutil.which("wineserver") is None:
        raise EngineError("there is no Wine on this machine", hint=_HINT)
    try:
        said = subprocess.run(
            [wine, "--version"], capture_output=True, text=True, errors="replace", timeout=60,
            stdin=subprocess.DEVNULL, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError("Wine does not work here", where=wine, details=[str(error)]) from error
    version = re.match(r"wine-((\d+)\.(\d+)\S*)", said)
    if version is None or (int(version[2]), int(version[3])) < LEAST:
        raise EngineError(
            f"this Wine is too old: {said.strip() or 'it does not say its version'}",
            where=wine,
            hint=_HINT,
        )
    return wine, version[1]


@dataclass(frozen=True)
class Wine:
    """See `programs.System`."""

    installed: _Installed
    place: PureWindowsPath

    def path(self, path: Path) -> str:
        return "Z:" + str(path).replace("/", "\\")

    def real(self, path: PureWindowsPath) -> Path:
        return self.installed.real(path)

    def show(self, folder: Path, name: str) -> str:
        shown = self.real(self.place / name)
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.unlink(missing_ok=True)
        shown.symlink_to(folder)
        return str(self.place / name)

    def start(self, command: Sequence[str], memory: int) -> Started:
        process = subprocess.Popen(
            [self.installed.wine, *command], env=self.installed.variables, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return Started(process)


@dataclass(frozen=True)
class Started:
    """A program in Wine; what it starts is of its session, but no child of its own."""

    process: subprocess.Popen[bytes]

    def memory(self) -> int:
        total = 0
        for one in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getsid(one.pid) == self.process.pid:
                    total += one.memory_info().rss
        return total

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        pass


# -- a CUDA home in which the machine's own compilers make the device code -------------------------

# It is the toolchain's own, by links, but for two programs: in the place of cicc.exe and ptxas.exe
# are stand-ins (`worker.linuxdevice`).

_PLACES = {"cicc": Path("nvvm", "bin"), "ptxas": Path("bin")}
_COMPARED = "compared"  # a folder that says which programs were


def make_cuda_home(
    home: Path, real: Environment, programs: Mapping[str, Path], python: str, system: Places
) -> None:
    """Make one in a new folder. programs: cicc and ptxas for Linux. python: that of Windows, as it
    is seen there, which runs the stand-ins. Raises ToolchainError, OSError."""
    remove_tree(home)
    _link_below(home, real.cuda_home, {place.parts for place in _PLACES.values()})
    state = home / _COMPARED
    state.mkdir()
    code = (
        f"sys.path.insert(0, {system.path(PACKAGE.parent)!r}); "
        "from fatwheel.worker.linuxdevice import main; sys.exit(main(*sys.argv[1:]))"
    )
    for name, place in _PLACES.items():
        exe = home / place / f"{name}.exe"
        exe.unlink()
        windows = system.path(real.cuda_home / place / exe.name)
        told = (name, windows, str(programs[name]), system.path(state))
        write_exe(exe.parent, name, python, real.site, code, *told)


def _link_below(folder: Path, target: Path, opened: set[tuple[str, ...]]) -> None:
    """Make a folder whose entries are links to those of another; `opened`: which of its folders
    are made likewise, by the names on the way to them."""
    folder.mkdir(parents=True)
    for entry in target.iterdir():
        inner = {names[1:] for names in opened if names[:1] == (entry.name,)}
        if inner and entry.is_dir():
            _link_below(folder / entry.name, entry, inner)
        else:
            (folder / entry.name).symlink_to(entry)
