"""Commands that build: build, capture, prove, recipe, rebuild.

Arguments and help only. What a command calls is imported when it runs: help and tab completion
should not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from ..errors import UsageError
from ..shipped import DEFAULT_TOOLCHAINS as DEFAULT
from .arguments import (
    CUDA,
    LICENSE,
    MANGLED,
    MSVC,
    PLATFORM,
    REMOTE,
    FilesTask,
    accept_license,
    consent,
    count_of,
    engine_on,
    file_of,
    folder_of,
    page_of,
    reported,
    seconds_of,
    size_of,
)

if TYPE_CHECKING:
    from ..events import Emit
    from ..pipeline.plan import BuildPlan
    from ..pipeline.share import ShareOrder

_HELP = {
    "kernel": "what to build: a recipe's name, or its folder (default: flash-attn)",
    "recipes": "a folder with recipes, searched before ./kernels and those that come with fatwheel",
    "arch": "GPU architectures as nvcc names them, comma-separated: 80,86,90a; "
    "89+ptx adds PTX for future GPUs (default: the recipe's)",
    "toolchain": f"compilers and libraries: a file of toolchains/ (default: {DEFAULT['linux']})",
    "jobs": "compiler calls to run at the same time (default: one per core)",
    "memory": (
        "memory for all compiler calls together, such as 48GiB or 800MiB (default: what is "
        "free, less a margin)"
    ),
    "mangled": MANGLED,
}


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "toolchain": "compilers and libraries: a file of toolchains/ (default: "
        f"{DEFAULT['linux']}; on Windows, and where --engine docker reaches Windows containers, "
        f"{DEFAULT['windows']})",
        "python": (
            "Python versions to make wheels for, comma-separated: 3.10,3.11 (default: the "
            "one that runs fatwheel, if the toolchain supports it, else the newest)"
        ),
        "torch": "torch to build against, such as 2.8, or several, comma-separated (default: the "
        "toolchain's default)",
        "cuda": CUDA + "; several, comma-separated, make a wheel each",
        "platform": PLATFORM,
        "cuda-home": "use the CUDA that is installed in this folder, such as /usr/local/cuda-12.8, "
        "and an installed torch: no toolchain is fetched, and nobody else can rebuild the wheel",
        "torch-from": "the Python with the torch to use, or its environment's folder (default: the "
        "Python that runs fatwheel); without --cuda-home, its packages must have nvcc",
        "msvc": MSVC,
        "device-from": "for Windows wheels, built on Linux by Wine: `linux` has CUDA's compilers "
        "for Linux make device code of what the front end for Windows leaves, the same bytes in "
        "less time; some is made by both and compared (default: Windows' own make all)",
        "engine": (
            "where the work runs: process (worker processes on this machine), docker "
            "(containers) or dask (workers on any machines, see --scheduler); default: process, "
            "but for Windows wheels docker: on Windows if an engine runs Windows containers, on "
            "Linux if the toolchain has images"
        ),
        "scheduler": "the address of a Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT, on "
        "whose workers to compile (default: the one that FATWHEEL_SCHEDULER names)",
        "shards": "workers to spread the work over (default: one per architecture)",
        "front": (
            "exact: run nvcc's front end once per architecture, as nvcc does; shared: one "
            "run for all, half the work; split: nvcc's optimisers divide each unit among threads; "
            "auto: shared, split or both where a proof kept with the recipe shows that the code is "
            "the same, else exact (default: auto)"
        ),
        "fast": "for development: fronts shared and split, proven or not. Records and reports of "
        "the wheel say so",
        "audit": "some: take over code whose device program is known from a build with this "
        "option, such as one for another torch, but compile 1 in 50 all the same and compare; all: "
        "compile and compare all of it; none: compare nothing; off: take nothing over (default: "
        "off)",
        "stop-after": "start no more compiler calls after this time, such as 5h30m; those that run "
        "are finished and kept, and the exit code is 17 if some are left: run it again to go on",
        "remote": REMOTE,
        "only-shard": "compile only one share of the jobs, such as 2/6 on the second of six: "
        "all divide them alike",
        "share-to": "with --only-shard: the file for what it compiles, NAME.share (default: the "
        "remote has it)",
        "from-shares": "assemble the wheel of the shares in this folder, *.share, which other "
        "machines made; with --only-shard: go on with a share that was stopped",
        "split": "also make a thin wheel for each architecture",
        "out": "folder for the wheels (default: dist)",
        "locked": (
            "use only what this lock lists: a wheel, or the W.whl.lock.json beside one; "
            "options that you leave out are taken from it"
        ),
        "yes": "with --locked: run what a lock from another machine names without asking",
        "find": "a folder with pinned files, under any names: those found there are not downloaded",
        "accept-msvc-license": LICENSE,
        "sign": "sign the wheels' statements with this private key, a PEM file",
        "plan": (
            "start nothing; print what would be made: wheels, images, containers with their "
            "limits, and the equivalent Docker commands"
        ),
        "timeline": "also write what ran when, and why cores were idle: FILE.html, a page that "
        "needs no other file, or FILE.json, a trace for Perfetto and chrome://tracing",
        "json": "with --plan: print one JSON document instead of tables",
    },
)
def build(
    c: Context,
    kernel: str | None = None,
    recipes: str | None = None,
    arch: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    platform: str | None = None,
    cuda_home: str | None = None,
    torch_from: str | None = None,
    msvc: str | None = None,
    device_from: str | None = None,
    toolchain: str | None = None,
    engine: str | None = None,
    scheduler: str | None = None,
    shards: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
    stop_after: str | None = None,
    front: str | None = None,
    fast: bool = False,
    remote: str | None = None,
    only_shard: str | None = None,
    share_to: str | None = None,
    from_shares: str | None = None,
    audit: str = "off",
    split: bool = False,
    out: str = "dist",
    locked: str | None = None,
    yes: bool = False,
    find: str | None = None,
    accept_msvc_license: bool = False,
    sign: str | None = None,
    plan: bool = False,
    timeline: str | None = None,
    mangled: bool = False,
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
      invoke build --arch 86 --fast               soon, to try something out
      invoke build --arch 80,86,89 --split        and a thin wheel each for 80, 86 and 89
      invoke build --arch 89 --cuda 12.8 --torch 2.8 --python 3.11,3.12
      invoke build --arch 90a --cuda-home /usr/local/cuda --torch-from ~/venv
      invoke build --arch 89 --locked W.whl       with what W was built with, and nothing else
      invoke build --engine docker --plan         what containers would do; starts nothing
      invoke build --remote s3://team/fatwheel    with what other machines compiled
      invoke build --scheduler tcp://pool:8786    on all machines of a Dask cluster
      invoke build --arch 80,86 --timeline t.html a picture of the build: jobs, idle cores, memory

    GPUs: 75 RTX 20, T4; 80 A100; 86 RTX 30, A10, A40; 89 RTX 40, L4, L40; 90 H100, H200;
    100 B200; 103 B300; 120 RTX 50, RTX PRO.
    """
    with reported(mangled):
        from ..pipeline import build as build_module
        from ..pipeline.plan import BuildRequest, plan_build
        from ..sharing.remote import remote_of
        from . import console
        from .progress import board
        from .results import show_edited, show_share, show_wheels

        request = BuildRequest(
            kernel=kernel,
            archs=arch,
            pythons=python,
            torch=torch,
            toolchain=toolchain,
            engine=engine_on(scheduler, engine),
            shards=count_of("--shards", shards),
            jobs=count_of("--jobs", jobs),
            memory=size_of("--memory", memory),
            front=front,
            fast=fast,
            out=folder_of("--out", out),
            locked=None if locked is None else file_of(locked),
            find=None if find is None else folder_of("--find", find),
            sign=None if sign is None else file_of(sign),
            recipes=None if recipes is None else folder_of("--recipes", recipes),
            cuda=cuda,
            platform=platform,
            cuda_home=None if cuda_home is None else folder_of("--cuda-home", cuda_home),
            torch_from=None if torch_from is None else file_of(torch_from),
            msvc=msvc,
            stop_after=seconds_of("--stop-after", stop_after),
            remote=remote_of(remote),
            order=_order_of(only_shard, share_to, has_remote=remote_of(remote) is not None),
            shares=None if from_shares is None else folder_of("--from-shares", from_shares),
            audit=audit,
            device_from=device_from,
        )
        if json and not plan:
            raise UsageError("only plans are printed as JSON", where="--json", hint="add --plan")
        if plan and timeline:
            raise UsageError("a plan starts nothing", where="--timeline", hint="leave --plan out")
        picture = None if timeline is None else page_of("--timeline", timeline, (".html", ".json"))
        planned = plan_build(request)
        if plan:
            build_module.check_replaced(planned)
            _show_plan(planned, json)
            return
        accept_license(accept_msvc_license)
        with _recorded(picture) as beside:
            with board() as show:
                emit = beside(show)
                if request.order:
                    share = build_module.build_share(planned, request.order, emit, consent(yes))
                    wheels = []
                else:
                    wheels = build_module.build(planned, emit, consent(yes))
                thin_wheels = build_module.split(wheels, request.sign, emit) if split else []
            if request.order:
                show_share(share)
            show_wheels(wheels)
            for thin_wheel in thin_wheels:
                console.write(console.out(), "")
                show_edited(thin_wheel.to_json())


