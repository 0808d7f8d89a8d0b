"""What runs inside a build container, or in a process for Windows in the place of one: capture,
one more look-up, the jobs of a shard, assembling, or a survey of what the container has.

In: one JSON line that says which, and of what (`Message`); for a shard then its jobs. Out: for a
shard what `worker.shard` says, else one line {"outcome": "made", …} or {"outcome": "failed", …}.
When the input ends everything in the container ends. The image's own description says where its
Python, CUDA and host compiler are.

Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..model import Environment, Front, Host
from .assemble import look_up, slice_digests
from .context import fronts_from_wire, unit_from_wire
from .processes import end_group, kills, lead_group
from .roots import remove_tree
from .shard import Answers, log, outcome_of, serve
from .surroundings import surroundings_of
from .upstream import Project, Upstream
from .workshop import UPSTREAM, Order, laid_out, upstream_of

PROJECT, CAPTURED = "project", "captured"  # folders among the sources, by what made them
# There too, with a number: the branches that capture and look-ups wrote, for the rest of the build.
LEARNED = "learned"
BRANCH, WHEEL, SOURCES = "store", "wheel", "sources"  # folders among what comes in
CAPTURE, LOOK_UP, SHARD, ASSEMBLE = "capture", "look-up", "shard", "assemble"
SURVEY = "survey"


@dataclass(frozen=True)
class Message:
    """What a container is asked for; all paths are those inside.

    project:     root is its folder's name below `sources`/project.
    compiler_id: digest of the toolchain's CUDA compilers.
    scope:       of the build's entries in the store.
    units:       of an earlier capture, for assembling and look-ups.
    audit:       see `context.Context`.
    trunk:       '' or the folder of one more store that may only be read, behind `store`.
    """

    task: str
    name: str
    project: Project
    fronts: tuple[Front, ...]
    units: tuple[dict[str, Any], ...]
    compiler_id: str
    scope: str
    seeded: bool
    threads: int
    description: str
    sources: str
    store: str
    incoming: str
    work: str
    trunk: str = ""
    audit: int = -1

    def to_line(self) -> str:
        data = asdict(self)
        data["project"]["root"] = self.project.root.as_posix()
        return json.dumps(data) + "\n"


def message_from_line(line: str) -> Message:
    data = json.loads(line)
    project = data["project"]
    return Message(
        **{
            **data,
            "project": Project(
                root=Path(project["root"]),
                backend=project["backend"],
                backend_paths=tuple(project["backend_paths"]),
                variables=tuple((name, value) for name, value in project["variables"]),
                epoch=project["epoch"],
                stub_commands=tuple(project["stub_commands"]),
                subdirectory=project["subdirectory"],
                requirements=project["requirements"],
                settings=tuple((name, value) for name, value in project["settings"]),
                pretend=project["pretend"],
                flags=tuple((tool, tuple(words)) for tool, words in project["flags"]),
                rules=tuple((pattern, tuple(archs)) for pattern, archs in project["rules"]),
                front_units=tuple(project["front_units"]),
            ),
            "fronts": fronts_from_wire(data["fronts"]),
            "units": tuple(data["units"]),
        }
    )


def main() -> None:
    """The container's entry point."""
    lead_group()
    message = message_from_line(sys.stdin.readline())
    answer = Answers()
    if message.task == SHARD:
        _serve(message, answer)
    else:
        watch = threading.Thread(target=_end_with_input, daemon=True)
        watch.start()
        work = {
            CAPTURE: _capture, LOOK_UP: _look_up, ASSEMBLE: _assemble, SURVEY: _survey,
        }[message.task]  # fmt: skip
        before = kills()
        outcome = outcome_of(lambda: work(message), message.task)
        answer(outcome if kills() == before else {"outcome": "killed", "rss": 0})
        watch.join()  # the build ends this container when it has heard
    end_group()


def _end_with_input() -> None:
    while os.read(0, 1 << 16):
        pass
    end_group()


def _capture(message: Message) -> dict[str, Any]:
    """Units, what the store answers of them, and a copy of their sources for the others."""
    order = _order(message, with_project=True)
    log("capture: upstream's build begins")
    upstream = upstream_of(order)
    with _logged(upstream, CAPTURE):
        captured = upstream.capture(message.fronts)
    log(f"capture: {len(captured.units)} units")
    with laid_out(order, order.project.top, message.fronts) as context:
        shutil.copytree(context.places.source, Path(message.incoming, SOURCES))
        lookup = look_up(captured.units, message.fronts, context, message.threads)
    log(f"capture: {len(lookup.pending)} jobs are left to do")
    return {
        "outcome": "made",
        "units": [asdict(unit) for unit in captured.units],
        "notes": list(captured.notes),
        "links": [list(words) for words in captured.links],
        "wheel": captured.wheel,
        "lookup": lookup.to_wire(),
        "host": asdict(_host(message)),
    }


