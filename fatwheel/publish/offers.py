"""What an index says of a wheel, and wheels.json of a site: what it offers, and where the files
are.

All of it is read from the wheel's bytes, nothing from its file name but the name itself and the
tags in it, by which installers go. wheels.json is what a site was made from, so that wheels which
are there already need not be read again.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..arch import NONE
from ..errors import FatwheelError, FormatError, UsageError
from ..provenance.origin import read_origin
from ..provenance.record import UNPROVEN, record_of
from ..storage import files
from ..storage.cache import open_store
from ..storage.documents import json_bytes, read_value
from ..storage.files import readable
from ..verify.contents import gpus
from ..verify.inspect import inspect_units
from ..wheels.archive import Wheel, open_wheel
from ..wheels.metadata import (
    fields,
    local_cuda,
    local_torch,
    minor,
    name_disagreement,
    required_torch,
)
from ..wheels.name import WheelName, canonical_project, canonical_version, parse_wheel_name

# The files in a wheel's dist-info folder that an index shows beside it, and what it calls them.
PAPERS = {"fatwheel.provenance.json": ".provenance.json", "sboms/": ".cdx.json"}
# In the key under which a wheel that was read is remembered: raise it when an Offer changes.
_FORMAT = 3

# wheels.json of a site may be anybody's, and these become parts of paths and URLs.
Text = Annotated[str, StringConstraints(max_length=2000)]
Project = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=200)]
VersionText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.+!_-]?[a-z0-9]+)*$")]
Suffix = Annotated[str, StringConstraints(pattern=r"^(\.[a-z]{1,20}){1,3}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Release = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,3}\.[0-9]{1,3})?$")]
Capability = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]$")]
# Of what names of wheels are read as: no slash, no space, nothing that HTML or a shell sees.
_FILENAME = r"^[A-Za-z0-9_.+!]{1,200}(-[A-Za-z0-9_.+!]{1,400}){4,6}\.whl$"
Filename = Annotated[str, StringConstraints(pattern=_FILENAME, max_length=1000)]


_NOT_EMPTY = Field(max_length=len(UNPROVEN), exclude_if=operator.not_)


class ServedGpu(BaseModel):
    """How GPUs of a compute capability run a wheel's code, and the oldest driver for all of it.

    how: 'native', 'jit', 'part' or 'unknown', as `inspect` says it. driver: '' where it cannot be
    told from the bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: Annotated[str, StringConstraints(pattern="^(native|jit|part|unknown)$")]
    driver: Text = ""


class Offer(BaseModel):
    """One wheel of an index.

    filename, sha256, size (bytes): of the file. project, version: in their normal spelling.
    tags: those by which installers go, of the file name.
    summary, requires_python: as METADATA has them. metadata: the sha256 of METADATA.
    cuda, torch: `13.0` and `2.11`, or '' where the wheel names none. images: the architectures of
    its device code, `sm_80` and `compute_90`. gpus: by compute capability, of those that run any
    of it. newest: the newest time of its files, in seconds since 1970. papers: what is shown beside
    it, by suffix: the sha256. unproven: as `provenance.record.unproven` has it; only written where
    it is not empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: Filename
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    project: Project
    version: VersionText
    summary: Text
    tags: Annotated[tuple[Text, ...], Field(max_length=1000)]
    requires_python: Text
    metadata: Sha256
    cuda: Release
    torch: Release
    images: Annotated[tuple[Text, ...], Field(max_length=200)]
    gpus: dict[Capability, ServedGpu]
    newest: Annotated[int, Field(ge=0, lt=1 << 33)]  # in years of four digits, as pages show it
    papers: dict[Suffix, Sha256]
    unproven: Annotated[tuple[Literal["shared", "split", "fast"], ...], _NOT_EMPTY] = ()

    @property
    def channel(self) -> str:
        """The folder of the channel that it is in: `cu130/torch2.11`, `cu130`; '' for none."""
        if not self.cuda:
            return ""
        folder = "cu" + self.cuda.replace(".", "")
        return f"{folder}/torch{self.torch}" if self.torch else folder


class ReadWheel(BaseModel):
    """A wheel that was read, and the texts that an index puts beside it, by suffix."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    offer: Offer
    texts: dict[str, bytes]


def read_offer(path: Path, parse: Callable[[str], WheelName] = parse_wheel_name) -> ReadWheel:
    """Read a wheel for an index. What was read is remembered in the store: a file of the same
    place, size and times is opened for its texts only. parse: reads the names that are expected.

    UsageError where there is no such file; FormatError where it is no wheel, is damaged, or where
    its file name and what is in it disagree.
    """
    key = _key(path)
    known = open_store().get_json("offer", key)
    with readable(path, "a wheel"), open_wheel(path) as wheel:
        name = parse(path.name)
        texts = dict(_texts(wheel))
        offer = _known(known) if known else None
        if offer is None:
            _check_names(name, wheel)
            try:
                offer = _offer(path, name, wheel, texts)
            except ValidationError as error:
                wrong = error.errors()[0]
                raise FormatError(
                    f"an index cannot say its {wrong['loc'][0]}: {wrong['msg']}", where=path.name
                ) from error
            open_store().put_json("offer", key, offer.model_dump(mode="json"))
    return ReadWheel(path=path, offer=offer, texts=texts)


