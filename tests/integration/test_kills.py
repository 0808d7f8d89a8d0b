"""SIGKILL at any moment: the next run ends as if nothing had been, and nothing is left. How often:
see `kills`."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from .conftest import Outcome, Workbench
from .kills import Victim, assert_clean, chance, each_number, left_of_killed, number_of
from .test_builds import sha256

__all__ = ["chance"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(12 * 3600)]

ARCHS = "80,86"
_FINISHED = re.compile(r"^\[\d+/\d+\] (.+?) \d", re.MULTILINE)


# -- builds --------------------------------------------------------------------------------------


@each_number
def test_killed_builds_go_on_where_they_were(
    warm: Workbench, bench: Workbench, chance: random.Random, kills: int
) -> None:
    """Nothing that was reported as finished is compiled again; the same bytes each time around."""
    reference = sha256(warm.build("--arch", ARCHS).wheel())
    command = bench.build_command("--arch", ARCHS)
    victim = Victim(command, bench.variables(), bench.cache / "killed.log", longest=5)
    finished: list[str] = []
    while victim.killed < number_of(kills, 0.4):
        before = victim.killed
        finished += _FINISHED.findall(victim.kill(chance))
        assert {sha256(wheel) for wheel in bench.wheels()} <= {reference}, "an unfinished wheel"
        if victim.killed == before:  # it came to its end
            finished = ended_well(bench, reference, finished)
    ended_well(bench, reference, finished)


def ended_well(bench: Workbench, reference: str, finished: list[str]) -> list[str]:
    """Let a build end, look at what is there, and begin anew."""
    last = bench.build("--arch", ARCHS)
    assert sha256(last.wheel()) == reference
    finished = [*finished, *_FINISHED.findall(last.err)]
    again = sorted({label for label in finished if finished.count(label) > 1})
    assert not again, f"compiled although it had finished: {again}"
    if left_of_killed(bench):
        # What a killed build had just started may have outlived the beginning of this one.
        assert sha256(bench.build("--arch", ARCHS).wheel()) == reference
    assert_clean(bench)
    cleaned = bench.invoke("cache", "--clean")
    assert cleaned.code == 0, cleaned.err
    bench.forget_wheels()
    return []


@each_number
def test_the_store_s_housekeeping_is_killed_while_builds_run(
    warm: Workbench, tmp_path: Path, chance: random.Random, kills: int
) -> None:
    reference = sha256(warm.build("--arch", ARCHS).wheel())
    variables, logs = warm.variables(), tmp_path / "logs"
    logs.mkdir()
    victims = [
        Victim(warm.command("cache", *words), variables, logs / f"{number}.log", longest=1.5)
        for number, words in enumerate((["--check"], ["--limit", "200KiB"], ["--clean"], []))
    ]
    build = Victim(warm.build_command("--arch", ARCHS), variables, logs / "build.log", longest=6)
    beside = build.start()
    while sum(victim.killed for victim in victims) < number_of(kills, 0.2):
        chance.choice(victims).kill(chance)
        if beside.poll() is not None or chance.random() < 0.2:
            beside.kill()
            beside.wait()
            assert "Traceback" not in build.log.read_text(errors="replace")
            warm.forget_wheels()
            beside = build.start()
    beside.kill()
    beside.wait()
    time.sleep(2)  # its workers end with it
    warm.forget_wheels()
    assert sha256(warm.build("--arch", ARCHS).wheel()) == reference
    assert_clean(warm)


# -- thin ----------------------------------------------------------------------------------------


@each_number
def test_killed_thinning(
    selftest: tuple[Workbench, Outcome], bench: Workbench, chance: random.Random, kills: int
) -> None:
    wheel = selftest[1].wheel()
    words = ["thin", str(wheel), "--arch", "86"]
    reference = sha256(bench.wheel_in(bench.cache.parent / "reference", *words))
    command = bench.command(*words, "--out", str(bench.out))
    victim = Victim(command, bench.variables(), bench.cache / "killed.log", longest=1.5)
    while victim.killed < number_of(kills, 0.2):
        victim.kill(chance)
        assert {sha256(path) for path in bench.wheels()} <= {reference}, "an unfinished wheel"
    assert sha256(bench.wheel_in(bench.out, *words)) == reference
    assert [path.name for path in bench.out.iterdir()] == [bench.wheels()[0].name]
