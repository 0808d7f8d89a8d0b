"""Where Debian's packages are fetched from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fatwheel.config.toolchain import DebianPackage
from fatwheel.errors import FetchError, UsageError
from fatwheel.events import silent
from fatwheel.toolchain import debian
from fatwheel.toolchain.access import LISTED, way_of
from fatwheel.toolchain.debian import VARIABLE, on_mirror
from fatwheel.toolchain.fetch import fetch, place

from ...helpers.webserver import Server

CONTENT = b"a package"
FILE = DebianPackage(
    "pool/main/w/wine/wine64_8.0~r-4_amd64.deb", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
).file()


@pytest.fixture(autouse=True)
def no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_a_file_s_name_is_a_plain_word() -> None:
    assert (FILE.name, FILE.filename) == ("wine64", "wine64_8.0-r-4_amd64.deb")


def test_the_user_names_a_mirror(no_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "https://mirror.example/debian/")
    [found] = on_mirror([FILE], no_apt)
    assert found.url == f"https://mirror.example/debian/{FILE.path}"
    assert way_of(found) == LISTED
    for bad in (
        "ftp://mirror.example", "https://user@mirror.example", "mirror", "https://", "https://[::1",
        "https://a..b/debian", f"https://{64 * 'a'}.example", "https://mirror.example/debian?x=1",
    ):  # fmt: skip
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(UsageError, match="is not a mirror of Debian"):
            on_mirror([FILE], no_apt)


def test_else_it_is_that_of_apt(no_apt: Path) -> None:
    apt = no_apt / "apt-get"
    lines = ("Other Other https://x/y", "Debian Debian ftp://x/y", "Debian Debian http://m/debian/")
    apt.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    apt.chmod(0o755)
    [found] = on_mirror([FILE], no_apt)
    assert found.url == f"http://m/debian/{FILE.path}"


def test_nobody_is_asked_for_what_is_there(no_apt: Path) -> None:
    with pytest.raises(FetchError, match="no mirror of Debian is known") as caught:
        on_mirror([FILE], no_apt)
    assert debian.VARIABLE in str(caught.value.hint)
    assert "--find" in str(caught.value.hint)
    kept = place(FILE, no_apt)
    kept.parent.mkdir()
    kept.write_bytes(CONTENT)
    assert on_mirror([FILE], no_apt) == [FILE]


def test_a_mirror_that_has_dropped_a_package_can_be_replaced(
    no_apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as server:
        monkeypatch.setenv(VARIABLE, f"{server.url}/debian")
        files = on_mirror([FILE], no_apt)
        with pytest.raises(FetchError) as caught:
            fetch(files, no_apt, silent)
    assert caught.value.what == f"cannot fetch {FILE.filename} (wine64)"
    assert "404" in caught.value.details[-1]
    assert f"a snapshot of Debian has what others dropped, {VARIABLE}=" in str(caught.value.hint)
