"""Makes slices and host objects: one compiler call per job, or a stage of one, with results put
into the store.

A slice is stored as the raw fatbin entries of one image under a key over the CUDA compilers,
the arguments that decide the code, the preprocessed text of its front and the image's name. A
host object is stored without device code, under a key over its own text and its stub. So neither
key knows the Python, the torch or the list of architectures, unless the texts do.

The stub is the part of a host object that a front writes: it registers and launches the front's
kernels and variables. It is the same for all fronts, unless a source leaves some of them out for an
architecture (`#if __CUDA_ARCH__ >= 800`). One nvcc call for several fronts takes the stub of the
last, and so do we (`assemble`).

Under a slice's key also lies what a host program relies on: its kernels and their parameters, its
managed variables, and the digest of its front's stub. A slice without that counts as missing.

Where a front's text is new, its device program may be known: then slices are taken over from the
text that it is known from (`secondkey`).

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..compilers.hosts import Family, family_of
from ..compilers.nvcc import split_compile
from ..errors import CompileError, FormatError, StoreError
from ..fatbin.container import Entry, parse_containers, write_container
from ..fatbin.cubin import kernel_names_of_ptx, kernels_of_cubin
from ..fatbin.stitch import image_name, slices_of, without_device_code
from ..model import Front, Job, Unit
from ..storage.store import Store
from .context import Context, digest
from .preprocess import HOST_PASS, Texts, lay_out, pass_of
from .processes import ProcessUsage, run_measured
from .roots import fitting, job_folder, to_repeat
from .secondkey import (
    OFF,
    check_same,
    is_audited,
    key_of_program,
    may_be_known,
    note_compiled,
    note_taken,
    taken_from,
    text_of,
)
from .stages import (
    Kept,
    call_of,
    copy_front,
    follows_front,
    front_key,
    has_front,
    keep_front,
    keeps_fronts,
    kept_front,
    run_program,
    run_stage,
)

_SIGKILL = 9  # Windows' signal module has none
_NO_SPACE = 1 << 20  # bytes free on a disk that counts as full
# How a stub registers a managed variable: `(__T0, __shadow_var(name,::name), 0, 4UL, 0, 0)`.
_MANAGED = re.compile(rb"__cudaRegisterManagedVariable\(\w+, *__shadow_var\(([^,()]+),")
_VALUES = re.compile("[=,]")
# Windows' exit codes: STATUS_NO_MEMORY, STATUS_INSUFFICIENT_RESOURCES, STATUS_COMMITMENT_LIMIT.
_NO_MEMORY = (0xC0000017, 0xC000009A, 0xC000012D)


@dataclass(frozen=True)
class Made:
    """What a job cost (seconds, bytes), and what its compiler said. taken: whether code was taken
    over because its device program is known, so that other builds will not cost the same."""

    seconds: float
    cpu: float
    rss: int
    output: str = ""
    taken: bool = False


class KilledForMemoryError(Exception):
    """The compiler was killed, or gave up, for lack of memory; rss is its peak in bytes."""

    def __init__(self, rss: int, output: str) -> None:
        super().__init__(output)
        self.rss = rss


def slice_key(context: Context, unit: Unit, front: Front, code: str, text: str) -> str:
    return digest("slice", context.device_id, unit.codegen, front.key, code, text)


def host_key(context: Context, unit: Unit, text: str, stub: str | None = None) -> str:
    """Key of a host object, by its text and, for CUDA, its stub. Macros count too: the stub is
    compiled with them once more."""
    macros = _macros(unit.preprocessor) if unit.kind == "cuda" else ()
    tools = [context.host_id] + ([context.device_id] if unit.kind == "cuda" else [])
    settled = steady(context, unit)
    return digest("host", tools, unit.kind, unit.codegen, macros, settled, text, stub)


def made_keys(
    context: Context, texts: Texts, job: Job, digests: Mapping[str, str], stub: str | None
) -> list[tuple[str, str]]:
    """The kind and key of every entry that `run_job` makes for a job, as far as they follow from
    what is known; but for those of device programs (`secondkey`).

    digests: those of its texts that are known, by their passes. stub: that of its front's, where
    it is known; None for C++.
    """
    unit, front = job.unit, job.front
    first = not follows_front(job)
    text, host = digests.get(pass_of(front)), digests.get(HOST_PASS)
    keys = [
        pair
        for name in passes_of(job)
        if first or name == HOST_PASS
        for pair in (("text", texts.key(unit, name)), ("seen", texts.seen_key(unit, name)))
    ]
    if front and text:
        slices = [slice_key(context, unit, front, code, text) for code in front.codes]
        keys += [(kind, key) for key in slices for kind in ("slice", "abi")]
        if first and keeps_fronts(context):
            key = front_key(context, unit, front, text)
            keys += [("ptx", key), ("stub", key)]
    if job.host and host and (stub or not front):
        keys.append(("host", host_key(context, unit, host, stub)))
    return keys


def known_keys(texts: Texts, context: Context, store: Store, job: Job) -> list[tuple[str, str]]:
    """What of `made_keys` is known before compiling."""
    found = {name: texts.recorded(job.unit, name) for name in passes_of(job)}
    digests = {name: text for name, text in found.items() if text}
    stub = known_stub(texts, context, store, job.unit, job.front) if job.host else None
    return made_keys(context, texts, job, digests, stub)


def passes_of(job: Job) -> list[str]:
    """The passes whose texts say what a job makes."""
    return [pass_of(job.front)] + ([HOST_PASS] if job.host and job.front else [])


def known_host_key(
    texts: Texts, context: Context, store: Store, unit: Unit, front: Front | None
) -> str | None:
    """The key of a unit's host object with a front's stub (None for C++); None where its text or
    its stub is not known."""
    text = texts.recorded(unit, HOST_PASS)
    stub = known_stub(texts, context, store, unit, front)
    return host_key(context, unit, text, stub) if text and (stub or not front) else None


def known_stub(
    texts: Texts, context: Context, store: Store, unit: Unit, front: Front | None
) -> str | None:
    """The digest of a front's stub, as it lies with the front's slices, or with what is kept of
    the front; None where it is not known, and for C++."""
    text = texts.recorded(unit, pass_of(front)) if front else None
    if front is None or text is None:
        return None
    if not front.codes:  # a stage for the host object alone
        kept = store.get("stub", front_key(context, unit, front, text))
        return None if kept is None else digest_of_stub(context, kept)
    match store.get_json("abi", slice_key(context, unit, front, front.codes[0], text)):
        case {"stub": str(stub)}:
            return stub
    return None


def steady(context: Context, unit: Unit) -> list[str]:
    """The host compiler's options that make a unit's object the same everywhere."""
    seed = digest("seed", unit.source, unit.codegen)[:16]
    return family_of(context.cxx).steady(context.places.mapped(), seed)


def cost_key(job: Job) -> str:
    """Key of what a job cost: its unit and images, not the text, so that edits keep it."""
    front = job.front and [job.front.key, *job.front.codes]
    stage = [] if job.stage == "whole" else [job.stage]
    return digest("cost", job.unit.name, job.unit.source, front, job.host, *stage)


def put_cost(store: Store, job: Job, made: Made) -> None:
    """Keep what a job cost, for the plans of later builds."""
    cost = {"seconds": made.seconds, "cpu": made.cpu, "rss": made.rss}
    store.put_json("cost", cost_key(job), cost)


def missing(texts: Texts, context: Context, store: Store, job: Job) -> tuple[Job, ...]:
    """The parts of a job that the store cannot answer by known texts.

    Where it keeps the job's front, these are single stages; else at most one call.
    """
    unit, front = job.unit, job.front
    host = known_host_key(texts, context, store, unit, front) if job.host else None
    lacks_host = job.host and not (host and store.has("host", host))
    codes = absent_codes(texts, context, store, job)
    if not lacks_host and not codes:
        return ()
    if front is None:
        return (job,)
    text = texts.recorded(unit, pass_of(front))
    if text is not None and has_front(store, front_key(context, unit, front, text)):
        return further_stages(job, codes, lacks_host)
    # A host object comes with at least one image: nvcc makes it in one call.
    wanted = replace(front, codes=codes or front.codes[:1])
    return (replace(job, front=wanted, host=lacks_host),)


def absent_keys(texts: Texts, context: Context, store: Store, job: Job) -> list[tuple[str, str]]:
    """The slices and the host object of a job that the store lacks, and that may come from another
    machine, as far as their keys are known."""
    return [
        (kind, key)
        for kind, key in known_keys(texts, context, store, job)
        if (kind == "slice" and not _has_slice(store, key))
        or (kind == "host" and not store.has(kind, key) and not is_native(job.unit))
    ]


def is_native(unit: Unit) -> bool:
    """Whether a unit's host object is made for the processor that compiles it (`-march=native`):
    its key does not tell for which."""
    return any("native" in _VALUES.split(argument) for argument in unit.codegen)


def absent_codes(texts: Texts, context: Context, store: Store, job: Job) -> tuple[str, ...]:
    """The images of a job that the store has no slice of, by known texts."""
    unit, front = job.unit, job.front
    if front is None:
        return ()
    text = texts.recorded(unit, pass_of(front))
    return tuple(
        code
        for code in front.codes
        if text is None or not _has_slice(store, slice_key(context, unit, front, code, text))
    )


def further_stages(job: Job, codes: Sequence[str], host: bool) -> tuple[Job, ...]:
    """The stages of a job that its front is done for: one for each image, and one for the host
    object if that is wanted."""
    assert job.front is not None
    made = [
        replace(job, front=replace(job.front, codes=(code,)), host=False, stage="ptxas")
        for code in codes
    ]
    if host:
        none = replace(job.front, codes=())
        made.append(replace(job, front=none, host=True, stage="host"))
    return tuple(made)


def _has_slice(store: Store, key: str) -> bool:
    """Whether a slice is there, and what is kept with it."""
    return store.has("slice", key) and store.has("abi", key)


def commands_of(context: Context, job: Job) -> list[str]:
    """The compiler command of a job, less its output: `{nvcc} … -c source`."""
    unit, family = job.unit, family_of(context.cxx)
    arguments, source = _seen(context, unit)
    if job.front is None:
        return family.compile(context.cxx, [*steady(context, unit), *arguments], source)
    seed = ["-frandom-seed", digest("seed", unit.name)[:16]] if context.seeded else []
    split = split_compile(job.front.split, unit.codegen)
    return [
        context.places.in_view(context.nvcc),
        *family.of_nvcc(context.cxx, steady(context, unit)),
        "-include", "fatwheel.h", *arguments, *seed, *split, "-gencode", job.front.gencode,
        "-c" if job.host else "-fatbin", source,
    ]  # fmt: skip


def preprocess_command(context: Context, job: Job) -> list[str]:
    """What `Texts.preprocess` needs: for nvcc the job's command, for C++ one of its own."""
    if job.unit.kind == "cuda":
        return commands_of(context, job)
    arguments, source = _seen(context, job.unit)
    return family_of(context.cxx).preprocess(
        context.cxx, [*steady(context, job.unit), *arguments], source
    )