def _order_of(
    only_shard: str | None, share_to: str | None, *, has_remote: bool
) -> ShareOrder | None:
    """The share that is to be made, if one is."""
    from ..pipeline.share import ShareOrder
    from ..sharing.shares import ENDING, parse_share

    if only_shard is None:
        if share_to is not None:
            raise UsageError("which share?", where="--share-to", hint="add --only-shard 1/6")
        return None
    share = parse_share("--only-shard", only_shard)
    if share_to is None:
        if not has_remote:
            raise UsageError(
                "nobody would get this share",
                where="--only-shard",
                hint=f"name a file, --share-to NAME{ENDING}, or a remote, --remote ADDRESS",
            )
        return ShareOrder(share, None)
    if not share_to.endswith(ENDING):
        raise UsageError(
            f"{share_to!r} is no name of a share", where="--share-to", hint=f"NAME{ENDING}"
        )
    return ShareOrder(share, file_of(share_to))


def _recorded(path: Path | None) -> AbstractContextManager[Callable[[Emit], Emit]]:
    """Gives what makes an Emit also record the build, where there is a file for its timeline."""
    if path is None:
        return nullcontext(lambda emit: emit)
    from .timelinefiles import recorded

    return recorded(path)


def _show_plan(plan: BuildPlan, json: bool) -> None:
    from .plans import show_plan
    from .results import show_json

    if json:
        show_json(plan.to_json())
    else:
        show_plan(plan)


