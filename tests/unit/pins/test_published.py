"""What index pages and manifests say of files, and what is made of those that say nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from fatwheel.config.pinned import Package
from fatwheel.pins.published import index_values, manifest_values, page_values
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError

from ...helpers.webserver import Server, body, status

T = TypeVar("T")
WHEEL = "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl"
QUOTED = WHEEL.replace("+", "%2B")
ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def index(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setattr("fatwheel.toolchain.web._FIRST_PAUSE", 0.001)
    index = Index(PipConfig(indexes=(f"{server.url}/simple",), retries=1, timeout=5.0))
    yield index
    index.close()


def asking(index: Index) -> Callable[[str, Callable[[], T]], T]:
    return lambda url, action: index.patiently(action, threading.Event())


def torch(server: Server, sha256: str = "") -> Package:
    url = f"{server.url}/whl/cu121/{QUOTED}"
    return Package("torch", "2.1.1+cu121", WHEEL, 0, sha256, "runtime", url)


def listing(*hashes: str) -> bytes:
    """A page as the one of download.pytorch.org: absolute paths, a quoted plus, #sha256=."""
    lines = [
        f'<a href="/whl/cu121/{QUOTED}{digest}" data-dist-info-metadata="x">{WHEEL}</a><br/>'
        for digest in hashes
    ]
    other = f'<a href="/whl/cu121/torch-2.0.whl#sha256={"9" * 64}">torch-2.0.whl</a>'
    return (
        f"<!DOCTYPE html><html><body><h1>torch</h1>{other}{''.join(lines)}</body></html>".encode()
    )


def test_the_page_beside_a_wheel(server: Server, index: Index) -> None:
    server.answers["/whl/cu121/torch/"] = body(listing(f"#sha256={ONE}"), "text/html")
    assert page_values(torch(server), index, asking(index)) == {"sha256": ONE}
    assert page_values(torch(server, OTHER), index, asking(index)) == {"sha256": ONE}


def test_a_page_that_has_the_pinned_one_among_others(server: Server, index: Index) -> None:
    page = listing(f"#sha256={ONE}", f"#sha256={OTHER}")
    server.answers["/whl/cu121/torch/"] = body(page, "text/html")
    assert page_values(torch(server, OTHER), index, asking(index)) == {"sha256": OTHER}


@pytest.mark.parametrize("digest", ["", "#md5=" + "0" * 32, "#sha256=beef"])
def test_a_page_without_a_sha256(server: Server, index: Index, digest: str) -> None:
    server.answers["/whl/cu121/torch/"] = body(listing(digest), "text/html")
    assert page_values(torch(server), index, asking(index)) == {}


def test_no_page(server: Server, index: Index) -> None:
    assert page_values(torch(server), index, asking(index)) == {}
    server.answers["/whl/cu121/torch/"] = body(listing(), "text/html")
    assert page_values(torch(server), index, asking(index)) == {}, "the wheel is not on it"


def test_a_page_that_may_come_back_is_not_taken_for_none(server: Server, index: Index) -> None:
    server.answers["/whl/cu121/torch/"] = status(503)
    with pytest.raises(RefusedError, match=r"503 .*\(2 tries\)"):
        page_values(torch(server), index, asking(index))


def test_what_the_index_lists(server: Server, index: Index) -> None:
    package = Package("demo", "1.0", "demo-1.0-py3-none-any.whl", 1, ONE, "build")

    def answer(fragment: str) -> None:
        page = f'<a href="/f/{package.filename}{fragment}">{package.filename}</a>'
        server.answers["/simple/demo/"] = body(page.encode(), "text/html")

    answer(f"#sha256={ONE}")
    assert index_values(package, index, asking(index)) == {"sha256": ONE}
    answer(f"#sha256={OTHER}")
    assert index_values(package, index, asking(index)) == {"sha256": OTHER}
    answer("")
    assert index_values(package, index, asking(index)) == {}


def test_what_no_index_lists(server: Server, index: Index) -> None:
    package = Package("demo", "1.0", "demo-1.0-py3-none-any.whl", 1, ONE, "build")
    with pytest.raises(RefusedError, match="no such package here: 404"):
        index_values(package, index, asking(index))
    server.list("demo", "demo-0.9.tar.gz", "demo-0.8.tar.gz")
    with pytest.raises(RefusedError, match="lists 2 files of this package, not this one"):
        index_values(package, index, asking(index))


def test_a_manifest_of_cuda(server: Server, index: Index) -> None:
    """The form of redistrib_12.3.2.json, and the deeper one of newer components."""
    document = {
        "release_date": "2024-01-02",
        "cuda_nvcc": {
            "name": "CUDA NVCC",
            "license": "CUDA Toolkit",
            "version": "12.3.107",
            "linux-x86_64": {
                "relative_path": "cuda_nvcc/linux-x86_64/cuda_nvcc-1.tar.xz",
                "sha256": ONE,
                "md5": "0" * 32,
                "size": "47766584",
            },
        },
        "cudnn": {
            "linux-x86_64": {
                "cuda12": {"relative_path": "cudnn/a.tar.xz", "sha256": OTHER, "size": "7"}
            }
        },
        "odd": {"linux-x86_64": {"relative_path": "x", "sha256": "beef", "size": "7"}},
    }
    server.serve("/redist/redistrib_1.json", json.dumps(document).encode())
    assert manifest_values(f"{server.url}/redist/redistrib_1.json", index) == {
        f"{server.url}/redist/cuda_nvcc/linux-x86_64/cuda_nvcc-1.tar.xz": {
            "size": 47766584,
            "sha256": ONE,
        },
        f"{server.url}/redist/cudnn/a.tar.xz": {"size": 7, "sha256": OTHER},
    }


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"a": {"relative_path": 1}}']
)
def test_what_is_no_manifest(server: Server, index: Index, document: bytes) -> None:
    server.serve("/redistrib_1.json", document)
    with pytest.raises(RefusedError, match="is not a CUDA release manifest"):
        manifest_values(f"{server.url}/redistrib_1.json", index)
