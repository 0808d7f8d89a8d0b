"""What containers leave and say, for the fuzzer: lines, and folders with something wrong in them.

Of lines an input is a letter for who says it (w a worker, c capture, a assembling), and the line.
Of folders it is a byte for how many things are wrong, and the record of a text. What is wrong is
chosen by its checksum, and so is how much where the record is no JSON; that is another's then.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fatwheel.arch import Arch
from fatwheel.engines.conversation import (
    AssembledLine,
    CapturedLine,
    FailedLine,
    assemble_line,
    capture_line,
    checked_capture,
    checked_slices,
    worker_line,
)
from fatwheel.engines.incoming import LIMITS, take, take_file, take_folder
from fatwheel.model import Front, Host, Job, Unit
from fatwheel.storage.store import Branch, Store, StoreEntry
from fatwheel.worker.assemble import Lookup, Pass, Reason, all_jobs

_FRONT = Front(Arch(80), ("sm_80", "compute_80"))
_UNIT = Unit("a", "cuda", "@src@/a.cu", ("-O3",), ("-D", "X"))
_JOB = Job(_UNIT, _FRONT, True, 0, 0)
_KEY = "ab" * 32
_SECRET = b"of this machine"


# -- lines ---------------------------------------------------------------------------------------


def lines() -> Iterator[tuple[str, bytes]]:
    """Sound ones."""
    entries = [["slice", _KEY, "cd" * 32]]
    words = "what a compiler says " * 90  # most changes should be in what may be anything
    made = {
        "id": 1,
        "outcome": "made",
        "seconds": 2.5,
        "cpu": 2,
        "rss": 9,
        "entries": entries,
        "taken": False,
    }
    failed = {"outcome": "failed", "class": "CompileError", "what": words, "where": None,
              "hint": "so", "details": [words, "y"]}  # fmt: skip
    known = (("slice", _KEY), ("host", _KEY))
    makes = (known,) * len(all_jobs((_UNIT,), (_FRONT,)))
    passes = (Pass("compute_80", (_KEY,), (_KEY,)),)
    reasons = (Reason(words, ("a", words)),)
    lookup = Lookup((_JOB,), 1, 2, 0, ("a", words), passes, makes, known, reasons, words)
    host = Host("g++ 12.2.0", "ab" * 32, "3.11.7")
    captured = {"outcome": "made", "units": [asdict(_UNIT)], "notes": [words],
                "links": [["g++", words]], "wheel": "a-1-cp311-cp311-linux_x86_64.whl",
                "lookup": asdict(lookup), "host": asdict(host)}  # fmt: skip
    slices = [{"name": "a", "slices": {"sm_80": "ab" * 32, "compute_80": None}}]
    assembled = {"outcome": "made", "wheel": "a-1-py3-none-any.whl", "slices": slices, "linked": []}
    for name, who, value in (
        ("made", "w", made), ("failed", "w", {"id": 1, **failed}), ("said", "w", {"said": words}),
        ("killed", "w", {"id": 1, "outcome": "killed", "rss": 3}), ("captured", "c", captured),
        ("broken", "c", failed), ("assembled", "a", assembled),
    ):  # fmt: skip
        yield name, (who + json.dumps(value)).encode()


def hear(data: bytes) -> None:
    who, line = data[:1], data[1:].decode("utf-8", "replace")
    if who == b"c":
        found = capture_line(line)
        if isinstance(found, CapturedLine):
            assert all(words.isprintable() for words in found.sentences)
            units, lookup, _ = checked_capture(found, (_FRONT,))
            assert {job.unit for job in lookup.pending} <= set(units)
            assert all((job.memory, job.seconds) == (0, 0) for job in lookup.pending)
            assert not any(set("\n\x1b") & set(one.what) for one in lookup.reasons)
            assert lookup.state.encode()
    elif who == b"a":
        wheel = assemble_line(line)
        if isinstance(wheel, AssembledLine):
            assert Path(wheel.wheel).name == wheel.wheel
            checked_slices(wheel, (_UNIT,), (_FRONT,))
    else:
        said = worker_line(line)
        if isinstance(said, FailedLine):
            assert "\x1b" not in str(said.error)


# -- folders -------------------------------------------------------------------------------------


def records() -> Iterator[tuple[str, bytes]]:
    """Sound ones of texts, with nothing else wrong."""
    files = [["/usr/include/a.h" * 40, "cd" * 32, False], ["gone.h" * 90, None, True]]
    for name, archs in (("any", None), ("listed", [800, 900])):
        variant = {"text": "ef" * 32, "archlist": archs, "files": files}
        yield name, b"\0" + json.dumps([variant]).encode()


def take_from(data: bytes, folder: Path) -> None:
    """A job's results with something wrong: an error of ours, or they are in the store; and nothing
    else is there or gone afterwards."""
    source = random.Random(zlib.crc32(data))
    outside, incoming = folder / "outside", folder / "incoming"
    outside.mkdir()
    (outside / "secret").write_bytes(_SECRET)
    incoming.mkdir()
    branch = Branch(incoming / "store", (), "scope")
    for kind in ("slice", "abi", "host"):
        branch.put(kind, _KEY, source.randbytes(source.randrange(64)))
    wrong, record = data[0] % 4 if data else 0, data[1:]
    try:
        json.loads(record)
    except ValueError:
        wrong, record = source.randrange(4), next(records())[1][1:]
    branch.put("text", _KEY, record)
    entries = list(branch.written)
    for _ in range(wrong):
        source.choice((_link, _replace, _grow, _lie))(source, incoming, outside, entries)
    store = Store(folder / "store", 1 << 40, "scope")
    try:
        take(incoming, entries, _JOB, store)
        take_file(incoming, ("store", "lock"), folder / "lock", 100)
        take_folder(incoming, "store", folder / "taken")
    finally:
        assert (outside / "secret").read_bytes() == _SECRET
        assert os.listdir(outside) == ["secret"]
        assert {usage.kind for usage in store.usage()} <= set(LIMITS)
        assert not any(_SECRET in path.read_bytes() for path in (folder / "store").rglob("*")
                       if path.is_file())  # fmt: skip
        assert not (folder / "taken").is_symlink()


def _some(source: random.Random, incoming: Path) -> Path:
    """A file or folder below what came in."""
    return source.choice(sorted(incoming.rglob("*")) or [incoming / "new"])


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link(source: random.Random, incoming: Path, outside: Path, entries: list[StoreEntry]) -> None:
    path = _some(source, incoming)
    _clear(path)
    path.symlink_to(source.choice((outside, outside / "secret", incoming, Path("/dev/zero"))))


def _replace(
    source: random.Random, incoming: Path, outside: Path, entries: list[StoreEntry]
) -> None:
    path = _some(source, incoming)
    _clear(path)
    source.choice((os.mkfifo, os.mkdir, Path.touch))(path)


def _grow(source: random.Random, incoming: Path, outside: Path, entries: list[StoreEntry]) -> None:
    files = [p for p in sorted(incoming.rglob("*")) if p.is_file() and not p.is_symlink()]
    if files:
        os.truncate(source.choice(files), source.choice((0, 1, 1 << 20, 3 << 30)))


def _lie(source: random.Random, incoming: Path, outside: Path, entries: list[StoreEntry]) -> None:
    kind = source.choice(("wheel", "built", "cost", "slice", "seen", "../x", ""))
    key = source.choice((_KEY, "cd" * 32, "../../x", ""))
    sha256 = source.choice((hashlib.sha256(_SECRET).hexdigest(), entries[0][2], "..", "x"))
    entries.insert(source.randrange(len(entries)), (kind, key, sha256))
