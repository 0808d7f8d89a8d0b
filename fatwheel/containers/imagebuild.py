"""Builds images on an engine, sending each build context as a tar stream.

Format: POSIX.1-1988 (ustar), as Python's tarfile writes headers. Owner, mode and time of every
file are fixed, so that an engine which has seen a file before knows it again. The SDK's own
archives (`docker.utils.build`) keep the files' times, and are written to the disk as a whole before
any of their gigabytes is sent.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..config.model import Toolchain
from ..errors import EngineError, FetchError
from ..events import Emit, Note, Progress
from ..provision.mend import MTIME
from ..text import clean
from ..toolchain.fetch import check_hosts
from ..toolchain.msvc import check_accepted
from .client import DockerEngine, cause_of, engine_errors
from .contexts import VARIABLE, BuildContext, contexts_of, named_bases
from .foundation import inspect, ready_base
from .layouts import build_arguments
from .render import FILES, alone, check_locked, fetched

_CHUNK = 1 << 20

Advance = Callable[[int], None]


def size_of(context: BuildContext) -> int:
    """Bytes of all that a context holds, as far as that is known; without what the archive adds."""
    return sum(len(text) for _, text in context.texts) + sum(file.size for file in context.files)


def tar_of(context: BuildContext, places: Mapping[str, Path], advance: Advance) -> Iterator[bytes]:
    """The archive, piece by piece.

    places: for each of the context's files, by its name, where it is. advance is told how many
    bytes of content each piece had. Raises FetchError where a file changes meanwhile.
    """
    for path, text in context.texts:
        yield from _member(path, len(text), io.BytesIO(text), advance)
    for file in context.files:
        place = places[file.filename]
        try:
            with place.open("rb") as stream:
                size = file.size or os.fstat(stream.fileno()).st_size
                yield from _member(f"files/{file.filename}", size, stream, advance)
        except OSError as error:  # which would be taken for the engine's
            raise FetchError(
                f"cannot read a file that goes into an image: {error.strerror}",
                where=str(place),
                hint="something else is changing the cache: run the same command again",
            ) from error
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, size: int, content: BinaryIO, advance: Advance) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    info.mtime = MTIME
    yield info.tobuf(tarfile.PAX_FORMAT)
    left = size
    while left:
        chunk = content.read(min(left, _CHUNK))
        if not chunk:
            raise FetchError(
                f"{name} was truncated while it was sent to the engine",
                hint="something else is changing the cache: run the same command again",
            )
        left -= len(chunk)
        advance(len(chunk))
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


# -- following a build -----------------------------------------------------------------------------

# Follows the build of an image in the engine's answers: steps, their output, and why one failed.
#
# An engine answers a build with JSON documents one after the other (Docker Engine API, ImageBuild):
# `stream` is the output, in which each step begins with a line `Step 3/9 : RUN …`; `error` and
# `errorDetail` end it.


LABEL = "image"

_STEP = re.compile(r"Step (\d+)/(\d+) : (\S+)")
_CODE = re.compile(r"returned a non-zero code: (\d+)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FULL = re.compile(r"no space left on device|not enough space on the disk", re.IGNORECASE)
_LAST = 12  # lines of a failed step's output that are shown


class Following:
    """One build. The log gets every line; Progress counts the bytes of the files installed."""

    def __init__(self, context: BuildContext, log: TextIO, place: Path, emit: Emit) -> None:
        self._context = context
        self._log = log
        self._place = place
        self._emit = emit
        self._sizes = {file.filename: file.size for file in context.files}
        self._total = sum(self._sizes.values())
        self._line = ""
        self._step = ""  # `step 3 of 9`
        self._instruction = ""
        self._last: deque[str] = deque(maxlen=_LAST)
        self._copied = 0  # bytes of the files that the last COPY copied
        self._weight = 0  # bytes that the present step stands for
        self._done = 0

    def take(self, message: Mapping[str, Any]) -> None:
        """Take in one document. Raises EngineError where it says that the build failed."""
        if "error" in message:
            self._end_line()
            self._write(str(message["error"]))
            raise self._failure(str(message["error"]), message.get("errorDetail") or {})
        if "stream" in message:
            *lines, self._line = (self._line + str(message["stream"])).split("\n")
            for line in lines:
                self._take_line(line)
        elif "status" in message and "progressDetail" not in message:
            self._write(" ".join(str(message[key]) for key in ("id", "status") if key in message))

    def finish(self) -> None:
        """The build has succeeded."""
        self._end_line()
        self._emit(Progress(LABEL, self._total, self._total))

    def _end_line(self) -> None:
        if self._line:
            self._take_line(self._line)
            self._line = ""

    def _take_line(self, line: str) -> None:
        line = clean(_COLOUR.sub("", line)).rstrip()
        self._write(line)
        step = _STEP.match(line)
        if step is None:
            if line and not line.startswith(" ---> "):
                self._last.append(line)
            return
        self._step = f"step {step[1]} of {step[2]}"
        self._instruction = line.partition(" : ")[2]
        self._last.clear()
        self._count(step[3])

    def _count(self, verb: str) -> None:
        """The previous step is done. COPY and the step after it each count for half of the bytes
        that are copied."""
        self._done += self._weight
        if verb == "COPY":
            words = self._instruction.split()
            self._copied = sum(self._sizes.get(word.removeprefix("files/"), 0) for word in words)
        self._weight = self._copied // 2
        if verb != "COPY":
            self._copied = 0
        self._emit(Progress(LABEL, min(self._done, self._total), self._total))

    def _write(self, line: str) -> None:
        self._log.write(f"{line}\n")
        self._log.flush()

    def _failure(self, said: str, detail: Mapping[str, Any]) -> EngineError:
        said = clean(said).strip()
        code = _CODE.search(said)
        where = f"{self._context.tag}, {self._step or 'before the first step'}"
        log = f"full log: {self._place}"
        full = next((line for line in (said, *self._last) if _FULL.search(line)), None)
        if full:
            cause = cause_of(full)
            what = f"cannot build an image: {cause.what}"
            return EngineError(what, where=where, details=[full, log], hint=cause.hint)
        if code or "code" in detail:
            number = code[1] if code else detail["code"]
            return EngineError(
                f"building an image failed: a command exited with code {number}",
                where=where,
                details=[*_shortened(self._instruction), *self._last, log],
                hint=(
                    "fix what it reports and run the same command again: it continues from this "
                    "step"
                ),
            )
        cause = cause_of(said)
        return EngineError(
            f"cannot build an image: {cause.what or said}",
            where=where,
            details=[*([said] if cause.what else []), *self._last, log],
            hint=cause.hint,
        )


def _shortened(instruction: str, longest: int = 240) -> list[str]:
    if len(instruction) > longest:
        instruction = f"{instruction[:longest]} …"
    return [instruction] if instruction else []


# -- building --------------------------------------------------------------------------------------

# <cache>/logs/images/TAG.log     the engine's output of the last build
#
# An image's tag covers everything that goes into it, so an image that has the tag is the right one.
# Images are never pushed anywhere: neither MSVC nor CUDA may be redistributed.


LOGS = Path("logs", "images")
SENDING = "send to the engine"

_TICK = 16 << 20  # bytes between two reports


@dataclass(frozen=True)
class Image:
    """An image on the engine: kind is 'toolchain' or 'env'; size in bytes, its base included.

    built: it was built just now, since the engine did not have it.
    """

    kind: str
    tag: str
    id: str
    size: int
    built: bool

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def ensure_images(
    engine: DockerEngine, toolchain: Toolchain, python: str, torch: str, cache: Path, emit: Emit
) -> list[Image]:
    """The images for one Python and torch, built if need be: the toolchain image (left out if the
    engine has only the env image, which is enough), and the env image.

    Emits Progress over bytes fetched, sent and installed, and a Note with the log of each build.
    Processes that want images at the same time wait for each other.

    Raises EngineError, ToolchainError (nothing has been locked), what `contexts_of` and `fetch`
    raise, and StoreError.
    """
    contexts_of(toolchain, python, torch, {})  # mistakes are reported before the engine is asked
    containers = toolchain.containers
    assert containers is not None, "contexts_of saw to it"
    engine.check_os(containers.os, toolchain.name)
    contexts = contexts_of(toolchain, python, torch, resolved_bases(engine, python, emit))
    if _found(engine, contexts[-1]) is None:
        check_locked(contexts, toolchain)
        check_accepted(toolchain.msvc, cache)
        check_hosts((file, cache / FILES) for context in contexts for file in context.files)
        with alone(cache, emit):
            return [_ensure(engine, context, toolchain, cache, emit) for context in contexts]
    found = [_found(engine, context) for context in contexts]
    return [image for image in found if image is not None]


def resolved_bases(engine: DockerEngine, python: str, emit: Emit) -> dict[str, str]:
    """The id of the base image that FATWHEEL_BASES names for a Python; empty if it names none.

    Raises UsageError if the variable is malformed, EngineError if the engine has no such image.
    """
    named = named_bases().get(python)
    if named is None:
        return {}
    found = inspect(engine, named)
    if found is None:
        raise EngineError(
            f"image not found: {named}",
            where=f"{VARIABLE}, Python {python}",
            hint=(
                f"`docker image ls` lists the available images; `docker pull {named}` may fetch it"
            ),
        )
    emit(Note(f"Python {python} is built on {named}, as set by {VARIABLE}"))
    return {python: str(found["Id"])}


def base_ids(engine: DockerEngine) -> dict[str, str]:
    """The ids of all base images that FATWHEEL_BASES names, by Python.

    An image that the engine does not have is `absent: NAME`. Raises UsageError if the variable is
    malformed.
    """
    ids: dict[str, str] = {}
    for python, name in named_bases().items():
        found = inspect(engine, name)
        ids[python] = f"absent: {name}" if found is None else str(found["Id"])
    return ids


def _found(engine: DockerEngine, context: BuildContext, built: bool = False) -> Image | None:
    found = inspect(engine, context.tag)
    if found is None:
        return None
    return Image(context.kind, context.tag, str(found["Id"]), int(found["Size"]), built)


def _ensure(
    engine: DockerEngine, context: BuildContext, toolchain: Toolchain, cache: Path, emit: Emit
) -> Image:
    image = _found(engine, context)
    if image is None:
        ready_base(engine, context.base, toolchain.platform, emit)
        places = fetched(context, cache, emit)
        os_build = toolchain.containers.os_build if toolchain.containers else 0
        _build(engine, context, places, build_arguments(engine, os_build), cache, emit)
        image = _found(engine, context, built=True)
    if image is None:
        raise EngineError(
            f"the image {context.tag} was built, but the engine does not have it",
            hint="something may be removing images there; run the same command again",
        )
    return image


def labels_of(context: BuildContext) -> dict[str, str]:
    return {"fatwheel": "image", "fatwheel.image": context.kind}


def _build(
    engine: DockerEngine,
    context: BuildContext,
    places: Mapping[str, Path],
    options: Mapping[str, Any],
    cache: Path,
    emit: Emit,
) -> None:
    log = cache / LOGS / f"{context.tag.replace('/', '-').replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    emit(Note(f"building the image {context.tag}; log: {log}"))
    sending = _Sending(size_of(context), emit)
    api: Any = engine.api  # the stubs know no stream that is made while it is read
    with (
        log.open("w", encoding="utf-8") as stream,
        engine_errors(f"build the image {context.tag}", str(log)),
    ):
        following = Following(context, stream, log, emit)
        answers = api.build(
            fileobj=tar_of(context, places, sending.advance),
            custom_context=True,
            tag=context.tag,
            labels=labels_of(context),
            rm=True,
            forcerm=True,
            decode=True,
            timeout=None,  # installing a compiler takes as long as it takes
            **options,
        )
        for answer in answers:
            following.take(answer)
        following.finish()


class _Sending:
    """Emits Progress over the bytes sent, not too often."""

    def __init__(self, total: int, emit: Emit) -> None:
        self._total = total
        self._emit = emit
        self._done = 0
        self._next = 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._done >= self._next or self._done == self._total:
            self._next = self._done + _TICK
            self._emit(Progress(SENDING, self._done, max(self._done, self._total)))
