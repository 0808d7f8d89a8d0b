"""The parts that toolchains are composed of, as TOML files in toolchains/parts/.

    cuda/12.8.1.toml          a CUDA release: what its nvcc takes, and the files that it comes as
    torch/2.8.0.toml          a torch release: its wheels by CUDA, platform and Python
    msvc/14.38.toml           a C++ compiler for Windows
    images/linux-x86_64.toml  what images of a platform are built on, and their Pythons
    packages/ninja.toml       the pinned files of a package of the index
    publishers.toml           who publishes what is on no package index

Each pin is `NAME==VERSION`, and packages/NAME.toml says which file that is. `invoke lock` writes
these files; docs/toolchains.md explains the keys. `compose` makes toolchains of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from pydantic import Field

from ..errors import ConfigError
from . import fields
from .checks import payload_mistakes, tables
from .load import Mistake, load_table
from .mistakes import Key
from .pinned import Package, Sha256, Size, Table, Url
from .schema import InterpreterTable, MsvcTable
from .toolchain import Base, MsvcTools, WineImage

FOLDER = "parts"
HINT = "docs/toolchains.md explains every key; `invoke lock` writes these files"

# What NVIDIA calls the platforms of its archives, by what Python calls them.
NVIDIA_PLATFORMS = {
    "linux-x86_64": "linux-x86_64",
    "linux-aarch64": "linux-sbsa",
    "win-amd64": "windows-x86_64",
}

T = TypeVar("T", bound=Table)
Mistakes = Callable[[dict[str, Any]], Iterable[Mistake]]
Pins = Annotated[tuple[fields.Pin, ...], fields.Few]


def release(version: str) -> tuple[int, ...]:
    """A version's numbers, for comparing: (12, 8, 1)."""
    return Version(version).release


def minor(version: str) -> str:
    """`12.8` for 12.8.1."""
    return ".".join(version.split(".")[:2])


def _order(name: str) -> tuple[tuple[int, ...], str]:
    """Versions in their order, names by the alphabet."""
    return (release(name) if re.fullmatch(r"\d+(\.\d+)*", name, re.ASCII) else (), name)


def _none(raw: dict[str, Any]) -> Sequence[Mistake]:
    return ()


# -- CUDA ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Archive(Table):
    """One archive of a CUDA release, in NVIDIA's words. size: bytes, 0 where it is not known."""

    name: Annotated[fields.PartName, Field(description="what NVIDIA calls it, as in 'cuda_nvcc'")]
    version: Annotated[fields.AnyVersion, Field(description="the component's version")]
    platform: Annotated[
        fields.PartName, Field(description="NVIDIA's word for the platform, as in 'windows-x86_64'")
    ]
    size: Size
    sha256: Sha256

    @property
    def path(self) -> str:
        """Where it lies beside the manifest, which says so for every release alike."""
        ending = "zip" if self.platform.startswith("windows") else "tar.xz"
        file = f"{self.name}-{self.platform}-{self.version}-archive.{ending}"
        return f"{self.name}/{self.platform}/{file}"


