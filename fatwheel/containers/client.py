"""Connects to the container engine, and explains the engine's errors.

An engine gives the reason for a failure as one line of English and nothing else. The patterns are
from the sources of Docker Engine (moby), runc, Docker Desktop and the Docker SDK, and from Windows.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
from docker import errors as docker_errors
from docker.context import Context, ContextAPI
from docker.utils import kwargs_from_env, version_lt
from urllib3.exceptions import HTTPError

from ..errors import EngineError
from ..shipped import DEFAULT_TOOLCHAINS
from ..text import clean
from .layouts import EngineFacts


@dataclass(frozen=True)
class Cause:
    """One way to fail: what it looks like, what it is (completes "cannot …: "), what to do.

    If `what` is empty, the engine's own message is shown.
    """

    pattern: re.Pattern[str]
    what: str
    hint: str


def cause_of(said: str) -> Cause:
    """The first cause that matches the message of an engine, or of the connection to it."""
    return next((cause for cause in _CAUSES if cause.pattern.search(said)), _UNKNOWN)


def _cause(pattern: str, what: str, hint: str) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE | re.DOTALL), what, hint)


_UNKNOWN = _cause("", "", "`invoke doctor` checks the engine")

# The first that fits counts: what engines say comes before what their sockets say, and the
# special before the general.
_CAUSES = (
    _cause(
        r"bind source path does not exist|mounts denied|not shared from the host|"
        r"invalid mount config for type .bind|(drive|path) .*(is not|has not been) shared|"
        r"error (while )?mounting .* to rootfs|error while creating mount source path",
        "the engine cannot see a folder that it should mount: the folder is not shared with it",
        "Docker Desktop: Settings, Resources, File sharing: add the folder of the cache; an engine "
        "on another machine, or in a virtual one, must see it under the same path; or put the "
        "cache where the engine sees it: FATWHEEL_CACHE=FOLDER",
    ),
    _cause(
        r"no space left on device|not enough space on the disk|disk quota exceeded|enospc",
        "the engine's disk is full",
        "`docker system df` shows what fills it; `docker image prune` and `docker builder prune` "
        "remove what is unused; `invoke doctor` shows how much the images need",
    ),
    _cause(
        r"operating system does not match the host|is incompatible with a .* host|0xc0370101|"
        r"no matching manifest for (windows|linux)|cannot be used on this platform|"
        r"operating system .* is not supported",
        "the image does not match the engine's host: it is for another system, or the host is "
        "too old",
        "Windows images need a host with the same Windows build or a newer one: Windows Server "
        "2022 (20348), Windows 11 (22000); `invoke doctor` shows what this engine has",
    ),
    _cause(
        r"0xc0370106|virtual machine or container exited unexpectedly",
        "Windows ended the container at its start: the image may be newer than the host, or "
        "process isolation has failed",
        "`invoke doctor` compares their revisions: install the host's updates, or take the image "
        "for this host, with `invoke lock --host-build`. Or isolate containers as virtual "
        "machines: FATWHEEL_ISOLATION=hyperv",
    ),
    _cause(
        r"hypervisor is not (running|present)|0x80370102|virtual machine could not be started",
        "Hyper-V, which isolates Windows containers, is not available",
        "as administrator: `dism /online /enable-feature /featurename:Microsoft-Hyper-V /all`, "
        "restart, and enable virtualization in the firmware if it is off",
    ),
    _cause(
        r"insufficient system resources|0x800705aa|cannot allocate memory|"
        r"not enough (memory|storage is available)",
        "the engine's machine does not have enough memory for the container",
        "let the build use less: `--memory 8GiB`; Docker Desktop: Settings, Resources, Memory",
    ),
    _cause(
        r"no such image|repository does not exist|pull access denied|manifest unknown",
        "image not found",
        "`invoke image` builds the images of a toolchain",
    ),
    _cause(
        r"executable file not found|no such file or directory: unknown|"
        r"cannot find the (file|path) specified.*(createprocess|container)",
        "the program to run was not found in the image",
        "the image was not built by fatwheel, or it is damaged: remove it with `docker image rm` "
        "and run `invoke image`",
    ),
    _cause(
        r"as your kernel does not support|cgroup",
        "the engine cannot limit what containers use",
        "it needs cgroups version 2, or to run as root: `docker info` lists what is missing",
    ),
    _cause(
        r"container name .* is already in use",
        "a container of that name already exists",
        "`docker ps --all --filter label=fatwheel` lists fatwheel's; `docker rm --force` removes "
        "one",
    ),
    _cause(
        r"client version .* is too (old|new)",
        "the engine and the Docker SDK have no API version in common",
        "update the older of the two: Docker Engine 20.10 or newer is needed; update the SDK "
        "with `pip install --upgrade docker`",
    ),
    _cause(
        r"dial tcp|lookup \S+ on|toomanyrequests|tls handshake timeout|proxyconnect|"
        r"registry.*(unauthorized|denied)|awaiting headers",
        "the registry cannot be reached from the engine",
        "check the network and the engine's proxy settings: `docker info` lists its proxies; "
        "`docker pull` with the image's name shows whether it works",
    ),
    _cause(
        r"permissionerror\(13|permission denied.*docker\.sock|\(5, 'CreateFile'",
        "permission denied",
        "Linux: `sudo usermod -aG docker $USER`, then log in again (that is as good as being "
        "root), or set up a rootless engine: `dockerd-rootless-setuptool.sh install`; Windows: "
        "join the group docker-users, or use a prompt run as administrator",
    ),
    _cause(
        r"filenotfounderror\(2|connection ?refused|\(2, 'CreateFile'|notadirectoryerror",
        "no engine is listening there",
        "check that one is installed and running. Linux: `sudo systemctl start docker` (package "
        "docker.io, or docker-ce); Docker Desktop: start it and wait until its icon stops moving; "
        "Windows Server: `net start docker`; for an engine elsewhere set DOCKER_HOST; builds with "
        "--engine process need none",
    ),
    _cause(
        r"ssl|\btls\b|certificate|http request to an https server|wrong_version_number",
        "the TLS connection to the engine failed",
        "DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, the folder with ca.pem, cert.pem and key.pem, "
        "are for engines with TLS (usually port 2376); unset both for one without it (2375)",
    ),
    _cause(
        r"nameresolutionerror|name or service not known|getaddrinfo failed|failed to resolve|"
        r"no address associated|temporary failure in name resolution",
        "its host name does not resolve",
        "check DOCKER_HOST, or the host in the Docker context",
    ),
    _cause(
        r"invalid bind address|bad format|invalid (port|host|path|url)|should have format|"
        r"invalid addresses|unsupported protocol|npipe:// protocol|no host supplied|"
        r"failed to parse|proto.* is not supported|url components|port could not be cast",
        "not a valid engine address",
        "DOCKER_HOST looks like unix:///var/run/docker.sock, tcp://127.0.0.1:2375 or, on Windows, "
        "npipe:////./pipe/docker_engine; if it is unset, the current Docker context is used",
    ),
    _cause(
        r"timed out|timeout",
        "the engine did not answer in time",
        "it may be busy or still starting. `docker version` should answer within seconds; if it "
        "does not, restart the engine",
    ),
    _cause(
        r"badstatusline|expecting value|jsondecodeerror|apiversion|404 page not found|"
        r"404 client error.* for \S+/version",
        "what answers there is not a container engine",
        "DOCKER_HOST or the Docker context names another program's address",
    ),
    _cause(
        r"remotedisconnected|connection (aborted|reset)|connectionreseterror|broken ?pipe|"
        r"incompleteread|invalidchunklength|connection broken|\(109, ",
        "the connection to the engine was lost",
        "restart the engine and run the same command again: finished work is kept",
    ),
)  # fmt: skip


# -- the engine ------------------------------------------------------------------------------------

# It is looked for where the `docker` command looks: DOCKER_HOST, DOCKER_CONTEXT, the current
# context of the user's Docker configuration, and the system's usual place.


_OLDEST = "1.41"  # the API of Docker Engine 20.10
_PATIENCE = 20  # seconds for an engine to answer at all
_LONGEST = 600  # seconds for one request: a container with a machine of its own starts slowly
# Connections that are kept: a running container has four, and urllib3 complains about more.
_STREAMS = 256
_BUILD = re.compile(r"\b10\.0[ .](\d{5})\b")
_REVISION = re.compile(r"(?:10\.0\.|OS Build )[0-9]{5}\.([0-9]{1,6})\b")
# What calls of the SDK raise: its own errors and those of the libraries that it uses. Those of
# `requests` are OSErrors; ValueError is an answer that is not JSON. Named pipes raise pywin32's
# errors, whose module the SDK has imported on Windows.
FAILURES: tuple[type[Exception], ...] = (
    docker_errors.DockerException,
    HTTPError,
    OSError,
    ValueError,
    getattr(sys.modules.get("pywintypes"), "error", OSError),
)


@dataclass(frozen=True, kw_only=True)
class DockerEngine(EngineFacts):
    """An engine that answers, and the facts that it reports.

    api:      its client, which several threads may use.
    endpoint: where it was found.
    """

    api: docker.APIClient
    endpoint: str

    def check_os(self, wanted: str, toolchain: str) -> None:
        """Raise EngineError unless this engine runs containers of the OS that a toolchain needs."""
        if self.os != wanted:
            raise EngineError(
                f"{toolchain} needs {_NAMES[wanted]} containers, and this engine runs "
                f"{_NAMES.get(self.os, self.os)} containers",
                where=self.endpoint,
                hint=_SWITCH[wanted],
            )


_NAMES = {"linux": "Linux", "windows": "Windows"}
_SWITCH = {
    "windows": "on Windows with Docker Desktop: 'Switch to Windows containers…' in the menu of "
    "its icon; elsewhere use the engine of a Windows machine that shares these folders: "
    "DOCKER_HOST=npipe:////./pipe/docker_engine. A Linux host cannot run Windows containers; "
    "there, `--engine process` builds for Windows with Wine",
    "linux": "with Docker Desktop: 'Switch to Linux containers…' in the menu of its icon; Docker "
    "on Windows Server runs Windows containers only: use a Linux machine, or a toolchain for "
    f"Windows such as `--toolchain {DEFAULT_TOOLCHAINS['windows']}`",
}


def connect() -> DockerEngine:
    """The engine that the user's variables and Docker configuration name.

    Raises EngineError, with what to do, where none answers that can be used.
    """
    endpoint, options = _endpoint(os.environ)
    with engine_errors("reach the container engine", endpoint):
        api = docker.APIClient(version="auto", timeout=_PATIENCE, max_pool_size=_STREAMS, **options)
        facts = _facts(api.info(), api.version())
        too_old = version_lt(facts["api_version"], _OLDEST)
    if too_old:
        raise EngineError(
            f"the container engine is too old: it is {facts['version']} with API "
            f"{facts['api_version']}, and {_OLDEST} is needed",
            where=endpoint,
            hint="update it: Docker Engine 20.10 or newer is needed",
        )
    api.timeout = _LONGEST
    return DockerEngine(api=api, endpoint=endpoint, **facts)


def _endpoint(variables: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    """Where the engine is, and the options with which the SDK's client connects to it."""
    if variables.get("DOCKER_HOST"):
        with engine_errors("use DOCKER_HOST", variables["DOCKER_HOST"]):
            options = kwargs_from_env(dict(variables))
        return _local(str(options["base_url"]), "DOCKER_HOST"), options
    context = _context(variables.get("DOCKER_CONTEXT") or None)
    # A context without an engine stands for the system's usual place, as the default one does.
    host = str(context.Host or ContextAPI.DEFAULT_CONTEXT.Host)
    tls: Any = context.TLSConfig or False
    return _local(host, f"the Docker context {context.name!r}"), {"base_url": host, "tls": tls}


