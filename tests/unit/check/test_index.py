"""Which wheel of an index fits; and indexes that are hostile, broken or not there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.check import index
from fatwheel.check.cures import Symptom
from fatwheel.check.environment import CheckedPython, Torch
from fatwheel.errors import FatwheelError, FetchError, FormatError, UsageError
from fatwheel.events import silent
from fatwheel.publish.site import Request, write_site
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers import deviceimages
from ...helpers.cudawheels import NONE
from ...helpers.datasections import elf_library
from ...helpers.environments import driver, target
from ...helpers.tinywheels import Draft
from ...helpers.webserver import Server, body

TORCH = Torch(Path("/nowhere/torch"), "2.11.0+cu130", "13.0")
LINUX = "manylinux_2_17_x86_64"


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch) -> None:
    found = PipConfig(indexes=("https://index.invalid/simple/",), retries=0, timeout=5)
    monkeypatch.setattr(index, "read_pip_config", lambda: found)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def found_at(
    url: str, of: CheckedPython | None = None, torch: Torch | None = TORCH
) -> tuple[Symptom, ...]:
    return index.index_findings(of or target(), torch, url)


def page(server: Server, *wheels: str, attributes: str = "") -> str:
    server.serve("/simple/demo/", "".join(
        f'<a href="../../files/{name}" {attributes}>{name}</a>' for name in wheels
    ).encode())  # fmt: skip
    return f"{server.url}/simple/demo/"


def wheel(version: str, python: str = "cp311", platform: str = LINUX) -> str:
    return f"demo-{version}-{python}-{python}-{platform}.whl"


def test_the_newest_wheel_that_fits(server: Server) -> None:
    url = page(
        server, wheel("1.0"), wheel("2.0"), wheel("10.0"), wheel("11.0", "cp312"),
        wheel("12.0", platform="win_amd64"), wheel("13.0rc1"), "demo-14.0.tar.gz", "odd.whl",
    )  # fmt: skip
    [finding] = found_at(url)
    assert (finding.severity, finding.cure is not None) == ("note", True)
    assert finding.what == f"{wheel('10.0')} fits this machine (of 6 wheels)"
    assert finding.cure
    assert finding.cure.command == (
        f"/nowhere/venv/bin/python -m pip install {server.url}/files/{wheel('10.0')}"
    )


def test_labels_say_for_which_torch_and_cuda(server: Server) -> None:
    right = wheel("1.0+cu130torch2.11")
    url = page(server, wheel("2.0+cu130torch2.12"), wheel("2.0+cu128torch2.11"), right)
    [finding] = found_at(url)
    assert finding.what.startswith(right)
    assert finding.cure
    assert "%2B" not in finding.cure.command or "+" not in finding.cure.command


def test_metadata_says_it_where_a_label_does_not(server: Server, tmp_path: Path) -> None:
    """As torchvision's: each of its wheels requires one torch."""
    names = []
    for version, torch in (("3.0", "2.13.0"), ("2.0", "2.11.0"), ("1.0", "2.9.0")):
        metadata = f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n"
        metadata += f"Requires-Dist: torch=={torch}\n"
        server.serve(f"/files/{wheel(version)}.metadata", metadata.encode())
        names.append(wheel(version))
    url = page(server, *names, attributes='data-core-metadata="true"')
    [finding] = found_at(url)
    assert finding.what == f"{wheel('2.0')} fits this machine (of 3 wheels)"
    assert server.asked_for(f"/files/{wheel('1.0')}.metadata") == 0


@pytest.mark.parametrize(
    ("wheels", "cause", "said"),
    [
        ((wheel("1.0", "cp312"), wheel("1.0", "cp310")), "python", "none is for CPython 3.11.7"),
        ((wheel("1.0+cu130torch2.9"), wheel("1.0", "cp310")), "torch", "torch 2.9; here is torch"),
        ((wheel("1.0+cu128torch2.11"),), "torch", "CUDA 12.8"),
    ],
)
def test_why_none_fits(wheels: tuple[str, ...], cause: str, said: str, server: Server) -> None:
    [finding] = found_at(page(server, *wheels))
    assert (finding.cause, finding.severity) == (cause, "wrong")
    assert said in finding.what


def test_the_torch_for_which_there_is_one(server: Server) -> None:
    url = page(server, wheel("1.0+cu130torch2.9"), wheel("1.0+cu130torch2.10"))
    [finding] = found_at(url)
    assert finding.cure
    assert finding.cure.command == "/nowhere/venv/bin/python -m pip install 'torch==2.10.*'"


