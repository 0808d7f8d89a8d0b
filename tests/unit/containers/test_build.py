"""Building images, on an engine that is made up; tests/integration has a real one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from docker import errors as docker_errors

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import LockedInterpreter, LockedMsvc, Toolchain
from fatwheel.containers import render
from fatwheel.containers.client import DockerEngine
from fatwheel.containers.contexts import VARIABLE, contexts_of
from fatwheel.containers.imagebuild import ensure_images, resolved_bases
from fatwheel.containers.layouts import build_arguments
from fatwheel.errors import EngineError, FetchError, StoreError, ToolchainError, UsageError
from fatwheel.events import Event, Note, Progress, silent
from fatwheel.toolchain.homes import VARIABLE as LICENSE
from fatwheel.toolchain.homes import accept
from fatwheel.toolchain.pipconfig import PipConfig

from .test_render import fetched, small

__all__ = ["fetched"]  # a fixture

TOOLCHAINS = Path(__file__).resolve().parents[3] / "toolchains"
OWN = "sha256:" + "e" * 64
HEADERS = Download("headers", "1", "", "headers.vsix", 3, hashlib.sha256(b"abc").hexdigest())
MSVC = LockedMsvc("17.8.2", "19.38.33130", "14.38", "https://host/terms", (HEADERS,))


class Api:
    """What the SDK's client would answer."""

    def __init__(self) -> None:
        own = {"Id": OWN, "Size": 1}
        self.images: dict[str, dict[str, Any]] = {"own-base": own, OWN: own}
        self.builds: list[dict[str, Any]] = []
        self.sent: list[dict[str, bytes]] = []
        self.answers: list[Mapping[str, Any]] = [{"stream": "Step 1/1 : FROM x\n"}]
        self.keep = True
        self.pulled: list[tuple[str, str]] = []
        self.while_building: Callable[[], None] = lambda: None

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise docker_errors.ImageNotFound("No such image")
        return self.images[name]

    def pull(self, repository: str, tag: str, **options: Any) -> list[dict[str, str]]:
        self.pulled.append((repository, tag))
        self.images[f"{repository}@{tag}"] = {"Id": tag, "Size": 1, "Config": {"Cmd": ["python3"]}}
        return [{"status": "Pulling"}, {"status": "Done"}]

    def build(self, fileobj: Iterator[bytes], **options: Any) -> Iterator[Mapping[str, Any]]:
        self.builds.append(options)
        with tarfile.open(fileobj=io.BytesIO(b"".join(fileobj))) as tar:
            self.sent.append({m.name: tar.extractfile(m).read() for m in tar})  # type: ignore[union-attr]
        self.while_building()
        yield from self.answers
        if self.keep:
            self.images[options["tag"]] = {"Id": f"sha256:{options['tag']}", "Size": 7}


@pytest.fixture
def api() -> Api:
    return Api()


