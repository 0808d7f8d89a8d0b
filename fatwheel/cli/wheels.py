"""Commands for finished wheels: inspect, verify, sign, thin, stitch, codesign, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.tasks import task

from ..errors import UsageError
from .arguments import (
    MANGLED,
    FilesTask,
    command_of,
    file_of,
    files_of,
    folder_of,
    page_of,
    reported,
)


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["files"],
    help={
        "files": "wheels, .so, .pyd, .dll, .o, .obj, .fatbin or .cubin files",
        "units": "also list each unit (container) with its kernels and images",
        "all": "list every file, and not only a summary where that would be long",
        "html": "also write a page with pictures of them: FILE.html, which needs no other file",
        "mangled": MANGLED,
        "json": "print one JSON document instead of tables; of several files, a list of them",
    },
)
def inspect(
    c: Context,
    files: list[str],
    units: bool = False,
    all: bool = False,
    html: str | None = None,
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Show the GPU code in wheels and binaries, and which GPUs run it.

    Reads the bytes; a file's name is not trusted. Needs no CUDA. Also says for each GPU how many
    bytes of the unpacked files `invoke thin` would leave out.

      invoke inspect xformers-0.0.23-cp311-cp311-win_amd64.whl
      invoke inspect dist/*.whl
      invoke inspect module.pyd --units --json
      invoke inspect dist/*.whl --html sizes.html
    """
    with reported(mangled):
        from ..verify.inspect import inspect_file, inspect_units, without_units
        from .reports import show_inspection
        from .results import Add, report_each

        page = None if html is None else page_of("--html", html, (".html",))
        found: list[Mapping[str, Any]] = []

        def look(path: Path, add: Add) -> None:
            report = inspect_units(path) if units or page else inspect_file(path)
            found.append(report)
            add(report if units else without_units(report))

        def show(report: Mapping[str, Any]) -> None:
            show_inspection(report, everything=all or units)

        try:
            report_each(files_of(files), look, show, as_json=json)
        finally:  # of several files, those that can be read are on the page
            if page and found:
                _write_page(page, found)