def _context(name: str | None) -> Context:
    """The named Docker context, or the current one."""
    where = "DOCKER_CONTEXT" if name else "currentContext in Docker's config.json"
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # the SDK raises bare ones here
        raise explained(error, "read the Docker context", where) from error
    if context is None:
        raise EngineError(
            f"there is no Docker context {clean(name)!r}"
            if name
            else "the current Docker context does not exist",
            where=where,
            hint=(
                "`docker context ls` lists the existing ones; `docker context use default` "
                "switches back to this machine's own engine"
            ),
        )
    return context


def _local(host: str, named_by: str) -> str:
    """The address, unless it is of an engine that cannot see this machine's folders."""
    if host.startswith("ssh://"):
        raise EngineError(
            "an engine on another machine cannot be used: it does not see this machine's folders",
            where=f"{named_by}: {clean(host)}",
            hint=(
                "run fatwheel on that machine, or use an engine on this one: `docker context "
                "use default`, with DOCKER_HOST unset"
            ),
        )
    return host


# -- what it says of itself ----------------------------------------------------------------------


def _facts(info: Mapping[str, Any], version: Mapping[str, Any]) -> dict[str, Any]:
    """EngineFacts from the answers to GET /info and GET /version."""
    kind = str(info.get("OSType") or version.get("Os") or "linux")
    security = {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}
    status = info.get("DriverStatus") or ()
    return {
        "os": kind,
        "os_build": _windows_build(info, version) if kind == "windows" else 0,
        "os_revision": _windows_revision(info) if kind == "windows" else 0,
        "version": str(version.get("Version") or info.get("ServerVersion") or ""),
        "api_version": str(version.get("ApiVersion") or ""),
        "system": str(info.get("OperatingSystem") or ""),
        "cpus": int(info.get("NCPU") or 0),
        "memory": int(info.get("MemTotal") or 0),
        "root": str(info.get("DockerRootDir") or ""),
        "storage_driver": str(info.get("Driver") or ""),
        "storage": tuple((str(pair[0]), str(pair[1])) for pair in status if len(pair) > 1),
        "isolation": str(info.get("Isolation") or ""),
        "rootless": "name=rootless" in security,
        "remapped": "name=userns" in security,
        "selinux": "name=selinux" in security,
        "limits": frozenset(name for name, field in _LIMITS.items() if info.get(field, True)),
    }