@dataclass(frozen=True, kw_only=True)
class CudaRelease(Table):
    """A release of CUDA (parts/cuda/VERSION.toml).

    gcc: the newest major version of g++, msvc: the least and the greatest `_MSC_VER` that its
    crt/host_config.h accepts. packages: its compilers, tools: cuobjdump and nvdisasm, where they
    come as packages of the index; libraries: those with the headers of CUDA's libraries, for
    Windows, where torch needs no such package. archives: where NVIDIA publishes them beside the
    manifest.
    """

    version: Annotated[fields.Release, Field(description="the release, as in '12.8.1'")]
    nvcc: Annotated[fields.Release, Field(description="nvcc's version, as in '12.8.93'")]
    archs: Annotated[tuple[fields.Arch, ...], fields.Few, Field(description="what its nvcc takes")]
    gcc: Annotated[fields.Major, Field(description="the newest g++ that it takes, as in 14")]
    msvc: Annotated[
        tuple[fields.MscVer, fields.MscVer],
        Field(description="the first and the last _MSC_VER that it takes, as in [1910, 1949]"),
    ]
    packages: Pins = ()
    tools: Pins = ()
    libraries: Pins = ()
    manifest: Url = ""
    archives: Annotated[tuple[Archive, ...], fields.Many] = ()

    @property
    def minor(self) -> str:
        return minor(self.version)

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def archives_for(self, platform: str) -> tuple[Archive, ...]:
        """Those that a toolchain for a platform, by Python's name for it, is made of; none where
        it is made of packages. For Windows archives come first: images there take nothing else."""
        if self.packages and not platform.startswith("win-"):
            return ()
        theirs = NVIDIA_PLATFORMS.get(platform)
        return tuple(one for one in self.archives if one.platform == theirs)

    def packages_for(self, platform: str) -> Pins:
        """The packages that such a toolchain is made of where there are no archives; none where
        some are not known."""
        if not platform.startswith("win-"):
            return self.packages
        return (*self.packages, *self.libraries) if self.libraries else ()

    def refusal_of(self, msvc: MsvcTools) -> str:
        """Why its nvcc refuses a C++ compiler for Windows, as a sentence's end, or ''."""
        first, last = self.msvc
        if first <= msvc.msc_ver <= last:
            return ""
        return f"CUDA {self.minor} takes _MSC_VER {first} to {last}, and it is {msvc.msc_ver}"

    def url_of(self, archive: Archive) -> str:
        return f"{self.manifest.rpartition('/')[0]}/{archive.path}"


def _cuda_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    if raw.get("archives") and not raw.get("manifest"):
        yield ("manifest",), "missing: the URL of NVIDIA's manifest, beside which archives lie"
    if not raw.get("archives") and not raw.get("packages"):
        yield (), "neither packages nor archives are given: nobody knows where its nvcc is"
    seen: set[tuple[object, object]] = set()
    for number, archive in tables(raw, "archives"):
        place = (archive.get("name"), archive.get("platform"))
        if all(isinstance(word, str) for word in place):
            if place in seen:
                yield ("archives", number), f"a second {place[0]} for {place[1]}"
            seen.add(place)


# -- torch -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TorchWheel(Table):
    """A wheel of torch for one Python. size: bytes, 0 where the index does not say it. sha256: ''
    until `invoke lock` knows it."""

    python: Annotated[fields.Python, Field(description="a Python, as in '3.11'")]
    file: Annotated[fields.WheelFile, Field(description="the wheel's file name")]
    size: Size = 0
    sha256: Sha256 = ""
    url: Url = ""

    def package(self) -> Package:
        return _package(self, "runtime")


@dataclass(frozen=True, kw_only=True)
class TorchVariant(Table):
    """A torch for one CUDA on one platform. requires: all that it needs, and what those need."""

    cuda: Annotated[fields.Release, Field(description="the CUDA it is built for, as in '12.8'")]
    platform: Annotated[fields.Platform, Field(description="as in 'linux-x86_64'")]
    requires: Pins = ()
    wheels: Annotated[tuple[TorchWheel, ...], fields.Few, Field(description="one for each Python")]

    @property
    def major(self) -> str:
        return self.cuda.partition(".")[0]

    def wheel_for(self, python: str) -> TorchWheel | None:
        return next((one for one in self.wheels if one.python == python), None)


@dataclass(frozen=True, kw_only=True)
class TorchRelease(Table):
    """A release of torch (parts/torch/VERSION.toml).

    gcc: the oldest major version of g++ that its headers take. tools: what building with it needs
    (setuptools, ninja …).
    """

    version: Annotated[fields.Torch, Field(description="the release, as in '2.8.0'")]
    gcc: Annotated[fields.Major, Field(description="the oldest g++ that it takes, as in 9")]
    tools: Pins
    variants: Annotated[
        tuple[TorchVariant, ...],
        fields.Few,
        Field(description="one table for each CUDA and platform"),
    ]

    def variants_for(self, platform: str) -> tuple[TorchVariant, ...]:
        return tuple(one for one in self.variants if one.platform == platform)


