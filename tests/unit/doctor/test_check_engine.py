"""The container engine, as made-up facts: every branch, of both systems."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fatwheel.containers.layouts import EngineFacts
from fatwheel.doctor.check_engine import findings
from fatwheel.doctor.facts import (
    Answer,
    CacheFacts,
    EngineTrouble,
    EngineView,
    Facts,
    ImageFacts,
    Silence,
    Trouble,
    WindowsHost,
)

from ...helpers.workstations import (
    BROKEN,
    GIB,
    HEALTHY,
    IN_CONTAINERS,
    IN_WINE,
    LINUX_ENGINE,
    NO_ENGINE,
    SERVER,
    WINDOWS_ENGINE,
    WINDOWS_TOOLCHAIN,
    commands,
    facts,
)


def found_in(name: str, about: Facts) -> Answer:
    return {finding.name: finding for finding in findings(about)}[name]


def with_engine(view: EngineView, base: Facts = IN_CONTAINERS, **changes: Any) -> Facts:
    """Another engine: fields of EngineFacts go there, the others into its view."""
    inner = {key: changes.pop(key) for key in list(changes) if key in EngineFacts.__annotations__}
    return facts(
        base, container_engine=replace(view, facts=replace(view.facts, **inner), **changes)
    )


# -- reached -------------------------------------------------------------------------------------


def test_processes_need_no_engine() -> None:
    assert {finding.status for finding in findings(HEALTHY)} == {"not applicable"}


def test_an_engine_that_answers() -> None:
    assert found_in("engine", IN_CONTAINERS).found.startswith("27.3.1 at unix:///var/run")


@pytest.mark.parametrize("answer", [NO_ENGINE, Silence("no answer in 15 s")])
@pytest.mark.parametrize(
    ("base", "command"),
    [(IN_CONTAINERS, "sudo systemctl start docker"), (SERVER, "sc.exe start docker")],
)
def test_without_an_engine_nothing_else_is_judged(
    answer: EngineTrouble | Silence, base: Facts, command: str
) -> None:
    about = facts(base, container_engine=answer)
    first, *others = findings(about)
    assert first.status == "wrong"
    assert commands(first)[0] == command
    assert first.fixes[0].administrator
    assert {finding.status for finding in others} == {"not applicable"}


@pytest.mark.parametrize(
    ("base", "words"), [(IN_CONTAINERS, "usermod -aG docker"), (SERVER, "docker-users")]
)
def test_no_permission_on_its_socket(base: Facts, words: str) -> None:
    trouble = EngineTrouble("permission", Trouble("no permission", "unix:///x", "a hint"))
    found = found_in("engine", facts(base, container_engine=trouble))
    assert found.status == "wrong"
    assert len(found.fixes) == 1
    assert words in found.fixes[0].command


def test_other_trouble_has_its_own_hint() -> None:
    trouble = EngineTrouble("other", Trouble("it is too old", hint="update it"))
    found = found_in("engine", facts(IN_CONTAINERS, container_engine=trouble))
    assert (found.found, [fix.say for fix in found.fixes]) == ("it is too old", ["update it"])


def test_a_hint_that_leads_back_here_is_left_out() -> None:
    trouble = EngineTrouble("other", Trouble("odd words", hint="`invoke doctor` checks the engine"))
    found = found_in("engine", facts(IN_CONTAINERS, container_engine=trouble))
    assert commands(found)[0] == "sudo systemctl start docker"
    assert all("invoke doctor" not in fix.say for fix in found.fixes)


# -- of the right kind ---------------------------------------------------------------------------


def test_the_kind_of_containers() -> None:
    assert found_in("engine-os", IN_CONTAINERS).status == "ok"
    assert found_in("engine-os", SERVER).status == "ok"
    linux_for_windows = facts(SERVER, container_engine=LINUX_ENGINE)
    found = found_in("engine-os", linux_for_windows)
    assert found.status == "wrong"
    assert commands(found) == [
        r'"C:\Program Files\Docker\Docker\DockerCli.exe" -SwitchWindowsEngine'
    ]
    assert "Switch to Windows containers" in found.fixes[0].say
    windows_for_linux = facts(SERVER, toolchain=IN_CONTAINERS.toolchain)
    assert "-SwitchLinuxEngine" in commands(found_in("engine-os", windows_for_linux))[0]


def test_a_linux_host_runs_no_windows_containers() -> None:
    found = found_in("engine-os", facts(IN_CONTAINERS, toolchain=WINDOWS_TOOLCHAIN))
    assert found.status == "wrong"
    assert "only a Windows host" in found.fixes[0].say


def test_an_engine_of_another_processor() -> None:
    arm = with_engine(LINUX_ENGINE, architecture="aarch64")
    found = found_in("engine-os", arm)
    assert found.status == "warning"
    assert "emulates" in found.why
    toolchain = replace(IN_CONTAINERS.toolchain, platform="linux-aarch64")
    assert found_in("engine-os", facts(arm, toolchain=toolchain)).status == "ok"
    own = replace(toolchain, platform="linux-riscv64")
    assert found_in("engine-os", facts(arm, toolchain=own)).status == "warning"


def test_a_toolchain_without_images() -> None:
    bare = replace(IN_CONTAINERS.toolchain, containers=None)
    assert found_in("engine-os", facts(IN_CONTAINERS, toolchain=bare)).status == "wrong"


def test_isolation_is_for_windows() -> None:
    assert found_in("isolation", IN_CONTAINERS).status == "not applicable"
    assert found_in("isolation", SERVER).found.endswith("process isolation")


def test_a_host_older_than_the_image() -> None:
    found = found_in("isolation", with_engine(WINDOWS_ENGINE, SERVER, os_build=17763))
    assert found.status == "wrong"
    assert "host build 17763, image build 20348" in found.found
    assert "Windows Server 2022" in found.fixes[0].say


def with_old_image(windows: WindowsHost) -> Facts:
    """Server 2019's image on a newer host: only a virtual machine can run it."""
    assert WINDOWS_TOOLCHAIN.containers
    containers = replace(WINDOWS_TOOLCHAIN.containers, os_build=17763)
    toolchain = replace(WINDOWS_TOOLCHAIN, containers=containers)
    return facts(SERVER, toolchain=toolchain, windows=windows)


