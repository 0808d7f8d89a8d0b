"""Composes toolchains of parts: one CUDA, one torch and one Python for one platform.

A torch works with every CUDA of the major version that it was built for; the nearest is taken
(docs: "CUDA Compatibility", minor version compatibility; torch.utils.cpp_extension refuses another
major version). A composed toolchain has a name from which it can be composed again:
`cuda12.8.1-linux-x86_64`, with a torch and a Python.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from itertools import product

from ..arch import parse_gpu_list
from ..errors import ConfigError, UsageError
from ..machine import WINDOWS, WINDOWS_IN_WORDS, in_words
from .parts import (
    NVIDIA_PLATFORMS,
    Archive,
    CudaRelease,
    ImageParts,
    MsvcRelease,
    Parts,
    TorchRelease,
    TorchVariant,
    TorchWheel,
    release,
)
from .pinned import Package
from .schema import CudaTable, InterpreterTable, MsvcTable, ToolchainFile
from .toolchain import Containers, Toolchain, TorchBuild

# What users call the platforms, besides Python's names for them.
PLATFORMS = {**{name: name for name in NVIDIA_PLATFORMS}, WINDOWS_IN_WORDS: WINDOWS}

COMPOSED = re.compile(r"cuda(\d+\.\d+\.\d+)-(" + "|".join(NVIDIA_PLATFORMS) + ")")
_NEAREST = 3  # combinations that an error names


@dataclass(frozen=True)
class Combination:
    """A CUDA, a torch and a Python that go together on a platform."""

    platform: str
    cuda: CudaRelease
    torch: TorchRelease
    variant: TorchVariant
    wheel: TorchWheel

    @property
    def python(self) -> str:
        return self.wheel.python

    @property
    def name(self) -> str:
        """Of the toolchain."""
        return f"cuda{self.cuda.version}-{self.platform}"

    def options(self, *, with_python: bool) -> str:
        """How a user asks for it."""
        words = f"--cuda {self.cuda.minor} --torch {self.torch.version}"
        return f"{words} --python {self.python}" if with_python else words


def combinations(parts: Parts, platform: str) -> Iterator[Combination]:
    """All that there are for a platform, the newest CUDA and torch first."""
    for cuda, torch in product(reversed(parts.cudas), reversed(parts.torches)):
        variant = variant_for(cuda, torch, platform)
        if variant is not None and not cuda_obstacle(parts, cuda, platform):
            for wheel in variant.wheels:
                yield Combination(platform, cuda, torch, variant, wheel)


def variant_for(cuda: CudaRelease, torch: TorchRelease, platform: str) -> TorchVariant | None:
    """The build of a torch that goes with a CUDA: for the same, an older or a newer minor version,
    in this order; of the older ones the newest, of the newer ones the oldest."""
    ours = release(cuda.minor)
    same = [one for one in torch.variants_for(platform) if one.major == cuda.major]
    return min(
        same,
        key=lambda one: (release(one.cuda) > ours, abs(release(one.cuda)[1] - ours[1])),
        default=None,
    )


def cuda_obstacle(parts: Parts, cuda: CudaRelease, platform: str) -> str:
    """Why nothing can be composed of a CUDA on a platform, as a sentence's end, or ''."""
    if platform.startswith("win-") and not msvc_for(parts, cuda):
        return "; ".join(f"MSVC {one.toolset}: {one.obstacle(cuda)}" for one in parts.msvcs)
    if not cuda.archives_for(platform) and not parts.pinned(cuda.packages_for(platform), platform):
        return f"no files of CUDA {cuda.minor} are pinned for {in_words(platform)}"
    return ""


def msvc_for(parts: Parts, cuda: CudaRelease) -> MsvcRelease | None:
    """The newest C++ compiler that a CUDA takes."""
    fitting = (one for one in reversed(parts.msvcs) if not one.obstacle(cuda))
    return next(fitting, None)


# -- what was asked for ----------------------------------------------------------------------------


def platform_of(text: str) -> str:
    """A platform by a user's word for it. Raises UsageError."""
    if text not in PLATFORMS:
        raise UsageError(
            f"{text!r} is not a platform that wheels can be built for",
            where="--platform",
            hint=f"valid: {', '.join(sorted(PLATFORMS))}",
        )
    return PLATFORMS[text]


