"""Builds the images of a toolchain on an engine, unless it has them already.

    <cache>/logs/images/TAG.log     what the engine said of the last build

An image's tag covers everything that goes into it, so an image that has the tag is the right one.
Images are never pushed anywhere: neither MSVC nor CUDA may be passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..containers.client import DockerEngine, engine_errors
from ..containers.layouts import build_arguments
from ..containers.specs import EngineFacts
from ..errors import EngineError
from ..events import Emit, Note, Progress
from ..model import Containers, Toolchain
from ..toolchain.fetch import check_hosts
from .bases import VARIABLE, named_bases
from .contexts import BuildContext, contexts_of
from .following import Following
from .foundation import inspect, ready_base
from .ingredients import FILES, alone, check_locked, fetched
from .stream import size_of, tar_of

LOGS = Path("logs", "images")
SENDING = "send to the engine"

_TICK = 16 << 20  # bytes between two reports


@dataclass(frozen=True)
class Image:
    """An image on the engine: kind is 'toolchain' or 'env'; size in bytes, its base included.

    built: it was not there before.
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
    """The toolchain image, where the engine has it, and the env image, built if need be.

    Emits Progress over bytes fetched, sent and installed, and a Note with the log of each build.
    Processes that want images at the same time wait for each other.

    Raises EngineError, ToolchainError (nothing has been locked), what `contexts_of` and `fetch`
    raise, and StoreError.
    """
    contexts_of(toolchain, python, torch, {})  # whatever is wrong is told before anything else
    containers = toolchain.containers
    assert containers is not None, "contexts_of saw to it"
    engine.check_os(containers.os, toolchain.name)
    contexts = contexts_of(toolchain, python, torch, resolved_bases(engine, python, emit))
    if _found(engine, contexts[-1]) is None:
        check_locked(contexts, toolchain)
        check_hosts((file, cache / FILES) for context in contexts for file in context.files)
        with alone(cache, emit):
            return [_ensure(engine, context, containers, cache, emit) for context in contexts]
    found = [_found(engine, context) for context in contexts]
    return [image for image in found if image is not None]


def resolved_bases(engine: DockerEngine, python: str, emit: Emit) -> dict[str, str]:
    """What FATWHEEL_BASES names for a Python, as the id of the image that the engine has.

    Raises UsageError for a variable that cannot be read, EngineError where there is none.
    """
    named = named_bases().get(python)
    if named is None:
        return {}
    found = inspect(engine, named)
    if found is None:
        raise EngineError(
            f"the engine has no image {named}",
            where=f"{VARIABLE}, Python {python}",
            hint=f"`docker image ls` lists those that it has; `docker pull {named}` may fetch it",
        )
    emit(Note(f"Python {python} is built on {named}, as {VARIABLE} says"))
    return {python: str(found["Id"])}


def base_ids(engine: DockerEngine) -> dict[str, str]:
    """All that FATWHEEL_BASES names, as the ids of the images that the engine has.

    One that it has not is told by its name. Raises UsageError for a variable that cannot be read.
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
    engine: DockerEngine, context: BuildContext, containers: Containers, cache: Path, emit: Emit
) -> Image:
    image = _found(engine, context)
    if image is None:
        ready_base(engine, context.base, emit)
        places = fetched(context, cache, emit)
        _build(engine, context, places, build_options(engine, context, containers), cache, emit)
        image = _found(engine, context, built=True)
    if image is None:
        raise EngineError(
            f"the engine built the image {context.tag} and does not have it",
            hint="does something remove images there? Run the same command again",
        )
    return image


def build_options(
    facts: EngineFacts, context: BuildContext, containers: Containers
) -> dict[str, Any]:
    """What the engine is told besides the context, in the SDK's words."""
    # Everything is copied, but for the compiler of Windows, which Microsoft's installer fetches.
    downloads = context.kind == "toolchain" and containers.os == "windows"
    return build_arguments(facts, containers.os_build, downloads)


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
    emit(Note(f"building the image {context.tag}; what happens is in {log}"))
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
            self._emit(Progress(SENDING, self._done, self._total))
