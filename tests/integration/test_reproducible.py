"""The same wheel, byte for byte, whatever is another than usual: everything at once with the
sample, from nothing. test_reproducible_engines has selftest, built where much is another.

With --all everything at once with selftest and with a real project too, and one thing at a time,
so that a failure names its cause.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.worker.roots import VIEW_ROOT

from . import elsewhere
from . import neighbour as neighbours
from .conftest import ROOT, SAMPLE, Outcome, Workbench
from .elsewhere import Varied
from .shortened import shortened_causal_conv1d

pytestmark = pytest.mark.slow

ARCHS = ("--arch", "80", "--python", f"{sys.version_info.major}.{sys.version_info.minor}")
Vary = Callable[[Path], Varied]
Words = tuple[str, ...]
each_kernel = pytest.mark.parametrize("kernel", [SAMPLE, "selftest"], ids=["sample", "selftest"])
AS_ANYBODY: tuple[Vary, ...] = (
    elsewhere.another_folder,
    elsewhere.another_umask,
    elsewhere.another_time_zone,
    elsewhere.another_language,
    elsewhere.another_home,
    elsewhere.variables_for_compilers,
    elsewhere.one_job,
    elsewhere.three_shards,
    elsewhere.one_core,
)
AS_ROOT: tuple[Vary, ...] = (
    elsewhere.another_host,
    elsewhere.shuffled_folders,
    elsewhere.another_time,
    elsewhere.another_user,
)


@dataclass(frozen=True)
class Reference:
    """A wheel that was built as usual, and what that left in the store."""

    bench: Workbench
    wheel: Path


References = Callable[[str], Reference]


@pytest.fixture(scope="module")
def references(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> References:
    """The wheel of a kernel for ARCHS."""

    @cache
    def reference(kernel: str) -> Reference:
        built, _ = request.getfixturevalue("sample" if kernel == SAMPLE else "selftest")
        bench = Workbench(tmp_path_factory.mktemp("reference"), built.store)
        return Reference(bench, bench.build(*ARCHS, kernel=kernel).wheel())

    return reference


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users find, too."""
    made = elsewhere.folder_for_all()
    yield made
    shutil.rmtree(made)


def build(
    varied: Varied, *, store: Path | None = None, kernel: str = SAMPLE, archs: Words = ARCHS
) -> Outcome:
    """Build where things are as `varied` says."""
    bench = Workbench(varied.parent / varied.folder, store)
    bench.forget_wheels()
    if varied.owner is not None:
        _give(bench.cache.parent, varied.owner)
    command = [
        *varied.prefix, *bench.command("build", "--kernel", kernel, "--front", "exact"),
        *archs, "--out", str(bench.out), *varied.arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=varied.root, env=bench.variables(**varied.variables), umask=varied.umask,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr, bench.wheels())


def assert_same(made: Path, reference: Path) -> None:
    """One sha256, or a message that says what differs first."""
    assert made.name == reference.name
    if digest(made) == digest(reference):
        return
    told = "\n".join(differences(made, reference)) or "the same files, packed in another way"
    raise AssertionError(f"{made.name} is another wheel:\n{told}")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(one: Path, other: Path) -> Iterator[str]:
    with zipfile.ZipFile(one) as mine, zipfile.ZipFile(other) as its:
        names, others = mine.namelist(), its.namelist()
        if names != others:
            yield f"other files: {sorted(set(names) ^ set(others)) or 'in another order'}"
        for name in sorted(set(names) & set(others)):
            data, wanted = mine.read(name), its.read(name)
            if data != wanted:
                yield f"{name}: {', '.join(_sections_that_differ(data, wanted)) or 'its bytes'}"


def _sections_that_differ(one: bytes, other: bytes) -> Iterator[str]:
    """Names of sections, by pyelftools; none where the files are no ELF files."""
    import io

    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        mine, its = (ELFFile(io.BytesIO(data)) for data in (one, other))
    except ELFError:
        return
    wanted = {section.name: section.data() for section in its.iter_sections()}
    for section in mine.iter_sections():
        if wanted.get(section.name) != section.data():
            yield section.name


