"""The same build under other circumstances: each `Varied` is one of them, or several together.

Some need root: another user, another host name, and libraries that are loaded into every program.
What upstream's build and compilers see of the user's variables is next to nothing, so such a
library is named by /etc/ld.so.preload, which the build alone sees, in a name space of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fatwheel.storage.cache import cache_folder

from ..helpers.shuffled import shuffling
from .conftest import ROOT, SAMPLE

OTHER_USER = 12345
# A path that is as long as few are: what is written into a fixed number of bytes would show.
LONG = "Ünïcodé-" + "x" * 80
YEARS = 3  # by which the clock is wrong

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec -= SHIFT;
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""


@dataclass(frozen=True)
class Varied:
    """What is another than usual.

    folder: of the cache and the wheels, below `parent`. prefix: a command before the build's own.
    root: the folder of fatwheel itself. owner: user id that the folders belong to.
    """

    parent: Path
    folder: str = "bench"
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    umask: int = 0o022
    root: Path = ROOT
    owner: int | None = None

    def together(self, others: Iterable[Varied]) -> Varied:
        """All of it at once; what is given twice is as the last one has it."""
        whole = self
        for other in others:
            plain = Varied(other.parent)
            whole = Varied(
                self.parent,
                other.folder if other.folder != plain.folder else whole.folder,
                (*whole.arguments, *other.arguments),
                {**whole.variables, **other.variables},
                # Who becomes another user can do nothing of the rest.
                (*other.prefix, *whole.prefix) if whole.owner else (*whole.prefix, *other.prefix),
                other.umask if other.umask != plain.umask else whole.umask,
                other.root if other.root != plain.root else whole.root,
                whole.owner if other.owner is None else other.owner,
            )
        return whole


def another_folder(parent: Path) -> Varied:
    """Of the cache, of what is temporary, of the wheels, and of fatwheel itself, where all files
    have another time."""
    copy = parent / "a copy of fatwheel"
    for name in ("fatwheel", "kernels", "toolchains", "tasks.py", SAMPLE):
        source, target = ROOT / name, copy / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copyfile(source, target)
    for path in (*(copy / "kernels").rglob("*"), *(copy / SAMPLE).rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    temporary = parent / "temporary-é"
    temporary.mkdir()
    return Varied(parent, LONG, variables={"TMPDIR": str(temporary)}, root=copy)


def another_umask(parent: Path) -> Varied:
    return Varied(parent, umask=0o077)


def another_time_zone(parent: Path) -> Varied:
    return Varied(parent, variables={"TZ": "Pacific/Chatham"})


def another_language(parent: Path) -> Varied:
    """Of those that are installed, which may be none but the usual one."""
    listing = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout
    usual = ("C", "POSIX", "C.utf8", "C.UTF-8")
    other = [name for name in listing.split() if name not in usual]
    name = other[-1] if other else "POSIX"
    return Varied(parent, variables={"LANG": name, "LC_ALL": name, "LANGUAGE": "de"})


def another_home(parent: Path) -> Varied:
    """With settings in it that upstream's build would follow, if it saw them."""
    home = parent / "home"
    home.mkdir()
    (home / ".pydistutils.cfg").write_text("[build_ext]\ndefine = SETTINGS_OF_A_USER\n")
    return Varied(parent, variables={"HOME": str(home), "USER": "somebody", "LOGNAME": "else"})


def another_hash_seed(parent: Path) -> Varied:
    return Varied(parent, variables={"PYTHONHASHSEED": "12345"})


