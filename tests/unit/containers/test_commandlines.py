"""Docker's command lines: quoted for the shell, and nothing of a container left out."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest

from fatwheel.containers.commandlines import _CONTAINER, _HOST, build_line, quoted, run_line
from fatwheel.containers.layouts import ContainerSpec, EngineFacts, Mount, create_arguments

GIB = 2**30
START = "import sys; sys.path.insert(0, 'C:\\\\fw\\\\code'); from x import main; main()"


def body_of(os: str) -> dict[str, Any]:
    """What the engine is told of a container with every kind of setting."""
    spec = ContainerSpec(
        purpose="shard 1:compute_80",
        image="fatwheel/t:cp311",
        command=("python", "-c", START),
        mounts=(Mount("/a,b/code", "/code", False), Mount("/in", "/incoming", True)),
        cpus=3,
        memory=5 * GIB,
        os=os,
        os_build=20348 if os == "windows" else 0,
        variables=(("NAME", "a value"),),
    )
    return create_arguments(spec, EngineFacts(os=os), {"fatwheel": "id"})


def options_of(line: str) -> dict[str, list[str]]:
    """The options of a `docker run` line and their values; flags have none."""
    words = shlex.split(line)
    assert words[:2] == ["docker", "run"]
    found: dict[str, list[str]] = {}
    rest = words[2:]
    while rest[0].startswith("--"):
        option = rest.pop(0)
        values = found.setdefault(option, [])
        if not rest[0].startswith("--") and option not in FLAGS:
            values.append(rest.pop(0))
    found["image"], found["command"] = rest[:1], rest[1:]
    return found


FLAGS = {"--rm", "--interactive", "--init", "--read-only", "--tty"}


@pytest.mark.parametrize("os", ["linux", "windows"])
def test_every_setting_of_a_container_has_an_option(os: str) -> None:
    body = body_of(os)
    assert body.keys() - _CONTAINER.keys() == {"HostConfig", "Image", "Cmd"}
    assert body["HostConfig"].keys() <= _HOST.keys()


def test_a_linux_container_is_shut_in_on_the_command_line_too() -> None:
    found = options_of(run_line(body_of("linux"), "linux"))
    assert found["--network"] == ["none"]
    assert found["--cap-drop"] == ["ALL"]
    assert found["--security-opt"] == ["no-new-privileges"]
    assert found["--memory"] == found["--memory-swap"] == [str(5 * GIB)]
    assert found["--cpus"] == ["3"]
    assert found["--log-driver"] == ["none"]
    assert "--tty" not in found
    assert {"--rm", "--interactive", "--init", "--read-only"} <= found.keys()
    assert "NAME=a value" in found["--env"]
    assert found["--label"] == ["fatwheel=id", "fatwheel.purpose=shard 1:compute_80"]
    assert found["image"] == ["fatwheel/t:cp311"]
    assert found["command"] == ["python", "-c", START]


def test_a_mount_with_a_comma_is_one_field_of_csv() -> None:
    """docker/cli reads --mount with Go's encoding/csv: a field with a comma is quoted."""
    found = options_of(run_line(body_of("linux"), "linux"))
    assert found["--mount"] == [
        'type=bind,"source=/a,b/code",target=/code,readonly',
        "type=bind,source=/in,target=/incoming",
    ]


def test_a_windows_container_has_isolation_memory_and_processors() -> None:
    line = run_line(body_of("windows"), "windows")
    assert "--isolation default " in line, "no engine was asked"
    assert f"--memory {5 * GIB} " in line
    assert "--cpu-count 3 " in line
    assert '--storage-opt "size=127GB" ' in line


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", "plain"),
        (r"C:\fw\code", r"C:\fw\code"),
        ("two words", '"two words"'),
        ("size=127GB", '"size=127GB"'),
        ("a&b", '"a&b"'),
        ("a;b\\", '"a;b\\\\"'),
        ("", '""'),
    ],
)
def test_words_for_cmd(word: str, expected: str) -> None:
    """A backslash before the closing mark would escape it (Microsoft, parsing of arguments)."""
    assert quoted([word], "windows") == expected


def test_what_is_quoted_for_a_posix_shell_arrives_as_it_was() -> None:
    words = ["it's", "a b", "$HOME", "`x`", "a;b", "*"]
    line = quoted(words, "linux")
    script = f"printf '%s\\n' {line}"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == words


def test_a_linux_image_is_built_without_a_network() -> None:
    options = {"network_mode": "none", "use_config_proxy": False}
    line = build_line("fatwheel/t:1", {"fatwheel": "image"}, options, "/a b/toolchain", "linux")
    assert line == (
        "docker build --tag fatwheel/t:1 --label fatwheel=image --network none '/a b/toolchain'"
    )


def test_a_windows_image_is_built_with_isolation_and_memory() -> None:
    options = {"isolation": "process", "container_limits": {"memory": 8 * GIB}}
    line = build_line("fatwheel/t:1", {}, options, "D:\\fw\\t", "windows")
    assert line == (
        f"docker build --tag fatwheel/t:1 --isolation process --memory {8 * GIB} D:\\fw\\t"
    )