@dataclass(frozen=True)
class _Asked:
    """A CUDA and a torch, as a version or its first numbers: `12.8`, and a Python; None for what
    was left open."""

    cuda: str | None
    torch: str | None
    python: str | None

    def differing(self, one: Combination) -> tuple[bool, ...]:
        """Which of CUDA, torch and Python are not what was asked for."""
        return (
            not _is(one.cuda.version, self.cuda),
            not _is(one.torch.version, self.torch),
            self.python not in (None, one.python),
        )

    def distance(self, one: Combination) -> tuple[int, float, list[int], bool]:
        """How far a combination is from what was asked for: first by how much of it differs."""
        pairs = (
            (one.cuda.version, self.cuda),
            (one.torch.version, self.torch),
            (one.python, self.python),
        )
        apart = sum(_apart(found, asked) for found, asked in pairs if asked)
        newest = [-number for number in (*release(one.torch.version), *release(one.cuda.version))]
        return sum(self.differing(one)), apart, newest, one.python != self.python


def choose(
    parts: Parts, platform: str, cuda: str | None, torch: str | None, python: str | None, here: str
) -> Combination:
    """The combination that was asked for; of what is left open, the newest.

    cuda, torch: a version, or its first numbers: `12.8`, `2.8`. here: the Python that runs, which
    is taken if none is asked for and there is one. With no CUDA asked for, the newest that the
    torch was built for is taken. Raises UsageError with the reason and the nearest that can be.
    """
    asked = _Asked(cuda, torch, python)
    every = list(combinations(parts, platform))
    found = [one for one in every if not any(asked.differing(one))]
    if not found:
        raise _impossible(parts, platform, asked, every)
    if python is None:
        found = [one for one in found if one.python == here] or found
    newest = max(release(one.torch.version) for one in found)
    found = [one for one in found if release(one.torch.version) == newest]
    # A CUDA that torch was built for, or else the newest that goes with it.
    exact = [one for one in found if one.cuda.minor == one.variant.cuda]
    return max(exact or found, key=lambda one: (release(one.cuda.version), release(one.python)))


def _is(version: str, asked: str | None) -> bool:
    return asked is None or version == asked or version.startswith(f"{asked}.")


def _impossible(
    parts: Parts, platform: str, asked: _Asked, every: Sequence[Combination]
) -> UsageError:
    # Of those that differ in the same way only one, the nearest: somebody keeps torch, and somebody
    # CUDA.
    kinds: dict[tuple[bool, ...], Combination] = {}
    for one in sorted(every, key=asked.distance):
        kinds.setdefault(asked.differing(one), one)
    options = (one.options(with_python=asked.python is not None) for one in kinds.values())
    shown = list(dict.fromkeys(options))[:_NEAREST]
    words = {"--cuda": asked.cuda, "--torch": asked.torch, "--python": asked.python}
    return UsageError(
        f"no toolchain for {in_words(platform)} can be composed of these",
        where=" ".join(f"{option} {value}" for option, value in words.items() if value),
        details=list(_reasons(parts, platform, asked, {one.python for one in every})),
        hint=f"nearest: {'; '.join(shown)}; `invoke toolchains` lists all"
        if shown
        else "`invoke toolchains` lists what can be combined",
    )


def _apart(ours: str, theirs: str) -> float:
    """A distance of versions, by their major and minor numbers."""
    (major, minor), (other_major, other_minor) = map(_first_two, (ours, theirs))
    return abs((major - other_major) * 100 + minor - other_minor)


def _first_two(version: str) -> tuple[int, int]:
    """Of what somebody asked for, too, which may be anything."""
    numbers = [int(number[:9]) for number in re.findall(r"[0-9]+", version)]
    first, second, *_ = (*numbers, 0, 0)
    return first, second


