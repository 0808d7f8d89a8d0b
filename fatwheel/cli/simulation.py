"""The command `simulate`."""

from __future__ import annotations

import re
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from ..errors import UsageError
from .arguments import (
    CUDA,
    MANGLED,
    count_of,
    file_of,
    folder_of,
    reported,
    seconds_of,
    size_of,
)

WORKERS = "1,2,4,8,16,32,64,128,256,512,1000"


@task(
    auto_shortflags=False,
    help={
        "kernel": "what would be built: a recipe's name, or its folder (default: flash-attn)",
        "recipes": "a folder with recipes, searched before ./kernels and those that come with "
        "fatwheel",
        "arch": "GPU architectures as for build (default: the recipe's)",
        "python": "Python to build for (default: as for build)",
        "torch": "torch to build against, such as 2.8 (default: the toolchain's default)",
        "cuda": CUDA,
        "toolchain": "compilers and libraries: a file of toolchains/ (default: as for build)",
        "costs": "a file of --keep-costs in place of a project: nothing is captured",
        "keep-costs": "also write all compiler calls with their costs to this file, NAME.json",
        "workers": f"sizes of clusters, comma-separated (default: {WORKERS})",
        "cores": "of each worker (default: 4)",
        "memory": "of each worker for its jobs (default: 14GiB, what 16 GiB leave)",
        "bandwidth": "what the machine that builds, with the scheduler, sends in a second, and "
        "receives (default: 110MiB, a Gbit/s)",
        "worker-bandwidth": "the same of each worker (default: 110MiB)",
        "latency": "time from one machine to another (default: 1ms)",
        "overhead": "time for which each job keeps the machine that builds busy (default: 20ms)",
        "lost": "when workers are lost, after the start: 10m,1h30m (default: never)",
        "losses-per-hour": "how many of 100 workers are lost in an hour, such as 5 (default: 0)",
        "replaced-after": "time after which another takes a lost worker's place (default: never)",
        "seed": "a number: the same one loses the same workers (default: 1)",
        "mangled": MANGLED,
        "json": "print one JSON document instead of the table",
    },
)
def simulate(
    c: Context,
    kernel: str | None = None,
    recipes: str | None = None,
    arch: str | None = None,
    python: str | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    toolchain: str | None = None,
    costs: str | None = None,
    keep_costs: str | None = None,
    workers: str = WORKERS,
    cores: str = "4",
    memory: str = "14GiB",
    bandwidth: str = "110MiB",
    worker_bandwidth: str = "110MiB",
    latency: str = "1ms",
    overhead: str = "20ms",
    lost: str | None = None,
    losses_per_hour: str = "0",
    replaced_after: str | None = None,
    seed: str = "1",
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Compute how long a build would take on Dask clusters of several sizes, and what limits it.

    Captures the project, as every build begins, and takes what earlier builds measured of each
    compiler call, or else what the recipe says. Then it runs the scheduler of real builds with a
    computed clock: nothing is compiled, no machine is asked. Losses of workers are part of it.
    Where all workers of a cluster are lost, the exit code is 14, as it would be.

      invoke simulate --kernel flash-attn --arch 80,86,89
      invoke simulate --kernel flash-attn --arch 90 --workers 1,3 --cores 16 --memory 60GiB
      invoke simulate --costs costs.json --losses-per-hour 5 --replaced-after 5m --json
    """
    with reported(mangled):
        from ..engines.base import Limits
        from ..engines.simulation import Losses, Network
        from ..pipeline import simulate as simulating
        from ..pipeline.plan import BuildRequest, plan_build
        from ..pipeline.workload import check_costs_place, keep_workload, read_workload, workload_of
        from .progress import board
        from .results import show_json, show_simulation

        request = simulating.Request(
            workers=_numbers("--workers", workers),
            each=Limits(
                count_of("--cores", cores) or 1, _some("--memory", memory)
            ),
            network=Network(
                _some("--bandwidth", bandwidth), _some("--worker-bandwidth", worker_bandwidth),
                _span("--latency", latency), _span("--overhead", overhead),
            ),
            losses=Losses(
                tuple(_span("--lost", one) for one in lost.split(",")) if lost is not None else (),
                _share("--losses-per-hour", losses_per_hour) / 3600,
                None if replaced_after is None else _span("--replaced-after", replaced_after),
                count_of("--seed", seed) or 0,
            ),
        )  # fmt: skip
        kept = None if keep_costs is None else file_of(keep_costs)
        if kept:
            check_costs_place(kept)
        named = {"--kernel": kernel, "--arch": arch, "--python": python, "--torch": torch,
                 "--cuda": cuda, "--toolchain": toolchain, "--recipes": recipes}  # fmt: skip
        with board() as emit:
            if costs is not None:
                if beside := [option for option, value in named.items() if value is not None]:
                    raise UsageError(
                        f"{beside[0]} beside --costs, which says what is built", where="--costs",
                        hint="leave one of them out",
                    )  # fmt: skip
                load = read_workload(file_of(costs))
            else:
                plan = plan_build(
                    BuildRequest(
                        kernel=kernel, archs=arch, pythons=python, torch=torch,
                        toolchain=toolchain, engine="process", shards=None, jobs=None,
                        memory=None, front="auto", out=Path(),
                        recipes=None if recipes is None else folder_of("--recipes", recipes),
                        cuda=cuda,
                    )
                )  # fmt: skip
                load = workload_of(plan, emit)
            if kept:
                keep_workload(kept, load)
            report = simulating.simulate(load, request, emit)
        show = show_json if json else show_simulation
        show(report.to_json())
        if report.failure:
            raise report.failure


def _numbers(option: str, words: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(count_of(option, word) or 1 for word in words.split(",")))


def _some(option: str, words: str) -> int:
    """Bytes."""
    return size_of(option, words) or 1


def _span(option: str, words: str) -> float:
    """Seconds, which may be none."""
    return 0.0 if words == "0" else seconds_of(option, words) or 0.0


def _share(option: str, words: str) -> float:
    """A part of one, of so many in a hundred."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", words):
        raise UsageError(f"{words!r} is no number", where=option, hint="valid: 5, 0.5")
    return float(words) / 100
