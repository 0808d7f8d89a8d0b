"""Prints the plan of a build (`--plan`): sentences and tables, then the commands. To stdout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .. import text
from ..config.toolchains import lock_command
from ..containers.layouts import (
    ENGINES_OWN,
    HYPERV,
    ISOLATION_VARIABLE,
    PROCESS_ISOLATION,
)
from ..machine import in_words
from .console import out, write, write_rows, write_sentences
from .tables import Row, some_of

if TYPE_CHECKING:
    from ..engines.base import PlannedContainer
    from ..pipeline.plan import BuildPlan, PlannedWheel

NAMES_SHOWN = 3  # of the files that are not locked yet


def show_plan(plan: BuildPlan) -> None:
    """What `invoke build` would do, of which nothing was started."""
    console = out()
    wheels = text.count(len(plan.wheels), "wheel")
    recipe = plan.first.recipe
    write(console, (f"{recipe.project} {recipe.version}: {wheels}; nothing was started", "bold"))
    write_sentences(console, _sentences(plan))
    for heading, rows in (
        ("Wheels", planned_wheel_rows(plan)),
        ("Images", planned_image_rows(plan)),
        ("Containers", planned_container_rows(plan)),
    ):
        if rows:
            write(console, "")
            write(console, (heading, "bold"))
            write_rows(console, rows)
    _write_commands(console, plan)


def _sentences(plan: BuildPlan) -> Iterator[tuple[str, str]]:
    """Heading and sentence of each line above the tables."""
    about, footprint = plan.to_json(), plan.footprint
    yield "source", about["fetched"] or "beside the recipe"
    compilers = f"CUDA {about['cuda']}, nvcc {about['nvcc']}, {about['compiler']}"
    others = "; others below" if _differ(plan) else ""
    yield (
        "toolchain",
        f"{about['toolchain']}, for {in_words(about['platform'])}: {compilers}{others}",
    )
    if installed := plan.first.toolchain.installed:
        yield (
            "installed",
            f"{installed.cuda_home}: nothing is pinned, so the wheel cannot be rebuilt elsewhere",
        )
    if (msvc := plan.first.toolchain.msvc) and msvc.installed:
        yield (
            "installed",
            f"{msvc.installed.folder}, with Windows SDK {msvc.installed.sdk}: MSVC is not pinned, "
            "so the wheel cannot be rebuilt elsewhere",
        )
    if plan.first.toolchain.device_packages:
        yield "device", "CUDA's compilers for Linux make the code of what Windows' front end leaves"
    yield "torch", ", ".join(dict.fromkeys(wheel["torch"] for wheel in about["wheels"]))
    yield "archs", ", ".join(about["archs"])
    yield from _drivers(about)
    yield "front", f"{about['front']}: {_parts(about['fronts'], 'front')}{_front_units(about)}"
    if about["units"]:
        yield "units", _ruled(about)
    yield "engine", f"{about['engine']}: {_shares(about)}"
    if not about["isolated"]:
        yield "access", "the project's own build runs as you, with your files and the network"
    limits = f"{text.count(about['jobs'], 'job')} at a time, {text.size(about['memory'])} for all"
    yield "limits", limits + (", if the engine has that many" if footprint.containers else "")
    if plan.remote:
        yield "remote", plan.remote.in_words
    if footprint.isolation:
        yield "isolation", _isolation(footprint.isolation)
    if len(plan.wheels) > 1:
        yield "device", _sharing(plan)
    if footprint.unlocked:
        yield "to lock", _locking(footprint.unlocked, about["toolchain"])
    elif not footprint.final_tags:
        yield (
            "tags",
            ("will differ: they depend on the ids of the base images that FATWHEEL_BASES names"),
        )


def _isolation(way: str) -> str:
    """How Windows containers are kept apart from their host."""
    if way == ENGINES_OWN:
        return (
            f"the engine's own: {PROCESS_ISOLATION} on Windows Server, {HYPERV} on Windows 10 "
            "and 11"
        )
    return f"{way}, as {ISOLATION_VARIABLE} says"


def _drivers(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the wheels will need of a GPU's driver: a line for each CUDA."""
    from ..verify.drivers import Need, in_words, jit_in_words

    for cuda, wheel in {wheel["cuda"]: wheel for wheel in about["wheels"]}.items():
        needs = in_words({gpu: Need(**need) for gpu, need in wheel["drivers"].items()})
        yield "driver", needs.removeprefix("driver ") or f"not known for CUDA {cuda}"
    if about["jit"]:
        yield "JIT", jit_in_words(about["jit"])


def _parts(parts: list[dict[str, Any]], name: str) -> str:
    """Fronts or shards, each with its images."""
    return "; ".join(
        f"{part[name]}{' split' if part.get('split') else ''} → {', '.join(part['codes'])}"
        for part in parts
    )


