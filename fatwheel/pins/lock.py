"""Fills in a toolchain's missing pins in its TOML file, and writes the files of parts:
`invoke lock`.

Of one that is part of an installed fatwheel, the user gets a copy, which is used from then on.

In a toolchain's file, only lines are added, each behind the line of a key that the same table has.
The result is read back: it must mean what the file meant before, and the new values.

A part's file (`config.parts`) has one text for one meaning: tables and pins are sorted, a pinned
file takes one line, and the comments at its top stay. So a diff of two locks shows what is new, and
locking again changes nothing.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from ..config.load import dotted
from ..config.mistakes import Key, TomlLines
from ..config.parts import (
    CudaRelease,
    PackageFiles,
    TorchRelease,
    TorchVariant,
    release,
)
from ..config.toolchain import Toolchain
from ..config.toolchains import load_toolchain, toolchain_file
from ..errors import ConfigError, FatwheelError, FetchError, HashMismatchError, UsageError
from ..events import Emit, Note, StepFinished, StepStarted
from ..shipped import OWN_TOOLCHAINS, is_installed
from ..storage import files
from ..toolchain.index import Index
from ..toolchain.pipconfig import read_pip_config
from .compare import FILLED, MOVED, STATES, UNREACHABLE, Comparer, PinState
from .published import HostBuild, Values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# -- the text of parts -----------------------------------------------------------------------------

_WIDTH = 96  # characters of a line of values, without its indent

Value = str | int | Sequence[str] | Sequence[int]


def cuda_text(cuda: CudaRelease) -> str:
    """parts/cuda/VERSION.toml, without its comments."""
    archives = sorted(cuda.archives, key=lambda one: (one.platform, one.name))
    return _text(
        [
            *_pairs(version=cuda.version, nvcc=cuda.nvcc, gcc=cuda.gcc, msvc=cuda.msvc),
            *_wrapped("archs", [str(arch) for arch in cuda.archs]),
            *_list("packages", [json.dumps(pin) for pin in sorted(cuda.packages)]),
            *_list("tools", [json.dumps(pin) for pin in sorted(cuda.tools)]),
            *_list("libraries", [json.dumps(pin) for pin in sorted(cuda.libraries)]),
            *_pairs(manifest=cuda.manifest),
            *_list("archives", [_inline(**vars(one)) for one in archives]),
        ]
    )


def torch_text(torch: TorchRelease) -> str:
    """parts/torch/VERSION.toml, without its comments."""
    lines = [
        *_pairs(version=torch.version, gcc=torch.gcc),
        *_list("tools", [json.dumps(pin) for pin in sorted(torch.tools)]),
    ]
    for variant in sorted(torch.variants, key=lambda one: (one.platform, release(one.cuda))):
        lines += ["", "[[variants]]", *_variant(variant)]
    return _text(lines)


def _variant(one: TorchVariant) -> Iterator[str]:
    yield from _pairs(cuda=one.cuda, platform=one.platform)
    yield from _list("requires", [json.dumps(pin) for pin in sorted(one.requires)])
    wheels = sorted(one.wheels, key=lambda wheel: release(wheel.python))
    yield from _list("wheels", [_inline(**vars(wheel)) for wheel in wheels])


def package_text(package: PackageFiles) -> str:
    """parts/packages/NAME.toml, without its comments."""
    ordered = sorted(package.files, key=lambda one: (parse_wheel_filename(one.file)[1], one.file))
    return _text(_list("files", [_inline(**vars(one)) for one in ordered]))


def write(path: Path, text: str, heading: str) -> bool:
    """Write a file; whether it changed. heading: the comments of one that is new.

    Raises ConfigError.
    """
    with _writing(path):
        old = path.read_text(encoding="utf-8") if path.exists() else None
        head = heading if old is None else comments_of(old)
        new = f"{head}\n{text}" if head else text
        if new == old:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as stream:
            stream.write(new.encode())
    return True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            hint="with --check, nothing is written",
        ) from error


def comments_of(text: str) -> str:
    """The comments that a file begins with."""
    kept = []
    for line in text.splitlines(keepends=True):
        if not line.startswith("#"):
            break
        kept.append(line)
    return "".join(kept)


# -- TOML ------------------------------------------------------------------------------------------


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _pairs(**values: Value) -> Iterator[str]:
    """`key = value` for each that is known."""
    for key, value in values.items():
        if value:
            yield f"{key} = {_value(value)}"


def _inline(**values: Value) -> str:
    return "{ " + ", ".join(_pairs(**values)) + " }"


def _value(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(key: str, items: Sequence[str]) -> Iterator[str]:
    """One line for each item."""
    if items:
        yield f"{key} = ["
        yield from (f"  {item}," for item in items)
        yield "]"


def _wrapped(key: str, items: Sequence[str]) -> Iterator[str]:
    """As many items to a line as fit."""
    yield f"{key} = ["
    text = " ".join(f"{json.dumps(item)}," for item in items)
    yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield "]"


# -- files that change -----------------------------------------------------------------------------

# Behind which keys a new one belongs, the nearest first.
_BEHIND = {
    "version": ("name",),
    "url": ("version", "name"),
    "size": ("url", "version", "name"),
    "sha256": ("size", "url", "version", "name"),
    "digest": ("reference",),
}


class PinFile:
    """The file of a toolchain or a part, as it is now. written: whether it was changed here.

    path: from the first change on, that of the user's copy where the file is part of an installed
    fatwheel. folder: where among toolchains such a copy belongs.
    """

    def __init__(self, path: Path, folder: Path = Path()) -> None:
        self.path = path
        self._own = OWN_TOOLCHAINS / folder / path.name
        self.written = False
        self._bytes = path.read_bytes()

    def fill(self, key: Key, values: Values) -> None:
        """Write values that the table at `key` lacks.

        Raises ConfigError, and leaves the file as it is, where somebody else changed it meanwhile,
        where it is written so that lines cannot be added, and where it cannot be written.
        """
        # Not utf-8-sig: a byte order mark stays where it is.
        new = filled(self._bytes.decode("utf-8"), key, values)
        if new is None:
            raise ConfigError(
                "cannot be filled in automatically: it is written in a way that leaves no place "
                "for a new line",
                where=str(self.path),
                details=[f"{dotted(key)}: {_words(values)}"],
                hint="write these values into it",
            )
        self._write(new)

    def rewrite(self, text: str) -> None:
        """Write a part anew; the comments at its top stay. Raises ConfigError, as `fill` does."""
        head = comments_of(self._bytes.decode("utf-8"))
        self._write(f"{head}\n{text}" if head else text)

    def _write(self, new: str) -> None:
        with _writing(self.path):
            if self.path.read_bytes() != self._bytes:
                raise ConfigError(
                    "was changed meanwhile", where=str(self.path), hint="run the same command again"
                )
            if is_installed(self.path):
                self.path = _new(self._own)
            data = new.encode()
            with files.replacing(self.path) as stream:
                stream.write(data)
            self._bytes, self.written = data, True


def _new(own: Path) -> Path:
    """A file of the user's own, of which there is none so far."""
    if own.exists():
        raise ConfigError("appeared meanwhile", where=str(own), hint="run the same command again")
    own.parent.mkdir(parents=True, exist_ok=True)
    return own


