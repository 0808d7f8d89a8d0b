"""What a build writes down of its containers, and what is read of it when the build is gone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers.roster import Roster, enrolled, read_rosters, this_host
from fatwheel.errors import StoreError
from fatwheel.storage.cache import work_folder

ENGINE = "unix:///engine.sock"
ID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def living() -> Iterator[Roster]:
    """That of a build which lives as long as the block."""
    with work_folder() as work, enrolled("some-build", work, ENGINE) as roster:
        yield roster


def listed(container: str, *names: str) -> dict[str, Any]:
    """As an engine lists it."""
    return {"Id": container, "Names": [f"/{name}" for name in names]}


def files(cache: Path) -> list[Path]:
    return sorted((cache / "containers").iterdir())


def test_nobody_else_reads_it(cache: Path) -> None:
    before = os.umask(0)
    try:
        with living():
            [file] = files(cache)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_labels_tell_people_whose_it_is(cache: Path) -> None:
    with living() as roster:
        [file] = files(cache)
        assert roster.labels == {
            "fatwheel": "some-build",
            "fatwheel.cache": str(cache),
            "fatwheel.host": this_host(),
        }
        assert file.name not in str(roster.labels)


def test_it_goes_with_the_last_container(cache: Path) -> None:
    with living() as roster:
        for container in (ID, OTHER):
            name = roster.announce()
            roster.made(name, container)
            roster.ended(name)
        assert len(files(cache)) == 1
    assert files(cache) == []


def test_it_stays_where_a_container_does(cache: Path) -> None:
    with living() as roster:
        names = [roster.announce() for _ in range(3)]
        roster.made(names[0], ID)
        roster.made(names[1], OTHER)
        roster.ended(names[0])
    [found] = read_rosters(cache, ENGINE)
    assert found.gone
    assert found.ids == {ID, OTHER}
    assert found.names == {names[2]}
    assert len(set(names)) == 3


def test_an_id_counts_and_a_name_only_without_one(cache: Path) -> None:
    """Whoever sees a container's name can give it to another, once that is gone."""
    with living() as roster:
        first, second = roster.announce(), roster.announce()
        roster.made(first, ID)
        [found] = read_rosters(cache, ENGINE)
        assert not found.gone
        assert found.has(listed(ID, first))
        assert found.has(listed(ID, "renamed"))
        assert not found.has(listed(OTHER, first))
        assert found.has(listed(OTHER, second)), "made, and not put down yet"
        assert not found.has(listed(OTHER))


def test_it_outlives_the_work_folder_of_a_killed_build(cache: Path) -> None:
    with living() as roster:
        roster.made(roster.announce(), ID)
    with work_folder():
        [found] = read_rosters(cache, ENGINE)
    assert found.gone


def test_builds_elsewhere_are_not_ours_to_judge(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with living() as roster:
        roster.made(roster.announce(), ID)
    assert read_rosters(cache, "tcp://another:2375") == []
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert read_rosters(cache, ENGINE) == []


@pytest.mark.parametrize("work", ["", "..", "build-1/../..", "/etc", "build-", "lock", "build-é"])
def test_a_work_folder_is_one_of_this_cache(cache: Path, work: str) -> None:
    (cache / "containers").mkdir(parents=True)
    head = {"work": work, "engine": ENGINE, "host": this_host()}
    (cache / "containers" / ("0" * 32)).write_text(json.dumps(head) + "\n")
    assert read_rosters(cache, ENGINE) == []


def test_what_cannot_be_known_is_not_gone(cache: Path, tmp_path: Path) -> None:
    with living() as roster:
        roster.made(roster.announce(), ID)
    [file] = files(cache)
    work = json.loads(file.read_text().splitlines()[0])["work"]
    (tmp_path / "elsewhere").mkdir()
    (cache / "work" / work).symlink_to(tmp_path / "elsewhere")
    [found] = read_rosters(cache, ENGINE)
    assert not found.gone


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 100_000, b'{"work": "build-1"}\n']
)
def test_what_is_no_roster_is_passed_over(cache: Path, content: bytes) -> None:
    (cache / "containers").mkdir(parents=True)
    (cache / "containers" / ("0" * 32)).write_bytes(content)
    assert read_rosters(cache, ENGINE) == []


def test_links_pipes_and_other_files_are_not_read(cache: Path, tmp_path: Path) -> None:
    with living() as roster:
        roster.made(roster.announce(), ID)
    [file] = files(cache)
    file.rename(tmp_path / "roster")
    file.symlink_to(tmp_path / "roster")
    (file.parent / "notes").write_bytes((tmp_path / "roster").read_bytes())
    os.mkfifo(file.parent / ("1" * 32))
    assert read_rosters(cache, ENGINE) == []


def test_lines_that_are_cut_off_say_nothing(cache: Path) -> None:
    with living() as roster:
        roster.made(roster.announce(), ID)
    [file] = files(cache)
    with file.open("a") as stream:
        stream.write(f"fatwheel-{'0' * 32} {OTHER[:40]}\nfatwheel-12\n{OTHER}\n")
    [found] = read_rosters(cache, ENGINE)
    assert (found.ids, found.names) == ({ID}, frozenset())


def test_a_roster_is_kept_while_the_engine_may_still_make_a_container(cache: Path) -> None:
    with living() as roster:
        roster.announce()
    [file] = files(cache)
    [found] = read_rosters(cache, ENGINE)
    found.drop()
    assert file.exists()
    os.utime(file, (0, 0))
    found.drop()
    assert not file.exists()


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.mkdir()
    (cache / "containers").write_text("")
    with pytest.raises(StoreError) as caught, living():
        pass
    assert "FATWHEEL_CACHE" in (caught.value.hint or "")
