"""The preprocessed text of a unit, from which keys are made.

A unit has one text per *pass*: 'host', and one per front ('compute_80'). Three ways to know the
digest of a text, from cheap to dear:

1. from the record of an earlier run: which files that text came from, with their digests. The
   record holds while every file is the same, while the project has the same files (another
   could be found first, or by __has_include), and while neither they nor the command speak of
   __CUDA_ARCH_LIST__ or the list is the same;
2. from the compiler's own by-product: `--keep` leaves the texts of a call behind;
3. by preprocessing, 1 to 3 s a pass, done only where the unit was compiled before (else the
   store cannot have what would be looked up).

Standard library only.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import mmap
import os
import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ..compilers.hosts import Family, family_of
from ..errors import CompileError
from ..model import Front, Unit
from ..storage.store import Store
from .context import Context, digest, fingerprint
from .roots import fitting, job_folder
from .stages import dryrun

HOST_PASS = "host"
_VARIANTS = 6  # records kept per unit and pass: other Pythons, torches, lists of architectures
# gcc: `# 1 "file"`; cl: `#line 1 "file"`.
_MARKER = re.compile(rb'^#(?:line)? \d+ "((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ARCHLIST = "__CUDA_ARCH_LIST__"


def pass_of(front: Front | None) -> str:
    return HOST_PASS if front is None else front.virtual.compute


class Texts:
    """Digests of preprocessed texts; files are read once for its whole life."""

    def __init__(self, context: Context, store: Store) -> None:
        self._context = context
        self._store = store
        self._files: dict[str, tuple[str | None, bool]] = {}
        self._laid_out = context.places.laid_out()
        self._volatile = family_of(context.cxx).names_of_jobs(context.scratch)

    def on(self, store: Store) -> Texts:
        """The same, with records in another store; what was read of files is shared."""
        other = copy.copy(self)
        other._store = store
        return other

    def recorded(self, unit: Unit, pass_: str) -> str | None:
        """The text's digest by an earlier record that still holds, or None."""
        found = self._holding(unit, self._variants(unit, pass_))
        return None if found is None else str(found["text"])

    def _holding(self, unit: Unit, variants: list[dict[str, Any]]) -> dict[str, Any] | None:
        for variant in variants:
            if variant["archlist"] not in (None, list(self._context.archlist(unit))):
                continue
            if all(self._file(path) == (sha, lists) for path, sha, lists in variant["files"]):
                return variant
        return None

    def seen(self, unit: Unit, pass_: str) -> bool:
        """Whether this unit was ever compiled with this pass, so that a lookup may succeed."""
        return self._store.has("seen", self.seen_key(unit, pass_))

    def record(self, unit: Unit, pass_: str, text: Path) -> str:
        """Remember which files a text came from; returns its digest.

        Raises CompileError where a source is no longer what was laid out.
        """
        sha, names = _read_text(text, self._volatile)
        for name in names:
            self._check_source(name)
        files = [(name, *self._file(name)) for name in names]
        variant = {"text": sha, "archlist": self.archlist(unit, files), "files": files}
        variants = with_variant(variant, self._variants(unit, pass_))
        self._store.put_json("text", self.key(unit, pass_), variants)
        self._store.put_json("seen", self.seen_key(unit, pass_), True)
        return sha

    def stamp(self, name: str) -> str | None:
        """What is in a file that a text names, and when it was written; None where there is none.

        Line tables have files' times, in seconds since 1970, and sizes.
        """
        sha, _ = self._file(name)
        try:
            seconds = int(os.stat(self._context.places.real(name)).st_mtime)
        except OSError:
            return None
        return sha and f"{sha} {seconds}"

    def archlist(self, unit: Unit, files: Sequence[Sequence[Any]]) -> list[int] | None:
        """The list of architectures that a text of a unit depends on, or None. files: as they are
        recorded."""
        lists = any(in_file for _, _, in_file in files) or any(
            _ARCHLIST in argument for argument in unit.preprocessor + unit.codegen
        )
        return list(self._context.archlist(unit)) if lists else None

    def others(self, variant: dict[str, Any]) -> list[str]:
        """The files that a text came from elsewhere and that are others here, by their names in
        the text. variant: its record."""
        found = [(name, sha, lists) for name, sha, lists in variant["files"]]
        return [name for name, sha, lists in found if self._file(name) != (sha, lists)]

    def under(self, context: Context) -> Texts:
        """The same of another context: its records, and what was read of files."""
        other = copy.copy(self)
        other._context = context
        return other

    def changed(self, unit: Unit, pass_: str, before: Texts, text: str | None) -> list[str]:
        """The files by which a text differs from an earlier one, by their names in the text.

        before: the records of that time; text: its digest then, None where that is not known, so
        that the newest other one counts.
        """
        # Each read once: another build may write or delete records meanwhile.
        variants, known = self._variants(unit, pass_), before._variants(unit, pass_)
        now = self._holding(unit, variants)
        if now is None:  # not looked up, since it is compiled in any case
            return self.others(known[0]) if known else []
        if now["text"] == text or (text is None and now["text"] != variants[0]["text"]):
            return []
        old = [one for one in known if one["text"] == text or (text is None and one != now)]
        if not old:
            return []
        here, there = ({name: rest for name, *rest in of["files"]} for of in (now, old[0]))
        other = [name for name in here if name in there and here[name] != there[name]]
        return other or [name for name in {**here, **there} if (name in here) != (name in there)]

    def reads_archlist(self, unit: Unit, pass_: str) -> bool:
        """Whether records prove that this text changes with the list of architectures: the
        same files gave another text under another list."""
        mine = list(self._context.archlist(unit))
        variants = self._variants(unit, pass_)
        now = [found for found in variants if found["archlist"] == mine]
        return any(
            old["files"] == found["files"] and old["text"] != found["text"]
            for found in now
            for old in variants
            if old["archlist"] not in (None, mine)
        )

    def preprocess(self, unit: Unit, pass_: str, command: list[str]) -> str:
        """Preprocess one pass, record its text, return the digest.

        command: for C++ the one that only preprocesses; for CUDA an nvcc command that runs this
        pass. Raises CalledProcessError where the source does not even preprocess.
        """
        context = self._context
        with job_folder(Path(context.scratch), f"text-{fingerprint(unit)[:8]}-{pass_}") as folder:
            lay_out(context, unit, folder)
            text = folder / "text.ii"
            if unit.kind == "cuda":
                command = self._pass_command(command, pass_, folder)
            self._write_text(command, text, folder)
            return self.record(unit, pass_, text)

    def _write_text(self, command: list[str], text: Path, folder: Path) -> None:
        """Run a preprocessing command, its output to `text`."""
        family = family_of(self._context.cxx)
        with contextlib.ExitStack() as opened:
            out: IO[bytes] | int = subprocess.DEVNULL
            if family.prints_text:
                out = opened.enter_context(text.open("wb"))
            else:
                command = [*command, *family.output(str(text))]
            command = self._context.places.shown(command)
            subprocess.run(
                fitting(command, folder), cwd=folder, env=self._context.variables(folder),
                check=True, stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _pass_command(self, nvcc: list[str], pass_: str, folder: Path) -> list[str]:
        """The command that nvcc itself would run (`--dryrun`), less its output."""
        family = family_of(self._context.cxx)
        listing = dryrun(self._context, nvcc, folder)
        for line in listing.splitlines():
            found = family.pass_command(line, self._context.cxx)
            if found and found[1].endswith(".cpp4.ii") == (pass_ == HOST_PASS):
                return found[0]
        raise subprocess.CalledProcessError(1, nvcc, listing)

    def _variants(self, unit: Unit, pass_: str) -> list[dict[str, Any]]:
        found = self._store.get_json("text", self.key(unit, pass_))
        return list(filter(_is_variant, found)) if isinstance(found, list) else []

    def key(self, unit: Unit, pass_: str) -> str:
        """Key of the record of a text."""
        context = self._context
        tools = [context.device_id, context.host_id] if unit.kind == "cuda" else [context.host_id]
        return digest(
            "text", tools, unit.name, unit.source, unit.codegen, unit.preprocessor,
            context.places.source, context.places.listing, context.places.mapped(), pass_,
        )  # fmt: skip

    def seen_key(self, unit: Unit, pass_: str) -> str:
        """Key of whether a unit was ever compiled with a pass."""
        return digest("seen", unit.name, unit.source, self._context.places.source, pass_)

    def _check_source(self, name: str) -> None:
        """Read a file of the project once more: what was read before was before compiling."""
        relative = self._context.places.relative(name)
        if relative is None or self._laid_out is None:
            return
        found, _ = _read_file(self._context.places.real(name))
        if found != self._laid_out.get(relative):
            raise CompileError(
                "a source changed while it was compiled",
                where=relative,
                hint=(
                    "its results were discarded. Build again, and make sure that nothing else "
                    f"writes to {self._context.places.real(self._context.places.source)}"
                ),
            )

    def _file(self, name: str) -> tuple[str | None, bool]:
        """sha256 of a file as named in a text, and whether it speaks of the arch list.

        None where there is none: `#line` may name anything, and the job's own header is made of
        what the key has anyway.
        """
        if name not in self._files:
            self._files[name] = _read_file(self._context.places.real(name))
        return self._files[name]


def with_variant(new: dict[str, Any], known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A unit's record of one pass, newest first, with what was found now."""
    return [new, *(old for old in known if old["text"] != new["text"])][:_VARIANTS]


def lay_out(context: Context, unit: Unit, folder: Path) -> None:
    """What is in a job's own folder: the environment's places, the pre-included header."""
    context.places.link_into(folder)
    (folder / "keep").mkdir()
    if unit.kind == "cuda":
        header = unit_header(unit, context.archlist(unit), family_of(context.cxx))
        (folder / "fatwheel.h").write_text(header)


def unit_header(unit: Unit, archlist: tuple[int, ...], family: Family) -> str:
    """The header that every nvcc call of a unit includes first.

    It fixes __CUDA_ARCH_LIST__ to the whole list, from which CCCL builds names and dispatch,
    and anchors the module id: nvcc takes it from the first external symbol, and from the
    process id where there is none (CUDA before 12.9).
    """
    return (
        "#undef __CUDA_ARCH_LIST__\n"
        f"#define __CUDA_ARCH_LIST__ {','.join(map(str, archlist))}\n"
        + family.anchor(f"fw_unit_{digest('anchor', unit.name)[:16]}")
    )


def _is_variant(found: Any) -> bool:
    """Whether something is a record as `Texts.record` writes it."""
    match found:
        case {"text": str(), "archlist": None | list(), "files": list(files)}:
            return all(_is_file(file) for file in files)
    return False


def _is_file(found: Any) -> bool:
    match found:
        case [str(), None | str(), bool()]:
            return True
    return False


def _read_text(path: Path, volatile: re.Pattern[bytes] | None) -> tuple[str, list[str]]:
    """sha256 of a text, and the files that its line markers name, in order, each once.

    volatile finds what is another in each job, though it means the same.
    """
    if path.stat().st_size == 0:
        return hashlib.sha256(b"").hexdigest(), []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        sha = hashlib.sha256(volatile.sub(b".", view) if volatile else view).hexdigest()
        names = dict.fromkeys(match[1] for match in _MARKER.finditer(view))
    return sha, [
        _unescape(name).decode("utf-8", "surrogateescape")
        for name in names
        if not name.startswith(b"<")
    ]


def _unescape(name: bytes) -> bytes:
    """A name as gcc prints it: quotes and backslashes escaped, other characters as octals."""
    return _ESCAPE.sub(
        lambda match: bytes([int(match[1], 8)]) if len(match[1]) == 3 else match[1], name
    )


def _read_file(path: str) -> tuple[str | None, bool]:
    # A relative name means nothing here: it was relative to the job's folder. And a text may name a
    # device or a pipe, of which there is no end.
    if not os.path.isabs(path) or not os.path.isfile(path):
        return None, False
    # Records come from elsewhere, too: a pipe is not waited for, a device not even opened. What has
    # no end (/proc has such files) has no size, and no more is read than that.
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None, False
        with open(path, "rb") as stream:
            data = stream.read(os.fstat(stream.fileno()).st_size)
    except (OSError, ValueError, MemoryError):
        return None, False
    return hashlib.sha256(data).hexdigest(), _ARCHLIST.encode() in data