def _seen(context: Context, unit: Unit) -> tuple[list[str], str]:
    """A unit's arguments and its source, with paths as compilers see them."""
    arguments = [context.places.in_view(arg) for arg in (*unit.preprocessor, *unit.codegen)]
    return arguments, context.places.in_view(unit.source)


def run_job(context: Context, store: Store, texts: Texts, job: Job) -> Made:
    """Compile, or take over what is known of the device program; put slices, host object, texts and
    what a front leaves in the store.

    Raises CompileError with the compiler's words and the command to repeat, FormatError where it
    made something else than was asked for, StoreError on a full disk, or KilledForMemoryError.
    """
    started = time.monotonic()
    usage = _take_over(context, store, texts, job)
    if usage is None:
        return _compile(context, store, texts, job)
    made = [_compile(context, store, texts, part) for part in missing(texts, context, store, job)]
    cpu = usage.cpu + sum(one.cpu for one in made)
    rss = max(usage.rss, *(one.rss for one in made), 0)
    said = "its device program is known: only the front end ran"
    output = "\n".join([said, *(one.output for one in made if one.output)])
    return Made(time.monotonic() - started, cpu, rss, output, taken=True)


def _compile(context: Context, store: Store, texts: Texts, job: Job) -> Made:
    """Do a job by compiling. Raises as `run_job`."""
    with job_folder(Path(context.scratch), digest(job.label)[:12]) as folder:
        lay_out(context, job.unit, folder)
        started = time.monotonic()
        text, usage = _stage(context, store, texts, job, folder)
        if usage is None:
            command = context.places.shown(_command(context, job))
            usage = run_measured(fitting(command, folder), folder, context.variables(folder))
        if usage.returncode != 0:
            raise _failure(context, job, usage, folder)
        try:
            _store_results(context, store, texts, job, folder, text)
        except FormatError as error:
            raise FormatError(error.what, where=job.label, hint=error.hint) from error
        return Made(time.monotonic() - started, usage.cpu, usage.rss, usage.output)


