"""Builds images on an engine, on a base image that is checked and fetched before.

An engine runs the triggers of a base (ONBUILD) as the first steps of what is built on it, in our
build context and with whatever ADD fetches; and RUN uses the base's shell (SHELL). Neither can be
seen in our Dockerfile, so a base that has either is refused. All else in a base is files, and
settings by which these are found. It is trusted that far, as the C++ compiler comes from it, and is
named by its digest.

A base that the engine does not have is fetched here, by that digest, so that nothing is fetched
during a build. Each build context is sent as a tar stream.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from docker import errors as docker_errors

from ..config.toolchain import Toolchain
from ..errors import EngineError, ToolchainError
from ..events import Emit, Note, Progress
from ..provenance.lock import Material
from ..text import clean
from ..toolchain.fetch import check_hosts
from ..toolchain.homes import check_accepted
from .client import DockerEngine, cause_of, engine_errors, explained
from .contexts import (
    VARIABLE,
    WINE,
    BuildContext,
    contexts_of,
    named_bases,
    uses_wine,
    wine_context,
)
from .layouts import LINUX, build_arguments
from .render import FILES, alone, check_locked, fetched, size_of, tar_of

# -- the base image --------------------------------------------------------------------------------

# What images call the processors that toolchains name (OCI image specification, `architecture`),
# where that is another name.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What RUN means unless an image says otherwise (Dockerfile reference, SHELL).
_SHELLS = {"linux": ["/bin/sh", "-c"], "windows": ["cmd", "/S", "/C"]}
_LONGEST = 160  # characters of a foreign instruction that are shown
_MOST_SHOWN = 5


def inspect(engine: DockerEngine, name: str) -> Mapping[str, Any] | None:
    """The engine's description of an image; None if it does not have the image."""
    api: Any = engine.api  # the stubs leave this call without types
    with engine_errors(f"look for the image {name}", engine.endpoint):
        try:
            found: Mapping[str, Any] = api.inspect_image(name)
        except docker_errors.ImageNotFound:
            return None
    return found


def ready_base(engine: DockerEngine, base: str, platform: str, emit: Emit) -> None:
    """Have the engine fetch a missing base image, and check what it would add to a build.

    base: as FROM names it. platform: what it must be for, as toolchains name it: `linux-x86_64`.
    Raises ToolchainError if it is refused, EngineError if it cannot be fetched.
    """
    processor = platform.partition("-")[2]
    wanted = _ARCHITECTURES.get(processor, processor)
    found = inspect(engine, base)
    if found is None:
        _pull(engine, base, f"{engine.os}/{wanted}", emit)
        found = inspect(engine, base)
    if found is None:
        raise _absent(base, "the engine fetched it, but does not list it")
    its = str(found.get("Architecture") or wanted)
    if its != wanted:
        raise ToolchainError(
            f"the base image is for another processor: {its}, and not {wanted}",
            where=base,
            hint=f"use one for {wanted}: in the toolchain's [containers], or in {VARIABLE}",
        )
    config = found.get("Config") or {}
    triggers = [str(one) for one in config.get("OnBuild") or ()]
    if triggers:
        raise _refused("triggers (ONBUILD), which would run in images built on it",
                       base, [f"ONBUILD {one}" for one in triggers])  # fmt: skip
    volumes = [str(one) for one in config.get("Volumes") or ()]
    if volumes:
        raise _refused("volumes (VOLUME), to which containers could write without limit",
                       base, [f"VOLUME {one}" for one in volumes])  # fmt: skip
    shell = config.get("Shell")
    if shell and shell != _SHELLS.get(engine.os):
        raise _refused("its own shell (SHELL), for which the build steps are not written",
                       base, [f"SHELL {shell}"])  # fmt: skip


def _refused(what: str, base: str, instructions: list[str]) -> ToolchainError:
    return ToolchainError(
        f"the base image has {what}",
        where=base,
        details=[_shown(one) for one in instructions[:_MOST_SHOWN]],
        hint=f"use a base without it: in the toolchain's [containers], or in {VARIABLE}",
    )


def _pull(engine: DockerEngine, base: str, platform: str, emit: Emit) -> None:
    """Fetch it by its digest; a tag could come to mean another image. The digest may be that of a
    list of images, of which platform chooses one."""
    if "@sha256:" not in base:
        raise _absent(base, "it has no digest, which is needed to fetch it")
    emit(Note(f"fetching the base image {base}"))
    repository, _, digest = base.partition("@")
    api: Any = engine.api  # the stubs know no answer that is a stream
    try:
        for answer in api.pull(repository, tag=digest, platform=platform, stream=True, decode=True):
            if "error" in answer:
                raise _absent(base, str(answer["error"]))
    except docker_errors.APIError as error:  # what the engine or the registry said
        raise _absent(base, str(error.explanation or error)) from error
    except (docker_errors.DockerException, OSError) as error:
        raise explained(error, f"fetch the base image {base}", engine.endpoint) from error