def test_hyperv_must_be_installed_where_it_is_needed() -> None:
    found = found_in("isolation", with_old_image(WindowsHost(True, True, True, "")))
    assert (found.status, "Hyper-V is installed" in found.found) == ("ok", True)
    found = found_in("isolation", with_old_image(WindowsHost(True, False, True, "")))
    assert found.status == "wrong"
    assert len(found.fixes) == 1
    assert "/FeatureName:Microsoft-Hyper-V" in found.fixes[0].command
    found = found_in("isolation", with_old_image(WindowsHost(True, False, False, "")))
    assert "firmware" in found.fixes[1].say, "virtualization is off there"


def test_a_client_of_windows_isolates_as_its_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    client = with_engine(WINDOWS_ENGINE, SERVER, os_build=22631, isolation="hyperv")
    assert ": hyperv isolation" in found_in("isolation", client).found
    monkeypatch.setenv("FATWHEEL_ISOLATION", "process")
    assert ": process isolation" in found_in("isolation", client).found
    monkeypatch.setenv("FATWHEEL_ISOLATION", "vm")
    found = found_in("isolation", client)
    assert (found.status, "'vm' is no way" in found.why) == ("wrong", True)


def with_revisions(host: int, image: int, registry: int | None = None, **changes: Any) -> Facts:
    about = with_engine(WINDOWS_ENGINE, SERVER, os_revision=host, **changes)
    windows = WindowsHost(True, True, True, "ServerStandard", registry)
    return replace(about, images=ImageFacts(("a",), (), image), windows=windows)


@pytest.mark.parametrize(
    ("host", "image", "status"),
    [
        (2340, 2340, "ok"),
        (2966, 2340, "ok"),
        (2340, 2966, "warning"),
        (0, 2966, "ok"),
        (9, 0, "ok"),
    ],
)
def test_an_image_newer_than_its_host(host: int, image: int, status: str) -> None:
    found = found_in("isolation", with_revisions(host, image))
    assert found.status == status
    if status == "warning":
        assert "revision of the host 2340, of the image 2966" in found.found
        assert "0xc0370106" in found.why
        assert commands(found)[-1].endswith("--host-build 20348.2340")


def test_whose_revision_counts() -> None:
    """That of the registry, where the engine is here; none where the builds differ anyway."""
    assert found_in("isolation", with_revisions(2340, 2966, 2966)).status == "ok"
    assert found_in("isolation", with_revisions(2966, 2966, 2340)).status == "warning"
    assert found_in("isolation", with_revisions(1, 2966, os_build=26100)).status == "ok"
    assert found_in("isolation", with_revisions(1, 2966, isolation="hyperv")).status == "ok"


@pytest.mark.parametrize("edition", ["Core", "Education"])
def test_some_editions_run_no_windows_containers(edition: str) -> None:
    windows = WindowsHost(True, True, True, edition)
    found = found_in("isolation", facts(SERVER, windows=windows))
    assert (found.status, edition in found.found) == ("wrong", True)


# -- with room -----------------------------------------------------------------------------------


MISSING = ImageFacts(("a", "b"), ("a",))


