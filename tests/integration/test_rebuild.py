"""`invoke rebuild`, and `invoke build --locked`: a wheel made again of nothing but what its own
lock lists; what is changed in it, what is missing or another here, and what cannot be rebuilt.

Most of it is done with a project of two small units in a copy of this checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.pinned import Package
from fatwheel.model import Environment
from fatwheel.provenance.lock import BuildLock, lock_bytes, read_lock
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes
from fatwheel.wheels.archive import open_wheel
from fatwheel.wheels.name import WheelName, parse_wheel_name
from fatwheel.wheels.pack import Closing, NewFile, nothing_else, plain_file, rewrite_wheel

from ..conftest import TOOLCHAIN, missing
from ..helpers.preloaded import run_command
from ..helpers.tinywheels import Draft
from .conftest import ROOT, Contained, Outcome, Workbench
from .test_bad_input import RECIPE, Tiny, assert_civil, message_of, named

pytestmark = pytest.mark.slow

KERNEL = "small"
PROJECT = "fatwheel-small"
ARCHS = "80,86"
LOCK, RECORD, SBOM, STATEMENT = (
    "fatwheel.lock.json", "fatwheel.json", "sboms/fatwheel.cdx.json", "fatwheel.provenance.json",
)  # fmt: skip
# Another ninja than the toolchain's: it does not matter to the small project, which has no use for
# one, but must be in the environment.
OTHER_NINJA = "1.11.1.4"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}


# -- a copy of this checkout ---------------------------------------------------------------------


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, and the cache of whoever works in it."""

    folder: Path
    bench: Workbench

    def invoke(self, *arguments: str, **variables: str) -> Outcome:
        """Run invoke in it to its end."""
        command, folder = self.bench.command(*arguments), self.folder
        done = run_command(command, folder, self.bench.variables(**variables), code=folder)
        outcome = Outcome(done.returncode, done.stdout, done.stderr, self.bench.wheels())
        assert "Traceback" not in outcome.err, outcome.err
        return outcome

    def build(self, out: Path, *arguments: str, **variables: str) -> Outcome:
        """`invoke build` of the small project, into a folder."""
        options = ["--kernel", KERNEL, "--front", "exact", "--out", str(out), "--yes"]
        return self.invoke("build", *options, *arguments, **variables)

    def rebuild(self, wheel: Path, out: Path, *arguments: str, **variables: str) -> Outcome:
        """`invoke rebuild`; what must hold however it ends."""
        words = ["--out", str(out), "--yes", *arguments]
        if "--engine" not in arguments:
            words += ["--engine", "process"]
        outcome = self.invoke("rebuild", str(wheel), *words, **variables)
        left = [path for path in (self.bench.cache / "work").glob("*") if path.is_dir()]
        assert left == [], "a work folder was left"
        assert out.exists() == (outcome.code == 15), "kept if it is another wheel, and only then"
        return outcome

    def report(self, wheel: Path, out: Path, *arguments: str, **variables: str) -> Any:
        """What `invoke rebuild --json` prints of a wheel that can be built again."""
        outcome = self.rebuild(wheel, out, "--json", *arguments, **variables)
        assert outcome.code in (0, 15), f"ended with {outcome.code}:\n{outcome.err}"
        report = json.loads(outcome.out)
        assert report["identical"] == (outcome.code == 0)
        return report


