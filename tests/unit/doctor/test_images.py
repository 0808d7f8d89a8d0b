"""Which images an engine has: by the tags that building them would give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.config.load import load_toolchain
from fatwheel.containers.contexts import contexts_of
from fatwheel.doctor.engine import ask_images, own_bases
from fatwheel.doctor.facts import ImageFacts, Trouble
from fatwheel.shipped import TOOLCHAINS

from ...helpers.workstations import LINUX_ENGINE, SHA, WINDOWS_ENGINE

TOOLCHAIN = load_toolchain("linux-cuda13.0", TOOLCHAINS)
TAGS = [context.tag for context in contexts_of(TOOLCHAIN, "3.11", TOOLCHAIN.default_torch, {})]


@pytest.fixture(autouse=True)
def no_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FATWHEEL_BASES", raising=False)


def test_what_is_there() -> None:
    assert ask_images(TOOLCHAIN, "3.11", LINUX_ENGINE) == ImageFacts(tuple(TAGS), ())
    half = replace(LINUX_ENGINE, images={TAGS[0]: "sha256:1", "other:latest": "sha256:2"})
    assert ask_images(TOOLCHAIN, "3.11", half) == ImageFacts(tuple(TAGS), (TAGS[0],))


def test_where_there_can_be_none() -> None:
    assert ask_images(TOOLCHAIN, "3.11", WINDOWS_ENGINE) is None
    assert ask_images(replace(TOOLCHAIN, containers=None), "3.11", LINUX_ENGINE) is None


def test_a_base_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_BASES", "3.11=my-base")
    assert own_bases() == {"3.11"}
    missing = ask_images(TOOLCHAIN, "3.11", LINUX_ENGINE)
    assert isinstance(missing, Trouble)
    assert "my-base" in missing.what
    there = replace(LINUX_ENGINE, images={"my-base:latest": f"sha256:{SHA}"})
    found = ask_images(TOOLCHAIN, "3.11", there)
    assert isinstance(found, ImageFacts)
    assert set(found.wanted).isdisjoint(TAGS), "another base gives other images"


def test_a_variable_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_BASES", "nonsense")
    assert isinstance(ask_images(TOOLCHAIN, "3.11", LINUX_ENGINE), Trouble)
    assert own_bases() == frozenset()
