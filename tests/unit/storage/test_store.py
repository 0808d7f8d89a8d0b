"""The content-addressed store, in one process."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import StoreError
from fatwheel.storage import vault
from fatwheel.storage.store import Store

MB = 1 << 20


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def object_path(store: Store, data: bytes) -> Path:
    name = sha256(data)
    return store.root / "objects" / name[:2] / name


def ref_path(store: Store, kind: str, name: str) -> Path:
    return store.root / "refs" / kind / name[:2] / name


def used_at(store: Store, name: str, when: float, kind: str = "slice") -> None:
    os.utime(ref_path(store, kind, name), (when, when))


def stored_files(store: Store) -> list[Path]:
    folders = [store.root / "objects", store.root / "refs", store.root / "incoming"]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", limit=100 * MB)


def test_what_is_put_is_got(store: Store) -> None:
    assert store.put("slice", key("a"), b"bytes") == sha256(b"bytes")
    assert store.get("slice", key("a")) == b"bytes"
    assert store.has("slice", key("a"))
    assert store.digest("slice", key("a")) == sha256(b"bytes")
    assert Store(store.root, store.limit).get("slice", key("a")) == b"bytes"


def test_absent_keys(store: Store, tmp_path: Path) -> None:
    assert store.get("slice", key("a")) is None
    assert store.digest("slice", key("a")) is None
    assert not store.has("slice", key("a"))
    assert store.get_json("cost", key("a")) is None
    assert not store.copy_out("slice", key("a"), tmp_path / "out")
    assert store.usage() == []
    assert store.check() == []
    assert store.evict(0) == 0
    assert store.clear() == 0
    assert not store.root.exists(), "asking must not create anything"


def test_kinds_are_apart_and_a_second_put_replaces(store: Store) -> None:
    store.put("slice", key("a"), b"one")
    store.put("host", key("a"), b"two")
    store.put("slice", key("a"), b"three")
    assert store.get("slice", key("a")) == b"three"
    assert store.get("host", key("a")) == b"two"


def test_scopes_share_objects_and_see_nothing_of_each_other(store: Store) -> None:
    one, other = (Store(store.root, store.limit, scope) for scope in ("one", "other"))
    one.put("slice", key("a"), b"same")
    assert one.get("slice", key("a")) == b"same"
    assert (other.get("slice", key("a")), store.get("slice", key("a"))) == (None, None)
    other.put("slice", key("a"), b"same")
    assert sum(path.parent.parent.name == "objects" for path in stored_files(store)) == 1
    assert [(usage.kind, usage.entries) for usage in store.usage()] == [("slice", 2)]
    assert store.check() == []
    other.remove("slice", key("a"))
    assert one.has("slice", key("a"))


def test_nothing_is_kept_of_a_stream_that_breaks_off(store: Store) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ValueError("enough")
            return super().read(size)

    with pytest.raises(ValueError, match="enough"):
        store.put_stream("slice", key("a"), Broken(b"x"))
    assert not store.has("slice", key("a"))
    assert stored_files(store) == []
    store.put_stream("slice", key("a"), io.BytesIO(b"whole"))
    assert store.get("slice", key("a")) == b"whole"


def test_equal_bytes_are_kept_once(store: Store) -> None:
    store.put("slice", key("a"), b"same")
    store.put("slice", key("b"), b"same")
    objects = [p for p in (store.root / "objects").rglob("*") if p.is_file()]
    assert objects == [object_path(store, b"same")]


def test_files_in_and_out(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3 * MB + 17)
    (tmp_path / "in").write_bytes(data)
    assert store.put_file("wheel", key("w"), tmp_path / "in") == sha256(data)
    (tmp_path / "out").write_bytes(b"old")
    assert store.copy_out("wheel", key("w"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_json(store: Store) -> None:
    value = {"b": [1, 2.5, None], "a": "é"}
    digest = store.put_json("cost", key("c"), value)
    assert digest == sha256(b'{"a":"\\u00e9","b":[1,2.5,null]}')
    assert store.get_json("cost", key("c")) == value


def test_remove_forgets_the_key_only(store: Store) -> None:
    store.put("slice", key("a"), b"same")
    store.put("slice", key("b"), b"same")
    store.remove("slice", key("a"))
    store.remove("slice", key("a"))
    assert store.get("slice", key("a")) is None
    assert store.get("slice", key("b")) == b"same"


@pytest.mark.parametrize("kind", ["", "Slice", "../refs", "a/b", "a.b"])
def test_bad_kinds_are_bugs(store: Store, kind: str) -> None:
    with pytest.raises(ValueError, match="not a kind"):
        store.get(kind, key("a"))


@pytest.mark.parametrize("name", ["", "abc", "../../../etc/passwd", "A" * 64, "g" * 64, "0" * 129])
def test_bad_keys_are_bugs(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.put("slice", name, b"")


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"bytez", b"bytes and more"])
def test_a_damaged_object_is_absent_and_deleted(
    store: Store, tmp_path: Path, damage: bytes
) -> None:
    store.put("slice", key("a"), b"bytes")
    object_path(store, b"bytes").write_bytes(damage)
    out = tmp_path / "out"
    assert not store.copy_out("slice", key("a"), out)
    assert not out.exists(), "nothing may be written from a damaged object"
    assert not object_path(store, b"bytes").exists()
    store.put("slice", key("a"), b"bytes")
    object_path(store, b"bytes").write_bytes(damage)
    assert store.get("slice", key("a")) is None
    assert stored_files(store) == [], "a damaged entry must be gone after it was read"


def test_putting_again_mends_a_damaged_object(store: Store) -> None:
    store.put("slice", key("a"), b"bytes")
    object_path(store, b"bytes").write_bytes(b"bytez")
    store.put("slice", key("b"), b"bytes")
    assert store.get("slice", key("a")) == b"bytes"


def refs_of(name: str, data: bytes) -> list[bytes]:
    """Refs that are none, or not quite what the store writes for these bytes."""
    digest, place = sha256(data), f"slice/{name[:2]}/{name}"
    other = f"slice/{key('other')[:2]}/{key('other')}"
    text = '{{"entry": "{}", "sha256": "{}", "size": {}}}'
    sizes = ["true", "-5", "4", "6", "05", "5.0", "1e1", "9" * 18, "9" * 5000, "null", '"5"']
    return [
        b"", b"[]", b"{}", b'"x"', b"\xff\xfe", b"\0" * 300, b"[" * 100_000,
        b'{"sha256": "../x", "size": 1}', b'{"sha256": 7, "size": 1}',
        *(text.format(place, digest, size).encode() for size in sizes),
        text.format(place, digest.upper(), 5).encode(),
        text.format(other, digest, 5).encode(),
        text.format(place, digest, 5).encode()[:-1],
        text.format(place, digest, 5).encode() + b"\n",
        text.format(place, digest, '5, "more": 1').encode(),
        text.format(place, digest, "5").encode("utf-16"),
    ]  # fmt: skip


def test_what_the_store_writes_is_a_ref(store: Store) -> None:
    store.put("slice", key("a"), b"bytes")
    name = key("a")
    expected = f'{{"entry": "slice/{name[:2]}/{name}", "sha256": "{sha256(b"bytes")}", "size": 5}}'
    assert ref_path(store, "slice", name).read_text() == expected


@pytest.mark.parametrize("text", refs_of(key("a"), b"bytes"), ids=lambda text: repr(text[-24:]))
def test_a_damaged_ref_is_absent_and_can_be_replaced(store: Store, text: bytes) -> None:
    store.put("slice", key("a"), b"bytes")
    path = ref_path(store, "slice", key("a"))
    sound = path.read_bytes()
    path.write_bytes(text)
    assert not store.has("slice", key("a"))
    assert store.digest("slice", key("a")) is None
    store.put("slice", key("a"), b"bytes")
    assert path.read_bytes() == sound, "a put must rewrite a ref that differs in anything"
    path.write_bytes(text)
    assert store.get("slice", key("a")) is None
    assert not path.exists(), "a damaged ref must be gone after it was read"
    assert sha256(object_path(store, b"bytes").read_bytes()) == sha256(b"bytes")
    store.put("slice", key("a"), b"bytes")
    assert store.get("slice", key("a")) == b"bytes"


def test_refs_that_changed_places_answer_nothing(store: Store) -> None:
    store.put("slice", key("a"), b"one")
    store.put("slice", key("b"), b"two")
    one, two = ref_path(store, "slice", key("a")), ref_path(store, "slice", key("b"))
    texts = one.read_bytes(), two.read_bytes()
    one.write_bytes(texts[1])
    two.write_bytes(texts[0])
    assert store.get("slice", key("a")) is None, "that was made for another key"
    assert not store.has("slice", key("b"))


def become_folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").write_text("in the way")


def become_link(path: Path) -> None:
    """A link to a file with the very bytes that should be there."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def become_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # opened for reading it would wait for ever


