"""Wheels out: any files as a wheel whose bytes depend on nothing else, and an existing wheel
under another version, with some files changed.

Members are in order of their names, the dist-info folder last and RECORD at the very end, as
the specification recommends; all have one time; files are 0644, or 0755 where they can be
executed. So the same files and epoch give the same bytes under any umask, locale, time zone,
folder, number of cores and Python; only another zlib may compress otherwise (see
`zipwriter.compressor`). For that case there is `digest_of_contents`.

Format: PyPA specifications "Binary distribution format" and "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from ..errors import FormatError
from ..storage.files import disk_error, replacing
from ..storage.mapped import in_chunks
from .archive import Member, Wheel, open_wheel
from .metadata import name_disagreement, set_version, tag_disagreement
from .name import WheelName, parse_wheel_name
from .zipwriter import Measure, Output, ZipWriter

_SIGNATURES = ("RECORD.jws", "RECORD.p7s")

# The bytes of a file, one piece after the other.
Content = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class NewFile:
    """A file to be put in a wheel: its size in bytes, and its content, asked for once."""

    name: str
    executable: bool
    size: int
    content: Callable[[], Iterable[bytes | memoryview]]


# What a wheel's last files are, once the others are written: their names and sha256 in hex.
Closing = Callable[[Mapping[str, str]], Sequence[NewFile]]


def plain_file(name: str, data: bytes) -> NewFile:
    """A file with these bytes that nobody executes."""
    return NewFile(name, executable=False, size=len(data), content=lambda: [data])


def nothing_else(written: Mapping[str, str]) -> Sequence[NewFile]:
    """The `Closing` of wheels without files that tell of the others."""
    return ()


def write_wheel(
    path: Path,
    dist_info: str,
    files: Iterable[NewFile],
    epoch: int,
    closing: Closing = nothing_else,
) -> None:
    """Write a wheel, and its RECORD, which `files` must not have; replaces `path` atomically.

    What `closing` makes of all other files comes before RECORD. Every time in it is `epoch`,
    seconds since 1970. Raises StoreError if the disk is full or the folder not writable; then
    `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            _write(stream, dist_info, files, epoch, closing)
    except OSError as error:
        raise disk_error(error, "write the wheel", path, "--out FOLDER") from error


def _write(
    stream: Output, dist_info: str, files: Iterable[NewFile], epoch: int, closing: Closing
) -> None:
    ordered = sorted(files, key=lambda file: (file.name.startswith(f"{dist_info}/"), file.name))
    rows: list[tuple[str, str, str]] = []
    digests: dict[str, str] = {}
    with ZipWriter(stream, epoch) as archive:
        for file in chain(ordered, _lazily(closing, digests)):
            digest = _add(archive, file)
            digests[file.name] = digest.hex()
            rows.append((file.name, _as_recorded(digest), str(file.size)))
        name = f"{dist_info}/RECORD"
        _add(archive, plain_file(name, _csv([*rows, (name, "", "")])))


def repack(
    upstream: Path,
    out_dir: Path,
    new: WheelName,
    *,
    extra_files: Mapping[str, bytes],
    epoch: int,
    closing: Closing = nothing_else,
) -> Path:
    """Upstream's wheel under a new name, with these files in its dist-info folder.

    METADATA's Version, the names that carry it and RECORD change, nothing else. A signature of
    the old RECORD is left out. Returns the new wheel in `out_dir`. Raises FormatError where
    `upstream` is no sound wheel, StoreError where `out_dir` cannot be written.
    """
    _check_names(extra_files)
    with _opened(upstream) as wheel:
        name_of(wheel)  # it must be what its own METADATA says
        contradiction = tags_contradiction(wheel)
        if contradiction:
            raise contradiction
        changed = {f"{wheel.dist_info}/{name}": [data] for name, data in extra_files.items()}
        return rewrite_wheel(wheel, new, changed, out_dir, epoch, closing)


def name_of(wheel: Wheel) -> WheelName:
    """The parts of a wheel's file name; FormatError where the wheel itself says another project
    or version."""
    name = parse_wheel_name(wheel.path.name)
    contradiction = name_disagreement(
        name, wheel.dist_info, wheel.read(f"{wheel.dist_info}/METADATA")
    )
    if contradiction:
        raise contradiction
    return name


def tags_contradiction(wheel: Wheel) -> FormatError | None:
    """Whether a wheel's file name and its WHEEL name different tags."""
    name = parse_wheel_name(wheel.path.name)
    return tag_disagreement(name, wheel.read(f"{wheel.dist_info}/WHEEL"))


def rewrite_wheel(
    wheel: Wheel,
    new: WheelName,
    changed: Mapping[str, Content],
    out_dir: Path,
    epoch: int,
    closing: Closing = nothing_else,
    dropped: Collection[str] = (),
) -> Path:
    """The same wheel under another name and version, with these contents of files.

    dropped: names of files that are left out.

    changed has the names that files have in `wheel`; those it does not have are added.
    METADATA's Version, the names that carry it and RECORD change with the name; a signature of
    the old RECORD is left out. Returns the new wheel in `out_dir`. Raises FormatError where a
    file of `wheel` is damaged, StoreError where `out_dir` cannot be written.
    """
    path = out_dir / new.filename
    write_wheel(path, new.dist_info, _rewritten(wheel, new, changed, dropped), epoch, closing)
    return path


def size_of_rewritten(
    wheel: Wheel,
    new: WheelName,
    changed: Mapping[str, Content],
    epoch: int,
    closing: Closing = nothing_else,
    dropped: Collection[str] = (),
) -> int:
    """How many bytes `rewrite_wheel` would write; it takes as long, and nothing is written."""
    measure = Measure()
    _write(measure, new.dist_info, _rewritten(wheel, new, changed, dropped), epoch, closing)
    return measure.size


def _rewritten(
    wheel: Wheel, new: WheelName, changed: Mapping[str, Content], dropped: Collection[str]
) -> list[NewFile]:
    folder = wheel.dist_info
    metadata = f"{folder}/METADATA"
    contents = {metadata: [set_version(wheel.read(metadata), new.version)], **changed}
    modes = {member.name: member.mode for member in wheel.members}
    files = [
        _changed(_new_place(name, folder, new), modes.get(name, 0), content)
        for name, content in contents.items()
    ]
    gone = {*dropped, *(f"{folder}/{name}" for name in ("RECORD", *_SIGNATURES))}
    files += [
        _kept(wheel, member, _new_place(member.name, folder, new))
        for member in wheel.members
        if member.name not in gone and member.name not in contents
    ]
    return files


def digest_of_contents(wheel: Path) -> str:
    """What a wheel holds, however it was compressed: the sha256, in hex, over each member in
    the archive's order as `NAME\\0MODE\\0SHA256\\n`, mode in octal and digest in hex."""
    total = hashlib.sha256()
    with _opened(wheel) as opened:
        for member in opened.members:
            digest = hashlib.sha256()
            for chunk in _content(opened, member.name):
                digest.update(chunk)
            total.update(f"{member.name}\0{member.mode:o}\0{digest.hexdigest()}\n".encode())
    return total.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Wheel]:
    try:
        with open_wheel(path) as wheel:
            yield wheel
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"the wheel cannot be read: {reason}", where=str(path)) from error


def _check_names(extra_files: Mapping[str, bytes]) -> None:
    for name in extra_files:
        if (
            ".." in name
            or name.startswith("/")
            or name in ("METADATA", "WHEEL", "RECORD", *_SIGNATURES)
        ):
            raise ValueError(f"{name!r} is not a file to add to a dist-info folder")


def _new_place(name: str, dist_info: str, new: WheelName) -> str:
    """Where a file of upstream's goes: the two folders whose names carry the version change."""
    top, slash, rest = name.partition("/")
    data = dist_info.removesuffix(".dist-info") + ".data"
    return {dist_info: new.dist_info, data: new.data}.get(top, top) + slash + rest


def _kept(wheel: Wheel, member: Member, name: str) -> NewFile:
    """A file of the old wheel as it is."""
    content = partial(_content, wheel, member.name)
    return NewFile(name, _executable(name, member.mode), member.size, content)


def _changed(name: str, mode: int, content: Content) -> NewFile:
    """A file with other content, in chunks that do not cost memory."""
    size = sum(len(piece) for piece in content)
    return NewFile(name, _executable(name, mode), size, partial(in_chunks, content))


def _executable(name: str, mode: int) -> bool:
    """The one permission that is kept: others follow the umask of whoever built the wheel."""
    return ".data/scripts/" in name or bool(mode & stat.S_IXUSR)


def _content(wheel: Wheel, name: str) -> Iterator[memoryview]:
    with wheel.mapped(name) as view:
        yield from in_chunks([view])


def _lazily(closing: Closing, digests: Mapping[str, str]) -> Iterator[NewFile]:
    """What closes a wheel, asked for when all else is written."""
    yield from closing(digests)


def _add(archive: ZipWriter, file: NewFile) -> bytes:
    """Write a file; its sha256."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes | memoryview]:
        for chunk in file.content():
            digest.update(chunk)
            yield chunk

    archive.add(file.name, file.size, hashed(), executable=file.executable)
    return digest.digest()


def _as_recorded(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _csv(rows: Sequence[tuple[str, str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
