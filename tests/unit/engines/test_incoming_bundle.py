"""What a worker on another machine sends: a job's own results come into the store, if they were
made of the same files as are here, and nothing else does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fatwheel.engines.incoming import take_bundle
from fatwheel.engines.local import LocalWorkplace
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import EngineError, ToolchainError
from fatwheel.events import silent
from fatwheel.model import Front, Job, Stage
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.storage.cache import users_stores
from fatwheel.storage.store import Branch, Store, StoreEntry
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts
from fatwheel.worker.slices import run_job

from ...helpers.demoproject import Demo
from ...helpers.standins import front

FRONTS = (front("80", "sm_80", "compute_80"),)
OTHER = "cd" * 32


class Delivery:
    """What a job made in a branch of its own, as it comes from another machine."""

    def __init__(
        self, context: Context, job: Job, folder: Path,
        before: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:  # fmt: skip
        """before: what the other machine has, by kind and key."""
        self.context = context
        self.job = job
        self.folder = folder
        branch = Branch(folder / "branch", (), context.store_scope)
        for kind, data in (before or {}).items():
            branch.put(*kind, data)
        branch.written.clear()
        run_job(context, branch, Texts(context, branch), job)
        self.entries: list[StoreEntry] = list(branch.written)
        self.files = {
            f"{kind}/{key}": self._read(branch, kind, key) for kind, key, _ in self.entries
        }
        self.store = Store(folder / "store", 1 << 40, context.store_scope)

    def _read(self, branch: Branch, kind: str, key: str) -> bytes:
        data = branch.get(kind, key)
        assert data is not None
        return data

    def take(self) -> None:
        texts = Texts(self.context, self.store)
        take_bundle(self.files, self.entries, self.job, self.context, texts, self.store)

    def refused(self, kind: type[EngineError | ToolchainError] = EngineError) -> str:
        """How it is refused, and that nothing of it is in the store."""
        with pytest.raises(kind) as caught:
            self.take()
        assert not (self.store.root / "refs").exists()
        return caught.value.what

    def one(self, kind: str) -> int:
        """The place of the first entry of a kind."""
        return next(number for number, entry in enumerate(self.entries) if entry[0] == kind)

    def put(self, number: int, data: bytes) -> None:
        """Send something else under an entry's key, with the digest that it has."""
        kind, key, _ = self.entries[number]
        self.entries[number] = (kind, key, hashlib.sha256(data).hexdigest())
        self.files[f"{kind}/{key}"] = data

    def change(self, kind: str, change: Callable[[Any], Any]) -> None:
        """Change what the first entry of a kind says."""
        number = self.one(kind)
        found = json.loads(self.files["/".join(self.entries[number][:2])])
        self.put(number, json.dumps(change(found)).encode())

    def rename(self, number: int, kind: str, key: str) -> None:
        old = self.entries[number]
        self.entries[number] = (kind, key, old[2])
        self.files[f"{kind}/{key}"] = self.files.pop(f"{old[0]}/{old[1]}")

    def leave_out(self, number: int) -> None:
        kind, key, _ = self.entries.pop(number)
        del self.files[f"{kind}/{key}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    """What a CUDA unit's job with a host object made; not to be changed."""
    folder = tmp_path_factory.mktemp("delivery")
    with pytest.MonkeyPatch.context() as patch:
        demo = Demo(folder, patch)
        for name in ("load_recipe", "load_toolchain"):
            patch.setattr(resolve_module, name, getattr(demo, name))
        [target] = resolve("demo", ToolchainRequest("tools", "tools", pythons="3.11"), "80+ptx")
        place = LocalWorkplace(demo.tools, ProcessWorker)
        with captured(
            PlannedWheel(target, FRONTS), place, place.capacity, users_stores(), silent
        ) as (_, found):
            job = next(job for job in found.look_up().pending if job.host and job.front)
            yield Delivery(found.context, job, folder)


@pytest.fixture
def delivery(made: Delivery, tmp_path: Path) -> Delivery:
    """The same, to be changed, for an empty store."""
    copy = object.__new__(Delivery)
    copy.__dict__.update(vars(made), entries=list(made.entries), files=dict(made.files))
    copy.store = Store(tmp_path / "store", 1 << 40, made.context.store_scope)
    return copy


def test_what_a_job_made_comes_into_the_store(delivery: Delivery) -> None:
    kinds = Counter(kind for kind, _, _ in delivery.entries)
    assert kinds == {
        "slice": 2, "abi": 2, "text": 2, "seen": 2, "host": 1, "ptx": 1, "stub": 1,
    }  # fmt: skip
    delivery.take()
    for kind, key, sha256 in delivery.entries:
        assert delivery.store.digest(kind, key) == sha256


def test_what_is_there_stays_as_it_is(delivery: Delivery) -> None:
    kind, key, _ = delivery.entries[delivery.one("slice")]
    delivery.store.put(kind, key, b"made here before")
    delivery.take()
    assert delivery.store.get(kind, key) == b"made here before"


def test_a_cpp_units_results_come_too(made: Delivery, tmp_path: Path) -> None:
    unit = dataclasses.replace(made.job.unit, name="csrc/c", kind="c++", source="@src@/csrc/c.cpp")
    delivery = Delivery(made.context, Job(unit, None, True, 0, 0), tmp_path)
    assert sorted(kind for kind, _, _ in delivery.entries) == ["host", "seen", "text"]
    delivery.take()
    assert all(delivery.store.digest(kind, key) == sha for kind, key, sha in delivery.entries)


@pytest.mark.parametrize("kind", ["slice", "abi", "host", "text", "seen", "ptx", "stub"])
def test_another_key_is_refused(delivery: Delivery, kind: str) -> None:
    """Under a key of its choice, a worker could put code where other units' code is looked up."""
    delivery.rename(delivery.one(kind), kind, OTHER)
    assert "keys" in delivery.refused() or kind == "text"


@pytest.mark.parametrize("kind", ["slice", "abi", "host", "text", "seen", "ptx", "stub"])
def test_a_missing_entry_is_refused(delivery: Delivery, kind: str) -> None:
    delivery.leave_out(delivery.one(kind))
    delivery.refused()


@pytest.mark.parametrize("kind", ["slice", "abi", "host", "text", "seen", "ptx", "stub"])
def test_other_bytes_than_the_digest_says_are_refused(delivery: Delivery, kind: str) -> None:
    name = "/".join(delivery.entries[delivery.one(kind)][:2])
    delivery.files[name] += b" "
    assert "does not match" in delivery.refused()


def test_a_kind_that_jobs_do_not_make_is_refused(delivery: Delivery) -> None:
    delivery.files[f"wheel/{OTHER}"] = b"a wheel"
    delivery.entries.append(("wheel", OTHER, hashlib.sha256(b"a wheel").hexdigest()))
    assert "'wheel'" in delivery.refused()


def test_what_is_not_listed_is_refused(delivery: Delivery) -> None:
    delivery.files[f"slice/{OTHER}"] = b""
    assert "other entries" in delivery.refused()


def test_a_listed_entry_that_did_not_come_is_refused(delivery: Delivery) -> None:
    kind, key, _ = delivery.entries[0]
    del delivery.files[f"{kind}/{key}"]
    assert "other entries" in delivery.refused()


def test_another_text_has_other_keys(delivery: Delivery) -> None:
    """Who says that the text was another says that the slice is another's."""
    delivery.change("text", lambda found: [{**found[0], "text": OTHER}])
    assert "other keys" in delivery.refused()


@pytest.mark.parametrize(
    "bad",
    [{}, [], [{}], [{"text": "x", "archlist": None, "files": []}], "text", None, [[1]]],
)
def test_a_record_of_a_text_that_is_none_is_refused(delivery: Delivery, bad: Any) -> None:
    delivery.change("text", lambda found: bad)
    assert "not a valid record" in delivery.refused()


@pytest.mark.parametrize(
    "bad",
    [
        {}, [], {"kernels": {}, "managed": []}, {"kernels": {}, "managed": [], "stub": "no digest"},
        {"kernels": {"k": 1}, "managed": [], "stub": OTHER},
        {"kernels": {}, "managed": [{}], "stub": OTHER},
        {"kernels": {}, "managed": [], "stub": OTHER, "more": 1},
    ],
)  # fmt: skip
def test_a_record_of_a_slice_that_is_none_is_refused(delivery: Delivery, bad: Any) -> None:
    delivery.change("abi", lambda found: bad)
    assert "not a valid record" in delivery.refused()


def test_slices_of_one_front_with_two_stubs_are_refused(delivery: Delivery) -> None:
    delivery.change("abi", lambda found: {**found, "stub": OTHER})
    assert "several stubs" in delivery.refused()


def test_seen_is_true_or_nothing(delivery: Delivery) -> None:
    delivery.change("seen", lambda found: "false")
    assert "'seen'" in delivery.refused()


def test_a_text_of_other_headers_is_refused(delivery: Delivery, tmp_path: Path) -> None:
    """A worker with another libc has other texts: nobody here would ever look for their keys."""
    header = tmp_path / "header.h"
    header.write_text("int here;\n")
    there = hashlib.sha256(b"int there;\n").hexdigest()

    def with_header(found: Any) -> Any:
        return [{**found[0], "files": [*found[0]["files"], [str(header), there, False]]}]

    delivery.change("text", with_header)
    assert f"{header} is another file there" in delivery.refused(ToolchainError)


@pytest.mark.parametrize("archlist", [[800, 860], [800], []])
def test_a_text_depends_on_the_list_of_architectures_or_not(
    delivery: Delivery, archlist: list[int]
) -> None:
    """This one does not; with a list, it would be looked up under no other."""
    delivery.change("text", lambda found: [{**found[0], "archlist": archlist}])
    assert "another list" in delivery.refused()


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/proc/self/fd/0", "/"])
def test_files_that_a_text_names_are_only_read_if_they_are_files(
    delivery: Delivery, name: str
) -> None:
    def naming(found: Any) -> Any:
        return [{**found[0], "files": [*found[0]["files"], [name, OTHER, False]]}]

    delivery.change("text", naming)
    assert name in delivery.refused(ToolchainError)


# -- stages ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Stages:
    """The stages of a job: its front, taken in here, and what follows it on another machine."""

    made: Delivery
    folder: Path
    number: int = 0

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "here", 1 << 40, self.made.context.store_scope)
        self.left = self.take(self._job("front", ("compute_80",), host=False), {})

    def _job(self, stage: Stage, codes: tuple[str, ...], host: bool) -> Job:
        assert self.made.job.front
        front = Front(self.made.job.front.virtual, codes)
        return dataclasses.replace(self.made.job, front=front, host=host, stage=stage)

    def later(self, stage: Stage) -> Job:
        """The job of a stage that follows the front."""
        if stage == "host":
            return self._job("host", (), host=True)
        return self._job("ptxas", ("sm_80",), host=False)

    def deliver(self, job: Job, before: Mapping[tuple[str, str], bytes]) -> Delivery:
        self.number += 1
        delivery = Delivery(self.made.context, job, self.folder / str(self.number), before)
        delivery.store = self.store
        return delivery

    def take(
        self, job: Job, before: Mapping[tuple[str, str], bytes]
    ) -> dict[tuple[str, str], bytes]:
        delivery = self.deliver(job, before)
        delivery.take()
        assert all(self.store.digest(kind, key) == sha for kind, key, sha in delivery.entries)
        return {(kind, key): delivery.files[f"{kind}/{key}"] for kind, key, _ in delivery.entries}


