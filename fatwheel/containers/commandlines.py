"""The docker commands that are equivalent to what fatwheel asks an engine to do.

The engine gets the body of POST /containers/create (Docker Engine API); here it becomes the options
of `docker run` that make the same container.
"""

from __future__ import annotations

import csv
import io
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_BILLION = 10**9
# Characters that cmd.exe interprets outside of quotation marks.
_SPECIAL = frozenset("&|<>^()%!,;=")


def quoted(words: Iterable[str], os: str) -> str:
    """Words as one line for a shell: cmd.exe where os is 'windows', else a POSIX shell.

    For cmd.exe words should not contain quotation marks or line ends, which it cannot pass on
    reliably; Docker's only do where a folder's name has a comma.
    """
    return " ".join(map(_for_cmd if os == "windows" else _for_posix, words))


def run_line(body: Mapping[str, Any], os: str) -> str:
    """`docker run` for a container that POST /containers/create would make of this body."""
    host = body["HostConfig"]
    words = ["docker", "run"]
    for place, table in ((body, _CONTAINER), (host, _HOST)):
        for name, option in table.items():
            if name in place:
                words += option(place[name])
    words += [body["Image"], *body["Cmd"]]
    return quoted(words, os)


def build_line(
    tag: str, labels: Mapping[str, str], options: Mapping[str, Any], context: str, os: str
) -> str:
    """`docker build` of a folder. options: as for the Docker SDK's `build`."""
    words = ["docker", "build", "--tag", tag, *_pairs("--label", "=")(labels)]
    for name, value in options.items():
        words += _BUILD[name](value)
    return quoted([*words, context], os)


def _for_posix(word: str) -> str:
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'  # far easier to read
    return shlex.quote(word)


def _for_cmd(word: str) -> str:
    line = subprocess.list2cmdline([word])
    if line.startswith('"') or not _SPECIAL.intersection(word):
        return line
    slashes = len(word) - len(word.rstrip("\\"))
    return f'"{word}' + "\\" * slashes + '"'


# -- options -------------------------------------------------------------------------------------

_Option = Callable[[Any], Sequence[str]]


def _flag(option: str) -> _Option:
    return lambda value: [option] if value else []


def _value(option: str) -> _Option:
    return lambda value: [option, str(value)]


def _each(option: str) -> _Option:
    return lambda values: [word for value in values for word in (option, value)]


def _pairs(option: str, sign: str) -> _Option:
    return lambda pairs: [
        word for name, value in pairs.items() for word in (option, f"{name}{sign}{value}")
    ]


def _mounts(mounts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Docker reads the value of --mount as one line of CSV."""
    words = []
    for mount in mounts:
        fields = [f"type={mount['Type']}", f"source={mount['Source']}", f"target={mount['Target']}"]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(
            [*fields, "readonly"] if mount["ReadOnly"] else fields
        )
        words += ["--mount", line.getvalue()]
    return words


def _implied(value: Any) -> list[str]:
    """What `docker run --interactive` does by itself."""
    return []


_CONTAINER: dict[str, _Option] = {
    "OpenStdin": _flag("--interactive"),
    "Tty": _flag("--tty"),
    "StdinOnce": _implied,
    "AttachStdin": _implied,
    "AttachStdout": _implied,
    "AttachStderr": _implied,
    "NetworkDisabled": _implied,  # with `--network none` there is nothing left to disable
    "Entrypoint": lambda words: ["--entrypoint", "".join(words)],  # none: an empty word
    "User": _value("--user"),
    "Env": _each("--env"),
    "Labels": _pairs("--label", "="),
}
_HOST: dict[str, _Option] = {
    "AutoRemove": _flag("--rm"),
    "Init": _flag("--init"),
    "Isolation": _value("--isolation"),
    "NetworkMode": _value("--network"),
    "ReadonlyRootfs": _flag("--read-only"),
    "CapDrop": _each("--cap-drop"),
    "SecurityOpt": _each("--security-opt"),
    "UsernsMode": _value("--userns"),
    "Memory": _value("--memory"),
    "MemorySwap": _value("--memory-swap"),
    "NanoCpus": lambda value: ["--cpus", f"{value / _BILLION:g}"],
    "CpuCount": _value("--cpu-count"),
    "PidsLimit": _value("--pids-limit"),
    "Ulimits": lambda limits: [
        word
        for limit in limits
        for word in ("--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}")
    ],
    "StorageOpt": _pairs("--storage-opt", "="),
    "LogConfig": lambda value: ["--log-driver", value["Type"]],
    "Tmpfs": _pairs("--tmpfs", ":"),
    "Mounts": _mounts,
}
_BUILD: dict[str, _Option] = {
    "network_mode": _value("--network"),
    "isolation": _value("--isolation"),
    "container_limits": lambda limits: ["--memory", str(limits["memory"])],
    "use_config_proxy": _implied,  # it is not used, or nothing can be reached through it
}
