"""What indexes list, of a publisher's listing only links that lead out; and members of wheels that
are not fetched as a whole.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unearth import Link

from fatwheel.pins.listings import Asker, Listings, RemoteWheels, _Limited, _Ranges
from fatwheel.toolchain.access import PINNED
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError
from fatwheel.toolchain.web import Web

from ...helpers.webserver import Server, body, ranges

WHEEL = "torch-2.8.0-cp311-cp311-linux_x86_64.whl"


class Immediately:
    """Asks at once."""

    def ask(self, place: str, question: Callable[[], Any]) -> Any:
        return question()


def listed(url: str, *links: str) -> list[str]:
    """Those of a listing's links that are kept."""
    source = SimpleNamespace(url=url, shown=url)
    index = SimpleNamespace(
        source_at=lambda url: source,
        listed=lambda source, project: [Link(f"{link}/{WHEEL}") for link in links],
    )
    found = Listings(index, Immediately()).at(url, "torch")  # type: ignore[arg-type]
    return [link.url_without_fragment.rpartition("/")[0] for link in found.get(WHEEL, [])]


@pytest.mark.parametrize(
    "inside",
    ["http://127.0.0.1:8080", "https://10.0.0.1", "https://localhost", "https://[::1]",
     "https://169.254.169.254", "file:///etc", "http://files.example.org"],
)  # fmt: skip
def test_a_publisher_cannot_lead_inside(inside: str) -> None:
    kept = listed("https://download.example.org/whl", "https://files.example.org/whl", inside)
    assert kept == ["https://files.example.org/whl"]


def test_an_index_of_this_machine_may() -> None:
    here = "http://127.0.0.1:8080"
    assert listed("http://127.0.0.1:8000/whl", here) == [here]


METADATA = b"Metadata-Version: 2.1\nName: big\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteWheels]:
    monkeypatch.setattr("fatwheel.toolchain.web._FIRST_PAUSE", 0.001)
    web = Web(PipConfig(retries=1, timeout=5.0))
    yield RemoteWheels(web, Asker(web))
    web.close()


def large(size: int = 3 << 20) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("big/code.so", bytes(size))
        archive.writestr("big/x.dist-info/METADATA", b"not this one")
        archive.writestr("big-1.0.dist-info/METADATA", METADATA)
    return stream.getvalue()


def test_only_ranges_of_a_wheel_are_asked_for(server: Server, wheels: RemoteWheels) -> None:
    content, sent = large(), []

    def answer(handler: object) -> None:
        asked = handler.headers.get("Range", "")  # type: ignore[attr-defined]
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            sent.append(int(last) - int(first) + 1)
        ranges(content)(handler)  # type: ignore[arg-type]

    server.answers["/big-1.0-py3-none-any.whl"] = answer
    link = Link(f"{server.url}/big-1.0-py3-none-any.whl")
    assert wheels.metadata(link, PINNED) == METADATA
    assert sum(sent) < len(content) / 3, "most of it stays where it is"
    assert "big/code.so" in wheels.names(link, PINNED)


def test_a_server_without_ranges_is_told(server: Server, wheels: RemoteWheels) -> None:
    server.answers["/big.whl"] = body(large())
    with pytest.raises(RefusedError, match="does not send parts"):
        wheels.metadata(Link(f"{server.url}/big.whl"), PINNED)


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + b"\xff" * 18, b"not a wheel" * 100])
def test_what_is_no_wheel(server: Server, wheels: RemoteWheels, content: bytes) -> None:
    server.answers["/big.whl"] = ranges(content)
    with pytest.raises(RefusedError, match=r"big\.whl cannot be read as a wheel"):
        wheels.metadata(Link(f"{server.url}/big.whl"), PINNED)


def damaged(what: str) -> bytes:
    """A wheel that says of itself what it is not; offsets as in PKWARE's APPNOTE 4.3.12."""
    content = bytearray(large(10).replace(b"big-1.0.dist", b"\xff\xfe-1.0.dist", 2))
    entry = content.rindex(b"PK\1\2")
    if what == "encrypted":
        content[entry + 8] |= 1
        return bytes(content).replace(b"\xff\xfe-", b"big-")
    if what == "name":
        content[entry + 9] |= 8  # it is UTF-8
        return bytes(content)
    raise AssertionError(what)


@pytest.mark.parametrize("what", ["encrypted", "name"])
def test_damaged_wheels(server: Server, wheels: RemoteWheels, what: str) -> None:
    server.answers["/big.whl"] = ranges(damaged(what))
    with pytest.raises(RefusedError, match=r"big\.whl cannot be read as a wheel"):
        wheels.metadata(Link(f"{server.url}/big.whl"), PINNED)


def test_a_directory_of_gigabytes_is_not_asked_for(wheels: RemoteWheels) -> None:
    asked = []
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 1 << 31, 0, 0)

    def piece(start: int, most: int) -> bytes:
        asked.append(most)
        return (bytes(most) + end)[-most:]

    stream = _Limited(_Ranges(piece, (1 << 31) + len(end)), 1 << 18)
    with pytest.raises(OSError, match="longer than 32 MiB"):
        zipfile.ZipFile(stream)
    assert sum(asked) < 1 << 20


def test_a_wheel_of_this_machine(tmp_path: Path, wheels: RemoteWheels) -> None:
    file = tmp_path / "big-1.0-py3-none-any.whl"
    file.write_bytes(large(10))
    assert wheels.metadata(Link.from_path(file), PINNED) == METADATA


def test_metadata_beside_a_wheel_is_read_instead(server: Server, wheels: RemoteWheels) -> None:
    server.serve("/big.whl.metadata", METADATA)
    link = Link(f"{server.url}/big.whl", dist_info_metadata=True)
    assert wheels.metadata(link, PINNED) == METADATA
    wrong = Link(f"{server.url}/big.whl", dist_info_metadata={"sha256": "a" * 64})
    with pytest.raises(RefusedError, match="not the listed one"):
        wheels.metadata(wrong, PINNED)
    assert server.asked_for("/big.whl") == 0