def _torch_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    """Tables for one CUDA and platform, and wheels for one Python, that stand there twice."""
    places: set[tuple[object, object]] = set()
    for number, variant in tables(raw, "variants"):
        key: Key = ("variants", number)
        place = (variant.get("cuda"), variant.get("platform"))
        if all(isinstance(word, str) for word in place):
            if place in places:
                yield key, f"a second table for CUDA {place[0]} on {place[1]}"
            places.add(place)
        pythons: set[str] = set()
        for index, wheel in tables(variant, "wheels"):
            python = wheel.get("python")
            if isinstance(python, str):
                if python in pythons:
                    yield (*key, "wheels", index, "python"), f"a second wheel for Python {python}"
                pythons.add(python)
            yield from _wheel_mistakes(wheel, (*key, "wheels", index))


def _wheel_mistakes(wheel: dict[str, Any], key: Key) -> Iterator[Mistake]:
    if "url" not in wheel:
        # Nobody but the index can say what these are, and it is asked by them.
        for pin in ("size", "sha256"):
            if pin not in wheel:
                yield (*key, pin), "missing: what the index says of a wheel without url"


# -- what else -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MsvcRelease(MsvcTable):
    """A C++ compiler for Windows (parts/msvc/TOOLSET.toml).

    least_cuda: the first CUDA that its own library takes (yvals_core.h, STL1002).
    """

    least_cuda: Annotated[
        fields.Release, Field(description="the first CUDA that its library takes, as in '11.6'")
    ]

    def obstacle(self, cuda: CudaRelease) -> str:
        """Why a CUDA cannot use it, as a sentence's end, or ''."""
        if outside := cuda.refusal_of(self):
            return outside
        if release(cuda.version) < release(self.least_cuda):
            return f"its own library needs CUDA {self.least_cuda} or newer"
        return ""


@dataclass(frozen=True, kw_only=True)
class ImageParts(Table):
    """What images of a platform are made from (parts/images/PLATFORM.toml): see `Containers`.

    installer: pip, which installs packages into images. portable: Pythons for builds without
    such images. wine: the Linux image that builds for Windows.
    """

    os: Annotated[fields.Os, Field(description="'linux' or 'windows'")]
    os_build: fields.OrZero[fields.OsBuild]
    installer: Annotated[fields.Pin, Field(description="as in 'pip==25.3'")]
    bases: Annotated[tuple[Base, ...], fields.Few, Field(description="the images to build on")]
    interpreters: Annotated[tuple[InterpreterTable, ...], fields.Few] = ()
    portable: Annotated[tuple[InterpreterTable, ...], fields.Few] = ()
    wine: WineImage | None = None


@dataclass(frozen=True, kw_only=True)
class PinnedFile(Table):
    """One file of a package. size: bytes."""

    file: Annotated[fields.WheelFile, Field(description="the wheel's file name")]
    size: Size
    sha256: Annotated[fields.Sha256, Field(description="the wheel's sha256")]
    url: Url


@dataclass(frozen=True, kw_only=True)
class Publishers(Table):
    """Who publishes what is not on the package index (parts/publishers.toml), for `invoke lock`."""

    cuda: Annotated[fields.Url, Field(description="the folder of NVIDIA's manifests")]
    torch: Annotated[fields.Url, Field(description="the folder of PyTorch's own index")]


@dataclass(frozen=True, kw_only=True)
class PackageFiles(Table):
    """The pinned files of one package (parts/packages/NAME.toml)."""

    files: Annotated[tuple[PinnedFile, ...], fields.Many]


def _file_mistakes(package: str) -> Mistakes:
    """Finds files of other packages, and those that stand there twice."""

    def mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
        seen: set[str] = set()
        for number, one in enumerate(raw.get("files") or ()):
            name = one.get("file") if isinstance(one, dict) else None
            if not isinstance(name, str):
                continue  # the model says so
            if canonicalize_name(name.partition("-")[0]) != package:
                yield ("files", number, "file"), f"{name!r} is no file of {package}"
            if name in seen:
                yield ("files", number, "file"), f"{name!r} stands there twice"
            seen.add(name)

    return mistakes


