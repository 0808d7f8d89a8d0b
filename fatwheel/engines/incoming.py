"""Takes results into the store: from a container's incoming folder, the only one that it can write
to, and from workers on other machines.

Strangers' builds ran in it, and compilers may still do. So whatever has a name there is opened
from its folder's descriptor, one name after the other, and only if it is what it should be: no
link is followed, no pipe or device is opened, nothing is listed or deleted. Files are read within
limits, in pieces, and what comes into the store must have the digest that was reported.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import EngineError, FormatError, ToolchainError
from ..model import Job
from ..storage.documents import read_value
from ..storage.files import copy, disk_error, replacing
from ..storage.store import Store, StoreEntry
from ..worker.context import Context
from ..worker.inside import BRANCH
from ..worker.preprocess import Texts, pass_of, with_variant
from ..worker.slices import digest_of_stub, known_stub, made_keys, passes_of
from ..worker.stages import follows_front

# Bytes of one entry, by its kind; no other kind is taken.
LIMITS = {
    "slice": 1 << 30, "host": 1 << 30, "abi": 64 << 20, "text": 16 << 20, "seen": 64,
    "ptx": 1 << 30, "stub": 64 << 20, "program": 128,
}  # fmt: skip
_MOST_VALUES = 400_000  # of the record of a text: 6 variants of 5,000 files have 120,000
_SHOWN = 20  # files of a text
LARGEST_WHEEL = 16 << 30  # bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = _FLAGS | getattr(os, "O_DIRECTORY", 0)
_FILE = _FLAGS | getattr(os, "O_NONBLOCK", 0)


class _Checked:
    """A stream that may be no longer than `most` bytes, and must have a digest if one is given."""

    def __init__(self, stream: BinaryIO, name: str, most: int, sha256: str | None = None) -> None:
        self._stream = stream
        self._name = name
        self._left = most
        self._sha256 = sha256
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        try:
            data = self._stream.read(size)
        except OSError as error:
            raise _refused(self._name, error.strerror or str(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise _refused(self._name, "it is too large")
        if self._sha256 is not None:
            self._digest.update(data)
            if not data and self._digest.hexdigest() != self._sha256:
                raise _refused(self._name, "its content does not match its name")
        return data


def take(folder: Path, entries: Sequence[StoreEntry], job: Job, store: Store) -> None:
    """Bring the entries that a job made from a container's folder into a store.

    What the store holds already stays as it is. Raises EngineError where something is not what
    the job can have made or not what it is called, StoreError where the store takes nothing.
    """
    _check(entries, job)
    for kind, key, sha256 in entries:
        if kind == "text":
            _take_text(folder, key, sha256, store)
        elif kind == "program" or not store.has(kind, key):
            with _entry(folder, kind, sha256) as stream:
                store.put_stream(kind, key, stream)


def take_bundle(
    files: Mapping[str, bytes],
    entries: Sequence[StoreEntry],
    job: Job,
    context: Context,
    texts: Texts,
    store: Store,
) -> None:
    """Bring the entries that a job made on another machine into a store.

    files: their bytes, by `KIND/KEY`. context and texts are this machine's. All that decides a key
    is known here but the texts, so every key is computed again, by the texts as the worker tells
    them. It may tell them only if each came of files that are the same here: what it has made is
    then what would be made here.

    Raises EngineError where something is not what the job can have made, ToolchainError where it
    was made of other files, StoreError where the store takes nothing.
    """
    _check(entries, job)
    if set(files) != {f"{kind}/{key}" for kind, key, _ in entries}:
        raise _refused("the list of entries", "other entries came than are listed")
    for kind, key, sha256 in entries:
        data = files[f"{kind}/{key}"]
        if len(data) > LIMITS[kind]:
            raise _refused(f"{kind}/{key}", "it is too large")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _refused(f"{kind}/{key}", "its content does not match its digest")
    found = {(kind, key): files[f"{kind}/{key}"] for kind, key, _ in entries}
    variants = {key: _newest(data) for (kind, key), data in found.items() if kind == "text"}
    _check_keys(found, variants, job, context, texts, store)
    for variant in variants.values():
        _check_files(variant, job, texts)
    for (kind, key), data in found.items():
        if kind == "text":
            add_variant(variants[key], key, store)
        elif not store.has(kind, key):
            store.put(kind, key, data)


def _check_keys(
    found: Mapping[tuple[str, str], bytes],
    variants: Mapping[str, dict[str, Any]],
    job: Job,
    context: Context,
    texts: Texts,
    store: Store,
) -> None:
    """Refuse entries under other keys than those that the job makes of its texts."""
    front = pass_of(job.front)
    if follows_front(job) and texts.key(job.unit, front) in variants:
        job = replace(job, stage="whole")  # the front ran there once more
    digests: dict[str, str] = {}
    for pass_ in passes_of(job):
        variant = variants.get(texts.key(job.unit, pass_))
        text = variant["text"] if variant else None
        if pass_ == front and follows_front(job):
            text = texts.recorded(job.unit, front)
        if text is None:
            raise _refused("the list of entries", f"the record of its text {pass_} is not there")
        digests[pass_] = text
    stubs = {_stub_of(data) for (kind, _), data in found.items() if kind == "abi"}
    stubs |= {digest_of_stub(context, data) for (kind, _), data in found.items() if kind == "stub"}
    if job.host and job.front and follows_front(job):
        stubs |= {known_stub(texts, context, store, job.unit, job.front) or ""}
    if len(stubs) > 1:
        raise _refused("the list of entries", "one front has several stubs")
    keys = made_keys(context, texts, job, digests, next(iter(stubs), None))
    if set(found) != set(keys):
        raise _refused("the list of entries", "it has other keys than the job's")
    if any(data != b"true" for (kind, _), data in found.items() if kind == "seen"):
        raise _refused("the list of entries", "an entry 'seen' is not true")


def _check_files(variant: dict[str, Any], job: Job, texts: Texts) -> None:
    others = texts.others(variant)
    if others:
        raise ToolchainError(
            f"{others[0]} is another file there than on this machine",
            where=job.label,
            hint="the same Linux distribution, with the same updates, has the same headers",
            details=others[1:_SHOWN],
        )
    if variant["archlist"] != texts.archlist(job.unit, variant["files"]):
        raise _refused("the record of a text", "it has another list of architectures")


def _stub_of(data: bytes) -> str:
    """The digest of the stub that a slice came with. Refuses what is no such record."""
    try:
        found = read_value(data, "", LIMITS["abi"], _MOST_VALUES)
    except FormatError as error:
        raise _refused("the record of a slice", error.what) from error
    match found:
        case {"kernels": dict(kernels), "managed": list(managed), "stub": str(stub)} if (
            len(found) == 3
            and all(layout is None or isinstance(layout, str) for layout in kernels.values())
            and all(isinstance(name, str) for name in managed)
            and _SHA256.fullmatch(stub)
        ):
            return stub
    raise _refused("the record of a slice", "it is not a valid record")


def _check(entries: Sequence[StoreEntry], job: Job) -> None:
    """Refuse what the job was not asked for."""
    images = len(job.front.codes) if job.front else 0
    passes = bool(job.front) + job.host
    fronts = int(job.front is not None)
    most = {
        "slice": images, "abi": images, "text": passes, "seen": passes, "host": int(job.host),
        "ptx": fronts, "stub": fronts, "program": 3 * fronts,
    }  # fmt: skip
    if len(set(entries)) != len(entries) or len({entry[:2] for entry in entries}) != len(entries):
        raise _refused("the list of entries", "it names an entry twice")
    for kind, count in Counter(kind for kind, _, _ in entries).items():
        if count > most.get(kind, 0):
            raise _refused(
                "the list of entries",
                f"{count} entries of kind {kind!r}, but the job can make at most "
                f"{most.get(kind, 0)}",
            )
    for _, key, sha256 in entries:
        if not (_SHA256.fullmatch(key) and _SHA256.fullmatch(sha256)):
            raise _refused("the list of entries", "it has an invalid key or digest")


def _take_text(folder: Path, key: str, sha256: str, store: Store) -> None:
    """Add the newest variant of a text's record to those that are known."""
    with _entry(folder, "text", sha256) as stream:
        data = bytearray()
        while piece := stream.read(1 << 20):
            data += piece
    add_variant(_newest(bytes(data)), key, store)