def _stage(
    context: Context, store: Store, texts: Texts, job: Job, folder: Path
) -> tuple[str | None, ProcessUsage | None]:
    """Run a stage that needs no front, and the digest of its front's text; None where there is no
    such stage, or the store has lost what the front left: then an nvcc call makes the same."""
    if job.front is None or not follows_front(job):
        return None, None
    text = texts.recorded(job.unit, pass_of(job.front))
    if text is None:
        return None, None
    key = front_key(context, job.unit, job.front, text)
    kept = kept_front(store, key, for_host=job.stage == "host")
    if kept is None:
        return None, None
    usage = run_stage(context, job, _command(context, call_of(context, job)), folder, kept)
    return (text, usage) if usage else (None, None)


def _take_over(context: Context, store: Store, texts: Texts, job: Job) -> ProcessUsage | None:
    """Put what an earlier text left under the keys of a job's own, if both have the same device
    program; None where they have not, or where it is to be compiled all the same."""
    if context.audit == OFF:
        return None
    if job.stage == "ptxas":
        return _take_over_images(context, store, texts, job)
    if not may_be_known(context, store, job):
        return None
    with job_folder(Path(context.scratch), digest(job.label)[:12]) as folder:
        lay_out(context, job.unit, folder)
        # Without a host object cicc needs nothing of what else such a call runs.
        usage = run_program(context, _command(context, replace(job, host=False)), folder)
        if usage is None or usage.returncode != 0:  # compiling says why
            return None
        try:
            taken = _take_over_front(context, store, texts, job, folder / "keep")
        except FormatError:  # files are missing: so it is for the whole call to make them
            return None
        return usage if taken else None