def copied(folder: Path, git: str) -> Path:
    """The files of this checkout that belong to it, with what is not committed yet."""
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        missing(f"not a git checkout: {listing.stderr.strip()}")
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted, but not committed so
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def small(
    environment: Environment, tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, Path]:
    """A checkout with one more recipe, and the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("small")
    checkout = Checkout(copied(folder / "checkout", tool("git")), Workbench(folder / "bench"))
    Tiny(checkout.folder / "kernels" / KERNEL, "alpha", "beta", project=PROJECT)
    outcome = checkout.build(checkout.bench.out, "--arch", ARCHS)
    assert outcome.code == 0, outcome.err
    [wheel] = checkout.bench.wheels()
    return checkout, wheel


@contextmanager
def replaced(path: Path, old: str, new: str) -> Iterator[None]:
    """Other text in a file while the block lasts."""
    before = path.read_text()
    assert before.count(old) >= 1, f"{old!r} is not in {path}"
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)


# -- changed wheels ------------------------------------------------------------------------------


def rewritten(
    wheel: Path,
    folder: Path,
    contents: Mapping[str, bytes],
    *,
    dropped: Collection[str] = (),
    closing: Closing | None = None,
) -> Path:
    """The wheel with these contents of files; RECORD is right. Names in the dist-info folder have
    a dot and a slash before them. closing: what makes the statement; else it stays as it is."""
    name, statement = parse_wheel_name(wheel.name), f"./{STATEMENT}"
    if closing is None and statement not in dropped:
        kept = plain_file(_at(name, statement), contents_of(wheel, statement))
        closing = partial(_always, [kept])
    with open_wheel(wheel) as opened:
        return rewrite_wheel(
            opened,
            name,
            {_at(name, file): [data] for file, data in contents.items()},
            folder,
            lock_in(wheel).recipe.epoch,
            closing or nothing_else,
            {_at(name, file) for file in (statement, *dropped)},
        )


def _always(files: list[NewFile], digests: Mapping[str, str]) -> list[NewFile]:
    return files


def _at(name: WheelName, file: str) -> str:
    return f"{name.dist_info}/{file[2:]}" if file.startswith("./") else file


def contents_of(wheel: Path, file: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(_at(parse_wheel_name(wheel.name), file))


def document(wheel: Path, file: str) -> Any:
    return json.loads(contents_of(wheel, f"./{file}"))


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def lock_in(wheel: Path) -> BuildLock:
    return read_lock(contents_of(wheel, f"./{LOCK}"), LOCK, ROOT / "kernels")


def with_lock(wheel: Path, folder: Path, lock: BuildLock) -> Path:
    """The wheel as if it had been built with that lock: all that is made from it follows."""
    name, record = parse_wheel_name(wheel.name), document(wheel, RECORD)
    record["lock"] = hashlib.sha256(lock_bytes(lock)).hexdigest()

    def closing(digests: Mapping[str, str]) -> list[NewFile]:
        statement = statement_bytes(list(digests.items()), predicate_of(lock, record))
        return [plain_file(_at(name, f"./{STATEMENT}"), statement)]

    contents = {
        f"./{RECORD}": as_json(record),
        f"./{LOCK}": lock_bytes(lock),
        f"./{SBOM}": sbom_bytes(lock, record, name.project, name.version),
    }
    return rewritten(wheel, folder, contents, closing=closing)


def with_pin(lock: BuildLock, name: str, **other: Any) -> BuildLock:
    """The lock with something else in the pin of a package."""
    packages = tuple(
        replace(package, **other) if package.name == name else package
        for package in lock.toolchain.packages
    )
    assert packages != lock.toolchain.packages
    return replace(lock, toolchain=replace(lock.toolchain, packages=packages))


def test_rewriting_alone_changes_nothing(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    wheel = small[1]
    assert with_lock(wheel, tmp_path, lock_in(wheel)).read_bytes() == wheel.read_bytes()


# -- the same wheel ------------------------------------------------------------------------------


def test_again_from_nothing_in_another_checkout(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    wheel = small[1]
    shutil.copytree(small[0].folder, tmp_path / "fatwheel")
    checkout = Checkout(tmp_path / "fatwheel", Workbench(tmp_path / "other"))
    first = checkout.rebuild(wheel, tmp_path / "rebuilt")
    assert first.code == 0, first.out + first.err
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"identical: sha256 {digest}" in first.out
    assert "built again, 4 slices: 4 compiled, 0 from the store" in first.out
    assert files_of(checkout.bench.store) == set(), "what a wheel from elsewhere made was kept"
    assert not (tmp_path / "rebuilt").exists(), "the same wheel once more"


def test_from_elsewhere_nothing_runs_unasked(
    selftest: tuple[Workbench, Outcome], small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    """Neither a wheel nor a lock, and before anything is fetched; what would run is told."""
    checkout, _ = small
    wheel = selftest[1].wheel()
    lock = Path(f"{wheel}.lock.json")
    digest = lock_in(wheel).recipe.source.sha256
    for words in (["rebuild", str(wheel)], ["build", "--locked", str(lock), "--arch", "80"]):
        out = tmp_path / "out"
        outcome = checkout.invoke(*words, "--engine", "process", "--out", str(out), **OFFLINE)
        shown = ["add --yes", digest, "process: it runs as you", "not built on this machine"]
        assert_refused(outcome, 2, Path(words[1 if len(words) == 2 else 2]).name, *shown)
        assert "source" not in outcome.err.partition("error:")[0], "something was begun"
        assert not out.exists()


def test_never_from_the_store(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    before = files_of(checkout.bench.store)
    again = checkout.report(wheel, tmp_path / "out", "--from-store", "never")
    assert (again["identical"], again["slices"], again["compiled"]) == (True, 4, 4)
    assert files_of(checkout.bench.store) == before, "what was compiled went into the store"
    again = checkout.report(wheel, tmp_path / "out")
    assert (again["identical"], again["slices"], again["compiled"]) == (True, 4, 0)


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_neither_the_recipe_nor_the_toolchain_of_the_checkout_matters(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    checkout, wheel = small
    tools = checkout.folder / "toolchains" / f"{TOOLCHAIN}.toml"
    with (
        replaced(tools, '"ninja==1.13.2"', '"ninja==1.13.9"'),
        replaced(checkout.folder / "kernels" / KERNEL / "recipe.toml", '"1.0"', '"2.0"'),
    ):
        assert checkout.report(wheel, tmp_path / "out")["identical"]
        epoch = {"SOURCE_DATE_EPOCH": "1000000000"}
        assert checkout.report(wheel, tmp_path / "out", **epoch)["identical"]


def test_what_a_changed_wheel_leaves_is_not_taken_for_a_build(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    """The digests of recipe and toolchain in a lock are words, which can be kept."""
    checkout, wheel = small
    lock = lock_in(wheel)
    other = replace(lock, recipe=replace(lock.recipe, imports=("something_else",)))
    assert checkout.report(with_lock(wheel, tmp_path / "other", other), tmp_path / "x")["identical"]
    again = checkout.build(tmp_path / "again", "--arch", ARCHS)
    assert again.code == 0, again.err
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


# -- another wheel -------------------------------------------------------------------------------


def kernel_code(wheel: Path, folder: Path, readelf: str, cuda_home: Path) -> tuple[str, int]:
    """The name of the small project's library, and where the code of alpha for sm_86 is in it, as
    cuobjdump and readelf find it."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".so")]
        library = Path(archive.extract(name, folder))
    # The second of four: units are in the order of their names, images in that of architectures.
    command = [cuda_home / "bin" / "cuobjdump", "-xelf", ".2.sm_86", library]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    [cubin] = folder.glob("*.cubin")
    place = library.read_bytes().find(cubin.read_bytes())
    assert place > 0, "the cubin does not lie in the library as it is"
    listing = subprocess.run([readelf, "-SW", cubin], capture_output=True, text=True, check=True)
    row = re.search(r" \.text\._Z5alphaPf +\S+ +[0-9a-f]{16} ([0-9a-f]+) ", listing.stdout)
    assert row, listing.stdout
    return name, place + int(row[1], 16)


