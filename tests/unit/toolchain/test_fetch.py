"""Fetching from indexes of our own making, well behaved and not."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fatwheel.config.pinned import Download, Package
from fatwheel.errors import FetchError, HashMismatchError, StoreError, ToolchainError
from fatwheel.events import Event, Progress, silent
from fatwheel.toolchain import fetch as fetch_module
from fatwheel.toolchain.fetch import fetch
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.webserver import (
    Answer,
    Server,
    body,
    cut_short,
    in_turn,
    ranged,
    status,
    without_length,
)

WHEEL = "demo-1.0-cp313-cp313-win_amd64.whl"  # neither this Python nor this system
SDIST = "demo-1.0.tar.gz"


def pin(content: bytes, filename: str = WHEEL, name: str = "demo") -> Package:
    digest = hashlib.sha256(content).hexdigest()
    return Package(name, "1.0", filename, len(content), digest, "runtime")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[PipConfig], None]:
    """Puts a configuration in the place of the user's."""
    monkeypatch.setattr("fatwheel.toolchain.web._FIRST_PAUSE", 0.01)

    def use(config: PipConfig) -> None:
        monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)

    return use


@pytest.fixture
def index(server: Server, use: Callable[[PipConfig], None]) -> Server:
    use(PipConfig(indexes=(f"{server.url}/simple",), retries=2, timeout=5.0))
    return server


def leftovers(folder: Path) -> list[Path]:
    return [path for path in (folder / "incoming").rglob("*") if path.is_file()]


def test_fetches_the_listed_file_whatever_platform_it_is_for(index: Server, tmp_path: Path) -> None:
    content = b"wheel" * 1000
    index.list("demo", "demo-0.9.tar.gz", WHEEL, SDIST)
    index.serve(f"/files/{WHEEL}", content)

    [path] = fetch([pin(content)], tmp_path, silent)

    assert path == tmp_path / hashlib.sha256(content).hexdigest() / WHEEL
    assert path.read_bytes() == content
    assert leftovers(tmp_path) == []


def test_an_sdist_is_only_a_file(index: Server, tmp_path: Path) -> None:
    content = b"this is no archive at all"
    index.list("demo", WHEEL, SDIST)
    index.serve(f"/files/{SDIST}", content)

    [path] = fetch([pin(content, SDIST)], tmp_path, silent)

    assert path.read_bytes() == content


def test_a_json_listing_serves_as_well(index: Server, tmp_path: Path) -> None:
    content = b"json"  # PEP 691
    package = pin(content)
    other = {"filename": WHEEL, "url": "/files/other", "hashes": {"sha256": "0" * 64}}
    ours = {"filename": WHEEL, "url": f"/files/{WHEEL}", "hashes": {"sha256": package.sha256}}
    listing = json.dumps({"meta": {"api-version": "1.0"}, "files": [other, ours]}).encode()
    index.answers["/simple/demo/"] = body(listing, "application/vnd.pypi.simple.v1+json")
    index.serve(f"/files/{WHEEL}", content)

    [path] = fetch([package], tmp_path, silent)

    assert path.read_bytes() == content
    assert index.asked_for("/files/other") == 0, "the listing said that this is another file"


def test_many_files_come_back_in_the_order_asked_for(index: Server, tmp_path: Path) -> None:
    packages = []
    for number in range(12):
        content = bytes([number]) * (5000 - 300 * number)
        name = f"part{number}"
        packages.append(pin(content, f"{name}-1.0.tar.gz", name))
        index.list(name, f"{name}-1.0.tar.gz")
        index.serve(f"/files/{name}-1.0.tar.gz", content)
    events: list[Event] = []

    paths = fetch(packages, tmp_path, events.append)

    assert [path.name for path in paths] == [package.filename for package in packages]
    assert all(pin(p.read_bytes()).sha256 == k.sha256 for p, k in zip(paths, packages, strict=True))
    steps = [event for event in events if isinstance(event, Progress)]
    total = sum(package.size for package in packages)
    assert steps == events, "a fetch says nothing but its progress"
    assert {step.total for step in steps} == {total}
    assert steps[-1].done == total
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_finished_file_is_not_fetched_again_but_a_damaged_one_is(
    index: Server, tmp_path: Path
) -> None:
    content = b"x" * 100
    package = pin(content)
    index.list("demo", WHEEL)
    index.serve(f"/files/{WHEEL}", content)

    fetch([package], tmp_path, silent)
    [path] = fetch([package], tmp_path, silent)
    assert index.asked_for(f"/files/{WHEEL}") == 1, "the finished file was fetched again"

    path.write_bytes(b"y" * 100)  # same size
    [path] = fetch([package], tmp_path, silent)
    assert path.read_bytes() == content


