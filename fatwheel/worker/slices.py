"""Makes slices and host objects: one compiler call per job, with results put into the store.

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

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..compilers.hosts import Family, family_of
from ..errors import CompileError, FormatError, StoreError
from ..fatbin.container import Entry, parse_containers, write_container
from ..fatbin.cubin import kernel_names_of_ptx, kernels_of_cubin
from ..fatbin.stitch import image_name, slices_of, without_device_code
from ..model import Front, Job, Unit
from ..storage.store import Store
from .context import Context, digest
from .preprocess import HOST_PASS, Texts, lay_out, pass_of
from .processes import Usage, run_measured
from .roots import fitting, job_folder, to_repeat

_SIGKILL = 9  # Windows' signal module has none
_NO_SPACE = 1 << 20  # bytes free on a disk that counts as full
# How a stub registers a managed variable: `(__T0, __shadow_var(name,::name), 0, 4UL, 0, 0)`.
_MANAGED = re.compile(rb"__cudaRegisterManagedVariable\(\w+, *__shadow_var\(([^,()]+),")
# Windows' exit codes: STATUS_NO_MEMORY, STATUS_INSUFFICIENT_RESOURCES, STATUS_COMMITMENT_LIMIT.
_NO_MEMORY = (0xC0000017, 0xC000009A, 0xC000012D)


@dataclass(frozen=True)
class Made:
    """What a job cost (seconds, bytes), and what its compiler said."""

    seconds: float
    cpu: float
    rss: int
    output: str = ""


class KilledForMemoryError(Exception):
    """The compiler was killed, or gave up, for lack of memory; rss is its peak in bytes."""

    def __init__(self, rss: int, output: str) -> None:
        super().__init__(output)
        self.rss = rss


def slice_key(context: Context, unit: Unit, front: Front, code: str, text: str) -> str:
    return digest("slice", context.device_id, unit.codegen, front.virtual.name, code, text)


def host_key(context: Context, unit: Unit, text: str, stub: str | None = None) -> str:
    """Key of a host object, by its text and, for CUDA, its stub. Macros count too: the stub is
    compiled with them once more."""
    macros = _macros(unit.preprocessor) if unit.kind == "cuda" else ()
    tools = [context.host_id] + ([context.device_id] if unit.kind == "cuda" else [])
    settled = steady(context, unit)
    return digest("host", tools, unit.kind, unit.codegen, macros, settled, text, stub)


def known_host_key(
    texts: Texts, context: Context, store: Store, unit: Unit, front: Front | None
) -> str | None:
    """The key of a unit's host object with a front's stub (None for C++); None where its text or
    its stub is not known."""
    text = texts.recorded(unit, HOST_PASS)
    if text is None or front is None:
        return text and host_key(context, unit, text)
    device = texts.recorded(unit, pass_of(front))
    if device is None:
        return None
    match store.get_json("abi", slice_key(context, unit, front, front.codes[0], device)):
        case {"stub": str(stub)}:
            return host_key(context, unit, text, stub)
    return None


def steady(context: Context, unit: Unit) -> list[str]:
    """The host compiler's options that make a unit's object the same everywhere."""
    seed = digest("seed", unit.source, unit.codegen)[:16]
    return family_of(context.cxx).steady(context.places.mapped(), seed)


def cost_key(job: Job) -> str:
    """Key of what a job cost: its unit and images, not the text, so that edits keep it."""
    front = job.front and [job.front.virtual.name, *job.front.codes]
    return digest("cost", job.unit.name, job.unit.source, front, job.host)


def put_cost(store: Store, job: Job, made: Made) -> None:
    """Keep what a job cost, for the plans of later builds."""
    cost = {"seconds": made.seconds, "cpu": made.cpu, "rss": made.rss}
    store.put_json("cost", cost_key(job), cost)


def missing(texts: Texts, context: Context, store: Store, job: Job) -> Job | None:
    """The part of a job that the store cannot answer by known texts; None if it all can."""
    unit, front = job.unit, job.front
    host = known_host_key(texts, context, store, unit, front) if job.host else None
    lacks_host = job.host and not (host and store.has("host", host))
    codes = absent_codes(texts, context, store, job)
    if not lacks_host and not codes:
        return None
    # A host object comes with at least one image: nvcc makes it in one call.
    if front and not codes:
        codes = front.codes[:1]
    return Job(unit, front and Front(front.virtual, codes), lacks_host, job.memory, job.seconds)


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
    gencode = f"arch={job.front.virtual.compute},code=[{','.join(job.front.codes)}]"
    return [
        context.places.in_view(context.nvcc),
        *family.of_nvcc(context.cxx, steady(context, unit)),
        "-include", "fatwheel.h", *arguments, *seed, "-gencode", gencode,
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
    """Compile, and put slices, host object and texts in the store.

    Raises CompileError with the compiler's words and the command to repeat, FormatError where it
    made something else than was asked for, StoreError on a full disk, or KilledForMemoryError.
    """
    family = family_of(context.cxx)
    with job_folder(Path(context.scratch), digest(job.label)[:12]) as folder:
        lay_out(context, job.unit, folder)
        output = folder / family.object_name
        command = [*commands_of(context, job), *_keeping(family, job), *_output(family, job)]
        command = context.places.shown(command)
        started = time.monotonic()
        usage = run_measured(fitting(command, folder), folder, context.variables(folder))
        if usage.returncode != 0:
            raise _failure(context, job, command, usage, folder)
        try:
            _store_results(context, store, texts, job, folder, output)
        except FormatError as error:
            raise FormatError(error.what, where=job.label, hint=error.hint) from error
        return Made(time.monotonic() - started, usage.cpu, usage.rss, usage.output)


def _keeping(family: Family, job: Job) -> list[str]:
    """Options that leave the texts of a call behind, where they can."""
    if job.front:
        return ["--keep", "--keep-dir", "keep"]
    return ["-save-temps=obj"] if family.keeps_text else []


def _output(family: Family, job: Job) -> list[str]:
    return ["-o", family.object_name] if job.front else family.output(family.object_name)


def _store_results(
    context: Context, store: Store, texts: Texts, job: Job, folder: Path, output: Path
) -> None:
    unit, front = job.unit, job.front
    data = output.read_bytes()
    if front is None:
        text = _text_of_cpp(context, texts, job, folder)
        store.put("host", host_key(context, unit, text), data)
        return
    keep = folder / "keep"
    text = texts.record(unit, pass_of(front), _kept(keep, ".cpp1.ii"))
    stub = _kept(keep, ".cudafe1.stub.c").read_bytes()
    sha = _digest_of_stub(context, stub)
    managed = sorted({name.decode("utf-8", "replace") for name in _MANAGED.findall(stub)})
    for code, entries in _by_code(slices_of(data), front).items():
        key = slice_key(context, unit, front, code, text)
        store.put("slice", key, write_container(entries))
        abi = {"kernels": _kernels(keep, code), "managed": managed, "stub": sha}
        store.put_json("abi", key, abi)
    if job.host:
        text = texts.record(unit, HOST_PASS, _kept(keep, ".cpp4.ii"))
        store.put("host", host_key(context, unit, text, sha), without_device_code(data))


def _text_of_cpp(context: Context, texts: Texts, job: Job, folder: Path) -> str:
    if family_of(context.cxx).keeps_text:
        return texts.record(job.unit, HOST_PASS, _kept(folder, ".ii"))
    return texts.preprocess(job.unit, HOST_PASS, preprocess_command(context, job))


def _by_code(entries: tuple[Entry, ...], front: Front) -> dict[str, list[Entry]]:
    """Sort a fatbin's entries by the code they were asked for as."""
    sorted_: dict[str, list[Entry]] = {code: [] for code in front.codes}
    for entry in entries:
        name = image_name(entry)
        if name not in sorted_:
            raise FormatError(
                f"nvcc made an image {name} that was not asked for",
                hint=f"asked for: {', '.join(front.codes)}",
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


def _digest_of_stub(context: Context, stub: bytes) -> str:
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


def _failure(
    context: Context, job: Job, command: list[str], usage: Usage, folder: Path
) -> Exception:
    # nvcc runs its steps through a shell, and ends as that does.
    killed = usage.returncode in (-_SIGKILL, 128 + _SIGKILL, *_NO_MEMORY)
    if killed or family_of(context.cxx).out_of_memory.search(usage.output):
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
    compiler = commands_of(context, job)[0]
    return CompileError(
        f"{os.path.basename(compiler)} failed with exit code {usage.returncode}",
        where=job.label,
        details=[*usage.output.rstrip().splitlines(), "", "to repeat it:"],
        hint=to_repeat(command, kept),
    )


def _keep_folder(context: Context, job: Job) -> Path:
    """A job's folder that stays after the build, so that a failure can be repeated."""
    sources = Path(context.places.real(context.places.source))
    folder = sources.parent / "failed" / digest(job.label)[:12]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lay_out(context, job.unit, folder)
    return folder