def test_one_byte_of_a_kernel(
    small: tuple[Checkout, Path], tmp_path: Path, tool: Callable[[str], str], cuda_home: Path
) -> None:
    checkout, wheel = small
    (tmp_path / "parts").mkdir()
    name, place = kernel_code(wheel, tmp_path / "parts", tool("readelf"), cuda_home)
    data = bytearray(contents_of(wheel, name))
    data[place + 0x20] ^= 1
    changed = rewritten(wheel, tmp_path / "changed", {name: bytes(data)})
    out = tmp_path / "rebuilt"
    outcome = checkout.rebuild(changed, out)
    assert outcome.code == 15, outcome.out + outcome.err
    for words in (
        "built again, 4 slices: 0 compiled, 4 from the store", "not the same", name,
        "section .nv_fatbin", "unit alpha", "sm_86", "kernel alpha(float*)", "SASS in 1 of",
        "the first that differs is at 0x20",
    ):  # fmt: skip
        assert words in outcome.out, f"{words!r} is not said in:\n{outcome.out}"
    for words in ("beta", "sm_80", "what differed"):
        assert words not in outcome.out.replace(wheel.name, ""), outcome.out
    assert "the rebuilt wheel differs" in message_of(outcome)
    assert str(out / wheel.name) in message_of(outcome), "where the rebuilt one is"
    assert (out / wheel.name).read_bytes() == wheel.read_bytes(), "it is the wheel as it was built"
    assert [path.name for path in out.iterdir()] == [wheel.name]


