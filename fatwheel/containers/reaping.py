"""Containers of builds that are gone: known by the rosters that these left, and removed.

Containers end by themselves when their build does. What is left for this are those that were made
and not started when the build was killed, and those whose engine was stopped in between.

What a container's labels say is anybody's word. They help to find those that may be ours, and
those that only say so, which are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import errors as docker_errors

from .client import FAILURES, DockerEngine, engine_errors
from .roster import BUILD, CACHE, HOST, read_rosters, this_host

_SHOWN = 20  # ids in a command


@dataclass(frozen=True)
class Leftovers:
    """removed: how many containers. unknown: the ids of those that say they are of this cache's
    builds, and are in no roster."""

    removed: int
    unknown: tuple[str, ...]

    @property
    def note(self) -> str:
        """What to tell the user; '' where there is nothing."""
        if not self.unknown:
            return ""
        ids = " ".join(name[:12] for name in self.unknown[:_SHOWN])
        count = len(self.unknown)
        said = "1 container says it is" if count == 1 else f"{count} containers say they are"
        it = "it" if count == 1 else "them"
        return (
            f"{said} of a build of this cache, and no build wrote {it} down: left alone; if nobody "
            f"needs {it}: docker rm --force --volumes {ids}"
        )


def reap(engine: DockerEngine, cache: Path) -> Leftovers:
    """Remove the containers of this machine's and this cache's builds that are gone.

    Those of living builds, and of machines whose builds cannot be seen from here, are left alone.
    Raises EngineError where the engine does not answer.
    """
    before = read_rosters(cache, engine.endpoint)
    with engine_errors("look for containers of builds that are gone", engine.endpoint):
        found = engine.api.containers(all=True, filters={"label": [BUILD]})
    removed = 0
    for roster in before:
        if roster.gone:
            outcomes = [_remove(engine, one["Id"]) for one in found if roster.has(one)]
            removed += sum(outcomes)
            if all(outcomes):
                roster.drop()
    # A build may have begun after the first look, and its container be among those found.
    known = [*before, *read_rosters(cache, engine.endpoint)]
    claims = [one for one in found if _claims(one.get("Labels") or {}, cache)]
    unknown = [one["Id"] for one in claims if not any(roster.has(one) for roster in known)]
    return Leftovers(removed, tuple(unknown))


def _claims(labels: Mapping[str, Any], cache: Path) -> bool:
    """Whether a container says that it is of this machine and cache."""
    return labels.get(CACHE) == str(cache) and labels.get(HOST) == this_host()


def _remove(engine: DockerEngine, container: str) -> bool:
    """Whether this removed it, or it is not there any more."""
    try:
        engine.api.remove_container(container, force=True, v=True)
    except docker_errors.NotFound:
        return True
    except FAILURES:  # it may be ending in this moment: the next build will see
        return False
    return True