def test_disk_for_images() -> None:
    assert found_in("image-disk", IN_CONTAINERS).found.endswith("the images are there")
    full = with_engine(LINUX_ENGINE, free=GIB)
    assert found_in("image-disk", full).status == "ok", "nothing more is needed"
    missing = replace(full, images=MISSING)
    found = found_in("image-disk", missing)
    assert found.status == "wrong"
    assert "docker image prune" in commands(found)
    assert found_in("image-disk", facts(IN_CONTAINERS, images=MISSING)).status == "ok"


def test_what_is_there_counts_less() -> None:
    """Of 26.8 GB the base and MSVC are 15, which the first image has."""
    about = with_engine(WINDOWS_ENGINE, SERVER, free=13 * 10**9)
    nothing = replace(about, images=ImageFacts(("a", "b"), ()))
    assert found_in("image-disk", nothing).status == "wrong"
    assert found_in("image-disk", replace(about, images=MISSING)).status == "ok"


def test_the_image_with_wine_has_nothing_of_the_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's libwine says that it takes 0.7 GB when installed. That is there twice while the
    image is made, beside the packages; the images for Windows would take 20 GB."""
    monkeypatch.setattr("fatwheel.containers.contexts.this_platform", lambda: "linux-x86_64")
    for free, status in ((1.5, "wrong"), (2.5, "ok")):
        about = with_engine(LINUX_ENGINE, IN_WINE, free=int(free * 10**9))
        assert found_in("image-disk", about).status == status
    made = replace(about, images=ImageFacts(("a",), ("a",)))
    assert found_in("image-disk", made).found.endswith("the images are there")


def test_a_disk_that_cannot_be_seen_is_a_warning_while_something_is_needed() -> None:
    unseen = with_engine(LINUX_ENGINE, free=None)
    assert found_in("image-disk", unseen).status == "ok"
    assert found_in("image-disk", replace(unseen, images=MISSING)).status == "warning"


# -- limits, mounts, images ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"memory", "swap", "cpus", "pids"}, "ok"),
        ({"memory", "cpus", "pids"}, "warning"),
        ({"swap", "cpus", "pids"}, "wrong"),
        (set(), "wrong"),
    ],
)
def test_limits(limits: set[str], status: str) -> None:
    found = found_in("limits", with_engine(LINUX_ENGINE, limits=frozenset(limits)))
    assert found.status == status
    assert (commands(found)[:1] == ["sudo update-grub"]) is (status != "ok")


def test_windows_limits_always() -> None:
    about = with_engine(WINDOWS_ENGINE, SERVER, limits=frozenset())
    assert found_in("limits", about).status == "ok"


def test_an_engine_elsewhere() -> None:
    remote = with_engine(LINUX_ENGINE, local=False, endpoint="tcp://build.example:2376")
    found = found_in("mounts", remote)
    assert found.status == "warning"
    assert "tcp://build.example:2376" in found.found


def test_folders_that_containers_may_not_see() -> None:
    assert found_in("mounts", IN_CONTAINERS).status == "ok"
    found = found_in("mounts", with_engine(LINUX_ENGINE, selinux=True))
    assert found.status == "warning"
    assert commands(found) == ["sudo chcon -Rt container_file_t '/home/ada/.cache/fatwheel'"]
    desktop = with_engine(LINUX_ENGINE, system="Docker Desktop")
    assert found_in("mounts", desktop).status == "ok", "the home is shared"
    cache = CacheFacts("/srv/fw", True, "", GIB, "ext4", True, False, False)
    found = found_in("mounts", replace(desktop, cache=cache))
    assert "File sharing: add /srv/fw" in found.fixes[0].say
    assert found_in("mounts", replace(desktop, cache=Silence("x"))).status == "not applicable"


def test_a_windows_profile_is_closed_to_containers() -> None:
    found = found_in("mounts", BROKEN)
    assert found.status == "warning"
    assert commands(found) == [
        r"mkdir C:\fw",
        r'icacls.exe C:\fw /grant "*S-1-5-11:(OI)(CI)M"',
        r"setx FATWHEEL_CACHE C:\fw",
    ]


def test_images() -> None:
    assert found_in("images", IN_CONTAINERS).status == "ok"
    found = found_in("images", facts(IN_CONTAINERS, images=MISSING))
    assert (found.status, found.found) == ("warning", "not made yet: b")
    assert commands(found) == ["invoke setup --toolchain linux-cuda13.0 --engine docker"]
    assert found_in("images", facts(IN_CONTAINERS, images=None)).status == "not applicable"
    assert found_in("images", facts(IN_CONTAINERS, images=Silence("x"))).status == "warning"
    trouble = Trouble("it is not pinned", hint="lock it")
    assert found_in("images", facts(IN_CONTAINERS, images=trouble)).fixes[0].say == "lock it"