def _give(folder: Path, owner: int) -> None:
    os.chown(folder, owner, owner, follow_symlinks=False)
    for path in folder.rglob("*"):
        os.chown(path, owner, owner, follow_symlinks=False)


# -- one thing at a time -------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("vary", AS_ANYBODY, ids=lambda vary: vary.__name__)
@each_kernel
def test_one_thing_is_another(
    vary: Vary, kernel: str, references: References, folder: Path
) -> None:
    assert_same(build(vary(folder), kernel=kernel).wheel(), references(kernel).wheel)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="needs name spaces that root alone may make")
@pytest.mark.parametrize("vary", AS_ROOT, ids=lambda vary: vary.__name__)
@each_kernel
def test_one_thing_is_another_for_the_whole_system(
    vary: Vary, kernel: str, references: References, folder: Path
) -> None:
    assert_same(build(vary(folder), kernel=kernel).wheel(), references(kernel).wheel)


def test_nothing_is_compiled_and_the_hashes_of_python_are_others(
    references: References, folder: Path
) -> None:
    reference = references(SAMPLE)
    made = build(elsewhere.another_hash_seed(folder), store=reference.bench.store)
    assert_same(made.wheel(), reference.wheel)
    assert "compile: " not in made.err, made.err


# -- against a neighbour -------------------------------------------------------------------------


def found_out(folder: Path) -> dict[str, Any]:
    """What the neighbour could do; it had time for it."""
    found: dict[str, Any] = json.loads(elsewhere.report_of(folder).read_bytes())
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs name spaces that root alone may make")
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_neighbour_changes_reads_and_holds_nothing(
    first: bool, references: References, folder: Path
) -> None:
    """Whoever had /tmp/fatwheel first; it is renamed all the time where that is the neighbour."""
    made = build(elsewhere.hostile_neighbour(folder, first))
    assert_same(made.wheel(), references(SAMPLE).wheel)
    found = found_out(folder)
    assert (found["moved"] > 0) is first, "the attack was another one"
    assert found["read"] == []
    assert found["held"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs name spaces that root alone may make")
def test_without_namespaces_a_build_says_that_its_bytes_will_differ(folder: Path) -> None:
    mount = folder / "forbidden" / "mount"
    mount.parent.mkdir()
    mount.write_text('#!/bin/sh\necho "mount: permission denied" >&2; exit 32\n')
    mount.chmod(0o755)
    neighbour = elsewhere.hostile_neighbour(folder, first=True)
    # The neighbour's own prefix mounts, too.
    path = ("env", f"PATH={mount.parent}:{os.environ['PATH']}")
    made = build(replace(neighbour, prefix=(*neighbour.prefix, *path)))
    assert "will differ from one made elsewhere" in " ".join(made.err.split())
    with zipfile.ZipFile(made.wheel()) as archive:
        for name in archive.namelist():
            assert neighbours.MARK.encode() not in archive.read(name), name
    found = found_out(folder)
    assert found["moved"] > 0
    assert found["read"] == []
    assert found["held"] == []


# -- everything at once --------------------------------------------------------------------------


def everything(folder: Path) -> Varied:
    """Everything that can be varied here."""
    varied = [vary(folder) for vary in AS_ANYBODY if vary is not elsewhere.one_core]
    if os.geteuid() == 0:
        varied += [vary(_made(folder / vary.__name__)) for vary in AS_ROOT]
    varied.append(elsewhere.another_hash_seed(folder))
    return Varied(folder).together(varied)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "kernel",
    [SAMPLE, pytest.param("selftest", marks=pytest.mark.long)],
    ids=["sample", "selftest"],
)
def test_everything_is_another_and_the_store_is_empty(
    kernel: str, references: References, folder: Path
) -> None:
    made = build(everything(folder), kernel=kernel)
    assert_same(made.wheel(), references(kernel).wheel)


