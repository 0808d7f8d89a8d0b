"""What engines are asked for, held against the Docker Engine API's own description of it.

Debian ships that description (1.41, with the sources of Docker Engine 20.10). It says which fields
there are and, in comments, which of them mean something on UNIX platforms and which on Windows.
What is checked is what the SDK really sends to an engine; that engine exists as its API only.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from fatwheel.containers.client import connect
from fatwheel.containers.layouts import ContainerSpec, Mount
from fatwheel.containers.roster import Roster
from fatwheel.containers.running import RunningContainer
from fatwheel.storage.cache import cache_folder
from fatwheel.storage.files import replacing

from ..conftest import missing
from ..helpers.fakeengine import WINDOWS_INFO, WINDOWS_VERSION, Fake, fake_engine

PACKAGE = "golang-github-docker-docker-dev"
FILE = "usr/share/gocode/src/github.com/docker/docker/api/swagger.yaml"
EVERYWHERE, UNIX, WINDOWS = "all platforms", "UNIX platforms", "Windows"


@dataclass(frozen=True)
class Description:
    """The API: text is its file, definitions are the objects in it."""

    text: str
    definitions: dict[str, Any]

    def create(self) -> dict[str, Any]:
        """A JSON schema of the body of POST /containers/create, which allows no other fields."""
        body = self.strict({"$ref": "#/definitions/ContainerConfig"})
        body["properties"]["HostConfig"] = self.strict({"$ref": "#/definitions/HostConfig"})
        return body

    def strict(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema without references, in which objects have no fields but those described."""
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/definitions/")
            return self.strict(self.definitions[name])
        if "allOf" in schema:
            parts = [self.strict(part) for part in schema["allOf"]]
            fields = {name: field for part in parts for name, field in part["properties"].items()}
            return {"type": "object", "properties": fields, "additionalProperties": False}
        known = ("type", "enum", "minimum", "maximum", "minItems", "maxItems", "pattern")
        made = {key: schema[key] for key in known if key in schema}
        if "items" in schema:
            made["items"] = self.strict(schema["items"])
        if "properties" in schema:
            fields = schema["properties"]
            made["properties"] = {name: self.strict(field) for name, field in fields.items()}
            made["additionalProperties"] = False
        elif isinstance(schema.get("additionalProperties"), dict):
            made["additionalProperties"] = self.strict(schema["additionalProperties"])
        return made

    def platforms(self) -> dict[str, str]:
        """For each field of HostConfig, where it applies, as comments in the file say."""
        found: dict[str, str] = {}
        for name, indent in (("Resources", 6), ("HostConfig", 10)):
            part = re.split(r"\n  \w+:\n", self.text.partition(f"\n  {name}:\n")[2])[0]
            applies = ""
            for line in part.splitlines():
                comment = re.match(r" +# Applicable to (.+)", line)
                field = re.match(rf" {{{indent}}}(\w+):", line)
                if comment:
                    applies = comment[1]
                elif field and applies:
                    found[field[1]] = applies
        return found


