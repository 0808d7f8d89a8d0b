"""Commands for work on fatwheel itself: bench, fuzz, test.

`invoke` finds them here, together with those of the installed program `fatwheel` (fatwheel.cli).
"""

from __future__ import annotations

from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from fatwheel.cli.arguments import count_of, file_of, folder_of, reported
from fatwheel.cli.console import show_note
from fatwheel.cli.main import commands
from fatwheel.cli.progress import board
from fatwheel.cli.results import show_json
from fatwheel.shipped import DEFAULT_TOOLCHAINS

ROOT = Path(__file__).resolve().parent
BENCH_ARCHS = "80,86,89"  # for which bench builds whole wheels


@task(
    auto_shortflags=False,
    help={
        "part": "what to measure: some of builds,again,arch,memory,units,containers,machine,"
        "wheels, or all (default: all but units, which takes about 20 minutes on two cores, "
        "containers, which needs a container engine, and machine)",
        "kernel": "what to build in all parts but units and wheels (default: causal-conv1d)",
        "rounds": "how often to do what takes turns with another way; medians are shown "
        "(default: 1)",
        "toolchain": "compilers and libraries: a file of toolchains/ (default: "
        f"{DEFAULT_TOOLCHAINS['linux']})",
        "python": "Python to build with (default: as for build)",
        "arch": f"architectures of whole wheels (default: {BENCH_ARCHS})",
        "cuda-home": "measure with this installed CUDA in place of the toolchain's",
        "torch-from": "measure with the torch of this Python, or of this environment",
        "find": "a folder with pinned files, under any names, for machines without a network",
        "keep": "also write what the part machine found to this file: bench/results/NAME.json",
        "front": "how fatwheel chooses fronts in the part machine, as for build (default: auto)",
        "json": "print one JSON document instead of tables",
        "markdown": "print the tables as Markdown, as in docs/performance.md",
    },
)
def bench(
    c: Context,
    part: str = "builds,again,arch,memory,wheels",
    kernel: str = "causal-conv1d",
    rounds: str = "1",
    toolchain: str = DEFAULT_TOOLCHAINS["linux"],
    python: str | None = None,
    arch: str = BENCH_ARCHS,
    cuda_home: str | None = None,
    torch_from: str | None = None,
    find: str | None = None,
    keep: str | None = None,
    front: str = "auto",
    json: bool = False,
    markdown: bool = False,
) -> None:
    """
    Compare the speed and memory of fatwheel with those of other ways to do the same.

    Leave the machine alone meanwhile. docs/performance.md explains the parts.

      invoke bench --rounds 3
      invoke bench --part units                   flash-attn's units, plain nvcc beside fatwheel
      invoke bench --part containers --rounds 3   containers beside processes
      invoke bench --part wheels                  inspect, thin and stitch beside Python's zipfile
      invoke bench --kernel selftest --part again,arch
      invoke bench --part machine --kernel gsplat --arch 90 --keep bench/results/mine.json
    """
    with reported():
        from bench import run, show

        request = run.BenchRequest(
            parts=part,
            rounds=count_of("--rounds", rounds) or 1,
            kernel=kernel,
            unit_kernel="flash-attn",
            units=run.UNITS,
            toolchain=toolchain,
            python=python,
            archs=arch,
            cuda_home=None if cuda_home is None else folder_of("--cuda-home", cuda_home),
            torch_from=None if torch_from is None else file_of(torch_from),
            find=None if find is None else folder_of("--find", find),
            keep=None if keep is None else Path(keep),
            front=front,
        )
        with board() as emit:
            report = run.bench(request, emit)
        if json:
            show_json(report.to_json())
        else:
            present = show.show_bench_markdown if markdown else show.show_bench
            present(report)


@task(
    name="test",
    auto_shortflags=False,
    help={
        "all": "also the tests that take longer than a CI run has",
        "k": "only tests that match this pytest expression",
    },
)
def run_tests(c: Context, all: bool = False, k: str | None = None) -> None:
    """
    Check style and types, then run the tests; some of them build something real.

    Four tests run at a time where there are two cores. Ends with the exit code of the first check
    that failed.

      invoke test
      invoke test -k 'store and not slow'
      pytest -m 'not slow'                        the quick ones only
    """
    with reported():
        from tests import checks

        code = checks.run_checks(ROOT, all, k, show_note)
    raise SystemExit(code)


@task(
    auto_shortflags=False,
    help={
        "runs": "how many inputs to try (default: 100000)",
        "target": "what gets them: some of elf,pe,coff,fatbin,cubin,ptx,lz4,zstd,wheel,thin,"
        "compare,stitch,sdist,pyproject,zip,locks,statements,toolchains,lines,incoming, or all "
        "(default: all)",
        "seed": "a number: the same one tries the same inputs (default: another each time)",
        "jobs": "inputs at a time (default: one per core)",
        "replay": "try one file again, such as one that was kept, and show what happens",
        "out": "folder for the inputs that found something (default: fuzz-problems)",
    },
)
def fuzz(
    c: Context,
    runs: str = "100000",
    target: str = "all",
    seed: str | None = None,
    jobs: str | None = None,
    replay: str | None = None,
    out: str = "fuzz-problems",
) -> None:
    """
    Fuzz the readers of untrusted files: give them damaged ones.

    A damaged file may cause an error message, within 2 seconds and 256 MiB. Files that cause
    anything worse are kept, with a traceback, and the exit code is 1.

      invoke fuzz
      invoke fuzz --target elf,pe --runs 20000 --seed 7
      invoke fuzz --replay fuzz-problems/elf-7-1234.bin
    """
    with reported():
        from tests import checks

        code = checks.run_fuzzer(
            ROOT,
            runs=count_of("--runs", runs),
            target=target,
            seed=count_of("--seed", seed),
            jobs=count_of("--jobs", jobs),
            replay=replay and Path(replay).absolute(),
            out=folder_of("--out", out).absolute(),
        )
    raise SystemExit(code)


namespace = commands()
for each in (bench, fuzz, run_tests):
    namespace.add_task(each)
