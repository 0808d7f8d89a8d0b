"""Which images an engine has: by the tags that building them would give."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from docker import errors as docker_errors

from fatwheel.containers.client import DockerEngine
from fatwheel.containers.contexts import contexts_of
from fatwheel.containers.layouts import EngineFacts
from fatwheel.doctor.engine import ask_images, own_bases
from fatwheel.doctor.facts import ImageFacts, Trouble

from ...helpers.toolchains import shipped_toolchain
from ...helpers.workstations import LINUX_ENGINE, SHA, WINDOWS_ENGINE

TOOLCHAIN = shipped_toolchain("linux-cuda13.0")
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


# -- the Windows in an image ---------------------------------------------------------------------

WINDOWS = shipped_toolchain("windows-msvc17.8-cuda12.3")
TOOLS, _ = contexts_of(WINDOWS, "3.11", "2.1.1", {})


def asked(said: dict[str, Any], *tags: str) -> ImageFacts:
    """What is found on an engine that describes these images so; those of tags are ours."""

    def inspect_image(name: str) -> dict[str, Any]:
        if name not in said:
            raise docker_errors.ImageNotFound("no such image")
        return {"OsVersion": said[name]}

    known = {field.name: getattr(WINDOWS_ENGINE.facts, field.name) for field in fields(EngineFacts)}
    api: Any = SimpleNamespace(inspect_image=inspect_image)
    engine = DockerEngine(**known, api=api, endpoint="npipe:////./pipe/docker_engine")
    view = replace(WINDOWS_ENGINE, facts=engine, images=dict.fromkeys(tags, "sha256:1"))
    found = ask_images(WINDOWS, "3.11", view)
    assert isinstance(found, ImageFacts)
    return found


def test_the_revision_is_that_of_the_image_that_is_there() -> None:
    assert asked({}).revision == 0
    assert asked({TOOLS.base: "10.0.20348.2966"}).revision == 2966
    both = {TOOLS.base: "10.0.20348.2966", TOOLS.tag: "10.0.20348.2340"}
    assert asked(both, TOOLS.tag).revision == 2340, "containers are made of it"


@pytest.mark.parametrize("said", ["", None, 5, "10.0.20348", "linux", "10.0.20348.٢٣٤٠"])
def test_a_version_that_is_none(said: Any) -> None:
    assert asked({TOOLS.base: said}).revision == 0