def _reasons(parts: Parts, platform: str, asked: _Asked, pythons: Collection[str]) -> Iterator[str]:
    """What of it there is not, or does not go together. pythons: those that there are at all."""
    cuda, torch, python = asked.cuda, asked.torch, asked.python
    cudas = [one for one in parts.cudas if _is(one.version, cuda)]
    torches = [one for one in parts.torches if _is(one.version, torch)]
    if cuda and not cudas:
        yield f"CUDA {cuda} is not known: {_listed(one.version for one in parts.cudas)}"
    if torch and not torches:
        yield f"torch {torch} is not known: {_listed(one.version for one in parts.torches)}"
    if cuda:
        for one in cudas:
            if obstacle := cuda_obstacle(parts, one, platform):
                yield f"CUDA {one.version}: {obstacle}"
    if python and python.endswith("t") and python[:-1] in pythons:
        yield f"free-threaded Pythons are not supported: --python {python[:-1]}"
    elif python and python not in pythons:
        yield f"Python {python} is not known: {_listed(pythons)}"
    elif torch and cudas:
        for known in torches:
            yield from _torch_reasons(known, cudas, platform, asked)


def _torch_reasons(
    torch: TorchRelease, cudas: Sequence[CudaRelease], platform: str, asked: _Asked
) -> Iterator[str]:
    cuda, python = asked.cuda, asked.python
    variants = torch.variants_for(platform)
    built = f"torch {torch.version} for {in_words(platform)} is built for"
    if not variants:
        yield f"there is no torch {torch.version} with CUDA for {in_words(platform)}"
    elif cuda and not any(one.major == cudas[0].major for one in variants):
        yield f"{built} CUDA {_listed(one.cuda for one in variants)}: another major version"
    elif python and not any(one.wheel_for(python) for one in variants):
        pythons = (wheel.python for one in variants for wheel in one.wheels)
        yield f"{built} Python {_listed(pythons)}"
    elif cuda and python:
        found = variant_for(cudas[-1], torch, platform)
        if found and not found.wheel_for(python):
            pythons = (wheel.python for wheel in found.wheels)
            yield f"with CUDA {found.cuda}, {built} Python {_listed(pythons)}"


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(dict.fromkeys(versions), key=release))


# -- toolchains ------------------------------------------------------------------------------------


def cudas_with(archs: str, parts: Parts) -> list[str]:
    """The CUDAs whose nvcc knows all of these architectures, the newest first; none where they
    are not even a list."""
    try:
        wanted = {request.arch for request in parse_gpu_list(archs)}
    except UsageError:
        return []
    return [one.minor for one in reversed(parts.cudas) if wanted <= set(one.archs)]


def compose(parts: Parts, chosen: Combination) -> Toolchain:
    """The toolchain of a combination. Raises ConfigError where a pin of it has no file.

    What torch decides is in its one build: nothing that is made with the rest depends on torch.
    """
    images = images_for(parts.images(chosen.platform), chosen.cuda, chosen.platform)
    shared = tuple(shared_packages(parts, chosen, images))
    file = assemble(
        parts,
        [chosen],
        name=chosen.name,
        packages=shared,
        builds=(_torch_build(parts, chosen, shared),),
    )
    return file.toolchain()


def images_for(images: ImageParts | None, cuda: CudaRelease, platform: str) -> ImageParts | None:
    """What images of a CUDA are made from; None where there are none: those of Windows are made of
    archives alone."""
    return images if cuda.archives_for(platform) or not platform.startswith("win-") else None