_LIMITS = {
    "memory": "MemoryLimit",
    "swap": "SwapLimit",
    "cpus": "CpuCfsQuota",
    "pids": "PidsLimit",
}


def _windows_build(info: Mapping[str, Any], version: Mapping[str, Any]) -> int:
    """The build number of a Windows host: `10.0 20348 (20348.1.amd64fre.fe_release…)`."""
    for text in (info.get("KernelVersion"), version.get("KernelVersion")):
        found = _BUILD.search(str(text or ""))
        if found:
            return int(found[1])
    return 0


def _windows_revision(info: Mapping[str, Any]) -> int:
    """A Windows host's revision, which /info has in `OSVersion` or only in the system's name:
    `Microsoft Windows Server Version 21H2 (OS Build 20348.2340)`."""
    for field in ("OSVersion", "OperatingSystem"):
        found = _REVISION.search(str(info.get(field) or ""))
        if found:
            return int(found[1])
    return 0


# -- what its errors mean ------------------------------------------------------------------------


@contextmanager
def engine_errors(doing: str, where: str | None = None) -> Iterator[None]:
    """Raise errors of the engine, or of the connection to it, as EngineError with a hint.

    doing completes "cannot …". Errors of fatwheel's own go through.
    """
    try:
        yield
    except FAILURES as error:
        raise explained(error, doing, where) from error


def explained(error: Exception, doing: str, where: str | None = None) -> EngineError:
    """An error of the SDK, of HTTP or of the engine as an EngineError."""
    said = clean(_words(error)).strip()
    cause = cause_of(said)
    first, *rest = said.splitlines() or [type(error).__name__]
    return EngineError(
        f"cannot {doing}: {cause.what or first}",
        where=where,
        hint=cause.hint,
        details=[first, *rest] if cause.what else rest,
    )


def _words(error: Exception) -> str:
    """The engine's own message where there is one."""
    if isinstance(error, docker_errors.APIError) and error.explanation:
        explanation = error.explanation
        return explanation if isinstance(explanation, str) else json.dumps(explanation)
    return str(error).removeprefix("Error while fetching server API version: ")