def _front_units(about: dict[str, Any]) -> str:
    """For which units the fronts are, where not for all."""
    units = about["front_units"]
    return f"; by the recipe's proof, for {some_of(units)}; exact for others" if units else ""


def _ruled(about: dict[str, Any]) -> str:
    """For what the recipe says that units are; others are known when the project is captured."""
    said = [f"{one['units']} → {', '.join(one['codes']) or 'none'}" for one in about["units"]]
    return f"{'; '.join(said)}, as the recipe says; of others, the project's own options decide"


def _shares(about: dict[str, Any]) -> str:
    """How the work is divided."""
    shards, most = about["shards"], about["at_once"]
    at_once = f", {most} at a time" if most < len(shards) else ""
    return f"{text.count(len(shards), 'shard')}{at_once}: {_parts(shards, 'name')}"


def _sharing(plan: BuildPlan) -> str:
    """Which wheels get their device code from where."""
    takers: dict[str, list[str]] = {}
    for wheel in plan.wheels:
        others = takers.setdefault(_label(plan, plan.device_code_of(wheel)), [])
        if plan.device_code_of(wheel) is not wheel:
            others.append(_label(plan, wheel))
    parts = [
        f"for {first}" + (f" ({'; '.join(others)} takes it from the store)" if others else "")
        for first, others in takers.items()
    ]
    more = "; what is equal in them is compiled once" if len(parts) > 1 else ""
    return f"code is compiled {', '.join(parts)}{more}"


def _label(plan: BuildPlan, wheel: PlannedWheel) -> str:
    """What tells a wheel from the others of a plan."""
    target, every = wheel.target, [one.target for one in plan.wheels]
    words = [f"Python {target.python}"]
    if len({one.torch for one in every}) > 1:
        words.append(f"torch {target.torch}")
    if len({one.toolchain.cuda for one in every}) > 1:
        words.append(f"CUDA {target.toolchain.cuda}")
    return ", ".join(words)


def _locking(unlocked: tuple[str, ...], toolchain: str) -> str:
    names = ", ".join(unlocked[:NAMES_SHOWN])
    if len(unlocked) > NAMES_SHOWN:
        names += f" and {len(unlocked) - NAMES_SHOWN} more"
    return f"{names}: run `{lock_command(toolchain)}` first; this changes the tags"


# -- tables --------------------------------------------------------------------------------------


def planned_wheel_rows(plan: BuildPlan) -> list[Row]:
    return [
        {
            "Python": wheel.target.python,
            **({"torch": wheel.target.torch} if _differ(plan) else {}),
            "wheel": wheel.name.filename,
        }
        for wheel in plan.wheels
    ]


def _differ(plan: BuildPlan) -> bool:
    """Whether the wheels differ in more than their Python."""
    return len({(one.target.toolchain.name, one.target.torch) for one in plan.wheels}) > 1


def planned_image_rows(plan: BuildPlan) -> list[Row]:
    return [
        {
            "layer": image.kind,
            "Python": ", ".join(image.pythons),
            "files": str(image.files),
            "size": text.size(image.size) + ("+" if image.unlocked else ""),
            **({"not locked": str(len(image.unlocked))} if plan.footprint.unlocked else {}),
            "image": image.tag,
            "built on": image.base,
        }
        for image in plan.footprint.images
    ]


def planned_container_rows(plan: BuildPlan) -> list[Row]:
    return [
        {
            "Python": group.python,
            **({"torch": plan.wheels[group.wheel].target.torch} if _differ(plan) else {}),
            "container": group.purpose,
            "compiles": group.compiles,
            "count": _count(group),
            "CPUs": str(group.cpus),
            "memory": text.size(group.memory),
        }
        for group in plan.footprint.containers
    ]


def _count(group: PlannedContainer) -> str:
    return f"up to {group.most}" if group.most > 1 else str(group.most)


# -- commands ------------------------------------------------------------------------------------


def _write_commands(console: Console, plan: BuildPlan) -> None:
    """What amounts to the same, a command a line: images first, then containers."""
    render = plan.footprint.render
    commands = [("build contexts", render)] if render else []
    commands += [(f"{image.kind} image", image.command) for image in plan.footprint.images]
    commands += [
        (f"{_label(plan, plan.wheels[group.wheel])}: {_what(group)}", group.command)
        for group in plan.footprint.containers
        if group.command
    ]
    if commands:
        write(console, "")
        write(console, ("Equivalent commands", "bold"))
    for what, command in commands:
        write(console, (f"  {what}", "dim"))
        write(console, f"  {command}")


def _what(group: PlannedContainer) -> str:
    return f"{group.purpose}, {group.compiles}" if group.compiles else group.purpose
