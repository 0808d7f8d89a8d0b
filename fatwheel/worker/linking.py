"""Links on Windows: what stands in for link.exe while a build is captured.

Objects of a capture are empty, and Microsoft's linker makes no library in which something is
missing that is exported or called. (Nowhere is it said that /FORCE:UNRESOLVED helps together with
/LTCG.) So where it would read such objects, or make a library, it is answered: by a library without
content that the real linker has made. Nothing that a capture links reaches a wheel.

Format of the import library: Microsoft, "PE Format", "Archive (Library) File Format": the
signature, and a first linker member that names no symbols. Standard library only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..compilers.msvc import read_link

LINKER = "link"  # the program that the stand-in is for
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
