"""Links relocatable device code (nvcc -rdc=true): one nvlink for each architecture.

What the project links with one `nvcc -dlink` for its own architectures is linked here for those of
the build, each by a call of its own, side by side, and kept in the store: the image of an
architecture under a key over all that is linked. The object that the project gets is what one call
for all architectures makes (nvcc 13.0.88, `--dryrun`): nvlink runs once for each cubin that is
asked for, fatbinary puts the results in one container, and g++ compiles crt/link.stub, which
registers them. PTX is not linked: that of the units stays in the library, and drivers link it anew.

nvlink writes its command line into what it makes (`.note.nv.tkinfo`), folders of libraries as well.
So it sees copies of what it reads, at the same places in each build.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..arch import parse_arch
from ..compilers.commands import DeviceLink
from ..compilers.hosts import family_of
from ..errors import CompileError, FatwheelError, FormatError, OutOfMemoryError
from ..fatbin.container import Entry, parse_containers, write_container
from ..fatbin.elf import EM_CUDA, FATBIN_SECTIONS, MAGIC, read_elf
from ..fatbin.stitch import (
    image_name,
    nvcc_order,
    slices_of,
    stitch_object,
    without_device_code,
)
from ..model import Front
from ..storage.store import Store
from . import bypass
from .context import Context, digest
from .processes import run_measured
from .roots import job_folder
from .slices import killed_for_memory, load_slice
from .view import Marks, abstract

_DEVICE_LIBRARY = "cudadevrt"  # nvcc links it unless it is told not to
# What nvcc adds where it links for several architectures. nvlink writes it into each image.
_ONE_OF_SEVERAL = ("-Xnvlink", "-report-arch")
_UNDEFINED = (
    "is each of these symbols defined in a source that the project compiles with -rdc=true for the "
    "same library, and is it there for {}?"
)
# nvcc wants an input, also where it links libraries alone: a static one without members.
_NOTHING, _NO_MEMBERS = "nothing.a", b"!<arch>\n"
_PLACES = re.compile(r"(?:in|lib|path)/\d+/")  # of copies in a job's folder


@dataclass(frozen=True)
class Linked:
    """An object with linked device code; slices: the sha256 of its images, by their names."""

    data: bytes
    slices: Mapping[str, str]


@dataclass(frozen=True)
class _Job:
    """The link for one architecture.

    name: of the object that is made. command: of nvcc, less its output. files: names in the job's
    folder, and what is copied there. searched: what LIBRARY_PATH says. key: of its results in the
    store.
    """

    name: str
    code: str
    command: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]
    searched: tuple[str, ...]
    key: str


def images_of(paths: Iterable[str]) -> frozenset[str]:
    """The relocatable images (`sm_80`, `compute_80`) in objects, and in those of static libraries;
    nothing of files that are no such thing, or not there."""
    return frozenset(name for path in paths for name in _images_in(path))


def _images_in(path: str) -> Iterator[str]:
    with suppress(OSError, ValueError, FormatError):
        archive = path.endswith(".a")
        contents = bypass.members(Path(path)) if archive else [("", bypass.content_of(Path(path)))]
        for _, content in contents:
            yield from _images(content)


def _images(data: bytes) -> Iterator[str]:
    if data.startswith(MAGIC):
        elf = read_elf(data)
        relocatable = elf.named(FATBIN_SECTIONS[1]) if elf.machine != EM_CUDA else ()
        for section in relocatable:
            for container in parse_containers(elf.content(section)):
                yield from map(image_name, container.entries)


def link_device_code(
    context: Context,
    store: Store,
    link: DeviceLink,
    name: str,
    marks: Marks,
    fronts: Sequence[Front],
) -> Linked | None:
    """The object that a link makes, for the architectures of the build that its inputs have code
    for; None where none of them has relocatable device code, so that the project's own command may
    do what it does.

    name: the object's, for messages. marks: folders that the command may name. Raises CompileError
    where it does not link, OutOfMemoryError, FormatError.
    """
    folders = (*link.folders, *link.library_path)
    images = images_of(link.inputs) | images_of(map(str, _libraries(link, folders)))
    if not images:
        return None
    asked = [code for front in fronts for code in front.codes if code.startswith("sm_")]
    codes = [code for code in asked if code in images] or asked
    if link.unsupported:
        raise CompileError(
            f"device code that is compiled when it is linked ({link.unsupported}) is not supported",
            where=name,
        )
    jobs = [_job(context, link, name, marks, code, len(codes) > 1) for code in codes]
    made = _all(context, store, jobs)
    entries = [entry for image, _ in made for entry in load_slice(image)]
    digests = [hashlib.sha256(image).hexdigest() for image, _ in made]
    # As with one nvcc call, in which the last nvlink tells what is registered.
    return Linked(
        stitch_object(made[-1][1], nvcc_order(entries)), dict(zip(codes, digests, strict=True))
    )


def _libraries(link: DeviceLink, folders: Iterable[str]) -> Iterator[Path]:
    """The static libraries that a link may find in these folders."""
    names = dict.fromkeys([*link.libraries, _DEVICE_LIBRARY])
    places = (Path(folder, f"lib{name}.a") for folder in folders for name in names)
    return (place for place in places if place.is_file())


# -- jobs ------------------------------------------------------------------------------------------


def _job(
    context: Context, link: DeviceLink, name: str, marks: Marks, code: str, several: bool
) -> _Job:
    places, family = context.places, family_of(context.cxx)
    inputs = [(f"in/{n}/{os.path.basename(one)}", Path(one)) for n, one in enumerate(link.inputs)]
    folders, copies = _folders(context, link, marks)
    searched, more = _searched(link)
    options = [places.in_view(abstract(word, marks)) for word in link.options]
    steady = family.steady(places.mapped(), digest("seed", "link", name)[:16])
    arch = parse_arch(code)
    command = (
        places.in_view(context.nvcc), *family.of_nvcc(context.cxx, steady), "-dlink", *options,
        *(f"-L{folder}" for folder in folders), *(f"-l{library}" for library in link.libraries),
        *([place for place, _ in inputs] or [_NOTHING]), *(_ONE_OF_SEVERAL if several else ()),
        "-gencode", f"arch={arch.compute},code={code}",
    )  # fmt: skip
    files = (*inputs, *copies, *more)
    found = _libraries(link, [*link.folders, *_own_folders(context)])
    contents = [[place, _digest_of(path)] for place, path in files]
    contents += [["", _digest_of(path)] for path in found]
    key = digest("link", context.device_id, context.host_id, command, contents)
    return _Job(name, code, command, files, searched, key)


def _folders(
    context: Context, link: DeviceLink, marks: Marks
) -> tuple[list[str], list[tuple[str, Path]]]:
    """The folders for libraries as the job sees them, and what is copied there. Those of the
    environment it sees anyway; of others it gets what it may link."""
    folders: list[str] = []
    copies: list[tuple[str, Path]] = []
    for number, folder in enumerate(link.folders):
        named = abstract(folder, marks)
        if named.startswith("@") and not named.startswith("@src@"):
            folders.append(context.places.in_view(named))
            continue
        folders.append(f"lib/{number}")
        copies += [(f"lib/{number}/{found.name}", found) for found in _libraries(link, [folder])]
    return folders, copies


def _searched(link: DeviceLink) -> tuple[tuple[str, ...], list[tuple[str, Path]]]:
    """As `_folders`, those of LIBRARY_PATH that have something to link: nvlink looks there last,
    and its command line does not say so."""
    copies = [
        (f"path/{number}/{found.name}", found)
        for number, folder in enumerate(link.library_path)
        for found in _libraries(link, [folder])
    ]
    return tuple(dict.fromkeys(os.path.dirname(place) for place, _ in copies)), copies


def _own_folders(context: Context) -> list[str]:
    """Where nvcc itself looks for libraries."""
    home = Path(context.places.real(context.places.in_view("@cuda@/lib"))).parent
    return [str(home / "lib"), str(home / "lib64"), *map(str, sorted(home.glob("targets/*/lib")))]


def _digest_of(path: Path) -> str:
    """Of a file's content; of a static library's its members', which a thin one only names."""
    if path.suffix == ".a":
        with suppress(ValueError):
            found = bypass.members(path)
            return digest([(name, hashlib.sha256(content).hexdigest()) for name, content in found])
    return bypass.sha256_of(path)


