"""MSVC in the cache: fetched once its terms are accepted, unpacked, shared, remade; from a server
of our own, with packages that have little in them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from fatwheel.config.fields import TOML, adapter
from fatwheel.config.pinned import Download
from fatwheel.config.schema import PayloadTable
from fatwheel.config.toolchain import LockedMsvc
from fatwheel.errors import HashMismatchError, ToolchainError, UsageError
from fatwheel.events import Event, Progress, silent
from fatwheel.provision.msvc import unpack
from fatwheel.toolchain.homes import OPTION, VARIABLE, UnpackedMsvc, accept, check_accepted
from fatwheel.toolchain.pipconfig import PipConfig
from fatwheel.toolchain.unpack import alone

from ...helpers.installers import write_installer
from ...helpers.msvcpackages import write_packages
from ...helpers.webserver import Server, status


class World:
    """A server of packages, and a cache whose user has accepted the terms."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        accept(self.cache)
        self.files = write_packages(folder / "made")
        payloads = []
        for path in self.files:
            content = path.read_bytes()
            server.serve(f"/{path.name}", content)
            digest, url = hashlib.sha256(content).hexdigest(), f"{server.url}/{path.name}"
            payloads.append(Download(path.name, "1", url, path.name, len(content), digest))
        self.msvc = LockedMsvc(
            "17.8.2", "19.38.33130", "14.38", "https://host/terms", tuple(payloads)
        )

    @property
    def unpacked(self) -> UnpackedMsvc:
        return UnpackedMsvc(self.msvc, self.cache)

    @property
    def left(self) -> list[str]:
        """What lies beside finished folders."""
        return [path.name for path in (self.cache / "msvc").glob("*") if path.name[0] == "."]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv(VARIABLE, raising=False)
    config = PipConfig(indexes=("http://127.0.0.1:9",), retries=0, timeout=5.0)
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)
    with Server() as server:
        yield World(server, tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "fatwheel-msvc.json"
    }


def test_it_is_made_once_of_all_packages(world: World) -> None:
    one = world.unpacked
    assert not one.is_made()
    assert one.needed == 8 * sum(file.size for file in world.msvc.payloads)
    events: list[Event] = []
    with alone(world.cache, silent):
        one.make(events.append)
    assert one.is_made()
    assert one.needed == 0
    assert one.root.parent == (world.cache / "msvc").resolve()
    unpack(world.files, world.folder / "expected")
    assert content(one.root) == content(world.folder / "expected")
    assert world.left == []
    last = [event for event in events if isinstance(event, Progress) and event.label == "unpack"][
        -1
    ]
    assert last.done == last.total == sum(path.stat().st_size for path in world.files)
    assert not any((world.cache / "downloads").glob("*/*.vsix")), "packages are not kept twice"
    assert UnpackedMsvc(world.msvc, world.cache).is_made(), "others with the same pins share it"


def test_its_name_covers_the_pins_and_nothing_else(world: World) -> None:
    one = world.unpacked
    first, *others = world.msvc.payloads
    moved = replace(first, url="https://elsewhere/a.vsix")
    same = replace(world.msvc, payloads=(*others, moved), license="https://host/other")
    assert UnpackedMsvc(same, world.cache).name == one.name
    other = replace(world.msvc, payloads=(replace(first, sha256="7" * 64), *others))
    assert UnpackedMsvc(other, world.cache).name != one.name


def test_a_damaged_one_is_made_again(world: World) -> None:
    one = world.unpacked
    one.make(silent)
    whole = content(one.root)
    [cl] = one.root.rglob("cl.exe")
    cl.unlink()
    assert not one.is_made()
    one.make(silent)
    assert content(one.root) == whole
    (one.root / "fatwheel-msvc.json").write_text("{}")
    assert not one.is_made()
    shutil.rmtree(one.root)
    assert not one.is_made()


def test_nothing_half_made_is_left(world: World) -> None:
    first, *others = world.msvc.payloads
    incomplete = replace(world.msvc, payloads=tuple(others))
    with pytest.raises(ToolchainError):
        UnpackedMsvc(incomplete, world.cache).make(silent)
    assert world.left == []
    world.server.serve(f"/{first.filename}", b"x" * first.size)
    with pytest.raises(HashMismatchError):
        world.unpacked.make(silent)
    assert not world.unpacked.is_made()


def test_a_package_that_is_gone_or_not_pinned(world: World) -> None:
    first, *others = world.msvc.payloads
    world.server.answers[f"/{first.filename}"] = status(404)
    with pytest.raises(Exception, match="404"):
        world.unpacked.make(silent)
    unknown = replace(world.msvc, payloads=(replace(first, url="", sha256=""), *others))
    with pytest.raises(ToolchainError, match="not pinned yet") as caught:
        UnpackedMsvc(unknown, world.cache).make(silent, "cuda13.0.2-win-amd64")
    assert caught.value.details == (first.filename,)
    assert caught.value.hint == "invoke lock"


# -- Microsoft's terms -----------------------------------------------------------------------------


def test_nothing_is_fetched_before_the_terms_are_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.folder / "another"
    cache.mkdir()
    with pytest.raises(UsageError) as caught:
        UnpackedMsvc(world.msvc, cache).make(silent)
    assert "https://host/terms" in str(caught.value)
    assert OPTION in str(caught.value)
    assert VARIABLE in str(caught.value)
    assert world.server.requests == world.server.heads == []
    assert not any(cache.iterdir())
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(UsageError):
        check_accepted(world.msvc, cache)
    monkeypatch.setenv(VARIABLE, "1")
    check_accepted(world.msvc, cache)
    assert not any(cache.iterdir()), "the variable is for one run"
    monkeypatch.delenv(VARIABLE)
    accept(cache)
    check_accepted(world.msvc, cache)


def test_other_compilers_have_no_such_terms(tmp_path: Path) -> None:
    check_accepted(None, tmp_path)


def test_an_sdk_may_come_as_installers(world: World, tool: Callable[[str], str]) -> None:
    """Their names have blanks, which URLs encode."""
    for name in ("wixl", "gcab"):
        tool(name)
    msvc = tuple(one for one in world.msvc.payloads if one.name.endswith(".vsix"))
    tables = []
    for path in write_installer(world.folder / "sdk"):
        data, address = path.read_bytes(), f"/{quote(path.name)}"
        world.server.serve(address, data)
        table = PayloadTable(
            name=path.name.replace(" ", "-"), version="10.1", url=f"{world.server.url}{address}",
            size=len(data), sha256=hashlib.sha256(data).hexdigest(),
        )  # fmt: skip
        adapter(PayloadTable).validate_python(vars(table), context=TOML)
        tables.append(table.payload())
    unpacked = UnpackedMsvc(replace(world.msvc, payloads=(*msvc, *tables)), world.cache)
    with alone(world.cache, silent):
        unpacked.make(silent)
    assert unpacked.is_made()
    [header] = unpacked.root.glob("Windows Kits/10/Include/*/ucrt/*")
    assert header.read_bytes() == b"ucrt" * 20_000
    assert list((world.cache / "downloads").rglob("*.cab")) == []
