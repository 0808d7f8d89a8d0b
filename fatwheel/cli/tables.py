"""Plans and results as rows of text, for `console` to lay out. Nothing here prints.

A row is a dictionary from column to text; the rows of one table have equal keys.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import text
from ..machine import in_words

if TYPE_CHECKING:
    from ..events import Planned, WheelMade
    from ..storage.store import Usage

Row = dict[str, str]

NAMES_SHOWN = 3  # of a list of units in a sentence
REASONS_SHOWN = 6  # why units are compiled again

NATIVE, JIT, NONE = "native", "by JIT, from PTX", "none"
FAILS = "fails"
UNKNOWN = "not known: loaded by the library"
LOADED = "loaded by the library itself, not known for which GPUs"
_COVERAGE = {"native": NATIVE, "jit": JIT, "none": NONE, "unknown": UNKNOWN}
KINDS = {"elf": "cubin", "ptx": "PTX", "lto": "LTO-IR", "other": "other"}


def plan_lines(plan: Planned) -> Iterator[tuple[str, str]]:
    """Heading and sentence of each line of a plan."""
    toolchain = plan.targets[0].toolchain
    for target in plan.targets:
        yield "for", f"Python {target.python}, torch {target.torch}, {in_words(toolchain.platform)}"
    yield "toolchain", f"{toolchain.name} (CUDA {toolchain.cuda}, nvcc {toolchain.nvcc})"
    yield "archs", ", ".join(str(request) for request in plan.targets[0].archs)
    yield "front", plan.front
    made = f"{text.count(plan.units, 'unit')}, {text.count(plan.slices, 'slice')}"
    yield "store", f"{made}; {plan.hits} of them already there"
    if not plan.pending:
        yield "work", "nothing to compile"
        return
    work = f"{text.count(plan.pending, 'job')}, {text.rough_duration(plan.work)} on one core"
    yield "work", work
    workers = (
        f"{text.count(plan.shards, 'shard')}, at most {text.count(plan.jobs, 'job')} at a time"
    )
    yield "engine", f"{plan.engine}: {workers}"
    yield "memory", f"at most {text.size(plan.memory)} for all jobs together"
    if plan.archlist_units:
        what = " whose code depends on the list of architectures"
        yield "again", _compiled_again(plan.archlist_units, what)
    for reason in plan.reasons[:REASONS_SHOWN]:
        yield "again", _compiled_again(reason.units, f", because {reason.what}")
    if (more := len(plan.reasons) - REASONS_SHOWN) > 0:
        yield "again", f"others, for {text.count(more, 'more reason')}"


def _compiled_again(units: Sequence[str], what: str) -> str:
    return f"{text.count(len(units), 'unit')}{what}: {some_of(units)}"


def some_of(units: Sequence[str]) -> str:
    """Names of units in a sentence: `a, b, c and 4 more`."""
    names = ", ".join(units[:NAMES_SHOWN])
    more = len(units) - NAMES_SHOWN
    return f"{names} and {more} more" if more > 0 else names


def wheel_rows(wheels: Sequence[WheelMade]) -> list[Row]:
    return [
        {
            "wheel": wheel.path,
            "size": text.size(wheel.size),
            "sha256": wheel.sha256,
            "archs": wheel.archs,
            "time": text.duration(wheel.seconds),
            "slices": f"{wheel.hits} from the store, {wheel.compiled} compiled",
        }
        for wheel in wheels
    ]


def edited_row(report: Mapping[str, Any]) -> Row:
    """A file as `thin` and `stitch` report it."""
    size, before = report["size"], report["size_before"]
    less = f", {percent(before - size, before)} less than before" if before else ""
    written = {"sha256": report["sha256"]} if report["written"] else {}
    return {
        "file" if report["written"] else "not written": report["file"],
        "size": text.size(size) + less,
        **written,
        "archs": ", ".join(report["archs"]),
    }


def percent(part: int, whole: int) -> str:
    """`56 %`."""
    return f"{100 * part / whole:.0f} %"


def share_rows(shares: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What each of several machines would compile; times are those of one core."""
    return [
        {
            "share": share["share"],
            "jobs": str(len(share["jobs"])),
            "work": text.duration(share["seconds"]),
            "longest job": text.duration(share["longest"]),
            "memory of a job": text.size(share["memory"]),
            "the first": share["jobs"][0].rpartition("/")[2] if share["jobs"] else "",
        }
        for share in shares
    ]


def simulation_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """For each size of a cluster, how long a build takes; `bound`: what it takes at least, as a
    part of that."""
    losses = report["losses"]
    some_lost = bool(losses["at"] or losses["per_hour"])
    return [
        {
            "workers": str(row["workers"]),
            "time": text.duration(row["seconds"]),
            "bound": f"{row['bound'] / row['seconds']:.2f}" if row["seconds"] else "",
            **({"lost": str(row["lost"])} if some_lost else {"busy": f"{100 * row['busy']:.0f} %"}),
            "sent": text.size(row["sent"]),
            "received": text.size(row["received"]),
            "limits": FAILS if row["error"] else row["limit"],
        }
        for row in report["rows"]
    ]


def cache_rows(usage: Sequence[Usage]) -> list[Row]:
    return [
        {
            "kind": item.kind,
            "entries": str(item.entries),
            "size": text.size(item.bytes),
            "last used": time.strftime("%Y-%m-%d %H:%M", time.localtime(item.newest)),
        }
        for item in usage
    ]


