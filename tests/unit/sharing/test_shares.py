"""Several machines make a share each, and one assembles them: nothing is compiled twice."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.engines import run as run_module
from fatwheel.errors import (
    FatwheelError,
    FormatError,
    StoppedError,
    StoreError,
    UsageError,
    VerifyError,
)
from fatwheel.model import Job
from fatwheel.pipeline import build as build_module
from fatwheel.pipeline import share as share_module
from fatwheel.pipeline.build import build_share
from fatwheel.pipeline.plan import plan_build
from fatwheel.pipeline.share import ShareMade, ShareOrder
from fatwheel.sharing import shares as shares_module
from fatwheel.sharing.parcel import Piece, Trust, contents, read_head, write_parcel
from fatwheel.sharing.shares import Share, divided, parse_share, write_share
from fatwheel.storage.cache import open_store
from fatwheel.storage.store import Store
from fatwheel.worker.assemble import Lookup
from fatwheel.worker.context import digest

from ...helpers.sharingbench import Bench
from ...helpers.standins import cpp_unit, cuda_unit, front, job


class Machines(Bench):
    """Three make a share each."""

    @property
    def shares(self) -> Path:
        return self.folder / "shares"

    def share(self, number: int, count: int = 3, **changes: object) -> ShareMade:
        self.on(f"runner-{number}")
        self.events.clear()
        order = ShareOrder(Share(number, count), self.shares / f"{number}.share")
        plan = plan_build(self.request(f"runner-{number}", order=order, **changes))
        return build_share(plan, order, self.events.append)

    def assembled(self, machine: str = "last", **changes: object) -> str:
        return self.build(machine, shares=self.shares, **changes).sha256


@pytest.fixture
def machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> Machines:
    tool("g++")
    return Machines(tmp_path, monkeypatch)


# -- dividing --------------------------------------------------------------------------------------

COSTS = st.lists(st.floats(0.1, 1000), min_size=1, max_size=60)


def jobs_of(costs: Sequence[float]) -> list[Job]:
    return [
        dataclasses.replace(job(cuda_unit(f"unit-{number}"), front("80")), seconds=seconds)
        for number, seconds in enumerate(costs)
    ]


@given(COSTS, st.integers(1, 9), st.randoms())
def test_jobs_are_divided_alike_in_whatever_order_they_come(
    costs: list[float], count: int, chance: object
) -> None:
    jobs = jobs_of(costs)
    shares = divided(jobs, count)
    assert sorted(one.label for share in shares for one in share) == sorted(
        one.label for one in jobs
    )
    shuffled = list(jobs)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert divided(shuffled, count) == shares


@given(COSTS, st.integers(1, 9))
def test_no_share_is_more_than_one_job_longer_than_another(costs: list[float], count: int) -> None:
    sums = [sum(one.seconds for one in share) for share in divided(jobs_of(costs), count)]
    assert max(sums) - min(sums) <= max(costs) + 1e-6


@pytest.mark.parametrize("words", ["", "1", "0/3", "4/3", "a/b", "1/2/3", "-1/3", "1/99999"])
def test_what_is_no_share_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="is no share"):
        parse_share("--only-shard", words)


# -- a build in shares -----------------------------------------------------------------------------


def test_three_machines_compile_and_a_fourth_assembles_the_same_wheel(machines: Machines) -> None:
    expected = machines.build("alone").sha256
    before = machines.nvcc_calls()
    made = []
    jobs: list[str] = []
    for number in (1, 2, 3):
        made.append(machines.share(number))
        jobs += machines.compiled
    assert sorted(jobs) == [
        "csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c",
    ]  # fmt: skip
    assert [one.jobs for one in made] == [2, 2, 1]
    assert machines.nvcc_calls() == before + 4
    assert machines.assembled() == expected
    assert machines.compiled == []
    assert machines.nvcc_calls() == before + 4, "the fourth starts no compiler"


def test_a_machine_that_has_its_share_already_compiles_nothing_and_leaves_the_same(
    machines: Machines,
) -> None:
    first = machines.share(1)
    assert first.file
    content = first.file.read_bytes()
    again = machines.share(1)
    assert machines.compiled == []
    assert (again.jobs, again.compiled) == (2, 0)
    assert first.file.read_bytes() == content


def test_what_goes_into_a_share_has_been_used(machines: Machines) -> None:
    """Else the next eviction takes what this machine needs for the rest of its share."""
    machines.share(1)
    refs = [
        path
        for kind in ("text", "slice", "abi", "cost")
        for path in (machines.folder / "runner-1" / "store" / "refs" / kind).rglob("*")
        if path.is_file()
    ]
    assert {path.parts[-3] for path in refs} == {"text", "slice", "abi", "cost"}
    for path in refs:
        os.utime(path, (1000.0, 1000.0))
    machines.share(1)
    assert machines.compiled == []
    assert [str(path) for path in refs if path.stat().st_mtime == 1000.0] == []


def test_shares_go_by_a_remote_too(machines: Machines) -> None:
    for number in (1, 2):
        machines.shared()
        machines.on(f"runner-{number}")
        order = ShareOrder(Share(number, 2), None)
        build_share(plan_build(machines.request("r", order=order)), order, lambda event: None)
    machines.shared()
    machines.build("last")
    assert machines.compiled == []


# -- what is wrong with them -----------------------------------------------------------------------


def test_a_missing_share_is_named_with_the_command_that_makes_it(machines: Machines) -> None:
    machines.share(1)
    machines.share(3)
    place = machines.folder / "a folder"
    shutil.copytree(machines.shares, place)
    shutil.copy(place / "3.share", place / "again.share")
    with pytest.raises(UsageError) as caught:
        machines.build("last", shares=place)
    assert "2 shares of 3 taken" in " ".join(machines.notes), "one is there twice"
    assert caught.value.what == "share 2/3 is missing: 2 jobs of it are not compiled"
    words = shlex.split(caught.value.hint or "")
    assert words[words.index("--share-to") + 1] == str(place / "2-of-3.share")
    assert machines.compiled == []
    machines.share(2)
    machines.assembled()
    assert machines.compiled == []


@pytest.mark.parametrize("kind", ["missing", "empty", "other files"])
def test_no_share_at_all_is_told_while_planning(machines: Machines, kind: str) -> None:
    if kind != "missing":
        machines.shares.mkdir()
    if kind == "other files":
        (machines.shares / "1.share.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"there is no share in|No such file") as caught:
        plan_build(machines.request("last", shares=machines.shares))
    assert caught.value.where == "--from-shares"
    assert str(machines.shares) in caught.value.what


def test_a_share_whose_time_is_up_is_left_as_far_as_it_is_done(machines: Machines) -> None:
    """One job at a time, and the time is up when the first is done."""
    expected = machines.build("alone").sha256
    machines.share(2)
    machines.share(3)
    with pytest.raises(StoppedError) as stopped:
        machines.share(1, stop_after=0.001, jobs=1)
    assert stopped.value.exit_code == 17
    file = machines.shares / "1.share"
    assert f"{file} has 0 of 2 jobs of share 1/3" in machines.notes
    with pytest.raises(UsageError) as caught:
        machines.assembled()
    assert caught.value.what == "share 1/3 is not complete: 2 jobs of it are not compiled"
    words = shlex.split(caught.value.hint or "")
    assert words[words.index("--only-shard") + 1] == "1/3"
    assert words[words.index("--from-shares") + 1] == str(machines.shares)
    assert machines.compiled == []
    again = machines.share(1)
    assert (again.jobs, again.left, again.compiled) == (2, 0, 2)
    assert machines.assembled() == expected
    assert machines.compiled == []


def test_another_machine_goes_on_with_a_share_that_was_stopped(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new runner, which has nothing but the file."""
    expected = machines.build("alone").sha256
    times = iter([0.0])
    real = run_module.JobRun._start_what_fits

    def stopping(run: run_module.JobRun) -> None:
        """The time is up as soon as a job has begun."""
        real(run)
        run._until = next(times, None)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.JobRun, "_start_what_fits", stopping)
        with pytest.raises(StoppedError):
            machines.share(1, 1, jobs=1, stop_after=3600.0)
    [first] = machines.compiled
    assert any("1.share has 1 of 5 jobs of share 1/1" in words for words in machines.notes)
    machines.on("another")
    machines.events.clear()
    order = ShareOrder(Share(1, 1), machines.shares / "1.share")
    plan = plan_build(machines.request("another", order=order, shares=machines.shares))
    made = build_share(plan, order, machines.events.append)
    assert (made.jobs, made.left, made.compiled) == (5, 0, 4)
    assert first not in machines.compiled
    assert machines.assembled() == expected
    assert machines.compiled == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"my notes\n" * 999])
