"""Build contexts of a toolchain's images, and FATWHEEL_BASES, which replaces their base images."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

from .. import provision
from ..config.pinned import Download, Package
from ..config.toolchain import Base, Containers, Toolchain, TorchBuild
from ..errors import ConfigError, ToolchainError, UsageError
from ..machine import this_platform
from ..shipped import TEMPLATES
from ..toolchain.interpreters import build_of
from ..worker.processes import KILLS_VARIABLE
from .layouts import LINUX, TOOLS, Layout, layout_of

VARIABLE = "FATWHEEL_BASES"

WINE = "wine"  # stands for a Python where it is the base of the image with Wine
_ITEM = re.compile(rf"(\d+\.\d+|{WINE})=([\w./:@-]+)", re.ASCII)


def named_bases(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The base images that FATWHEEL_BASES names, by Python version or `wine`; usually empty.

    Raises UsageError where the variable cannot be read.
    """
    text = (os.environ if variables is None else variables).get(VARIABLE, "").strip()
    named: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ITEM.fullmatch(item)
        if match is None or match[1] in named:
            raise UsageError(
                f"{item!r} does not name a base image"
                if match is None
                else f"{match[1]} is named twice",
                where=VARIABLE,
                hint=f"valid: {VARIABLE}=3.11=my-base:1,3.13=other-base",
            )
        named[match[1]] = match[2]
    return named


# -- build contexts --------------------------------------------------------------------------------

# What a toolchain's images are made of: the text of every file, and the pinned files beside them.
#
# An image is made in two layers: the *toolchain* (compiler, CUDA, Pythons, ninja) on a base, and on
# that the *env*, one Python with one torch. A build context holds a Dockerfile and everything that
# it copies. Its tag is a digest of all that: the same inputs give the same tag on every machine.
#
# Nothing needs quoting: each value is one word that Dockerfiles, shells, cmd and pip all take
# literally. A value that is anything else, wherever it came from, is refused.
#
# Pure: no network, no engine. Templates: docker/linux and docker/windows.


REPOSITORY = "fatwheel"

# Wheels are installed in steps of at most this many bytes. An engine writes the files of each step
# twice, and what is deleted before it reaches the disk costs nothing; and a failed build continues
# from its last complete step.
_BATCH = 600 * 10**6
_EARLY = ("compiler", "build")  # roles of packages that belong to the toolchain, not to a torch
_UNKNOWN = "0" * 64  # stands for a digest that is not known yet; no file has it
# No blank, line end or quotation mark, and nothing that a shell, cmd, a Dockerfile or pip would
# expand; no dash at the start, which would make it an option. Windows paths have backslashes, which
# are literal in Windows' Dockerfiles (`# escape=`).
_WORD = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_./:@+!-]*")
_WINDOWS_PATH = re.compile(r"[A-Z]:(\\[A-Za-z0-9_.+!-]+)+")
# distribution/reference: a path's component, and a tag.
_TAG = re.compile(r"fatwheel/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*:\w[\w.-]{0,127}", re.ASCII)
SUMS = "SHA256SUMS"  # a file beside those of a context, where it is written into a folder
_MAIN = b"from fatwheel.provision.image import main\n\nmain()\n"

File = Package | Download


@dataclass(frozen=True)
class BuildContext:
    """One image to build.

    kind:  'toolchain', 'env' or 'wine'.
    tag:   what it is called: `fatwheel/linux-cuda13.0:toolchain-0123456789abcdef`.
    base:  what it is built on: another context's tag, `reference@sha256:…`, or an image's id.
    texts: path in the context → content: Dockerfile, scripts, requirements, code that it runs.
    files: pinned files; each lies in the context as files/FILENAME.
    """

    kind: str
    tag: str
    base: str
    texts: tuple[tuple[str, bytes], ...]
    files: tuple[File, ...]

    @property
    def unlocked(self) -> tuple[str, ...]:
        """What has no digest yet, so that the image cannot be built before `invoke lock`."""
        names = [file.filename for file in self.files if not file.locked]
        return (*names, *([self.base.partition("@")[0]] if _UNKNOWN in self.base else []))


