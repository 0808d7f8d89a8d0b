"""Makes a toolchain's environment: a virtual environment with torch, and a CUDA compiler.

    <cache>/downloads/              files on their way, deleted once unpacked (see `fetch`)
    <cache>/packages/<sha256>/      wheels, unpacked (see `unpack`)
    <cache>/cuda/<digest>/          CUDA, where it comes as archives (see `homes`)
    <cache>/envs/<digest>/          environments, mostly hard links into packages
    <cache>/*/lock                  held while anything of this is made (see `unpack.alone`)

An environment is made under another name and renamed when it has passed its checks, so a folder
of the final name is complete. The digest in the name covers the pinned packages, the interpreter
and CUDA's archives. Everything here may be deleted at any time; it is made again when it is needed.
"""

from __future__ import annotations

import platform
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import platform_tags
from packaging.utils import parse_wheel_filename

from ..config.parts import Parts
from ..config.pinned import Package
from ..config.toolchain import Toolchain, TorchBuild
from ..errors import ToolchainError
from ..events import Emit
from ..machine import this_platform
from ..model import Environment
from ..provision.archives import mend_home, mend_packages
from ..provision.tools import HostCompiler, check_nvcc, check_torch, find_host_compiler, run
from ..shipped import toolchain_folders
from .fetch import check_locked
from .homes import CachedFolder, MergedCuda
from .interpreters import Interpreter, build_of, compiler_id, find_interpreter, pins
from .unpack import (
    InstallScheme,
    alone,
    check_space,
    link_packages,
    missing,
    needed_for,
    unpack_missing,
)

MARKER = "fatwheel-environment.json"  # written last; says what is in the environment

# Each build imports these, twice, and keeps nothing compiled. (torch itself is compiled when it is
# checked.)
_IMPORTED_BY_BUILDS = ("setuptools", "torch/utils")
_COMPILE = (
    "import compileall, sys\nfor folder in sys.argv[1:]: compileall.compile_dir(folder, quiet=2)"
)
_LAYOUT = 1  # of what this module makes; a new number makes every environment anew


def ensure_environment(
    toolchain: Toolchain, python: str, torch: str, cache: Path, emit: Emit
) -> Environment:
    """The environment for one Python (`3.11`) and one torch (`2.11.0`), made if need be.

    Processes that want one at the same time wait for each other. Emits Progress over bytes
    while it downloads, unpacks and installs.

    Raises UsageError for a Python or torch that the toolchain does not serve, ToolchainError
    where the machine lacks something or the result does not work, StoreError (no space), and
    what `fetch` raises.
    """
    build = build_of(toolchain, python, torch)
    _check_platform(toolchain, build)
    plan = _Plan(toolchain, build, cache, find_interpreter(python))
    if plan.is_made():
        return plan.environment(plan.root)
    with alone(cache, emit):
        if not plan.is_made():
            _make(plan, emit)
    return plan.environment(plan.root)


def _check_platform(toolchain: Toolchain, build: TorchBuild) -> None:
    here = this_platform()
    if here != toolchain.platform:
        raise ToolchainError(
            f"toolchain {toolchain.name} is for {toolchain.platform}, and this machine is {here}"
        )
    supported = {*platform_tags(), "any"}
    for package in (*toolchain.packages, *build.packages):
        tags = {tag.platform for tag in parse_wheel_filename(package.filename)[3]}
        if not tags & supported:
            library = " ".join(platform.libc_ver()).strip() or "a C library other than glibc"
            raise ToolchainError(
                f"{package.name} {package.version} does not run here: this system has {library}",
                where=f"toolchain {toolchain.name}",
                hint=f"its wheel needs {' or '.join(sorted(tags))}: build on a newer system",
            )


@dataclass(frozen=True)
class Ingredients(CachedFolder):
    """What an environment is made of, and where it lies."""

    toolchain: Toolchain
    build: TorchBuild
    cache: Path

    kind, digits, marker = "envs", 16, MARKER

    @property
    def packages(self) -> tuple[Package, ...]:
        """All packages but pip, which only images need."""
        found = (*self.toolchain.packages, *self.build.packages)
        return tuple(package for package in found if package.role != "installer")

    @property
    def cuda(self) -> MergedCuda | None:
        """CUDA, where it is not among the packages."""
        archives = self.toolchain.cuda_files
        return MergedCuda(archives, self.toolchain.nvcc, self.cache) if archives else None

    @abstractmethod
    def environment(self, root: Path) -> Environment:
        """The environment in `root`: the final one, or a copy being made."""

    def is_installed(self) -> bool:
        """Whether the final environment is there and looks sound, whatever its CUDA home is."""
        made = self.environment(self.root)
        nvcc = made.cuda_home / "bin" / f"nvcc{made.python.suffix}"
        there = made.python.exists() and (self.cuda is not None or nvcc.exists())
        return there and self.is_described()

    def cuda_home(self, site: Path) -> Path:
        """The CUDA home, which is in site-packages where CUDA comes as packages."""
        packaged = site / "nvidia" / f"cu{self.toolchain.cuda.partition('.')[0]}"
        return self.cuda.root if self.cuda else packaged