def test_other_bytes_than_pinned_are_refused_with_both_digests(
    index: Server, tmp_path: Path
) -> None:
    package, other = pin(b"good" * 50), b"evil" * 50
    index.list("demo", WHEEL)
    index.serve(f"/files/{WHEEL}", other)

    with pytest.raises(HashMismatchError) as caught:
        fetch([package], tmp_path, silent)

    text = str(caught.value)
    assert package.sha256 in text
    assert hashlib.sha256(other).hexdigest() in text
    assert index.url in text, "the error must say where the file came from"
    assert "`invoke build --find FOLDER`" in text, "the right file may be elsewhere"
    assert not (tmp_path / package.sha256).exists()
    assert leftovers(tmp_path) == []
    assert index.asked_for(f"/files/{WHEEL}") == 1, "another file is not worth another try"


def test_a_file_that_never_ends_is_not_written_to_disk(index: Server, tmp_path: Path) -> None:
    package = pin(b"small")
    index.list("demo", WHEEL)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"0" * 65536)
        except OSError:
            handler.close_connection = True

    index.answers[f"/files/{WHEEL}"] = endless
    with pytest.raises(HashMismatchError):
        fetch([package], tmp_path, silent)


def test_a_cut_off_body_is_fetched_again(index: Server, tmp_path: Path) -> None:
    content = b"abc" * 1000
    index.list("demo", WHEEL)
    index.answers[f"/files/{WHEEL}"] = in_turn(cut_short(content, 700), body(content))

    [path] = fetch([pin(content)], tmp_path, silent)

    assert path.read_bytes() == content
    assert index.asked_for(f"/files/{WHEEL}") == 2


def test_a_body_that_is_always_cut_off_fails_with_the_count_of_tries(
    index: Server, tmp_path: Path
) -> None:
    content = b"abc" * 1000
    index.list("demo", WHEEL)
    index.answers[f"/files/{WHEEL}"] = cut_short(content, 700)

    with pytest.raises(FetchError, match=r"\(3 tries\)"):
        fetch([pin(content)], tmp_path, silent)
    assert leftovers(tmp_path) == []


def test_server_errors_pass(index: Server, tmp_path: Path) -> None:
    content = b"content"
    index.list("demo", WHEEL)
    index.answers["/simple/demo/"] = in_turn(status(503), index.answers["/simple/demo/"])
    index.answers[f"/files/{WHEEL}"] = in_turn(status(500), body(content))

    [path] = fetch([pin(content)], tmp_path, silent)

    assert path.read_bytes() == content


def test_a_lasting_server_error_is_told(index: Server, tmp_path: Path) -> None:
    index.answers["/simple/demo/"] = status(500)
    with pytest.raises(FetchError) as caught:
        fetch([pin(b"a")], tmp_path, silent)
    assert "500 Internal Server Error" in str(caught.value)
    assert index.asked_for("/simple/demo/") == 3


def test_a_missing_package_or_file_says_where_it_was_looked_for(
    index: Server, tmp_path: Path
) -> None:
    with pytest.raises(FetchError) as caught:
        fetch([pin(b"a")], tmp_path, silent)
    package = pin(b"a")
    assert f"cannot fetch {WHEEL} (demo 1.0)" in str(caught.value)
    assert f"pinned: sha256 {package.sha256}, 1 bytes" in str(caught.value)
    assert "if you have a file with that sha256" in str(caught.value)
    assert "`invoke build --find FOLDER`" in str(caught.value)
    assert f"{index.url}/simple: no such package here: 404 Not Found" in str(caught.value)
    assert index.asked_for("/simple/demo/") == 1, "a 404 is not worth another try"

    index.list("demo", "demo-0.8.tar.gz", "demo-0.9.tar.gz")
    with pytest.raises(FetchError, match="lists 2 files of this package, not this one"):
        fetch([pin(b"a")], tmp_path, silent)

    index.list("demo", WHEEL)
    with pytest.raises(FetchError, match=rf"{WHEEL}: 404 Not Found"):
        fetch([pin(b"a")], tmp_path, silent)