def filled(text: str, key: Key, values: Values) -> str | None:
    """The text with values in the table at `key`; None where it would not mean just that."""
    bare = text.removeprefix("\ufeff")
    wanted = tomllib.loads(bare)
    table = _at(wanted, key)
    lines = bare.split("\n")
    places = TomlLines(bare)
    # From behind, so that the lines before stay where they are.
    for name, value in reversed(values.items()):
        number = places.line((*key, _anchor(name, table)))
        lines.insert(number, _line(name, value, lines[number - 1]))
    new = "\n".join(lines)
    table.update(values)
    try:
        same = tomllib.loads(new) == wanted
    except ValueError:
        return None
    return text[: len(text) - len(bare)] + new if same else None


def _anchor(name: str, table: Mapping[str, Any]) -> str:
    present = [key for key in _BEHIND[name] if key in table]
    return present[0] if present else _BEHIND[name][-1]


def _line(name: str, value: int | str, neighbour: str) -> str:
    """`size = 5`, indented and ended as the line before it."""
    indent = neighbour[: len(neighbour) - len(neighbour.lstrip())]
    end = "\r" if neighbour.endswith("\r") else ""
    return f"{indent}{name} = {json.dumps(value)}{end}"


def _at(value: Any, key: Key) -> dict[str, Any]:
    for part in key:
        value = value[part]
    assert isinstance(value, dict)
    return value