@dataclass(frozen=True)
class _Plan(Ingredients):
    """An environment of this machine's Python."""

    interpreter: Interpreter

    @property
    def description(self) -> dict[str, object]:
        return {
            "layout": _LAYOUT,
            "packages": pins(self.packages),
            "python": self.interpreter.version,
            "interpreter": str(self.interpreter.executable),
            **({"cuda": self.cuda.name} if self.cuda else {}),
        }

    def environment(self, root: Path) -> Environment:
        site = root / "lib" / f"python{self.build.python}" / "site-packages"
        return Environment(
            root=root,
            python=root / "bin" / "python",
            site=site,
            cuda_home=self.cuda_home(site),
            include=self.interpreter.include,
            python_version=self.interpreter.version,
            torch=self.build.torch,
            compiler_id=compiler_id(self.toolchain, self.build),
        )

    def is_made(self) -> bool:
        """Whether the final environment is there and looks sound, and its CUDA home too."""
        return self.is_installed() and (self.cuda is None or self.cuda.is_made())


def host_compiler_for(toolchain: Toolchain) -> HostCompiler:
    """The g++ to use. Raises ToolchainError as `find_host_compiler`, also with a CUDA that takes
    newer ones, if there is one."""
    try:
        return find_host_compiler(toolchain.cuda, toolchain.gcc)
    except ToolchainError as error:
        newest = max(Parts(*toolchain_folders()).cudas, key=lambda cuda: cuda.gcc, default=None)
        if not newest or not toolchain.gcc or newest.gcc <= toolchain.gcc[1] or toolchain.installed:
            raise
        more = f"CUDA {newest.minor} takes g++ up to {newest.gcc}: --cuda {newest.minor}"
        raise ToolchainError(
            error.what, where=error.where, details=error.details, hint=f"{error.hint}; or: {more}"
        ) from None


def _make(plan: _Plan, emit: Emit) -> None:
    # Asked for now, so that nobody waits for gigabytes to learn that g++ is missing, or the disk
    # too small.
    compiler = host_compiler_for(plan.toolchain)
    check_locked((*plan.toolchain.cuda_files, *plan.packages), plan.toolchain.name)
    packages = needed_for(missing(plan.packages, plan.cache))
    check_space(packages + (plan.cuda.needed if plan.cuda else 0), plan.cache)
    if plan.cuda and not plan.cuda.is_made():
        plan.cuda.make(compiler, emit, plan.toolchain.name)
    if not plan.is_installed():
        _install(plan, compiler, emit)


def _install(plan: _Plan, compiler: HostCompiler, emit: Emit) -> None:
    unpack_missing(plan.packages, plan.cache, emit, plan.toolchain.name)
    with plan.made() as part:
        _make_venv(plan, part)
        new = plan.environment(part)
        into = InstallScheme(
            python=plan.root / "bin" / "python",
            site=new.site,
            headers=part / "include" / "site",
            scripts=part / "bin",
            data=part,
        )
        link_packages(plan.packages, plan.cache, into, plan.toolchain.platform, emit)
        mend_packages(new.site / "nvidia")
        if plan.cuda is None:
            mend_home(new.cuda_home, compiler)
        check_nvcc(new.cuda_home, plan.toolchain.nvcc)
        check_torch(new.python, plan.build.torch)
        folders = [str(new.site / name) for name in _IMPORTED_BY_BUILDS]
        run([str(new.python), "-I", "-c", _COMPILE, *folders])


def _make_venv(plan: _Plan, part: Path) -> None:
    python = str(plan.interpreter.executable)
    options = ["--without-pip", "--prompt", f"{plan.toolchain.name} {plan.build.python}"]
    run([python, "-I", "-m", "venv", *options, str(part)])
    for path in (part / "pyvenv.cfg", *(part / "bin").glob("[Aa]ctivate*")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(part), str(plan.root)), encoding="utf-8")