def _take_over_front(context: Context, store: Store, texts: Texts, job: Job, keep: Path) -> bool:
    unit, front = job.unit, job.front
    program, preprocessed = _kept(keep, ".cudafe1.gpu"), _kept(keep, ".cpp1.ii")
    assert front is not None
    key = key_of_program(context, texts, unit, front, program, preprocessed)
    known = text_of(store, key) if key and not is_audited(context, key) else None
    if known is None:
        return False
    stub = _kept(keep, ".cudafe1.stub.c").read_bytes()
    text = texts.record(unit, pass_of(front), preprocessed)
    if text == known:
        return True
    old, new = (front_key(context, unit, front, one) for one in (known, text))
    if not copy_front(store, old, new, stub):
        return False
    note_taken(context, store, unit, front, text, known)
    _take_slices(context, store, unit, front, text, known, stub)
    return True


def _take_over_images(
    context: Context, store: Store, texts: Texts, job: Job
) -> ProcessUsage | None:
    """The same for images of a front that was taken over itself."""
    unit, front = job.unit, job.front
    assert front is not None
    text = texts.recorded(unit, pass_of(front))
    known = taken_from(context, store, unit, front, text) if text else None
    own = kept_front(store, front_key(context, unit, front, text)) if text and known else None
    if text is None or known is None or own is None:
        return None
    _take_slices(context, store, unit, front, text, known, own.stub)
    return None if absent_codes(texts, context, store, job) else ProcessUsage(0, "", 0.0, 0)