def test_a_share_is_never_written_over_something_else(machines: Machines, content: bytes) -> None:
    machines.shares.mkdir()
    file = machines.shares / "1.share"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"1\.share is there, and is no share") as caught:
        machines.share(1)
    assert caught.value.where == "--share-to"
    assert file.read_bytes() == content
    assert machines.compiled == []


def test_another_kind_of_parcel_is_no_share(machines: Machines) -> None:
    machines.shares.mkdir()
    file = machines.shares / "1.share"
    with file.open("wb") as out:
        write_parcel(out, f"slice/{'ab' * 32}", "", [], Trust())
    with pytest.raises(UsageError, match="is no share"):
        machines.share(1)


def test_a_share_is_written_whole_or_not_at_all(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machines.share(1)
    assert made.file
    before = made.file.read_bytes()

    def full(*arguments: Any) -> None:
        arguments[0].write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shares_module, "write_parcel", full)
    with pytest.raises(StoreError, match="cannot write the share"):
        machines.share(1)
    assert made.file.read_bytes() == before
    assert list(machines.shares.iterdir()) == [made.file]


@pytest.mark.parametrize("now", ["gone", "a file", "notes"])
def test_nothing_is_lost_where_a_shares_place_changes_meanwhile(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    """Between the first look at it and the end of hours of compiling."""
    machines.shares.mkdir()
    real = share_module.check_order

    def checked(order: ShareOrder) -> None:
        real(order)
        machines.shares.rmdir()
        if now == "a file":
            machines.shares.write_bytes(b"mine")
        if now == "notes":
            machines.shares.mkdir()
            (machines.shares / "1.share").write_bytes(b"mine")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "check_order", checked)
        if now == "gone":
            assert machines.share(1, 1).file
            return
        with pytest.raises(FatwheelError) as caught:
            machines.share(1, 1)
    assert "compiles nothing again" in (caught.value.hint or "")
    assert len(machines.compiled) == 5
    if now == "a file":
        assert machines.shares.read_bytes() == b"mine"
        machines.shares.unlink()
    else:
        assert (machines.shares / "1.share").read_bytes() == b"mine"
        (machines.shares / "1.share").unlink()
    machines.share(1, 1)
    assert machines.compiled == []


