"""What engines say, word for word as they say it, and what it is taken for.

The sentences are from moby, runc, Docker Desktop, the registries and Windows.
"""

from __future__ import annotations

import pytest

from fatwheel.containers.client import cause_of


@pytest.mark.parametrize(
    ("said", "what", "hint"),
    [
        (
            'invalid mount config for type "bind": bind source path does not exist: /home/u/cache',
            "not shared",
            "File sharing",
        ),
        (
            "Mounts denied: \nThe path /data is not shared from the host and is not known to "
            "Docker.\nYou can configure shared paths from Docker -> Preferences... -> Resources "
            "-> File Sharing.",
            "not shared",
            "FATWHEEL_CACHE",
        ),
        (
            "error while creating mount source path '/host_mnt/d/cache': mkdir /host_mnt/d: "
            "permission denied",
            "not shared",
            "File sharing",
        ),
        (
            "write /var/lib/docker/tmp/GetImageBlob123: no space left on device",
            "disk is full",
            "docker system df",
        ),
        (
            "failed to register layer: re-exec error: exit status 1: output: ProcessBaseLayer "
            "\\\\?\\C:\\ProgramData\\Docker\\windowsfilter\\ab: There is not enough space on the "
            "disk.",
            "disk is full",
            "docker image prune",
        ),
        (
            "hcs::CreateComputeSystem 4f: The container operating system does not match the host "
            "operating system.",
            "host is too old",
            "20348",
        ),
        (
            "a Windows version 10.0.20348-based image is incompatible with a 10.0.19045 host",
            "host is too old",
            "Windows 11",
        ),
        (
            "no matching manifest for linux/amd64 in the manifest list entries",
            "another system",
            "invoke doctor",
        ),
        (
            'image operating system "windows" cannot be used on this platform: operating system '
            "is not supported",
            "another system",
            "invoke doctor",
        ),
        (
            "container 4f encountered an error during hcs::System::Start: failure in a Windows "
            "system call: The virtual machine or container exited unexpectedly. (0xc0370106)",
            "newer than the host",
            "FATWHEEL_ISOLATION=hyperv",
        ),
        (
            "hcs::CreateComputeSystem 4f: The virtual machine could not be started because a "
            "required feature is not installed.",
            "Hyper-V, which isolates",
            "Microsoft-Hyper-V",
        ),
        (
            "container 4f encountered an error during hcs::System::Start: Insufficient system "
            "resources exist to complete the requested service.",
            "does not have enough memory",
            "--memory",
        ),
        ("No such image: fatwheel/linux-cuda13.0:cp311", "image not found", "invoke image"),
        (
            "pull access denied for fatwheel/x, repository does not exist or may require 'docker "
            "login': denied: requested access to the resource is denied",
            "image not found",
            "invoke image",
        ),
        (
            "failed to create task for container: failed to create shim task: OCI runtime create "
            'failed: runc create failed: unable to start container process: exec: "/opt/x": stat '
            "/opt/x: no such file or directory: unknown",
            "program to run was not found",
            "docker image rm",
        ),
        (
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the "
            "cgroup is not mounted",
            "cannot limit",
            "cgroups version 2",
        ),
        (
            'Conflict. The container name "/fatwheel" is already in use by container "4f". You '
            "have to remove (or rename) that container to be able to reuse that name.",
            "of that name",
            "docker rm",
        ),
        (
            "client version 1.24 is too old. Minimum supported API version is 1.44, please "
            "upgrade your client to a newer version",
            "no API version in common",
            "pip install",
        ),
        (
            'Get "https://registry.example/v2/": dial tcp: lookup registry.example on '
            "192.168.1.1:53: no such host",
            "registry cannot be reached",
            "proxy",
        ),
        (
            "Get https://registry.example/v2/: net/http: request canceled while waiting for "
            "connection (Client.Timeout exceeded while awaiting headers)",
            "registry cannot be reached",
            "proxy",
        ),
        (
            "(5, 'CreateFile', 'Access is denied.')",
            "permission denied",
            "docker-users",
        ),
        (
            "(2, 'CreateFile', 'The system cannot find the file specified.')",
            "no engine is listening",
            "net start docker",
        ),
        (
            "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read "
            "timeout=20)",
            "in time",
            "docker version",
        ),
        (
            "('Connection aborted.', RemoteDisconnected('Remote end closed connection without "
            "response'))",
            "connection to the engine was lost",
            "restart the engine",
        ),
    ],
)  # fmt: skip
def test_what_it_is_and_what_to_do(said: str, what: str, hint: str) -> None:
    cause = cause_of(said)
    assert what in cause.what
    assert hint in cause.hint


def test_what_nobody_knows_is_shown_as_it_is() -> None:
    cause = cause_of("a sentence that no engine has said yet")
    assert cause.what == ""
    assert "invoke doctor" in cause.hint