def _all(context: Context, store: Store, jobs: Sequence[_Job]) -> list[tuple[bytes, bytes]]:
    """What the jobs make: an image, as the store keeps slices, and an object without device code.

    As many run at a time as there are processors; those that are killed for lack of memory run
    again, one after the other.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(lambda job: _stored(store, job) or _run(context, store, job), jobs))
    return [
        _run(context, store, job) or _give_up(job) if found is None else found
        for job, found in zip(jobs, made, strict=True)
    ]


def _give_up(job: _Job) -> tuple[bytes, bytes]:
    raise OutOfMemoryError(
        "the link of device code was killed for memory",
        where=f"{job.name} [{job.code}]",
        hint="give the build more memory",
    )


def _stored(store: Store, job: _Job) -> tuple[bytes, bytes] | None:
    image, host = store.get("slice", job.key), store.get("host", job.key)
    if image is None or host is None:
        return None
    try:
        load_slice(image)
    except FormatError:
        return None  # it is made again
    return image, host


def _run(context: Context, store: Store, job: _Job) -> tuple[bytes, bytes] | None:
    """Link, and keep the results; None where it was killed for lack of memory."""
    family = family_of(context.cxx)
    with job_folder(Path(context.scratch), job.key[:12]) as folder:
        context.places.link_into(folder)
        (folder / "keep").mkdir()
        (folder / _NOTHING).write_bytes(_NO_MEMBERS)
        for name, source in job.files:
            _copy(source, folder / name)
        keeping = ["--keep", "--keep-dir", "keep", "-o", family.object_name]
        command = context.places.shown([*job.command, *keeping])
        variables = context.variables(folder)
        if job.searched:
            variables["LIBRARY_PATH"] = os.pathsep.join(job.searched)
        usage = run_measured(command, folder, variables)
        if killed_for_memory(context, usage):
            return None
        if usage.returncode != 0:
            raise _failure(job, usage.output)
        data = (folder / family.object_name).read_bytes()
    image, host = write_container(_image(job, data)), without_device_code(data)
    store.put("slice", job.key, image)
    store.put("host", job.key, host)
    return image, host


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".a" and bypass.is_thin(source):
        target.write_bytes(bypass.whole(source))  # it names its members from its own folder on
    else:
        shutil.copyfile(source, target)


def _image(job: _Job, data: bytes) -> tuple[Entry, ...]:
    try:
        entries = slices_of(data)
    except FormatError as error:
        raise error.within(f"{job.name} [{job.code}]") from error
    if [image_name(entry) for entry in entries] != [job.code]:
        raise FormatError(
            f"nvlink made {len(entries)} images, not one for {job.code}", where=job.name
        )
    return entries


def _failure(job: _Job, output: str) -> FatwheelError:
    lines = [_PLACES.sub("", line) for line in output.rstrip().splitlines()]
    undefined = any("Undefined reference" in line for line in lines)
    return CompileError(
        f"the device code does not link for {job.code}",
        where=job.name,
        details=lines,
        hint=_UNDEFINED.format(job.code) if undefined else None,
    )
