"""Unpacks CUDA's archives into one folder that works as CUDA_HOME.

NVIDIA publishes each part as `NAME-OS-VERSION-archive.tar.xz` (Linux) or `.zip` (Windows), with one
folder of that name in it, which holds a LICENSE and folders such as bin, include and lib. The
folders are merged; the licences are kept apart, because all have the same name.

Every file that is installed has the same mode and time, whatever the umask and the clock say: a
header's time can end up in what nvcc makes of it (-lineinfo), so it must be the same on every
machine and in every image.
"""

from __future__ import annotations

import errno
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, BinaryIO, Protocol

from ..errors import ToolchainError
from .tools import HostCompiler, run

LICENCES = "licences"
# NVIDIA's unpack to four times their size; zeros, to thousands of times.
MOST_TIMES = 100
SPARE = 16 << 20  # bytes that any archive may unpack to
_MOST_MEMBERS = 100_000  # of one archive; cuda_cccl, with the most, has some 3,000
_NEEDED = ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc")
# What reading a damaged archive ends in; it may also be an OSError, see `is_damage`.
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError)

_Member = tuple[str, IO[bytes] | str, bool]  # name, content or what a link says, executable


def untold(done: int) -> None:
    """For who has nobody to tell."""


def merge(archives: Sequence[Path], folder: Path, advance: Callable[[int], None] = untold) -> None:
    """Unpack the archives into a new folder.

    advance is told, again and again, how many of the archives' bytes have been read in all.

    Raises ToolchainError for an archive that is damaged or not made like that, where two archives
    have the same file, and where a link leads outside; OSError. What is there then is of no use.
    """
    folder.mkdir(parents=True)
    links: dict[Path, tuple[str, Path]] = {}
    before = 0
    for archive in archives:
        left = MOST_TIMES * archive.stat().st_size + SPARE
        with _reading(archive, folder), archive.open("rb") as stream:
            for name, content, executable in _members(archive, stream):
                target = folder / _target(name, archive)
                if not isinstance(content, str):
                    left -= write_member(target, content, executable, left)
                elif target in links:
                    raise FileExistsError(0, "", str(target))
                else:
                    links[target] = content, archive
                advance(before + stream.tell())
        before += archive.stat().st_size
    _make_links(links, folder)


def check_complete(cuda_home: Path) -> None:
    """Raise ToolchainError where a folder made of archives lacks a part of nvcc."""
    if missing := lacking(cuda_home):
        raise ToolchainError(
            "CUDA's archives lack a part of its compiler",
            details=missing,
            hint="pin the archives that have it, of the same release: NVIDIA's list of the "
            "release (cuda_manifest) names all",
        )


def lacking(cuda_home: Path) -> list[str]:
    """The programs without which no device code is made that a CUDA home does not have."""
    return [
        name
        for name in _NEEDED
        if not any((cuda_home / program).is_file() for program in (name, f"{name}.exe"))
    ]


@contextmanager
def _reading(archive: Path, folder: Path) -> Iterator[None]:
    """Turns what is wrong with an archive into a ToolchainError."""
    try:
        yield
    except DAMAGE as error:
        raise ToolchainError("this archive is damaged", where=archive.name) from error
    except (FileExistsError, NotADirectoryError) as error:
        name = os.path.relpath(error.filename2 or error.filename, folder)
        raise ToolchainError(
            f"another archive has the same file, {name}",
            where=archive.name,
            hint="pin each part of CUDA once",
        ) from error
    except OSError as error:
        if not is_damage(error):
            raise
        raise ToolchainError("this archive is damaged", where=archive.name) from error
    except (ValueError, RuntimeError) as error:
        raise ToolchainError(str(error), where=archive.name) from error


def is_damage(error: OSError) -> bool:
    """Whether an archive is to blame, not the disk: bz2's errors have no number, and zipfile goes
    where a damaged archive sends it, even before the first byte of the file."""
    return error.errno in (None, errno.EINVAL)