def test_no_network_names_the_index_and_what_to_check(
    use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    use(PipConfig(indexes=("http://127.0.0.1:9/simple",), retries=0))
    with pytest.raises(FetchError) as caught:
        fetch([pin(b"a")], tmp_path, silent)
    assert "http://127.0.0.1:9/simple: no connection" in str(caught.value)
    assert "pip config list" in str(caught.value)


def test_passwords_stay_out_of_errors(
    server: Server, use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    secret = server.url.replace("http://", "http://user:hunter2@")
    use(PipConfig(indexes=(f"{secret}/simple",), retries=0))
    with pytest.raises(FetchError) as caught:
        fetch([pin(b"a")], tmp_path, silent)
    assert "hunter2" not in str(caught.value)
    assert server.url.removeprefix("http://") in str(caught.value)


def test_plain_http_needs_a_trusted_host(use: Callable[[PipConfig], None], tmp_path: Path) -> None:
    use(PipConfig(indexes=("http://index.invalid/simple",), retries=0))
    with pytest.raises(FetchError, match="not among pip's trusted hosts"):
        fetch([pin(b"a")], tmp_path, silent)


def test_folders_are_asked_before_the_network(
    server: Server, use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    content = b"local"
    links = tmp_path / "links"
    links.mkdir()
    (links / WHEEL).write_bytes(content)
    use(PipConfig(indexes=(f"{server.url}/simple",), find_links=(str(links),)))

    [path] = fetch([pin(content)], tmp_path / "downloads", silent)

    assert path.read_bytes() == content
    assert server.requests == []


def test_an_index_on_disk(use: Callable[[PipConfig], None], tmp_path: Path) -> None:
    content = b"on disk"
    page = tmp_path / "simple" / "demo"
    page.mkdir(parents=True)
    (page / WHEEL).write_bytes(content)
    (page / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    use(PipConfig(indexes=((tmp_path / "simple").as_uri(),)))

    [path] = fetch([pin(content)], tmp_path / "downloads", silent)

    assert path.read_bytes() == content


def test_another_build_of_the_same_name_in_a_folder_does_not_end_the_search(
    server: Server, use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    content = b"the pinned one"
    links = tmp_path / "links"
    links.mkdir()
    (links / WHEEL).write_bytes(b"a local rebuild")
    server.list("demo", WHEEL)
    server.serve(f"/files/{WHEEL}", content)
    use(PipConfig(indexes=(f"{server.url}/simple",), find_links=(str(links),)))

    [path] = fetch([pin(content)], tmp_path / "downloads", silent)

    assert path.read_bytes() == content


def test_nothing_configured(use: Callable[[PipConfig], None], tmp_path: Path) -> None:
    use(PipConfig())
    with pytest.raises(FetchError, match="nowhere to download"):
        fetch([pin(b"a")], tmp_path, silent)


def test_a_missing_certificate_file_is_named(
    use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    use(PipConfig(indexes=("https://index.invalid/simple",), cert=str(tmp_path / "ca.pem")))
    with pytest.raises(FetchError, match=r"ca\.pem.*certificates"):
        fetch([pin(b"a")], tmp_path, silent)


def test_a_failure_keeps_what_is_finished(
    index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.toolchain.download.WORKERS", 1)
    large, small = b"L" * 1000, b"s"
    index.list("good", "good-1.0.tar.gz")
    index.serve("/files/good-1.0.tar.gz", large)
    good = pin(large, "good-1.0.tar.gz", "good")

    with pytest.raises(FetchError):
        fetch([pin(small), good], tmp_path, silent)  # the largest goes first

    assert fetch_module.is_fetched(good, tmp_path)


def test_a_full_disk_is_a_store_error(
    index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.storage.files.sync_file", full)
    content = b"content"
    index.list("demo", WHEEL)
    index.serve(f"/files/{WHEEL}", content)
    with pytest.raises(StoreError, match="No space left on device"):
        fetch([pin(content)], tmp_path, silent)
    assert leftovers(tmp_path) == []


def test_ctrl_c_ends_at_once_although_the_server_is_silent(
    index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.toolchain.download._PATIENCE", 0.2)
    index.list("demo", WHEEL)
    hold = threading.Event()

    def silence(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"1")
        hold.wait(20)

    index.answers[f"/files/{WHEEL}"] = silence

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch([pin(b"12345")], tmp_path, interrupt)
    assert time.monotonic() - started < 10
    hold.set()


# -- files that have a URL -----------------------------------------------------------------------

ARCHIVE = "cuda_nvcc-1.0-archive.zip"


def at(server: Server, content: bytes) -> Download:
    digest = hashlib.sha256(content).hexdigest()
    url = f"{server.url}/redist/{ARCHIVE}"
    return Download("cuda_nvcc", "1.0", url, ARCHIVE, len(content), digest)


@pytest.fixture
def bare(server: Server, use: Callable[[PipConfig], None]) -> Server:
    """A server, and pip configured with no index at all."""
    use(PipConfig(retries=2, timeout=5.0))
    return server


def test_a_file_comes_from_its_url_without_any_index(bare: Server, tmp_path: Path) -> None:
    content = b"archive" * 1000
    bare.serve(f"/redist/{ARCHIVE}", content)
    events: list[Event] = []

    [path] = fetch([at(bare, content)], tmp_path, events.append)

    assert path == tmp_path / hashlib.sha256(content).hexdigest() / ARCHIVE
    assert path.read_bytes() == content
    assert events[-1] == Progress("download", len(content), len(content))
    assert leftovers(tmp_path) == []


def test_a_package_may_have_a_url_beside_others_of_the_index(index: Server, tmp_path: Path) -> None:
    wheel = "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl"
    content, listed = b"torch", b"listed"
    index.list("demo", WHEEL)
    index.serve(f"/files/{WHEEL}", listed)
    index.serve("/whl/" + wheel.replace("+", "%2B"), content)
    torch = Package(
        "torch", "2.1.1+cu121", wheel, len(content), hashlib.sha256(content).hexdigest(),
        "runtime", f"{index.url}/whl/{wheel.replace('+', '%2B')}",
    )  # fmt: skip

    first, second = fetch([pin(listed), torch], tmp_path, silent)

    assert (first.read_bytes(), second.read_bytes()) == (listed, content)
    assert second.name == wheel
    assert index.asked_for("/simple/torch/") == 0, "its place is the URL, not the index"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(bare: Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10
    bare.answers[f"/redist/{ARCHIVE}"] = ranged(content, sent=1000)

    [path] = fetch([at(bare, content)], tmp_path, silent)

    assert path.read_bytes() == content
    assert bare.asked_for(f"/redist/{ARCHIVE}") == 3, "2560 bytes in pieces of 1000"


def test_a_server_that_resumes_somewhere_else_is_refused(bare: Server, tmp_path: Path) -> None:
    content = b"0123456789"

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 7-9/10")
        handler.send_header("Content-Length", "3")
        handler.end_headers()
        handler.wfile.write(content[7:])

    bare.answers[f"/redist/{ARCHIVE}"] = in_turn(cut_short(content, 5), elsewhere)
    with pytest.raises(FetchError, match="asked for byte 5 and sends byte 7"):
        fetch([at(bare, content)], tmp_path, silent)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (b"evil", hashlib.sha256(b"evil").hexdigest()),  # sha256sum says the same
        (b"good and more", "more than 4 bytes"),
    ],
)
def test_another_file_at_the_url_is_refused(
    bare: Server, tmp_path: Path, received: bytes, said: str
) -> None:
    bare.serve(f"/redist/{ARCHIVE}", received)
    with pytest.raises(HashMismatchError) as caught:
        fetch([at(bare, b"good")], tmp_path, silent)
    assert said in str(caught.value)
    assert f"{bare.url}/redist/{ARCHIVE}" in str(caught.value)
    assert leftovers(tmp_path) == []


def test_too_short_a_file_at_the_url_is_told_with_both_sizes(bare: Server, tmp_path: Path) -> None:
    bare.serve(f"/redist/{ARCHIVE}", b"go")
    with pytest.raises(FetchError, match=r"ended after 2 of 4 bytes \(3 tries\)"):
        fetch([at(bare, b"good")], tmp_path, silent)


def test_a_url_that_is_gone(bare: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="404 Not Found") as caught:
        fetch([at(bare, b"good")], tmp_path, silent)
    assert f"cannot fetch {ARCHIVE} (cuda_nvcc 1.0)" in str(caught.value)
    assert "`invoke build --find FOLDER`" in str(caught.value)
    assert bare.asked_for(f"/redist/{ARCHIVE}") == 1


def test_a_host_that_does_not_answer(use: Callable[[PipConfig], None], tmp_path: Path) -> None:
    use(PipConfig(retries=0))
    gone = Download("a", "1", "http://127.0.0.1:9/a-1.zip", "a-1.zip", 1, "0" * 64)
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9/a-1\.zip: no connection"):
        fetch([gone], tmp_path, silent)


def test_what_is_not_locked_is_refused_before_anything_is_fetched(
    bare: Server, tmp_path: Path
) -> None:
    known = at(bare, b"known")
    unknown = [
        Download("a", "1", f"{bare.url}/a-1.zip", "a-1.zip", 0, ""),
        Download("b", "1", f"{bare.url}/b-1.zip", "b-1.zip", 5, ""),
    ]
    with pytest.raises(ToolchainError) as caught:
        fetch([known, *unknown], tmp_path, silent, toolchain="windows-x")
    assert caught.value.details == ("a-1.zip", "b-1.zip")
    assert caught.value.hint == "invoke lock --toolchain windows-x"
    assert bare.requests == []


@pytest.mark.parametrize(("answer", "whole"), [(body, 5000), (without_length, 0)])
def test_a_file_whose_size_nobody_pinned_is_known_by_its_sha256(
    bare: Server, tmp_path: Path, answer: Callable[[bytes], Answer], whole: int
) -> None:
    content = bytes(5000)
    wanted = replace(at(bare, content), size=0)
    bare.answers[f"/redist/{ARCHIVE}"] = answer(content)
    events: list[Event] = []

    [path] = fetch([wanted], tmp_path, events.append)

    assert path.read_bytes() == content
    steps = [event for event in events if isinstance(event, Progress)]
    assert {step.total for step in steps if step.done < 5000} <= {0, whole}
    assert (steps[-1].done, steps[-1].total) == (5000, 5000)
    path.write_bytes(bytes(4999))
    fetch([wanted], tmp_path, silent)
    assert path.read_bytes() == content, "a damaged one was taken for it"
    bare.answers[f"/redist/{ARCHIVE}"] = answer(b"another")
    path.unlink()
    with pytest.raises(HashMismatchError, match="of any size"):
        fetch([wanted], tmp_path, silent)
    assert leftovers(tmp_path) == []


def test_a_file_whose_size_nobody_pinned_has_an_end(
    bare: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.toolchain.download._LARGEST", 4999)
    content = bytes(5000)
    wanted = replace(at(bare, content), size=0)
    for answer in (body(content), without_length(content)):
        bare.answers[f"/redist/{ARCHIVE}"] = answer
        with pytest.raises(HashMismatchError, match="more than 4999 bytes"):
            fetch([wanted], tmp_path, silent)
    assert leftovers(tmp_path) == []


def test_a_file_whose_size_nobody_pinned_is_taken_up_where_it_broke_off(
    bare: Server, tmp_path: Path
) -> None:
    content = b"0123456789" * 500
    wanted = replace(at(bare, content), size=0)
    bare.answers[f"/redist/{ARCHIVE}"] = in_turn(ranged(content, 700), ranged(content, 9000))
    [path] = fetch([wanted], tmp_path, silent)
    assert path.read_bytes() == content


def test_a_lock_s_own_places_are_refused_all_at_once_before_anything_is_fetched(
    bare: Server, tmp_path: Path
) -> None:
    known = frozenset({"files.example"})
    urls = {
        "a-1.zip": "https://stranger.example/a-1.zip",
        "b-1.zip": f"{bare.url}/b-1.zip",
        "c-1.zip": "ftp://files.example/c-1.zip",
        "d-1.zip": "https://files.example/d-1.zip",
        "e-1.zip": "https://user:hunter2@other.example:8443/e-1.zip",
        "f-1.zip": "https://[::1/hunter2",
    }
    pins = [
        Download(name[0], "1", url, name, 1, f"{number:064x}", known)
        for number, (name, url) in enumerate(urls.items())
    ]
    with pytest.raises(FetchError) as caught:
        fetch(pins, tmp_path, silent)
    refused = [line.partition(":")[0] for line in caught.value.details]
    assert refused == ["a-1.zip", "b-1.zip", "c-1.zip", "e-1.zip", "f-1.zip"]
    assert caught.value.details[0] == "a-1.zip: stranger.example"
    assert caught.value.details[1] == f"b-1.zip: {bare.url}"
    assert "other.example:8443" in caught.value.details[3]
    assert "user" not in caught.value.details[3]
    assert "--find FOLDER" in (caught.value.hint or "")
    assert "your own toolchain file" in (caught.value.hint or "")
    assert bare.requests == []


def test_a_lock_s_file_that_is_there_may_come_from_anywhere(
    use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    use(PipConfig())
    content = b"archive"
    url = f"https://stranger.example/{ARCHIVE}"
    digest = hashlib.sha256(content).hexdigest()
    locked = Download("a", "1", url, ARCHIVE, len(content), digest, frozenset())
    (tmp_path / digest).mkdir()
    (tmp_path / digest / ARCHIVE).write_bytes(content)
    [path] = fetch([locked], tmp_path, silent)
    assert path.read_bytes() == content


def test_a_lock_s_file_may_lie_on_the_user_s_index(
    index: Server, use: Callable[[PipConfig], None], tmp_path: Path
) -> None:
    """Without a URL, it is asked for by name, as ever."""
    content = b"content"
    index.list("demo", WHEEL)
    index.serve(f"/files/{WHEEL}", content)
    [path] = fetch([replace(pin(content), hosts=frozenset())], tmp_path, silent)
    assert path.read_bytes() == content