def engine(api: Api, **facts: Any) -> DockerEngine:
    given = {"os": "linux", "memory": 16 << 30, **facts}
    return DockerEngine(api=api, endpoint="unix:///made-up", **given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_own_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def ask(api: Api, cache: Path, toolchain: Toolchain | None = None, emit: Any = silent) -> Any:
    return ensure_images(engine(api), toolchain or small(), "3.11", "2.11.0", cache, emit)


def test_both_images_are_built_from_their_contexts(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    events: list[Event] = []
    images = ask(api, tmp_path, emit=events.append)
    pair = contexts_of(small(), "3.11", "2.11.0", {})
    assert [(image.kind, image.tag, image.built) for image in images] == [
        (context.kind, context.tag, True) for context in pair
    ]
    for context, sent, options in zip(pair, api.sent, api.builds, strict=True):
        assert sent == {
            **dict(context.texts), **{f"files/{file.filename}": b"abc" for file in context.files}
        }  # fmt: skip
        assert options["tag"] == context.tag
        assert options["labels"]["fatwheel"] == "image"
        assert options["network_mode"] == "none"
        assert options["custom_context"] is True
        assert options["timeout"] is None
        assert not {"pull", "remote", "cache_from", "buildargs"} & options.keys()
    assert [f"{repository}@{tag}" for repository, tag in api.pulled] == [pair[0].base]
    notes = [event.text for event in events if isinstance(event, Note)]
    logs = sorted(str(path) for path in (tmp_path / "logs" / "images").iterdir())
    assert len(logs) == 2
    assert all(any(log in note for note in notes) for log in logs)
    assert {e.label for e in events if isinstance(e, Progress)} == {"send to the engine", "image"}


def test_a_base_with_triggers_is_refused_before_anything(
    api: Api, tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "3.11=own-base")
    config = {"OnBuild": ["ADD http://nowhere.invalid/x /", "RUN id"]}
    api.images["own-base"] = api.images[OWN] = {"Id": OWN, "Size": 1, "Config": config}
    with pytest.raises(ToolchainError, match="ONBUILD") as caught:
        ask(api, tmp_path)
    assert caught.value.details[0] == "ONBUILD ADD http://nowhere.invalid/x /"
    assert (api.builds, fetched) == ([], [])


def test_what_is_there_is_not_built_and_nothing_is_fetched(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    tag = ensure_images(engine(api), small(), "3.11", "2.11.0", tmp_path, silent)[-1].tag
    assert tag == contexts_of(small(), "3.11", "2.11.0", {})[1].tag
    count = len(fetched)
    images = ask(api, tmp_path)
    assert [image.built for image in images] == [False, False]
    assert (len(api.builds), len(fetched)) == (2, count)


def test_the_env_image_alone_will_do(api: Api, tmp_path: Path, fetched: list[str]) -> None:
    first, _ = ask(api, tmp_path)
    del api.images[first.tag]
    assert [image.kind for image in ask(api, tmp_path)] == ["env"]
    assert len(api.builds) == 2


def test_a_toolchain_image_that_is_there_is_built_on(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    _, last = ask(api, tmp_path)
    del api.images[last.tag]
    assert [image.built for image in ask(api, tmp_path)] == [False, True]


def test_an_own_base_is_fixed_by_its_id_and_announced(
    api: Api, tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "3.11=own-base,3.13=other")
    events: list[Event] = []
    ask(api, tmp_path, emit=events.append)
    assert f"FROM {OWN}\n".encode() in api.sent[0]["Dockerfile"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[0] == f"Python 3.11 is built on own-base, as set by {VARIABLE}"


def test_an_own_base_that_the_engine_lacks(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3.11=absent")
    with pytest.raises(EngineError, match="image not found: absent") as caught:
        resolved_bases(engine(api), "3.11", silent)
    assert caught.value.where == f"{VARIABLE}, Python 3.11"
    assert resolved_bases(engine(api), "3.10", silent) == {}
    monkeypatch.setenv(VARIABLE, "nonsense")
    with pytest.raises(UsageError):
        resolved_bases(engine(api), "3.11", silent)


def test_what_is_not_locked_is_refused_before_anything(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    toolchain = small()
    assert toolchain.containers is not None
    bases = tuple(dataclasses.replace(b, digest="") for b in toolchain.containers.bases)
    containers = dataclasses.replace(toolchain.containers, bases=bases)
    with pytest.raises(ToolchainError) as caught:
        ask(api, tmp_path, dataclasses.replace(toolchain, containers=containers))
    assert caught.value.details == ("python:3.11-bookworm",)
    assert caught.value.hint == "invoke lock --toolchain linux-cuda13.0"
    assert (api.builds, fetched) == ([], [])


def test_an_engine_of_the_other_system_is_refused_before_anything(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    with pytest.raises(EngineError, match="needs Linux containers"):
        ensure_images(engine(api, os="windows"), small(), "3.11", "2.11.0", tmp_path, silent)
    assert (api.builds, fetched) == ([], [])


def test_a_build_that_fails_keeps_its_log_and_the_next_one_goes_on(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    error = "The command '/bin/sh -c x' returned a non-zero code: 3"
    sound = api.answers
    api.answers = [
        {"stream": "Step 2/9 : RUN x\nout\n"},
        {"errorDetail": {"code": 3, "message": error}, "error": error},
    ]
    with pytest.raises(EngineError, match="exited with code 3") as caught:
        ask(api, tmp_path)
    [log] = (tmp_path / "logs" / "images").iterdir()
    assert f"full log: {log}" in caught.value.details
    assert log.read_text() == f"Step 2/9 : RUN x\nout\n{error}\n"
    api.answers = sound
    assert [image.built for image in ask(api, tmp_path)] == [True, True]


def test_an_engine_that_goes_away_in_the_middle(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    def gone() -> None:
        raise requests.exceptions.ConnectionError(
            "('Connection aborted.', RemoteDisconnected('Remote end closed connection'))"
        )

    api.while_building = gone
    with pytest.raises(EngineError, match="the connection to the engine was lost") as caught:
        ask(api, tmp_path)
    assert "logs/images" in str(caught.value.where)
    assert "run the same command" in str(caught.value.hint)


def test_an_image_that_is_not_there_after_all(api: Api, tmp_path: Path, fetched: list[str]) -> None:
    api.keep = False
    with pytest.raises(EngineError, match="does not have it"):
        ask(api, tmp_path)


def test_a_cache_that_cannot_be_written(api: Api, tmp_path: Path, fetched: list[str]) -> None:
    (tmp_path / render.FILES).touch()
    with pytest.raises(StoreError, match="cannot keep the files of images"):
        ask(api, tmp_path)


def test_two_at_once_build_once_and_the_second_says_that_it_waits(
    api: Api, tmp_path: Path, fetched: list[str]
) -> None:
    events: list[Event] = []
    other = threading.Thread(target=lambda: ask(api, tmp_path, emit=events.append))

    def start_other() -> None:
        if not other.ident:
            other.start()
            deadline = time.monotonic() + 60
            while not events and time.monotonic() < deadline:
                time.sleep(0.01)

    api.while_building = start_other
    ask(api, tmp_path)
    other.join(60)
    assert events == [Note("another build is making images: waiting for it")]
    assert len(api.builds) == 2


def test_nothing_is_fetched_before_microsoft_s_terms_are_accepted(
    api: Api, tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LICENSE, raising=False)
    python = dataclasses.replace(HEADERS, filename="python.zip")
    toolchain = dataclasses.replace(
        small(), msvc=MSVC, interpreters=(LockedInterpreter("3.11", python),)
    )
    with pytest.raises(UsageError, match="only once you have accepted") as caught:
        ensure_images(engine(api), toolchain, "3.11", "2.11.0", tmp_path, silent)
    assert caught.value.details == ("the terms: https://host/terms",)
    assert "--accept-msvc-license" in (caught.value.hint or "")
    assert (fetched, api.builds) == ([], [])
    accept(tmp_path)
    ensure_images(engine(api), toolchain, "3.11", "2.11.0", tmp_path, silent)
    assert "headers.vsix" in fetched


def test_windows_gets_isolation_and_memory_and_no_network(api: Api) -> None:
    server = engine(api, os="windows", os_build=20348, isolation="process")
    assert build_arguments(server, 20348) == {
        "network_mode": "none", "use_config_proxy": False, "isolation": "process",
        "container_limits": {"memory": 8 << 30},
    }  # fmt: skip
    client = engine(api, os="windows", os_build=22631, isolation="hyperv")
    assert build_arguments(client, 20348)["isolation"] == "hyperv"
    small_one = engine(api, os="windows", os_build=20348, memory=4 << 30)
    assert build_arguments(small_one, 20348)["container_limits"] == {"memory": 3 << 30}
    old = engine(api, os="windows", os_build=17763)
    with pytest.raises(EngineError, match="the host is too old for the image"):
        build_arguments(old, 20348)


def test_a_host_that_only_a_lock_names_is_told_before_anything_is_fetched(
    api: Api, tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", PipConfig)
    toolchain = small()
    url = "https://stranger.example/x.whl"
    strange = dataclasses.replace(
        toolchain.packages[-1], url=url, hosts=frozenset({"files.example"})
    )
    toolchain = dataclasses.replace(toolchain, packages=(*toolchain.packages[:-1], strange))
    with pytest.raises(FetchError, match=r"stranger\.example"):
        ask(api, tmp_path, toolchain)
    assert (fetched, api.builds) == ([], [])
