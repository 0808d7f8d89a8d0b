"""Locks from elsewhere: every pin in them is marked, and the hosts are this checkout's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.load import load_recipe
from fatwheel.config.recipe import Target
from fatwheel.config.toolchain import Base, Containers
from fatwheel.config.toolchains import list_toolchains
from fatwheel.errors import FetchError, FormatError
from fatwheel.model import Host
from fatwheel.provenance.checks import check_registries, foreign, publishers, registry_of
from fatwheel.provenance.lock import lock_bytes, lock_of, read_lock

from ...helpers.somelocks import some_lock
from ...helpers.toolchains import shipped_toolchain

ROOT = Path(__file__).parents[3]
KERNELS, TOOLCHAINS = ROOT / "kernels", ROOT / "toolchains"
HOSTS = frozenset({"host.test"})


def test_all_pins_of_every_toolchain_are_marked() -> None:
    recipe = load_recipe("flash-attn", KERNELS)
    for name in list_toolchains(TOOLCHAINS):
        toolchain = shipped_toolchain(name)
        build = toolchain.builds[0]
        target = Target(recipe, toolchain, build.python, build.torch, ())
        lock = lock_of(target, Host("", "", ""))
        marked = foreign(lock, HOSTS)
        assert marked == lock, "where a lock comes from is no part of what it says"
        assert lock_bytes(marked) == lock_bytes(lock)
        assert b'"hosts"' not in lock_bytes(marked)
        assert all(pin.hosts is None for pin in lock.files)
        assert all(pin.hosts == HOSTS for pin in marked.files)


def test_a_lock_does_not_say_itself_what_hosts_it_may_name() -> None:
    lock = some_lock()
    content = json.loads(lock_bytes(lock))
    content["toolchain"]["packages"][0]["hosts"] = ["stranger.test"]
    data = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    with pytest.raises(FormatError):
        read_lock(data, "x", KERNELS)
    assert lock_bytes(read_lock(lock_bytes(lock), "x", KERNELS)) == lock_bytes(lock)


def test_every_host_of_this_checkout_s_files_is_known_and_no_other() -> None:
    named = {
        pin.url.split("/")[2]
        for name in list_toolchains(TOOLCHAINS)
        for pin in shipped_toolchain(name).files
        if pin.url
    }
    assert named
    assert named <= publishers([KERNELS], [TOOLCHAINS])
    assert all("." in host for host in publishers([KERNELS], [TOOLCHAINS]))


def test_files_with_mistakes_name_no_hosts(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    assert publishers([tmp_path], [tmp_path]) == frozenset()


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("python:3.11-bookworm", ""),
        ("somebody/python:3.11", ""),
        ("registry.test/python:3.11", "registry.test"),
        ("registry.test:5000/a/b", "registry.test:5000"),
        ("localhost/python", "localhost"),
    ],
)
def test_the_registry_of_an_image(reference: str, host: str) -> None:
    assert registry_of(Base(reference, "", ())) == host


def test_base_images_come_from_registries_that_this_checkout_s_toolchains_use() -> None:
    for name in list_toolchains(TOOLCHAINS):
        check_registries(some_lock(name), [TOOLCHAINS])
    strange = Containers("linux", 0, (Base("registry.test/base:1", "", ("3.11",)),))
    lock = some_lock()
    lock = replace(lock, toolchain=replace(lock.toolchain, containers=strange))
    with pytest.raises(FetchError, match="registries that no toolchain here uses") as caught:
        check_registries(lock, [TOOLCHAINS])
    assert "registry.test/base:1" in caught.value.details