def _words(values: Values) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


# -- locking ---------------------------------------------------------------------------------------

# Locks toolchains: compares every pin with what is published, fills in what is not known yet.
#
# A pin that differs from what is published is told and stays: a file that changes under its name
# may be an attack.


@dataclass(frozen=True)
class LockReport:
    """All findings of one toolchain; written: whether its file was changed."""

    toolchain: str
    file: Path
    written: bool
    findings: tuple[PinState, ...]

    def count(self) -> dict[str, int]:
        """How many findings there are of each state."""
        counted = Counter(finding.state for finding in self.findings)
        return {state: counted[state] for state in STATES}

    def to_json(self) -> dict[str, Any]:
        """As `invoke lock --json` prints it (lock.schema.json)."""
        return {
            "toolchain": self.toolchain,
            "file": str(self.file),
            "written": self.written,
            "count": self.count(),
            "pins": [finding.to_json() for finding in self.findings],
        }


def lock_toolchains(
    names: Sequence[str],
    folders: Sequence[Path],
    downloads: Path,
    emit: Emit,
    *,
    write: bool,
    host: HostBuild | None = None,
) -> list[LockReport]:
    """Check the toolchains NAME.toml of these folders; fill in what is missing, if `write`.

    host: the Windows that their base images must run on, None for the newest images there are.
    Files that have to be fetched stay in `downloads`, as `fetch` has them. Raises UsageError and
    ConfigError where a toolchain cannot be loaded, FetchError where pip's configuration is of no
    use; what is wrong with a single pin is in the report (see `refusal`).
    """
    loaded = [
        (load_toolchain(name, *folders), PinFile(toolchain_file(name, *folders))) for name in names
    ]
    if host is not None:
        for toolchain, _ in loaded:
            check_host(host, toolchain)
    with closing(Index(read_pip_config())) as index:
        comparer = Comparer(index, downloads if write else None, emit, host)
        return [
            lock_file(toolchain.name, comparer.compare(toolchain), file, emit)
            for toolchain, file in loaded
        ]


def check_host(host: HostBuild, toolchain: Toolchain) -> None:
    """Raise UsageError where a host's revision says nothing about a toolchain's base image."""
    build = toolchain.containers.os_build if toolchain.containers else 0
    if build != host.build:
        image = f"its base image is Windows build {build}" if build else "it has no Windows image"
        raise UsageError(
            f"this is not a host for which {toolchain.name} needs another image: {image}",
            where=f"--host-build {host.build}.{host.revision}",
            hint="revisions matter only where host and image are of the same build; `ver` prints "
            "the host's",
        )


def refusal(reports: Sequence[LockReport]) -> FatwheelError | None:
    """What the command ends with where something moved or could not be reached."""
    findings = [finding for report in reports for finding in report.findings]
    moved = [finding.name for finding in findings if finding.state == MOVED]
    if moved:
        return HashMismatchError(
            "what is published differs from the pins",
            details=moved,
            hint="the pins stay as they are; to take a new one, remove the old from the "
            "toolchain's file, once you know why it differs",
        )
    unreachable = [finding for finding in findings if finding.state == UNREACHABLE]
    if unreachable:
        return FetchError(
            "not everything could be checked",
            details=[*dict.fromkeys(finding.note for finding in unreachable)],
            hint="check the network, and what pip is configured with: python -m pip config list",
        )
    return None


def lock_file(name: str, compared: Iterable[PinState], file: PinFile, emit: Emit) -> LockReport:
    """Fill what is found into a file, as it is found. Raises ConfigError."""
    started = time.monotonic()
    emit(StepStarted("lock", name))
    findings = []
    for finding in compared:
        findings.append(finding)
        if finding.state == FILLED:
            # At once, because what was fetched to know it may have taken long.
            before = file.path
            file.fill(finding.key, finding.new)
            if file.path != before:
                emit(Note(f"{file.path}: a copy of the one that comes with fatwheel"))
    emit(StepFinished("lock", time.monotonic() - started, name))
    return LockReport(name.replace("/", " "), file.path, file.written, tuple(findings))