# -- wheels that fit -------------------------------------------------------------------------------


def fits(file: str, python: str, platform: str) -> bool:
    """Whether CPython of a version (`3.11`) on a platform takes a wheel, by its name (PEP 425).

    How old a glibc or macOS may be is not asked: pins are for machines as new as torch needs.
    """
    return any(
        _fits_python(tag, python) and _fits_platform(tag.platform, platform)
        for tag in parse_wheel_filename(file)[3]
    )


def _fits_python(tag: Tag, python: str) -> bool:
    ours = release(python)
    if match := re.fullmatch(r"(cp|py)(\d)(\d*)", tag.interpreter):
        theirs = (int(match[2]), int(match[3] or 0))
        if tag.abi == "none" or (tag.abi == "abi3" and match[1] == "cp"):
            return theirs[0] == ours[0] and theirs <= ours
        return match[1] == "cp" and theirs == ours and tag.abi == tag.interpreter
    return False


def _fits_platform(tag: str, platform: str) -> bool:
    system, _, machine = platform.partition("-")
    if system == "win":
        return tag in ("any", platform.replace("-", "_"))
    return tag == "any" or bool(re.fullmatch(rf"(many)?linux.*_{re.escape(machine)}", tag))


def is_for(one: PinnedFile, version: str, platform: str) -> bool:
    """Whether a file is of a version and for a platform, by its name."""
    _, found, _, tags = parse_wheel_filename(one.file)
    return found == Version(version) and any(_fits_platform(tag.platform, platform) for tag in tags)


def best_file(
    files: Iterable[PinnedFile], version: str, python: str, platform: str
) -> PinnedFile | None:
    """The file that fits best: a Python's own before one for several."""
    wanted = Version(version)
    fitting = [
        one
        for one in files
        if parse_wheel_filename(one.file)[1] == wanted and fits(one.file, python, platform)
    ]
    return min(fitting, key=lambda one: "-py3" in one.file, default=None)


# -- folders of parts ------------------------------------------------------------------------------


