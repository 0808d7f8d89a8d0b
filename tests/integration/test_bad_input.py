"""What a hostile or clumsy user meets: what is wrong, where, what would be valid; nothing lost.

Each case runs `python -m invoke` as a child process. Whatever happened, there is no traceback,
nothing half-written in the folder for wheels, no process left, and the store is sound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from fatwheel.storage.store import Store

from .conftest import ROOT, SAMPLE, Outcome, Workbench

pytestmark = pytest.mark.slow

TINY = "fatwheel-tiny"  # the project that is built here: plain setuptools, no torch
LIMIT = 300  # seconds: longer than any of these builds
# A wheel, and what lies beside it.
FINISHED = re.compile(
    r".+\.whl(|\.provenance\.json|\.lock\.json|\.intoto\.jsonl|\.requirements\.txt)|pylock\..+\.toml"
)

SETUP = """\
import os
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NVCC = [os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc"), "-Xcompiler", "-fPIC"]
SHORT = ["-D__CUDA_RUNTIME_H__", "-Xcompiler", "-D__COMMON_FUNCTIONS_H__"]


class Build(build_ext):
    def build_extension(self, ext):
        objects = []
        for source in ext.sources:
            objects.append(Path(self.build_temp, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            short = SHORT if "short.h" in Path(source).read_text() else []
            subprocess.check_call([*NVCC, *short, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        # What a Python module must offer; nobody imports this one.
        init = "-Wl,--defsym=PyInit_fatwheel_tiny=0"
        subprocess.check_call([os.environ["CXX"], "-shared", init, *objects, "-o", library])


setup(
    name="fatwheel-tiny",
    version="1.0",
    ext_modules=[Extension("fatwheel_tiny", sorted(str(p) for p in Path().glob("*.cu")))],
    cmdclass={"build_ext": Build},
)
"""

RECIPE = """\
project = "fatwheel-tiny"
version = "1.0"
archs = ["80"]
imports = ["fatwheel_tiny"]
memory = "200MiB"
seconds = 2

[source]
folder = "src"

[[cost]]
units = "slow*"
seconds = 1
"""


def quick(name: str) -> str:
    """A unit that compiles in less than a second."""
    return (
        '#include "short.h"\n'
        f"__global__ void {name}(float *p) {{ p[threadIdx.x] *= 2; }}\n"
        f"void launch_{name}(float *p) {{ {name}<<<1, 32>>>(p); }}\n"
    )


def slow(name: str, lines: int = 60) -> str:
    """A unit that takes the compiler some seconds."""
    body = "\n".join(f"x = x * p[{i}] + sinf(x);" for i in range(lines))
    return f"__global__ void {name}(float *p) {{ float x = *p;\n{body}\n*p = x; }}\n"


def named(text: str, project: str) -> str:
    """A recipe or setup.py of TINY as another project's."""
    for old, new in (TINY, project), (TINY.replace("-", "_"), project.replace("-", "_")):
        text = text.replace(old, new)
    return text


class Tiny:
    """A recipe folder outside of kernels/, with a space in its path.

    Builds of one project share its sources' place, each with its own files in turn: tests of
    another module, which may run at the same time, name another project.
    """

    def __init__(self, folder: Path, *units: str, project: str = TINY) -> None:
        self.folder = folder
        self.project = project
        self.src = folder / "src"
        self.src.mkdir(parents=True)
        (folder / "recipe.toml").write_text(named(RECIPE, project))
        shutil.copy(ROOT / SAMPLE / "src" / "csrc" / "short.h", self.src)
        self.setup(SETUP)
        for unit in units:
            self.unit(unit, slow(unit) if unit.startswith("slow") else quick(unit))

    def unit(self, name: str, text: str) -> None:
        (self.src / f"{name}.cu").write_text(text)

    def setup(self, text: str) -> None:
        (self.src / "setup.py").write_text(named(text, self.project))

    def __str__(self) -> str:
        return str(self.folder)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path / "my kernels" / "tiny", "alpha", "beta")


@pytest.fixture
def build(bench: Workbench) -> Iterator[Callable[..., Outcome]]:
    """Builds in a bench of its own, then looks at what must hold whatever happened."""

    def run(kernel: object, *arguments: str, **variables: str) -> Outcome:
        outcome = bench.build(*arguments, kernel=str(kernel), **variables)
        assert_civil(outcome)
        return outcome

    yield run
    assert_nothing_left(bench)


def assert_civil(outcome: Outcome) -> None:
    """A message or a result, but no traceback."""
    assert "Traceback" not in outcome.err, outcome.err
    assert "Exception ignored" not in outcome.err, outcome.err
    if outcome.code:
        assert outcome.out == "", f"a result although it failed: {outcome.out}"


def assert_nothing_left(bench: Workbench) -> None:
    """Nothing half-written, no process, no work folder; a sound store."""
    strays = [path for path in bench.out.rglob("*") if not FINISHED.fullmatch(path.name)]
    assert strays == [], f"left in the folder for wheels: {strays}"
    assert processes_of(bench) == [], "processes that outlived the build"
    left = [path for path in (bench.cache / "work").glob("*") if path.is_dir()]
    assert left == [], "a work folder was left"
    assert Store(bench.store, 1 << 40).check() == [], "the store was left damaged"


def processes_of(bench: Workbench) -> list[str]:
    """Command lines of the processes that work in this bench's cache."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), process.cwd(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(bench.cache) in word for word in words):
                found.append(" ".join(process.cmdline()))
    return found


def assert_says(outcome: Outcome, code: int, *words: str) -> None:
    """Ended with this code, and the message has all these words."""
    assert outcome.code == code, f"ended with {outcome.code}, not {code}:\n{outcome.err}"
    block = message_of(outcome)
    for word in words:
        assert word in block, f"{word!r} is not said in:\n{block}"
    assert outcome.wheels == (), "a wheel although the build failed"


def message_of(outcome: Outcome) -> str:
    """The block at the end that says what is wrong."""
    places = [found.start() for found in re.finditer("^error: ", outcome.err, re.MULTILINE)]
    assert places, f"no message:\n{outcome.err}"
    return outcome.err[places[-1] :]


def counts(outcome: Outcome) -> tuple[int, int]:
    """Slices that came from the store, and that were compiled, as the final table says."""
    outcome.wheel()
    found = re.search(r"(\d+) from the store, (\d+) compiled", outcome.out)
    assert found, outcome.out
    return int(found[1]), int(found[2])


# -- what is asked for ---------------------------------------------------------------------------


ASKED_FOR = [
    (["--arch", "85"], ["--arch 85", "'85'", "nvcc does not know", "knows: 75, 80, 86"]),
    (["--arch", "80+px"], ["'80+px' is not an architecture", "80+ptx"]),
    (["--arch", ""], ["no architecture given", "--arch", "knows: 75"]),
    (["--arch", "85,foo,80,80"], ["'85'", "'foo'", "a second time"]),
    (["--kernel", "self-test"], ["unknown kernel 'self-test'", "did you mean 'selftest'"]),
    (["--kernel", ""], ["unknown kernel ''", "selftest"]),
    (["--kernel", "no/such"], ["no such recipe", "no/such", "recipe.toml", "selftest"]),
    (["--toolchain", "../x"], ["unknown toolchain '../x'", "linux-cuda13.0"]),
    (["--python", "3.11,3.11,4"], ["3.11 is named twice", "--python 3.11,3.11,4"]),
    (["--python", "3.11,4"], ["Python 4 is not known", "3.11", "nearest", "invoke toolchains"]),
    (["--cuda", "12.5,nonsense"], ["CUDA 12.5 is not known", "12.4.1", "nearest: --cuda 12."]),
    (["--cuda", "12.6", "--arch", "89,120"], ["'120' is an architecture", "CUDA 13", "12.8"]),
    (["--torch", "2.5.0"], ["--torch 2.5.0", "2.11.0"]),
    (["--engine", "ssh"], ["'ssh' is not a valid choice", "--engine", "process"]),
    (["--front", "fast"], ["'fast'", "--front", "auto, exact, shared"]),
]


def test_what_cannot_be_is_refused_with_what_could(bench: Workbench) -> None:
    for arguments, words in ASKED_FOR:
        kernel = [] if "--kernel" in arguments else ["--kernel", "selftest"]
        outcome = bench.invoke("build", "--out", str(bench.out), *kernel, *arguments)
        assert_civil(outcome)
        assert_says(outcome, 2, *words)
        assert "toolchain:" not in outcome.err, "it began to work before it looked"
    assert_nothing_left(bench)


def test_every_mistake_of_a_recipe_is_listed_with_its_line(
    build: Callable[..., Outcome], tiny: Tiny
) -> None:
    text = RECIPE.replace('"1.0"', "1.0").replace("memory", "memroy").replace('"src"', '"scr"')
    recipe = tiny.folder / "recipe.toml"
    recipe.write_text(text)
    outcome = build(tiny)
    assert_says(
        outcome, 3, "3 mistakes", str(recipe),
        "recipe.toml:2: version: must be a string",
        "recipe.toml:5: memroy: unknown key; did you mean 'memory'?",
        "recipe.toml:9: source.folder: 'scr': no such folder",
        "docs/recipes.md",
    )  # fmt: skip


def test_a_recipe_that_is_no_toml(build: Callable[..., Outcome], tiny: Tiny) -> None:
    for data in (b"project = \n", b"\0", b"[[[[", b'a = "\xed\xa0\x80"'):
        (tiny.folder / "recipe.toml").write_bytes(data)
        assert_says(build(tiny), 3, "not a TOML file", "recipe.toml:1")


def test_a_senseless_source_date_epoch(build: Callable[..., Outcome], tiny: Tiny) -> None:
    for value in ("soon", "-1", "99999999999999"):
        outcome = build(tiny, SOURCE_DATE_EPOCH=value)
        assert_says(outcome, 2, repr(value), "SOURCE_DATE_EPOCH", "valid: 0 to")


# -- what is fetched -----------------------------------------------------------------------------


@pytest.fixture
def links(bench: Workbench, tiny: Tiny, tmp_path: Path) -> Path:
    """A find-links folder with tiny's sdist; the recipe pins it; nothing was downloaded yet."""
    folder = tmp_path / "links"
    folder.mkdir()
    archive = folder / f"{TINY.replace('-', '_')}-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tiny.src, archive.name.removesuffix(".tar.gz"))
    pin(tiny, archive)
    (bench.cache / "downloads").unlink()
    return folder


def pin(tiny: Tiny, archive: Path, **other: object) -> None:
    data = archive.read_bytes()
    facts = {"sdist": archive.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**facts, **other}.items())
    (tiny.folder / "recipe.toml").write_text(RECIPE.replace('folder = "src"', lines))


def offline(links: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}


def test_a_file_that_is_not_the_pinned_one(
    build: Callable[..., Outcome], bench: Workbench, tiny: Tiny, links: Path
) -> None:
    [archive] = links.iterdir()
    pin(tiny, archive, sha256="0" * 64)
    outcome = build(tiny, **offline(links))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert_says(outcome, 5, archive.name, "pinned", archive.as_uri(), "0" * 64, digest)
    kept = [path for path in (bench.cache / "downloads").rglob("*") if path.is_file()]
    assert kept == [], "the wrong file was kept"
    pin(tiny, archive)
    assert counts(build(tiny, **offline(links))) == (0, 2), "the right file does not build"


def test_a_pin_that_is_gone_is_taken_from_wherever_it_is(
    build: Callable[..., Outcome], tiny: Tiny, links: Path, tmp_path: Path
) -> None:
    [archive] = links.iterdir()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    backups = tmp_path / "backups"
    (backups / "2019").mkdir(parents=True)
    archive.rename(backups / "2019" / "who knows.bin")
    gone = build(tiny, **offline(links))
    assert_says(gone, 4, archive.name, f"{TINY} 1.0", digest, str(links), "--find FOLDER")
    nowhere = build(tiny, "--find", str(tmp_path / "nowhere"), **offline(links))
    assert_says(nowhere, 2, "--find", str(tmp_path / "nowhere"))
    in_vain = build(tiny, "--find", str(links), **offline(links))
    assert_says(in_vain, 4, archive.name, digest)
    assert counts(build(tiny, "--find", str(backups), **offline(links))) == (0, 2)


def test_no_network(build: Callable[..., Outcome], tiny: Tiny, links: Path, tmp_path: Path) -> None:
    [archive] = links.iterdir()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_says(build(tiny, **offline(empty)), 4, archive.name, str(empty), "pip config list")
    closed = {**offline(empty), "PIP_INDEX_URL": "http://me:secret@127.0.0.1:9/simple"}
    del closed["PIP_NO_INDEX"]
    outcome = build(tiny, **closed, PIP_RETRIES="0", PIP_NO_INDEX="0")
    assert_says(outcome, 4, archive.name, "127.0.0.1:9", "refused", "check the network")
    assert "secret" not in outcome.err


def test_a_damaged_sdist(build: Callable[..., Outcome], tiny: Tiny, links: Path) -> None:
    [archive] = links.iterdir()
    archive.write_bytes(archive.read_bytes()[:200])
    pin(tiny, archive)
    assert_says(build(tiny, **offline(links)), 11, "not a readable sdist", archive.name)


# -- what is installed ---------------------------------------------------------------------------


def test_no_compiler(build: Callable[..., Outcome], tiny: Tiny, tmp_path: Path) -> None:
    install = ["no C++ compiler", "g++ 9 to 15", "apt install g++", "CXX="]
    assert_says(build(tiny, PATH=str(tmp_path), CXX=""), 6, "no g++ or c++ on PATH", install[1])
    assert_says(build(tiny, CXX="nonsense"), 6, install[0], "nonsense: no such", *install[1:])
    assert_says(build(tiny, CXX=shutil.which("ls") or ""), 6, "ls: is not g++", *install[1:])


UNFIT = [
    ("#!/bin/sh\necho 'gcc version 8.5.0 (Old)' >&2\n", "g++ 8.5.0, but 9 to 15 is needed"),
    ("#!/bin/sh\necho 'gcc version 16.1.0' >&2\n", "g++ 16.1.0, but 9 to 15 is needed"),
    ("#!/bin/sh\nprintf 'gcc version \\377\\376'\n", "is not g++"),
    ("#!/bin/sh\necho 'gcc version 12.2.0' >&2\n", "cc1plus is missing"),
    ("not a program", "is not g++"),
    ("#!/no/such/shell\n", "is not g++"),
]


def test_unfit_compilers(build: Callable[..., Outcome], tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "g++"
    for script, words in UNFIT:
        path.write_text(script)
        path.chmod(0o755)
        assert_says(build(tiny, CXX=str(path)), 6, f"CXX={path}", words, "g++ 9 to 15")


# -- what upstream does --------------------------------------------------------------------------


UPSTREAM = [
    ("raise RuntimeError('no frobnicator')", ["exit code 1", "RuntimeError: no frobnicator"]),
    ("import nonsense_module", ["No module named 'nonsense_module'"]),
    ("import os; os._exit(0)", ["without making a wheel"]),
    ("import os; os.kill(os.getpid(), 11)", ["SIGSEGV"]),
    ("def (", ["SyntaxError"]),
    (
        "from setuptools import setup; setup(name='fatwheel-tiny', version='1.0')",
        ["no CUDA unit", "[environment]"],
    ),
    (SETUP.replace('"-fPIC"]', '"-fPIC", "-dlto"]'), ["alpha: -dlto", "beta", "link-time"]),
]


def test_upstreams_own_build_fails(build: Callable[..., Outcome], tiny: Tiny) -> None:
    for setup, words in UPSTREAM:
        tiny.setup(setup)
        assert_says(build(tiny), 7, "fatwheel-tiny-1.0", *words)


def test_a_unit_that_does_not_compile(build: Callable[..., Outcome], tiny: Tiny) -> None:
    tiny.unit("beta", quick("beta") + "int oops = nonsense;\n")
    outcome = build(tiny, "--arch", "80")
    assert_says(outcome, 8, "nvcc failed", "beta [sm_80]", "beta.cu(4)", '"nonsense" is undefined')
    assert "alpha [sm_80]" in outcome.err, "the other unit was not compiled"

    [command] = re.findall(r"cd .*nvcc.*", outcome.err[outcome.err.rindex("error: nvcc") :])
    again = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env={
        name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
    })  # fmt: skip
    said = again.stdout + again.stderr
    assert again.returncode != 0, f"pasted into a shell it succeeds: {command}"
    assert 'identifier "nonsense" is undefined' in said, f"another failure: {said}\n{command}"

    tiny.unit("beta", quick("beta"))
    assert counts(build(tiny, "--arch", "80")) == (1, 1), "more than beta was compiled"


def test_several_units_that_do_not_compile(build: Callable[..., Outcome], tiny: Tiny) -> None:
    for name in ("beta", "gamma"):
        tiny.unit(name, f"#error {name} is not ready\n")
    outcome = build(tiny, "--arch", "80")
    assert_says(outcome, 8, "2 of 3 jobs failed", "beta is not", "gamma is not", "jobs are kept")
    for name in ("beta", "gamma"):
        assert f"{name} [sm_80]" in outcome.err
    assert outcome.err.count("beta is not ready") <= 2, "the same words again and again"


# -- what the disk does --------------------------------------------------------------------------


@pytest.fixture
def powerless(tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make children obey permissions, though the tests may be run by root."""
    if os.getuid() == 0:
        less = "-dac_override,-dac_read_search"
        prefix = [tool("setpriv"), f"--bounding-set={less}", f"--inh-caps={less}"]
        plain = Workbench.command
        monkeypatch.setattr(
            Workbench, "command", lambda self, *arguments: [*prefix, *plain(self, *arguments)]
        )


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.usefixtures("powerless")
def test_folders_that_may_not_be_written(
    build: Callable[..., Outcome], bench: Workbench, tiny: Tiny
) -> None:
    refused = ["Permission denied", str(bench.out), "--out"]
    with read_only(bench.out):
        outcome = build(tiny)
        assert_says(outcome, 10, *refused)
        assert "toolchain:" not in outcome.err, "it began to work before it looked at --out"
    with read_only(bench.cache):
        assert_says(build(tiny), 10, str(bench.cache), "FATWHEEL_CACHE")
    with read_only(bench.cache / "work"):
        assert_says(build(tiny), 10, "Permission denied", "work", "FATWHEEL_CACHE")
    with read_only(bench.store):
        assert_says(build(tiny), 10, "Permission denied", str(bench.store), "FATWHEEL_CACHE")
    build(tiny).wheel()
    bench.wheels()[0].unlink()
    with read_only(bench.out):
        assert_says(build(tiny), 10, *refused)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in `folder`; only root can do that."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize(
    ("place", "size", "words"),
    [
        ("store", "16k", ["No space left", "store", "FATWHEEL_CACHE"]),
        ("work", "16k", ["No space left"]),
        ("work", "400k", ["No space left"]),
        ("out", "4k", ["No space left", "--out"]),
    ],
)
def test_a_full_disk(
    build: Callable[..., Outcome],
    bench: Workbench,
    tiny: Tiny,
    place: str,
    size: str,
    words: list[str],
) -> None:
    folder = bench.out if place == "out" else bench.cache / place
    with small_disk(folder, size):
        outcome = build(tiny, "--arch", "80")
        assert_says(outcome, 10, *words)
        if place == "out":
            assert list(folder.iterdir()) == [], "half a wheel"
            assert_says(build(tiny, "--arch", "80"), 10, *words)
    found, compiled = counts(build(tiny, "--arch", "80"))
    assert found + compiled == 2
    if place == "out":
        assert compiled == 0, "what was compiled before the disk was full is gone"


# -- what happens meanwhile ----------------------------------------------------------------------


class Running:
    """A build that is still going on."""

    def __init__(self, bench: Workbench, kernel: Tiny, *arguments: str) -> None:
        self.bench = bench
        self._err: list[str] = []
        options = ["--kernel", str(kernel), "--out", str(bench.out), "--front", "exact", *arguments]
        self.process = subprocess.Popen(
            bench.command("build", *options), cwd=ROOT, env=bench.variables(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._err += iter(self.process.stderr.readline, "")

    def wait_for(self, what: str, happened: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT
        while not happened():
            assert self.process.poll() is None, f"it ended before {what}:\n{''.join(self._err)}"
            assert time.monotonic() < end, f"waited in vain for {what}:\n{''.join(self._err)}"
            time.sleep(0.01)

    def said(self, words: str) -> bool:
        return any(words in line for line in self._err)

    def children(self, *names: str) -> list[psutil.Process]:
        """Descendants that are programs of these names."""
        found = []
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name() in names and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if "fatwheel.worker.shard" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def end(self) -> Outcome:
        code = self.process.wait(LIMIT)
        self._reader.join()
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            outcome = Outcome(code, stream.read(), "".join(self._err), self.bench.wheels())
        assert self.process.stderr is not None
        self.process.stderr.close()
        assert_civil(outcome)
        return outcome


@pytest.fixture
def start(bench: Workbench) -> Iterator[Callable[..., Running]]:
    """Starts builds; ends them whatever the test does, and looks at what they left."""
    started: list[Running] = []

    def run(kernel: Tiny, *arguments: str) -> Running:
        started.append(Running(bench, kernel, *arguments))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
    assert_nothing_left(bench)


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_ctrl_c_while_compiling(
    start: Callable[..., Running], build: Callable[..., Outcome], tiny: Tiny
) -> None:
    tiny.unit("slow", slow("slow"))
    running = start(tiny, "--arch", "80", "--jobs", "1")
    running.wait_for(
        "the last compiler", lambda: running.said("[2/3]") and running.children("cicc")
    )
    os.killpg(running.process.pid, signal.SIGINT)
    outcome = running.end()
    assert outcome.code == 130, outcome.err
    assert "[3/3]" not in outcome.err, "the compiler was waited for"
    assert outcome.err.splitlines()[-1] == "interrupted; what was finished is kept"
    assert processes_of(running.bench) == [], "processes that outlived the build"
    tiny.unit("slow", quick("slow"))
    assert counts(build(tiny, "--arch", "80")) == (2, 1), "finished slices were not kept"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_ctrl_c_while_upstream_builds(
    start: Callable[..., Running], tiny: Tiny, number: signal.Signals, code: int
) -> None:
    """A terminal's Ctrl-C reaches all processes, other signals the first alone."""
    tiny.setup("import subprocess\nsubprocess.call(['sleep', '1000'])\n")
    running = start(tiny)
    running.wait_for("upstream's build", lambda: running.children("sleep"))
    if number == signal.SIGINT:
        os.killpg(running.process.pid, number)
    else:
        running.process.send_signal(number)
    outcome = running.end()
    assert outcome.code == code, outcome.err
    assert processes_of(running.bench) == [], "processes that outlived the build"


def test_a_job_killed_for_memory_runs_again_alone(
    start: Callable[..., Running], tiny: Tiny
) -> None:
    running = start(tiny, "--arch", "80", "--jobs", "2")
    running.wait_for("a compiler", lambda: running.children("cicc"))
    kill(running.children("cicc")[:1])
    outcome = running.end()
    assert "killed for memory" in outcome.err
    assert "it will run again, alone" in outcome.err
    assert counts(outcome) == (0, 2)


def test_a_job_killed_for_memory_whenever_it_runs(
    start: Callable[..., Running], build: Callable[..., Outcome], tiny: Tiny
) -> None:
    running = start(tiny, "--arch", "80", "--jobs", "2")
    while running.process.poll() is None:
        kill(running.children("cicc"))
        time.sleep(0.01)
    assert_says(running.end(), 9, "failed even when run alone", "MiB", "more memory")
    assert sum(counts(build(tiny, "--arch", "80"))) == 2


def test_a_worker_that_is_killed(start: Callable[..., Running], tiny: Tiny) -> None:
    tiny.unit("slow", slow("slow"))
    running = start(tiny, "--arch", "80", "--jobs", "3")
    running.wait_for("a compiler", lambda: running.children("cicc"))
    kill(running.workers())
    outcome = running.end()
    assert "its worker was lost" in outcome.err
    assert sum(counts(outcome)) == 3


def test_a_build_that_is_killed_leaves_no_process(
    start: Callable[..., Running], build: Callable[..., Outcome], tiny: Tiny
) -> None:
    tiny.unit("slow", slow("slow"))
    running = start(tiny, "--arch", "80", "--jobs", "1")
    running.wait_for(
        "the last compiler", lambda: running.said("[2/3]") and running.children("cicc")
    )
    running.process.kill()
    running.process.wait()
    end = time.monotonic() + LIMIT
    while processes_of(running.bench) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(running.bench) == [], "processes that outlived the build"
    tiny.unit("slow", quick("slow"))
    assert counts(build(tiny, "--arch", "80")) == (2, 1), "finished slices were not kept"


# -- odd surroundings ----------------------------------------------------------------------------


def test_odd_surroundings(bench: Workbench, tiny: Tiny, tmp_path: Path) -> None:
    """No HOME, no locale, a narrow dumb terminal, a strict umask, links and spaces in paths."""
    link = tmp_path / "the repo"
    link.symlink_to(ROOT)
    out = tmp_path / "my wheels"
    variables = bench.variables(COLUMNS="40", TERM="dumb", LANG="de_DE", LC_ALL="de_DE")
    del variables["HOME"], variables["CI"]
    kernel = os.path.relpath(tiny.folder, ROOT / "tests" / "unit")
    options = ["--kernel", f"{kernel}/", "--arch", "80", "--front", "exact", "--out", f"{out}/"]
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *bench.command("build", *options)],
        cwd=link / "tests" / "unit", env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [wheel] = out.glob("*.whl")
    assert str(wheel) in done.stdout.replace("\n", ""), "the wheel's path is cut"
    assert "\x1b" not in done.stdout + done.stderr
    plain = bench.build("--arch", "80", kernel=str(tiny))
    assert plain.wheel().read_bytes() == wheel.read_bytes(), "surroundings change the wheel"
    assert_nothing_left(bench)
