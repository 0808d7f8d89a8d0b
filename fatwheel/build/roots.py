"""Where projects' sources really lie, and how compilers are shown them at the fixed path.

`/tmp/fatwheel` is used as it is where it is the user's alone. Elsewhere sources lie in a private
folder, which compilers are shown in the place of all of /tmp: a mount over /tmp/fatwheel alone
would move away with a folder that its owner renames. In a container the fixed path is always free.

Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError
from ..permissions import gap_of, private_folder
from . import sight

# $0: the private folder, $1: the one in whose place it is shown; then names that both have, up to
# an empty one. The shell becomes the command in the end, so signals and limits are that one's.
# It is one line: failed commands are printed for the user to repeat.
_SHOW = (
    'private=$0 tmp=$1; shift; while [ "$1" ]; do mount --rbind "$tmp/$1" "$private/$1" || exit; '
    'shift; done; shift; mount --rbind "$private" "$tmp" && exec "$@"'
)


@dataclass(frozen=True)
class Cover:
    """A private folder that compilers are shown in the place of /tmp.

    entries: names of what else they need of the real /tmp; it is shown there too.
    """

    folder: str
    entries: tuple[str, ...]

    def shown(self, command: Sequence[str]) -> list[str]:
        """A command as it is started in a namespace of its own, in which it sees all this."""
        unshared = ["unshare", "--user", "--map-root-user", "--mount"]
        tmp = str(sight.VIEW_ROOT.parent)
        return [*unshared, "sh", "-c", _SHOW, self.folder, tmp, *self.entries, "", *command]

    def real(self, path: str) -> str:
        """The real file behind a path that compilers see."""
        fixed = f"{sight.VIEW_ROOT}/"
        if not path.startswith(fixed):
            return path
        return os.path.join(self.folder, sight.VIEW_ROOT.name, path.removeprefix(fixed))


@dataclass(frozen=True)
class Root:
    """Where the folders of projects are.

    folder: the real one, which nobody else can open. cover: how compilers see it at the fixed
    path, where it is another one. note: '' or what the user must know of wheels made from here.
    """

    folder: Path
    cover: Cover | None = None
    note: str = ""

    def seen(self, source: Path) -> str:
        """The path at which compilers see a folder below `folder`."""
        if self.cover is None:
            return str(source)
        return str(sight.VIEW_ROOT / source.relative_to(self.folder))


if sys.platform == "win32":

    def choose_root(refuge: Path, needed: Iterable[str]) -> Root:
        """The fixed root. Raises OSError."""
        return Root(sight.view_root())

else:

    def choose_root(refuge: Path, needed: Iterable[str]) -> Root:
        """The fixed root where it is the user's alone, or else one in `refuge`.

        needed: what compilers must find at its own path. Raises StoreError where nothing is safe.
        """
        fixed = sight.VIEW_ROOT
        obstacle = _obstacle(fixed)
        if not obstacle:
            return Root(fixed)
        folder = refuge / fixed.name
        refuge.parent.mkdir(parents=True, exist_ok=True)
        if not (private_folder(refuge) and private_folder(folder)):
            raise StoreError(
                f"there is no safe place for the project's sources: {fixed} {obstacle}, and "
                f"others could write into {refuge}",
                hint=f"remove {refuge}, or whatever is called so",
            )
        cover = _cover(refuge, sorted({path for path in needed if os.path.exists(path)}))
        if cover is not None:
            return Root(folder, cover)
        return Root(
            folder,
            note=f"the wheel will have other bytes than one made elsewhere: {fixed} {obstacle}, "
            f"and no namespace can be made here (unshare --user --mount), so compilers see the "
            f"sources below {folder}. Remove {fixed}, or build in containers (--engine docker)",
        )

    def _obstacle(fixed: Path) -> str:
        """Why the fixed root is not the user's alone, or ''."""
        try:
            if not private_folder(fixed):
                return "belongs to somebody else, or others could write into it"
            gap = gap_of(fixed)
        except OSError as error:
            return f"cannot be used ({error.strerror})"
        return f"could be replaced by {gap.who}" if gap else ""

    def _cover(refuge: Path, needed: Sequence[str]) -> Cover | None:
        """How compilers are shown a refuge at the fixed root, or None where they cannot be.

        Many systems let every user make a namespace. Some do, and then forbid to mount in it.
        """
        fixed = sight.VIEW_ROOT
        entries = sorted({name for path in needed for name in _entries(path)})
        if fixed.name in entries:
            return None  # it would have to be theirs and ours
        cover = Cover(str(refuge), tuple(entries))
        try:
            for name in entries:
                _make_place(fixed.parent / name, refuge / name)
            done = subprocess.run(
                cover.shown(["ls", "-dL", "--", str(fixed), *needed]), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except OSError:
            return None
        return cover if done.returncode == 0 else None

    def _entries(path: str) -> Iterator[str]:
        """The names in /tmp under which a path is found, if it is there."""
        for found in (os.path.abspath(path), os.path.realpath(path)):
            with suppress(ValueError):
                yield Path(found).relative_to(sight.VIEW_ROOT.parent).parts[0]

    def _make_place(shown: Path, place: Path) -> None:
        """Make what something is mounted over: a folder over a folder, a file over a file."""
        if shown.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