@task(
    auto_shortflags=False,
    help={
        **{name: _HELP[name] for name in ("kernel", "recipes", "arch", "toolchain", "mangled")},
        "python": "Python to build for (default: as for build)",
        "torch": "torch to build against, such as 2.8 (default: the toolchain's default)",
        "cuda": CUDA,
        "platform": PLATFORM,
        "engine": "where the project's build runs: process, docker or dask, which is as process "
        "(default: as for build)",
        "options": "also print each unit's options",
        "divide": "also show among how many machines --only-shard would divide the jobs, such as 6",
        "accept-msvc-license": LICENSE,
        "json": "print one JSON document instead of tables",
    },
)
def capture(
    c: Context,
    kernel: str | None = None,
    recipes: str | None = None,
    arch: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    platform: str | None = None,
    toolchain: str | None = None,
    engine: str | None = None,
    options: bool = False,
    divide: str | None = None,
    accept_msvc_license: bool = False,
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Show what a project's build would compile and link, without compiling.

    For whoever writes a recipe: runs the project's own build with replacements for the compilers,
    as every build begins, and lists the units, the architectures that the project names for each
    and those that it would be built for, and the commands that link. Project, version and tag of
    the wheel must be the recipe's.

      invoke capture --kernel torch-scatter --arch 80,89
      invoke capture --kernel kernels/mine --arch 89,90a --options
      invoke capture --kernel flash-attn --arch 80,86,89 --divide 6
      invoke capture --kernel kernels/mine --json
    """
    with reported(mangled):
        from ..pipeline import capture as capturing
        from ..pipeline.plan import BuildRequest, plan_build
        from .progress import board
        from .results import show_capture, show_json

        plan = plan_build(
            BuildRequest(
                kernel=kernel, archs=arch, pythons=python, torch=torch, toolchain=toolchain,
                engine=engine, shards=None, jobs=None, memory=None, front="auto", out=Path(),
                recipes=None if recipes is None else folder_of("--recipes", recipes),
                cuda=cuda, platform=platform,
            )
        )  # fmt: skip
        accept_license(accept_msvc_license)
        with board() as emit:
            machines = count_of("--divide", divide) or 0
            report = capturing.capture(plan, emit, machines).to_json()
        if json:
            show_json(report)
        else:
            show_capture(report, options=options)


@task(
    auto_shortflags=False,
    help={
        **_HELP,
        "toolchain": "compilers and libraries: a file of toolchains/ (default: as for build)",
        "units": "only these units, comma-separated: names, or patterns that a name or its last "
        "part matches: '*fwd_hdim64*,*bwd_hdim128*' (default: all)",
        "ways": "what to try, comma-separated: shared (one front for all architectures), split (a "
        "front each, of which nvcc's optimisers divide the code), both (default: all three; for "
        "one architecture split)",
        "python": "Python to build with (default: as for build)",
        "torch": "torch to build against, such as 2.8 (default: the toolchain's default)",
        "cuda": CUDA,
        "platform": PLATFORM,
        "engine": "where the work runs: process, docker or dask (default: as for build)",
        "accept-msvc-license": LICENSE,
    },
)
def prove(
    c: Context,
    kernel: str = "flash-attn",
    recipes: str | None = None,
    arch: str | None = None,
    units: str | None = None,
    ways: str | None = None,
    toolchain: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    platform: str | None = None,
    engine: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
    accept_msvc_license: bool = False,
    mangled: bool = False,
) -> None:
    """
    Find out which faster ways to compile a kernel give the same code.

    Architectures may share nvcc's front end, and its optimisers may divide the code of a unit
    among threads. Compiles units in these ways and as nvcc by itself does, compares the machine
    code of every kernel and writes the result beside the recipe, where `invoke build --front auto`
    looks for it. For a recipe that comes with an installed fatwheel, that is beside a copy: in
    ./kernels, or in the folder of --recipes. What an earlier run found of the same sources,
    compilers and architectures stays: units and ways are added to it.

      invoke prove --kernel causal-conv1d --arch 80,86,89
      invoke prove --kernel flash-attn --arch 80,86,89 --units '*fwd_hdim64*,*bwd_hdim64*'
      invoke prove --arch 80,86 --ways shared --toolchain linux-cuda12.3 --engine docker
    """
    with reported(mangled):
        from ..pipeline import prove as proving
        from .progress import board
        from .results import show_proof

        request = proving.ProveRequest(
            kernel=kernel,
            archs=arch,
            units=units,
            ways=ways,
            toolchain=toolchain,
            python=python,
            torch=torch,
            cuda=cuda,
            platform=platform,
            engine=engine,
            jobs=count_of("--jobs", jobs),
            memory=size_of("--memory", memory),
            recipes=None if recipes is None else folder_of("--recipes", recipes),
        )
        accept_license(accept_msvc_license)
        with board() as emit:
            proof = proving.prove(request, emit)
        show_proof(proof)


@task(
    auto_shortflags=False,
    klass=FilesTask,
    positional=["source"],
    help={
        "source": "NAME==VERSION of an sdist on your package index; or `git` and URL@REVISION, a "
        "commit, tag or branch; or a folder of this machine",
        "name": "what the recipe is called (default: as the project)",
        "force": "replace a recipe of that name",
        "toolchain": f"what the build is captured with (default: {DEFAULT['linux']})",
        "python": "Python to capture with (default: as for build)",
    },
)
def recipe(
    c: Context,
    source: list[str],
    name: str | None = None,
    force: bool = False,
    toolchain: str | None = None,
    python: str | None = None,
) -> None:
    """
    Write a new recipe, kernels/NAME/recipe.toml, for a project.

    The source is fetched and pinned, for git with all submodules. What its build requires is
    locked, as by `invoke lock --kernel`, and the build is captured, without compiling. Then the
    recipe is written, and shown is what it compiles, and what is left for you to decide. This runs
    the project's own build, as `invoke build` does.

      invoke recipe torch-cluster==1.6.3
      invoke recipe git https://github.com/rahul-goel/fused-ssim.git@main
      invoke recipe ../my-kernels --name mine
    """
    with reported():
        from ..pipeline.newrecipe import RecipeRequest, new_recipe
        from .progress import board
        from .results import show_recipe

        request = RecipeRequest(tuple(source), name, force, toolchain, python)
        with board() as emit:
            written = new_recipe(request, emit)
        show_recipe(written)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={
        "wheel": "a wheel that `invoke build` made",
        "engine": (
            "where the work runs: process, docker or dask (default: as for build, but docker, "
            "where possible, for a wheel that was not built here)"
        ),
        "from-store": (
            "slices: take what was compiled before from the store; never: compile "
            "everything, with an empty store (default: slices)"
        ),
        "yes": "run the code of a wheel that was not built here without asking",
        "find": "a folder with pinned files, under any names: those found there are not downloaded",
        "accept-msvc-license": LICENSE,
        "shards": "workers to spread the work over (default: one per architecture)",
        "jobs": "compiler calls to run at the same time (default: one per core)",
        "memory": (
            "memory for all compiler calls together, such as 48GiB or 800MiB (default: "
            "what is free, less a margin)"
        ),
        "out": "folder in which the rebuilt wheel is kept if it differs (default: rebuilt)",
        "mangled": MANGLED,
        "json": "print one JSON document instead of the report",
    },
)
def rebuild(
    c: Context,
    wheel: str,
    engine: str | None = None,
    from_store: str = "slices",
    yes: bool = False,
    find: str | None = None,
    accept_msvc_license: bool = False,
    shards: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
    out: str = "rebuilt",
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Build a wheel again from its own lock, and compare the bytes.

    Recipe, pins and architectures are the wheel's, whatever this checkout would use today; a
    finished wheel in the store is not used, and nothing is written to it. Of a wheel that was not
    built on this machine it says first what would run, and asks. Where the result is another wheel,
    a report says what differs, and the exit code is 15.

      invoke rebuild dist/causal_conv1d-1.5.2+cu130torch2.11.sm86-cp311-cp311-linux_x86_64.whl
      invoke rebuild W.whl --from-store never
      invoke rebuild W.whl --engine docker --json
    """
    with reported():
        from ..pipeline.compile import Effort
        from ..pipeline.rebuild import RebuildRequest, refusal
        from ..pipeline.rebuild import rebuild as build_again
        from .progress import board
        from .results import show_json, show_rebuild

        path = file_of(wheel)
        effort = Effort(
            count_of("--shards", shards),
            count_of("--jobs", jobs),
            size_of("--memory", memory),
        )
        kept = folder_of("--out", out)
        place = None if find is None else folder_of("--find", find)
        accept_license(accept_msvc_license)
        with board() as emit:
            request = RebuildRequest(path, engine, from_store, place, effort, kept)
            rebuilt = build_again(request, emit, consent(yes))
        show = show_json if json else show_rebuild
        show(rebuilt.to_json())
        if not rebuilt.comparison.identical:
            raise refusal(rebuilt, path)
