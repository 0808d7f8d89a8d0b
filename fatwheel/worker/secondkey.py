"""The second key of slices: the device program that a front end read.

Where a text is new, the program in it may not be: another torch changes headers of which device
code has nothing. Then PTX and slices are those that an earlier text gave, and only the first tenth
of the front end has to run, for the program and for the new stub.

The store has, in kind `program`: the digest of the text that a program was first read from, under
the program's own key; for a text whose slices were taken over, that of the text which they are
from; and a mark for each unit whose program is known with these sources of the project, so that
builds which cannot find anything do not try.

One in so many takes nothing over (`Context.audit`): it is compiled, and compared. In fact all that
is compiled is compared with what is known of its program. A difference switches the second key off.

Standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CompileError
from ..model import Front, Job, Unit
from ..storage.store import Store
from .context import Context, digest
from .deviceprogram import digest_of_program, is_understood, keeps_lines
from .preprocess import Texts
from .stages import front_key, keeps_fronts, kept_front

# Raised whenever a program's digest covers more: what is known by less counts no more.
_COVERS = 2
OFF = -1  # of `Context.audit`: nothing is taken over
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCAL = b"__cuda_local_var_"  # in PTX, such a name would not be only local
_ENTRY = re.compile(rb"(?:\.\w+ )*\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)")


def program_key(context: Context, unit: Unit, front: Front, program: str) -> str:
    """What decides a front's PTX and images, by its device program's digest."""
    return digest(
        "program", _COVERS, context.device_id, unit.codegen, front.key, unit.source,
        program,
    )  # fmt: skip


def may_be_known(context: Context, store: Store, job: Job) -> bool:
    """Whether it is worth to read a job's device program before it is compiled."""
    return (
        job.front is not None
        and job.stage in ("whole", "front")
        and context.audit != OFF
        and _is_understood(context, job.unit)
        and store.has("program", _mark(context, job.unit, job.front))
        and not _is_off(context, store)
    )


def key_of_program(
    context: Context, texts: Texts, unit: Unit, front: Front, program: Path, text: Path
) -> str | None:
    """The key of a program in a file that was read from a text in another; None where there is
    none."""
    if not _is_understood(context, unit):
        return None
    stamp = texts.stamp if keeps_lines(unit.codegen) else None
    found = digest_of_program(program, text, stamp)
    return found and program_key(context, unit, front, found)


def is_audited(context: Context, key: str) -> bool:
    """Whether what is known of a program is compiled all the same; the same ones on any machine."""
    return context.audit > 0 and int(key[:8], 16) % context.audit == 0


def text_of(store: Store, key: str) -> str | None:
    """The digest of a text that is kept under a key of kind `program`."""
    match store.get_json("program", key):
        case str(text) if _SHA256.fullmatch(text):
            return text
    return None


def taken_from(context: Context, store: Store, unit: Unit, front: Front, text: str) -> str | None:
    """The text whose code a text has; None where it has its own."""
    return text_of(store, _taken(context, unit, front, text))


def note_taken(
    context: Context, store: Store, unit: Unit, front: Front, text: str, other: str
) -> None:
    """Keep that a text's code is that of another one."""
    store.put_json("program", _taken(context, unit, front, text), other)


def note_compiled(
    context: Context, store: Store, unit: Unit, front: Front, text: str, key: str
) -> None:
    """Keep under a program's key the text that was compiled, unless one is known whose PTX the
    store still has. Raises CompileError, and switches the second key off, where that is not the
    same."""
    ptx = kept_front(store, front_key(context, unit, front, text))
    if ptx is None or _LOCAL in ptx.ptx or _is_off(context, store):
        return
    known = text_of(store, key)
    if known is not None and known != text:
        other = kept_front(store, front_key(context, unit, front, known))
        if other is not None:
            if other.ptx != ptx.ptx:
                raise _differing(context, store, unit, _first_difference(other.ptx, ptx.ptx))
            return
    store.put_json("program", key, text)
    store.put_json("program", _mark(context, unit, front), True)


def check_same(
    context: Context,
    store: Store,
    unit: Unit,
    code: str,
    known: bytes | None,
    made: bytes | None,
) -> None:
    """Compare a slice that was compiled with the one that is known of its program, if there is
    one. Raises CompileError, and switches the second key off, where they differ."""
    if None not in (known, made) and known != made and not _is_off(context, store):
        raise _differing(context, store, unit, f"the image {code}, made of the same PTX")


# -- inside ----------------------------------------------------------------------------------------


def _is_understood(context: Context, unit: Unit) -> bool:
    return keeps_fronts(context) and is_understood(unit.codegen)


def _taken(context: Context, unit: Unit, front: Front, text: str) -> str:
    return digest("taken", front_key(context, unit, front, text))


def _mark(context: Context, unit: Unit, front: Front) -> str:
    """Where it is kept that a unit's program is known. It covers the project's files: who edits
    them has no use for programs that are known."""
    places = context.places
    return digest(
        "programs", context.device_id, unit.name, unit.source, unit.codegen, front.key,
        places.listing, places.files,
    )  # fmt: skip


def _is_off(context: Context, store: Store) -> bool:
    return store.has("program", digest("off", context.device_id))


def _differing(context: Context, store: Store, unit: Unit, what: str) -> CompileError:
    store.put_json("program", digest("off", context.device_id), True)
    return CompileError(
        f"two builds have the same device program, but not the same code: {what}",
        where=unit.name,
        details=[
            "What was compiled now is right, and is kept. What earlier builds of this project took "
            "over because of a device program may be wrong."
        ],
        hint="empty the store (`invoke cache --clean`) and build again with `--audit off`, and "
        "please report it. Without that, this project's code is not taken over any more either",
    )


def _first_difference(one: bytes, other: bytes) -> str:
    """The kernel or function in which two PTX files first differ."""
    found = "what precedes the first kernel"
    for line, beside in zip(one.splitlines(), other.splitlines(), strict=False):
        if line != beside:
            break
        if entry := _ENTRY.match(line):
            found = entry[1].decode("ascii", "replace")
    return found