def _take_slices(
    context: Context, store: Store, unit: Unit, front: Front, text: str, known: str, stub: bytes
) -> None:
    """Keep a known text's slices as a text's own, which has another stub."""
    for code in front.codes:
        old, new = (slice_key(context, unit, front, code, one) for one in (known, text))
        data, abi = store.get("slice", old), store.get_json("abi", old)
        if data is not None and isinstance(abi, dict) and "kernels" in abi:
            store.put("slice", new, data)
            store.put_json("abi", new, {**_told_by(context, stub), "kernels": abi["kernels"]})


def _command(context: Context, job: Job) -> list[str]:
    """The whole command of a job, with its output."""
    family = family_of(context.cxx)
    return [*commands_of(context, job), *_keeping(family, job), *_output(family, job)]


def _keeping(family: Family, job: Job) -> list[str]:
    """Options that leave the texts of a call behind, where they can."""
    if job.front:
        return ["--keep", "--keep-dir", "keep"]
    return ["-save-temps=obj"] if family.keeps_text else []


def _output(family: Family, job: Job) -> list[str]:
    return ["-o", family.object_name] if job.front else family.output(family.object_name)


def _store_results(
    context: Context, store: Store, texts: Texts, job: Job, folder: Path, text: str | None
) -> None:
    """text: that of the front, by its digest; None where the front ran here."""
    unit, front = job.unit, job.front
    data = (folder / family_of(context.cxx).object_name).read_bytes()
    if front is None:
        text = _text_of_cpp(context, texts, job, folder)
        store.put("host", host_key(context, unit, text), data)
        return
    keep = folder / "keep"
    stub = _kept(keep, ".cudafe1.stub.c").read_bytes()
    ran = text is None
    if text is None:
        text = texts.record(unit, pass_of(front), _kept(keep, ".cpp1.ii"))
    told = _told_by(context, stub)
    made = _by_code(slices_of(data), front.images)
    for code in front.codes:
        key = slice_key(context, unit, front, code, text)
        store.put("slice", key, write_container(made[code]))
        store.put_json("abi", key, {**told, "kernels": _kernels(keep, code)})
    if job.host:
        host = texts.record(unit, HOST_PASS, _kept(keep, ".cpp4.ii"))
        store.put("host", host_key(context, unit, host, told["stub"]), without_device_code(data))
    if ran:  # after what was made of it: of a job that is killed in between, nothing is left to do
        left = Kept(_kept(keep, ".ptx").read_bytes(), stub)
        keep_front(context, store, front_key(context, unit, front, text), left)
    if ran and context.audit != OFF:
        _note_program(context, store, texts, job, keep, text)


def _note_program(
    context: Context, store: Store, texts: Texts, job: Job, keep: Path, text: str
) -> None:
    """Make what was compiled known by its device program, or compare it with what is known.

    Raises CompileError where they differ.
    """
    unit, front = job.unit, job.front
    programs = list(keep.glob("*.cudafe1.gpu"))
    if front is None or len(programs) != 1:
        return
    preprocessed = _kept(keep, ".cpp1.ii")
    key = key_of_program(context, texts, unit, front, programs[0], preprocessed)
    if key is None:
        return
    known = text_of(store, key)
    note_compiled(context, store, unit, front, text, key)
    for code in front.codes if known else ():
        keys = (slice_key(context, unit, front, code, one) for one in (known or text, text))
        check_same(context, store, unit, code, *(store.get("slice", one) for one in keys))


def _text_of_cpp(context: Context, texts: Texts, job: Job, folder: Path) -> str:
    if family_of(context.cxx).keeps_text:
        return texts.record(job.unit, HOST_PASS, _kept(folder, ".ii"))
    return texts.preprocess(job.unit, HOST_PASS, preprocess_command(context, job))


def _by_code(entries: tuple[Entry, ...], codes: Sequence[str]) -> dict[str, list[Entry]]:
    """Sort a fatbin's entries by the code they were asked for as."""
    sorted_: dict[str, list[Entry]] = {code: [] for code in codes}
    for entry in entries:
        name = image_name(entry)
        if name not in sorted_:
            raise FormatError(
                f"nvcc made an image {name} that was not asked for",
                hint=f"asked for: {', '.join(codes)}",
            )
        sorted_[name].append(entry)
    absent = [code for code, found in sorted_.items() if not found]
    if absent:
        raise FormatError(f"nvcc made no image for {', '.join(absent)}")
    return sorted_


