"""Whether a base image has what a toolchain builds on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import FatwheelError, ToolchainError
from . import msvc
from .archives import check_complete, mend_home, mend_packages, merge, stamp
from .msvc import find_msvc, install_run_time
from .tools import check_nvcc, check_torch, find_host_compiler, same


def check_base(python: str, cuda: str, gcc: tuple[int, int]) -> None:
    """Check the Python that runs this (`3.11`), its header files, and the g++ on PATH.

    Raises ToolchainError that says what the base image lacks.
    """
    found = ".".join(platform.python_version_tuple()[:2])
    if found != python:
        raise ToolchainError(f"the base image's python{python} is Python {found}")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ToolchainError(
            f"the base image has Python {python} without its header files",
            where=str(header),
            hint=f"make a base image with them: package python{python}-dev, or python3-dev, of "
            "Debian and Ubuntu",
        )
    find_host_compiler(cuda, gcc)


# -- the steps of an image's build that are more than a command: what the Dockerfiles run ----------

# python -I provision STEP OPTIONS
#
# A step that finds something wrong ends with exit code 1 and says why on standard error, which
# stops the build. The last step writes environment.json, by which builds know what is in the image.


DESCRIPTION = "environment.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Take one step. Raises SystemExit with the reason where it fails."""
    options = _parser().parse_args(arguments)
    step: Callable[[argparse.Namespace], None] = options.step
    try:
        step(options)
    except FatwheelError as error:
        raise SystemExit(f"fatwheel: {error}") from error
    except OSError as error:
        raise SystemExit(f"fatwheel: {error.filename}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="provision")
    steps = parser.add_subparsers(required=True)

    def step(name: str, run: Callable[[argparse.Namespace], None], *options: str) -> None:
        added = steps.add_parser(name)
        added.set_defaults(step=run)
        for option in options:
            if option == "--gcc":
                added.add_argument(option, nargs=2, type=int, required=True)
            else:
                added.add_argument(option, required=True)

    step("base", _base, "--python", "--cuda", "--gcc")
    step("python", _python, "--version")
    step("stamp", _stamp)
    step("nvcc", _nvcc, "--cuda-home", "--nvcc")
    every = ("--python", "--torch", "--cuda-home", "--nvcc")
    step("linux", _linux, *every, "--cuda", "--gcc")
    step("windows", _windows, *every, "--msvc", "--cl")
    step("compiler", _compiler, "--msvc", "--cl")
    unpack = steps.add_parser("unpack")
    unpack.set_defaults(step=_unpack)
    unpack.add_argument("--into", required=True, type=Path)
    unpack.add_argument("archives", nargs="+", type=Path)
    msvc = steps.add_parser("msvc")
    msvc.set_defaults(step=_msvc)
    msvc.add_argument("--into", required=True, type=Path)
    msvc.add_argument("packages", nargs="+", type=Path)
    return parser


def _base(options: argparse.Namespace) -> None:
    check_base(options.python, options.cuda, tuple(options.gcc))


def _python(options: argparse.Namespace) -> None:
    same("Python", options.version, platform.python_version())


def _unpack(options: argparse.Namespace) -> None:
    merge(options.archives, options.into)
    check_complete(options.into)


def _msvc(options: argparse.Namespace) -> None:
    msvc.unpack(options.packages, options.into)


def _stamp(options: argparse.Namespace) -> None:
    stamp(_site())


def _nvcc(options: argparse.Namespace) -> None:
    check_nvcc(Path(options.cuda_home), options.nvcc)


def _linux(options: argparse.Namespace) -> None:
    cuda_home = Path(options.cuda_home)
    compiler = find_host_compiler(options.cuda, tuple(options.gcc))
    mend_packages(_site() / "nvidia")
    mend_home(cuda_home, compiler)
    _check(options)
    name = f"g++ {compiler.version}"
    _describe(options, name, cxx=compiler.path, host_id=compiler.id, variables={})


def _windows(options: argparse.Namespace) -> None:
    msvc = find_msvc(Path(options.msvc), options.cl)
    install_run_time(Path(options.msvc), Path(sys.executable).parent)
    _check(options)
    name = f"cl {options.cl}"
    _describe(options, name, cxx=msvc.path, host_id=msvc.id, variables=msvc.variables)


def _compiler(options: argparse.Namespace) -> None:
    """Only say where the compiler is, what it is, and what it needs: as JSON."""
    msvc = find_msvc(Path(options.msvc), options.cl)
    found = {"cxx": str(msvc.path), "host_id": msvc.id, "variables": msvc.variables}
    sys.stdout.write(json.dumps(found) + "\n")


def _check(options: argparse.Namespace) -> None:
    same("Python", options.python, ".".join(platform.python_version_tuple()[:2]))
    check_nvcc(Path(options.cuda_home), options.nvcc)
    check_torch(Path(sys.executable), options.torch, warm=True)


def _describe(
    options: argparse.Namespace, compiler: str, cxx: Path, host_id: str, variables: dict[str, str]
) -> None:
    """Write what is in this image beside the folder that this code lies in."""
    described = {
        "environment": {
            "root": sys.prefix,
            "python": sys.executable,
            "site": str(_site()),
            "cuda_home": options.cuda_home,
            "include": sysconfig.get_path("include"),
            "python_version": platform.python_version(),
            "torch": options.torch,
        },
        "compiler": compiler,
        "cxx": str(cxx),
        "host_id": host_id,
        "variables": variables,
    }
    home = Path(os.path.abspath(__file__)).parents[3]
    text = json.dumps(described, indent=1) + "\n"
    (home / DESCRIPTION).write_text(text, encoding="utf-8")


def _site() -> Path:
    """The site-packages of the Python that runs this."""
    return Path(sysconfig.get_path("purelib"))