def contexts_of(
    toolchain: Toolchain, python: str, torch: str, bases: Mapping[str, str]
) -> tuple[BuildContext, BuildContext]:
    """The toolchain image and the env image for one Python (`3.11`) and one torch (`2.11.0`).

    bases: for a Python, what to build on instead of the toolchain's own base; an id of an image
    rather than a name, because the tag covers the text and not what it stands for.

    Raises UsageError for a Python or torch that the toolchain does not serve, ToolchainError where
    it has no images, ConfigError where its pins cannot make one.
    """
    maker = _Maker(toolchain, _containers(toolchain), build_of(toolchain, python, torch))
    made = maker.toolchain_image(bases.get(python) or _reference(maker.base()))
    return made, maker.env_image(made.tag)


def uses_wine(toolchain: Toolchain, os_name: str) -> bool:
    """Whether an engine builds with a toolchain for Windows in Linux containers, which have Wine:
    one that runs these, or any where the toolchain has no other images. os_name: the engine's
    OSType, '' where none answers."""
    if toolchain.wine is None or this_platform() != "linux-x86_64":
        return False
    return toolchain.containers is None or os_name == LINUX.os


def contexts_on(
    os_name: str, toolchain: Toolchain, python: str, torch: str, bases: Mapping[str, str]
) -> tuple[BuildContext, ...]:
    """Those of all images that an engine of an OSType needs: see `uses_wine`, `contexts_of`."""
    if uses_wine(toolchain, os_name):
        return (wine_context(toolchain, bases),)
    return contexts_of(toolchain, python, torch, bases)


def _containers(toolchain: Toolchain) -> Containers:
    if toolchain.containers is None:
        raise ToolchainError(
            f"toolchain {toolchain.name} has no container images",
            hint="its file needs a [containers] table; `--engine process` needs no images",
        )
    return toolchain.containers


def wine_context(toolchain: Toolchain, bases: Mapping[str, str]) -> BuildContext:
    """The build context of the image with Wine; bases as for `contexts_of`. It holds nothing of the
    toolchain's compilers, so that toolchains share it."""
    wine = toolchain.wine
    assert wine, "the engine was found to have no obstacle"
    base = bases.get(WINE) or _reference(wine.base)
    names = [file.filename for file in wine.files]
    places = {
        "base": base,
        "version": wine.version,
        "home": LINUX.home,
        "work": LINUX.work,
        "tools": TOOLS,
        "variable": KILLS_VARIABLE,
        "sources": tuple(f"files/{name}" for name in names),
        "archives": tuple(LINUX.file(name) for name in names),
    }
    _check_names(wine.files)
    texts = {"Dockerfile": _rendered("linux/wine.Dockerfile.j2", places).encode()}
    for path in sorted((TEMPLATES / "linux").glob("*.sh.j2")):
        text = _rendered(f"linux/{path.name}", places)
        texts[f"scripts/{path.name.partition('.')[0]}"] = text.encode()
    ordered, files = tuple(sorted(texts.items())), tuple(sorted(wine.files, key=_filename))
    tag = f"{REPOSITORY}/wine:{wine.version}-{_digest(base, ordered, files)}"
    return BuildContext(WINE, tag, base, ordered, files)


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    return _TEMPLATES.get_template(template).render(values)


def _reference(base: Base) -> str:
    return f"{base.reference}@{base.digest or f'sha256:{_UNKNOWN}'}"


@dataclass(frozen=True)
class _Batch:
    """Wheels that one step of an image installs."""

    name: str
    packages: tuple[Package, ...]

    @property
    def requirements(self) -> str:
        return f"requirements/{self.name}"

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(f"files/{package.filename}" for package in self.packages)

    @property
    def text(self) -> bytes:
        return "".join(map(_requirement, self.packages)).encode()


