"""What a container left: its jobs' results come into the store, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.engines import incoming as module
from fatwheel.engines.incoming import take, take_file, take_folder
from fatwheel.errors import EngineError, StoreError
from fatwheel.storage.store import Branch, Store, StoreEntry
from fatwheel.worker.inside import BRANCH

from ...helpers.standins import cpp_unit, cuda_unit, front, job

KEY, OTHER = "ab" * 32, "cd" * 32
SCOPE = "5c" * 32
JOB = job(cuda_unit(), front("80", "sm_80", "compute_80"), host=True)
ONE = job(cuda_unit(), front("80"))


def variant(text: str = "11" * 32, **changes: Any) -> dict[str, Any]:
    files = [["/usr/include/a.h", "22" * 32, False], ["gone.h", None, False]]
    return {"text": text, "archlist": [800], "files": files, **changes}


class Bench:
    """A container's folder with a branch in it, the user's store, and what lies around both."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.folder = folder / "incoming"
        self.folder.mkdir()
        self.store = Store(folder / "store", 1 << 40, SCOPE)
        self.branch = Branch(self.folder / BRANCH, (), SCOPE)

    def made(self) -> list[StoreEntry]:
        return list(self.branch.written)

    def take(self, entries: list[StoreEntry] | None = None) -> None:
        take(self.folder, self.made() if entries is None else entries, JOB, self.store)

    def object(self, entry: StoreEntry) -> Path:
        return self.folder / BRANCH / "objects" / entry[2][:2] / entry[2]

    def refused(self, entries: list[StoreEntry] | None = None) -> EngineError:
        """How these are refused, and that the store is as it was."""
        before = self.snapshot()
        with pytest.raises(EngineError) as caught:
            self.take(entries)
        assert self.snapshot() == before
        return caught.value

    def snapshot(self) -> dict[str, bytes]:
        root = self.store.root
        return {
            str(path.relative_to(root)): path.read_bytes()
            for kind in ("refs", "objects") for path in (root / kind).rglob("*") if path.is_file()
        }  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def outside(bench: Bench) -> Iterator[Path]:
    """A tree like a machine's: with a store in it, sockets, pipes and files."""
    root = bench.outside
    stranger = Branch(root, (), SCOPE)
    stranger.put("slice", KEY, b"of somebody else")
    (root / "lib").mkdir()
    (root / "lib" / "libc.so").write_bytes(b"library")
    (root / "bin").symlink_to("lib")
    os.mkfifo(root / "refs" / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(root, os.O_RDONLY)  # the path may be too long for a socket's
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        before = _listing(root)
        yield root
        assert _listing(root) == before, "something outside was touched"


def _listing(root: Path) -> list[tuple[str, int, int]]:
    found = ((path, path.lstat()) for path in sorted(root.rglob("*")))
    return [(str(path), facts.st_mode, facts.st_ctime_ns) for path, facts in found]


# -- what a job made -----------------------------------------------------------------------------


def test_what_a_job_made_is_in_the_store(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"one")
    bench.branch.put("slice", OTHER, b"two")
    bench.branch.put_json("abi", KEY, {"names": "n"})
    bench.branch.put("host", KEY, b"object")
    bench.branch.put_json("text", KEY, [variant()])
    bench.branch.put_json("seen", KEY, True)
    bench.branch.put("ptx", KEY, b"packed")
    bench.branch.put("stub", KEY, b"registers")
    bench.branch.put_json("program", KEY, OTHER)
    bench.take()
    store = bench.store
    assert (store.get("slice", KEY), store.get("slice", OTHER)) == (b"one", b"two")
    assert (store.get_json("abi", KEY), store.get("host", KEY)) == ({"names": "n"}, b"object")
    assert (store.get_json("text", KEY), store.get_json("seen", KEY)) == ([variant()], True)
    assert store.get_json("program", KEY) == OTHER


def test_what_is_there_already_is_not_replaced(bench: Bench) -> None:
    bench.store.put("slice", KEY, b"honest")
    bench.branch.put("slice", KEY, b"poison")
    bench.take()
    assert bench.store.get("slice", KEY) == b"honest"


def test_of_which_text_a_program_is_may_change(bench: Bench) -> None:
    bench.store.put_json("program", KEY, "ef" * 32)  # of a text whose PTX is gone
    bench.branch.put_json("program", KEY, OTHER)
    bench.take()
    assert bench.store.get_json("program", KEY) == OTHER


def test_what_nobody_reported_stays_where_it_is(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"reported")
    entries = bench.made()
    bench.branch.put("slice", OTHER, b"slipped in")
    bench.branch.put("wheel", OTHER, b"slipped in")
    bench.take(entries)
    assert [(usage.kind, usage.entries) for usage in bench.store.usage()] == [("slice", 1)]


def test_other_scopes_see_nothing_of_it(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"one")
    bench.take()
    for scope in ("", "6d" * 32):
        assert Store(bench.store.root, 1 << 40, scope).get("slice", KEY) is None


@pytest.mark.parametrize("kind", ["wheel", "built", "cost", "SLICE", "", "../refs", "slice/x"])
def test_no_other_kind_is_taken(bench: Bench, kind: str) -> None:
    sha256 = bench.branch.put("slice", KEY, b"poison")
    assert "list of entries" in str(bench.refused([(kind, KEY, sha256)]))


@pytest.mark.parametrize(
    "kinds",
    [["slice"] * 3, ["abi"] * 3, ["host"] * 2, ["text"] * 3, ["seen"] * 3, ["program"] * 4],
    ids=lambda kinds: kinds[0],
)
def test_no_more_is_taken_than_the_job_can_have_made(bench: Bench, kinds: list[str]) -> None:
    sha256 = bench.branch.put("slice", KEY, b"x")
    bench.refused([(kind, f"{n:064x}", sha256) for n, kind in enumerate(kinds)])


@pytest.mark.parametrize(("work", "kind"), [(ONE, "host"), (job(cpp_unit(), None), "slice")])
def test_a_job_makes_only_what_it_was_asked_for(bench: Bench, work: Any, kind: str) -> None:
    sha256 = bench.branch.put(kind, KEY, b"x")
    with pytest.raises(EngineError):
        take(bench.folder, [(kind, KEY, sha256)], work, bench.store)


@pytest.mark.parametrize("key", ["", "../x", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "/etc/passwd"])
def test_keys_and_digests_are_such(bench: Bench, key: str) -> None:
    sha256 = bench.branch.put("slice", KEY, b"x")
    bench.refused([("slice", key, sha256)])
    bench.refused([("slice", KEY, key)])


def test_an_entry_that_is_named_twice_is_refused(bench: Bench) -> None:
    one, two = (bench.branch.put("slice", KEY, data) for data in (b"1", b"2"))
    bench.refused([("slice", KEY, one), ("slice", KEY, two)])
    bench.refused([("slice", KEY, one), ("slice", KEY, one)])


def test_what_is_not_there_or_is_damaged_is_refused(bench: Bench) -> None:
    bench.refused([("slice", KEY, OTHER)])
    bench.branch.put("slice", KEY, b"good")
    bench.object(bench.made()[0]).write_bytes(b"evil")
    assert "does not match its name" in str(bench.refused())


# -- records of texts ----------------------------------------------------------------------------


def test_a_record_gets_what_is_new_and_keeps_what_was_known(bench: Bench) -> None:
    old, new = variant("33" * 32), variant("44" * 32)
    bench.store.put_json("text", KEY, [old])
    bench.branch.put_json("text", KEY, [new, variant("55" * 32)])
    bench.take()
    assert bench.store.get_json("text", KEY) == [new, old]


@pytest.mark.parametrize(
    "record",
    [
        {}, [], [3], [{}], [variant("no digest")], [variant(more=1)], [variant(archlist="all")],
        [variant(files=[["a.h", 3, False]])], [variant(files=[["a.h"]])],
        [variant(files={"a.h": 1})], [variant(archlist=[True])],
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(bench: Bench, record: Any) -> None:
    bench.branch.put_json("text", KEY, record)
    bench.refused()


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"[" + b"1" * 5000 + b"]", b"["])
def test_a_record_that_cannot_be_read_is_refused(bench: Bench, text: bytes) -> None:
    bench.branch.put("text", KEY, text)
    bench.refused()


# -- links, and things that are no files -----------------------------------------------------------


def _store(bench: Bench) -> Path:
    return bench.folder / BRANCH


def _objects(bench: Bench) -> Path:
    return bench.folder / BRANCH / "objects"


def _prefix(bench: Bench) -> Path:
    return bench.object(bench.made()[0]).parent


def _object(bench: Bench) -> Path:
    return bench.object(bench.made()[0])


PLACES = (_store, _objects, _prefix, _object)
OPENERS = (module._by_descriptors, module._by_paths)


@pytest.fixture(params=OPENERS, ids=["linux", "windows"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which files are opened."""
    monkeypatch.setattr(module, "open_below", request.param)


@pytest.mark.usefixtures("opener")
@pytest.mark.parametrize("place", PLACES)
def test_no_link_is_followed(bench: Bench, outside: Path, place: Callable[[Bench], Path]) -> None:
    """What it leads to would be just right."""
    bench.branch.put("slice", KEY, b"of somebody else")
    inside = place(bench)
    target = outside / inside.relative_to(bench.folder / BRANCH)
    assert target.exists()
    if inside.is_dir():
        shutil.rmtree(inside)
    else:
        inside.unlink()
    inside.symlink_to(target)
    bench.refused()


def test_the_folder_itself_is_no_link(bench: Bench, outside: Path) -> None:
    bench.branch.put("slice", KEY, b"of somebody else")
    shutil.rmtree(bench.folder)
    bench.folder.symlink_to(outside)
    bench.refused()


@pytest.mark.usefixtures("opener")
def test_a_pipe_keeps_nobody_waiting(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"x")
    _object(bench).unlink()
    os.mkfifo(_object(bench))
    bench.refused()


@pytest.mark.usefixtures("opener")
def test_a_socket_is_no_file(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"x")
    _object(bench).unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(_prefix(bench), os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/{_object(bench).name}")
        os.close(here)
        bench.refused()


@pytest.mark.usefixtures("opener")
def test_a_folder_is_no_file_and_a_file_no_folder(bench: Bench) -> None:
    bench.branch.put("slice", KEY, b"x")
    _object(bench).unlink()
    _object(bench).mkdir()
    bench.refused()
    shutil.rmtree(_prefix(bench))
    _prefix(bench).write_bytes(b"")
    bench.refused()


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["slice", "text", "abi", "seen"])
def test_what_is_too_large_is_refused_unread(bench: Bench, kind: str) -> None:
    sha256 = bench.branch.put(kind, KEY, b"x")
    with bench.object((kind, KEY, sha256)).open("r+b") as stream:
        stream.truncate(3 << 30)
    assert "bytes, more than" in str(bench.refused([(kind, KEY, sha256)]))


def test_a_file_that_grows_while_it_is_read_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.branch.put("slice", KEY, b"x" * 100)
    monkeypatch.setitem(module.LIMITS, "slice", 50)
    monkeypatch.setattr(module.os, "fstat", lambda opened: os.stat(__file__))
    monkeypatch.setitem(module.LIMITS, "slice", os.stat(__file__).st_size)
    bench.branch.put("slice", OTHER, b"x" * (os.stat(__file__).st_size + 1))
    assert "too large" in str(bench.refused(bench.made()[1:]))


MEMORY = """
import resource, sys
from pathlib import Path
from fatwheel.storage.store import Branch
from fatwheel.engines.incoming import take
from fatwheel.errors import EngineError
from fatwheel.storage.store import Store
from tests.unit.engines.test_incoming import JOB, KEY
folder = Path(sys.argv[1])
branch = Branch(folder / "in" / "store", ())
branch.put("slice", KEY, b"")
entry = ("slice", KEY, "cd" * 32)
path = folder / "in" / "store" / "objects" / "cd" / entry[2]
path.parent.mkdir()
with path.open("wb") as stream:
    stream.truncate(int(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    take(folder / "in", [entry], JOB, Store(folder / "store", 1 << 40))
except EngineError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("size", [3 << 30, 256 << 20])
def test_a_sparse_object_takes_no_memory(tmp_path: Path, size: int) -> None:
    """One beyond the limit, and one that is read to its end."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(size)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert int(done.stdout) < 32, f"{done.stdout} MiB"


def test_a_store_that_takes_nothing_is_its_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.branch.put("slice", KEY, b"x")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.storage.store.sync_file", full)
    with pytest.raises(StoreError, match="No space left"):
        bench.take()


# -- wheels and sources --------------------------------------------------------------------------


def test_a_wheel_is_copied_out(bench: Bench, tmp_path: Path) -> None:
    (bench.folder / "wheel").mkdir()
    (bench.folder / "wheel" / "a.whl").write_bytes(b"wheel")
    take_file(bench.folder, ("wheel", "a.whl"), tmp_path / "out" / "a.whl", 5)
    assert (tmp_path / "out" / "a.whl").read_bytes() == b"wheel"
    with pytest.raises(EngineError, match="more than 4"):
        take_file(bench.folder, ("wheel", "a.whl"), tmp_path / "b.whl", 4)
    with pytest.raises(EngineError):
        take_file(bench.folder, ("wheel", ".."), tmp_path / "b.whl", 4)
    assert not (tmp_path / "b.whl").exists()


def test_a_wheel_that_leads_elsewhere_is_refused(
    bench: Bench, outside: Path, tmp_path: Path
) -> None:
    (bench.folder / "wheel").symlink_to(outside / "lib")
    with pytest.raises(EngineError):
        take_file(bench.folder, ("wheel", "libc.so"), tmp_path / "out.whl", 100)
    (bench.folder / "wheel").unlink()
    (bench.folder / "wheel").mkdir()
    (bench.folder / "wheel" / "a.whl").symlink_to(outside / "lib" / "libc.so")
    with pytest.raises(EngineError):
        take_file(bench.folder, ("wheel", "a.whl"), tmp_path / "out.whl", 100)


def test_sources_are_moved_as_they_are(bench: Bench, tmp_path: Path) -> None:
    assert not take_folder(bench.folder, "sources", tmp_path / "captured")
    (bench.folder / "sources").mkdir()
    (bench.folder / "sources" / "link").symlink_to("/")
    assert take_folder(bench.folder, "sources", tmp_path / "captured")
    assert (tmp_path / "captured" / "link").is_symlink()


@pytest.mark.parametrize("what", ["link", "file", "pipe"])
def test_sources_that_are_no_folder_are_refused(
    bench: Bench, outside: Path, tmp_path: Path, what: str
) -> None:
    place = bench.folder / "sources"
    if what == "link":
        place.symlink_to(outside)
    elif what == "file":
        place.write_text("")
    else:
        os.mkfifo(place)
    with pytest.raises(EngineError):
        take_folder(bench.folder, "sources", tmp_path / "captured")
    assert not (tmp_path / "captured").exists()


def test_the_list_is_what_json_makes_of_it(bench: Bench) -> None:
    """As a line brings it: tuples, whatever they were written as."""
    bench.branch.put("slice", KEY, b"x")
    wire = [tuple(entry) for entry in json.loads(json.dumps(bench.made()))]
    bench.take(wire)
    assert bench.store.has("slice", KEY)
