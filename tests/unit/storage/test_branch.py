"""A store that may only be read, and what is written beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.storage.store import Branch, Store

LIMIT = 1 << 30
KEY = "ab" * 32
OTHER = "cd" * 32


class Stores:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trunk = Store(folder / "trunk", LIMIT)
        self.branch = Branch(folder / "branch", [folder / "trunk"])

    def files(self, name: str) -> dict[str, bytes]:
        root = self.folder / name
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    def object(self, name: str, data: bytes) -> Path:
        sha256 = hashlib.sha256(data).hexdigest()
        return self.folder / name / "objects" / sha256[:2] / sha256


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def test_trunks_are_asked_in_turn_and_left_as_they_are(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "1", LIMIT), Store(tmp_path / "2", LIMIT)
    other = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
    first.put("slice", KEY, b"one")
    second.put("slice", KEY, b"two")
    second.put("slice", other, b"other")
    [ref] = [path for path in (first.root / "refs").rglob("*") if path.is_file()]
    branch = Branch(tmp_path / "branch", [first.root, second.root])
    assert (branch.get("slice", KEY), branch.get("slice", other)) == (b"one", b"other")
    ref.write_bytes(b"damaged")
    assert branch.get("slice", KEY) == b"two"
    assert branch.digest("slice", KEY) == second.digest("slice", KEY)
    assert branch.copy_out("slice", KEY, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"two"
    branch.remove("slice", KEY)
    assert branch.get("slice", KEY) is None
    assert not branch.has("slice", KEY)
    assert not branch.copy_out("slice", KEY, tmp_path / "out")
    branch.put("slice", KEY, b"three")
    assert branch.get("slice", KEY) == b"three"
    assert ref.read_bytes() == b"damaged", "what belongs to others is not tidied"
    assert second.get("slice", KEY) == b"two"


# -- a branch ------------------------------------------------------------------------------------


def test_a_branch_answers_what_its_trunk_holds(stores: Stores, tmp_path: Path) -> None:
    stores.trunk.put("slice", KEY, b"trunk")
    stores.trunk.put_json("cost", KEY, {"rss": 7})
    branch = stores.branch
    assert branch.get("slice", KEY) == b"trunk"
    assert branch.get_json("cost", KEY) == {"rss": 7}
    assert branch.has("slice", KEY)
    assert branch.digest("slice", KEY) == hashlib.sha256(b"trunk").hexdigest()
    assert branch.copy_out("slice", KEY, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"trunk"


def test_what_neither_holds_is_absent(stores: Stores, tmp_path: Path) -> None:
    branch = stores.branch
    assert branch.get("slice", KEY) is None
    assert branch.digest("slice", KEY) is None
    assert not branch.has("slice", KEY)
    assert not branch.copy_out("slice", KEY, tmp_path / "copy")


def test_writing_leaves_the_trunk_as_it_is(stores: Stores) -> None:
    stores.trunk.put("slice", KEY, b"trunk")
    before = stores.files("trunk")
    stores.branch.put("slice", KEY, b"branch")
    stores.branch.put("slice", OTHER, b"more")
    assert stores.files("trunk") == before
    assert stores.branch.get("slice", KEY) == b"branch", "what was written comes first"
    assert stores.branch.get("slice", OTHER) == b"more"
    assert stores.trunk.get("slice", KEY) == b"trunk"


def test_an_empty_slice_is_not_an_absent_one(stores: Stores) -> None:
    stores.trunk.put("slice", KEY, b"trunk")
    stores.branch.put("slice", KEY, b"")
    assert stores.branch.get("slice", KEY) == b""


@pytest.fixture
def read_only(stores: Stores) -> Iterator[Stores]:
    """A trunk that this process cannot write to, unless it is root's."""
    stores.trunk.put("slice", KEY, b"trunk")
    folders = [stores.trunk.root, *(p for p in stores.trunk.root.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield stores
    for folder in folders:
        folder.chmod(0o755)


def test_damage_in_a_trunk_that_may_only_be_read_is_an_absent_entry(read_only: Stores) -> None:
    path = read_only.object("trunk", b"trunk")
    path.chmod(0o644)
    path.write_bytes(b"other")
    assert read_only.branch.get("slice", KEY) is None
    read_only.branch.put("slice", KEY, b"made again")
    assert read_only.branch.get("slice", KEY) == b"made again"


def test_a_branch_knows_what_was_written_to_it(stores: Stores) -> None:
    one = stores.branch.put("slice", KEY, b"a")
    two = stores.branch.put_json("text", OTHER, [1])
    assert stores.branch.written == [("slice", KEY, one), ("text", OTHER, two)]


def test_the_first_of_several_trunks_answers(stores: Stores, tmp_path: Path) -> None:
    nearer = Store(tmp_path / "nearer", LIMIT)
    nearer.put("text", KEY, b"nearer")
    stores.trunk.put("text", KEY, b"trunk")
    stores.trunk.put("slice", KEY, b"slice")
    branch = Branch(tmp_path / "branch", (nearer.root, stores.trunk.root, tmp_path / "missing"))
    assert branch.get("text", KEY) == b"nearer"
    assert branch.get("slice", KEY) == b"slice"
    assert branch.digest("text", KEY) == hashlib.sha256(b"nearer").hexdigest()


def test_a_branch_and_its_trunk_have_one_scope(tmp_path: Path) -> None:
    Store(tmp_path / "trunk", LIMIT, "one").put("slice", KEY, b"one")
    for scope, found in (("one", b"one"), ("other", None), ("", None)):
        assert Branch(tmp_path / "branch", (tmp_path / "trunk",), scope).get("slice", KEY) == found


def test_the_file_of_an_entry_is_that_of_the_store_that_answers(stores: Stores) -> None:
    stores.trunk.put("slice", KEY, b"trunk's")
    assert stores.branch.file("slice", KEY) == stores.object("trunk", b"trunk's")
    stores.branch.put("slice", KEY, b"branch's")
    assert stores.branch.file("slice", KEY) == stores.object("branch", b"branch's")
    stores.object("branch", b"branch's").write_bytes(b"damaged")
    assert stores.branch.file("slice", KEY) == stores.object("trunk", b"trunk's")
    stores.branch.remove("slice", KEY)
    assert stores.branch.file("slice", KEY) is None
    assert stores.trunk.file("slice", OTHER) is None