def become_socket(path: Path) -> None:
    path.unlink()
    os.chdir(path.parent)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


HARM = [flip, cut, lengthen, empty, Path.unlink]
NO_FILES = [become_folder, become_link, become_dangling, become_pipe, become_socket]
on_unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
harmed = pytest.mark.parametrize(
    "harm", [*HARM, *(pytest.param(one, marks=on_unix) for one in NO_FILES)]
)


@harmed
@pytest.mark.parametrize("place", ["ref", "object"])
def test_whatever_lies_there_is_absent_and_mended(
    store: Store, tmp_path: Path, place: str, harm: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    paths = {"ref": ref_path(store, "slice", key("a")), "object": object_path(store, b"bytes")}
    asks: list[Callable[[], Any]] = [
        lambda: store.digest("slice", key("a")),
        lambda: store.get("slice", key("a")),
        lambda: store.copy_out("slice", key("a"), tmp_path / "out") or None,
    ]
    for ask in asks:
        store.put("slice", key("a"), b"bytes")
        harm(paths[place])
        assert ask() is None
        store.put("slice", key("a"), b"bytes")
        assert store.get("slice", key("a")) == b"bytes"
    harm(paths[place])
    damaged = {damage.key for damage in store.check()}
    assert (key("a") in damaged) == (place == "object" or harm is not Path.unlink)
    assert stored_files(store) == [], "a check leaves nothing that is damaged or nobody's"
    assert not any(path.is_symlink() for path in store.root.rglob("*"))


@on_unix
@harmed
def test_a_damaged_ledger_is_counted_anew(
    tmp_path: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store", limit=3 * MB)
    fill(store, "abc")
    harm(store.root / "lock")
    (store.root / "elsewhere").unlink(missing_ok=True)
    store.put("slice", key("d"), b"d" * MB)
    if harm is not lengthen:  # what follows the sum is nobody's
        assert held(store, "abcd") == "cd", "the limit was passed, and nobody noticed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says 'not found' for such a path")
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("place", ["ref", "object"])
def test_a_file_in_the_place_of_a_folder(store: Store, place: str, depth: int) -> None:
    store.put("slice", key("a"), b"bytes")
    path = {"ref": ref_path(store, "slice", key("a")), "object": object_path(store, b"bytes")}[
        place
    ]
    folder = path.parents[min(depth, len(path.relative_to(store.root).parts) - 1) - 1]
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert store.get("slice", key("a")) is None
    assert not store.has("slice", key("a"))
    store.put("slice", key("a"), b"bytes")
    assert store.get("slice", key("a")) == b"bytes"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000], ids=["empty", "cut", "no text",
    "deep", "long"],
)  # fmt: skip
def test_what_is_no_json_is_absent(store: Store, data: bytes) -> None:
    store.put("cost", key("a"), data)
    assert store.get_json("cost", key("a")) is None