def _look_up(message: Message) -> dict[str, Any]:
    """What the store answers by now of the units of an earlier capture."""
    order = _order(message, with_project=False)
    units = [unit_from_wire(unit) for unit in message.units]
    with laid_out(order, Path(message.sources, CAPTURED), message.fronts) as context:
        lookup = look_up(units, message.fronts, context, message.threads)
    log(f"look-up: {len(lookup.pending)} jobs are left to do")
    return {"outcome": "made", "lookup": lookup.to_wire()}


def _survey(message: Message) -> dict[str, Any]:
    """What the container has that other machines of a cluster must have, too."""
    described, host = _described(message), _host(message)
    include = Path(described["environment"]["include"])
    compiler = f"{host.compiler} {host.compiler_id}"
    found = surroundings_of(compiler, Path(described["cxx"]), host.python, include)
    return {"outcome": "made", "found": found}


def _host(message: Message) -> Host:
    described = _described(message)
    python = described["environment"]["python_version"]
    return Host(described["compiler"], described["host_id"], python)


def _serve(message: Message, answer: Answers) -> None:
    def until_the_end() -> dict[str, Any]:
        order = _order(message, with_project=False)
        with laid_out(order, Path(message.sources, CAPTURED), message.fronts) as context:
            serve(context, sys.stdin, answer)
        return {"outcome": "made"}

    outcome = outcome_of(until_the_end, message.task)
    if outcome["outcome"] == "failed":
        answer({"id": None, **outcome})
        sys.stdin.read()


def _assemble(message: Message) -> dict[str, Any]:
    """Upstream's wheel, among what comes in, and the digests of the slices in it."""
    order = _order(message, with_project=True)
    units = [unit_from_wire(unit) for unit in message.units]
    log("assemble: upstream's build begins")
    with laid_out(order, Path(message.sources, CAPTURED), message.fronts) as context:
        upstream = upstream_of(order)
        with _logged(upstream, ASSEMBLE):
            wheel = upstream.assemble(context, message.fronts, units)
        digests = slice_digests(units, message.fronts, context)
        linked = upstream.linked()
    target = Path(message.incoming, WHEEL, wheel.name)
    target.parent.mkdir()
    shutil.copyfile(wheel, target)
    log(f"assemble: {wheel.name}")
    return {"outcome": "made", "wheel": wheel.name, "slices": digests, "linked": linked}


@contextmanager
def _logged(upstream: Upstream, mode: str) -> Iterator[None]:
    """Show what upstream's build printed in the block to whoever keeps the log."""
    try:
        yield
    finally:
        with suppress(OSError):
            log(upstream.log(mode).read_text(encoding="utf-8", errors="replace"))


def _order(message: Message, *, with_project: bool) -> Order:
    described = _described(message)
    found = described["environment"]
    folders = {name: Path(found[name]) for name in _FOLDERS}
    environment = Environment(
        **folders,
        python_version=found["python_version"],
        torch=found["torch"],
        compiler_id=message.compiler_id,
    )
    os.environ.update(described["variables"])
    work = Path(message.work)
    project = message.project
    if with_project:
        project = _copied(message, work / PROJECT)
    return Order(
        name=message.name,
        project=project,
        environment=environment,
        cxx=described["cxx"],
        host_id=described["host_id"],
        python=sys.executable,
        seeded=message.seeded,
        variables=tuple(described["variables"].items()),
        store_root=str(Path(message.incoming, BRANCH)),
        store_limit=sys.maxsize,
        store_scope=message.scope,
        store_trunks=(
            *map(str, sorted(Path(message.sources).glob(f"{LEARNED}*"), reverse=True)),
            *filter(None, (message.store, message.trunk)),
        ),
        work=str(work),
        refuge=str(work / "refuge"),
        audit=message.audit,
    )


def _described(message: Message) -> dict[str, Any]:
    """What the image says of itself."""
    described: dict[str, Any] = json.loads(Path(message.description).read_text(encoding="utf-8"))
    return described


_FOLDERS = ("root", "python", "site", "cuda_home", "include")


def _copied(message: Message, folder: Path) -> Project:
    """The project in a folder that its build may write into, like those of an earlier build."""
    for left in (folder, Path(message.work, UPSTREAM)):
        if left.exists():
            remove_tree(left)
    shutil.copytree(Path(message.sources, PROJECT), folder, symlinks=True)
    return message.project.at(folder / message.project.root)