def _absent(base: str, said: str) -> EngineError:
    said = clean(said).strip()
    cause = cause_of(said)
    if "does not match the engine's host" in cause.what:
        what, hint = cause.what, cause.hint
    else:
        what = f"the engine can neither find nor fetch the base image {base}"
        hint = (
            "check the engine's network and proxy (`docker info`). Without a network: "
            f"`docker pull {base}` elsewhere, then `docker save` and `docker load`; or build on "
            f"your own image: {VARIABLE}=3.11=IMAGE"
        )
    return EngineError(f"cannot build an image: {what}", where=base, details=[said], hint=hint)


def _shown(text: str) -> str:
    text = clean(text).replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


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
class ContainerImage:
    """An image on the engine: kind is 'toolchain', 'env' or 'wine'; size in bytes, its base
    included.

    built: it was built just now, since the engine did not have it.
    """

    kind: str
    tag: str
    id: str
    size: int
    built: bool

    @property
    def material(self) -> Material:
        """What a wheel's lock says of it."""
        return Material("image", self.tag, "", "", 0, self.id.removeprefix("sha256:"), "")

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def ensure_images(
    engine: DockerEngine, toolchain: Toolchain, python: str, torch: str, cache: Path, emit: Emit
) -> list[ContainerImage]:
    """The images for one Python and torch, built if need be: the toolchain image (left out if the
    engine has only the env image, which is enough), and the env image; or that with Wine.

    Emits Progress over bytes fetched, sent and installed, and a Note with the log of each build.
    Processes that want images at the same time wait for each other.

    Raises EngineError, ToolchainError (nothing has been locked), what `contexts_of` and `fetch`
    raise, and StoreError.
    """
    if uses_wine(toolchain, engine.os):
        return [ensure_wine(engine, toolchain, cache, emit)]
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


def ensure_wine(
    engine: DockerEngine, toolchain: Toolchain, cache: Path, emit: Emit
) -> ContainerImage:
    """The image with Wine, built if need be; otherwise as `ensure_images`."""
    engine.check_os(LINUX.os, toolchain.name)
    context = wine_context(toolchain, resolved_bases(engine, WINE, emit))
    if found := _found(engine, context):
        return found
    check_locked([context], toolchain)
    with alone(cache, emit):
        return _ensure(engine, context, toolchain, cache, emit)


def resolved_bases(engine: DockerEngine, python: str, emit: Emit) -> dict[str, str]:
    """The id of the base image that FATWHEEL_BASES names for a Python, or for Wine; empty if it
    names none.

    Raises UsageError if the variable is malformed, EngineError if the engine has no such image.
    """
    named = named_bases().get(python)
    if named is None:
        return {}
    found = inspect(engine, named)
    if found is None:
        raise EngineError(
            f"image not found: {named}",
            where=f"{VARIABLE}, {_for(python)}",
            hint=(
                f"`docker image ls` lists the available images; `docker pull {named}` may fetch it"
            ),
        )
    emit(Note(f"{_for(python)} is built on {named}, as set by {VARIABLE}"))
    return {python: str(found["Id"])}


def _for(python: str) -> str:
    return "Wine" if python == WINE else f"Python {python}"


def base_ids(engine: DockerEngine) -> dict[str, str]:
    """The ids of all base images that FATWHEEL_BASES names for Pythons.

    An image that the engine does not have is `absent: NAME`. Raises UsageError if the variable is
    malformed.
    """
    ids: dict[str, str] = {}
    for python, name in named_bases().items():
        if python == WINE:
            continue
        found = inspect(engine, name)
        ids[python] = f"absent: {name}" if found is None else str(found["Id"])
    return ids


def _found(
    engine: DockerEngine, context: BuildContext, built: bool = False
) -> ContainerImage | None:
    found = inspect(engine, context.tag)
    if found is None:
        return None
    return ContainerImage(context.kind, context.tag, str(found["Id"]), int(found["Size"]), built)


def _ensure(
    engine: DockerEngine, context: BuildContext, toolchain: Toolchain, cache: Path, emit: Emit
) -> ContainerImage:
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
