"""Wheels whose Windows libraries are signed with the user's own tool: `invoke codesign`.

Smart App Control, and many a company's rules, let only code load that somebody has signed. Which
tool signs (signtool, osslsigncode, a signing service's client), and with whose certificate, is the
user's. It gets one library at a time, in a folder of its own and called `library.pyd`, whatever the
wheel calls it: a shell or a batch file would run what such a name says (`a&calc&.pyd`). It may add
a signature: whatever else it changes is refused. A signature tells when it was made, so the result
is never the same twice, and a wheel that was signed cannot be rebuilt.

Format: Microsoft, "PE Format", The Attribute Certificate Table; "Windows Authenticode Portable
Executable Signature Format": what is signed is all of the file but its checksum, the entry that
says where the signature lies, and the signature itself.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..errors import FormatError, ToolchainError, UsageError
from ..fatbin.binary import HEAD
from ..fatbin.pe import CERTIFICATES, Pe, directories_start, is_pe, read_pe
from ..provenance.origin import contents_of
from ..storage.files import disk_error, tidy
from ..storage.mapped import digest_of_pieces, map_path
from ..wheels.archive import Wheel, open_wheel
from ..wheels.pack import Content, rewrite_wheel
from .survey import (
    Edited,
    Surveyed,
    check_target,
    edited,
    labels_of,
    located,
    survey_wheel,
)

_SUFFIXES = (".dll", ".exe", ".pyd")
FILE = "{}"  # stands for the library in a tool's command
_LAST = 10  # lines of what a failing tool said that are shown
_PADDING = 8  # bytes: a signature begins at a multiple


def codesign(path: Path, tool: Sequence[str], out_dir: Path) -> Edited:
    """A wheel of the same name in `out_dir`, with a signature in each library that had none.

    tool: a command, in which {} stands for the library; without {} the library comes last. Raises
    UsageError where there is nothing to sign or the wheel itself would be replaced, ToolchainError
    where the tool fails or changes more than the signature, FormatError and StoreError.
    """
    check_target(out_dir / path.name, [path])
    tidy(out_dir)
    source = survey_wheel(path)
    # What fails may still hold files open, which Windows then does not delete.
    with tempfile.TemporaryDirectory(prefix="fatwheel-", ignore_cleanup_errors=True) as folder:
        made, notes = _signed(source, tool, Path(folder), out_dir)
    images = [entry for file in source.files.values() for e in file.containers for entry in e]
    result = edited(made, labels_of(images, source.left), [*source.notes, *notes])
    return replace(result, before=path.stat().st_size)


def _signed(
    source: Surveyed, tool: Sequence[str], folder: Path, out_dir: Path
) -> tuple[Path, list[str]]:
    """The new wheel, and notes. No file in `folder` is open any more when it is there."""
    told, closing = contents_of(source.origin, source.name)
    with open_wheel(source.path) as wheel:
        signed, notes = _sign_all(wheel, tool, folder)
        changed = signed | {f"{source.dist_info}/{name}": [data] for name, data in told.items()}
        made = rewrite_wheel(
            wheel, source.name, changed, out_dir, source.newest, closing, source.told
        )
    return made, notes


def _sign_all(
    wheel: Wheel, tool: Sequence[str], folder: Path
) -> tuple[dict[str, Content], list[str]]:
    """The signed libraries by their names in the wheel, and what the user must know of others."""
    signed: dict[str, Content] = {}
    notes = []
    for number, name in enumerate(_libraries(wheel)):
        copy = folder / str(number) / f"library{_suffix(name)}"
        library = _unpacked(wheel, name, copy)
        if library.signed:
            notes.append(f"{name}: it was left as it is, since it has a signature already")
            continue
        _run(tool, copy, name)
        signed[name] = [_checked(copy, library, name)]
    if not signed:
        raise UsageError(
            "there is nothing to sign in it",
            where=str(wheel.path),
            details=notes or ["it has no library or program for Windows"],
        )
    return signed, notes


def _libraries(wheel: Wheel) -> Iterator[str]:
    for member in wheel.members:
        if is_pe(wheel.start(member.name, HEAD)):
            yield member.name


def _suffix(name: str) -> str:
    """How a library's copy ends: tools may tell by that what it is."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in _SUFFIXES else _SUFFIXES[0]


@dataclass(frozen=True)
class _Library:
    """What of a library a signature must leave alone. size: bytes; content: their sha256."""

    signed: bool
    size: int
    content: str


def _unpacked(wheel: Wheel, name: str, copy: Path) -> _Library:
    try:
        copy.parent.mkdir()
        with copy.open("xb") as stream:
            wheel.copy(name, stream, len)
    except OSError as error:
        raise disk_error(error, "unpack", copy, "TMPDIR") from error
    with located(f"{wheel.path}: {name}"):
        pe = read_pe(map_path(copy, "a library"))
        size = len(pe.data)
        return _Library(bool(pe.directory(CERTIFICATES)[1]), size, _content(pe, size))


def _content(pe: Pe, size: int) -> str:
    """The sha256 over the first `size` bytes, less what signing changes in the headers."""
    optional = pe.coff + 20
    checksum = optional + 64
    entry = optional + directories_start(pe.wide) + CERTIFICATES * 8
    return digest_of_pieces(
        [pe.data[:checksum], pe.data[checksum + 4 : entry], pe.data[entry + 8 : size]]
    )


def _run(tool: Sequence[str], copy: Path, name: str) -> None:
    command = [word.replace(FILE, str(copy)) for word in tool]
    if command == [*tool]:
        command.append(str(copy))
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(
            f"cannot start it: {error.strerror}", where=f"--sign-tool {tool[0]}"
        ) from error
    if done.returncode:
        raise ToolchainError(
            f"it failed with exit code {done.returncode} for {name}",
            where=f"--sign-tool {tool[0]}",
            details=done.stdout.strip().splitlines()[-_LAST:],
        )


def _checked(copy: Path, before: _Library, name: str) -> memoryview:
    """The signed library. Raises ToolchainError unless it is the same but for the signature."""
    try:
        data = map_path(copy, "a library")
        pe = read_pe(data)
        start, size = pe.directory(CERTIFICATES)
        padding = bytes(data[before.size : start])
        same = _content(pe, before.size) == before.content
    except (FormatError, UsageError) as error:
        raise _refused(name, f"left something that is no library: {error.what}") from error
    if not size:
        raise _refused(name, "ended well and signed nothing")
    if not same or len(padding) >= _PADDING or any(padding) or start + size != len(data):
        raise _refused(name, "changed more of it than the signature")
    return data


def _refused(name: str, what: str) -> ToolchainError:
    return ToolchainError(f"the signing tool {what}", where=name)