def assemble(
    parts: Parts,
    chosen: Sequence[Combination],
    *,
    name: str,
    packages: tuple[Package, ...],
    builds: tuple[TorchBuild, ...],
    images: ImageParts | None = None,
    msvc: MsvcRelease | None = None,
    archives: Sequence[Archive] | None = None,
    default_torch: str = "",
) -> ToolchainFile:
    """A toolchain's file, of combinations with one CUDA and one platform.

    images, msvc, archives: where not those that are usual for the CUDA.
    """
    cuda, platform = chosen[0].cuda, chosen[0].platform
    windows = platform.startswith("win-")
    pythons = tuple(dict.fromkeys(one.python for one in chosen))
    images = images or parts.images(platform)
    in_images = images_for(images, cuda, platform)
    archives = cuda.archives_for(platform) if archives is None else archives
    return ToolchainFile(
        name=name,
        platform=platform,
        cuda=cuda.minor,
        nvcc=cuda.nvcc,
        archs=cuda.archs,
        gcc=None if windows else (max(one.torch.gcc for one in chosen), cuda.gcc),
        msvc=_msvc_table(msvc or msvc_for(parts, cuda)) if windows else None,
        packages=packages,
        builds=builds,
        default_torch=default_torch,
        cuda_manifest=cuda.manifest if archives else "",
        cuda_files=tuple(_cuda_table(cuda, archive) for archive in archives),
        containers=_containers(in_images, pythons) if in_images else None,
        interpreters=_of(pythons, in_images.interpreters) if in_images else (),
        portable=_of(pythons, images.portable) if images else (),
        wine=images.wine if images else None,
    )


def shared_packages(
    parts: Parts, chosen: Combination, images: ImageParts | None
) -> Iterator[Package]:
    """CUDA, where it comes as packages, and what installs packages into images."""
    cuda, where = chosen.cuda, (chosen.python, chosen.platform)
    if not cuda.archives_for(chosen.platform):
        yield from parts.packages(cuda.packages_for(chosen.platform), *where, "compiler")
        yield from parts.packages(cuda.tools, *where, "build")
    if images:
        yield from parts.packages([images.installer], *where, "installer")


def with_device_from(parts: Parts, toolchain: Toolchain, python: str, platform: str) -> Toolchain:
    """A toolchain with the compilers of its nvcc's version for another platform, which its digest
    then covers. Raises ConfigError where they are not pinned."""
    cuda = next((one for one in parts.cudas if one.nvcc == toolchain.nvcc), None)
    pins = cuda.packages_for(platform) if cuda and not cuda.archives_for(platform) else ()
    if not pins:
        raise ConfigError(
            f"there are no packages with nvcc {toolchain.nvcc} for {in_words(platform)}",
            hint="CUDA has them from 13.0 on: --cuda 13.0",
        )
    packages = tuple(parts.packages(pins, python, platform, "compiler"))
    own = [f"{one.name} {one.version} {one.sha256}" for one in packages]
    digest = hashlib.sha256(json.dumps([toolchain.digest, *own]).encode()).hexdigest()
    return replace(toolchain, digest=digest, device_packages=packages)


def _torch_build(parts: Parts, chosen: Combination, shared: Sequence[Package]) -> TorchBuild:
    """Torch with what it needs and is not shared: of what torch needs of another CUDA (libcudart),
    the CUDA that compiles has its own, which serves both."""
    where = (chosen.python, chosen.platform)
    there = {package.name for package in shared}
    runtime = [*parts.packages(chosen.variant.requires, *where, "runtime"), chosen.wheel.package()]
    packages = (
        *parts.packages(chosen.torch.tools, *where, "build"),
        *sorted(runtime, key=lambda package: package.name),
    )
    return TorchBuild(
        chosen.torch.version,
        chosen.python,
        tuple(package for package in packages if package.name not in there),
    )


def _cuda_table(cuda: CudaRelease, archive: Archive) -> CudaTable:
    return CudaTable(
        name=archive.name,
        version=archive.version,
        url=cuda.url_of(archive),
        size=archive.size,
        sha256=archive.sha256,
    )


def _msvc_table(msvc: MsvcRelease | None) -> MsvcTable:
    assert msvc is not None, "else the CUDA has an obstacle"
    return MsvcTable(**{one.name: getattr(msvc, one.name) for one in fields_of(MsvcTable)})


def _of(pythons: Sequence[str], tables: Sequence[InterpreterTable]) -> tuple[InterpreterTable, ...]:
    return tuple(one for one in tables if one.python in pythons)


def _containers(images: ImageParts, pythons: Sequence[str]) -> Containers | None:
    """The images for some Pythons; None where there can be none."""
    installed = bool(_of(pythons, images.interpreters))
    bases = tuple(
        base
        for base in images.bases
        if set(pythons) & set(base.pythons) or (installed and not base.pythons)
    )
    return Containers(images.os, images.os_build, bases) if bases else None
