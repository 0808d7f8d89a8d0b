"""What container engines' words mean, and what to do about it.

Engines say why they refuse in one line of English and nothing else. The patterns are from the
sources of Docker Engine (moby), runc, Docker Desktop and the Docker SDK, and from Windows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One way to fail: what it looks like, what it is (completes "cannot …: "), what to do.

    An empty `what` stands for the engine's own words.
    """

    pattern: re.Pattern[str]
    what: str
    hint: str


def cause_of(said: str) -> Cause:
    """The first cause that fits the words of an engine, or of the way to it."""
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
        "the engine does not see a folder that it should mount: it is not shared with it",
        "Docker Desktop: Settings, Resources, File sharing: add the folder of the cache; an engine "
        "on another machine, or in a virtual one, must see it under the same path; or put the "
        "cache where the engine sees it: FATWHEEL_CACHE=FOLDER",
    ),
    _cause(
        r"no space left on device|not enough space on the disk|disk quota exceeded|enospc",
        "the engine's disk is full",
        "`docker system df` says what fills it; `docker image prune` and `docker builder prune` "
        "remove what nothing uses; `invoke doctor` says what the images need",
    ),
    _cause(
        r"operating system does not match the host|is incompatible with a .* host|0xc0370101|"
        r"no matching manifest for (windows|linux)|cannot be used on this platform|"
        r"operating system .* is not supported",
        "the image does not fit the engine's host: another system, or the host is too old for it",
        "images of Windows need a host of their build or newer: Windows Server 2022 (20348), "
        "Windows 11 (22000); `invoke doctor` says what this engine has",
    ),
    _cause(
        r"hypervisor is not (running|present)|0x80370102|virtual machine could not be started",
        "the engine has no Hyper-V to isolate a Windows container with",
        "as administrator: `dism /online /enable-feature /featurename:Microsoft-Hyper-V /all`, "
        "start again, and turn virtualization on in the firmware if it is off",
    ),
    _cause(
        r"insufficient system resources|0x800705aa|cannot allocate memory|"
        r"not enough (memory|storage is available)",
        "the engine's machine has not enough memory for the container",
        "let the build use less: `--memory 8GiB`; Docker Desktop: Settings, Resources, Memory",
    ),
    _cause(
        r"no such image|repository does not exist|pull access denied|manifest unknown",
        "the engine has not the image",
        "`invoke image` builds the images of a toolchain",
    ),
    _cause(
        r"executable file not found|no such file or directory: unknown|"
        r"cannot find the (file|path) specified.*(createprocess|container)",
        "the image has not the program that should run in it",
        "it is not one that fatwheel built, or it is damaged: remove it with `docker image rm` and "
        "run `invoke image`",
    ),
    _cause(
        r"as your kernel does not support|cgroup",
        "the engine cannot limit what containers use",
        "it needs control groups of version 2, or full rights: `docker info` lists what is missing",
    ),
    _cause(
        r"container name .* is already in use",
        "a container of that name exists",
        "`docker ps --all --filter label=fatwheel` lists fatwheel's; `docker rm --force` removes "
        "one",
    ),
    _cause(
        r"client version .* is too (old|new)",
        "the engine and the Docker SDK do not know each other's API",
        "update the older of both: Docker Engine 20.10 is the oldest that will do; the SDK is "
        "updated by `pip install --upgrade docker`",
    ),
    _cause(
        r"dial tcp|lookup \S+ on|toomanyrequests|tls handshake timeout|proxyconnect|"
        r"registry.*(unauthorized|denied)|awaiting headers",
        "the registry cannot be reached from the engine",
        "is there a network, and does the engine know the proxy? `docker info` lists its proxies; "
        "`docker pull` with the image's name shows whether it works",
    ),
    _cause(
        r"permissionerror\(13|permission denied.*docker\.sock|\(5, 'CreateFile'",
        "you may not use it",
        "Linux: `sudo usermod -aG docker $USER`, then log in again (that is as good as being "
        "root), or set up a rootless engine with `dockerd-rootless-setuptool.sh install`; Windows: "
        "become a member of the group docker-users, or use a prompt run as administrator",
    ),
    _cause(
        r"filenotfounderror\(2|connection ?refused|\(2, 'CreateFile'|notadirectoryerror",
        "no engine answers there",
        "is one installed, and does it run? Linux: `sudo systemctl start docker` (package "
        "docker.io, or docker-ce); Docker Desktop: start it and wait until its icon is still; "
        "Windows Server: `net start docker`; an engine elsewhere is named by DOCKER_HOST",
    ),
    _cause(
        r"ssl|\btls\b|certificate|http request to an https server|wrong_version_number",
        "the engine and this side do not agree on TLS",
        "DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, the folder with ca.pem, cert.pem and key.pem, "
        "are for engines with TLS (usually port 2376); unset both for one without it (2375)",
    ),
    _cause(
        r"nameresolutionerror|name or service not known|getaddrinfo failed|failed to resolve|"
        r"no address associated|temporary failure in name resolution",
        "its host is not known",
        "DOCKER_HOST or the Docker context names a host that does not resolve",
    ),
    _cause(
        r"invalid bind address|bad format|invalid (port|host|path|url)|should have format|"
        r"invalid addresses|unsupported protocol|npipe:// protocol|no host supplied|"
        r"failed to parse|proto.* is not supported|url components|port could not be cast",
        "it is not the address of an engine",
        "DOCKER_HOST looks like unix:///var/run/docker.sock, tcp://127.0.0.1:2375 or, on Windows, "
        "npipe:////./pipe/docker_engine; without it the current Docker context counts",
    ),
    _cause(
        r"timed out|timeout",
        "it does not answer in time",
        "is the engine busy, or starting? `docker version` must answer within seconds; restart it "
        "if it never does",
    ),
    _cause(
        r"badstatusline|expecting value|jsondecodeerror|apiversion|404 page not found|"
        r"404 client error.* for \S+/version",
        "what answers there is no container engine",
        "DOCKER_HOST or the Docker context names another program's address",
    ),
    _cause(
        r"remotedisconnected|connection (aborted|reset)|connectionreseterror|broken ?pipe|"
        r"incompleteread|invalidchunklength|connection broken|\(109, ",
        "the engine went away",
        "start it again and run the same command: what was finished is kept",
    ),
)  # fmt: skip