class Parts:
    """All parts of some folders of toolchains; what an earlier folder has comes first.

    Raises ConfigError, listing every mistake, when a part is asked for that has some.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = tuple(folder / FOLDER for folder in folders)

    @cached_property
    def cudas(self) -> tuple[CudaRelease, ...]:
        """Releases of CUDA, the oldest first."""
        return self._all("cuda", self.cuda)

    @cached_property
    def torches(self) -> tuple[TorchRelease, ...]:
        """Releases of torch, the oldest first."""
        return self._all("torch", self.torch)

    @cached_property
    def msvcs(self) -> tuple[MsvcRelease, ...]:
        """C++ compilers for Windows, the oldest first."""
        return self._all("msvc", self.msvc)

    def cuda(self, version: str) -> CudaRelease | None:
        """A release, if there is one."""
        return self._one("cuda", CudaRelease, version, mistakes=_cuda_mistakes)

    def torch(self, version: str) -> TorchRelease | None:
        """A release, if there is one."""
        return self._one("torch", TorchRelease, version, mistakes=_torch_mistakes)

    def msvc(self, toolset: str) -> MsvcRelease | None:
        """A C++ compiler, if there is one."""
        return self._one("msvc", MsvcRelease, toolset, "toolset", payload_mistakes)

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of all parts of a kind (`cuda`), sorted as versions are where they are some."""
        found = {file.stem for folder in self._folders for file in (folder / kind).glob("*.toml")}
        return tuple(sorted(found, key=_order))

    def images(self, platform: str) -> ImageParts | None:
        """What images of a platform are made from, where they can be made."""
        file = self._find("images", platform)
        return load_table(ImageParts, file, _none, HINT) if file else None

    def urls(self) -> Iterator[str]:
        """Where what they pin lies, as far as that is not the user's own index."""
        yield from (cuda.manifest for cuda in self.cudas if cuda.manifest)
        for torch in self.torches:
            for variant in torch.variants:
                yield from (wheel.url for wheel in variant.wheels if wheel.url)
        for msvc in self.msvcs:
            yield from (payload.url for payload in msvc.payloads if payload.url)
        for images in self.all_images.values():
            yield from (one.url for one in (*images.interpreters, *images.portable))

    @property
    def all_images(self) -> dict[str, ImageParts]:
        """What images are made from, by platform."""
        names = self.names("images")
        return {name: images for name in names if (images := self.images(name))}

    @property
    def publishers(self) -> Publishers:
        """Who is asked for new releases. Raises ConfigError where no folder says it."""
        for folder in self._folders:
            if (file := folder / "publishers.toml").is_file():
                return load_table(Publishers, file, _none, HINT)
        raise ConfigError("there is no publishers.toml", where=str(self._folders[-1]), hint=HINT)

    def packages(self, pins: Iterable[str], python: str, platform: str, role: str) -> list[Package]:
        """The files of pins for a Python, sorted by name.

        Raises ConfigError, with all of them, where a pin has no file that fits.
        """
        found, missing = [], []
        for pin in pins:
            words, _, marker = pin.partition(";")
            if marker and not Marker(marker.strip()).evaluate({"python_version": python}):
                continue
            name, _, version = words.strip().partition("==")
            file = self._file(canonicalize_name(name), version, python, platform)
            if file is None:
                missing.append(words.strip())
            else:
                found.append(_package(file, role))
        if missing:
            raise ConfigError(
                f"no file is pinned for Python {python} on {platform}",
                where=f"toolchains/{FOLDER}/packages",
                details=missing,
                hint="`invoke lock` pins what is missing",
            )
        return sorted(found, key=lambda package: package.name)

    def pinned(self, pins: Iterable[str], platform: str) -> bool:
        """Whether there are pins, and each has a file for a platform, for whatever Python."""
        versions = [pin.partition("==")[::2] for pin in pins]
        return bool(versions) and all(
            any(is_for(one, version, platform) for one in self.package_files(name))
            for name, version in versions
        )

    def _file(self, name: str, version: str, python: str, platform: str) -> PinnedFile | None:
        """The file of a package that fits best: a Python's own before one for several."""
        return best_file(self.package_files(name), version, python, platform)

    def package_files(self, name: str) -> tuple[PinnedFile, ...]:
        """All pinned files of a package."""
        if name not in self._pinned:
            file = self._find("packages", name)
            table = load_table(PackageFiles, file, _file_mistakes(name), HINT) if file else None
            self._pinned[name] = table.files if table else ()
        return self._pinned[name]

    @cached_property
    def _pinned(self) -> dict[str, tuple[PinnedFile, ...]]:
        return {}

    def _all(self, kind: str, load: Callable[[str], T | None]) -> tuple[T, ...]:
        """All parts of a kind, in the order of versions."""
        return tuple(one for name in self.names(kind) if (one := load(name)) is not None)

    def _one(
        self,
        kind: str,
        table: type[T],
        name: str,
        key: str = "version",
        mistakes: Mistakes = _none,
    ) -> T | None:
        """A part by its name, which its file has, too. key: where the file says it."""
        file = self._find(kind, name) if name in self.names(kind) else None
        if file is None:
            return None

        def all_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
            if isinstance(raw.get(key), str) and raw[key] != name:
                yield (key,), f"{raw[key]!r} is not the file's name, {name!r}"
            yield from mistakes(raw)

        if file not in self._loaded:
            self._loaded[file] = load_table(table, file, all_mistakes, HINT)
        found: T = self._loaded[file]
        return found

    @cached_property
    def _loaded(self) -> dict[Path, Any]:
        return {}

    def file(self, name: str) -> Path:
        """The file of a part by its kind and name, `cuda/12.8.1`, which some folder has."""
        found = self._find(*name.split("/"))
        assert found, "the part was loaded"
        return found

    def _find(self, kind: str, name: str) -> Path | None:
        files = (folder / kind / f"{name}.toml" for folder in self._folders)
        return next((file for file in files if file.exists()), None)


def _package(one: PinnedFile | TorchWheel, role: str) -> Package:
    name, version, _, _ = parse_wheel_filename(one.file)
    return Package(name, str(version), one.file, one.size, one.sha256, role, one.url)
