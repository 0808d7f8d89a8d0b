"""The pinned files that images are made of, on this machine.

    <cache>/image-files/<sha256>/<filename>     fetched and checked
    <cache>/image-files/lock                    held while anything is fetched, or built of them

They stay after a build, because the next Python's images need most of them again. The folder may
be deleted while nothing builds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..cache import VARIABLE
from ..errors import ToolchainError
from ..events import Emit
from ..files import disk_error
from ..model import Toolchain
from ..toolchain.fetch import fetch
from ..toolchain.turns import one_at_a_time
from .contexts import BuildContext

FILES = "image-files"


def check_locked(contexts: Sequence[BuildContext], toolchain: Toolchain) -> None:
    """Raise ToolchainError where it is not known yet what a file or a base image must be."""
    unlocked = list(dict.fromkeys(name for context in contexts for name in context.unlocked))
    if unlocked:
        raise ToolchainError(
            "it is not known yet what these files and images must be, so nothing is built of them",
            where=f"toolchain {toolchain.name}",
            details=unlocked,
            hint=f"invoke lock --toolchain {toolchain.name}",
        )


def fetched(context: BuildContext, cache: Path, emit: Emit) -> dict[str, Path]:
    """Fetch a context's files, or find them there and check them; for each name its path.

    Raises what `toolchain.fetch` raises.
    """
    paths = fetch(context.files, cache / FILES, emit)
    return {path.name: path for path in paths}


@contextmanager
def alone(cache: Path, emit: Emit) -> Iterator[None]:
    """Hold the lock on these files and on builds of images; say so when that takes waiting.

    Raises StoreError where the disk does not take them.
    """
    folder = cache / FILES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder, "making images", emit):
            yield
    except OSError as error:
        doing = "keep the files of images"
        raise disk_error(error, doing, cache, f"{VARIABLE}=FOLDER") from error