def _newest(data: bytes) -> dict[str, Any]:
    """The newest variant in the record of a text. Refuses what is none."""
    try:
        return variants_in(data)[0]
    except FormatError as error:
        raise _refused("the record of a text", error.what) from error


def variants_in(data: bytes) -> list[dict[str, Any]]:
    """The variants of a text's record, newest first. FormatError where it is none."""
    found = read_value(data, "", LIMITS["text"], _MOST_VALUES)
    if not (isinstance(found, list) and found and all(map(_is_variant, found))):
        raise FormatError("it is not a valid record")
    return found


def add_variant(variant: dict[str, Any], key: str, store: Store) -> None:
    """Add a variant to those that a store knows of a text."""
    known = store.get_json("text", key)
    store.put_json("text", key, with_variant(variant, known if isinstance(known, list) else []))


def _is_variant(value: Any) -> bool:
    """Whether this is a valid record of a text, as `Texts.record` writes it."""
    if not isinstance(value, dict) or set(value) != {"text", "archlist", "files"}:
        return False
    archs, files = value["archlist"], value["files"]
    return (
        isinstance(value["text"], str)
        and _SHA256.fullmatch(value["text"]) is not None
        and (archs is None or (isinstance(archs, list) and all(type(a) is int for a in archs)))
        and isinstance(files, list)
        and all(isinstance(file, list) and _is_file(file) for file in files)
    )


