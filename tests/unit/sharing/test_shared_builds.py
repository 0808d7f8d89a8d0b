"""Two machines that share a remote: the second compiles nothing, and nobody is believed blindly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from fatwheel.config.sourcetree import tree_digest
from fatwheel.engines import dask, daskworker
from fatwheel.engines.local import LocalWorkplace
from fatwheel.errors import CompileError, StoppedError
from fatwheel.provenance.signing import load_key, load_signer
from fatwheel.sharing.parcel import Trust
from fatwheel.sharing.uses import all_uses

from ...helpers.sharingbench import Bench, FakePlace, failing
from ...helpers.signingkeys import Keys

ALL = ["csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


# -- what is shared --------------------------------------------------------------------------------


def test_the_second_machine_compiles_nothing_and_makes_the_same_wheel(bench: Bench) -> None:
    alone = bench.build("alone")
    bench.shared()
    first = bench.build("one")
    assert bench.compiled == ALL
    before = bench.nvcc_calls()
    bench.shared()
    second = bench.build("two")
    assert bench.compiled == []
    assert bench.nvcc_calls() == before, "nothing is preprocessed either"
    assert (second.hits, second.compiled) == (4, 0)
    assert alone.sha256 == first.sha256 == second.sha256
    costs = bench.folder / "two" / "store" / "refs" / "cost"
    assert len(list(costs.glob("*/*"))) == 5, "what each job cost is known there, too"


def test_what_dasks_workers_compile_is_there_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FATWHEEL_SCHEDULER", raising=False)
    for module in (dask, daskworker):
        monkeypatch.setattr(module, "ready_tools", bench.ready_tools)
    bench.shared()
    first = bench.build("one", engine="dask")
    assert bench.compiled == ALL
    bench.shared()
    second = bench.build("two")
    assert bench.compiled == []
    assert first.sha256 == second.sha256
    bench.shared()
    assert bench.build("three", engine="dask").sha256 == first.sha256
    assert bench.compiled == []


def test_only_what_the_remote_lacks_is_compiled(bench: Bench) -> None:
    bench.shared()
    bench.build("one", "80")
    bench.shared()
    bench.build("two", "80,86")
    assert bench.compiled == ["csrc/a [sm_86]", "csrc/b [sm_86]"]
    bench.shared()
    bench.build("three", "80,86")
    assert bench.compiled == [], "what the second added is there too"


def test_an_edit_makes_its_unit_alone_anew(bench: Bench) -> None:
    bench.shared()
    bench.build("one")
    bench.write("csrc/a.cu", "int changed;\n")
    source = dataclasses.replace(bench.recipe.source, sha256=tree_digest(bench.source))
    bench.recipe = dataclasses.replace(bench.recipe, source=source)
    bench.shared()
    bench.build("two")
    assert bench.compiled == ["csrc/a [sm_80]", "csrc/a [sm_86]"]


def test_a_machine_with_other_headers_preprocesses_and_still_compiles_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own may decide a text although they are in none (`__has_include`)."""
    place = FakePlace()
    bench.shared(place)
    bench.build("one")
    monkeypatch.setattr(LocalWorkplace, "surroundings", "others")
    place.asked.clear()
    bench.shared(place)
    bench.build("two")
    assert bench.compiled == []
    came = {name for what, name in place.asked if what == "read" and name in place.files}
    assert {name.split("/")[2] for name in came} == {"seen", "slice", "host"}


def test_a_folder_is_the_same_project_wherever_it_lies(bench: Bench) -> None:
    bench.shared()
    bench.build("one")
    moved = bench.folder / "elsewhere" / "demo"
    moved.parent.mkdir()
    (bench.folder / "kernels" / "demo").rename(moved)
    bench.recipe = dataclasses.replace(bench.recipe, folder=moved)
    bench.shared()
    bench.build("two")
    assert bench.compiled == []


def test_host_objects_for_the_machines_own_processor_stay_there(bench: Bench) -> None:
    backend = (bench.source / "own_backend.py").read_text()
    bench.write("own_backend.py", backend.replace('"-g"]', '"-g", "-march=native"]'))
    assert "-march=native" in (bench.source / "own_backend.py").read_text()
    source = dataclasses.replace(bench.recipe.source, sha256=tree_digest(bench.source))
    bench.recipe = dataclasses.replace(bench.recipe, source=source)
    bench.shared()
    bench.build("one")
    assert len(bench.parcels("host")) == 2, "those of CUDA units, which are for no processor"
    bench.shared()
    bench.build("two")
    assert bench.compiled == ["csrc/c"]


def test_what_compiled_before_a_failure_is_there_for_others(bench: Bench) -> None:
    bench.write("csrc/b.cu", "#error not yet\n")
    bench.shared()
    with pytest.raises(CompileError):
        bench.build("one")
    bench.shared()
    with pytest.raises(CompileError):
        bench.build("two")
    assert bench.compiled == []


def test_what_was_compiled_in_time_is_there_for_others(bench: Bench) -> None:
    bench.shared()
    with pytest.raises(StoppedError):
        bench.build("one", stop_after=0.01, jobs=1)
    assert bench.parcels() == []
    bench.shared()
    bench.build("two")
    assert bench.compiled == ALL


def test_reading_leaves_the_remote_as_it_is(bench: Bench) -> None:
    bench.shared(writes=False)
    bench.build("fork")
    assert bench.compiled == ALL
    assert bench.parcels() == []
    assert any("0 parcels came" in note and "went" not in note for note in bench.notes)


# -- how much is asked -----------------------------------------------------------------------------


