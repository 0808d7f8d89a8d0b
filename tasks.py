"""The command line: `invoke --list` names the tasks, `invoke --help build` explains one.

Arguments and help only; each task makes one call. Further tasks are in fatwheel.comparing,
fatwheel.development, fatwheel.imaging, fatwheel.locking, fatwheel.rebuilding and
fatwheel.workstation. Results go to stdout, everything else to stderr. Relative paths are relative
to the folder that invoke is called in, which may be any folder below this one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from fatwheel import ui
from fatwheel.comparing import compare  # noqa: F401 (a task, too)
from fatwheel.development import bench, fuzz, run_tests  # noqa: F401 (tasks, too)
from fatwheel.errors import UsageError
from fatwheel.events import silent
from fatwheel.imaging import image, render  # noqa: F401 (tasks, too)
from fatwheel.locking import lock  # noqa: F401 (a task, too)
from fatwheel.rebuilding import rebuild  # noqa: F401 (a task, too)
from fatwheel.ui.arguments import TOOLCHAIN, FilesTask, count_of, file_of, folder_of, size_of
from fatwheel.ui.ending import reported
from fatwheel.workstation import doctor, setup  # noqa: F401 (tasks, too)

if TYPE_CHECKING:
    from fatwheel.pipeline import BuildRequest

# What each task calls is imported when it runs: the list of tasks, help and tab completion
# should not wait for it.

_HELP = {
    "kernel": "what to build: a folder of kernels/ (default: flash-attn)",
    "arch": "GPU architectures as nvcc names them, comma-separated: 80,86,90a; "
    "89+ptx adds PTX for GPUs to come (default: the recipe's)",
    "toolchain": f"compilers and libraries: a file of toolchains/ (default: {TOOLCHAIN})",
    "jobs": "compiler calls at a time (default: one per core)",
    "memory": "what all compiler calls together may use, as 48GiB or 800MiB "
    "(default: what is free, less a margin)",
}


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "toolchain": "compilers and libraries: a file of toolchains/ (default: linux-cuda13.0, or "
        "windows-msvc17.8-cuda12.3 where containers are Windows'; toolchains for Windows always "
        "use containers)",
        "python": "Pythons to make wheels for, comma-separated: 3.10,3.11 "
        "(default: the one that runs this, if the toolchain serves it, or else the newest)",
        "torch": "torch to build against, as 2.11.0 (default: the toolchain's own choice)",
        "engine": "where the work runs: process, worker processes on this machine; docker, "
        "containers (default: process where the toolchain can do without containers)",
        "shards": "workers to spread the work over (default: one per architecture)",
        "front": "exact: each architecture gets a run of nvcc's front end of its own, as nvcc "
        "does it; shared: one run for all, half the work; auto: shared where a proof kept with "
        "the recipe shows the same code, else exact (default: auto)",
        "split": "besides, make a thin wheel for each architecture",
        "out": "folder for the wheels (default: dist)",
        "locked": "use nothing that this lock does not list: a wheel, or the W.whl.lock.json "
        "beside one; what you leave open is as it says",
        "yes": "with --locked: do not ask before what the lock of another machine names is run",
        "find": "a folder with pinned files, under whatever name: none that lies there is fetched",
        "sign": "sign the wheels' statements with this private key, a PEM file",
        "plan": "start nothing; print what would be made: wheels, images, containers with their "
        "limits, and Docker's commands for the same",
        "json": "with --plan: print one JSON document instead of tables",
    },
)
def build(
    c: Context,
    kernel: str | None = None,
    arch: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    toolchain: str | None = None,
    engine: str | None = None,
    shards: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
    front: str = "auto",
    split: bool = False,
    out: str = "dist",
    locked: str | None = None,
    yes: bool = False,
    find: str | None = None,
    sign: str | None = None,
    plan: bool = False,
    json: bool = False,
) -> None:
    """
    Make a wheel that holds code for all the GPUs you name.

    The toolchain is fetched on the first run (about 3 GB). What was compiled once is kept:
    run it again after a failure, with one more architecture or for another Python, and only
    what is missing is compiled.

      invoke build --kernel causal-conv1d --arch 80,86,89
      invoke build --arch 86                      flash-attn for one GPU generation
      invoke build --arch 80,90a,120+ptx          and PTX for what comes after
      invoke build --jobs 4 --memory 16GiB        leave room for other work
      invoke build --front exact                  byte for byte what nvcc alone makes
      invoke build --arch 80,86,89 --split        and a thin wheel each for 80, 86 and 89
      invoke build --arch 89 --locked W.whl       with what W was built with, and nothing else
      invoke build --engine docker --plan         what containers would do; starts nothing

    GPUs: 75 RTX 20, T4; 80 A100; 86 RTX 30, A10, A40; 89 RTX 40, L4, L40; 90 H100, H200;
    100 B200; 103 B300; 120 RTX 50, RTX PRO.
    """
    with reported():
        from fatwheel import pipeline

        request = pipeline.BuildRequest(
            kernel=kernel,
            archs=arch,
            pythons=python,
            torch=torch,
            toolchain=toolchain,
            engine=engine,
            shards=count_of("--shards", shards),
            jobs=count_of("--jobs", jobs),
            memory=size_of("--memory", memory),
            front=front,
            out=folder_of("--out", out),
            locked=None if locked is None else file_of(locked),
            find=None if find is None else folder_of("--find", find),
            sign=None if sign is None else file_of(sign),
        )
        if plan or json:
            _show_plan(request, plan, json)
            return
        with ui.board() as emit:
            wheels = pipeline.build(request, emit, ui.consent(yes))
            thin_wheels = pipeline.split(wheels, request.sign, emit) if split else []
        ui.show_wheels(wheels)
        ui.show_edited(thin_wheels)


def _show_plan(request: BuildRequest, plan: bool, json: bool) -> None:
    if not plan:
        raise UsageError("only plans are printed as JSON", where="--json", hint="add --plan")
    from fatwheel.planning import plan_document

    document = plan_document(request)
    if json:
        ui.show_json(document.to_json())
    else:
        ui.show_plan_document(document)


@task(
    auto_shortflags=False,
    positional=["file"],
    help={
        "file": "a wheel, .so, .pyd, .dll, .o, .obj, .fatbin or .cubin",
        "units": "also each unit (container) with its kernels and images",
        "json": "print one JSON document instead of tables",
    },
)
def inspect(c: Context, file: str, units: bool = False, json: bool = False) -> None:
    """
    Show what GPU code a file holds, and which GPUs it runs on.

    Reads the bytes; the file's name is not trusted. Needs no CUDA.

      invoke inspect xformers-0.0.23-cp311-cp311-win_amd64.whl
      invoke inspect module.pyd --units --json
    """
    with reported():
        from fatwheel.verify.inspect import inspect_file, inspect_units

        report = inspect_units(file_of(file)) if units else inspect_file(file_of(file))
        show = ui.show_json if json else ui.show_inspection
        show(report)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={
        "wheel": "the wheel to check, for Windows or Linux",
        "key": "the public key, a PEM file, that must have signed the statement beside the wheel",
        "import": "also install it in a clean environment, with the torch that it was built for, "
        "and import it: its code runs as you",
        "gpu": "also run it on this machine's GPU: whether it loads, from which code, how fast, "
        "and whether its recipe's verify.py finds its results right; its code runs as you",
        "json": "print one JSON document instead of the report",
    },
)
def verify(
    c: Context,
    wheel: str,
    key: str | None = None,
    import_: bool = False,
    gpu: bool = False,
    json: bool = False,
) -> None:
    """
    Check that a CUDA wheel is what it says, whoever built it.

    RECORD, names and tags, architectures in the version, Python modules, libraries needed, GPUs
    served, the same kernels for all of them; of fatwheel's own wheels, all that they say of their
    making. All that is wrong is shown at once, and then the exit code is 13. Without --import and
    --gpu nothing of the wheel is run, and no CUDA is needed.

      invoke verify xformers-0.0.23-cp311-cp311-win_amd64.whl
      invoke verify W.whl --key team.pub
      invoke verify W.whl --import
      invoke verify W.whl --gpu --json
    """
    with reported():
        from fatwheel.verify.report import refusal
        from fatwheel.verifying import Asked
        from fatwheel.verifying import verify as verify_all

        asked = Asked(None if key is None else file_of(key), importing=import_, gpu=gpu)
        path = file_of(wheel)
        if import_ or gpu:
            with ui.board() as emit:
                report = verify_all(path, asked, emit)
        else:
            report = verify_all(path, asked, silent)
        show = ui.show_json if json else ui.show_verification
        show(report.to_json())
        if not report.ok:
            raise refusal(report)


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "two or more wheels of the same project, version, Python and platform",
        "out": "folder for the wheel (default: dist)",
    },
)
def stitch(c: Context, wheels: list[str], out: str = "dist") -> None:
    """
    Put the GPU code of several wheels into one.

    Whoever built the wheels: they must be builds of the same source for different GPUs. Nothing
    is compiled. All kernels must be in all wheels, with the same parameters, and all other files
    must be the same. The new wheel's version names all architectures.

      invoke stitch demo-1.0+sm80-cp311-cp311-win_amd64.whl demo-1.0+sm89-cp311-cp311-win_amd64.whl
      invoke stitch dist/*.whl --out fat
    """
    with reported():
        from fatwheel.postlink.stitch import stitch_wheels

        ui.show_edited(
            [stitch_wheels([file_of(wheel) for wheel in wheels], folder_of("--out", out))]
        )


@task(
    auto_shortflags=False,
    positional=["file"],
    help={
        "file": "a wheel, or a single .so, .pyd, .dll, .o, .obj or .fatbin",
        "arch": "the GPUs to keep code for, by their architecture, comma-separated: 80,86,90; "
        "89+ptx keeps the PTX of that architecture too",
        "keep-ptx": "keep all PTX, for GPUs to come",
        "partial": "do without kernels that none of these GPUs can run",
        "out": "folder for the result (default: dist)",
    },
)
def thin(
    c: Context,
    file: str,
    arch: str | None = None,
    keep_ptx: bool = False,
    partial: bool = False,
    out: str = "dist",
) -> None:
    """
    Leave out the GPU code that the GPUs you name do not load.

    Whoever built the file. Of each unit's images those stay that such a GPU would load: machine
    code for it or for the nearest older GPU of its generation, or else PTX for its driver to
    compile. Where nothing would be left for a kernel to run on, nothing is written, unless you
    say --partial. A wheel's version says what is left.

      invoke thin xformers-0.0.23-cp311-cp311-win_amd64.whl --arch 89
      invoke thin demo.whl --arch 86,89 --keep-ptx --out thin
      invoke thin module.so --arch 80 --out thin
    """
    with reported():
        from fatwheel.arch import parse_gpu_list
        from fatwheel.fatbin.choose import selection_for
        from fatwheel.postlink import thin as thinning

        path = file_of(file)
        selection = selection_for(parse_gpu_list(arch or ""))
        selection = replace(selection, partial=partial)
        if keep_ptx:
            selection = selection.with_every_ptx()
        ui.show_edited([thinning.thin(path, selection, folder_of("--out", out))])


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "units": "only units whose name, or its last part, matches one of these patterns, "
        "comma-separated: '*fwd_hdim64*,*bwd_hdim128*' (default: all)",
        "python": "Python to build with (default: as for build)",
    },
)
def prove(
    c: Context,
    kernel: str = "flash-attn",
    arch: str | None = None,
    units: str | None = None,
    toolchain: str = TOOLCHAIN,
    python: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
) -> None:
    """
    Find out whether architectures may share nvcc's front end for a kernel.

    Compiles units both ways, compares the machine code of every kernel and writes the result
    beside the recipe, where `invoke build --front auto` looks for it.

      invoke prove --kernel causal-conv1d --arch 80,86,89
      invoke prove --kernel flash-attn --arch 80,86,89 --units '*fwd_hdim64*,*bwd_hdim64*'
    """
    with reported():
        from fatwheel import prove as proving

        request = proving.ProveRequest(
            kernel=kernel,
            archs=arch,
            units=units,
            toolchain=toolchain,
            python=python,
            jobs=count_of("--jobs", jobs),
            memory=size_of("--memory", memory),
        )
        with ui.board() as emit:
            proof = proving.prove(request, emit)
        ui.show_proof(proof)


@task(
    auto_shortflags=False,
    help={
        "clean": "empty the store: the next build compiles everything again",
        "limit": "delete what was used least recently, down to a size such as 20GiB",
        "check": "read every entry of the store and delete those that are damaged",
        "json": "print one JSON document instead of tables",
    },
)
def cache(
    c: Context,
    clean: bool = False,
    limit: str | None = None,
    check: bool = False,
    json: bool = False,
) -> None:
    """
    Show what the cache holds; check it, shrink it or clean it.

    It lies in the user's cache directory, or where FATWHEEL_CACHE says. The store in it keeps
    what was compiled; it stays below a limit by itself. Everything in the cache can be made
    again: to be rid of downloads and environments too, delete the folder while nothing builds.

      invoke cache
      invoke cache --limit 20GiB
      FATWHEEL_CACHE=/big/disk invoke cache --clean
    """
    with reported():
        from fatwheel.housekeeping import tend_cache

        report = tend_cache(check=check, limit=size_of("--limit", limit), clean=clean)
        if json:
            ui.show_json(report.to_json())
        else:
            ui.show_cache(report)