def _key(path: Path) -> str:
    """What tells a file from all others, as far as that goes without reading it."""
    try:
        seen = path.stat()
    except OSError:
        return hashlib.sha256(b"").hexdigest()
    what = [_FORMAT, path.name, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns]
    gpu_names = [(gpu.capability, gpu.names) for gpu in gpus()]
    return hashlib.sha256(json.dumps([*what, seen.st_ctime_ns, gpu_names]).encode()).hexdigest()


def _known(content: Any) -> Offer | None:
    try:
        return Offer.model_validate(content)
    except ValueError:
        return None


def _check_names(name: WheelName, wheel: Wheel) -> None:
    """Tags are another matter: of published wheels many were renamed for manylinux, and WHEEL was
    left as it was."""
    metadata = wheel.read(f"{wheel.dist_info}/METADATA")
    wrong = name_disagreement(name, wheel.dist_info, metadata)
    if wrong:
        raise wrong


def _offer(path: Path, name: WheelName, wheel: Wheel, texts: Mapping[str, bytes]) -> Offer:
    metadata = texts[METADATA]
    report = inspect_units(path)
    sha256, size = wheel.digest()
    cuda, torch = _built_for(wheel, metadata, report)
    python = fields(metadata, "Requires-Python")
    summary = fields(metadata, "Summary")
    return Offer(
        filename=path.name,
        sha256=sha256,
        size=size,
        project=canonical_project(wheel.name),
        version=canonical_version(wheel.version),
        summary=summary[0][:2000] if summary else "",
        tags=tuple(sorted(name.tags)),
        requires_python=python[0][:2000] if python else "",
        metadata=hashlib.sha256(metadata).hexdigest(),
        cuda=cuda,
        torch=torch,
        images=_images(report),
        gpus=_served(report),
        newest=wheel.newest,
        papers={
            suffix: hashlib.sha256(text).hexdigest()
            for suffix, text in texts.items()
            if suffix != METADATA
        },
        unproven=(report["wheel"] or {}).get("unproven", ()),
    )


METADATA = ".metadata"


def _texts(wheel: Wheel) -> Iterator[tuple[str, bytes]]:
    """METADATA, the statement and the first SBOM, by the suffixes of the files beside a wheel."""
    yield METADATA, wheel.read(f"{wheel.dist_info}/METADATA")
    names = sorted(member.name.removeprefix(f"{wheel.dist_info}/") for member in wheel.members)
    for start, suffix in PAPERS.items():
        inside = [name for name in names if name.startswith(start) and name.endswith(".json")]
        if inside:
            yield suffix, wheel.read(f"{wheel.dist_info}/{inside[0]}")


# -- what a wheel was built for --------------------------------------------------------------------


def _built_for(wheel: Wheel, metadata: bytes, report: Mapping[str, Any]) -> tuple[str, str]:
    """CUDA and torch, each to the minor number: what a record of the build says, and else what the
    machine code, the version and the requirements in METADATA say."""
    origin, _ = read_origin(wheel)
    recorded = record_of(origin.record).content() if origin else {}
    local = wheel.version.partition("+")[2].lower()
    cuda = minor(recorded.get("toolchain", {}).get("cuda")) or _cuda(report) or local_cuda(local)
    torch = minor(recorded.get("torch")) or local_torch(local) or required_torch(metadata)
    return cuda, torch


def _cuda(report: Mapping[str, Any]) -> str:
    """The newest CUDA that made any of the machine code."""
    versions = {
        tuple(map(int, image["version"].split(".")))
        for binary in report["binaries"]
        for unit in binary["units"]
        for image in unit["images"]
        if image["kind"] == "elf" and image["version"]
    }
    return ".".join(map(str, max(versions))) if versions else ""


def _images(report: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            image["arch"]
            for binary in report["binaries"]
            for image in binary["images"]
            if image["kind"] in ("elf", "ptx")
        )
    )


def _served(report: Mapping[str, Any]) -> dict[str, ServedGpu]:
    """By compute capability, of the GPUs that run any of it: how, and the newest of the drivers
    that the binaries need there."""
    return {
        capability: ServedGpu(how=how, driver=_driver(report["binaries"], capability))
        for capability, how in report["coverage"].items()
        if how != "none"
    }


def _driver(binaries: Iterable[Mapping[str, Any]], capability: str) -> str:
    """'' where one that serves it does not tell what it needs."""
    serving = [one for one in binaries if one["coverage"].get(capability) not in (None, NONE)]
    needs = [one["drivers"].get(capability) for one in serving]
    return max((need["driver"] for need in needs), key=Version, default="") if all(needs) else ""


# -- wheels.json -----------------------------------------------------------------------------------

