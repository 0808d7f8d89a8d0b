"""Checks the base image, and has it fetched, before an image is built on it.

An engine runs the triggers of a base (ONBUILD) as the first steps of what is built on it, in our
build context and with whatever ADD fetches; and RUN uses the base's shell (SHELL). Neither can be
seen in our Dockerfile, so a base that has either is refused. All else in a base is files, and
settings by which these are found. It is trusted that far, as the C++ compiler comes from it, and is
named by its digest.

A base that the engine does not have is fetched here, by that digest, so that nothing is fetched
during a build.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker import errors as docker_errors

from ..errors import EngineError, ToolchainError
from ..events import Emit, Note
from ..text import clean
from .client import DockerEngine, cause_of, engine_errors, explained
from .contexts import VARIABLE

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