def test_json_and_yanked_wheels(server: Server) -> None:
    sha256 = "0" * 64
    files: list[Any] = [
        {"filename": wheel("1.0"), "url": "/f/a.whl", "hashes": {"sha256": sha256}},
        {"filename": wheel("2.0"), "url": "/f/b.whl", "yanked": "broken"},
        {"filename": wheel("3.0"), "url": "/f/c.whl", "requires-python": ">=3.12"},
        {"filename": wheel("4.0"), "url": "javascript:alert(1)"},
        {"filename": wheel("5.0"), "url": "file:///etc/passwd"},
        {"filename": 7, "url": None}, None, [], {"filename": wheel("6.0")},
    ]  # fmt: skip
    content = {"meta": {"api-version": "1.0"}, "name": "demo", "files": files}
    server.answers["/simple/demo/"] = body(json.dumps(content).encode(), "application/json")
    [finding] = found_at(f"{server.url}/simple/demo/")
    assert finding.what == f"{wheel('1.0')} fits this machine (of 2 wheels)"
    assert finding.cure
    assert finding.cure.command.endswith(f"{server.url}/f/a.whl#sha256={sha256}'")


def test_a_site_of_ours_knows_gpus_and_drivers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    wheels = []
    newer = deviceimages.container(deviceimages.sm(90))
    for label, device in (("2.0+cu130torch2.11.sm90", newer), ("1.0+cu130torch2.11.sm80", NONE)):
        files = {"demo/_C.so": elf_library({".nv_fatbin": device})}
        wheels.append(Draft(version=label, files=files).write(tmp_path))
    out = tmp_path / "site"
    write_site(wheels, out, Request("", False, False), silent)
    for path in out.rglob("*"):
        if path.is_file():
            server.serve(f"/{path.relative_to(out).as_posix()}", path.read_bytes())
    server.serve("/", (out / "index.html").read_bytes())
    of = target(driver=driver("8.9", version="580.65.06"))
    [finding] = found_at(f"{server.url}/", of)
    assert "demo-1.0+cu130torch2.11.sm80" in finding.what
    assert "with machine code for its GPU" in finding.what
    [finding] = found_at(f"{server.url}/", replace(of, driver=driver("7.5")))
    assert (finding.cause, finding.severity) == ("gpu", "wrong")
    [finding] = found_at(f"{server.url}/", replace(of, driver=driver("8.9", version="470.42.01")))
    assert (finding.cause, finding.severity) == ("driver", "wrong")


# -- hostile ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html>", b"<a href=x.whl>", b"\xff\xfe" * 100, b"<" * 10_000, b"<a " * 5000,
        b'<a href="http://[bad/demo-1.0-py3-none-any.whl">', b"<!DOCTYPE" + b"[" * 1000,
        b'<base href="http://[x">' + b'<a href="demo-1.0-py3-none-any.whl">',
        b'<a href="demo-1.0-py3-none-any.whl%00;rm">', b'<a href="/x/$(id)-1.0-py3-none-any.whl">',
        b"&" * 5000, b"<a href=\x00>",
    ],
)  # fmt: skip
def test_garbage_offers_no_wheel(content: bytes, server: Server) -> None:
    server.serve("/simple/demo/", content)
    with pytest.raises(FormatError, match="no wheel is listed there"):
        found_at(f"{server.url}/simple/demo/")


@pytest.mark.parametrize(
    "content",
    [b"{", b"[1, 2]", b'{"files": 3}', b'{"files": [', b'{"schema": 1, "wheels": [{}]}',
     b"[" * 10_000, b'{"files": ' + b"[" * 5000],
)  # fmt: skip
def test_json_that_is_no_index(content: bytes, server: Server) -> None:
    server.serve("/simple/demo/", content)
    with pytest.raises(FatwheelError):
        found_at(f"{server.url}/simple/demo/")


def test_a_huge_page_is_not_read(server: Server) -> None:
    packed = gzip.compress(b"<p>" + b" " * (70 << 20))

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed)

    server.answers["/simple/demo/"] = answer
    with pytest.raises(FetchError, match="larger than"):
        found_at(f"{server.url}/simple/demo/")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/", "http://10.0.0.1/x/", "http://example.com/x/",
            "file:///etc/passwd", "https://192.168.0.1/"],
)  # fmt: skip
def test_it_does_not_lead_into_this_network(url: str, server: Server) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/simple/demo/"] = answer
    with pytest.raises(FetchError, match=r"redirects to|local or private|plain http"):
        found_at(f"{server.url}/simple/demo/")


def test_an_index_that_is_not_there(server: Server) -> None:
    with pytest.raises(FetchError, match="404"):
        found_at(f"{server.url}/simple/demo/")
    with pytest.raises(FetchError, match="no connection"):
        found_at("http://127.0.0.1:9/simple/demo/")


@pytest.mark.parametrize("url", ["file:///etc/", "ftp://host/", "https://", "http://[x", "x://"])
def test_what_is_no_url_of_an_index(url: str) -> None:
    with pytest.raises(UsageError):
        found_at(url)