def _is_file(file: list[Any]) -> bool:
    """Whether this is a file's name, its digest if there is one, and whether it has the list."""
    if len(file) != 3:
        return False
    name, sha256, lists = file
    return isinstance(name, str) and isinstance(sha256, str | None) and isinstance(lists, bool)


@contextmanager
def _entry(folder: Path, kind: str, sha256: str) -> Iterator[_Checked]:
    """The bytes of an entry in the branch that a container wrote."""
    names = (BRANCH, "objects", sha256[:2], sha256)
    with _opened(folder, names, LIMITS[kind]) as stream:
        yield _Checked(stream, "/".join(names), LIMITS[kind], sha256)


# -- files and folders ---------------------------------------------------------------------------


def take_file(folder: Path, names: Sequence[str], target: Path, most: int) -> None:
    """Copy a file of at most so many bytes. Raises EngineError where there is no such file, and
    StoreError where it cannot be written."""
    with _opened(folder, names, most) as stream:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as out:
                copy(_Checked(stream, "/".join(names), most), out)
        except OSError as error:
            doing = f"keep {names[-1]}"
            raise disk_error(error, doing, target, "FATWHEEL_CACHE=FOLDER") from error


def take_folder(folder: Path, name: str, target: Path) -> bool:
    """Move a folder to its place, as it is; False where there is none of that name.

    Nothing may run in the container any more. Raises EngineError where it is something else.
    """
    try:
        found = (folder / name).lstat()
        if not stat.S_ISDIR(found.st_mode) or getattr(found, "st_reparse_tag", False):
            raise _refused(name, "it is not a folder")
        (folder / name).rename(target)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused(name, error.strerror or str(error)) from error
    return True


@contextmanager
def _opened(folder: Path, names: Sequence[str], most: int) -> Iterator[BinaryIO]:
    """A plain file below a container's folder."""
    shown = "/".join(names)
    if not all(_NAME.fullmatch(name) for name in names):
        raise _refused(shown, "it has an unexpected name")
    try:
        opened = open_below(folder, names)
    except OSError as error:
        raise _refused(shown, error.strerror or str(error)) from error
    facts = os.fstat(opened)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
        os.close(opened)
        plain = stat.S_ISREG(facts.st_mode)
        why = (
            f"it has {facts.st_size} bytes, more than {most}"
            if plain
            else "it is not a regular file"
        )
        raise _refused(shown, why)
    with os.fdopen(opened, "rb", buffering=0) as stream:
        yield stream


def _by_descriptors(folder: Path, names: Sequence[str]) -> int:
    """Open a file below a folder, following no link on the way. Raises OSError."""
    held = os.open(folder, _FOLDER)
    for name in names[:-1]:
        try:
            inner = os.open(name, _FOLDER, dir_fd=held)
        finally:
            os.close(held)
        held = inner
    try:
        return os.open(names[-1], _FILE, dir_fd=held)
    finally:
        os.close(held)


def _by_paths(folder: Path, names: Sequence[str]) -> int:
    """The same on Windows, which cannot open files relative to a descriptor."""
    place = folder
    for number, name in enumerate(names, 1):
        place = place / name
        found = place.lstat()
        kind = stat.S_ISREG if number == len(names) else stat.S_ISDIR
        if not kind(found.st_mode) or getattr(found, "st_reparse_tag", False):
            raise OSError(0, "there is a link, or something that is not a file or folder", name)
    opened = os.open(place, _FILE)
    if not os.path.samestat(os.fstat(opened), found):
        os.close(opened)
        raise OSError(0, "it was replaced while it was opened", names[-1])
    return opened


open_below = _by_descriptors if os.open in os.supports_dir_fd else _by_paths


def _refused(name: str, why: str) -> EngineError:
    return EngineError(
        f"cannot accept what the build wrote: {why}",
        where=name,
        hint="code of the project ran where that was written: is it malicious?",
    )
