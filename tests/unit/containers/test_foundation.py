"""What images are built on: fetched by its digest, and looked at before."""

from __future__ import annotations

from typing import Any

import pytest
from docker import errors as docker_errors

from fatwheel.containers.client import DockerEngine
from fatwheel.containers.imagebuild import ready_base
from fatwheel.errors import EngineError, ToolchainError
from fatwheel.events import Event, silent

BASE = "python:3.11-bookworm@sha256:" + "1" * 64


class Api:
    """An engine with one image, or with what it pulls."""

    def __init__(self, config: dict[str, Any] | None = None, *answers: dict[str, str]) -> None:
        self.config = config
        self.answers = answers
        self.pulled: list[tuple[str, str, str]] = []
        self.architecture = "amd64"
        self.error: Exception | None = None

    def inspect_image(self, name: str) -> dict[str, Any]:
        if self.config is None:
            raise docker_errors.ImageNotFound("No such image")
        return {"Id": "sha256:" + "2" * 64, "Size": 1, "Config": self.config,
                "Architecture": self.architecture}  # fmt: skip

    def pull(
        self, repository: str, tag: str, platform: str, **options: Any
    ) -> tuple[dict[str, str], ...]:
        self.pulled.append((repository, tag, platform))
        if self.error:
            raise self.error
        if not any("error" in answer for answer in self.answers):
            self.config = {}
        return self.answers


def ready(
    api: Api,
    base: str = BASE,
    os: str = "linux",
    emit: Any = silent,
    platform: str = "linux-x86_64",
) -> None:
    engine = DockerEngine(api=api, endpoint="unix:///made-up", os=os, memory=1)  # type: ignore[arg-type]
    ready_base(engine, base, platform, emit)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"OnBuild": None, "Shell": None},
        {"OnBuild": [], "Env": ["PATH=/usr/bin", "PYTHON_VERSION=3.11.9"], "Cmd": ["python3"]},
        {"Shell": ["/bin/sh", "-c"], "Entrypoint": ["/entry"], "User": "", "WorkingDir": "/x"},
    ],
)
def test_usual_bases_are_good(config: dict[str, Any]) -> None:
    api = Api(config)
    ready(api)
    assert api.pulled == [], "what is there is not fetched"


def test_the_usual_shell_of_windows() -> None:
    ready(Api({"Shell": ["cmd", "/S", "/C"]}), os="windows")
    with pytest.raises(ToolchainError, match="SHELL"):
        ready(Api({"Shell": ["powershell", "-Command"]}), os="windows")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"OnBuild": ["RUN cp -r . /stolen"]}, "ONBUILD RUN cp -r . /stolen"),
        ({"OnBuild": ["ADD \x1b[2J\nx y"]}, "ONBUILD ADD \\x1b[2J x y"),
        ({"OnBuild": ["RUN " + "a" * 10_000] * 1000}, "ONBUILD RUN aaaa"),
        ({"Shell": ["/evil", "-c"]}, "SHELL ['/evil', '-c']"),
        ({"Volumes": {"/data": {}}}, "VOLUME /data"),
    ],
)
def test_what_would_act_on_our_builds_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolchainError) as caught:
        ready(Api(config))
    assert caught.value.where == BASE
    assert caught.value.details[0].startswith(said)
    assert len(str(caught.value)) < 2000
    assert "FATWHEEL_BASES" in str(caught.value.hint)


def test_what_is_missing_is_fetched_by_its_digest() -> None:
    events: list[Event] = []
    api = Api(None, {"status": "Pulling"})
    ready(api, emit=events.append)
    assert api.pulled == [("python:3.11-bookworm", "sha256:" + "1" * 64, "linux/amd64")]
    assert BASE in str(events[0])


def test_it_is_for_the_toolchain_s_processor() -> None:
    api = Api(None, {"status": "Pulling"})
    api.architecture = "arm64"
    ready(api, platform="linux-aarch64")
    assert api.pulled[0][2] == "linux/arm64"
    with pytest.raises(ToolchainError, match="for another processor: arm64, and not amd64"):
        ready(api)
    with pytest.raises(ToolchainError, match="for another processor: arm64, and not riscv64"):
        ready(api, platform="linux-riscv64")


def test_nothing_is_fetched_by_a_mere_name() -> None:
    api = Api(None)
    with pytest.raises(EngineError, match="can neither find nor fetch the base image my-base:1"):
        ready(api, "my-base:1")
    assert api.pulled == []


SAID = [
    'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on '
    "10.0.0.1:53: read udp: i/o timeout",
    "pull access denied for nobody/nothing, repository does not exist or may require 'docker "
    "login'",
    "manifest for python@sha256:1 not found: manifest unknown: manifest unknown",
]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("streamed", [True, False])
def test_a_base_that_cannot_be_fetched(said: str, streamed: bool) -> None:
    """Engines say so in the answer, or refuse the request."""
    api = Api(None, {"status": "Pulling"}, {"error": said})
    if not streamed:
        api.error = docker_errors.APIError("500", explanation=said)  # type: ignore[no-untyped-call]
    with pytest.raises(EngineError) as caught:
        ready(api)
    assert f"can neither find nor fetch the base image {BASE}" in caught.value.what
    assert said in caught.value.details
    assert "docker load" in str(caught.value.hint)
    assert "FATWHEEL_BASES" in str(caught.value.hint)


def test_a_base_of_another_system() -> None:
    said = "no matching manifest for linux/amd64 in the manifest list entries"
    with pytest.raises(EngineError, match="does not match the engine's host") as caught:
        ready(Api(None, {"error": said}))
    assert said in caught.value.details


def test_an_engine_that_goes_away() -> None:
    api = Api(None)
    api.error = ConnectionError("gone")
    with pytest.raises(EngineError, match="cannot fetch the base image"):
        ready(api)
