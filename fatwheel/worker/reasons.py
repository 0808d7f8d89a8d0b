"""Why units are compiled again: what is not as it was when the project was last built. For people
alone: nothing is decided by it.

The store has, in kind `last`, what the units of a project were last compiled with (`state_of`). The
records of texts say from which files each text came, with their digests (`preprocess`). So nothing
is read again to compare them.

Standard library only.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ..model import Job, Unit
from ..storage.store import Store
from .assemble import Reason
from .context import Context, digest
from .preprocess import Texts, pass_of
from .slices import absent_codes, passes_of

LAST = "last"  # the kind of the store
_MOST_WORDS = 4  # options in a sentence
_LONGEST = 120  # characters of a name or an option in a sentence
_HEADERS = "/include/"

_Known = tuple[list[list[str]], dict[str, str | None]]  # a unit's command, and its texts by passes


def last_key() -> str:
    """The key of what a project was last compiled with: its scope says which project."""
    return digest(LAST)


def state_of(context: Context, texts: Texts, jobs: Iterable[Job]) -> str:
    """What all jobs of a build are done with now, as text, to be compared with another day."""
    units: dict[Unit, dict[str, str | None]] = {}
    codes: set[str] = set()
    for job in jobs:
        known = {name: texts.recorded(job.unit, name) for name in passes_of(job)}
        units.setdefault(job.unit, {}).update(known)
        codes.update(job.front.codes if job.front else ())
    commands: dict[tuple[tuple[str, ...], ...], int] = {}
    for unit in units:
        commands.setdefault((unit.codegen, unit.preprocessor), len(commands))
    state = {
        "device": context.device_id,
        "host": context.host_id,
        "listing": context.places.listing,
        "codes": sorted(codes),
        "commands": list(commands),
        "units": [
            [unit.name, unit.source, commands[unit.codegen, unit.preprocessor], known]
            for unit, known in units.items()
        ],
    }
    return json.dumps(state, sort_keys=True, separators=(",", ":"))


def reasons(
    context: Context, store: Store, texts: Texts, pending: Iterable[Job]
) -> tuple[Reason, ...]:
    """Why these jobs are left to do, as far as the units were compiled before; those of most units
    first."""
    last = _last(store)
    if last is None:
        return ()
    jobs: dict[Unit, list[Job]] = {}
    for job in pending:
        jobs.setdefault(job.unit, []).append(job)
    known: dict[tuple[str, str], list[_Known]] = {}  # one source may be compiled in several ways
    for name, source, number, digests in last["units"]:
        known.setdefault((name, source), []).append((last["commands"][number], digests))
    found: dict[str, list[str]] = {}
    changed: dict[str, list[str]] = {}
    for unit, own in jobs.items():
        now = [list(unit.codegen), list(unit.preprocessor)]
        ways = known.get((unit.name, unit.source), [])
        then = next((one for one in ways if one[0] == now), ways[0] if ways else None)
        if then is None:
            continue
        if what := _difference(context, last, unit, then[0]):
            found.setdefault(what, []).append(unit.name)
        elif names := _changed_files(context, last, texts, unit, own, then[1]):
            changed[unit.name] = names
        elif last["listing"] != context.places.listing:
            found.setdefault("files were added to the project or removed", []).append(unit.name)
        elif _are_gone(context, store, texts, last, own):
            what = "the store no longer has what was made of them"
            found.setdefault(what, []).append(unit.name)
    for what, units in _by_file(context, changed):
        found.setdefault(what, []).extend(units)
    made = (Reason(what, tuple(units)) for what, units in found.items())
    return tuple(sorted(made, key=lambda reason: (-len(reason.units), reason.what)))


def _last(store: Store) -> dict[str, Any] | None:
    """What a project was last compiled with; None where that is not known. It may come from a
    container, and so be anything."""
    match store.get_json(LAST, last_key()):
        case {
            "device": str(), "host": str(), "listing": str(), "codes": list(codes),
            "commands": list(commands), "units": list(units),
        } as last:  # fmt: skip
            sound = all(map(_is_command, commands)) and all(isinstance(one, str) for one in codes)
            if sound and all(_is_unit(unit, len(commands)) for unit in units):
                return dict(last)
    return None


def _is_command(found: Any) -> bool:
    match found:
        case [list(codegen), list(preprocessor)]:
            return all(isinstance(word, str) for word in (*codegen, *preprocessor))
    return False


def _is_unit(found: Any, commands: int) -> bool:
    match found:
        case [str(), str(), int(command), dict(known)]:
            return 0 <= command < commands and all(
                isinstance(text, str | None) for text in known.values()
            )
    return False


def _difference(
    context: Context, last: dict[str, Any], unit: Unit, then: Sequence[Sequence[str]]
) -> str:
    """What of a unit's compilers and options is another; '' where nothing is. then: the options
    that it had."""
    if unit.kind == "cuda" and last["device"] != context.device_id:
        return "CUDA's compilers changed"
    if last["host"] != context.host_id:
        return "the host compiler changed"
    now = [list(unit.codegen), list(unit.preprocessor)]
    return "" if now == then else _options(then, now)


def _options(old: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> str:
    before, after = (Counter(chain(*words)) for words in (old, new))
    words = []
    for title, more in (("new", after - before), ("gone", before - after)):
        if other := list(more.elements()):
            shown = [_shortened(word) for word in other[:_MOST_WORDS]]
            shown += ["…"] if len(other) > _MOST_WORDS else []
            words.append(f"{title}: {' '.join(shown)}")
    return f"options changed ({'; '.join(words) or 'their order'})"


def _changed_files(
    context: Context, last: dict[str, Any], texts: Texts, unit: Unit, jobs: Iterable[Job],
    known: dict[str, str | None],
) -> list[str]:  # fmt: skip
    """The files of a unit's texts that are not as they were, in the texts' order. known: its texts
    of that time, by their passes."""
    then = texts.under(replace(context, places=replace(context.places, listing=last["listing"])))
    names: dict[str, None] = {}
    for pass_ in dict.fromkeys(name for job in jobs for name in passes_of(job)):
        names.update(dict.fromkeys(texts.changed(unit, pass_, then, known.get(pass_))))
    return list(names)


def _by_file(context: Context, changed: dict[str, list[str]]) -> Iterable[tuple[str, list[str]]]:
    """Units by the file that most of them share, of those that changed."""
    count = Counter(name for names in changed.values() for name in names)
    found: dict[str, list[str]] = {}
    for unit, names in changed.items():
        found.setdefault(max(names, key=lambda name: count[name]), []).append(unit)
    for name, units in found.items():
        more = max(len(changed[unit]) for unit in units) - 1
        others = f" and {more} more file{'s' * (more > 1)}" if more else ""
        yield f"{_shown(context, name)}{others} changed", units


def _are_gone(
    context: Context, store: Store, texts: Texts, last: dict[str, Any], jobs: Iterable[Job]
) -> bool:
    """Whether slices that the last build had are not there; what it was not asked for is new."""
    lost = {code for job in jobs for code in absent_codes(texts, context, store, job)}
    known = all(texts.recorded(job.unit, pass_of(job.front)) for job in jobs)
    return known and (not lost or bool(lost & set(last["codes"])))


def _shown(context: Context, name: str) -> str:
    """A file as users know it: `csrc/flash.h`, `torch/headeronly/macros/Macros.h`."""
    inside = context.places.relative(name)
    if inside is None and _HEADERS in name and not name.startswith("/usr/"):
        inside = name.rpartition(_HEADERS)[2]
    return _shortened((inside or name).replace(os.sep, "/"))


def _shortened(words: str) -> str:
    # Names of files and options may be no UTF-8: what builds tell each other always is.
    words = words.encode("utf-8", "backslashreplace").decode()
    words = " ".join(words.splitlines())  # names and options are the project's
    return words if len(words) <= _LONGEST else f"…{words[-_LONGEST:]}"