def test_requests_are_few_and_none_is_made_twice(bench: Bench) -> None:
    place = FakePlace()
    bench.shared(place)
    bench.build("one")
    # Three passes of texts and of what was seen; then every slice and host object once.
    assert place.count("write") == 3 + 3 + 4 + 3
    place.asked.clear()
    bench.shared(place)
    bench.build("two")
    assert place.count("read") == 3 + 3 + 4 + 3
    assert len(set(place.asked)) == len(place.asked)
    use = all_uses()["the remote"]
    assert (use.builds, use.found, use.refused, use.written) == (1, 13, 0, 0)
    assert use.bytes_in == sum(map(len, place.files.values()))
    place.asked.clear()
    bench.shared(place)
    bench.build("two")
    assert place.asked == [], "the finished wheel is in the machine's own store"


# -- remotes that fail -----------------------------------------------------------------------------


def test_offline_is_no_error_and_is_said_once(bench: Bench) -> None:
    place = FakePlace(reads=failing("there is no connection", away=True))
    bench.shared(place)
    bench.build("one")
    assert bench.compiled == ALL
    said = [note for note in bench.notes if "goes on without the remote" in note]
    assert said == ["the build goes on without the remote: there is no connection"]
    assert place.asked == place.asked[:1], "one request, and nobody waits again"


def test_a_full_remote_is_read_on(bench: Bench) -> None:
    place = FakePlace()
    bench.shared(place)
    bench.build("one", "80")
    place.writes = failing("it is full: 507 Insufficient Storage")
    bench.shared(place)
    bench.build("two", "80,86")
    assert bench.compiled == ["csrc/a [sm_86]", "csrc/b [sm_86]"]
    [said] = [note for note in bench.notes if "it is full" in note]
    assert said.startswith("nothing more is written to the remote in this build")


def test_a_network_that_is_cut_in_the_middle(bench: Bench) -> None:
    place = FakePlace()
    bench.shared(place)
    expected = bench.build("one")

    def cut(name: str) -> None:
        if place.count("read", "host"):
            failing("the connection broke off", away=True)(name)

    place.asked.clear()
    place.reads = cut
    bench.shared(place)
    made = bench.build("two")
    assert bench.compiled, "host objects at least"
    assert sum("broke off" in note for note in bench.notes) == 1
    assert made.sha256 == expected.sha256


LIES: dict[str, Callable[[bytes], bytes]] = {
    "are not those that it names": lambda data: _with_body_of(data, b"x" * 4096),
    "it cannot be unpacked": lambda data: data[:-9] + b"x" * 9,
    "this is not a parcel": lambda data: b"<html>sign in, please</html>\n",
    "it has the format 7, and this fatwheel reads 1": lambda data: data.replace(b"1", b"7", 1),
}


def _with_body_of(data: bytes, body: bytes) -> bytes:
    first, head, _ = data.split(b"\n", 2)
    return b"\n".join((first, head, zstandard.compress(body)))


def test_what_is_not_what_it_says_is_refused_by_name(bench: Bench) -> None:
    place = FakePlace()
    bench.shared(place)
    expected = bench.build("one")
    slices = sorted(name for name in place.files if "/slice/" in name)
    for name, lie in zip(slices, LIES.values(), strict=True):
        place.files[name] = lie(place.files[name])
    bench.shared(place)
    made = bench.build("two")
    assert (made.compiled, made.sha256) == (4, expected.sha256)
    refused = sorted(note for note in bench.notes if "is refused, and made here" in note)
    for note, name, said in zip(refused, slices, LIES, strict=True):
        assert note.startswith(f"slice/{name.rpartition('/')[2]} of the remote")
        assert said in note


# -- signatures ------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Keys:
    return Keys(tool("openssl"), tmp_path_factory.mktemp("keys"))


def _trust(keys: Keys, number: int, *trusted: int) -> Trust:
    public = [load_key(keys.pair("ed25519", one).public) for one in trusted]
    return Trust(load_signer(keys.pair("ed25519", number).private), tuple(public))


def test_what_the_team_signed_is_taken(bench: Bench, keys: Keys) -> None:
    bench.trust = _trust(keys, 0, 0, 1)
    bench.shared()
    bench.build("one")
    bench.trust = Trust(None, bench.trust.keys)
    bench.shared(writes=False)
    bench.build("reader")
    assert bench.compiled == []
    bench.trust = _trust(keys, 1, 0, 1)
    bench.shared()
    bench.build("two")
    assert bench.compiled == []


@pytest.mark.parametrize("number", [None, 7], ids=["unsigned", "another key"])
def test_what_somebody_else_left_is_refused(bench: Bench, keys: Keys, number: int | None) -> None:
    """A whole cache of theirs, in which every digest is right."""
    bench.trust = Trust() if number is None else _trust(keys, number, number)
    bench.shared()
    bench.build("poisoner")
    bench.trust = _trust(keys, 0, 0)
    bench.shared()
    bench.build("team")
    assert bench.compiled == ALL
    [texts, *_] = [note for note in bench.notes if "is refused" in note]
    assert texts.startswith("texts/")
    assert "not signed" in texts


def test_a_signed_entry_that_was_changed_is_refused_by_name(bench: Bench, keys: Keys) -> None:
    bench.trust = _trust(keys, 0, 0)
    bench.shared()
    expected = bench.build("one")
    poisoned, *others = bench.parcels("slice")
    first, head, body = poisoned.read_bytes().split(b"\n", 2)
    bodies = [one.read_bytes().split(b"\n", 2)[2] for one in others]
    other = next(one for one in bodies if one != body)  # two units have the same slices
    poisoned.write_bytes(b"\n".join([first, head, other]))
    bench.shared()
    made = bench.build("two")
    assert (made.compiled, made.sha256) == (1, expected.sha256)
    assert any(f"slice/{poisoned.name} of the remote is refused" in one for one in bench.notes)