def test_one_line_of_metadata(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    metadata = contents_of(wheel, "./METADATA") + b"Author: Mallory\n"
    changed = rewritten(wheel, tmp_path / "changed", {"./METADATA": metadata})
    report = checkout.report(changed, tmp_path / "out")
    place = f"{parse_wheel_name(wheel.name).dist_info}/METADATA"
    [found] = report["comparison"]["differences"]
    assert (found["level"], found["file"]) == ("text", place), found
    assert (found["one"], found["other"]) == ("Author: Mallory", None), found
    assert report["kept"] == str(tmp_path / "out" / wheel.name)


def test_a_pin_of_the_lock_alone(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    """One that no process needs: what is built is the same, what is said of it is not."""
    checkout, wheel = small
    lock = with_pin(lock_in(wheel), "pip", version="20.0", filename="pip-20.0-py3-none-any.whl")
    changed = rewritten(wheel, tmp_path / "changed", {f"./{LOCK}": lock_bytes(lock)})
    report = checkout.report(changed, tmp_path / "out")
    [cause] = report["causes"]
    assert "the lock in the wheel is not the one that its record" in cause
    info = parse_wheel_name(wheel.name).dist_info
    named, stated = report["comparison"]["differences"]
    right = hashlib.sha256(lock_bytes(lock)).hexdigest()
    assert (named["level"], named["file"]) == ("pins", f"{info}/{RECORD}")
    assert named["what"] == f"lock: {document(wheel, RECORD)['lock']} became {right}"
    assert (stated["level"], stated["file"]) == ("text", f"{info}/{STATEMENT}")
    assert f"{info}/{LOCK}" in stated["what"]
    assert right in stated["what"]
    consistent = with_lock(wheel, tmp_path / "consistent", lock)
    assert checkout.report(consistent, tmp_path / "same")["identical"]


# -- files that are not there --------------------------------------------------------------------


def test_a_pin_of_a_file_that_does_not_exist(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    filename, digest = "ninja-0.0.1-py3-none-any.whl", "ab" * 32
    lock = with_pin(lock_in(wheel), "ninja", version="0.0.1", filename=filename, sha256=digest)
    changed = with_lock(wheel, tmp_path / "changed", lock)
    (tmp_path / "mine").mkdir()
    for arguments in ([], ["--find", str(tmp_path / "mine")]):
        outcome = checkout.rebuild(changed, tmp_path / "out", *arguments, **OFFLINE)
        assert outcome.code == 4, outcome.err
        for words in ("ninja 0.0.1", filename, digest, "--find FOLDER", "invoke rebuild"):
            assert words in message_of(outcome)
    assert "mine does not have the one missing file" in outcome.err


@pytest.fixture(scope="module")
def ninja(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Another ninja than the toolchain's; its file lies in a folder, which the pin's URL is."""
    folder = tmp_path_factory.mktemp("ninja")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"ninja=={OTHER_NINJA}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        missing(f"pip cannot download ninja {OTHER_NINJA}: {done.stderr.strip()}")
    [path] = folder.glob("*.whl")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Package("ninja", OTHER_NINJA, path.name, len(data), digest, "build", str(path))


def test_a_file_that_its_user_has(
    small: tuple[Checkout, Path], ninja: Package, tmp_path: Path, on_disk: Path
) -> None:
    checkout, wheel = small
    file = Path(ninja.url)
    lock = with_pin(
        lock_in(wheel), "ninja", version=ninja.version, filename=ninja.filename, size=ninja.size,
        sha256=ninja.sha256,
    )  # fmt: skip
    changed = with_lock(wheel, tmp_path / "changed", lock)
    attic = tmp_path / "attic" / "of 2019"
    attic.mkdir(parents=True)
    shutil.copy(file, attic / "no idea what this is")
    bench = Workbench(tmp_path / "apart", checkout.bench.store)
    bench.keep_apart(on_disk / "envs")
    apart = Checkout(checkout.folder, bench)
    without = apart.rebuild(changed, tmp_path / "out", **OFFLINE)
    assert without.code == 4, without.err
    assert ninja.filename in message_of(without)
    outcome = apart.rebuild(changed, tmp_path / "out", "--find", str(attic.parent), **OFFLINE)
    assert outcome.code == 0, outcome.out + outcome.err
    assert f"the one missing file: {ninja.filename}" in outcome.err
    assert "identical" in outcome.out
    [environment] = [path for path in (apart.bench.cache / "envs").iterdir() if path.is_dir()]
    said = subprocess.run([environment / "bin" / "ninja", "--version"], capture_output=True)
    assert said.stdout.decode().startswith("1.11.1"), "another ninja was installed"


def test_an_sdist_that_is_gone_from_the_index(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    """A recipe outside of the checkout, which nobody needs to have who rebuilds the wheel."""
    checkout, _ = small
    tiny = Tiny(tmp_path / "theirs" / "gone", "alpha", "beta", project=PROJECT)
    links, backups = tmp_path / "links", tmp_path / "backups"
    links.mkdir()
    archive = links / "fatwheel_small-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tiny.src, "fatwheel_small-1.0")
    data = archive.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    pin = f'sdist = "{archive.name}"\nsize = {len(data)}\nsha256 = "{digest}"'
    (tiny.folder / "recipe.toml").write_text(named(RECIPE, PROJECT).replace('folder = "src"', pin))
    bench = Workbench(tmp_path / "bench", checkout.bench.store)
    there = Checkout(checkout.folder, bench)
    (bench.cache / "downloads").unlink()
    built = bench.build("--arch", "80", kernel=str(tiny), **OFFLINE, PIP_FIND_LINKS=str(links))
    wheel = built.wheel()
    shutil.rmtree(tiny.folder)
    shutil.rmtree(bench.cache / "downloads")
    archive.rename(backups.with_suffix(".bin"))
    gone = there.rebuild(wheel, tmp_path / "out", **OFFLINE)
    assert gone.code == 4, gone.err
    for words in (f"{PROJECT} 1.0", archive.name, digest, "--find FOLDER"):
        assert words in message_of(gone)
    backups.mkdir()
    backups.with_suffix(".bin").rename(backups / "backup.bin")
    assert there.report(wheel, tmp_path / "out", "--find", str(backups), **OFFLINE)["identical"]


# -- what cannot be rebuilt ----------------------------------------------------------------------


def assert_refused(outcome: Outcome, code: int, *words: str) -> None:
    """One message with these words, before anything was done; nothing on stdout."""
    assert_civil(outcome)
    assert outcome.code == code, f"ended with {outcome.code}, not {code}:\n{outcome.err}"
    assert len(re.findall("^error: ", outcome.err, re.MULTILINE)) == 1, outcome.err
    for word in words:
        assert word in message_of(outcome), f"{word!r} is not said in:\n{outcome.err}"
    assert "capture" not in outcome.err, "it began to build before it looked"


def test_wheels_that_do_not_say_how_they_were_built(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    checkout, wheel = small
    theirs = Draft().write(tmp_path)
    alone = rewritten(wheel, tmp_path / "alone", {}, dropped=[f"./{LOCK}", f"./{STATEMENT}"])
    thin = [checkout.bench.wheel_in(tmp_path / n, "thin", str(wheel), "--arch", n)
            for n in ("80", "86")]  # fmt: skip
    fat = checkout.bench.wheel_in(tmp_path / "fat", "stitch", *map(str, thin))
    text = tmp_path / "a.whl"
    text.write_text("not a wheel")
    for path, words in {
        theirs: ["nothing in the wheel says how to build it again", "not built by fatwheel"],
        alone: ["nothing in the wheel says how to build it again", LOCK],
        thin[0]: ["`invoke thin`", "rebuild those"],
        fat: ["`invoke stitch`", "rebuild those"],
        text: ["not"],
    }.items():
        outcome = checkout.rebuild(path, tmp_path / "out")
        assert_refused(outcome, 11, path.name, *words)
    assert_refused(checkout.rebuild(tmp_path / "none.whl", tmp_path / "out"), 2, "none.whl")
    assert_refused(checkout.rebuild(tmp_path, tmp_path / "out"), 2, str(tmp_path))


def test_provenance_of_a_newer_fatwheel(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    record, lock = document(wheel, RECORD), document(wheel, LOCK)
    record["fatwheel"] = "99.0"
    newer = rewritten(wheel, tmp_path / "newer", {f"./{RECORD}": as_json(record)})
    assert_refused(checkout.rebuild(newer, tmp_path / "out"), 11, "99.0", "use fatwheel 99.0")
    lock |= {"schema": 2, "fatwheel": "99.0", "something": "new"}
    newer = rewritten(wheel, tmp_path / "schema", {f"./{LOCK}": as_json(lock)})
    outcome = checkout.rebuild(newer, tmp_path / "out")
    assert_refused(outcome, 11, "99.0", "schema 2", "supported: 1", LOCK)


def damaged_locks(lock: Any) -> Iterator[tuple[str, bytes]]:
    """What may be in a wheel from anywhere, and what must be said of it: some of what
    tests/unit/provenance/test_lockfile.py has."""
    data = as_json(lock)

    def altered(change: Callable[[Any], object]) -> bytes:
        content = json.loads(data)
        change(content)
        return as_json(content)

    def package(content: Any) -> Any:
        return content["toolchain"]["packages"][0]

    yield "damaged", data[:-200]
    yield "damaged", b'{"a":' * 100_000
    yield (
        "../../etc/passwd",
        altered(lambda lock: package(lock).update(filename="../../etc/passwd")),
    )
    yield (
        "url: must begin with https://",
        altered(lambda lock: package(lock).update(url="file:///etc/passwd")),
    )
    yield "NUL", altered(lambda lock: lock["recipe"].update(environment={"A": "\0"}))


def test_damaged_locks(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    for number, (words, data) in enumerate(damaged_locks(document(wheel, LOCK))):
        changed = rewritten(wheel, tmp_path / str(number), {f"./{LOCK}": data})
        outcome = checkout.rebuild(changed, tmp_path / "out")
        assert_refused(outcome, 11, words, wheel.name, LOCK)
        assert len(outcome.err) < 2000, "a screenful"


def test_sources_that_are_not_those_of_the_wheel(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    checkout, wheel = small
    recipe = checkout.folder / "kernels" / KERNEL
    locked = lock_in(wheel).recipe.source.sha256
    with replaced(recipe / "src" / "alpha.cu", "*= 2", "*= 3"):
        outcome = checkout.rebuild(wheel, tmp_path / "out")
        assert_refused(outcome, 5, KERNEL, str(recipe / "src"), locked, "checkout")
    recipe.rename(tmp_path / "away")
    try:
        outcome = checkout.rebuild(wheel, tmp_path / "out")
        assert_refused(outcome, 2, KERNEL, str(recipe / "src"), "checkout")
    finally:
        (tmp_path / "away").rename(recipe)


def test_options_that_cannot_be(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    for code, arguments, words in (
        (2, ["--from-store", "sometimes"], ["'sometimes'", "--from-store", "slices, never"]),
        (2, ["--engine", "ssh"], ["'ssh'", "--engine", "process, docker"]),
        (2, ["--find", str(tmp_path / "none")], ["--find", str(tmp_path / "none")]),
        (14, ["--engine", "docker"], ["none.sock", "DOCKER_HOST"]),
    ):
        outcome = checkout.rebuild(wheel, tmp_path / "out", *arguments, **nobody)
        assert_refused(outcome, code, *words)


# -- nothing but what is locked ------------------------------------------------------------------


def test_the_same_wheel_of_a_lock(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    again = Checkout(checkout.folder, Workbench(tmp_path / "bench", checkout.bench.store))
    for lock in (wheel, Path(f"{wheel}.lock.json")):
        again.bench.forget_wheels()
        outcome = again.build(again.bench.out, "--arch", ARCHS, "--locked", str(lock))
        assert outcome.code == 0, outcome.err
        assert outcome.wheel().read_bytes() == wheel.read_bytes()
        beside = Path(f"{outcome.wheel()}.lock.json").read_bytes()
        assert beside == Path(f"{wheel}.lock.json").read_bytes()


def test_other_architectures_have_the_same_lock(
    small: tuple[Checkout, Path], tmp_path: Path
) -> None:
    checkout, wheel = small
    outcome = checkout.build(tmp_path, "--arch", "86", "--locked", str(wheel))
    assert outcome.code == 0, outcome.err
    [other] = tmp_path.glob("*.whl")
    assert contents_of(other, f"./{LOCK}") == contents_of(wheel, f"./{LOCK}")


def test_what_is_not_locked_is_refused(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    lock = ["--arch", ARCHS, "--locked", str(wheel)]
    tools = checkout.folder / "toolchains" / f"{TOOLCHAIN}.toml"
    parts = checkout.folder / "toolchains" / "parts" / "packages"
    ninja = next(p for p in lock_in(wheel).toolchain.packages if p.name == "ninja")
    with (
        replaced(parts / "ninja.toml", ninja.sha256, "cd" * 32),
        replaced(parts / "packaging.toml", "size = 129956", "size = 1"),
        replaced(tools, 'default_torch = "2.11.0"', 'default_torch = "2.11.0" # as before'),
    ):
        outcome = checkout.build(tmp_path / "out", *lock)
        words = ["ninja", ninja.sha256, "cd" * 32, "packaging", "129956 bytes", "invoke rebuild"]
        assert_refused(outcome, 16, "--locked", str(wheel), *words)
        entries = [line for line in outcome.err.splitlines() if " became " in line]
        assert len(entries) == 2, f"not what differs, or not only that: {entries}"
    with replaced(checkout.folder / "kernels" / KERNEL / "src" / "beta.cu", "*= 2", "*= 3"):
        assert_refused(checkout.build(tmp_path / "out", *lock), 16, "sha256", "became")
    other = ["--python", "3.12" if sys.version_info[:2] != (3, 12) else "3.13"]
    assert_refused(checkout.build(tmp_path / "out", *lock, *other), 16, "python", other[1])
    asked = ["--kernel", "selftest", "--out", str(tmp_path / "out"), *lock]
    outcome = checkout.invoke("build", *asked)
    assert_refused(outcome, 16, "recipe.name: small became selftest")
    assert not (tmp_path / "out").exists()


def test_what_is_no_lock(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    checkout, wheel = small
    [pylock] = wheel.parent.glob("pylock.*.toml")
    text = tmp_path / "text"
    text.write_text("{}")
    for path, code, words in (
        (pylock, 2, ["pylock.toml", "not how to build", ".lock.json"]),
        (Path(f"{wheel}.provenance.json"), 11, ["damaged"]),
        (text, 11, ["damaged", "text"]),
        (tmp_path / "none.json", 2, ["none.json"]),
    ):
        outcome = checkout.build(tmp_path / "out", "--arch", "80", "--locked", str(path))
        assert_refused(outcome, code, *words)


# -- another machine -----------------------------------------------------------------------------


@pytest.fixture
def other_compiler(tool: Callable[[str], str], tmp_path: Path) -> str:
    """The g++ of this machine, which says of itself that somebody else configured it."""
    gcc = tool("g++")
    path = tmp_path / "bin" / "g++"
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$*" = -v ]; then {gcc} -v 2>&1 | sed "s/^Configured with: /&--other /" >&2\n'
        f'else exec {gcc} "$@"; fi\n'
    )
    path.chmod(0o755)
    return str(path)


def test_another_compiler(
    small: tuple[Checkout, Path], other_compiler: str, tmp_path: Path
) -> None:
    checkout, wheel = small
    outcome = checkout.rebuild(wheel, tmp_path / "rebuilt", CXX=other_compiler)
    assert outcome.code == 15, outcome.err
    cause = "its files differ"
    early, _, late = outcome.err.partition("compile: ")
    assert cause in early, "it is not said before the work begins"
    assert late, "the host's part was not compiled again"
    assert cause in outcome.out.partition("what differed this time")[2], outcome.out
    assert "likely causes: what went into the wheels" in outcome.out
    host = lock_in(wheel).host
    assert host.compiler in outcome.out
    built = lock_in(tmp_path / "rebuilt" / wheel.name).host
    assert built == replace(host, compiler_id=built.compiler_id)
    assert built.compiler_id != host.compiler_id

    locked = ["--arch", ARCHS, "--locked", str(wheel)]
    refused = checkout.build(tmp_path / "out", *locked, CXX=other_compiler)
    assert refused.code == 16, refused.err
    for words in ("this machine, or the container image", cause, "CXX="):
        assert words in message_of(refused)
    assert not (tmp_path / "out").exists()


def test_a_lock_of_another_machine(small: tuple[Checkout, Path], tmp_path: Path) -> None:
    """A finished wheel that lies in the store is no way around it."""
    checkout, wheel = small
    lock = lock_in(wheel)
    other = replace(lock, host=replace(lock.host, compiler="g++ 11.0.0", compiler_id="ef" * 32))
    path = tmp_path / "other.lock.json"
    path.write_bytes(lock_bytes(other))
    refused = checkout.build(tmp_path / "out", "--arch", ARCHS, "--locked", str(path))
    assert refused.code == 16, refused.err
    assert f"g++ 11.0.0 became {lock.host.compiler}" in message_of(refused)
    assert not (tmp_path / "out").exists()
    report = checkout.report(with_lock(wheel, tmp_path / "w", other), tmp_path / "rebuilt")
    assert report["causes"] == [f"C++ compiler: g++ 11.0.0 became {lock.host.compiler}"]
    differences = report["comparison"]["differences"]
    assert {one["level"] for one in differences} == {"pins"}
    assert any("g++ 11.0.0" in one["what"] for one in differences), differences


# -- signatures ----------------------------------------------------------------------------------


def test_a_signed_wheel_that_was_changed(
    small: tuple[Checkout, Path], tool: Callable[[str], str], tmp_path: Path
) -> None:
    """A careful forger makes RECORD and the statement right, but has not the key."""
    checkout, _ = small
    private, public, out = tmp_path / "key.pem", tmp_path / "key.pub", tmp_path / "out"
    make = [tool("openssl"), "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    publish = [tool("openssl"), "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(publish, check=True, capture_output=True)
    outcome = checkout.build(out, "--arch", ARCHS, "--sign", str(private))
    assert outcome.code == 0, outcome.err
    [wheel] = out.glob("*.whl")
    good = checkout.invoke("verify", str(wheel), "--key", str(public))
    assert good.code == 0, good.out + good.err
    lock = with_pin(lock_in(wheel), "pip", version="20.0", filename="pip-20.0-py3-none-any.whl")
    forged = with_lock(wheel, tmp_path / "forged", lock)
    alone = checkout.invoke("verify", str(forged))
    assert alone.code == 0, f"by itself it is as good as any wheel: {alone.out}"
    forged.replace(wheel)
    refused = checkout.invoke("verify", str(wheel), "--key", str(public))
    assert refused.code == 13, refused.out + refused.err
    assert "the wheel is not the one that was signed" in refused.out


# -- containers ----------------------------------------------------------------------------------


def test_in_containers_what_was_built_in_containers(contained: Contained, tmp_path: Path) -> None:
    wheel = next(path for path in contained.outcome.wheels if "-cp311-" in path.name)
    bench = Workbench(tmp_path / "bench", contained.bench.store, slim=contained.bench.slim)
    variables = contained.lent.variables
    before = {path: path.read_bytes() for path in bench.store.rglob("*") if path.is_file()}
    outcome = bench.invoke("rebuild", str(wheel), "--engine", "docker", "--json", **variables)
    assert outcome.code == 0, outcome.err
    after = {path: path.read_bytes() for path in bench.store.rglob("*") if path.is_file()}
    assert after == before, "what was made in containers went into the user's store"
    report = json.loads(outcome.out)
    assert (report["identical"], report["compiled"], report["causes"]) == (True, 0, [])