@dataclass(frozen=True)
class _Maker:
    toolchain: Toolchain
    containers: Containers
    build: TorchBuild

    @property
    def layout(self) -> Layout:
        return layout_of(self.containers.os)

    @property
    def installs_early(self) -> bool:
        """Whether the toolchain image has packages: on Linux, Pythons of archives get theirs in a
        virtual environment of the env image."""
        return self.layout.in_place or not self.toolchain.interpreters

    @property
    def pip(self) -> Package:
        for package in self.toolchain.packages:
            if package.role == "installer":
                return package
        raise ConfigError(
            f"toolchain {self.toolchain.name} has no package with the role 'installer'",
            hint="images install wheels with their own pip: pin its wheel",
        )

    def base(self) -> Base:
        """The first base that brings the Python, or on which the toolchain installs it."""
        if base := self.toolchain.base_for(self.build.python):
            return base
        raise ConfigError(
            f"no base image of toolchain {self.toolchain.name} is for Python {self.build.python}",
            hint="add a base that has it to [containers], or an interpreter to the toolchain",
        )

    def packages(self, early: bool) -> list[Package]:
        """Those that belong to the toolchain image, or those that belong to the env image."""
        return [
            package
            for package in (*self.toolchain.packages, *self.build.packages)
            if package.role != "installer"
            and (self.installs_early and package.role in _EARLY) == early
        ]

    def toolchain_image(self, base: str) -> BuildContext:
        of_archives = self.toolchain.interpreters or self.toolchain.msvc
        kind = "archives" if of_archives else "packages"
        batches = _batches(self.packages(early=True), "toolchain")
        files: list[File] = [interpreter.download for interpreter in self.toolchain.interpreters]
        files += self.toolchain.cuda_files
        files += [self.pip] if self.installs_early else []
        if self.toolchain.msvc:
            files += self.toolchain.msvc.payloads
        texts = dict(self._texts(f"toolchain-{kind}", base, batches))
        texts |= {f"provision/{name}": text for name, text in _provision()}
        texts |= self._scripts(base, batches)
        return self._context("toolchain", "toolchain", base, texts, batches, files)

    def _scripts(self, base: str, batches: Sequence[_Batch]) -> dict[str, bytes]:
        """Those of Windows, with its line ends: cmd mistakes labels in files with others."""
        scripts: dict[str, bytes] = {}
        for path in sorted((TEMPLATES / self.containers.os).glob("*.cmd.j2")):
            text = self._render(f"{self.containers.os}/{path.name}", base, batches)
            scripts[f"scripts/{path.stem}"] = text.replace("\n", "\r\n").encode()
        return scripts

    def env_image(self, base: str) -> BuildContext:
        batches = _batches(self.packages(early=False), "env")
        texts = dict(self._texts("env", base, batches))
        name = f"cp{self.build.python.replace('.', '')}-torch{self.build.torch}"
        files = [] if self.installs_early else [self.pip]
        return self._context("env", name, base, texts, batches, files)

    def _context(
        self,
        kind: str,
        name: str,
        base: str,
        texts: Mapping[str, bytes],
        batches: Sequence[_Batch],
        files: Sequence[File],
    ) -> BuildContext:
        wheels = [package for batch in batches for package in batch.packages]
        # By name, so that the order in the toolchain's file does not matter.
        every = sorted([*files, *wheels], key=_filename)
        _check_names(every)
        ordered = tuple(sorted(texts.items()))
        tag = f"{REPOSITORY}/{self.toolchain.name}:{name}-{_digest(base, ordered, every)}"
        if not _TAG.fullmatch(tag):
            raise ConfigError(
                f"{tag!r:.120} is not a valid image name",
                hint=(
                    "a toolchain's name must be lower-case letters and digits, with single . _ "
                    "- between them"
                ),
            )
        return BuildContext(kind, tag, base, ordered, tuple(every))

    def _texts(
        self, template: str, base: str, batches: Sequence[_Batch]
    ) -> Iterator[tuple[str, bytes]]:
        path = f"{self.containers.os}/{template}.Dockerfile.j2"
        yield "Dockerfile", self._render(path, base, batches).encode()
        for batch in batches:
            yield batch.requirements, batch.text

    def _render(self, template: str, base: str, batches: Sequence[_Batch]) -> str:
        values = {
            "toolchain": self.toolchain,
            "python": self.build.python,
            "torch": self.build.torch,
            "base": base,
            "pip": self.pip,
            "batches": batches,
            **self._places(),
        }
        return _rendered(template, values)

    def _places(self) -> dict[str, Any]:
        """Where things are in the image."""
        layout, msvc = self.layout, self.toolchain.msvc
        names = [file.filename for file in self.toolchain.cuda_files]
        payloads = [file.filename for file in msvc.payloads] if msvc else []
        pythons = [interpreter.python for interpreter in self.toolchain.interpreters]
        major = self.toolchain.cuda.partition(".")[0]
        site = f"{layout.home}/env/lib/python{self.build.python}/site-packages"
        return {
            "home": layout.home,
            "cuda_home": layout.cuda if names else f"{site}/nvidia/cu{major}",
            "msvc_home": layout.msvc,
            "home_of": layout.interpreter_home,
            "python_of": layout.interpreter_of,
            "first_python": layout.interpreter_of(pythons[0]) if pythons else "",
            "cuda_sources": tuple(f"files/{name}" for name in names),
            "cuda_archives": tuple(layout.file(name) for name in names),
            "msvc_sources": tuple(f"files/{name}" for name in payloads),
            "msvc_packages": tuple(layout.file(name) for name in payloads),
        }