def _target(name: str, archive: Path) -> PurePosixPath:
    """Where a member belongs, without the archive's own folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} would be written outside of the folder")
    top, *rest = path.parts or ("",)
    if not rest or not archive.name.startswith(f"{top}."):
        raise ValueError(f"{name!r} does not lie in a folder with the archive's name")
    if len(rest) == 1:
        return PurePosixPath(LICENCES, f"{top}-{rest[0]}")
    return PurePosixPath(*rest)


class Content(Protocol):
    """What a member holds."""

    def read(self, count: int, /) -> bytes:
        """At most so many bytes; none at its end."""


def write_member(target: Path, content: Content, executable: bool, most: int) -> int:
    """Write a member of an archive; the bytes that were written. ValueError beyond the most."""
    size = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        while piece := content.read(1 << 20):
            size += len(piece)
            if size > most:
                raise ValueError(f"it unpacks to more than {MOST_TIMES} times its size")
            out.write(piece)
    finish(target, executable)
    return size


def _make_links(links: dict[Path, tuple[str, Path]], folder: Path) -> None:
    """Make links when all else is there: so no file was written through one."""
    inside = os.path.realpath(folder)
    for target, (said, archive) in links.items():
        with _reading(archive, folder):
            # Its way may be by a link that was made before.
            if not Path(os.path.realpath(target.parent)).is_relative_to(inside):
                name = os.path.relpath(target, folder)
                raise ValueError(f"{name!r} would be written outside of the folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            symlink(target, said)
    # Only now is it known where one leads whose way is by another.
    for target, (said, archive) in links.items():
        if not Path(os.path.realpath(target)).is_relative_to(inside):
            name = os.path.relpath(target, folder)
            raise ToolchainError(_outside(name, said), where=archive.name)


def _members(archive: Path, stream: BinaryIO) -> Iterator[_Member]:
    return (_zip_members if archive.suffix == ".zip" else _tar_members)(stream)


def _tar_members(stream: BinaryIO) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            # What a sparse file says to be its size needs no bytes of the archive.
            plain = member.isreg() and not member.issparse()
            content = tar.extractfile(member) if plain else None
            if content is not None:
                yield member.name, content, bool(member.mode & 0o100)
            elif member.issym():
                _check_link(member.name, member.linkname)
                yield member.name, member.linkname, False
            elif not member.isdir():
                raise ValueError(f"{member.name!r} is neither a file, a folder nor a link")


def _check_link(name: str, target: str) -> None:
    """A link must not leave the folder that the archive's own folder becomes."""
    depth = len(PurePosixPath(name).parts) - 2
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            raise ValueError(_outside(name, target))


def _outside(name: str, target: str) -> str:
    return f"the link {name!r} leads to {target!r}, outside of the folder"


# APPNOTE 4.3.16, 4.3.15 and 4.3.12: the record at the end of a zip, what leads to the larger record
# of a large one, and how the record of each member in the directory before it begins.
_END, _LOCATOR, _RECORD = b"PK\5\6", b"PK\6\7", b"PK\1\2"
_LONGEST_END = 22 + 0xFFFF  # bytes, with a comment
_PIECE = 1 << 20