def test_check_names_the_damaged_and_keeps_the_rest(store: Store) -> None:
    for name in "abcd":
        store.put("slice", key(name), name.encode())
    object_path(store, b"a").write_bytes(b"x")
    object_path(store, b"b").unlink()
    ref_path(store, "slice", key("c")).write_bytes(b"nonsense")
    damaged = {(damage.kind, damage.key) for damage in store.check()}
    assert damaged == {("slice", key(name)) for name in "abc"}
    assert store.check() == [], "damaged entries must be deleted by the first check"
    assert store.get("slice", key("d")) == b"d"


# -- size ------------------------------------------------------------------------------------


def fill(store: Store, names: str, size: int = MB, age: float = 7200.0) -> None:
    """One entry of `size` bytes per name, each used a second after the one before."""
    for place, name in enumerate(names):
        store.put("slice", key(name), name.encode() * size)
        used_at(store, key(name), time.time() - age + place)


def held(store: Store, names: str) -> str:
    return "".join(name for name in names if store.has("slice", key(name)))


def test_eviction_goes_by_last_use(store: Store) -> None:
    fill(store, "abcde")
    store.get("slice", key("a"))
    store.copy_out("slice", key("c"), store.root / "out")
    store.put("slice", key("b"), b"b" * MB)
    assert store.evict(3 * MB) == 2 * MB
    assert held(store, "abcde") == "abc"


def test_a_second_use_within_a_minute_writes_nothing(store: Store) -> None:
    fill(store, "a", age=30.0)
    before = ref_path(store, "slice", key("a")).stat().st_mtime
    store.get("slice", key("a"))
    assert ref_path(store, "slice", key("a")).stat().st_mtime == before


def test_a_put_over_the_limit_evicts_some_way_below_it(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=10 * MB)
    fill(store, "abcdefghij")
    assert held(store, "abcdefghij") == "abcdefghij", "at the limit nothing has to go"
    store.put("slice", key("k"), b"k" * MB)
    assert held(store, "abcdefghijk") == "cdefghijk", "nine tenths of the limit may stay"


