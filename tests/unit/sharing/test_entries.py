"""What a remote may put into a store, and what not: parcels made by hand, without builds."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.errors import VerifyError
from fatwheel.events import Event, Note
from fatwheel.model import Host
from fatwheel.pipeline import build as pipeline
from fatwheel.sharing import build as build_module
from fatwheel.sharing.build import Shared
from fatwheel.sharing.parcel import Piece, Trust, write_parcel
from fatwheel.sharing.remote import Remote
from fatwheel.storage.store import Store
from fatwheel.worker.assemble import Lookup, Pass
from fatwheel.worker.context import digest

from ...helpers.sharingbench import FakePlace
from ...helpers.standins import cuda_unit, front, job

SCOPE, OTHER = "ab" * 32, "cd" * 32
TEXT, SEEN, SLICE, HOST = (f"{number:064x}" for number in range(4))
PASS = Pass("compute_80", (TEXT,), (SEEN,))
RECORD = json.dumps([{"text": "ef" * 32, "archlist": None, "files": [["a.h", None, False]]}])
JOB = job(cuda_unit("a"), front("80"))
COST = b'{"cpu": 1.5, "rss": 7, "seconds": 2.5}'


class Capture:
    """Lacks a slice and a host object, whatever came."""

    def look_up(self) -> Lookup:
        absent = (("slice", SLICE), ("host", HOST))
        return Lookup((JOB,), 1, 1, 0, (), (PASS,), (), absent)

    look_again = look_up


class Bench:
    def __init__(self, folder: Path) -> None:
        self.place = FakePlace()
        self.store = Store(folder / "store", 1 << 30, "12" * 32)
        self.events: list[Event] = []
        self.folder = folder

    def leave(self, name: str, *pieces: Piece, said: str = "", scope: str = SCOPE) -> None:
        """A parcel under a name; said: what it says that its name is."""
        out = io.BytesIO()
        write_parcel(out, said or name, scope, pieces, Trust())
        self.place.files[f"fatwheel1/{SCOPE}/{name}"] = out.getvalue()

    def shared(self, *, writes: bool = False) -> Shared:
        remote = Remote(self.place, "there", writes=writes, trust=Trust())
        (self.folder / "work").mkdir(exist_ok=True)
        work = self.folder / "work"
        return Shared(remote, SCOPE, "here", self.store, work, self.events.append)

    def look_up(self) -> list[str]:
        """Ask for everything; what was refused, and why."""
        shared = self.shared()
        with shared.writing():
            shared.look_up(Capture())  # type: ignore[arg-type]
        return [one.text for one in self.events if isinstance(one, Note)]

    @property
    def kinds(self) -> list[str]:
        return [usage.kind for usage in self.store.usage()]


TEXTS = f"texts/{digest('texts', [TEXT], 'here')}"
SEEN_NAME = f"seen/{digest('seen', [TEXT])}"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_asked_for_comes_in(bench: Bench) -> None:
    bench.leave(
        TEXTS,
        Piece("text", TEXT, RECORD.encode()), Piece("seen", SEEN, b"true"),
        Piece("cost", OTHER, COST),
    )  # fmt: skip
    bench.leave(f"slice/{SLICE}", Piece("slice", SLICE, b"code"), Piece("abi", SLICE, b"{}"))
    bench.leave(f"host/{HOST}", Piece("host", HOST, b"object"))
    assert bench.look_up() == []
    assert bench.kinds == ["abi", "cost", "host", "seen", "slice", "text"]
    assert bench.store.get_json("text", TEXT) == json.loads(RECORD)
    assert bench.store.get("slice", SLICE) == b"code"


def test_what_the_store_has_stays(bench: Bench) -> None:
    bench.store.put("host", HOST, b"ours")
    bench.leave(f"host/{HOST}", Piece("host", HOST, b"theirs"))
    assert bench.look_up() == []
    assert bench.store.get("host", HOST) == b"ours"


Leave = Callable[[Bench], None]
WRONG: dict[str, Leave] = {
    "an entry that nobody asked for": lambda bench: bench.leave(
        f"slice/{SLICE}", Piece("slice", SLICE, b"x"), Piece("slice", OTHER, b"x")
    ),
    "another kind": lambda bench: bench.leave(f"slice/{SLICE}", Piece("host", SLICE, b"x")),
    "a wheel": lambda bench: bench.leave(f"host/{HOST}", Piece("wheel", HOST, b"x")),
    "another name": lambda bench: bench.leave(
        f"host/{HOST}", Piece("host", HOST, b"x"), said=f"host/{OTHER}"
    ),
    "another scope": lambda bench: bench.leave(
        f"host/{HOST}", Piece("host", HOST, b"x"), scope=OTHER
    ),
    "a text of another unit": lambda bench: bench.leave(
        TEXTS, Piece("text", OTHER, RECORD.encode())
    ),
    "a record that is none": lambda bench: bench.leave(TEXTS, Piece("text", TEXT, b"[7]")),
    "no JSON": lambda bench: bench.leave(TEXTS, Piece("text", TEXT, b"[" * 100_000)),
    "seen what": lambda bench: bench.leave(SEEN_NAME, Piece("seen", SEEN, b'"yes"')),
    "a cost of nothing": lambda bench: bench.leave(SEEN_NAME, Piece("cost", OTHER, b'{"rss": 1}')),
}


@pytest.mark.parametrize("leave", WRONG.values(), ids=WRONG)
def test_what_is_something_else_is_refused_and_leaves_nothing(bench: Bench, leave: Leave) -> None:
    leave(bench)
    [name] = [name.partition(f"{SCOPE}/")[2] for name in bench.place.files]
    [said] = bench.look_up()
    assert said.startswith(f"{name} of there is refused, and made here: ")
    assert bench.kinds == []


# -- writing ---------------------------------------------------------------------------------------


def test_only_slices_and_host_objects_that_the_store_has_are_written(bench: Bench) -> None:
    bench.store.put("slice", SLICE, b"code")
    bench.store.put("abi", SLICE, b"{}")
    shared = bench.shared(writes=True)
    entries = [(kind, SLICE, "") for kind in ("slice", "abi", "text", "wheel")]
    with shared.writing():
        shared.made(JOB, [*entries, ("host", HOST, ""), ("slice", "../../etc", "")])
    assert list(bench.place.files) == [f"fatwheel1/{SCOPE}/slice/{SLICE}"]
    assert shared.count.written == 1


def test_a_full_disk_here_ends_the_writing_and_not_the_build(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module, "write_parcel", full)
    bench.store.put("host", HOST, b"object")
    shared = bench.shared(writes=True)
    with shared.writing():
        shared.made(JOB, [("host", HOST, "")])
    [note] = [one.text for one in bench.events if isinstance(one, Note)]
    assert "No space left on device" in note


def test_a_remote_that_never_takes_it_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "_PATIENCE", 0.2)
    never = threading.Event()
    bench.place.writes = lambda name: never.wait() and None
    bench.store.put("host", HOST, b"object")
    shared = bench.shared(writes=True)
    with shared.writing():
        shared.made(JOB, [("host", HOST, "")])
    [note] = [one.text for one in bench.events if isinstance(one, Note)]
    assert note == "1 parcel did not go to there in time"
    never.set()


def test_ctrl_c_waits_for_nothing(bench: Bench) -> None:
    never = threading.Event()
    bench.place.writes = lambda name: never.wait() and None
    bench.store.put("host", HOST, b"object")
    shared = bench.shared(writes=True)

    def interrupted() -> None:
        with shared.writing():
            shared.made(JOB, [("host", HOST, "")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    never.set()


def test_nothing_is_asked_by_the_thread_that_hears_ctrl_c(bench: Bench) -> None:
    """Python sees the signal only when a request of its own is over."""
    asking: list[threading.Thread] = []
    bench.place.reads = bench.place.writes = lambda name: asking.append(threading.current_thread())
    wheel = bench.folder / "a.whl"
    wheel.write_bytes(b"wheel")
    shared = bench.shared(writes=True)
    with shared.writing():
        shared.look_up(Capture())  # type: ignore[arg-type]
        shared.wheel(SLICE)
        shared.write_wheel(SLICE, wheel, {})
    assert len(asking) == 6
    assert threading.main_thread() not in asking


# -- finished wheels -------------------------------------------------------------------------------

HOST_FACTS = {"compiler": "g++ 13", "compiler_id": "ab" * 32, "python": "3.11.9"}


def unlike(host: Host) -> None:
    if host.python != "3.11.9":
        raise VerifyError("it was made with another Python", where="--locked")


@pytest.mark.parametrize(
    ("file", "python", "why"),
    [
        ("a\0-1.0-cp311-cp311-linux_x86_64.whl", "3.11.9", "not the name of a wheel"),
        (f"{'a' * 300}-1.0-cp311-cp311-linux_x86_64.whl", "3.11.9", "cannot be read"),
        ("../demo-1.0-cp311-cp311-linux_x86_64.whl", "3.11.9", "cannot be read"),
        ("demo-1.0-cp311-cp311-linux_x86_64.whl", "3.11.8", "made with another Python"),
        ("demo-1.0-cp311-cp311-linux_x86_64.whl", "3.11.9", "not a wheel"),
    ],
)
def test_what_is_said_of_a_wheel_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, file: str, python: str, why: str
) -> None:
    """The wheel is made here then; it is no error, whatever was said."""
    host = {**HOST_FACTS, "python": python}
    facts = {"file": file, "units": 1, "slices": 1, "host": host, "notes": []}
    out = io.BytesIO()
    pieces = [Piece("built", SLICE, json.dumps(facts).encode()), Piece("wheel", SLICE, b"evil")]
    write_parcel(out, f"wheel/{SLICE}", "", pieces, Trust())
    bench.place.files[f"fatwheel1/wheel/{SLICE}"] = out.getvalue()
    monkeypatch.setattr(pipeline, "_wheel_key", lambda *arguments: SLICE)
    plan: Any = SimpleNamespace(front="exact")
    wheel: Any = SimpleNamespace(target=None, fronts=())
    nowhere: Any = None
    shared = bench.shared()
    with shared.writing():
        assert not pipeline._fetched(wheel, plan, nowhere, unlike, shared)
    [note] = [one.text for one in bench.events if isinstance(one, Note)]
    assert note.startswith(f"wheel/{SLICE} of there is refused, and made here: ")
    assert why in note
