"""The store under several processes, kills and full disks: for real, not with fakes."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from fatwheel.storage.store import Store

MB = 1 << 20

# What every child process begins with: content that follows from a number, so that any process
# can tell right bytes from wrong ones.
PRELUDE = """
import hashlib, os, random, sys
from pathlib import Path
from fatwheel.errors import StoreError
from fatwheel.storage.store import Store

def key(n):
    return hashlib.sha256(b"key %d" % n).hexdigest()

def content(n):
    return hashlib.sha256(b"%d" % n).digest() * (1 + n * 7919 % 20000)
"""


def key(n: int) -> str:
    return hashlib.sha256(b"key %d" % n).hexdigest()


def content(n: int) -> bytes:
    return hashlib.sha256(b"%d" % n).digest() * (1 + n * 7919 % 20000)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    program = PRELUDE + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(children: list[subprocess.Popen[str]]) -> list[str]:
    results = [child.communicate(timeout=120) for child in children]
    for child, (_, err) in zip(children, results, strict=True):
        assert child.returncode == 0, f"a process failed:\n{err}"
    return [out for out, _ in results]


def object_bytes(store: Store) -> int:
    return sum(p.stat().st_size for p in (store.root / "objects").rglob("*") if p.is_file())


PUT_FOR_EVER = """
    store = Store(Path(sys.argv[1]), int(sys.argv[3]))
    n = int(sys.argv[2])
    while True:
        store.put("slice", key(n), content(n) * 8)
        print(n, flush=True)
        n += 1
"""


@pytest.mark.parametrize("limit", [1 << 40, 20 * MB], ids=["no eviction", "evicting all the time"])
def test_kills_leave_a_sound_store_and_lose_nothing_finished(tmp_path: Path, limit: int) -> None:
    chance = random.Random(2)
    store = Store(tmp_path / "store", limit)
    finished: list[int] = []
    first = 0
    for _ in range(20):
        child = start(PUT_FOR_EVER, store.root, first, limit)
        assert child.stdout is not None
        child.stdout.readline()
        finished.append(first)
        time.sleep(chance.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        finished += [int(line) for line in child.communicate()[0].split()]
        first = finished[-1] + 1
        assert store.check() == [], "a killed put or eviction must not leave a damaged entry"
    if limit == 1 << 40:
        lost = [n for n in finished if store.get("slice", key(n)) != content(n) * 8]
        assert lost == [], "what was put before the kill must still be there"
    Store(store.root, limit).put("slice", key(first), content(first))
    assert list((store.root / "incoming").iterdir()) == [], "dead writers' files must go"


def test_readers_writers_and_evictions_at_once(tmp_path: Path) -> None:
    code = """
        store = Store(Path(sys.argv[1]), 4 << 20)
        chance = random.Random(int(sys.argv[2]))
        out = Path(sys.argv[1]).parent / ("out" + sys.argv[2])
        hits = 0
        for _ in range(250):
            n = chance.randrange(40)
            action = chance.randrange(8)
            if action < 3:
                store.put("slice", key(n), content(n))
            elif action < 6:
                data = store.get("slice", key(n))
                assert data is None or data == content(n), f"wrong bytes under key {n}"
                hits += data is not None
            elif action < 7:
                if store.copy_out("slice", key(n), out):
                    assert out.read_bytes() == content(n), f"wrong bytes copied for key {n}"
            else:
                store.evict(2 << 20)
        print(hits)
    """
    store = Store(tmp_path / "store", 4 * MB)
    outputs = finish([start(code, store.root, seed) for seed in range(4)])
    assert sum(map(int, outputs)) > 0, "no get found anything: the test tries nothing"
    assert store.check() == []
    assert object_bytes(store) <= 4 * MB + 20000 * 32 * 4, "the limit was not kept"


def test_an_object_put_while_it_is_evicted_stays(tmp_path: Path) -> None:
    """An eviction must not delete an object that a put of the same bytes counts on."""
    putting = """
        store = Store(Path(sys.argv[1]), 1 << 40)
        for n in range(60):
            store.put("slice", key(n), b"the same bytes")
            assert store.has("slice", key(n)), "the object was deleted under a fresh ref"
            store.remove("slice", key(n))
        store.put("slice", key(0), b"the same bytes")
    """
    sweeping = """
        store = Store(Path(sys.argv[1]), 1 << 40)
        for n in range(60):
            store.evict(1 << 30)
    """
    store = Store(tmp_path / "store", 1 << 40)
    for n in range(1000, 1150):  # so that an eviction has something to read through
        store.put("host", key(n), b"%d" % n)
    finish([start(putting, store.root), start(sweeping, store.root)])
    assert store.get("slice", key(0)) == b"the same bytes"
    assert store.check() == []


def test_the_same_key_put_by_many(tmp_path: Path) -> None:
    code = """
        store = Store(Path(sys.argv[1]), 1 << 40)
        for _ in range(60):
            store.put("slice", key(1), content(int(sys.argv[2])))
            data = store.get("slice", key(1))
            assert data in (content(2), content(3)), "neither of the two values that were put"
    """
    store = Store(tmp_path / "store", 1 << 40)
    finish([start(code, store.root, n) for n in (2, 3, 2, 3)])
    assert store.check() == []


PUT_UNTIL_FULL = """
    store = Store(Path(sys.argv[1]), 1 << 40)
    kept = []
    try:
        for n in range(400):
            store.put("slice", key(n), content(n))
            kept.append(n)
    except StoreError as error:
        print(error)
        assert error.exit_code == 10
    else:
        sys.exit("the disk never got full")
    for n in kept:
        assert store.get("slice", key(n)) == content(n), f"entry {n} was lost"
    assert store.check() == [], "something half-written was left"
    assert list((store.root / "incoming").iterdir()) == [], "a part was left"
    store.clear()
    store.put("slice", key(1), b"room again")
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """On a disk of its own of 2 MiB, in a mount namespace of its own."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("needs Linux and util-linux's unshare")
    script = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(tmp_path)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a file system")
    program = PRELUDE + textwrap.dedent(PUT_UNTIL_FULL)
    ran = subprocess.run(
        [*command, sys.executable, "-c", program, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for expected in (
        "No space left on device",
        str(tmp_path / "store"),
        "B free there",
        "invoke cache --clean",
        "FATWHEEL_CACHE",
    ):
        assert expected in ran.stdout, f"{expected!r} is missing from: {ran.stdout}"
    assert not re.search("[MGT]iB free", ran.stdout), "that is another disk, or this one has room"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limit")
def test_a_file_size_limit(tmp_path: Path) -> None:
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    """
    child = start(textwrap.dedent(code) + textwrap.dedent(PUT_UNTIL_FULL), tmp_path / "store")
    (out,) = finish([child])
    assert "File too large" in out


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_store_of_somebody_else() -> None:
    """As root, become nobody for it: root may write anywhere."""
    code = """
        os.umask(0o022)
        store = Store(Path(sys.argv[1]) / "store", 1 << 40)
        store.put("slice", key(1), content(1))
        for folder in [store.root, *store.root.rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)
        assert store.get("slice", key(1)) == content(1), "a store to be read only must serve"
        assert not store.has("slice", key(2))
        try:
            store.put("slice", key(2), content(2))
        except StoreError as error:
            print(error)
        else:
            sys.exit("wrote into a folder without permission")
        if os.getuid() == 0:
            os.seteuid(0)
        for folder in [store.root, *store.root.rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o755)
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (out,) = finish([start(code, folder)])
    assert "Permission denied" in out
    assert "use a folder that you can write to: FATWHEEL_CACHE=FOLDER" in out