def test_recent_entries_stay_while_the_limit_allows(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=10 * MB)
    fill(store, "abcdefghij", age=600.0)
    store.put("slice", key("k"), b"k" * MB)
    assert held(store, "abcdefghijk") == "bcdefghijk", "only what the limit demands may go"


def test_an_entry_larger_than_the_limit_survives_its_own_put(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=MB)
    fill(store, "ab", size=MB // 2)
    store.put("slice", key("c"), b"c" * 3 * MB)
    assert held(store, "abc") == "c"


def test_the_size_is_known_across_store_objects(tmp_path: Path) -> None:
    for place, name in enumerate("abcd"):
        store = Store(tmp_path, limit=3 * MB)
        store.put("slice", key(name), name.encode() * MB)
        used_at(store, key(name), time.time() - 7200 + place)
    assert not Store(tmp_path, limit=3 * MB).has("slice", key("a"))


@pytest.mark.parametrize("ledger", [b"", b"garbage", b"-5"])
def test_a_lost_count_is_made_anew(tmp_path: Path, ledger: bytes) -> None:
    store = Store(tmp_path, limit=3 * MB)
    fill(store, "abc")
    (store.root / "lock").write_bytes(ledger)
    store.put("slice", key("d"), b"d" * MB)
    assert held(store, "abcd") == "cd"


def test_a_shared_object_stays_until_its_last_key_goes(store: Store) -> None:
    store.put("slice", key("a"), b"s" * MB)
    used_at(store, key("a"), 1000.0)
    store.put("host", key("b"), b"s" * MB)
    assert store.evict(MB - 1) == MB
    store.put("slice", key("a"), b"s" * MB)
    store.put("host", key("b"), b"s" * MB)
    assert store.clear("slice") == 0
    assert store.get("host", key("b")) == b"s" * MB


def test_whoever_asks_for_the_file_uses_the_entry(store: Store) -> None:
    fill(store, "ab")
    used_at(store, key("a"), 1000.0)
    assert store.digest("slice", key("a")) == sha256(b"a" * MB), "that is no use of it"
    assert store.file("slice", key("a")) == object_path(store, b"a" * MB)
    assert store.evict(MB) == MB
    assert held(store, "ab") == "a"


def test_objects_without_a_ref_go_first(store: Store) -> None:
    fill(store, "a")
    orphan = object_path(store, b"orphan")
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"orphan")
    assert store.evict(MB) == len(b"orphan")
    assert held(store, "a") == "a"


def test_clear_by_kind_and_all(store: Store) -> None:
    store.put("slice", key("a"), b"a" * 10)
    store.put("host", key("a"), b"b" * 20)
    store.put("host", key("empty"), b"")
    assert store.clear("slice") == 10
    assert not store.has("slice", key("a"))
    assert store.has("host", key("a"))
    assert store.clear() == 20
    assert stored_files(store) == []


def test_usage_counts_each_kind(store: Store) -> None:
    store.put("slice", key("a"), b"a" * 10)
    store.put("slice", key("b"), b"a" * 10)
    store.put("slice", key("c"), b"c" * 5)
    store.put("host", key("a"), b"a" * 10)
    for name, when in (("a", 1000.0), ("b", 3000.0), ("c", 2000.0)):
        used_at(store, key(name), when)
    used_at(store, key("a"), 4000.0, kind="host")
    host, slices = store.usage()
    assert (host.kind, host.entries, host.bytes, host.oldest, host.newest) == (
        "host", 1, 10, 4000.0, 4000.0)  # fmt: skip
    assert (slices.kind, slices.entries, slices.bytes, slices.oldest, slices.newest) == (
        "slice", 3, 15, 1000.0, 3000.0)  # fmt: skip


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says 'not found' for such a path")
def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am a file")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        store = Store(root, MB)
        for action in (lambda s: s.put("slice", key("a"), b""), lambda s: s.get("slice", key("a"))):
            with pytest.raises(StoreError, match="FATWHEEL_CACHE") as caught:
                action(store)
            assert str(root) in str(caught.value)
    assert (tmp_path / "file").read_text() == "I am a file"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_failing_rename_leaves_nothing_behind(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(vault, "move", fail)
    with pytest.raises(StoreError, match=os.strerror(number)) as caught:
        store.put("slice", key("a"), b"a")
    assert caught.value.exit_code == 10
    assert "FATWHEEL_CACHE" in str(caught.value)
    assert stored_files(store) == []