@pytest.fixture
def stages(made: Delivery, tmp_path: Path) -> Stages:
    return Stages(made, tmp_path)


def test_what_stages_made_comes_into_the_store(stages: Stages, delivery: Delivery) -> None:
    found = [stages.take(stages.later(stage), stages.left) for stage in ("ptxas", "host")]
    kinds = [sorted(kind for kind, _ in one) for one in found]
    assert kinds == [["abi", "slice"], ["host", "seen", "text"]]
    assert {(kind, key) for one in (stages.left, *found) for kind, key in one} == {
        (kind, key) for kind, key, _ in delivery.entries
    }


@pytest.mark.parametrize("stage", ["ptxas", "host"])
def test_a_stage_whose_front_did_not_come_ran_it_once_more(stages: Stages, stage: Stage) -> None:
    found = stages.take(stages.later(stage), {})
    assert {kind for kind, _ in found} >= {"ptx", "stub", "text", "seen"}


@pytest.mark.parametrize(("stage", "kind"), [("ptxas", "slice"), ("host", "host")])
def test_a_stage_under_another_key_is_refused(stages: Stages, stage: Stage, kind: str) -> None:
    """The host object's key holds the digest of a stub that is known here alone."""
    delivery = stages.deliver(stages.later(stage), stages.left)
    delivery.rename(delivery.one(kind), kind, OTHER)
    with pytest.raises(EngineError, match="other keys"):
        delivery.take()


def test_a_stub_that_is_not_the_slices_is_refused(delivery: Delivery) -> None:
    delivery.put(delivery.one("stub"), b"another")
    assert "several stubs" in delivery.refused()