def variables_for_compilers(parent: Path) -> Varied:
    """Options of the user's do not matter: neither compilers nor upstream's build see them."""
    named = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS")
    options = dict.fromkeys(named, "-DOPTION_OF_A_USER -g0")
    folders = {name: str(parent) for name in ("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH")}
    linker = {"LDFLAGS": f"-Wl,-rpath,{parent}", "LD_RUN_PATH": str(parent)}
    torch = {"TORCH_CUDA_ARCH_LIST": "9.0", "MAX_JOBS": "1", "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
    return Varied(parent, variables={**options, **folders, **linker, **torch})


def one_job(parent: Path) -> Varied:
    return Varied(parent, arguments=("--jobs", "1"))


def three_shards(parent: Path) -> Varied:
    return Varied(parent, arguments=("--shards", "3"))


def one_core(parent: Path) -> Varied:
    core = min(os.sched_getaffinity(0))
    return Varied(parent, prefix=("taskset", "-c", str(core)))


def another_host(parent: Path) -> Varied:
    return Varied(parent, prefix=_sh(("--uts",), "hostname somewhere.example"))


def shuffled_folders(parent: Path) -> Varied:
    """Folders are read in another order than the file system's: by every program."""
    return Varied(parent, prefix=_preloading(parent / "shuffling", shuffling("gcc", parent)))


def another_time(parent: Path) -> Varied:
    """The clock is years behind, for every program."""
    source, library = parent / "clock.c", parent / "clock.so"
    source.write_text(CLOCK)
    command = ["gcc", "-O1", "-shared", "-fPIC", f"-DSHIFT={YEARS}L*365*86400"]
    subprocess.run([*command, str(source), "-o", str(library), "-ldl"], check=True)
    return Varied(parent, prefix=_preloading(parent / "clock", library))


def another_user(parent: Path) -> Varied:
    """A user who may read what the build needs, and has a cache of its own."""
    needed = [ROOT, Path(sys.prefix), Path(sys.base_prefix), cache_folder(), parent]
    closed = sorted({
        folder
        for path in needed
        for folder in (path, *path.parents)
        if not folder.stat().st_mode & 0o001
    })  # fmt: skip
    opened = parent / "opened"
    opened.mkdir()
    opened.chmod(0o755)
    mounts = [_over(opened, folder) for folder in closed]
    become = ("setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups")
    prefix = (*_sh(("--mount",), *mounts), *become) if mounts else become
    return Varied(parent, prefix=prefix, variables={"HOME": "/nonexistent"}, owner=OTHER_USER)


def hostile_neighbour(parent: Path, first: bool) -> Varied:
    """In an own /tmp, another user works against the build: see `neighbour`.

    first: whether it had /tmp/fatwheel before. What it finds out is in `report_of`.
    """
    report = report_of(parent)
    report.parent.mkdir()
    os.chown(report.parent, OTHER_USER, OTHER_USER)
    origin = parent / "origin"
    shutil.copytree(ROOT / SAMPLE / "src", origin)
    script = parent / "neighbour.py"
    shutil.copyfile(Path(__file__).with_name("neighbour.py"), script)
    private = parent / "tmp"
    private.mkdir()
    kept = _needed_below(Path("/tmp"), parent)
    attack = shlex.join([
        "setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups",
        "--pdeathsig=KILL", "/usr/bin/python3", str(script), str(origin), str(report),
        str(parent / "bench"), "first" if first else "later", *map(str, kept),
    ])  # fmt: skip
    prefix = _sh(
        ("--mount",),
        f"mount -t tmpfs -o mode=1777 tmpfs {private}",
        *(line for path in kept for line in _kept(path, private)),
        f"mount --rbind {private} /tmp",
        "mkdir -m 755 /tmp/fatwheel" if not first else "true",
        f"{{ {attack} & }}",
        "sleep 2",
    )
    return Varied(parent, prefix=prefix)


def _needed_below(folder: Path, parent: Path) -> list[Path]:
    """What a build of this checkout into `parent` reads and writes that lies below a folder."""
    needed = (parent, ROOT, Path(sys.prefix), cache_folder())
    inside = {path.resolve() for path in needed if path.resolve().is_relative_to(folder)}
    return sorted(path for path in inside if not inside.intersection(path.parents))


def _kept(path: Path, private: Path) -> tuple[str, str]:
    """Show a folder of /tmp at the same place below the folder that will be /tmp."""
    target = shlex.quote(str(private / path.relative_to("/tmp")))
    return f"mkdir -p {target}", f"mount --bind {shlex.quote(str(path))} {target}"


def report_of(parent: Path) -> Path:
    return parent / "neighbour" / "report.json"


def folder_for_all() -> Path:
    """A folder that every user can find, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="fatwheel-test-"))
    folder.chmod(0o755)
    return folder


def _preloading(folder: Path, library: Path) -> tuple[str, ...]:
    folder.mkdir()
    # With those that are loaded where this is done already: another variation's.
    lines = f"(cat /etc/ld.so.preload; echo {shlex.quote(str(library))}) 2>/dev/null"
    add = f"{lines} > {shlex.quote(str(folder / 'ld.so.preload'))}"
    return _sh(("--mount",), add, _over(folder, Path("/etc")))


def _over(upper: Path, folder: Path) -> str:
    """Show what is in `upper`, and its mode, at `folder`, over what is there."""
    target = shlex.quote(str(folder))
    layers = shlex.quote(f"lowerdir={upper}:{folder}")
    return f"mount -t overlay overlay -o {layers} {target}"


def _sh(spaces: tuple[str, ...], *commands: str) -> tuple[str, ...]:
    """A prefix that does something in name spaces of its own before the command."""
    script = " && ".join([*commands, 'exec "$@"'])
    return ("unshare", *spaces, "sh", "-c", script, "sh")