def test_a_share_is_written_without_holding_its_entries_in_memory(tmp_path: Path) -> None:
    store, keys = Store(tmp_path / "store", 1 << 40), [f"{number:064x}" for number in range(4)]
    for key in keys:
        store.put("host", key, bytes.fromhex(key) * (1 << 18))
    jobs = [job(cpp_unit(f"unit-{key}"), None) for key in keys]
    made = tuple((("host", key),) for key in keys)
    lookup = Lookup((), 4, 0, 0, (), (), made)
    tracemalloc.start()
    try:
        parcel = write_share(
            tmp_path / "a.share", jobs, lookup, jobs, store, "", {"share": "1/1"}, Trust()
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parcel.size == 4 << 23
    assert peak < 1 << 23


def test_a_share_that_unpacks_to_more_than_is_allowed_is_refused(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what its first lines say, before anything is unpacked."""
    made = machines.share(1, 1)
    assert made.file
    with made.file.open("rb") as stream:
        size = read_head(stream, "", Trust()).size
    monkeypatch.setattr(shares_module, "MOST_SIZE", size - 1)
    monkeypatch.setattr(shares_module, "contents", None)
    with pytest.raises(FormatError, match="are the most") as caught:
        machines.assembled()
    assert caught.value.where == str(made.file)
    with pytest.raises(UsageError, match="this share has more than") as refused:
        machines.share(1, 1)
    assert "more shares" in (refused.value.hint or "")


def test_a_share_that_says_nonsense_of_what_is_left_is_refused(machines: Machines) -> None:
    made = machines.share(1, 1)
    assert made.file
    with made.file.open("rb") as stream:
        parcel = read_head(stream, "", Trust())
    about = {**parcel.about, "left": "-1"}
    with made.file.open("wb") as out:
        name = f"share/{digest(sorted(about.items()))}"
        write_parcel(out, name, parcel.scope, [], Trust(), about)
    with pytest.raises(FormatError, match="how many of its jobs are left"):
        machines.assembled()


def test_shares_of_other_builds_are_refused_by_what_differs(machines: Machines) -> None:
    machines.share(1)
    with pytest.raises(UsageError) as caught:
        machines.assembled(archs="80,90a")
    assert any(line.startswith("archs: 80,86; here 80,90a") for line in caught.value.details)
    machines.recipe = dataclasses.replace(machines.recipe, version="1.0", epoch=7)
    with pytest.raises(UsageError) as caught:
        machines.assembled()
    assert [line.partition(":")[0] for line in caught.value.details] == ["lock"]
    assert "--locked" in (caught.value.hint or "")


def test_shares_by_another_proof_are_refused(machines: Machines) -> None:
    """Both share a front, for other units."""
    machines.prove({"shared": ("sm_86 k",)}, others={"csrc/b": {"shared": ()}})
    machines.share(1, front="auto")
    machines.prove({"shared": ()}, others={"csrc/b": {"shared": ("sm_86 k",)}})
    with pytest.raises(UsageError) as caught:
        machines.assembled(front="auto")
    [line] = caught.value.details
    assert line.startswith("front: auto: sm_80+sm_86 for 1 of 2 units (")


def test_shares_of_two_divisions_are_refused(machines: Machines) -> None:
    machines.share(1)
    machines.share(2, count=2)
    with pytest.raises(UsageError, match="different divisions: 1/3, 2/2"):
        machines.assembled()


def damaged(data: bytes) -> bytes:
    return data[:-20] + bytes(byte ^ 1 for byte in data[-20:])


def with_pieces(data: bytes, folder: Path, more: Sequence[Piece]) -> bytes:
    """A share whose digests are right, with more entries for the store."""
    file = folder / "sound"
    file.write_bytes(data)
    with file.open("rb") as stream:
        parcel = read_head(stream, "", Trust())
        pieces = [
            Piece(item.kind, item.key, b"".join(iter(lambda: entry.read(1 << 20), b"")))  # noqa: B023
            for item, entry in contents(stream, parcel, "")
        ]
    with file.open("wb") as out:
        write_parcel(out, parcel.name, parcel.scope, [*pieces, *more], Trust(), parcel.about)
    return file.read_bytes()


def test_a_share_that_was_tampered_with_is_refused_before_anything_is_used(
    machines: Machines,
) -> None:
    for number in (1, 2, 3):
        machines.share(number)
    file = machines.shares / "2.share"
    sound = file.read_bytes()
    changed: list[tuple[bytes, type[FatwheelError]]] = [
        (damaged(sound), FormatError),
        (sound[: len(sound) // 2], FormatError),
        (b"PK", FormatError),
        (sound.replace(b"2/3", b"1/3", 1), UsageError),
        (with_pieces(sound, machines.folder, [Piece("wheel", "ab" * 32, b"evil")]), FormatError),
    ]
    for content, kind in changed:
        file.write_bytes(content)
        with pytest.raises(kind) as caught:
            machines.assembled()
        assert str(file) in str(caught.value)
        assert machines.compiled == []
        assert open_store().usage() == [], "nothing came in"
    file.write_bytes(sound)
    machines.assembled()
    assert machines.compiled == []


def test_a_share_brings_only_what_this_build_asks_for(machines: Machines) -> None:
    """Not what other builds of the project would find under their keys."""
    machines.share(1, 1)
    file = machines.shares / "1.share"
    more = [Piece(kind, "ab" * 32, b"true") for kind in ("slice", "abi", "host", "seen")]
    file.write_bytes(with_pieces(file.read_bytes(), machines.folder, more))
    expected = machines.build("alone").sha256
    assert machines.assembled() == expected
    assert machines.compiled == []
    held = []
    for machine in ("last", "alone"):
        machines.on(machine)
        usage = [one for one in open_store().usage() if one.kind not in ("ptx", "stub")]
        held.append({one.kind: one.entries for one in usage})
    assert held[0] == held[1]


def test_a_share_that_is_exchanged_after_it_was_checked_is_refused(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.share(1, 1)
    file = machines.shares / "1.share"
    changed = with_pieces(file.read_bytes(), machines.folder, [Piece("host", "ab" * 32, b"evil")])
    reading = share_module.read_shares

    def exchanged(*arguments: Any) -> Any:
        found = reading(*arguments)
        file.write_bytes(changed)
        return found

    monkeypatch.setattr(share_module, "read_shares", exchanged)
    with pytest.raises(FormatError, match="it was changed while it was read") as caught:
        machines.assembled()
    assert str(file) in str(caught.value)
    assert open_store().usage() == []


def test_a_file_that_says_it_is_no_share_is_named(machines: Machines) -> None:
    made = machines.share(1)
    assert made.file
    with made.file.open("rb") as stream:
        parcel = read_head(stream, "", Trust())
    about = {**parcel.about, "share": "9/3"}
    name = f"share/{digest(sorted(about.items()))}"
    with made.file.open("wb") as out:
        write_parcel(out, name, parcel.scope, [], Trust(), about)
    with pytest.raises(UsageError, match="'9/3' is no share") as caught:
        machines.assembled()
    assert caught.value.where == str(made.file)


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_a_place_for_a_share_is_looked_at_before_anything_is_compiled(
    machines: Machines, kind: str
) -> None:
    place = machines.shares / "1.share"
    if kind == "folder":
        place.mkdir(parents=True)
    else:
        machines.shares.mkdir()
        place.symlink_to("/dev/full")
    with pytest.raises(UsageError, match=r"1\.share is no file"):
        machines.share(1)
    assert machines.compiled == []


def test_a_share_that_nobody_signed_is_refused_where_keys_are_wanted(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    from ...helpers.signingkeys import Keys

    machines.share(1)
    key = Keys(tool("openssl"), tmp_path).pair("ed25519")
    monkeypatch.setenv("FATWHEEL_REMOTE_TRUST", str(key.public))
    with pytest.raises(VerifyError, match="it is not signed"):
        machines.assembled()
    monkeypatch.setenv("FATWHEEL_REMOTE_SIGN", str(key.private))
    for number in (1, 2, 3):
        machines.share(number)
    monkeypatch.delenv("FATWHEEL_REMOTE_SIGN")
    machines.assembled()
    assert machines.compiled == []