@pytest.mark.long
@pytest.mark.parametrize("whole", [False, True], ids=["quick", "all"])
def test_causal_conv1d(whole: bool, environment: Environment, folder: Path) -> None:
    """Twice from nothing, side by side."""
    kernel = "causal-conv1d" if whole else str(shortened_causal_conv1d(folder / "project"))
    usual = replace(Varied(folder, "usual"), arguments=("--jobs", "2"))
    with ThreadPoolExecutor(2) as pool:
        started = [
            pool.submit(build, varied, kernel=kernel)
            for varied in (usual, everything(_made(folder / "else")))
        ]
        one, other = (build_.result().wheel() for build_ in started)
    assert_same(other, one)
    assert foreign_strings(one, folder) == []


# -- nothing that is said to vary stays the same ------------------------------------------------

FACTS = """
import json, os, socket, time
print(json.dumps([os.listdir({folder!r}), time.time(), socket.gethostname(), os.getuid()]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs name spaces that root alone may make")
def test_the_variations_vary(folder: Path) -> None:
    """All at once, and without any variable."""
    files = _made(folder / "files")
    for name in "abcdefgh":
        (files / name).touch()
    shown, clock, host, user = json.loads(said(everything(folder), FACTS.format(folder=str(files))))
    assert sorted(shown) == list("abcdefgh")
    assert shown != os.listdir(files), "the same order"
    assert abs(time.time() - clock - elsewhere.YEARS * 365 * 86400) < 60
    assert (host, user) == ("somewhere.example", elsewhere.OTHER_USER)


def said(varied: Varied, code: str) -> str:
    """What Python code prints, in an environment without variables."""
    done = subprocess.run(
        [*varied.prefix, sys.executable, "-I", "-c", code], env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- no paths -------------------------------------------------------------------------------------


def foreign_strings(wheel: Path, *folders: Path) -> list[str]:
    """Where a wheel names a folder of this machine: what no file of it may do.

    The one exception: line tables that -lineinfo writes into cubins name the fixed places of the
    sources and of the environment, which are the same on every machine.
    """
    fixed = {Path("/proc/self/cwd"), VIEW_ROOT}
    places = {
        *folders, *fixed, Path.home(), cache_folder(), ROOT, Path(sys.base_prefix),
        Path(sys.prefix),
    } - {Path("/usr"), Path("/"), Path("/usr/local")}  # fmt: skip
    found = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            for place in sorted(places):
                within = _places_of(data, str(place).encode())
                allowed = _device_code(data) if place in fixed else range(0)
                found += [f"{name}: {place}" for at in within if at not in allowed][:1]
    return found


def _places_of(data: bytes, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)


def _device_code(data: bytes) -> range:
    """Where a library's .nv_fatbin is, by pyelftools."""
    import io

    from elftools.elf.elffile import ELFFile

    if not data.startswith(b"\x7fELF"):
        return range(0)
    section = ELFFile(io.BytesIO(data)).get_section_by_name(".nv_fatbin")
    if section is None:
        return range(0)
    return range(section["sh_offset"], section["sh_offset"] + section["sh_size"])


def test_no_file_names_a_folder_of_this_machine(selftest: tuple[Workbench, Outcome]) -> None:
    bench, outcome = selftest
    assert foreign_strings(outcome.wheel(), bench.cache, bench.out) == []
    with zipfile.ZipFile(outcome.wheel()) as archive:
        [name] = [name for name in archive.namelist() if "_cases" in name]
        data = archive.read(name)
    assert b"/tmp/fatwheel" not in data, "without -lineinfo device code names no folder either"
    assert b"fatwheel-selftest-1.0.0/csrc/binding.cpp" in data, "the names that it has instead"
    assert b"site/torch/include/" in data