def _kernels(keep: Path, code: str) -> dict[str, str | None]:
    """A slice's kernels by name, with the layout of their parameters as text; None in PTX, which is
    not read so far. Read from what the compiler kept, where nothing is compressed."""
    if code.startswith("compute_"):
        names = sorted(set(kernel_names_of_ptx(_kept(keep, ".ptx").read_bytes())))
        return dict.fromkeys(names)
    cubins = sorted(keep.glob("*.cubin"))
    # `x.cubin` where it is the only one, else `x.sm_80.cubin`, `x.compute_80.sm_80.cubin`.
    cubin = cubins[0] if len(cubins) == 1 else _kept(keep, f".{code}.cubin")
    found = kernels_of_cubin(cubin.read_bytes())
    return {name: str(layout) for name, layout in found.items()}


def _told_by(context: Context, stub: bytes) -> dict[str, Any]:
    """What is kept of a stub with each slice of its front."""
    managed = sorted({name.decode("utf-8", "replace") for name in _MANAGED.findall(stub)})
    return {"managed": managed, "stub": digest_of_stub(context, stub)}


def digest_of_stub(context: Context, stub: bytes) -> str:
    """It names files as the job saw them; all jobs see them alike but for their own folders."""
    volatile = family_of(context.cxx).names_of_jobs(context.scratch)
    return hashlib.sha256(volatile.sub(b".", stub) if volatile else stub).hexdigest()


def load_slice(data: bytes) -> tuple[Entry, ...]:
    """The raw entries of a stored slice. FormatError where it is none."""
    containers = parse_containers(data)
    if len(containers) != 1:
        raise FormatError(f"{len(containers)} containers do not make a slice")
    return containers[0].entries


def _kept(folder: Path, suffix: str) -> Path:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) != 1:
        raise FormatError(
            f"the compiler left {len(found)} files *{suffix}, not one", where=str(folder)
        )
    return found[0]


def _macros(preprocessor: tuple[str, ...]) -> list[str]:
    pairs = zip(preprocessor[::2], preprocessor[1::2], strict=True)
    return [word for name, value in pairs if name in ("-D", "-U") for word in (name, value)]


def killed_for_memory(context: Context, usage: ProcessUsage) -> bool:
    """Whether a compiler call ended, as far as can be told, for lack of memory."""
    if usage.returncode == 0:
        return False
    # nvcc runs its steps through a shell, and ends as that does.
    killed = usage.returncode in (-_SIGKILL, 128 + _SIGKILL, *_NO_MEMORY)
    return killed or bool(family_of(context.cxx).out_of_memory.search(usage.output))


def _failure(context: Context, job: Job, usage: ProcessUsage, folder: Path) -> Exception:
    if killed_for_memory(context, usage):
        return KilledForMemoryError(usage.rss, usage.output)
    # Compilers do not always say so: what they say goes to the same disk.
    if shutil.disk_usage(folder).free < _NO_SPACE or "No space left on device" in usage.output:
        return StoreError(
            "No space left on device for what the compiler writes",
            where=context.scratch,
            hint="free some space, or name a folder on another disk: FATWHEEL_CACHE=FOLDER",
            details=usage.output.rstrip().splitlines(),
        )
    kept = _keep_folder(context, job)
    command = _command(context, job)
    compiler = command[0]
    return CompileError(
        f"{os.path.basename(compiler)} failed with exit code {usage.returncode}",
        where=job.label,
        details=[*usage.output.rstrip().splitlines(), "", "to repeat it:"],
        hint=to_repeat(context.places.shown(command), kept),
    )


def _keep_folder(context: Context, job: Job) -> Path:
    """A job's folder that stays after the build, so that a failure can be repeated."""
    sources = Path(context.places.real(context.places.source))
    folder = sources.parent / "failed" / digest(job.label)[:12]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lay_out(context, job.unit, folder)
    return folder