LIST = "wheels.json"
_MOST = 256 << 20  # bytes of wheels.json; that of 2,000 wheels has 3 MiB
_MOST_VALUES = 5_000_000
_BASE = re.compile(r"https?://[A-Za-z0-9._~:/\[\]@%+,=-]+")


_Value = Annotated[str, StringConstraints(pattern=r"^[0-9]{2,3}_(real|virtual)$")]


class Variant(BaseModel):
    """What makes a wheel a variant of another. of: the sha256 of that. cuda: the oldest that the
    driver must know. sm_arch: values of the provider of variants, any of which will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Sha256
    cuda: Annotated[str, StringConstraints(pattern=r"^[0-9]{2}\.[0-9]{1,2}$")]
    sm_arch: Annotated[tuple[_Value, ...], Field(min_length=1, max_length=100)]

    @property
    def label(self) -> str:
        """`cu124_sm86`, `cu128_ptx100_ptx120`: equal ones say the same."""
        said = (value.split("_") for value in self.sm_arch)
        names = (f"{'sm' if kind == 'real' else 'ptx'}{number}" for number, kind in said)
        return "_".join([f"cu{self.cuda.replace('.', '')}", *names])


class Placed(BaseModel):
    """An offer, and where its file is: `files/` of the site, or under a base URL.

    base: '' for the site itself. beside: whether METADATA can be had at the file's URL with
    `.metadata` after it. variant: where it is a variant of another wheel of the site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offer: Offer
    base: Annotated[str, StringConstraints(max_length=2000)] = ""
    beside: bool = True
    variant: Variant | None = None

    def url(self, root: str) -> str:
        """Of the file, for a page from which the site's top is at `root` (`../../`)."""
        return (self.base or f"{root}files/") + quote(self.offer.filename)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    wheels: Annotated[tuple[Placed, ...], Field(max_length=100_000)]


def checked_base(url: str) -> str:
    """With a slash at its end."""
    if not url:
        return ""
    parts = None
    with suppress(ValueError):  # of brackets around what is no address
        parts = urlsplit(url) if _BASE.fullmatch(url) else None
    if parts is None or not parts.hostname or "@" in parts.netloc:
        raise UsageError(
            f"{url!r} is no URL of a folder of wheels",
            where="--base-url",
            hint="valid: https://github.com/ORG/REPOSITORY/releases/download/TAG",
        )
    return url.rstrip("/") + "/"


def read_list(out: Path) -> tuple[Placed, ...]:
    """What the site offers already."""
    path = out / LIST
    data = files.read_plain(path, _MOST + 1)
    if data is None and os.path.lexists(path):
        raise FormatError("it is no file, but a link, a folder or a pipe", where=str(path))
    if data is None:
        # A new repository of git's is an empty folder, too.
        others = out.exists() and any(path.name[0] != "." for path in out.iterdir())
        if others and not (out / "files").is_dir():
            raise UsageError(
                f"there are files, but no {LIST}: it is no site of fatwheel's",
                where=str(out),
                hint="use another folder, or an empty one",
            )
        return ()
    try:
        return parse_list(data, str(path))
    except FormatError as error:
        raise FormatError(
            error.what,
            where=error.where,
            hint="delete it and name all wheels of the site once more",
        ) from error


def parse_list(data: bytes, where: str) -> tuple[Placed, ...]:
    """What a wheels.json offers, whoever wrote it. FormatError where it is none."""
    try:
        content = read_value(data, where, _MOST, _MOST_VALUES)
        found = _List.model_validate(content).wheels
        for one in found:
            Version(one.offer.version)
            if one.base != checked_base(one.base):
                raise FormatError(f"{one.base!r:.100} does not end with a slash")
        return found
    except (ValueError, FatwheelError) as error:  # a number of 5000 digits is no version, either
        raise FormatError(
            f"it is damaged or of another version of fatwheel: {str(error).splitlines()[0]}",
            where=where,
        ) from error


def joined(before: Sequence[Placed], new: Sequence[Placed]) -> list[Placed]:
    """One for each file name. UsageError where two have one name and other bytes."""
    by_name: dict[str, Placed] = {}
    clashes = []
    for one in (*before, *new):
        known = by_name.get(one.offer.filename)
        if known and known.offer.sha256 != one.offer.sha256:
            clashes.append(one.offer.filename)
        by_name[one.offer.filename] = one
    if clashes:
        raise UsageError(
            "wheels of one name have different bytes",
            details=sorted(set(clashes)),
            hint="give one of them another version or build tag: who has installed the one by its "
            "hash must not get the other. To replace what a site offers, use --only",
        )
    return list(by_name.values())


def ordered(placed: Iterable[Placed]) -> tuple[Placed, ...]:
    return tuple(
        sorted(
            placed,
            key=lambda one: (one.offer.project, Version(one.offer.version), one.offer.filename),
        )
    )


def list_bytes(offered: Sequence[Placed]) -> bytes:
    """The file."""
    return json_bytes(_List(wheels=tuple(offered)).model_dump(mode="json", by_alias=True))