def _write_page(page: Path, found: Sequence[Mapping[str, Any]]) -> None:
    from ..pages import write_page
    from .console import show_note
    from .wheelpage import wheel_page

    write_page(page, wheel_page(found), "--html")
    show_note(f"the page is {page}")


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "the wheels to check, for Windows or Linux",
        "key": "the public key, a PEM file, that must have signed the statement beside each wheel",
        "import": "also install each in a clean environment, with the torch that it was built for, "
        "and import it: its code runs as you",
        "gpu": "also run each on this machine's GPU: whether it loads, from which code, how fast, "
        "and whether its recipe's verify.py finds its results right; its code runs as you",
        "beside": "with --import or --gpu: other wheels to install, comma-separated, which these "
        "need",
        "all": "show everything that was found, not only the first of each kind",
        "mangled": MANGLED,
        "json": "print one JSON document instead of the report; of several wheels, a list of them",
    },
)
def verify(
    c: Context,
    wheels: list[str],
    key: str | None = None,
    import_: bool = False,
    gpu: bool = False,
    beside: str | None = None,
    all: bool = False,
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Check that CUDA wheels are what they say, whoever built them.

    RECORD, names and tags, architectures in the version, Python modules, libraries needed, GPUs
    supported, the same parameters of a kernel for all of them; of fatwheel's own wheels, all that
    they say of how they were built. Everything wrong is shown at once, and then the exit code is
    13. Without --import and --gpu nothing of the wheel is run, and no CUDA is needed.

      invoke verify xformers-0.0.23-cp311-cp311-win_amd64.whl
      invoke verify dist/*.whl
      invoke verify W.whl --key team.pub
      invoke verify W.whl --import
      invoke verify torch_sparse-*.whl --import --beside torch_scatter-*.whl
      invoke verify W.whl --gpu --json
    """
    with reported(mangled):
        from ..events import silent
        from ..trial.verify import Trials
        from ..trial.verify import verify as verify_all
        from ..verify.report import refusal
        from .progress import board
        from .reports import show_verification
        from .results import Add, report_each

        if beside is not None and not (import_ or gpu):
            raise UsageError("nothing is installed without --import or --gpu", where="--beside")
        asked = Trials(
            None if key is None else file_of(key), import_, gpu,
            () if beside is None else tuple(files_of(beside.split(","))),
        )  # fmt: skip

        def check(path: Path, add: Add) -> None:
            if import_ or gpu:
                with board() as emit:
                    report = verify_all(path, asked, emit)
            else:
                report = verify_all(path, asked, silent)
            add(report.to_json())
            if not report.ok:
                raise refusal(report)

        def show(report: Mapping[str, Any]) -> None:
            show_verification(report, everything=all)

        report_each(files_of(wheels), check, show, as_json=json)


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "wheels with the statements that were written beside them",
        "key": "the private key, a PEM file; its passphrase is in FATWHEEL_SIGN_PASSWORD",
    },
)
def sign(c: Context, wheels: list[str], key: str) -> None:
    """
    Sign the statements beside finished wheels, as `build --sign` does.

    For keys that a build must not see: on another machine, where no project's code ran. If
    `verify` finds one of the wheels wrong, or one has no statement, none is signed.

      invoke sign dist/*.whl --key team.pem
      invoke verify dist/*.whl --key team.pub
    """
    with reported():
        from ..provenance.beside import STATEMENT, signable
        from ..provenance.beside import sign as sign_statement
        from ..provenance.signing import load_signer
        from ..verify.report import refusal, verify_wheel
        from .console import out, write

        signer = load_signer(file_of(key), "--key")
        paths = files_of(wheels)
        if not paths:
            raise UsageError("which wheels?", hint="name at least one: invoke sign dist/*.whl")
        statements = []
        for path in paths:
            report = verify_wheel(path)
            if not report.ok:
                raise refusal(report)
            papers = report.evidence.papers
            statement = signable(path, papers.beside.get(STATEMENT), papers.sha256)
            statements.append((path, statement))
        for path, statement in statements:
            write(out(), f"signed: {sign_statement(path, statement, signer)}")


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "two or more wheels of the same project, version, Python and platform",
        "out": "folder for the wheel (default: dist)",
        "mangled": MANGLED,
        "json": "print one JSON document instead",
    },
)
def stitch(
    c: Context, wheels: list[str], out: str = "dist", mangled: bool = False, json: bool = False
) -> None:
    """
    Put the GPU code of several wheels into one.

    Whoever built the wheels: they must be builds of the same source for different GPUs. Nothing
    is compiled. Kernels must have the same parameters in all wheels that have them, and all other
    files must be the same. The new wheel's version names all architectures.

      invoke stitch demo-1.0+sm80-cp311-cp311-win_amd64.whl demo-1.0+sm89-cp311-cp311-win_amd64.whl
      invoke stitch dist/*.whl --out fat
    """
    with reported(mangled):
        from ..edit.stitch import stitch_wheels
        from .results import show_edited, show_json

        made = stitch_wheels(files_of(wheels), folder_of("--out", out))
        show = show_json if json else show_edited
        show(made.to_json())


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["files"],
    help={
        "files": "wheels, or single .so, .pyd, .dll, .o, .obj or .fatbin files",
        "arch": "architectures of the GPUs to keep code for, comma-separated: 80,86,90; "
        "89+ptx keeps the PTX of that architecture too",
        "keep-ptx": "keep all PTX, for future GPUs",
        "partial": "drop kernels that none of these GPUs can run",
        "dry-run": "write nothing; compute what would be written, and print its size",
        "out": "folder for the results (default: dist)",
        "mangled": MANGLED,
        "json": "print one JSON document instead; of several files, a list of them",
    },
)
def thin(
    c: Context,
    files: list[str],
    arch: str | None = None,
    keep_ptx: bool = False,
    partial: bool = False,
    dry_run: bool = False,
    out: str = "dist",
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Remove the GPU code that the GPUs you name do not load.

    Whoever built the files. Of each unit's images those stay that such a GPU would load: machine
    code for it or for the nearest older GPU of its generation, or else PTX for its driver to
    compile. Where nothing would be left for a kernel to run on, nothing is written, unless you
    say --partial. A wheel's version says what is left.

      invoke thin xformers-0.0.23-cp311-cp311-win_amd64.whl --arch 89
      invoke thin dist/*.whl --arch 86,89 --keep-ptx --out thin
      invoke thin torch-2.11.0-cp311-cp311-win_amd64.whl --arch 89 --dry-run
      invoke thin module.so --arch 80 --out thin
    """
    with reported(mangled):
        from ..arch import parse_gpu_list
        from ..edit import thin as thinning
        from ..fatbin.images import selection_for
        from .results import Add, report_each, show_edited

        selection = selection_for(parse_gpu_list(arch or ""))
        selection = replace(selection, partial=partial)
        if keep_ptx:
            selection = selection.with_every_ptx()
        paths, folder = files_of(files), folder_of("--out", out)
        _check_names(paths)
        keep = list(paths)

        def make(path: Path, add: Add) -> None:
            others = [other for other in keep if other != path]
            made = thinning.thin(path, selection, folder, keep=others, dry_run=dry_run)
            keep.append(made.path)
            add(made.to_json())

        report_each(paths, make, show_edited, as_json=json)


def _check_names(paths: Sequence[Path]) -> None:
    """Refuse equal names before anything is made; those of thin wheels are known only then."""
    names = Counter(path.name for path in paths)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UsageError(
            "several of these files have the same name, and so would their results",
            details=twice,
            hint="thin them one by one, each with an --out of its own",
        )


@task(
    klass=FilesTask,
    auto_shortflags=False,
    positional=["wheels"],
    help={
        "wheels": "wheels for Windows, whoever built them",
        "sign-tool": "the command that signs one library; {} stands for its file, which otherwise "
        "comes last",
        "out": "folder for the results (default: signed)",
        "json": "print one JSON document instead; of several wheels, a list of them",
    },
)
def codesign(
    c: Context,
    wheels: list[str],
    sign_tool: str | None = None,
    out: str = "signed",
    json: bool = False,
) -> None:
    """
    Sign the libraries in wheels for Windows with your own certificate.

    Smart App Control and the rules of many companies let only signed libraries load. Your tool is
    called for each library (.pyd, .dll, .exe) that has no signature yet; a tool that changes more
    than the signature is refused. The wheels keep their names. Sign last: thinning and stitching
    remove signatures.

      invoke codesign dist/*.whl --sign-tool "signtool sign /fd sha256 /n MyCompany"
      invoke codesign W.whl --sign-tool "my-signer --in-place {}" --out signed
    """
    with reported():
        from ..edit.codesign import codesign as sign_libraries
        from .results import Add, report_each, show_edited

        tool = command_of("--sign-tool", sign_tool)
        folder = folder_of("--out", out)

        def make(path: Path, add: Add) -> None:
            add(sign_libraries(path, tool, folder).to_json())

        report_each(files_of(wheels), make, show_edited, as_json=json)


@task(
    auto_shortflags=False,
    positional=["one", "other"],
    help={
        "one": "a wheel",
        "other": "the wheel to compare it with",
        "mangled": MANGLED,
        "json": "print one JSON document instead of the report",
    },
)
def compare(c: Context, one: str, other: str, mangled: bool = False, json: bool = False) -> None:
    """
    Compare two wheels, from their lists of files down to a kernel's machine code.

    Whoever built them. Says at which level they differ first, and names what differs: pins, files,
    lines of text, sections and functions of a binary, units, images and kernels; or only how the
    archive was packed. The exit code is 0 where the wheels are the same, else 15. Where diffoscope
    is installed, its words on the first file that differs follow.

      invoke compare dist/demo.whl again/demo.whl
      invoke compare dist/demo.whl again/demo.whl --json
    """
    with reported(mangled):
        from ..compare.report import compare_wheels, refusal
        from .reports import show_comparison
        from .results import show_json

        comparison = compare_wheels(file_of(one), file_of(other))
        show = show_json if json else show_comparison
        show(comparison.to_json())
        if not comparison.identical:
            raise refusal(comparison)