@pytest.fixture(scope="session")
def api(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Description:
    """From Debian's package, which is unpacked and not installed; the cache keeps the file."""
    kept = cache_folder() / "test-engine" / "docker-api.yaml"
    if not kept.exists():
        found = _download(tool("apt-get"), tmp_path_factory.mktemp("docker-api"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as out:
            out.write(found.read_bytes())
    text = kept.read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built so
    return Description(text, yaml.load(text, loader)["definitions"])


def _download(apt: str, folder: Path) -> Path:
    download = f"{apt} -qq -o APT::Sandbox::User=root download {PACKAGE}"
    steps = (
        # A new machine has no lists of packages; only root may fetch them.
        f"{download} || {{ {apt} -qq update && {download}; }}",
        f"dpkg-deb --extract {PACKAGE}_*.deb .",
    )
    for step in steps:
        done = subprocess.run(
            ["sh", "-c", step], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            missing(f"no description of the API: {done.stderr.strip()}")
    return folder / FILE


def container_spec(os_name: str, folder: str) -> ContainerSpec:
    return ContainerSpec(
        purpose="shard 1:compute_80",
        image="fatwheel/x:y",
        command=("python", "-I", "-c", "print('it works')"),
        mounts=(
            Mount(folder, r"C:\fw\code" if os_name == "windows" else "/fatwheel/code", False),
            Mount(folder, r"C:\fw\incoming" if os_name == "windows" else "/fatwheel/in", True),
        ),
        cpus=4,
        memory=8 << 30,
        os=os_name,
        os_build=20348 if os_name == "windows" else 0,
        variables=(("LC_ALL", "C.UTF-8"),),
    )


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Gives the body that the SDK sends to an engine with these facts, for a container."""
    with fake_engine(tmp_path) as fake:
        monkeypatch.setenv("DOCKER_HOST", fake.host)

        def send(os_name: str, **info: Any) -> Any:
            _pretend(fake, os_name, info)
            roster = Roster(tmp_path / "roster", {"fatwheel": "id"})
            spec = container_spec(os_name, r"C:\here" if os_name == "windows" else "/here")
            container = RunningContainer(connect(), spec, roster, str, tmp_path / "log")
            container.start()
            container.wait()
            return fake.asked("POST", "/containers/create")[-1]

        yield send


def _pretend(fake: Fake, os_name: str, info: dict[str, Any]) -> None:
    if os_name == "windows":
        fake.info, fake.version = dict(WINDOWS_INFO), dict(WINDOWS_VERSION)
    fake.info |= info


def mistakes(api: Description, body: Any) -> list[str]:
    validator = Draft7Validator(api.create())
    return [f"{'.'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(body)]


CASES = [
    ("linux", {}),
    ("linux", {"SecurityOptions": ["name=selinux", "name=userns"]}),
    ("linux", {"SecurityOptions": ["name=rootless"], "CpuCfsQuota": False, "PidsLimit": False}),
    ("windows", {}),
    ("windows", {"Isolation": "hyperv", "NCPU": 2}),
    ("windows", {"Driver": "another"}),
]


@pytest.mark.parametrize(("os_name", "info"), CASES)
def test_what_is_sent_is_what_the_api_describes(
    api: Description, sent: Callable[..., Any], os_name: str, info: dict[str, Any]
) -> None:
    body = sent(os_name, **info)
    assert mistakes(api, body) == []


@pytest.mark.parametrize(("os_name", "info"), CASES)
def test_nothing_is_sent_that_the_platform_does_not_have(
    api: Description, sent: Callable[..., Any], os_name: str, info: dict[str, Any]
) -> None:
    platforms = api.platforms()
    host = sent(os_name, **info)["HostConfig"]
    allowed = {EVERYWHERE, WINDOWS if os_name == "windows" else UNIX}
    foreign = {name for name in host if platforms[name] not in allowed}
    # Listed among those of UNIX, but `docker run`'s own page has it for windowsfilter too.
    assert foreign <= ({"StorageOpt"} if os_name == "windows" else set())


def test_windows_containers_always_say_what_they_need(
    api: Description, sent: Callable[..., Any]
) -> None:
    host = sent("windows")["HostConfig"]
    isolations = api.definitions["HostConfig"]["allOf"][1]["properties"]["Isolation"]["enum"]
    assert host["Isolation"] in set(isolations) - {"default"}
    assert host["CpuCount"] == 4
    assert host["Memory"] == 8 << 30
    assert host["NetworkMode"] == "none"


# -- the checks themselves can fail --------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("HostConfig", "Isolation", "vm"),
        ("HostConfig", "Memory", "8g"),
        ("HostConfig", "Memroy", 1),
        ("HostConfig", "CpuCount", "4"),
        ("HostConfig", "LogConfig", {"Type": "nothing"}),
        ("HostConfig", "Mounts", [{"Type": "bind", "Source": "/x", "Target": 5}]),
        ("HostConfig", "Mounts", [{"Type": "bind", "Destination": "/x"}]),
        ("", "Cmd", "python"),
        ("", "Env", {"A": "1"}),
        ("", "OpenStdIn", True),
    ],
)
def test_a_body_with_a_mistake_is_found(
    api: Description, sent: Callable[..., Any], place: str, name: str, value: Any
) -> None:
    body = sent("linux")
    (body[place] if place else body)[name] = value
    assert mistakes(api, body), f"{name} = {value!r} went through"


def test_the_platforms_of_fields_are_read(api: Description) -> None:
    platforms = api.platforms()
    assert platforms["Memory"] == platforms["Mounts"] == platforms["AutoRemove"] == EVERYWHERE
    assert platforms["CapDrop"] == platforms["PidsLimit"] == platforms["NanoCpus"] == UNIX
    assert platforms["Isolation"] == platforms["CpuCount"] == WINDOWS
    fields = api.strict({"$ref": "#/definitions/HostConfig"})["properties"]
    assert set(platforms) == set(fields), "a field has no platform"


def test_the_description_is_of_the_oldest_engine_that_will_do(api: Description) -> None:
    version = re.search(r'^  version: "([\d.]+)"', api.text, re.MULTILINE)
    assert version is not None
    assert version[1] == "1.41"
