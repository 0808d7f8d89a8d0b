"""A store that may only be read, and what is written beside it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.branch import Branch, Harvest
from fatwheel.store import Store

LIMIT = 1 << 30
KEY = "ab" * 32
OTHER = "cd" * 32


class Stores:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trunk = Store(folder / "trunk", LIMIT)
        self.branch = Branch(folder / "branch", [folder / "trunk"])
        self.harvest = Harvest(folder / "branch", self.trunk)

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


# -- the harvest ---------------------------------------------------------------------------------


def test_a_harvest_takes_everything_in_once(stores: Stores) -> None:
    stores.branch.put("slice", KEY, b"a")
    stores.branch.put("host", OTHER, b"b")
    assert stores.harvest.gather() == 2
    assert stores.trunk.get("slice", KEY) == b"a"
    assert stores.trunk.get("host", OTHER) == b"b"
    assert stores.harvest.gather() == 0


def test_a_harvest_of_nothing_takes_nothing(stores: Stores) -> None:
    assert stores.harvest.gather() == 0
    assert not stores.trunk.root.exists()


def test_what_came_since_and_what_changed_is_taken(stores: Stores) -> None:
    stores.branch.put("text", KEY, b"a")
    assert stores.harvest.gather() == 1
    stores.branch.put("text", KEY, b"b")
    stores.branch.put("text", OTHER, b"c")
    assert stores.harvest.gather() == 2
    assert (stores.trunk.get("text", KEY), stores.trunk.get("text", OTHER)) == (b"b", b"c")


def test_the_same_content_under_another_key_is_taken(stores: Stores) -> None:
    stores.branch.put("text", KEY, b"a")
    stores.branch.put("text", OTHER, b"a")
    stores.branch.put("slice", KEY, b"a")
    assert stores.harvest.gather() == 3
    assert stores.trunk.get("slice", KEY) == b"a"


def test_what_is_damaged_is_left_out(stores: Stores) -> None:
    stores.branch.put("slice", KEY, b"a")
    stores.branch.put("slice", OTHER, b"b")
    stores.object("branch", b"a").write_bytes(b"something else")
    assert stores.harvest.gather() == 1
    assert stores.trunk.get("slice", KEY) is None
    assert stores.trunk.get("slice", OTHER) == b"b"
    stores.branch.put("slice", KEY, b"a")
    assert stores.harvest.gather() == 1, "it was made again"


@pytest.mark.parametrize("content", [b"", b"{", b'{"sha256": "ab"', b"\0\xff"])
def test_a_ref_that_is_half_there_is_left_for_later(stores: Stores, content: bytes) -> None:
    stores.branch.put("slice", KEY, b"a")
    [ref] = (stores.branch.root / "refs" / "slice").rglob(KEY)
    ref.write_bytes(content)
    assert stores.harvest.gather() == 0
    assert stores.trunk.get("slice", KEY) is None


def test_a_ref_whose_object_is_not_there_yet_is_left_for_later(stores: Stores) -> None:
    sha256 = stores.branch.put("slice", KEY, b"a")
    path = stores.object("branch", b"a")
    assert path.name == sha256
    aside = path.rename(stores.folder / "aside")
    assert stores.harvest.gather() == 0
    path.parent.mkdir(exist_ok=True)
    aside.rename(path)
    stores.branch.put("slice", KEY, b"a")
    assert stores.harvest.gather() == 1


@pytest.mark.parametrize(
    "place",
    [
        "refs/slice/ab/not-hex",  "refs/SLICE/ab/" + KEY,
        "refs/file", "refs/slice/" + KEY,  "refs/slice/ab/deeper/" + KEY,
    ],
)  # fmt: skip
def test_what_no_store_made_is_passed_by(stores: Stores, place: str) -> None:
    """Builds of strangers run in there."""
    stores.branch.put("slice", OTHER, b"b")
    sha256 = stores.branch.put("text", OTHER, b"evil")
    path = stores.branch.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"sha256": sha256, "size": 4}))
    assert stores.harvest.gather() == 2
    assert stores.trunk.get("slice", OTHER) == b"b"
    assert {usage.kind for usage in stores.trunk.usage()} == {"slice", "text"}
    assert {usage.entries for usage in stores.trunk.usage()} == {1}


def test_a_link_out_of_the_branch_brings_nothing_in(stores: Stores) -> None:
    secret = stores.folder / "secret"
    secret.write_bytes(b"of this machine")
    stores.branch.put("slice", KEY, b"a")
    path = stores.object("branch", b"a")
    path.unlink()
    os.symlink(secret, path)
    assert stores.harvest.gather() == 0
    assert stores.trunk.get("slice", KEY) is None


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A build in a container may leave anything: reading a pipe would never end."""
    root = tmp_path / "branch"
    Store(root, 1 << 30).put("slice", KEY, b"slice")
    for place in (root / "refs" / "slice" / "ff" / "ff00ff00", root / "objects" / "pipe"):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(place)
    store = Store(tmp_path / "store", 1 << 30)
    assert Harvest(root, store).gather() == 1
    assert store.get("slice", KEY) == b"slice"