def check_members(stream: BinaryIO, most: int) -> None:
    """Raise ValueError for a zip with more members than that. Python's own reader makes objects of
    all, however many somebody put there, before it can be asked."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _LONGEST_END))
    tail = stream.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < 22:
        raise zipfile.BadZipFile("it has no end of a directory")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    directory_end = size - len(tail) + end
    if tail[max(0, end - 20) : end].startswith(_LOCATOR):
        # The larger record has 56 bytes; its own word for its place is not believed.
        stream.seek(max(0, directory_end - 20 - 56))
        length = int.from_bytes(stream.read(56)[40:48], "little")
        directory_end -= 20 + 56
    stream.seek(max(0, directory_end - length))
    left, seen, found = min(length, directory_end), b"", 0
    while left > 0 and (piece := stream.read(min(_PIECE, left))):
        left -= len(piece)
        found += (seen + piece).count(_RECORD)
        seen = piece[-len(_RECORD) + 1 :]
        if found > most:
            raise ValueError(f"it has more than {most} files")
    stream.seek(0)


def _zip_members(stream: BinaryIO) -> Iterator[_Member]:
    check_members(stream, _MOST_MEMBERS)
    with zipfile.ZipFile(stream) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                with packed.open(info) as content:
                    yield info.filename, content, False


# -- the mode and the time of every file -----------------------------------------------------------

MTIME = 1577836800  # 2020-01-01 00:00 UTC, in seconds


def finish(path: Path, executable: bool = False) -> None:
    """Give a written file its mode and its time."""
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, (MTIME, MTIME))


def symlink(path: Path, target: str) -> None:
    """Make a link that has that time itself."""
    path.symlink_to(target)
    os.utime(path, (MTIME, MTIME), follow_symlinks=False)


def stamp(folder: Path) -> None:
    """Give everything below a folder that time; links themselves, not what they point to.

    What has it already is not touched: in an image that would copy the file into a new layer.
    """
    follow = os.utime not in os.supports_follow_symlinks  # Windows cannot do otherwise
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.lstat().st_mtime != MTIME:
                os.utime(path, (MTIME, MTIME), follow_symlinks=follow)


# -- adds to an installed CUDA what NVIDIA leaves out and build systems look for -------------------

# - `libcudart.so` and its like: wheels have `libcudart.so.13` only, so `-lcudart` fails.
# - `lib64`: where torch's cpp_extension and CMake's FindCUDAToolkit look first.
# - `lib/stubs/libcuda.so`: CMake's CUDA::cuda_driver and `-lcuda` need it, and the driver itself
#   is not part of a build machine. As in NVIDIA's toolkit, it has the driver's function names
#   and no code, and says that the real library is libcuda.so.1.

_VERSIONED = re.compile(r"(lib.+\.so)\.[\d.]+")
_DRIVER_FUNCTION = re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(")


def mend_packages(nvidia: Path) -> None:
    """Mend the libraries of the packages below `nvidia` (site-packages/nvidia)."""
    for folder in sorted(nvidia.glob("*/lib")):
        link_names(folder)


def mend_home(cuda_home: Path, compiler: HostCompiler) -> None:
    """Mend a CUDA home, be it one of those packages or made of archives."""
    (cuda_home / "lib").mkdir(exist_ok=True)
    link_names(cuda_home / "lib")
    if not (cuda_home / "lib64").exists():
        symlink(cuda_home / "lib64", "lib")
    _driver_stub(cuda_home, compiler)


def link_names(folder: Path) -> None:
    """For each `libX.so.N` without a `libX.so`, make that link; the highest N wins."""
    for path in sorted(folder.iterdir(), reverse=True):
        match = _VERSIONED.fullmatch(path.name)
        if match and not (folder / match[1]).exists():
            symlink(folder / match[1], path.name)


def _driver_stub(cuda_home: Path, compiler: HostCompiler) -> None:
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    header = cuda_home / "include" / "cuda.h"
    if stub.exists() or not header.is_file():
        return
    stub.parent.mkdir(exist_ok=True)
    declared = run([str(compiler.path), "-E", "-P", str(header)])
    names = sorted(set(_DRIVER_FUNCTION.findall(declared)))
    with TemporaryDirectory() as folder:
        source = Path(folder, "cuda.cpp")
        source.write_text("".join(f'extern "C" void {name}() {{}}\n' for name in names))
        soname = "-Wl,-soname,libcuda.so.1"
        arguments = ["-shared", "-fPIC", "-nostdlib", soname, str(source), "-o", str(stub)]
        run([str(compiler.path), *arguments])
    finish(stub, executable=True)