def _words(value: Any) -> str:
    """What a template puts into a text: a word, a number, or several words."""
    if isinstance(value, Undefined):
        return str(value)  # which is an error
    if isinstance(value, tuple):
        return " ".join(map(_words, value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str) and (_WORD.fullmatch(value) or _WINDOWS_PATH.fullmatch(value)):
        return value
    raise ConfigError(
        f"{value!r:.120} cannot be used in a Dockerfile",
        hint="valid: letters, digits and _ . / : @ + ! -, not starting with a dash",
    )


def _requirement(package: Package) -> str:
    """A line for pip."""
    name, version, sha256 = map(_words, (package.name, package.version, package.sha256 or _UNKNOWN))
    return f"{name}=={version} --hash=sha256:{sha256}\n"


def _check_names(files: Sequence[File]) -> None:
    """Raise ConfigError where files cannot lie in one folder under their names."""
    times = Counter(file.filename.lower() for file in dict.fromkeys(files))
    for file in files:
        if "/" in _words(file.filename) or file.filename.lower() == SUMS.lower():
            raise ConfigError(f"{file.filename!r:.120} cannot be the name of a file in an image")
        if times[file.filename.lower()] > 1:
            raise ConfigError(f"two files of an image are named {file.filename!r:.120}")


# Every value that is put into a template goes through `_words`: none can be forgotten.
_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    finalize=_words,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


def _batches(packages: Sequence[Package], name: str) -> list[_Batch]:
    """Packages in groups of about the same size in bytes, large ones first; never reordered by
    anything but size and name. One whose size nobody publishes may be as large as a group."""
    groups: list[list[Package]] = []
    for package in sorted(packages, key=lambda package: (-_weight(package), package.filename)):
        for group in groups:
            if sum(map(_weight, group)) + _weight(package) <= _BATCH:
                group.append(package)
                break
        else:
            groups.append([package])
    return [_Batch(f"{name}-{n}.txt", tuple(group)) for n, group in enumerate(groups, 1)]


def _weight(package: Package) -> int:
    return package.size or _BATCH


def _provision() -> Iterator[tuple[str, bytes]]:
    """The code that images run while they are built; the folder is a program for `python`."""
    yield "__main__.py", _MAIN
    room = Path(provision.__file__).parent
    package = room.parent
    yield "fatwheel/__init__.py", b""  # without the version: a new one would rebuild every image
    for path in (package / "errors.py", *sorted(room.glob("*.py"))):
        yield f"fatwheel/{path.relative_to(package).as_posix()}", path.read_bytes()


def _filename(file: File) -> str:
    return file.filename


def _digest(base: str, texts: Sequence[tuple[str, bytes]], files: Sequence[File]) -> str:
    digest = hashlib.sha256(f"base {base}\n".encode())
    for path, text in texts:
        digest.update(f"text {path} {hashlib.sha256(text).hexdigest()}\n".encode())
    for file in files:
        digest.update(f"file {file.filename} {file.sha256}\n".encode())
    return digest.hexdigest()[:16]