def image_rows(images: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The images of one binary, as `inspect_file` reports them."""
    return [
        {
            "image": image["arch"],
            "kind": KINDS[image["kind"]],
            "count": str(image["count"]),
            "size": text.size(image["bytes"]) + (", compressed" if image["compressed"] else ""),
        }
        for image in images
    ]


def place_heading(place: Mapping[str, Any], what: str) -> str:
    """Device code in one section, as `inspect_file` reports it, and what is known of it."""
    from ..fatbin.embedded import title_of

    title = title_of(place["place"], place["containers"], place["cubins"])
    return f"{title} ({text.size(place['bytes'])}): {what}"


def data_files_heading(files: Sequence[Mapping[str, Any]]) -> str:
    """Those of a wheel that are device code alone: `15,970 cubin files with 15,970 kernels`."""
    formats = Counter(one["format"] for one in files)
    kinds = " and ".join(f"{number:,} {name}" for name, number in formats.items())
    kernels = sum(one["kernels"] for one in files)
    what = "libraries load them by name, not known for which GPUs"
    return f"{kinds} files with {kernels:,} kernels: {what}"


def united_images(files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The images of several files, as `inspect_file` reports those of one."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for image in (image for one in files for image in one["images"]):
        key = image["arch"], image["kind"], image["compressed"]
        held = found.setdefault(key, {**image, "count": 0, "bytes": 0})
        held["count"] += image["count"]
        held["bytes"] += image["bytes"]
    return [found[key] for key in sorted(found, key=lambda key: (_number(key[0]), key))]


def _number(image: str) -> int:
    """Of `sm_90a`: 90."""
    return int(image.rpartition("_")[2].rstrip("af"))


def binary_heading(binary: Mapping[str, Any]) -> str:
    """A binary, as `inspect_file` reports it, without its images."""
    containers = text.count(binary["containers"], "container")
    kernels = text.count(binary["kernels"], "kernel")
    kind = f"{binary['format']}, {binary['machine']}"
    return f"{binary['path']}  ({kind}; {containers}, {kernels})"


def unit_heading(unit: Mapping[str, Any]) -> str:
    """A unit of a binary, as `inspect_units` reports it, without its kernels' names."""
    place = "cubin" if unit["container"] is None else f"container {unit['container']}"
    images = ", ".join(
        " ".join(
            filter(None, [image["arch"], image["compression"], f"({text.size(image['bytes'])})"])
        )
        for image in unit["images"]
    )
    return f"{place}: {text.count(len(unit['kernels']), 'kernel')}; {images}"


def not_counted(report: Mapping[str, Any]) -> int:
    """Bytes of device code that no row of `coverage_rows` tells of: libraries load it."""
    from ..verify.contents import DEVICE_ONLY

    embedded = (place for one in report["binaries"] for place in one.get("embedded", []))
    size: int = sum(place["bytes"] for place in embedded)
    if report["wheel"]:
        files = (one for one in report["binaries"] if one["machine"] == DEVICE_ONLY)
        size += sum(image["bytes"] for one in files for image in one["images"])
    return size


def unit_rows(units: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Captured units, as the report has them: the images that the project names for each, and those
    that are built."""
    return [
        {
            "unit": unit["name"],
            "kind": unit["kind"],
            "the project's own": " ".join(unit["own"]),
            "built for": " ".join(unit["images"]) or ("none" if unit["kind"] == "cuda" else ""),
        }
        for unit in units
    ]


def coverage_rows(report: Mapping[str, Any]) -> list[Row]:
    """How each GPU is served, as `inspect_file` reports it by compute capability, and, where that
    is in the report, what thinning to it saves."""
    from ..verify.contents import DEVICE_ONLY, Served, gpu_names, units_served

    names = gpu_names({one["machine"] for one in report["binaries"]} - {DEVICE_ONLY})
    units = {capability: Served(**count) for capability, count in report["units_served"].items()}
    savings = report.get("thinned")
    return [
        {
            "capability": capability,
            "code": _COVERAGE.get(how) or f"in part: {units_served(units[capability])}",
            "driver": _drivers(report["binaries"], capability),
            **({"thin saves": _saving(savings.get(capability))} if savings else {}),
            "GPUs": ", ".join(names.get(capability, [])),
        }
        for capability, how in report["coverage"].items()
    ]


def _drivers(binaries: Sequence[Mapping[str, Any]], capability: str) -> str:
    """`525.60.13`, or `450.80.02 to 580` where the libraries of a wheel need different ones."""
    needed = {
        one["drivers"][capability]["driver"] for one in binaries if capability in one["drivers"]
    }
    found = sorted(needed, key=lambda driver: [int(part) for part in driver.split(".")])
    return " to ".join(dict.fromkeys([*found[:1], *found[-1:]]))


def driver_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each driver that libraries need, and one on GPUs for which it compiles PTX."""
    from ..verify.drivers import Need, in_words, jit_in_words

    sentences: dict[str, list[str]] = {}
    for one in report["binaries"]:
        needs = {gpu: Need(**need) for gpu, need in one["drivers"].items()}
        if sentence := in_words(needs):
            sentences.setdefault(sentence, []).append(one["path"])
    for sentence, paths in sentences.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield sentence if len(sentences) == 1 else f"{sentence}: {paths[0]}{more}"
    jit = [gpu for gpu, served in report["units_served"].items() if served["jit"]]
    if sentence := jit_in_words(jit):
        yield sentence


def _saving(found: Mapping[str, Any] | None) -> str:
    return f"{text.size(found['saves'])}, {found['percent']:.0f} %" if found else ""
