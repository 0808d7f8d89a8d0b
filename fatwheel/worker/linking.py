"""What is not left to linkers: answers for link.exe while a build is captured, and search paths
that go when the wheel is made. Standard library only.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..compilers.gcc import is_inside
from ..compilers.msvc import read_link
from ..errors import FormatError
from ..fatbin.elf import MAGIC
from ..fatbin.elf_dynamic import without_search_paths

# -- link.exe --------------------------------------------------------------------------------------

# Objects of a capture are empty, and Microsoft's linker makes no library in which something is
# missing that is exported or called. (Nowhere is it said that /FORCE:UNRESOLVED helps together with
# /LTCG.) So where it would read such objects, or make a library, it is answered: by a library
# without content that the real linker has made. Nothing that a capture links reaches a wheel.
#
# Format of the import library: Microsoft, "PE Format", "Archive (Library) File Format": the
# signature, and a first linker member that names no symbols.

# Name, time, owner, group, mode and size; then the number of symbols.
_IMPORTS = b"!<arch>\n" + b"%-16s%-12d%-6d%-6d%-8d%-10d`\n" % (b"/", 0, 0, 0, 0, 4) + bytes(4)


def answer_link(arguments: Sequence[str], cwd: str, empty_object: str, empty_library: str) -> bool:
    """Make what a command of link would make, with nothing in it; False where the real linker must
    do it, as for a program of objects that are real."""
    link = read_link(arguments, cwd)
    if link is None:
        return False
    nothing = Path(empty_object).read_bytes()
    if link.import_library is None and not any(_is(path, nothing) for path in link.inputs):
        return False
    shutil.copyfile(empty_library, link.output)
    if link.import_library is not None:
        Path(link.import_library).write_bytes(_IMPORTS)
    return True


def _is(path: str, content: bytes) -> bool:
    return (
        os.path.isfile(path)
        and os.path.getsize(path) == len(content)
        and Path(path).read_bytes() == content
    )


# -- search paths ----------------------------------------------------------------------------------

# Libraries that CMake links keep their search path up to here (see `compilers.hosts`), as CMake's
# installation left it.


def strip_search_paths(wheel: Path, folders: Sequence[str]) -> None:
    """Remove, from the libraries in a wheel that a project's build made, search paths into this
    build's folders. Leaves alone what is no wheel, or no library: that is refused elsewhere."""
    homes = [*folders, os.path.realpath(tempfile.gettempdir())]
    edited: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if found := _stripped(archive, name, lambda path: is_inside(path, homes)):
                    edited[name] = found
            if edited:
                _rewrite(archive, edited, wheel)
    except (zipfile.BadZipFile, NotImplementedError):
        return


def _stripped(archive: zipfile.ZipFile, name: str, unwanted: Callable[[str], bool]) -> bytes | None:
    """The bytes of a library without them; None where there are none."""
    with archive.open(name) as stream:
        data = stream.read(len(MAGIC))
        if data != MAGIC:
            return None
        data += stream.read()
    try:
        found = without_search_paths(data, unwanted)
    except FormatError:
        return None
    return None if found == data else found


def _rewrite(archive: zipfile.ZipFile, edited: dict[str, bytes], wheel: Path) -> None:
    """The wheel with these members, and the RECORD that goes with them."""
    part = wheel.with_name(f"{wheel.name}.part")
    with zipfile.ZipFile(part, "w") as out:
        for info in archive.infolist():
            if info.filename.endswith(".dist-info/RECORD"):
                out.writestr(info, _with_digests(archive.read(info), edited))
            elif info.filename in edited:
                out.writestr(info, edited[info.filename])
            else:
                large = info.file_size >> 31 > 0
                with (
                    archive.open(info) as source,
                    out.open(info, "w", force_zip64=large) as target,
                ):
                    shutil.copyfileobj(source, target, 1 << 20)
    part.replace(wheel)


def _with_digests(record: bytes, edited: dict[str, bytes]) -> str:
    """PyPA, "Recording installed projects": path, algorithm=digest in URL-safe base64, size."""
    rows = list(csv.reader(io.StringIO(record.decode("utf-8"), newline="")))
    for row in rows:
        if row and row[0] in edited:
            digest = hashlib.sha256(edited[row[0]]).digest()
            name = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            row[1:] = [f"sha256={name}", str(len(edited[row[0]]))]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
